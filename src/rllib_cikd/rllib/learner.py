"""The Learner: holds the shared replay buffer, updates all members, shares knowledge."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from ray.rllib.core import ALL_MODULES
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import NUM_ENV_STEPS_TRAINED_LIFETIME
from torch import Tensor

from rllib_cikd.algorithm.categorical_update import sac_update
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
from rllib_cikd.algorithm.members import policy_id, policy_ids
from rllib_cikd.algorithm.normalization import ObservationNormalizer
from rllib_cikd.algorithm.policy_heads import CategoricalHead
from rllib_cikd.algorithm.replay_buffer import Batch, ReplayBuffer
from rllib_cikd.algorithm.sac_update import SACSettings, SACUpdate
from rllib_cikd.common import result_keys as keys
from rllib_cikd.engine import library, native
from rllib_cikd.engine.recorded_step import RecordedStep

logger = logging.getLogger(__name__)

_REPLAY_BUFFER, _GENERATOR, _STATISTICS = "replay_buffer", "generator", "observation_statistics"

#: Transitions on which the distance of students to their teacher is measured.
_ASSESSMENT_BATCH_SIZE = 2048


class CIKDTorchLearner(TorchLearner):
    """Trains all members at once from one shared replay buffer.

    It extends `TorchLearner`, not `SACTorchLearner`: it replaces the whole update, and takes
    RLlib's life cycle, optimiser registry, learning-rate schedules and checkpoints.
    """

    @override(TorchLearner)
    def build(self) -> None:
        super().build()
        if self._device.type == "cpu":  # said once for each learner; a warning where it is slow
            level = logging.INFO if native.computes(torch.zeros(1)) else logging.WARNING
            logger.log(level, library.describe())
        # With a seed RLlib switches a CPU build to deterministic algorithms. Filling every
        # uninitialised tensor with NaN, which comes with it, has no part in determinism here.
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
        self._generator = torch.Generator(self._device)
        if self.config.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(self.config.seed)
        member = self.module[policy_id(0)]
        (obs_dim,), (action_dim,) = member.observation_space.shape, member.action_space.shape
        self._noise_dim = 0 if isinstance(member.head, CategoricalHead) else action_dim
        members = [self.module[mid] for mid in policy_ids(self.config.ensemble_size)]
        self._normalizer = ObservationNormalizer(members) if member.normalizes else None
        self.replay_buffer = ReplayBuffer(
            capacity=self.config.replay_buffer_config["capacity"],
            obs_dim=obs_dim,
            action_dim=action_dim,
            device=self._device,
            n_step=self.config.n_step,
        )

    @override(TorchLearner)
    def configure_optimizers(self) -> None:
        ids = policy_ids(self.config.ensemble_size)
        modules = [self.module[mid] for mid in ids]
        settings = [
            _sac_settings(self.config.get_config_for_module(mid), module)
            for mid, module in zip(ids, modules, strict=True)
        ]
        self.updates = [
            sac_update(stack, settings[stack.members[0]])
            for stack in group_members(modules, settings)
        ]
        self.stacks = [update.stack for update in self.updates]
        self._steps = [
            RecordedStep(
                functools.partial(self._sac_step, update), list(update.optimizers.values())
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
        """Stores a fragment of transitions, then takes SAC steps of every member.

        Args:
            transitions: Arguments of `ReplayBuffer.add`.
            num_updates: Gradient steps of every member.
            timesteps: RLlib's counters, for learning-rate schedules.

        Raises:
            RuntimeError: If a loss is not finite.
        """
        self.replay_buffer.add(**transitions)
        if self._normalizer is not None:
            self._normalizer.add(transitions["obs"])
        # Applies learning-rate schedules, also to a rate that a restored optimiser brought.
        self.after_gradient_based_update(timesteps=timesteps)
        batch_size = self.config.train_batch_size_per_learner
        if num_updates > 0:
            statistics = self._sac_updates(num_updates, batch_size).tolist()
            self._check_finite(statistics)
        else:  # so that every result has the same keys
            statistics = [[math.nan] * self.config.ensemble_size] * len(SACUpdate.STATISTICS)
        for name, values in zip(SACUpdate.STATISTICS, statistics, strict=True):
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
            `SACUpdate.STATISTICS` averaged over the steps, `[len(STATISTICS), K]`.
        """
        k, device = self.config.ensemble_size, self._device
        rows = self._draw_rows(num_updates, batch_size)
        total = torch.zeros(len(SACUpdate.STATISTICS), k, device=device)
        members = [torch.tensor(stack.members, device=device) for stack in self.stacks]
        for step_rows, pairs in zip(rows, self._draw_pairs(num_updates), strict=True):
            noise = torch.randn(
                (k, 2, batch_size, self._noise_dim), device=device, generator=self._generator
            )
            if len(self._steps) == 1:
                total += self._steps[0](step_rows, noise, *pairs)
                continue
            for step, those in zip(self._steps, members, strict=True):
                total.index_add_(1, those, step(step_rows[those], noise[those]))
        return total / num_updates

    def _draw_rows(self, num_updates: int, batch_size: int) -> Tensor:
        """The buffer rows of each member's minibatches, `[num_updates, K, B]`."""
        return torch.randint(
            len(self.replay_buffer),
            (num_updates, self.config.ensemble_size, batch_size),
            device=self._device,
            generator=self._generator,
        )

    def _draw_pairs(self, num_updates: int) -> list[list[Tensor]]:
        """For each update, as a list of one, the critics to bootstrap from; empty: their own."""
        if self.config.critic_targets == "own":
            return [[]] * num_updates
        k = self.config.ensemble_size
        draws = torch.rand((num_updates, 2 * k), device=self._device, generator=self._generator)
        return [[order.view(2, k)] for order in draws.argsort(-1)]

    def _sac_step(
        self, update: SACUpdate, rows: Tensor, noise: Tensor, pairs: Tensor | None = None
    ) -> Tensor:
        return update.step(self._gather(rows, update.settings.gamma), noise, pairs)

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
                        f"{self.replay_buffer.num_added} transitions. Training stops here, the "
                        "last checkpoint is sound: lower the learning rates, or set `grad_clip`."
                    )

    def share_knowledge(self, teacher: int) -> dict[str, dict[int, float]]:
        """One phase of `config.knowledge_sharing`, with this member as the teacher.

        Returns:
            `kl_before`, `kl_after`, `critic_loss_before`, `critic_loss_after`, each by student;
            with a `distillation_filter` also `share_imitated`.
        """
        config, stacks = self.config, self.stacks
        batch = self._draw(_ASSESSMENT_BATCH_SIZE)
        imitated = None if config.distillation_filter == "none" else AdvantageFilter(stacks)
        report = self._distances(teacher, batch, "before")
        if imitated is not None:
            taught = Teacher(stacks, teacher)
            report[keys.SHARE_IMITATED] = share_imitated(stacks, taught, imitated, batch)
        if config.reset_students:
            seed = torch.randint(2**31, (1,), device=self._device, generator=self._generator)
            reset_students(self.updates, teacher, seed=int(seed))
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
            )
        if config.renew_target_critics:
            renew_target_critics(stacks, teacher)
        return report | self._distances(teacher, batch, "after")

    def _distances(self, teacher: int, batch: Batch, when: str) -> dict[str, dict[int, float]]:
        found = distance_to_teacher(self.stacks, Teacher(self.stacks, teacher), batch)
        kl, critic_loss = ({k: pair[i] for k, pair in found.items()} for i in range(2))
        return {f"kl_{when}": kl, f"critic_loss_{when}": critic_loss}

    def _draw(self, batch_size: int) -> Batch:
        rows = torch.randint(
            len(self.replay_buffer),
            (batch_size,),
            device=self._device,
            generator=self._generator,
        )
        return self._gather(rows, self.config.gamma)

    def _phase_rows(self) -> Tensor:
        """The buffer rows of each minibatch of one phase, `[m, B]`."""
        config, size = self.config, len(self.replay_buffer)
        batch_size = config.distillation_batch_size
        if config.distillation_epochs is None:
            shape = (config.distillation_updates, batch_size)
            return torch.randint(size, shape, device=self._device, generator=self._generator)
        # Full minibatches only; a buffer smaller than one is a minibatch itself.
        batch_size = min(batch_size, size)
        epochs = [
            torch.randperm(size, device=self._device, generator=self._generator)
            for _ in range(config.distillation_epochs)
        ]
        return torch.cat(
            [order[: size - size % batch_size].view(-1, batch_size) for order in epochs]
        )

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
        if self._check_component(_GENERATOR, components, not_components):
            state[_GENERATOR] = self._generator.get_state().cpu().numpy()
        if self._normalizer is not None and self._check_component(
            _STATISTICS, components, not_components
        ):
            state[_STATISTICS] = self._normalizer.statistics.get_state()
        if self.config.store_buffer_in_checkpoints and self._check_component(
            _REPLAY_BUFFER, components, not_components
        ):
            state[_REPLAY_BUFFER] = self.replay_buffer.get_state()
        return state

    @override(TorchLearner)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if _GENERATOR in state:
            stored = torch.from_numpy(np.array(state[_GENERATOR]))
            # That of a GPU's generator means nothing to a CPU's: there it goes on from the seed.
            if stored.shape == self._generator.get_state().shape:
                self._generator.set_state(stored)
        if _STATISTICS in state and self._normalizer is not None:
            self._normalizer.statistics.set_state(state[_STATISTICS])
        if _REPLAY_BUFFER in state:
            self.replay_buffer.set_state(state[_REPLAY_BUFFER])
        if not all(stack.is_attached() for stack in self.stacks):
            raise RuntimeError("Loading a state detached the members from the stacked parameters.")

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


def _sac_settings(config: Any, module: Any) -> SACSettings:
    """SAC's hyperparameters of one member from its (overridden) config."""
    target_entropy = config.target_entropy
    if target_entropy in (None, "auto"):
        target_entropy = module.head.target_entropy(module.action_space.shape[0])
    return SACSettings(
        actor_lr=config.actor_lr,
        critic_lr=config.critic_lr,
        alpha_lr=config.alpha_lr,
        gamma=config.gamma,
        tau=config.tau,
        target_entropy=target_entropy,
        grad_clip=config.grad_clip,
    )
