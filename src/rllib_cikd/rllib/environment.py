"""Makes the user's environment from a config: by id, registered name, class, or class path."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.tune.registry import ENV_CREATOR, _global_registry

from rllib_cikd.common.errors import EnvironmentFault
from rllib_cikd.rllib import mujoco_messages
from rllib_cikd.rllib.alarm import Alarm
from rllib_cikd.rllib.task import Task

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

#: The id of the one agent that RLlib's multi-agent runner sees.
AGENT_ID = "agent_0"

#: Names that tell a parameter for the whole `env_config` from a setting in it.
_CONFIG_NAMES = ("config", "env_config", "env_context", "context", "cfg", "conf", "ctx")


def create_env(
    config: AlgorithmConfig, worker_index: int = 0, render_mode: str | None = None
) -> gym.Env:
    """As `make_task`; returns the environment itself, checked."""
    return make_task(config, worker_index, render_mode=render_mode).env


def make_task(
    config: AlgorithmConfig,
    worker_index: int = 0,
    vector_index: int = 0,
    render_mode: str | None = None,
) -> Task:
    """Makes one environment of `config.env`, and what the members see of it.

    Args:
        config: Any RLlib config; `env` is a Gymnasium id, a name registered with
            `ray.tune.register_env`, an env class, or the dotted path of one.
        worker_index: Index of the env runner, in the `EnvContext` of registered names and of
            classes in RLlib's form.
        vector_index: Index of the environment in its env runner, in the same place.
        render_mode: Takes the place of `env_config["render_mode"]`, for a video.

    Raises:
        EnvironmentFault: If the environment cannot be made or used.
    """
    context = EnvContext(
        config.env_config or {},
        worker_index=worker_index,
        vector_index=vector_index,
        num_workers=config.num_env_runners,
    )
    name = env_name(config)
    # Of a remote env runner, the main process waits for the answer.
    timeout = config.sample_timeout_s if worker_index == 0 else None
    with Alarm(timeout, name), mujoco_messages.silenced(config.env):
        env = _make(config.env, name, context, render_mode)
    if isinstance(env, MultiAgentEnv) or not isinstance(env, gym.Env):
        raise EnvironmentFault(
            f"env={name!r} makes a {type(env).__name__}, not a single-agent "
            "`gymnasium.Env`. CIKD's members learn one single-agent task together: give the "
            "single-agent environment itself, the ensemble is added for you."
        )
    return Task(env, name, timeout)


def env_name(config: AlgorithmConfig) -> str:
    """How messages call the environment."""
    return getattr(config.env, "__name__", None) or str(config.env)


def _make(env: Any, name: str, context: EnvContext, render_mode: str | None) -> Any:
    if isinstance(env, str) and _global_registry.contains(ENV_CREATOR, env):
        if render_mode is not None:
            context["render_mode"] = render_mode
        return _global_registry.get(ENV_CREATOR, env)(context)
    if isinstance(env, str) and "." in env and env not in gym.registry:
        found = _class_at(env)
        if found is not None:
            return _instance(found, name, context, render_mode)
    if isinstance(env, str):
        return _from_gymnasium(env, context, render_mode)
    if inspect.isclass(env):
        return _instance(env, name, context, render_mode)
    raise EnvironmentFault(
        f"env={env!r} is not supported: give a Gymnasium id, a name registered with "
        "`ray.tune.register_env`, an env class, or its path (`my_module.MyEnv`)."
    )


def _from_gymnasium(env_id: str, context: EnvContext, render_mode: str | None) -> gym.Env:
    settings = dict(context) | ({} if render_mode is None else {"render_mode": render_mode})
    try:
        return gym.make(env_id, **settings)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise EnvironmentFault(
            f"env={env_id!r}: {error}, and gets env_config={dict(context)!r} as keywords. Leave "
            "out what the environment does not know."
        ) from error
    except gym.error.Error as error:
        raise EnvironmentFault(
            f"env={env_id!r} is neither a Gymnasium id nor a name registered with "
            f"`ray.tune.register_env` in this process ({error}). Check the spelling, or "
            "register it before the algorithm is built; for the `rllib` command, in a module "
            "that is given with --import."
        ) from error


def _class_at(path: str) -> type | None:
    """The class at `module.Class`; None if the path is none (as in "ALE/Pong-v5", "m.n:Id-v0")."""
    module_name, _, class_name = path.rpartition(".")
    if not class_name.isidentifier() or not all(p.isidentifier() for p in module_name.split(".")):
        return None
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            f"env={path!r} reads like the path of a class, but {error}. Check the spelling, and "
            "that the module's folder is on PYTHONPATH."
        ) from error
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        raise EnvironmentFault(
            f"env={path!r}: the module {module_name!r} has no class {class_name!r}."
        )
    return found


def _instance(cls: Any, name: str, context: EnvContext, render_mode: str | None) -> Any:
    """An instance of an env class in RLlib's form, `__init__(self, config)`, or in Gymnasium's.

    In Gymnasium's form the parameters are settings, and `env_config` goes to them by name.
    """
    parameters = _parameters(cls)
    whole = _config_parameter(parameters, context)
    named = {
        n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    settings: dict[str, Any] = {} if whole else dict(context)
    if render_mode is not None:
        if "render_mode" in named or takes_all:
            settings["render_mode"] = render_mode
        else:
            context["render_mode"] = render_mode
    unknown = [key for key in settings if key not in named and not takes_all]
    missing = [
        n
        for n, p in parameters.items()
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and n not in settings
        and n != whole
    ]
    if unknown or missing:
        wrong = [f"has no parameter {unknown}"] if unknown else []
        wrong += [f"needs {missing}"] if missing else []
        signature = ", ".join(["self", *map(str, parameters.values())])
        got = "the whole of" if whole else "as keywords"
        raise EnvironmentFault(
            f"env={name!r}: `__init__({signature})` {' and '.join(wrong)}, and gets {got} "
            f"env_config={dict(context)!r}. Change `env_config`, or write "
            "`__init__(self, config)` and take everything from there."
        )
    if whole is None:
        return cls(**settings)
    if parameters[whole].kind is inspect.Parameter.KEYWORD_ONLY or whole != next(iter(parameters)):
        return cls(**{whole: context}, **settings)
    return cls(context, **settings)


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The parameters of a class's constructor; of one that only passes them on, its base's."""
    passes_on = False
    for base in cls.__mro__[:-1]:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]  # type: ignore[misc]
        if [p.kind for p in parameters] != [
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ]:
            return {p.name: p for p in parameters}
        passes_on = True
    # It takes whatever it gets: then, as RLlib documents it, the config.
    config = inspect.Parameter("config", inspect.Parameter.POSITIONAL_ONLY)
    return {"config": config} if passes_on else {}


def _config_parameter(
    parameters: Mapping[str, inspect.Parameter], context: Mapping[str, Any]
) -> str | None:
    """The parameter that takes the whole `env_config`, as RLlib passes it; None for keywords."""
    for name in _CONFIG_NAMES:
        if name in parameters and name not in context:
            return name
    positional = [
        p
        for p in parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != "render_mode"
    ]
    required = [p for p in positional if p.default is p.empty]
    if (
        not required
        and len(positional) == 1
        and len(context)
        and context.keys().isdisjoint(parameters)
    ):
        # `def __init__(self, c=None)`: whatever its name, these settings are for it.
        empty = positional[0].default is None or positional[0].default == {}
        return positional[0].name if empty else None
    if len(required) != 1 or required[0].name in context:
        return None
    plain = required[0].annotation in (int, float, str, bool, "int", "float", "str", "bool")
    return None if plain else required[0].name
