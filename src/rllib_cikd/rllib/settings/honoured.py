"""Settings that do what their documentation says, each with the values it takes.

Defaults stand in `CIKDConfig.__init__`, or are RLlib's.
"""

from __future__ import annotations

from gymnasium.envs.registration import VectorizeMode
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics.stats import StatsBase

from rllib_cikd.algorithm.knowledge_sharing import (
    DISTILLATION_FILTERS,
    DISTILLATION_TARGETS,
    KNOWLEDGE_SHARINGS,
)
from rllib_cikd.algorithm.policy_selection import POLICY_SELECTIONS
from rllib_cikd.algorithm.sac_update import CRITIC_TARGETS
from rllib_cikd.algorithm.teacher_election import TEACHER_ELECTIONS
from rllib_cikd.rllib.env_runner import CIKDEnvRunner
from rllib_cikd.rllib.learner import CIKDTorchLearner
from rllib_cikd.rllib.settings.values import (
    CheckedElsewhere,
    Choice,
    Either,
    Environment,
    Flag,
    Functions,
    Integer,
    Kind,
    Mapping,
    Number,
    Schedule,
    SubclassOf,
)

_STEP_SIZE = Number(above=0, at_most=1)
_SECONDS = Number(at_least=0, at_most=1e9)
_RESOURCES = Mapping(of=Number(at_least=0), example="{'resource': 1}")

#: CIKD's own.
ENSEMBLE: dict[str, Kind] = {
    "ensemble_size": Integer(at_least=1, at_most=1_000),
    "policy_selection": Choice(POLICY_SELECTIONS),
    "return_window": Integer(at_least=1, at_most=1_000_000),
    "return_horizon": Integer(at_least=1, or_none=True),
    "distillation_interval": Integer(at_least=1),
    "knowledge_sharing": Choice(KNOWLEDGE_SHARINGS),
    "distillation_targets": Choice(DISTILLATION_TARGETS),
    "distillation_filter": Choice(DISTILLATION_FILTERS),
    "renew_target_critics": Flag(),
    "teacher_election": Choice(TEACHER_ELECTIONS),
    "election_episodes": Integer(at_least=1, at_most=1_000),
    "reset_students": Flag(),
    "distillation_lr": _STEP_SIZE,
    "distillation_batch_size": Integer(at_least=1, at_most=10_000_000),
    "distillation_epochs": Integer(at_least=1, at_most=1_000_000, or_none=True),
    "distillation_updates": Integer(at_least=1, at_most=10_000_000),
    "assess_distillation": Flag(),
    "critic_targets": Choice(CRITIC_TARGETS),
    "random_steps": Integer(at_least=0),
    "max_evaluation_steps": Integer(at_least=1),
}

#: Of these, members may differ: `rl_module(algorithm_config_overrides_per_module=…)`.
PER_MEMBER: dict[str, Kind] = {
    "actor_lr": Schedule(_STEP_SIZE),
    "critic_lr": Schedule(_STEP_SIZE),
    "alpha_lr": Schedule(_STEP_SIZE),
    "gamma": Number(at_least=0, at_most=1),
    "tau": Number(above=0, at_most=1),
    "target_entropy": Either((Choice(("auto", None)), Number(at_most=1e6))),
    "grad_clip": Number(above=0, at_most=1e9, or_none=True),
    "policy_delay": Integer(at_least=1, at_most=1_000_000),
    "adam_beta1": Number(at_least=0, at_most=0.9999),
}

SAC: dict[str, Kind] = PER_MEMBER | {
    "initial_alpha": Number(above=0, at_most=1e6),
    "n_step": Integer(at_least=1, at_most=10_000),
    "train_batch_size_per_learner": Integer(at_least=1, at_most=10_000_000),
    "training_intensity": Number(above=0, at_most=1e9, or_none=True),
    "num_steps_sampled_before_learning_starts": Integer(at_least=0, or_none=True),
    "replay_buffer_config": CheckedElsewhere("a dict such as {'capacity': 1000000}"),
    "store_buffer_in_checkpoints": Flag(),
}

