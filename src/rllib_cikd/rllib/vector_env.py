"""The environments of one env runner, in the dress of RLlib's multi-agent environments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.vector.vector_multi_agent_env import VectorMultiAgentEnv

from rllib_cikd.rllib.environment import AGENT_ID
from rllib_cikd.rllib.task import Task

#: A call into a user's environment.
Call = Callable[[gym.Env], Any]


class CallLog:
    """Calls into the user's environments, to be repeated in environments made later.

    Calls between two samples are all kept, in order. Of those that callbacks make while sampling,
    once in every step maybe, the last of each name is.
    """

    def __init__(self) -> None:
        self.sampling = False
        self._calls: dict[Any, tuple[int, Call]] = {}
        self._count = 0
        self._paused = False

    def add(self, name: str, call: Call) -> None:
        """Remembers a call."""
        if self._paused:
            return
        self._count += 1
        key = name if self.sampling else self._count
        self._calls.pop(key, None)
        self._calls[key] = (self._count, call)

    def run(self, name: str, call: Call, envs: Sequence[Any]) -> list[Any]:
        """Remembers a call and makes it now; calls that it makes are part of it."""
        self.add(name, call)
        paused, self._paused = self._paused, True
        try:
            return [call(env) for env in envs]
        finally:
            self._paused = paused

    def since(self, count: int = 0) -> tuple[list[Call], int]:
        """The calls after the first `count`, and how many there have been by now."""
        return [call for number, call in self._calls.values() if number > count], self._count

    def repeat(self, envs: Sequence[Any], count: int = 0) -> int:
        """Makes the calls after the first `count` again; returns how many there have been."""
        calls, total = self.since(count)
        paused, self._paused = self._paused, True
        try:
            for env in envs:
                for call in calls:
                    call(env)
        finally:
            self._paused = paused
        return total


class SingleAgentAsMulti(MultiAgentEnv):
    """One single-agent task as the multi-agent environment that RLlib's runner expects.

    Done flags are given for `"__all__"` only. With per-agent flags RLlib's episode would
    store every time limit as a termination, and critics would stop bootstrapping there.

    Attributes and methods that are not RLlib's reach the user's environment, through its
    wrappers; `env` is that environment itself.

    Args:
        task: The task.
        log: Where calls through this object are remembered, if anywhere.
    """

    def __init__(self, task: Task, log: CallLog | None = None):
        super().__init__()
        self._log = log
        self.agents = self.possible_agents = [AGENT_ID]
        self.observation_spaces = {AGENT_ID: task.observations.member_space}
        self.action_spaces = {AGENT_ID: task.actions.member_space}
        self.task = task  # the last one: from here on, attributes are the user's

    @property
    def env(self) -> gym.Env:
        return self.task.env

    @property
    def render_mode(self) -> Any:  # type: ignore[override]
        return self.env.render_mode

    @property
    def np_random(self) -> Any:
        return self.env.np_random

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        observation, info = self.task.reset(seed=seed)
        return {AGENT_ID: observation}, {AGENT_ID: info}

    def step(self, action_dict: dict[str, Any]):
        observation, reward, terminated, truncated, info = self.task.step(action_dict[AGENT_ID])
        return (
            {AGENT_ID: observation},
            {AGENT_ID: reward},
            {"__all__": terminated},
            {"__all__": truncated and not terminated},
            {AGENT_ID: info},
        )

    def render(self):
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "task" not in vars(self):
            raise AttributeError(name)
        value = self.env.get_wrapper_attr(name)
        if self._log is None or not callable(value):
            return value

        @functools.wraps(value)
        def call_and_remember(*args: Any, **kwargs: Any) -> Any:
            call = functools.partial(call_method, name=name, args=args, kwargs=kwargs)
            assert self._log is not None
            return self._log.run(name, call, [self])[0]

        return call_and_remember

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "task" or name.startswith("_") or "task" not in vars(self):
            object.__setattr__(self, name, value)
            return
        call = functools.partial(set_attribute, name=name, value=value)
        if self._log is not None:
            self._log.add(f"set {name}", call)
        call(self)


def call_method(env: SingleAgentAsMulti, name: str, args: Any, kwargs: Any) -> Any:
    """The result of the user's method, or the user's attribute of that name."""
    value = env.env.get_wrapper_attr(name)
    return value(*args, **kwargs) if callable(value) else value


def set_attribute(env: SingleAgentAsMulti, name: str, value: Any) -> None:
    """Sets an attribute where the user's environment, or one of its wrappers, has it."""
    if not env.env.set_wrapper_attr(name, value, force=False):
        setattr(env.env.unwrapped, name, value)


