"""Checkpoints: what a run needs to go on, here or with other settings."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.sac import SAC
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from typing_extensions import Self

from rllib_cikd.algorithm.history import History
from rllib_cikd.algorithm.members import policy_id
from rllib_cikd.algorithm.soundness import first_unsound
from rllib_cikd.common.errors import NotSound
from rllib_cikd.rllib.checkpoint_scores import checkpoint_metrics
from rllib_cikd.rllib.learner_group import ask_learner
from rllib_cikd.rllib.manifest import (
    LEARNER_STATE,
    MEMBERS,
    check_checkpoint,
    remove_manifest,
    write_manifest,
)
from rllib_cikd.rllib.restore import (
    CONSTRUCTION,
    StoredRun,
    changed_config,
    checkpoint_path,
    refuse_changed_settings,
    refuse_changed_spaces,
)
from rllib_cikd.rllib.sampling import Sampler
from rllib_cikd.rllib.spaces import Spaces
from rllib_cikd.rllib.transitions import EpisodeReader

logger = logging.getLogger(__name__)

_STATE, _CALLBACK_METRICS = "cikd", "callback_metrics"


class CheckpointedSAC(SAC):
    """RLlib's `SAC` with the following differences.

    - Its state holds a `History`, the generator of elections, a fragment that was sampled ahead
      and what callbacks log in evaluation; its learner's holds the buffer.
    - A checkpoint is whole or refused (see `manifest`), and nothing is saved that is not finite.
    - Paths of checkpoints may be relative.
    - A run can go on with other settings; those that cannot change are refused by name.
    """

    history: History
    _reader: EpisodeReader
    _sampler: Sampler
    _rng: np.random.Generator
    _callback_metrics: MetricsLogger  # of evaluation
    _last_checkpoint: str | None = None  # that was written or loaded

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
                "history": self.history.get_state(),
                "rng": self._rng.bit_generator.state,
                "unread": self._unread_fragments(),
            }
        if self._check_component(_CALLBACK_METRICS, components, not_components):
            state[_CALLBACK_METRICS] = self._callback_metrics.get_state()
        return state

    @override(Algorithm)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if _CALLBACK_METRICS in state:
            self._callback_metrics.set_state(state[_CALLBACK_METRICS])
        if _STATE not in state:
            return
        self.history.set_state(state[_STATE]["history"])
        self._rng.bit_generator.state = state[_STATE]["rng"]
        # Without the buffer, learning waits until it has been filled again.
        self.history.stored = ask_learner(
            self.learner_group, lambda learner: learner.replay_buffer.num_added_to_all
        )
        self._reader.forget_ongoing()  # env runners start new episodes after a restore
        unread = state[_STATE]["unread"]
        self._reader.resume(unread["episodes"])
        self._sampler.restore(unread["fragments"])
        # RLlib gives the checkpoint's state of env runners to the local one only.
        steps = self.history.env_steps
        self.env_runner_group.foreach_env_runner(
            lambda runner: runner.begin_anew(steps),
            local_env_runner=False,
            timeout_seconds=self.config.sample_timeout_s,
        )
        # Optimisers bring the step sizes of the checkpoint; those of the config are what counts.
        timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: steps}
        ask_learner(
            self.learner_group,
            lambda learner: learner.after_gradient_based_update(timesteps=timesteps),
        )

    def _unread_fragments(self) -> dict[str, Any]:
        """The fragment under way (`sample_while_learning`), and what of its episodes came before.

        It is not counted yet: whoever goes on from here, live or restored, reads it first. After
        a restore its episodes end with it.
        """
        fragments = [f for f in self._sampler.unread() if f.fault is None]
        chunks = [chunk for fragment in fragments for chunk in fragment.chunks]
        last = [
            fragment._replace(chunks=[chunk.as_last() for chunk in fragment.chunks])
            for fragment in fragments
        ]
        return {"fragments": last, "episodes": self._reader.ongoing(chunks)}

    @override(Algorithm)
    def cleanup(self) -> None:
        # RLlib would wait for ever for an env runner that hangs in the fragment under way.
        if hasattr(self, "_sampler"):
            with contextlib.suppress(ray.exceptions.RayError):
                self._sampler.unread()
        super().cleanup()

    @override(Algorithm)
    def save_to_path(
        self, path: str | Path | None = None, *, filesystem: Any = None, **kwargs
    ) -> str:
        """Writes a checkpoint; see RLlib's method. The path may be relative.

        Raises:
            NotSound: If something of the members is not finite; nothing has been written then.
            RuntimeError: If a part of it could not be written.
        """
        self.refuse_unsound("before a checkpoint was written")
        if path is not None and filesystem is None:
            filesystem, path = pyarrow.fs.FileSystem.from_uri(checkpoint_path(path))
        if path is not None:
            remove_manifest(filesystem, str(path))
        root = super().save_to_path(path, filesystem=filesystem, **kwargs)
        # RLlib hides that a remote learner could not write its part.
        stored = ask_learner(self.learner_group, lambda learner: learner.replay_buffer.len_of_all)
        spaces = {name: repr(space.own) for name, space in self._spaces()._asdict().items()}
        write_manifest(
            filesystem or pyarrow.fs.LocalFileSystem(),
            root,
            ensemble_size=self.config.ensemble_size,
            **spaces,
            training_iteration=self.iteration,
            env_steps=self.history.env_steps,
            transitions=stored if self.config.store_buffer_in_checkpoints else None,
        )
        self._last_checkpoint = root
        return root

    @override(Algorithm)
    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Writes a checkpoint, as Tune does; its metrics are what Tune can score it by.

        Returns:
            RLlib's result, whose `metrics` have nested keys at their top level, too, and of the
            evaluation only what was measured at this very step (see `checkpoint_metrics`).
        """
        result = super().save(checkpoint_dir)
        result.metrics = checkpoint_metrics(result.metrics)
        self._last_checkpoint = result.checkpoint.path  # where Tune has moved it
        return result

    def refuse_unsound(self, when: str) -> None:
        """Stops a run that has diverged before it spoils what is kept of it.

        Args:
            when: Completes "… is not finite …".

        Raises:
            NotSound: If a network, temperature or optimiser is not finite.
        """
        found = ask_learner(self.learner_group, lambda learner: first_unsound(learner.updates))
        if found is None:
            return
        member, quantity = found
        last = self._last_checkpoint
        raise NotSound(
            f"{quantity} of {policy_id(member)}: not finite {when}, at environment step "
            f"{self.history.env_steps:,}. Training stops here, "
            + (f"the last sound checkpoint is {last}" if last else "there is no checkpoint yet")
            + ": lower the step sizes, or set `grad_clip`."
        )

    @override(Algorithm)
    def restore_from_path(
        self, path: str | Path, *, component: str | None = None, filesystem: Any = None, **kwargs
    ) -> None:
        """Loads a checkpoint; see RLlib's method. The path may be relative.

        The config stays this algorithm's own: step sizes, intervals and so on are not loaded. With
        another `seed` than the checkpoint's, all draws begin anew from it.

        Raises:
            DamagedCheckpoint: If it is not whole; nothing has been loaded then.
            ValueError: If a setting differs from the checkpoint's that cannot change, such as
                `ensemble_size`; or if the component is some members of a run with
                `observation_filter`. Nothing has been loaded then.
        """
        if filesystem is None:
            path = checkpoint_path(path)
        if component is not None:
            self._refuse_members_alone(component)
            _check_component_of(str(path), component, filesystem)
            super().restore_from_path(path, component=component, filesystem=filesystem, **kwargs)
            return
        manifest = check_checkpoint(str(path), filesystem)
        run = StoredRun(str(path), filesystem)
        refuse_changed_settings(run, self.config)
        refuse_changed_spaces(run, self._spaces())
        super().restore_from_path(path, filesystem=filesystem, **kwargs)
        if run.config().seed != self.config.seed:
            self._draw_anew()
        if manifest.transitions is None:
            logger.warning(
                "%s holds no replay buffer (`store_buffer_in_checkpoints=False`): members learn "
                "again when %s transitions have been sampled.",
                *(path, f"{self.config.learning_starts_at:,}"),
            )
        self._last_checkpoint = str(path)

    def _refuse_members_alone(self, component: str) -> None:
        observation_filter = self.config.observation_filter
        if observation_filter != "NoFilter" and component.startswith(MEMBERS):
            raise ValueError(
                f"component={component!r}: members cannot be loaded alone with observation_filter="
                f"{observation_filter!r}, as the statistics of observations are the learner's. "
                "Load the whole checkpoint: leave out `component`."
            )

    def restore_members(self, path: str | Path) -> None:
        """Loads what evaluation needs of a checkpoint: members and history, no replay buffer.

        Args:
            path: A folder, absolute or relative, or a URI.

        Raises:
            DamagedCheckpoint: If something of this is damaged; nothing has been loaded then.
            ValueError: As `restore_from_path`.
        """
        path = checkpoint_path(path)
        check_checkpoint(path, needed=lambda name: name != LEARNER_STATE)
        run = StoredRun(path)
        refuse_changed_settings(run, self.config)
        refuse_changed_spaces(run, self._spaces())
        super().restore_from_path(f"{path}/{MEMBERS}", component=MEMBERS)
        self.history.set_state(run.state()[_STATE]["history"])

    @classmethod
    @override(Algorithm)
    def from_checkpoint(
        cls,
        path: Any,
        filesystem: Any = None,
        *,
        config: AlgorithmConfig | dict[str, Any] | None = None,
        **kwargs,
    ) -> Self:
        """Makes an algorithm of a checkpoint, to go on with.

        Args:
            path: A folder, absolute or relative, a URI, or a `ray.tune.Checkpoint`.
            filesystem: Where it is; None: what the path says.
            config: Other settings: a dict of those that change, such as `{"actor_lr": 1e-4}`, or
                a whole config instead of the checkpoint's.
            **kwargs: See RLlib's method.

        Raises:
            DamagedCheckpoint: If it is not whole.
            ValueError: If a setting is wrong, or cannot change: `ensemble_size`, the networks'
                shapes, spaces, a capacity below what the buffer holds.
        """
        if filesystem is None:
            path = checkpoint_path(path)
        # Before anything is built of it; contents of other files are read before they are loaded.
        check_checkpoint(str(path), filesystem, checksums=False)
        check_checkpoint(
            str(path), filesystem, lambda name: "/" not in name or name.endswith(CONSTRUCTION)
        )
        if config is None:
            return super().from_checkpoint(path, filesystem=filesystem, **kwargs)
        run = StoredRun(path, filesystem)
        changed = changed_config(run.config(), config)
        changed.validate()
        refuse_changed_settings(run, changed)
        algo = cls(config=changed)
        try:
            algo.restore_from_path(path, filesystem=filesystem)
        except Exception:
            algo.stop()
            raise
        return algo

    def _spaces(self) -> Spaces:
        return Spaces.of(self.get_module(policy_id(0)))

    def _draw_anew(self) -> None:
        """Seeds all generators from the config's seed and the steps so far."""
        steps, seed = self.history.env_steps, self.config.seed
        self._rng = np.random.default_rng(None if seed is None else [seed, steps])
        draws = int(self._rng.integers(2**31))
        ask_learner(self.learner_group, lambda learner: learner.draws.begin_anew(draws))
        self.env_runner_group.foreach_env_runner(lambda runner: runner._seed_generators(steps))


def _check_component_of(path: str, component: str, filesystem: Any) -> None:
    """Checks a component that still is in its checkpoint; alone it has no manifest."""
    if not path.rstrip("/").endswith(f"/{component}"):
        return
    root = path.rstrip("/").removesuffix(f"/{component}")
    check_checkpoint(root, filesystem, needed=lambda name: name.startswith(f"{component}/"))