#: `.rl_module(…)` and `.learners(…)`.
NETWORKS_AND_LEARNER: dict[str, Kind] = {
    "_model_config": CheckedElsewhere(
        "a dict such as {'fcnet_hiddens': [256, 256], 'fcnet_activation': 'relu', "
        "'critic_layer_norm': False, 'batch_norm': False}",
        (dict, DefaultModelConfig, type(None)),
    ),
    "_rl_module_spec": CheckedElsewhere(
        "an `RLModuleSpec` of `SACModule`s, or a `MultiRLModuleSpec` with one for each member; a "
        "member's shape is set with `model_config`",
        (RLModuleSpec, MultiRLModuleSpec, type(None)),
    ),
    "algorithm_config_overrides_per_module": CheckedElsewhere(
        "a dict such as {'policy_0': {'actor_lr': 1.0e-4}}, for each member with some of "
        f"{', '.join(PER_MEMBER)}"
    ),
    "_learner_class": SubclassOf(CIKDTorchLearner, or_none=True),
    "learner_config_dict": Mapping(),
    "num_learners": Integer(at_least=0, at_most=1_000),
    "num_gpus_per_learner": Number(at_least=0, at_most=1),
    "num_cpus_per_learner": Either((Choice(("auto",)), Number(at_least=0, at_most=10_000))),
    "custom_resources_per_learner": _RESOURCES,
    "local_gpu_idx": Integer(at_least=0, at_most=10_000),
    "max_requests_in_flight_per_learner": Integer(at_least=1, at_most=10_000),
}

#: `.environment(…)` and `.env_runners(…)`; and `.training(sample_while_learning=…)`.
SAMPLING: dict[str, Kind] = {
    "env": Environment(),
    "env_config": Mapping(),
    "clip_rewards": Choice(
        (None, False),
        "rewards are learned from as they come; wrap the environment with "
        "`gymnasium.wrappers.TransformReward`",
    ),
    "clip_actions": Flag(),  # actions in [-1, 1] are mapped to the bounds: always within them
    "env_runner_cls": SubclassOf(CIKDEnvRunner),
    "num_env_runners": Integer(at_least=0, at_most=10_000),
    "num_envs_per_env_runner": Integer(at_least=1, at_most=100_000),
    "gym_env_vectorize_mode": Choice(
        ("sync", VectorizeMode.SYNC),
        "the environments of one env runner take turns; use more `num_env_runners`, which step at "
        "the same time",
    ),
    "num_cpus_per_env_runner": Number(at_least=0, at_most=10_000),
    "custom_resources_per_env_runner": _RESOURCES,
    "observation_filter": Choice(("NoFilter", "MeanStdFilter")),
    "rollout_fragment_length": Integer(at_least=1, at_most=10_000_000),
    "sample_while_learning": Flag(),
    "episode_lookback_horizon": Integer(at_least=0, at_most=1_000_000),
    "sample_timeout_s": Number(above=0, at_most=1e9, or_none=True),
    "max_requests_in_flight_per_env_runner": Integer(at_least=1, at_most=10_000),
    "create_env_on_local_worker": Flag(),
    "validate_env_runners_after_construction": Flag(),
    "merge_env_runner_states": Choice((True, False, "training_only")),
    "broadcast_env_runner_states": Flag(),
    "sync_filters_on_rollout_workers_timeout_s": _SECONDS,
}

EVALUATION: dict[str, Kind] = {
    "evaluation_interval": Integer(at_least=0, or_none=True),
    "evaluation_duration": Integer(at_least=1, at_most=1_000_000),
    "evaluation_num_env_runners": Integer(at_least=0, at_most=10_000),
    "evaluation_sample_timeout_s": Number(above=0, at_most=1e9, or_none=True),
    "evaluation_config": CheckedElsewhere(
        "a dict such as {'env_config': {…}}, with some of the settings that may differ in "
        "evaluation, or None",
        (dict, AlgorithmConfig, type(None)),
    ),
}