class TaskVectorEnv(VectorMultiAgentEnv):
    """Environments that are stepped one after the other; each starts anew after its last step.

    As in RLlib's own, the step after the end of an episode is the reset of the next one, and
    whatever action comes with it is not looked at.

    Args:
        envs: The environments.
        log: Where `call`, `set_attr` and `foreach` are remembered, if anywhere.
    """

    def __init__(self, envs: list[SingleAgentAsMulti], log: CallLog | None = None):
        super().__init__()
        self.envs = envs
        self.num_envs = len(envs)
        self.metadata = envs[0].env.metadata
        self.render_mode = envs[0].render_mode
        self.single_observation_spaces: dict[str, gym.Space] = dict(envs[0].observation_spaces)
        self.single_action_spaces: dict[str, gym.Space] = dict(envs[0].action_spaces)
        self.single_observation_space = gym.spaces.Dict(self.single_observation_spaces)
        self.single_action_space = gym.spaces.Dict(self.single_action_spaces)
        self._log = log or CallLog()
        self._ended = [False] * self.num_envs
        self.current = 0  #: index of the environment stepped or reset last
        self.steps = 0  #: environment steps so far, of all environments

    @property
    def all_ended(self) -> bool:
        """Whether every environment has ended an episode and not begun the next one."""
        return all(self._ended)

    def reset(self, *, seed: Sequence[int] | int | None = None, options: dict | None = None):
        if isinstance(seed, int):
            seed = [seed + i for i in range(self.num_envs)]
        self._ended = [False] * self.num_envs
        results = []
        for i, env in enumerate(self.envs):
            self.current = i
            results.append(env.reset(seed=None if seed is None else seed[i], options=options))
        observations, infos = zip(*results, strict=True)
        return list(observations), list(infos)

    def step(self, actions: Sequence[dict[str, Any]]):
        results = []
        for i, env in enumerate(self.envs):
            self.current = i
            if self._ended[i]:
                observations, infos = env.reset()
                going_on = {AGENT_ID: False, "__all__": False}
                results.append((observations, {AGENT_ID: 0.0}, going_on, dict(going_on), infos))
                self._ended[i] = False
                continue
            self.steps += 1
            result = env.step(actions[i])
            self._ended[i] = result[2]["__all__"] or result[3]["__all__"]
            results.append(result)
        return tuple(map(list, zip(*results, strict=True)))

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Calls a method of every user's environment (or reads an attribute)."""
        call = functools.partial(call_method, name=name, args=args, kwargs=kwargs)
        return tuple(self._log.run(name, call, self.envs))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of every user's environment."""
        return tuple(env.env.get_wrapper_attr(name) for env in self.envs)

    def set_attr(self, name: str, values: Any) -> None:
        """Sets an attribute of every user's environment: to one value, or a list of one each.

        Of a list, evaluation environments made later get the first value.

        Raises:
            ValueError: If a list has not one value for each environment.
        """
        if not isinstance(values, (list, tuple)):
            self._log.run(
                f"set {name}", functools.partial(set_attribute, name=name, value=values), self.envs
            )
            return
        if len(values) != self.num_envs:
            raise ValueError(
                f"set_attr({name!r}): {len(values)} values for {self.num_envs} environments; give "
                "one value for all, or one each."
            )
        self._log.add(f"set {name}", functools.partial(set_attribute, name=name, value=values[0]))
        for env, value in zip(self.envs, values, strict=True):
            set_attribute(env, name, value)

    def foreach(self, call: Call) -> list[Any]:
        """Calls a function with every environment."""
        return self._log.run("foreach_env", call, self.envs)

    def render(self) -> tuple[Any, ...]:
        return tuple(env.render() for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        for env in self.envs:
            env.close()
