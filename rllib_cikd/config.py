"""`CIKDConfig`: every setting of the algorithm, its default, and the check of all of them."""

from __future__ import annotations

import difflib
import logging
from dataclasses import asdict, is_dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.connectors.env_to_module import (
    AddStatesFromEpisodesToBatch,
    AddTimeDimToBatchAndZeroPad,
)
from ray.rllib.connectors.module_to_env import GetActions, RemoveSingleTsTimeRankFromBatch
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.annotations import override

from rllib_cikd.algorithm.knowledge_sharing import DISTILLATION_TARGETS, KNOWLEDGE_SHARINGS
from rllib_cikd.algorithm.policy_selection import POLICY_SELECTIONS, acting_member, policy_ids
from rllib_cikd.algorithm.teacher_election import TEACHER_ELECTIONS
from rllib_cikd.engine.perceptrons import ACTIVATIONS
from rllib_cikd.rllib.env_runner import CIKDEnvRunner
from rllib_cikd.rllib.learner import CIKDTorchLearner
from rllib_cikd.rllib.sac_module import DEFAULT_MODEL_CONFIG, SACModule

if TYPE_CHECKING:
    from rllib_cikd.cikd import CIKD

#: SAC's settings that may differ between members (`algorithm_config_overrides_per_module`).
PER_MEMBER_SETTINGS = (
    "actor_lr",
    "critic_lr",
    "alpha_lr",
    "gamma",
    "tau",
    "target_entropy",
    "grad_clip",
)

#: RLlib settings that CIKD cannot honour, with what to do instead. They must keep their default.
_UNSUPPORTED = {
    "train_batch_size": "use `train_batch_size_per_learner`",
    "num_gpus": "use `num_gpus_per_learner`",
    "optimization": "use `actor_lr`, `critic_lr` and `alpha_lr`",
    "q_model_config": "use `model_config`: {fcnet_hiddens: …, fcnet_activation: …}",
    "policy_model_config": "use `model_config`: {fcnet_hiddens: …, fcnet_activation: …}",
    "twin_q": "SAC's twin critics are part of the algorithm",
    "target_network_update_freq": "target networks follow by `tau` after every gradient step",
    "grad_clip_by": "gradients are clipped by each network's norm; set only `grad_clip`",
    "_use_beta_distribution": "policies are squashed Gaussians",
    "_deterministic_loss": "the loss samples actions from the policy",
    "policies_to_train": "all members are trained",
    "observation_fn": "wrap the environment with a `gymnasium.ObservationWrapper`",
    "count_steps_by": "all counters are environment steps",
    "batch_mode": "transitions are used as they come; leave it at 'truncate_episodes'",
    "normalize_actions": "policies act in [-1, 1] and are always mapped to the action bounds",
    "create_local_env_runner": "the local env runner keeps the generators' state",
    "num_aggregator_actors_per_learner": "transitions go straight to the learner",
    "custom_evaluation_function": "use `evaluation_duration` and the `on_evaluate_end` callback",
    "evaluation_parallel_to_training": "members are evaluated between training iterations",
    "evaluation_duration_unit": "evaluation counts episodes of every member",
    "_env_to_module_connector": "wrap the environment with a `gymnasium.ObservationWrapper`",
    "_module_to_env_connector": "wrap the environment with a `gymnasium.ActionWrapper`",
    "_learner_connector": "wrap the environment; the learner reads transitions, not episodes",
}

#: Names that other programs, or RLlib's old API stack, use for settings CIKD has.
_OTHER_NAMES = {
    "buffer_size": "replay_buffer_config: {capacity: …}",
    "learning_starts": "num_steps_sampled_before_learning_starts",
    "timesteps_per_iteration": "min_sample_timesteps_per_iteration",
    "batch_size": "train_batch_size_per_learner",
    "fcnet_hiddens": "model_config: {fcnet_hiddens: …}",
    "fcnet_activation": "model_config: {fcnet_activation: …}",
}

#: Keys of RLlib's config dicts that are no attributes.
_SPECIAL_KEYS = {"class", "multiagent", "_enable_new_api_stack", "model_config"}