CALLBACKS: dict[str, Kind] = {
    "callbacks_class": SubclassOf(RLlibCallback, many=True),
    "callbacks_on_algorithm_init": Functions(),
    "callbacks_on_train_result": Functions(),
    "callbacks_on_evaluate_start": Functions(),
    "callbacks_on_evaluate_end": Functions(),
    "callbacks_on_env_runners_recreated": Functions(),
    "callbacks_on_checkpoint_loaded": Functions(),
    "callbacks_on_environment_created": Functions(),
    "callbacks_on_episode_created": Functions(),
    "callbacks_on_episode_start": Functions(),
    "callbacks_on_episode_step": Functions(),
    "callbacks_on_episode_end": Functions(),
    "callbacks_on_sample_end": Functions(),
}

#: `.reporting(…)` and `.debugging(…)`.
REPORTING: dict[str, Kind] = {
    "min_sample_timesteps_per_iteration": Integer(at_least=0, or_none=True),
    "min_train_timesteps_per_iteration": Integer(at_least=0, or_none=True),
    "min_time_s_per_iteration": Number(at_least=0, at_most=1e9, or_none=True),
    "metrics_num_episodes_for_smoothing": Integer(at_least=1, at_most=1_000_000),
    "stats_cls_lookup": Mapping(of=SubclassOf(StatsBase), example="{'mean': MeanStats}"),
    "log_level": Choice(("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL")),
    "log_sys_usage": Flag(),
    # The generators of env runners take seeds below 2**32, and theirs are somewhat larger.
    "seed": Integer(at_least=0, at_most=4_000_000_000, or_none=True),
}

FAULT_TOLERANCE: dict[str, Kind] = {
    "restart_failed_env_runners": Flag(),
    "ignore_env_runner_failures": Flag(),
    "max_num_env_runner_restarts": Integer(at_least=-1, at_most=1_000_000),
    "delay_between_env_runner_restarts_s": _SECONDS,
    "restart_failed_sub_environments": Flag(),
    "env_runner_health_probe_timeout_s": _SECONDS,
    "env_runner_restore_timeout_s": _SECONDS,
}

#: `.resources(…)`: what a run asks Tune for, and `.framework(…)`.
RESOURCES: dict[str, Kind] = {
    "framework_str": Choice(("torch",), "CIKD needs 'torch'"),
    "num_cpus_for_main_process": Integer(at_least=0, at_most=10_000),
    "custom_resources_for_main_process": _RESOURCES,
    "placement_strategy": Choice(("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")),
}

#: What `evaluation_config` may change for evaluation's env runners; all else would do nothing.
EVALUATION_OVERRIDES = (
    "env",
    "env_config",
    "num_cpus_per_env_runner",
    "custom_resources_per_env_runner",
    "validate_env_runners_after_construction",
    "restart_failed_env_runners",
    "ignore_env_runner_failures",
    "max_num_env_runner_restarts",
    "delay_between_env_runner_restarts_s",
    "env_runner_health_probe_timeout_s",
)

#: The tables by the headings of `docs/SETTINGS.md`.
SECTIONS = {
    "The ensemble": ENSEMBLE,
    "Soft actor-critic": SAC,
    "Networks and learner": NETWORKS_AND_LEARNER,
    "Environment and sampling": SAMPLING,
    "Evaluation": EVALUATION,
    "Callbacks": CALLBACKS,
    "Iterations, reports, seed": REPORTING,
    "Fault tolerance": FAULT_TOLERANCE,
    "Resources and framework": RESOURCES,
}

HONOURED: dict[str, Kind] = {
    name: kind for section in SECTIONS.values() for name, kind in section.items()
}
