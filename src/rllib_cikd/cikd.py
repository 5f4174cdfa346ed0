"""`CIKD`: collaborative inter-agent knowledge distillation, the paper's Algorithm 1."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.sac import SAC
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.env.env_runner_group import EnvRunnerGroup
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
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rllib_cikd.algorithm.history import History, by_member, crossings, updates_due
from rllib_cikd.algorithm.members import policy_id
from rllib_cikd.algorithm.policy_selection import selection_probabilities
from rllib_cikd.algorithm.teacher_election import elect_teacher
from rllib_cikd.common import result_keys as keys
from rllib_cikd.config import CIKDConfig
from rllib_cikd.rllib.checkpoint_scores import scores
from rllib_cikd.rllib.checkpoints import CheckpointedSAC
from rllib_cikd.rllib.endless import EndlessEpisodes
from rllib_cikd.rllib.environment import create_env, env_name
from rllib_cikd.rllib.evaluation import (
    Played,
    assessment,
    no_evaluation_yet,
    play_on_runners,
    summarize,
)
from rllib_cikd.rllib.learner_group import ask_learner
from rllib_cikd.rllib.policy import best_member
from rllib_cikd.rllib.sampling import Sampler, raise_faults
from rllib_cikd.rllib.spaces import refuse_unequal_environments
from rllib_cikd.rllib.transitions import Chunk, EpisodeReader


class CIKD(CheckpointedSAC):
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
    """

    config: CIKDConfig
    history: History

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
        # With `sample_while_learning`, the next fragment begins before this one is learned from.
        self._sampler.sample_ahead(*self._who_acts())
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

    def _sample(self) -> list[Chunk]:
        """A fragment from every env runner; empty if all of them failed (RLlib restarts them)."""
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            fragments = self._sampler.sample(*self._who_acts())
        raise_faults(fragments, self._env_steps)
        self.history.env_steps_lost += sum(fragment.lost for fragment in fragments)
        if fragments:
            self.metrics.aggregate([f.metrics for f in fragments], key=ENV_RUNNER_RESULTS)
        return [chunk for fragment in fragments for chunk in fragment.chunks]

    def _who_acts(self) -> tuple[bool, np.ndarray]:
        """Whether actions are random, and each member's probability to act in the next episode."""
        rule, returns = self.config.policy_selection, self.history.return_means()
        return self._acts_randomly, selection_probabilities(rule, returns, self._env_steps)

    @property
    def _env_steps(self) -> int:
        """Environment steps so far whose transitions were stored."""
        return self.history.env_steps

    @property
    def _acts_randomly(self) -> bool:
        """Whether the warm-up is still under way."""
        return self._env_steps < self.config.random_steps

    def _record(self, chunks: list[Chunk]) -> dict[str, np.ndarray]:
        """Counts steps and finished episodes; returns the transitions."""
        missing = self._reader.num_missing
        transitions, finished = self._reader.read(chunks, self._acts_randomly)
        self.history.env_steps_lost += self._reader.num_missing - missing
        if transitions:
            self.history.record_steps(len(transitions["rewards"]))
        self.history.record_episodes(finished, self.config.teacher_election != "evaluation")
        self._endless_episodes.watch(self._reader.longest_ongoing)
        return transitions

    def _store_and_update(self, transitions: dict[str, np.ndarray]) -> None:
        """Buffer and SAC steps, in the learner: one per step beyond the start of learning."""
        stored, config = self.history.stored, self.config
        num_updates = updates_due(
            stored - len(transitions["rewards"]),
            stored,
            config.learning_starts_at,
            config.updates_per_step,
        )
        self.history.num_updates += num_updates
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self.learner_group.update(
                episodes=[],  # RLlib wants one of its own forms of data; ours are the transitions
                transitions=transitions,
                num_updates=num_updates,
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self._env_steps},
            )
        # RLlib hides a remote learner's exception and would go on without learning.
        if len(results) != max(1, config.num_learners):
            raise RuntimeError("The learner failed; its error is in the worker's log above.")
        self.metrics.aggregate(results, key=LEARNER_RESULTS)

    def _phases_due(self, steps_before: int) -> int:
        """How often the step counter crossed a multiple of I; 0 before learning has started."""
        config, history = self.config, self.history
        if config.knowledge_sharing == "none" or history.stored <= config.learning_starts_at:
            return 0
        if config.ensemble_size == 1 and config.knowledge_sharing != "extra_updates":
            return 0
        return crossings(steps_before, history.env_steps, config.distillation_interval)

    def _elect_teacher(self) -> int | None:
        """The teacher by R_k; None, and no phase, while no member has finished an episode."""
        rule = self.config.teacher_election
        if rule == "evaluation":
            self._play_election_episodes()
        teacher = elect_teacher(self.history.return_means(), rule, self._rng)
        if teacher is None:
            self.history.num_skipped_phases += 1
            if not any(self.history.episodes):
                self._endless_episodes.phase_skipped(self._env_steps)
        return teacher

    def _play_election_episodes(self) -> None:
        """Deterministic episodes of every member become R_k; they are counted and learned from."""
        played = self._play_evaluation(self.config.election_episodes, record=True)
        transitions, finished = self._reader.read(played.chunks)
        self.history.record_steps(len(transitions["rewards"]))
        self.history.returns.clear()
        self.history.record_episodes(finished)
        self._store_and_update(transitions)

    def _share_knowledge(self, teacher: int) -> None:
        """One phase: the teacher's knowledge goes to every other member."""
        assess = self.config.assess_distillation
        returns_before = self._mean_evaluation_returns() if assess else []
        start = time.perf_counter()
        with self.metrics.log_time((TIMERS, "knowledge_sharing")):
            report: dict[str, Any] = ask_learner(
                self.learner_group, lambda learner: learner.share_knowledge(teacher)
            )
        report[keys.PHASE_TIME] = time.perf_counter() - start
        self.refuse_unsound(
            f"after phase {self.history.num_phases + 1} of knowledge_sharing="
            f"{self.config.knowledge_sharing!r} (distillation_lr={self.config.distillation_lr:g})"
        )
        if assess:
            report |= assessment(teacher, returns_before, self._mean_evaluation_returns())
        self.history.record_phase(teacher, report)

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
        k = self.history.elected
        return None if k is None else policy_id(k)

    @property
    def best_policy_id(self) -> str:
        """The best of the last evaluation if no step came after it, else by R_k, else policy_0."""
        return policy_id(best_member(self.history))

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
        played = self._play_evaluation(num_episodes, seed)
        members = zip(played.returns, played.lengths, strict=True)
        return by_member([{"returns": r, "lengths": n} for r, n in members])

    def _play_evaluation(
        self,
        num_episodes: int | None = None,
        seed: int | None = None,
        callbacks: bool = False,
        record: bool = False,
    ) -> Played:
        seeds = None if seed is None else [seed]
        if seeds is None and self.config.seed is not None:
            seeds = [self.config.seed, self._env_steps, *[1] * record]  # other ones than evaluated
        group = self.eval_env_runner_group or self.env_runner_group
        self._sync_weights(group)
        remote = group.healthy_worker_ids() if self.eval_env_runner_group else []
        num = num_episodes or self.config.evaluation_duration
        timeout = self.config.evaluation_sample_timeout_s
        return play_on_runners(group, remote, num, seeds, callbacks, timeout, record)

    def _mean_evaluation_returns(self) -> list[float]:
        return [float(member["returns"].mean()) for member in self.evaluate_members().values()]

    @override(Algorithm)
    def evaluate(self, parallel_train_future: Any = None) -> dict[str, Any]:
        """Evaluates every member over `evaluation_duration` deterministic episodes.

        Returns:
            `ensemble/…` with every member's mean return, best, worst, mean and elected;
            `env_runners/…` of the best member (see `evaluation.summarize`), and what callbacks log.
        """
        self._before_evaluate()
        self._call_back("on_evaluate_start")
        played = self._play_evaluation(callbacks=True)
        results = summarize(played.returns, played.lengths, self.history.elected, self._env_steps)
        if played.metrics:
            self._callback_metrics.aggregate(played.metrics)
            results["env_runners"] = self._callback_metrics.compile() | results["env_runners"]
        self.history.evaluation_best = results[keys.ENSEMBLE][keys.BEST_POLICY]
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
        # One counter for all: that of stored transitions.
        results[keys.STEPS] = results[keys.TIMESTEPS_TOTAL] = self._env_steps
        if self.config.evaluation_interval:
            results |= scores(results)
            if "evaluation" in results:
                self.history.last_evaluation = copy.deepcopy(results["evaluation"])
            results.setdefault("evaluation", copy.deepcopy(self.history.last_evaluation))
        return results

    def _log_ensemble(self) -> None:
        """Logs `ensemble/…`; RLlib forgets values after each iteration, so always all of them."""
        log = self.history.log(
            shares_knowledge=self.config.knowledge_sharing != "none",
            assessed=self.config.assess_distillation,
            filtered=self.config.distillation_filter != "none",
        )
        self.metrics.log_dict(log, key=keys.ENSEMBLE, reduce="item")

    # ------------------------------------------------------------------ Set-up and state

    @override(SAC)
    def setup(self, config: CIKDConfig) -> None:
        if config.num_env_runners > 0:
            # Names an environment that cannot be used before remote runners die of it.
            create_env(config).close()
        self._endless_episodes = EndlessEpisodes(env_name(config), config.max_evaluation_steps)
        self._callback_metrics = MetricsLogger(root=True, stats_cls_lookup=config.stats_cls_lookup)
        super().setup(config)
        groups = [self.env_runner_group, self.eval_env_runner_group]
        refuse_unequal_environments(groups, env_name(self.config))
        size = self.config.ensemble_size
        self.history = History(size, self.config.num_returns, self.config.return_horizon)
        self.history.last_evaluation = no_evaluation_yet(size)
        self._reader = EpisodeReader()
        self._sampler = Sampler(self.env_runner_group, self.config)
        self._rng = np.random.default_rng(self.config.seed)

    @override(Algorithm)
    def _create_local_replay_buffer_if_necessary(self, config: Any) -> None:
        """None: the buffer is in the learner."""

    @override(CheckpointedSAC)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._sync_weights()  # RLlib's own may have been dropped


CIKDConfig.algorithm_class = CIKD
