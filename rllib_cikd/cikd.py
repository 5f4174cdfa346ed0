"""`CIKD`: collaborative inter-agent knowledge distillation, the paper's Algorithm 1."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.sac import SAC
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core.learner.learner import Learner
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from rllib_cikd.algorithm.policy_selection import policy_id, selection_probabilities
from rllib_cikd.algorithm.teacher_election import ReturnWindows, elect_teacher
from rllib_cikd.config import CIKDConfig
from rllib_cikd.rllib.env_runner import CIKDEnvRunner
from rllib_cikd.rllib.environment import create_env
from rllib_cikd.rllib.evaluation import no_evaluation_yet, summarize
from rllib_cikd.rllib.transitions import EpisodeReader

T = TypeVar("T")

_STATE = "cikd"
_KNOWLEDGE_SHARING_TIMER = "knowledge_sharing"
_DISTANCES = ("kl_before", "kl_after", "critic_loss_before", "critic_loss_after")


class CIKD(SAC):
    """K SAC agents learn one task together and distil the best one's knowledge into the others.

    Differences from RLlib's `SAC`:

    - Phase 1: K members (`policy_0` …), each with policy, twin critics, target critics and
      temperature of its own.
    - Phase 2: a member drawn for each episode acts; all transitions go into one buffer in the
      learner; every member takes a gradient step per environment step, all in one batched
      computation.
    - Phase 3: whenever the steps cross a multiple of `distillation_interval`, the member with
      the highest R_k teaches the others.
    - `evaluate()` plays `evaluation_duration` deterministic episodes of every member.
    - Checkpoints hold the replay buffer, return windows, counters and generators.
    """

    config: CIKDConfig
    _teacher: int | None
    _last_phase: dict[str, Any] | None
    _last_evaluation_best: int | None

    @classmethod
    @override(SAC)
    def get_default_config(cls) -> CIKDConfig:
        return CIKDConfig()

    # ------------------------------------------------------------------ Algorithm 1

    @override(SAC)
    def training_step(self) -> None:
        """One fragment of CIKD's Algorithm 1.

        The paper goes step by step; here a fragment of `rollout_fragment_length` environment
        steps is sampled, stored and followed by as many updates of every member.
        """
        # Phase 2: in each episode, the member drawn for it acts.
        chunks = self._sample()
        before = self._env_steps
        # R_k: mean return of the last M episodes of member k.
        transitions = self._record(chunks)
        if transitions:
            # All transitions go into the shared buffer; every member takes its SAC steps.
            self._store_and_update(transitions)
            # Phase 3: t crossed a multiple of I. The best member teaches the others.
            for _ in range(self._phases_due(before)):
                teacher = self._elect_teacher()
                if teacher is not None:
                    self._share_knowledge(teacher)
            self._sync_weights()
        self._log_ensemble()

    def _sample(self) -> list[Any]:
        """A fragment from every env runner; empty if all of them failed (RLlib restarts them)."""
        if self.config.policy_selection != "uniform":
            probabilities = selection_probabilities(
                self.config.policy_selection, self._returns.means(), self._env_steps
            )
            self.env_runner_group.foreach_env_runner(
                lambda runner: setattr(runner, "selection_probabilities", probabilities)
            )
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            chunks, metrics = synchronous_parallel_sample(
                worker_set=self.env_runner_group,
                concat=True,
                sample_timeout_s=self.config.sample_timeout_s,
                random_actions=self._env_steps < self.config.random_steps,
                _uses_new_env_runners=True,
                _return_metrics=True,
            )
        if metrics:
            self.metrics.aggregate(metrics, key=ENV_RUNNER_RESULTS)
        return chunks

    def _record(self, chunks: list[Any]) -> dict[str, np.ndarray]:
        """Counts steps and finished episodes; returns the transitions."""
        transitions, finished = self._reader.read(chunks, self._env_steps)
        for episode in finished:
            self._returns.record(episode.member, episode.episode_return)
            self._episodes_lifetime[episode.member] += 1
        if transitions:
            self._env_steps += len(transitions["rewards"])
            self._last_evaluation_best = None  # the networks it judged are about to change
        return transitions

    def _store_and_update(self, transitions: dict[str, np.ndarray]) -> None:
        """Buffer and SAC steps, in the learner: one per step beyond the start of learning."""
        new = len(transitions["rewards"])
        self._transitions_stored += new
        learned_from = min(new, max(0, self._transitions_stored - self.config.learning_starts_at))
        self._updates_owed += learned_from * self.config.updates_per_step
        num_updates = int(self._updates_owed)
        self._updates_owed -= num_updates
        self._num_updates += num_updates
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self.learner_group.update(
                episodes=[],  # RLlib wants one of its own forms of data; ours are the transitions
                transitions=transitions,
                num_updates=num_updates,
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self._env_steps},
            )
        # RLlib hides a remote learner's exception and would go on without learning.
        if len(results) != max(1, self.config.num_learners):
            raise RuntimeError(
                "The learner failed; its error is in the worker's log above. Restore the run from "
                "its last checkpoint."
            )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)

    def _phases_due(self, steps_before: int) -> int:
        """How often the step counter crossed a multiple of I; 0 before learning has started."""
        if self.config.knowledge_sharing == "none":
            return 0
        if self._transitions_stored <= self.config.learning_starts_at:
            return 0
        if self.config.ensemble_size == 1 and self.config.knowledge_sharing != "extra_updates":
            return 0
        interval = self.config.distillation_interval
        return self._env_steps // interval - steps_before // interval

    def _elect_teacher(self) -> int | None:
        """The teacher by R_k; None, and no phase, while no member has finished an episode."""
        teacher = elect_teacher(self._returns.means(), self.config.teacher_election, self._rng)
        self._num_skipped_phases += teacher is None
        return teacher

    def _share_knowledge(self, teacher: int) -> None:
        """One phase: the teacher's knowledge goes to every other member."""
        assess = self.config.assess_distillation
        returns_before = self._mean_evaluation_returns() if assess else None
        start = time.perf_counter()
        with self.metrics.log_time((TIMERS, _KNOWLEDGE_SHARING_TIMER)):
            report: dict[str, Any] = self._ask_learner(
                lambda learner: learner.share_knowledge(teacher)
            )
        report["time_s"] = time.perf_counter() - start
        if returns_before is not None:
            returns_after = self._mean_evaluation_returns()
            students = [k for k in range(self.config.ensemble_size) if k != teacher]
            above = [returns_after[k] > returns_after[teacher] for k in students]
            report["return_before"] = dict(enumerate(returns_before))
            report["return_after"] = dict(enumerate(returns_after))
            report["students_above_teacher"] = float(np.mean(above)) if above else math.nan
        self._teacher = teacher
        self._times_teacher[teacher] += 1
        self._num_distillations += 1
        self._last_phase = report

    def _sync_weights(self, group: EnvRunnerGroup | None = None) -> None:
        """The env runners' policies become the learner's.

        Without a timeout, RLlib drops a sync while the one before is still under way.
        """
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            (group or self.env_runner_group).sync_weights(
                from_worker_or_learner_group=self.learner_group,
                inference_only=True,
                timeout_seconds=self.config.sample_timeout_s,
            )

    # ------------------------------------------------------------------ Members

    @property
    def elected_policy_id(self) -> str | None:
        """The member with the highest R_k; None while no member has finished an episode."""
        k = elect_teacher(self._returns.means())
        return None if k is None else policy_id(k)

    @property
    def best_policy_id(self) -> str:
        """The best member: of the last evaluation if training has not gone on since, else by R_k.

        "policy_0" while there is neither.
        """
        if self._last_evaluation_best is not None:
            return policy_id(self._last_evaluation_best)
        return self.elected_policy_id or policy_id(0)

    # ------------------------------------------------------------------ Evaluation

    def evaluate_members(
        self, num_episodes: int | None = None, seed: int | None = None
    ) -> dict[str, dict[str, np.ndarray]]:
        """Plays deterministic episodes of every member, all in lockstep.

        Args:
            num_episodes: Episodes of each member; `evaluation_duration` if None.
            seed: Seed of the episodes' initial states, which are the same for every member; if
                None, they follow from the config's seed and the number of training steps.

        Returns:
            Per member id: "returns" (undiscounted) and "lengths", each `[num_episodes]`.
        """
        num_episodes = num_episodes or self.config.evaluation_duration
        if seed is None:
            seeds = None if self.config.seed is None else [self.config.seed, self._env_steps]
        else:
            seeds = [seed]
        returns, lengths = self._play(num_episodes, seeds)
        return {
            policy_id(k): {"returns": returns[k], "lengths": lengths[k]}
            for k in range(self.config.ensemble_size)
        }

    def _play(self, num_episodes: int, seeds: list[int] | None) -> tuple[np.ndarray, np.ndarray]:
        if seeds is None:  # all runners must play shares of the same episodes
            seeds = [int(np.random.SeedSequence().generate_state(1)[0])]
        group = self.eval_env_runner_group or self.env_runner_group
        self._sync_weights(group)
        local = group.local_env_runner
        remote = group.healthy_worker_ids() if self.eval_env_runner_group else []
        remote = remote[:num_episodes]
        if not remote:
            return local.evaluate_members(num_episodes, seeds)
        n = len(remote)
        answers = group.foreach_env_runner(
            [_evaluation_share(num_episodes, seeds, (i, n)) for i in range(n)],
            remote_worker_ids=remote,
            local_env_runner=False,
        )
        shares = dict(answers)
        returns = np.zeros((self.config.ensemble_size, num_episodes))
        lengths = np.zeros_like(returns, dtype=np.int64)
        for i in range(n):
            if i not in shares:  # its env runner failed: RLlib restarts it, we play its share
                shares[i] = local.evaluate_members(num_episodes, seeds, (i, n))
            returns[:, i::n], lengths[:, i::n] = shares[i]
        return returns, lengths

    def _mean_evaluation_returns(self) -> list[float]:
        return [float(member["returns"].mean()) for member in self.evaluate_members().values()]

    @override(Algorithm)
    def evaluate(self, parallel_train_future: Any = None) -> dict[str, Any]:
        """Evaluates every member over `evaluation_duration` deterministic episodes.

        Returns:
            `ensemble/…` with every member's mean return, best, worst, mean and elected, and
            `env_runners/…` of the best member (see `evaluation.summarize`).
        """
        self._before_evaluate()
        self._call_back("on_evaluate_start")
        episodes = self.evaluate_members().values()
        returns = np.stack([member["returns"] for member in episodes])
        lengths = np.stack([member["lengths"] for member in episodes])
        elected = elect_teacher(self._returns.means())
        results = summarize(returns, lengths, elected, self._env_steps)
        self._last_evaluation_best = results["ensemble"]["best_policy"]
        self._call_back("on_evaluate_end", evaluation_metrics=results)
        return results

    def _call_back(self, name: str, **kwargs: Any) -> None:
        make_callback(
            name,
            callbacks_objects=self.callbacks,
            callbacks_functions=getattr(self.config, f"callbacks_{name}"),
            kwargs={"algorithm": self, "metrics_logger": self.metrics, **kwargs},
        )

    # ------------------------------------------------------------------ Results

    @override(Algorithm)
    def step(self) -> dict[str, Any]:
        """One iteration; the result always has the last evaluation's figures, NaN before it."""
        results = super().step()
        results["timesteps_total"] = self._env_steps  # Tune's and TensorBoard's time axis
        if self.config.evaluation_interval:
            if "evaluation" in results:
                self._last_evaluation = copy.deepcopy(results["evaluation"])
            results.setdefault("evaluation", copy.deepcopy(self._last_evaluation))
        return results

    def _log_ensemble(self) -> None:
        """Logs `ensemble/…`; RLlib forgets values after each iteration, so always all of them."""
        members = range(self.config.ensemble_size)
        log = self.metrics.log_dict
        log(
            {
                "return_mean": _by_member(self._returns.means()),
                "episodes_lifetime": _by_member(self._episodes_lifetime),
                "times_teacher": _by_member(self._times_teacher),
                "teacher": math.nan if self._teacher is None else self._teacher,
                "num_distillations_lifetime": self._num_distillations,
                "num_skipped_phases_lifetime": self._num_skipped_phases,
                "num_updates_lifetime": self._num_updates,
            },
            key="ensemble",
            reduce="item",
        )
        if self.config.knowledge_sharing == "none":
            return
        report = self._last_phase or {}
        names = list(_DISTANCES)
        if self.config.assess_distillation:
            names += ["return_before", "return_after"]
            above = report.get("students_above_teacher", math.nan)
            log({"students_above_teacher": above}, key=("ensemble", "distillation"), reduce="item")
        log(
            {
                name: _by_member([report.get(name, {}).get(k, math.nan) for k in members])
                for name in names
            }
            | {"time_s": report.get("time_s", math.nan)},
            key=("ensemble", "distillation"),
            reduce="item",
        )

    # ------------------------------------------------------------------ Set-up and state

    @override(SAC)
    def setup(self, config: CIKDConfig) -> None:
        if config.num_env_runners > 0:
            # Names an environment that cannot be used before remote runners die of it.
            create_env(config).close()
        super().setup(config)
        size = self.config.ensemble_size
        self._returns = ReturnWindows(size, self.config.return_window)
        self._reader = EpisodeReader()
        self._rng = np.random.default_rng(self.config.seed)
        self._env_steps = 0
        self._transitions_stored = 0
        self._updates_owed = 0.0
        self._num_updates = 0
        self._episodes_lifetime = [0] * size
        self._times_teacher = [0] * size
        self._teacher = None
        self._num_distillations = 0
        self._num_skipped_phases = 0
        self._last_phase = None
        self._last_evaluation = no_evaluation_yet(size)
        self._last_evaluation_best = None

    @override(Algorithm)
    def _create_local_replay_buffer_if_necessary(self, config: Any) -> None:
        """None: the buffer is in the learner."""

    @override(Algorithm)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component(_STATE, components, not_components):
            state[_STATE] = {
                "return_windows": self._returns.get_state(),
                "rng": self._rng.bit_generator.state,
                "transitions_stored": self._transitions_stored,
                **{name: getattr(self, f"_{name}") for name in _PLAIN_STATE},
            }
        return state

    @override(Algorithm)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if _STATE not in state:
            return
        own = state[_STATE]
        self._returns.set_state(own["return_windows"])
        self._rng.bit_generator.state = own["rng"]
        for name in _PLAIN_STATE:
            setattr(self, f"_{name}", own[name])
        # Without the buffer, learning waits until it has been filled again.
        stored = self.config.store_buffer_in_checkpoints
        self._transitions_stored = own["transitions_stored"] if stored else 0
        self._reader.forget_ongoing()  # env runners start new episodes after a restore
        self._sync_weights()  # RLlib's own may have been dropped

    def _ask_learner(self, function: Callable[[Learner], T]) -> T:
        """Calls a function on every learner; raises what RLlib would hide."""
        answers = [answer.get() for answer in self.learner_group.foreach_learner(function)]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        if not answers:
            raise RuntimeError("No learner is alive; its error is in the worker's log above.")
        return answers[0]


_PLAIN_STATE = (
    "env_steps",
    "updates_owed",
    "num_updates",
    "episodes_lifetime",
    "times_teacher",
    "teacher",
    "num_distillations",
    "num_skipped_phases",
    "last_phase",
    "last_evaluation",
    "last_evaluation_best",
)


def _by_member(values: Any) -> dict[str, Any]:
    return {policy_id(k): value for k, value in enumerate(values)}


def _evaluation_share(
    num_episodes: int, seeds: list[int], share: tuple[int, int]
) -> Callable[[CIKDEnvRunner], tuple[int, tuple[np.ndarray, np.ndarray]]]:
    """Which share was played, and its returns and lengths."""
    return lambda runner: (share[0], runner.evaluate_members(num_episodes, seeds, share))
