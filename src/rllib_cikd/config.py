"""`CIKDConfig`: every setting of the algorithm, its default, and the check of all of them."""

from __future__ import annotations

from typing import Any, ClassVar

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.algorithms.sac import SAC, SACConfig
from ray.rllib.connectors.env_to_module import (
    AddStatesFromEpisodesToBatch,
    AddTimeDimToBatchAndZeroPad,
)
from ray.rllib.connectors.module_to_env import (
    GetActions,
    NormalizeAndClipActions,
    RemoveSingleTsTimeRankFromBatch,
)
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.annotations import override

from rllib_cikd.algorithm.members import acting_member, policy_ids
from rllib_cikd.rllib.env_runner import CIKDEnvRunner
from rllib_cikd.rllib.learner import CIKDTorchLearner
from rllib_cikd.rllib.learner_group import CIKDLearnerGroup
from rllib_cikd.rllib.sac_module import DEFAULT_MODEL_CONFIG, SACModule
from rllib_cikd.rllib.settings.arguments import checked_arguments, field_of
from rllib_cikd.rllib.settings.refused import OTHER_NAMES
from rllib_cikd.rllib.validation import (
    check_config,
    check_keys,
    check_settings,
    hold_back_banner,
)


@checked_arguments
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

    #: `CIKD`, which binds itself to its config.
    algorithm_class: ClassVar[type[SAC]]

    def __init__(self, algo_class: type[SAC] | None = None):
        super().__init__(algo_class=algo_class or self.algorithm_class)

        # The ensemble (paper's section on CIKD: K, I and M are its published values).
        self.ensemble_size = 3
        self.policy_selection = "uniform"
        self.return_window = 5
        self.return_horizon: int | None = None
        self.election_episodes = 1
        self.distillation_interval = 5_000
        self.knowledge_sharing = "distillation"
        self.distillation_targets = "policy_and_critic"
        self.distillation_filter = "none"
        self.renew_target_critics = False
        self.teacher_election = "best"
        self.reset_students = False
        self.distillation_lr = 1e-3
        self.distillation_batch_size = 256
        self.distillation_epochs: int | None = None
        self.distillation_updates = 300
        self.assess_distillation = False
        self.critic_targets = "own"
        self.policy_delay = 1
        self.adam_beta1 = 0.9
        self.random_steps = 10_000
        self.max_evaluation_steps = 20_000

        # SAC's published values where RLlib's differ.
        self.actor_lr = 3e-4
        self.num_steps_sampled_before_learning_starts: int | None = None  # random_steps
        self.replay_buffer_config = {"type": "EpisodeReplayBuffer", "capacity": 1_000_000}
        self.store_buffer_in_checkpoints = True

        # A fragment is sampled, then learned from. Per-call costs are paid once a fragment.
        self.rollout_fragment_length = 50
        self.sample_while_learning = False
        self.env_runner_cls = CIKDEnvRunner
        self.disable_env_checking = True  # RLlib's check would leave every env at seed 42
        self.min_time_s_per_iteration = None
        self.min_sample_timesteps_per_iteration = 1_000
        self.evaluation_duration = 20
        self.evaluation_sample_timeout_s = 3_600.0  # longer than any evaluation is meant to take
        self.evaluation_config = {"explore": False}

    @override(SACConfig)
    def training(
        self,
        *,
        ensemble_size: int = NotProvided,
        policy_selection: str = NotProvided,
        return_window: int = NotProvided,
        return_horizon: int | None = NotProvided,
        distillation_interval: int = NotProvided,
        knowledge_sharing: str = NotProvided,
        distillation_targets: str = NotProvided,
        distillation_filter: str = NotProvided,
        renew_target_critics: bool = NotProvided,
        teacher_election: str = NotProvided,
        election_episodes: int = NotProvided,
        reset_students: bool = NotProvided,
        distillation_lr: float = NotProvided,
        distillation_batch_size: int = NotProvided,
        distillation_epochs: int | None = NotProvided,
        distillation_updates: int = NotProvided,
        assess_distillation: bool = NotProvided,
        critic_targets: str = NotProvided,
        policy_delay: int = NotProvided,
        adam_beta1: float = NotProvided,
        random_steps: int = NotProvided,
        max_evaluation_steps: int = NotProvided,
        sample_while_learning: bool = NotProvided,
        **kwargs,
    ) -> CIKDConfig:
        """Sets the training-related settings.

        Args:
            ensemble_size: K, the number of SAC agents; 1 is Vanilla-SAC, without election and
                distillation.
            policy_selection: Who acts in the next episode: "uniform", a member drawn at random;
                "round", every member once in K episodes, in an order drawn anew; "softmax" over
                R_k, or "epsilon_greedy" (see `policy_selection.selection_probabilities`).
            return_window: M; R_k is the mean return of member k's last M finished training
                episodes.
            return_horizon: Of these, episodes that ended so many environment steps ago, or more,
                no longer count for R_k; None: all do. Where episodes are long, old ones say
                little of a member that has learned since. Give I or more, and "round", so that
                every member has an episode that counts.
            distillation_interval: I, in environment steps.
            knowledge_sharing: What happens every I steps: "distillation"; "hard_copy" (students
                become the teacher); "extra_updates" (as many additional SAC steps of every
                member as distillation would take); "none" (Ensemble-SAC).
            distillation_targets: What is distilled or copied: "policy_and_critic", "policy" or
                "critic".
            distillation_filter: Where policies imitate: "none": at all states; "advantage": only
                where the ensemble's critics value the teacher's action above the student's.
            renew_target_critics: At the end of a phase, students' target critics become their
                distilled critics; else they follow by τ.
            teacher_election: "best" (highest R_k), "random" or "worst"; "evaluation": before each
                phase every member plays `election_episodes` deterministic episodes, and R_k is
                their mean. Their transitions are stored, counted as environment steps and
                followed by as many updates as others. Multiples of I within them are left out. An
                iteration with a phase is longer by them, and `evaluation_interval` counts
                iterations: make it smaller (episodes of 1,000 steps: 4 for the usual 10).
            election_episodes: Of each member, with teacher_election="evaluation".
            reset_students: Draw the students' networks anew just before distillation.
            distillation_lr: Step size of the distillation's Adam, fresh in every phase.
            distillation_batch_size: Minibatch size of the distillation, in each learner.
            distillation_epochs: Passes over the whole buffer in one phase; None: take
                `distillation_updates` steps on minibatches drawn uniformly.
            distillation_updates: Gradient steps in one phase without `distillation_epochs`.
            assess_distillation: Evaluate every member just before and just after each phase
                (`evaluation_duration` episodes of each).
            critic_targets: What critics bootstrap from: "own": a member's own target critics;
                "shared": in each update two of all members' target critics, drawn anew.
                `model_config={"batch_norm": True}` has none: critics bootstrap from themselves.
            policy_delay: Policies and temperatures learn in every so many-th update.
            adam_beta1: Of all optimisers of SAC's updates; Adam's first moment.
            random_steps: Actions are uniform random until this many environment steps; also
                when learning starts, unless `num_steps_sampled_before_learning_starts` is set.
            max_evaluation_steps: An evaluation episode that has not ended after so many steps is
                an error that asks for a time limit; a training episode as long is warned of.
            sample_while_learning: Remote env runners sample the next fragment while the learner
                learns from the last one. Their policies then lack the updates of one fragment
                more, never of several. Needs `num_env_runners` of at least 1.
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
    def num_returns(self) -> int:
        """Episodes of each member that R_k is the mean of: M, or those played for an election."""
        evaluates = self.teacher_election == "evaluation"
        return self.election_episodes if evaluates else self.return_window

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
        return self.training_intensity / self.total_train_batch_size

    @override(SACConfig)
    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=SACModule)

    @override(SACConfig)
    def get_default_learner_class(self) -> type[CIKDTorchLearner]:
        return CIKDTorchLearner

    @override(AlgorithmConfig)
    def build_learner_group(
        self,
        *,
        env: Any = None,
        spaces: Any = None,
        rl_module_spec: Any = None,
        placement_group: Any = None,
    ) -> CIKDLearnerGroup:
        spec = rl_module_spec or self.get_multi_rl_module_spec(env=env, spaces=spaces)
        return CIKDLearnerGroup(
            config=self.copy(), module_spec=spec, placement_group=placement_group
        )

    @property
    @override(SACConfig)
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return DEFAULT_MODEL_CONFIG | {
            "initial_alpha": self.initial_alpha,
            "normalize_observations": self.observation_filter == "MeanStdFilter",
        }

    @override(AlgorithmConfig)
    def update_from_dict(self, config_dict: dict[str, Any]) -> CIKDConfig:
        """Sets fields from a plain dict, as YAML files and Tune give it.

        Raises:
            ValueError: If a key is unknown, with the right one; if it is not for users; or if
                its value is of another type than RLlib needs to set it. All other values are
                checked by `validate()`.
        """
        if not isinstance(config_dict, dict):
            raise ValueError(f"A config must be a dict of settings, not {config_dict!r}.")
        check_keys(self, config_dict)
        settings = {field_of(k): v for k, v in config_dict.items() if k not in OTHER_NAMES}
        try:
            return super().update_from_dict(settings)
        except Exception:
            self.check_settings(settings)
            raise  # the values are fine: it is about something else

    def check_settings(self, settings: dict[str, Any]) -> None:
        """Checks each of these settings for itself (see `validation.check_settings`)."""
        check_settings(settings, type(self)())

    # Members are stateless, answer with actions, and see the environment as a `Task`: some of
    # RLlib's connectors have nothing to do. Each costs 10 to 20 microseconds for every action.

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
        pipeline.remove(NormalizeAndClipActions)
        return pipeline

    @override(SACConfig)
    def validate(self) -> None:
        """Checks every setting and generates what follows from them.

        Raises:
            ValueError: At the first bad value or combination; the message names the field, its
                value and the remedy.
        """
        hold_back_banner()
        if self.in_evaluation is not True:  # RLlib makes the evaluation's copy of a checked config
            check_config(self)
        self.multi_agent(policies=policy_ids(self.ensemble_size), policy_mapping_fn=acting_member)
        super().validate()