class CIKDConfig(SACConfig):
    """Settings of CIKD: those of SAC, with the paper's defaults, and the following.

    Differences from `SACConfig`:

    - `ensemble_size` agents learn one single-agent task; their policies ("policy_0" …) and
      who acts when are generated. The environment needs no wrapping.
    - Defaults are SAC's published ones: all step sizes 3e-4, ReLU networks with two hidden
      layers of 256, uniform replay of 1e6 transitions, half the squared TD error, and one
      gradient step of every member per environment step after `random_steps`.
    - An iteration is 1000 environment steps, whatever time they take, so that
      `evaluation_interval=10` means every 10,000 steps. Evaluation acts deterministically.
    """

    def __init__(self, algo_class: type[CIKD] | None = None):
        if algo_class is None:
            from rllib_cikd.cikd import CIKD as algo_class
        super().__init__(algo_class=algo_class)

        # The ensemble (paper's section on CIKD: K, I and M are its published values).
        self.ensemble_size = 3
        self.policy_selection = "uniform"
        self.return_window = 5
        self.distillation_interval = 5_000
        self.knowledge_sharing = "distillation"
        self.distillation_targets = "policy_and_critic"
        self.teacher_election = "best"
        self.reset_students = False
        self.distillation_lr = 1e-3
        self.distillation_batch_size = 256
        self.distillation_epochs: int | None = None
        self.distillation_updates = 300
        self.assess_distillation = False
        self.random_steps = 10_000

        # SAC's published values where RLlib's differ.
        self.actor_lr = 3e-4
        self.num_steps_sampled_before_learning_starts: int | None = None  # random_steps
        self.replay_buffer_config = {"type": "EpisodeReplayBuffer", "capacity": 1_000_000}
        self.store_buffer_in_checkpoints = True

        # A fragment is sampled, then learned from. Per-call costs are paid once a fragment.
        self.rollout_fragment_length = 50
        self.env_runner_cls = CIKDEnvRunner
        self.disable_env_checking = True  # RLlib's check would leave every env at seed 42
        self.min_time_s_per_iteration = None
        self.min_sample_timesteps_per_iteration = 1_000
        self.evaluation_duration = 20
        self.evaluation_config = {"explore": False}

    @override(SACConfig)
    def training(
        self,
        *,
        ensemble_size: int = NotProvided,
        policy_selection: str = NotProvided,
        return_window: int = NotProvided,
        distillation_interval: int = NotProvided,
        knowledge_sharing: str = NotProvided,
        distillation_targets: str = NotProvided,
        teacher_election: str = NotProvided,
        reset_students: bool = NotProvided,
        distillation_lr: float = NotProvided,
        distillation_batch_size: int = NotProvided,
        distillation_epochs: int | None = NotProvided,
        distillation_updates: int = NotProvided,
        assess_distillation: bool = NotProvided,
        random_steps: int = NotProvided,
        **kwargs,
    ) -> CIKDConfig:
        """Sets the training-related settings.

        Args:
            ensemble_size: K, the number of SAC agents; 1 is Vanilla-SAC, without election and
                distillation.
            policy_selection: Who acts in the next episode: "uniform", "softmax" over R_k, or
                "epsilon_greedy" (see `policy_selection.selection_probabilities`).
            return_window: M; R_k is the mean return of member k's last M finished training
                episodes.
            distillation_interval: I, in environment steps.
            knowledge_sharing: What happens every I steps: "distillation"; "hard_copy" (students
                become the teacher); "extra_updates" (as many additional SAC steps of every
                member as distillation would take); "none" (Ensemble-SAC).
            distillation_targets: What is distilled or copied: "policy_and_critic", "policy" or
                "critic".
            teacher_election: "best" (highest R_k), "random" or "worst".
            reset_students: Draw the students' networks anew just before distillation.
            distillation_lr: Step size of the distillation's Adam, fresh in every phase.
            distillation_batch_size: Minibatch size of the distillation.
            distillation_epochs: Passes over the whole buffer in one phase; None: take
                `distillation_updates` steps on minibatches drawn uniformly.
            distillation_updates: Gradient steps in one phase without `distillation_epochs`.
            assess_distillation: Evaluate every member just before and just after each phase
                (`evaluation_duration` episodes of each).
            random_steps: Actions are uniform random until this many environment steps; also
                when learning starts, unless `num_steps_sampled_before_learning_starts` is set.
            **kwargs: SAC's own settings, by RLlib's names for them.

        Returns:
            This updated config.
        """
        settings = {
            name: value
            for name, value in locals().items()
            if name not in ("self", "kwargs", "__class__")
        }
        super().training(**kwargs)
        for name, value in settings.items():
            if value is not NotProvided:
                setattr(self, name, value)
        return self

    @property
    def learning_starts_at(self) -> int:
        """Transitions in the buffer before the first gradient step."""
        if self.num_steps_sampled_before_learning_starts is None:
            return self.random_steps
        return self.num_steps_sampled_before_learning_starts

    @property
    def updates_per_step(self) -> float:
        """Gradient steps of every member per environment step: 1, or by `training_intensity`."""
        if self.training_intensity is None:
            return 1.0
        return self.training_intensity / self.train_batch_size_per_learner

    @override(SACConfig)
    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=SACModule)

    @override(SACConfig)
    def get_default_learner_class(self) -> type[CIKDTorchLearner]:
        return CIKDTorchLearner

    @property
    @override(SACConfig)
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return DEFAULT_MODEL_CONFIG | {"initial_alpha": self.initial_alpha}

    @override(AlgorithmConfig)
    def update_from_dict(self, config_dict: dict[str, Any]) -> CIKDConfig:
        """Sets fields from a plain dict, as YAML files and Tune give it.

        Raises:
            ValueError: If a key is unknown; the message suggests the right one.
        """
        properties = {name for name in dir(type(self)) if _has_setter(type(self), name)}
        known = set(vars(self)) | set(self.to_dict()) | properties | _SPECIAL_KEYS
        for key in config_dict:
            if key.startswith("__"):  # Tune's own notes to its trials
                continue
            foreign = key in _OTHER_NAMES
            if not foreign and self._translate_special_keys(key, warn_deprecated=False) in known:
                continue
            if foreign:
                remedy = f"Here it is `{_OTHER_NAMES[key]}`."
            else:
                usable = [k for k in known - set(_UNSUPPORTED) if not k.startswith("_")]
                close = difflib.get_close_matches(key, usable, n=1)
                remedy = f"Did you mean {close[0]!r}?" if close else "No setting is close to it."
            raise ValueError(f"Unknown config key {key!r}. {remedy}")
        settings = dict(config_dict)
        model_config = settings.pop("model_config", None)
        if model_config is not None:
            self.rl_module(model_config=model_config)
        return super().update_from_dict(settings)

    # Members are stateless and answer with actions, so some of RLlib's connectors have nothing to
    # do. Each of them costs 10 to 20 microseconds for every action taken.

    @override(SACConfig)
    def build_env_to_module_connector(self, *args, **kwargs) -> Any:
        pipeline = super().build_env_to_module_connector(*args, **kwargs)
        pipeline.remove(AddTimeDimToBatchAndZeroPad)
        pipeline.remove(AddStatesFromEpisodesToBatch)
        return pipeline

    @override(SACConfig)
    def build_module_to_env_connector(self, *args, **kwargs) -> Any:
        pipeline = super().build_module_to_env_connector(*args, **kwargs)
        pipeline.remove(RemoveSingleTsTimeRankFromBatch)
        pipeline.remove(GetActions)
        return pipeline

    @override(SACConfig)
    def validate(self) -> None:
        """Checks every setting and generates what follows from them.

        Raises:
            ValueError: At the first bad value or combination; the message names the field, its
                value and the remedy.
        """
        if not self.in_evaluation:  # RLlib derives the evaluation's copy from a checked config
            self._check_values()
            self._check_combinations()
            self._check_members()
            self._check_unsupported()
        self.multi_agent(policies=policy_ids(self.ensemble_size), policy_mapping_fn=acting_member)
        super().validate()

    def _check_values(self) -> None:
        self._check_integer("ensemble_size", 1)
        self._check_choice("policy_selection", POLICY_SELECTIONS)
        self._check_integer("return_window", 1)
        self._check_integer("distillation_interval", 1)
        self._check_choice("knowledge_sharing", KNOWLEDGE_SHARINGS)
        self._check_choice("distillation_targets", DISTILLATION_TARGETS)
        self._check_choice("teacher_election", TEACHER_ELECTIONS)
        self._check_bool("reset_students")
        self._check_number("distillation_lr", above=0.0)
        self._check_integer("distillation_batch_size", 1)
        self._check_integer("distillation_epochs", 1, optional=True)
        self._check_integer("distillation_updates", 1)
        self._check_bool("assess_distillation")
        self._check_integer("random_steps", 0)
        self._check_integer("num_steps_sampled_before_learning_starts", 0, optional=True)
        self._check_integer("train_batch_size_per_learner", 1)
        self._check_integer("n_step", 1)
        self._check_integer("evaluation_duration", 1)
        self._check_bool("store_buffer_in_checkpoints")
        self._check_number("training_intensity", above=0.0, optional=True)
        self._check_number("initial_alpha", above=0.0)
        if not isinstance(self.rollout_fragment_length, Integral):
            self._reject("rollout_fragment_length", "must be an integer of at least 1 (default 50)")
        self._check_integer("rollout_fragment_length", 1)
        self._check_sac_settings()

    def _check_sac_settings(self) -> None:
        for name in ("actor_lr", "critic_lr", "alpha_lr"):
            if not isinstance(getattr(self, name), (list, tuple)):  # a schedule: RLlib checks it
                self._check_number(name, above=0.0)
        self._check_number("gamma", above=-1e-12, at_most=1.0)
        self._check_number("tau", above=0.0, at_most=1.0)
        self._check_number("grad_clip", above=0.0, optional=True)
        if self.target_entropy not in (None, "auto"):
            self._check_number("target_entropy")

    def _check_combinations(self) -> None:
        if self.reset_students and self.knowledge_sharing != "distillation":
            self._reject(
                "reset_students",
                f"needs knowledge_sharing='distillation', not {self.knowledge_sharing!r}: "
                "students would be reset without being taught",
            )
        buffer = self.replay_buffer_config
        other = sorted(set(buffer) - {"type", "capacity"})
        if other or buffer.get("type") != "EpisodeReplayBuffer":
            self._reject(
                "replay_buffer_config",
                "only {'capacity': N} can be set; the shared buffer is part of the algorithm and "
                "samples uniformly",
            )
        capacity = buffer.get("capacity")
        needed = max(1, self.learning_starts_at, self.train_batch_size_per_learner)
        if not _is_integer(capacity) or capacity < needed:
            self._reject(
                "replay_buffer_config",
                f"'capacity' must be an integer of at least {needed}, so that it holds "
                f"`num_steps_sampled_before_learning_starts` ({self.learning_starts_at}) and a "
                f"minibatch ({self.train_batch_size_per_learner}){_as_integer(capacity)}",
            )
        if self.num_learners > 1:
            self._reject("num_learners", "more than one learner is not supported; set 0 or 1")
        if self.framework_str != "torch":
            self._reject("framework_str", "CIKD needs 'torch'")

    def _check_members(self) -> None:
        generated = policy_ids(len(self.policies))
        if list(self.policies) not in (generated, ["default_policy"]):
            self._reject(
                "policies",
                "the ensemble's policies are generated; set `ensemble_size`, and per-member "
                "differences with `rl_module(algorithm_config_overrides_per_module=…)`",
            )
        ids = policy_ids(self.ensemble_size)
        for member, overrides in self.algorithm_config_overrides_per_module.items():
            field = "algorithm_config_overrides_per_module"
            if member not in ids:
                self._reject(field, f"{member!r} is no member; members are {ids}")
            settings = overrides if isinstance(overrides, dict) else dict(overrides)
            unknown = sorted(set(settings) - set(PER_MEMBER_SETTINGS))
            if unknown:
                self._reject(
                    field, f"{unknown} cannot differ by member; {list(PER_MEMBER_SETTINGS)} can"
                )
            member_config = CIKDConfig()
            for name, value in settings.items():
                setattr(member_config, name, value)
            member_config._check_sac_settings()
        self._check_model_config("model_config", self._model_config)
        spec = self._rl_module_spec
        specs = {}
        if isinstance(spec, MultiRLModuleSpec):
            specs = dict(spec.rl_module_specs or {})
            strangers = sorted(set(specs) - set(ids))
            if strangers:
                self._reject("rl_module_spec", f"{strangers} are no members; members are {ids}")
        elif isinstance(spec, RLModuleSpec):
            specs = {"all members": spec}
        for member, member_spec in specs.items():
            if member_spec.module_class not in (None, SACModule):
                self._reject(
                    "rl_module_spec",
                    f"members must be `SACModule`s, but {member} is a "
                    f"{member_spec.module_class.__name__}; change its shape with `model_config`",
                )
            self._check_model_config(f"model_config of {member}", member_spec.model_config)

    def _check_model_config(self, field: str, model_config: Any) -> None:
        if model_config is None:
            return
        allowed = {*DEFAULT_MODEL_CONFIG, "initial_alpha"}
        if is_dataclass(model_config) and not isinstance(model_config, type):
            defaults = asdict(DefaultModelConfig())
            settings = asdict(model_config)
            unknown = [k for k, v in settings.items() if k not in allowed and v != defaults[k]]
        else:
            settings = dict(model_config)
            unknown = [k for k in settings if k not in allowed]
        if unknown:
            raise ValueError(
                f"{field}={model_config!r}: {sorted(unknown)} not supported; members are "
                f"perceptrons with the settings {list(DEFAULT_MODEL_CONFIG)}."
            )
        hiddens = settings.get("fcnet_hiddens", [256, 256])
        if not isinstance(hiddens, (list, tuple)) or not all(
            _is_integer(width) and width >= 1 for width in hiddens
        ):
            raise ValueError(
                f"{field}: fcnet_hiddens={hiddens!r} must be a list of layer widths, such as "
                "[256, 256]."
            )
        activation = settings.get("fcnet_activation", "relu")
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"{field}: fcnet_activation={activation!r} must be one of {list(ACTIVATIONS)}."
            )

    def _check_unsupported(self) -> None:
        default = CIKDConfig()
        for field, remedy in _UNSUPPORTED.items():
            if getattr(self, field, None) != getattr(default, field, None):
                self._reject(field, f"is not supported by CIKD: {remedy}")

    def _reject(self, field: str, reason: str) -> None:
        raise ValueError(f"{field}={getattr(self, field)!r}: {reason}.")

    def _check_choice(self, field: str, choices: tuple[str, ...]) -> None:
        if getattr(self, field) not in choices:
            self._reject(field, f"must be one of {list(choices)}")

    def _check_bool(self, field: str) -> None:
        if not isinstance(getattr(self, field), bool):
            self._reject(field, "must be True or False")

    def _check_integer(self, field: str, minimum: int, optional: bool = False) -> None:
        value = getattr(self, field)
        if optional and value is None:
            return
        if not _is_integer(value) or value < minimum:
            none = ", or None" if optional else ""
            hint = _as_integer(value)
            self._reject(field, f"must be an integer of at least {minimum}{none}{hint}")

    def _check_number(
        self,
        field: str,
        above: float | None = None,
        at_most: float | None = None,
        optional: bool = False,
    ) -> None:
        value = getattr(self, field)
        if optional and value is None:
            return
        good = isinstance(value, Real) and not isinstance(value, bool)
        good = good and (above is None or value > above) and (at_most is None or value <= at_most)
        if good:
            return
        bounds = (
            [] if above is None else [f"above {max(above, 0.0):g}" if above >= 0 else "at least 0"]
        )
        bounds += [] if at_most is None else [f"at most {at_most:g}"]
        none = ", or None" if optional else ""
        hint = " (write 1.0e-3, not 1e-3, in YAML)" if isinstance(value, str) else ""
        self._reject(field, f"must be a number {' and '.join(bounds)}{none}{hint}".strip())


def _has_setter(cls: type, name: str) -> bool:
    member = getattr(cls, name, None)
    return isinstance(member, property) and member.fset is not None


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _as_integer(value: Any) -> str:
    """How to write 1e6 and the like, which Python and YAML read as floats."""
    whole = isinstance(value, float) and value.is_integer()
    return f" (write {int(value)})" if whole else ""


class _Banner(logging.Filter):
    """Holds back "You are running … on the new API stack": there is no other stack for CIKD."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "on the new API stack!" not in record.getMessage()


for _module in ("algorithm_config", "sac.sac"):
    logging.getLogger(f"ray.rllib.algorithms.{_module}").addFilter(_Banner())
