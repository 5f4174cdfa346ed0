"""The Learner: holds its part of the replay buffer, updates all members, shares knowledge."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from ray.rllib.core import ALL_MODULES, COMPONENT_OPTIMIZER
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import NUM_ENV_STEPS_TRAINED_LIFETIME
from torch import Tensor

from rllib_cikd.algorithm.draws import Draws
from rllib_cikd.algorithm.ensemble import group_members
from rllib_cikd.algorithm.knowledge_sharing import (
    AdvantageFilter,
    Teacher,
    distance_to_teacher,
    distill,
    hard_copy,
    renew_target_critics,
    reset_students,
    share_imitated,
)
from rllib_cikd.algorithm.learners import Learners
from rllib_cikd.algorithm.members import policy_id, policy_ids
from rllib_cikd.algorithm.normalization import ObservationNormalizer
from rllib_cikd.algorithm.policy_heads import CategoricalHead
from rllib_cikd.algorithm.replay_buffer import Batch
from rllib_cikd.algorithm.replay_shard import ReplayShard
from rllib_cikd.algorithm.sac_update import SACUpdate
from rllib_cikd.algorithm.updates import sac_update
from rllib_cikd.common import result_keys as keys
from rllib_cikd.engine import library, native
from rllib_cikd.engine.recorded_step import RecordedStep
from rllib_cikd.rllib.member_settings import sac_settings

logger = logging.getLogger(__name__)

#: Parts of the state. With several learners, "generators" has those of all.
REPLAY_BUFFER, GENERATOR, GENERATORS = "replay_buffer", "generator", "generators"
_STATISTICS = "observation_statistics"

#: Transitions on which the distance of students to their teacher is measured.
_ASSESSMENT_BATCH_SIZE = 2048


class CIKDTorchLearner(TorchLearner):
    """Trains all members at once from one shared replay buffer.

    Of several learners, each has all members and a part of the buffer, and gradients are averaged.

    It extends `TorchLearner`, not `SACTorchLearner`: it replaces the whole update, and takes
    RLlib's life cycle, optimiser registry, learning-rate schedules and checkpoints.
    """

    @override(TorchLearner)
    def build(self) -> None:
        self.learners = Learners(self._learner_index, max(1, self.config.num_learners))
        super().build()
        for stack in self.stacks:
            self.learners.follow_the_first(stack.tensors)
        if self._device.type == "cpu":  # said once for each learner; a warning where it is slow
            level = logging.INFO if native.computes(torch.zeros(1)) else logging.WARNING
            logger.log(level, library.describe())
        # With a seed RLlib switches a CPU build to deterministic algorithms. Filling every
        # uninitialised tensor with NaN, which comes with it, has no part in determinism here.
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
        self.draws = Draws(self.config.seed, self._device, self.learners)
        #: Of the last fragment with updates, `[len(STATISTICS)][K]`.
        self._statistics = [[math.nan] * self.config.ensemble_size for _ in SACUpdate.STATISTICS]
        member = self.module[policy_id(0)]
        (obs_dim,), (action_dim,) = member.observation_space.shape, member.action_space.shape
        self._noise_dim = 0 if isinstance(member.head, CategoricalHead) else action_dim
        members = [self.module[mid] for mid in policy_ids(self.config.ensemble_size)]
        self._normalizer = ObservationNormalizer(members) if member.normalizes else None
        self.replay_buffer = ReplayShard(
            capacity=self.config.replay_buffer_config["capacity"],
            obs_dim=obs_dim,
            action_dim=action_dim,
            device=self._device,
            n_step=self.config.n_step,
            learners=self.learners,
        )

    @override(TorchLearner)
    def configure_optimizers(self) -> None:
        ids = policy_ids(self.config.ensemble_size)
        modules = [self.module[mid] for mid in ids]
        settings = [
            sac_settings(self.config.get_config_for_module(mid), module.action_space)
            for mid, module in zip(ids, modules, strict=True)
        ]
        self.updates = [
            sac_update(stack, settings[stack.members[0]], self.learners)
            for stack in group_members(modules, settings)
        ]
        self.stacks = [update.stack for update in self.updates]
        self._steps = [
            RecordedStep(
                functools.partial(self._sac_step, update),
                list(update.optimizers.values()),
                records=self.learners.size == 1 and update.settings.policy_delay == 1,
            )
            for update in self.updates
        ]
        for i, update in enumerate(self.updates):
            suffix = "" if len(self.updates) == 1 else f"_{i}"
            for name, optimizer in update.optimizers.items():
                self.register_optimizer(
                    module_id=ALL_MODULES,
                    optimizer_name=name + suffix,
                    optimizer=optimizer,
                    params=optimizer.param_groups[0]["params"],
                    lr_or_lr_schedule=getattr(update.settings, f"{name}_lr"),
                )

    @override(TorchLearner)
    def update(
        self,
        *args,
        transitions: dict[str, np.ndarray],
        num_updates: int,
        timesteps: dict[str, Any],
        **kwargs,
    ):
        """Stores its share of a fragment of transitions, then takes SAC steps of every member.

        Args:
            transitions: Arguments of `ReplayBuffer.add`, the same for all learners.
            num_updates: Gradient steps of every member.
            timesteps: RLlib's counters, for learning-rate schedules.

        Raises:
            RuntimeError: If a loss is not finite.
        """
        with self.learners.failing_together():
            return self._update_with(transitions, num_updates, timesteps)

    def _update_with(self, transitions: dict, num_updates: int, timesteps: dict) -> Any:
        self.replay_buffer.add(**transitions)
        if self._normalizer is not None:
            self._normalizer.add(transitions["obs"])
        # Applies learning-rate schedules, also to a rate that a restored optimiser brought.
        self.after_gradient_based_update(timesteps=timesteps)
        batch_size = self.config.train_batch_size_per_learner
        if num_updates > 0:
            self._statistics = self._sac_updates(num_updates, batch_size).tolist()
            self._check_finite(self._statistics)
        # Without an update the last figures, so that every result has them.
        for name, values in zip(SACUpdate.STATISTICS, self._statistics, strict=True):
            for k, value in enumerate(values):
                self.metrics.log_value((policy_id(k), name), value, window=1)
        self.metrics.log_value(
            (ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME),
            num_updates * batch_size,
            reduce="lifetime_sum",
        )
        return self.metrics.reduce()

    def _sac_updates(self, num_updates: int, batch_size: int) -> Tensor:
        """SAC steps of every member, each on minibatches of its own.

        Returns:
            `SACUpdate.STATISTICS`, averaged over the steps and learners, `[len(STATISTICS), K]`.
        """
        k, device = self.config.ensemble_size, self._device
        rows = self.draws.rows(len(self.replay_buffer), (num_updates, k, batch_size))
        total = torch.zeros(len(SACUpdate.STATISTICS), k, device=device)
        members = [torch.tensor(stack.members, device=device) for stack in self.stacks]
        for step_rows, pairs in zip(rows, self._draw_pairs(num_updates), strict=True):
            noise = self.draws.noise((k, 2, batch_size, self._noise_dim))
            if len(self._steps) == 1:
                total += self._steps[0](step_rows, noise, *pairs)
                continue
            for step, those in zip(self._steps, members, strict=True):
                total.index_add_(1, those, step(step_rows[those], noise[those]))
        total /= num_updates
        self.learners.average([total])
        return total

    def _draw_pairs(self, num_updates: int) -> list[list[Tensor]]:
        """For each update, as a list of one, the critics to bootstrap from; empty: their own."""
        if self.config.critic_targets == "own":
            return [[]] * num_updates
        return [[pairs] for pairs in self.draws.pairs(num_updates, self.config.ensemble_size)]

    def _sac_step(self, update: SACUpdate, rows: Tensor, *draws: Tensor) -> Tensor:
        return update.step(self._gather(rows, update.settings.gamma), *draws)

    def _gather(self, rows: Tensor, gamma: float) -> Batch:
        """The transitions in these rows of the buffer, as the networks see them."""
        batch = self.replay_buffer.gather(rows, gamma)
        return batch if self._normalizer is None else self._normalizer(batch)

    def _check_finite(self, statistics: list[list[float]]) -> None:
        for name, values in zip(SACUpdate.STATISTICS, statistics, strict=True):
            for k, value in enumerate(values):
                if not math.isfinite(value):
                    raise RuntimeError(
                        f"{name} of {policy_id(k)} became {value} after "
                        f"{self.replay_buffer.num_added_to_all} transitions. Training stops here, "
                        "the last checkpoint is sound: lower the learning rates, or set "
                        "`grad_clip`."
                    )

    def share_knowledge(self, teacher: int) -> dict[str, dict[int, float]]:
        """One phase of `config.knowledge_sharing`, with this member as the teacher.

        Returns:
            `kl_before`, `kl_after`, `critic_loss_before`, `critic_loss_after`, each by student;
            with a `distillation_filter` also `share_imitated`. Of several learners, the means.
        """
        with self.learners.failing_together():
            return self._share_knowledge(teacher)

    def _share_knowledge(self, teacher: int) -> dict[str, dict[int, float]]:
        config, stacks = self.config, self.stacks
        rows = self.draws.rows(len(self.replay_buffer), (_ASSESSMENT_BATCH_SIZE,))
        batch = self._gather(rows, config.gamma)
        imitated = None if config.distillation_filter == "none" else AdvantageFilter(stacks)
        report = self._distances(teacher, batch, "before")
        if imitated is not None:
            shares = share_imitated(stacks, Teacher(stacks, teacher), imitated, batch)
            report[keys.SHARE_IMITATED] = self._averaged(shares)
        if config.reset_students:
            reset_students(self.updates, teacher, seed=self.draws.common_seed())
        if config.knowledge_sharing == "extra_updates":
            # The same number of gradient steps, of the same batch size, spent on SAC instead.
            self._sac_updates(len(self._phase_rows()), config.distillation_batch_size)
        elif config.knowledge_sharing == "hard_copy":
            hard_copy(stacks, Teacher(stacks, teacher), config.distillation_targets)
        else:
            distill(
                stacks,
                Teacher(stacks, teacher),
                functools.partial(self._minibatches, self._phase_rows()),
                lr=config.distillation_lr,
                targets=config.distillation_targets,
                imitated=imitated,
                learners=self.learners,
            )
        if config.renew_target_critics:
            renew_target_critics(stacks, teacher)
        return report | self._distances(teacher, batch, "after")

    def _distances(self, teacher: int, batch: Batch, when: str) -> dict[str, dict[int, float]]:
        found = distance_to_teacher(self.stacks, Teacher(self.stacks, teacher), batch)
        kl, critic_loss = ({k: pair[i] for k, pair in found.items()} for i in range(2))
        return {
            f"kl_{when}": self._averaged(kl),
            f"critic_loss_{when}": self._averaged(critic_loss),
        }

    def _averaged(self, figures: dict[int, float]) -> dict[int, float]:
        """Means over the learners."""
        means = torch.tensor(list(figures.values()), dtype=torch.float64, device=self._device)
        self.learners.average([means])
        return dict(zip(figures, means.tolist(), strict=True))

    def _phase_rows(self) -> Tensor:
        """The buffer rows of each minibatch of one phase, `[m, B]`."""
        config, size = self.config, len(self.replay_buffer)
        batch_size = config.distillation_batch_size
        if config.distillation_epochs is None:
            return self.draws.rows(size, (config.distillation_updates, batch_size))
        shortest = self.replay_buffer.len_of_shortest
        return self.draws.epochs(size, shortest, batch_size, config.distillation_epochs)

    def _minibatches(self, rows: Tensor) -> Iterator[Batch]:
        for minibatch_rows in rows:
            yield self._gather(minibatch_rows, self.config.gamma)

    @override(TorchLearner)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        # Every weight sync asks for some components: the buffer must not travel with them.
        if self._check_component(GENERATOR, components, not_components):
            state[GENERATOR] = self.draws.get_state()
        if self._normalizer is not None and self._check_component(
            _STATISTICS, components, not_components
        ):
            state[_STATISTICS] = self._normalizer.statistics.get_state()
        if self.config.store_buffer_in_checkpoints and self._check_component(
            REPLAY_BUFFER, components, not_components
        ):
            state[REPLAY_BUFFER] = self.replay_buffer.get_state()
        return state

    @override(TorchLearner)
    def set_state(self, state: dict[str, Any]) -> None:
        stored, own = (
            sorted(s) for s in (state.get(COMPONENT_OPTIMIZER, ()), self._named_optimizers)
        )
        if stored not in ([], own):  # RLlib would leave out what it does not find
            raise ValueError(
                f"algorithm_config_overrides_per_module: the state has the optimisers {stored}, "
                f"this run {own}, as members with equal settings share one. Keep the settings by "
                "member, or train anew."
            )
        super().set_state(state)
        for update in self.updates:  # a setting that may have been changed since
            update.renew_betas()
        if GENERATOR in state:
            self.draws.set_state(state.get(GENERATORS, [state[GENERATOR]]))
        if _STATISTICS in state and self._normalizer is not None:
            self._normalizer.statistics.set_state(state[_STATISTICS])
        if REPLAY_BUFFER in state:
            self.replay_buffer.set_state(state[REPLAY_BUFFER])
        elif GENERATOR in state:  # of a run that does not store its buffer; ours is another past's
            self.replay_buffer.clear()
        if not all(stack.is_attached() for stack in self.stacks):
            raise RuntimeError("Loading a state detached the members from the stacked parameters.")

    @override(TorchLearner)
    def _make_modules_ddp_if_necessary(self) -> None:
        """Nothing: gradients live on the stacked tensors, and `SACUpdate` averages them."""

    @override(TorchLearner)
    def _log_trainable_parameters(self) -> None:
        """Nothing: gradients live on the stacked tensors, RLlib's count would be 0."""

    @override(TorchLearner)
    def add_module(self, **kwargs):
        raise NotImplementedError(
            "CIKD's members are stacked when the learner is built: set `ensemble_size` instead."
        )

    remove_module = add_module

    @override(TorchLearner)
    def compute_loss_for_module(self, **kwargs):
        raise NotImplementedError("CIKD's update is `SACUpdate.step`, for all members at once.")
