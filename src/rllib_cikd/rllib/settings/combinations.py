"""Settings that are fine one by one, but not together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.rllib.utils.metrics.metrics_logger import DEFAULT_STATS_CLS_LOOKUP

from rllib_cikd.rllib.settings.networks import shapes
from rllib_cikd.rllib.settings.overrides import settings_by_member
from rllib_cikd.rllib.settings.values import Integer, reject, same

_CAPACITY = Integer(at_least=1, at_most=10_000_000_000)


def check_combinations(config: Any, ids: Sequence[str]) -> None:
    """Checks settings against each other; each for itself has been checked.

    Raises:
        ValueError: At the first combination that cannot work.
    """
    _check_phases(config, ids)
    _check_refinements(config, ids)
    _check_buffer(config)
    _check_learners(config)
    _check_sampling(config)
    if config.local_gpu_idx != 0 and (config.num_gpus_per_learner == 0 or config.num_learners > 0):
        reject(
            "local_gpu_idx",
            config.local_gpu_idx,
            "needs num_gpus_per_learner above 0 and num_learners=0: it says which GPU the learner "
            "in the main process uses",
        )


def _check_phases(config: Any, ids: Sequence[str]) -> None:
    if config.reset_students and config.knowledge_sharing != "distillation":
        reject(
            "reset_students",
            config.reset_students,
            f"needs knowledge_sharing='distillation', not {config.knowledge_sharing!r}: "
            "students would be reset without being taught",
        )
    if config.reset_students and config.ensemble_size == 1:
        reject("reset_students", config.reset_students, "needs ensemble_size above 1")
    if config.reset_students and config.distillation_targets != "policy_and_critic":
        reject(
            "reset_students",
            config.reset_students,
            "needs distillation_targets='policy_and_critic', not "
            f"{config.distillation_targets!r}: networks would be reset without being taught",
        )
    _check_election(config)
    networks = list(shapes(config, ids).values())
    if config.knowledge_sharing == "hard_copy" and any(n != networks[0] for n in networks):
        reject(
            "knowledge_sharing",
            config.knowledge_sharing,
            "hard_copy copies networks, but the members' networks differ in shape or activation. "
            "Give all members the same `model_config`, or use 'distillation'",
        )


def _check_election(config: Any) -> None:
    by_evaluation = config.teacher_election == "evaluation"
    if config.election_episodes != 1 and not by_evaluation:
        reject("election_episodes", config.election_episodes, "needs teacher_election='evaluation'")
    if config.return_horizon is not None and by_evaluation:
        reject(
            "return_horizon",
            config.return_horizon,
            "has no part in teacher_election='evaluation', where episodes of training count for "
            "no R_k. Leave one of them out",
        )


def _check_refinements(config: Any, ids: Sequence[str]) -> None:
    teaches = config.ensemble_size > 1 and config.knowledge_sharing in ("distillation", "hard_copy")
    if config.distillation_filter != "none" and (
        not teaches
        or config.knowledge_sharing == "hard_copy"
        or config.distillation_targets == "critic"
    ):
        reject(
            "distillation_filter",
            config.distillation_filter,
            "needs ensemble_size above 1, knowledge_sharing='distillation' and policies among the "
            "distillation_targets: it says at which states a policy is imitated",
        )
    if config.distillation_filter != "none" and config.reset_students:
        reject(
            "distillation_filter",
            config.distillation_filter,
            "cannot go with reset_students=True: fresh students must imitate everywhere. Leave "
            "out one of the two",
        )
    if config.renew_target_critics and (not teaches or config.distillation_targets == "policy"):
        reject(
            "renew_target_critics",
            config.renew_target_critics,
            "needs ensemble_size above 1, knowledge_sharing='distillation' or 'hard_copy', and "
            "critics among the distillation_targets",
        )
    if config.critic_targets == "shared":
        _check_shared_targets(config, ids)
    if any(networks["batch_norm"] for networks in shapes(config, ids).values()):
        _check_batch_norm(config, ids)


def _check_batch_norm(config: Any, ids: Sequence[str]) -> None:
    why = "with model_config={'batch_norm': True} critics have no target networks. Leave it out"
    if config.critic_targets != "own":
        reject("critic_targets", config.critic_targets, why)
    if config.renew_target_critics:
        reject("renew_target_critics", config.renew_target_critics, why)
    members = zip(shapes(config, ids).values(), settings_by_member(config, ids), strict=True)
    usual = type(config)().tau
    for networks, own in members:
        if networks["batch_norm"] and own["tau"] != usual:
            reject("tau", own["tau"], why)
    if config.num_learners > 1:
        reject(
            "num_learners",
            config.num_learners,
            "several learners would each normalise by batches of their own. With "
            "model_config={'batch_norm': True} use one",
        )
    if config.train_batch_size_per_learner < 2 or config.distillation_batch_size < 2:
        reject(
            "model_config",
            {"batch_norm": True},
            "normalises by the minibatch: `train_batch_size_per_learner` and "
            "`distillation_batch_size` must be at least 2",
        )


def _check_shared_targets(config: Any, ids: Sequence[str]) -> None:
    if config.ensemble_size == 1:
        reject("critic_targets", config.critic_targets, "needs ensemble_size above 1")
    members = zip(shapes(config, ids).values(), settings_by_member(config, ids), strict=True)
    first, *others = (repr(member) for member in members)
    if any(other != first for other in others):
        reject(
            "critic_targets",
            config.critic_targets,
            "members that bootstrap from each other's critics need equal settings and networks. "
            "Leave out `algorithm_config_overrides_per_module`, and give all members the same "
            "`model_config`",
        )


def _check_buffer(config: Any) -> None:
    buffer = config.replay_buffer_config
    if set(buffer) - {"type", "capacity"} or not same(buffer.get("type"), "EpisodeReplayBuffer"):
        reject(
            "replay_buffer_config",
            buffer,
            "only {'capacity': N} can be set; the shared buffer is part of the algorithm and "
            "samples uniformly",
        )
    capacity = buffer.get("capacity")
    problem = _CAPACITY.problem(capacity)
    if problem:
        reject("replay_buffer_config", buffer, f"'capacity' {problem}")
    envs = max(1, config.num_env_runners) * config.num_envs_per_env_runner
    needs = {
        "what is stored before learning starts (`num_steps_sampled_before_learning_starts`, else "
        "`random_steps`)": config.learning_starts_at,
        "a minibatch (`train_batch_size_per_learner`) of each learner": (
            config.total_train_batch_size
        ),
        "a round of sampling (`rollout_fragment_length` of every environment)": (
            config.rollout_fragment_length * envs
        ),
    }
    what, needed = max(needs.items(), key=lambda item: item[1])
    if capacity < needed:
        reject(
            "replay_buffer_config",
            buffer,
            f"'capacity' must be at least {needed}, so that it holds {what}",
        )


def _check_learners(config: Any) -> None:
    learners = config.num_learners
    if learners < 2:
        return
    capacity = config.replay_buffer_config["capacity"]
    problem = ""
    if capacity % learners:
        problem = (
            "each holds an equal part of the replay buffer: set replay_buffer_config="
            f"{{'capacity': {capacity + -capacity % learners}}}, a multiple of it"
        )
    elif config.n_step > 1:
        problem = (
            f"n_step={config.n_step} needs num_learners of 0 or 1: what came after a transition is "
            "with another learner"
        )
    elif 0 < config.num_gpus_per_learner < 1:
        problem = (
            f"num_gpus_per_learner={config.num_gpus_per_learner} must be 0 or 1: learners cannot "
            "share a GPU"
        )
    elif config.learning_starts_at < learners - 1:
        problem = (
            "learning must start with a transition for each: raise `random_steps` or "
            f"`num_steps_sampled_before_learning_starts` to at least {learners - 1}"
        )
    if problem:
        reject("num_learners", learners, problem)


def _check_sampling(config: Any) -> None:
    if config.n_step > config.rollout_fragment_length:
        reject(
            "n_step",
            config.n_step,
            f"must be at most rollout_fragment_length ({config.rollout_fragment_length}); raise "
            "`rollout_fragment_length`",
        )
    if config.sample_while_learning and config.num_env_runners == 0:
        reject(
            "sample_while_learning",
            config.sample_while_learning,
            "needs num_env_runners of at least 1: the main process cannot sample while it learns",
        )
    if (
        config.num_env_runners > 0
        and not config.merge_env_runner_states
        and not config.broadcast_env_runner_states
    ):
        reject(
            "broadcast_env_runner_states",
            config.broadcast_env_runner_states,
            "cannot go with merge_env_runner_states=False: an env runner that is restarted would "
            "not know the number of steps and begin as at the start. Leave one of them out",
        )
    missing = sorted(set(DEFAULT_STATS_CLS_LOOKUP) - set(config.stats_cls_lookup))
    if missing:
        reject(
            "stats_cls_lookup",
            config.stats_cls_lookup,
            f"lacks {missing}, which RLlib needs; begin with "
            "`ray.rllib.utils.metrics.metrics_logger.DEFAULT_STATS_CLS_LOOKUP`",
        )
