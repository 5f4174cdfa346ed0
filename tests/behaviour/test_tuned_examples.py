"""Every shipped task and every comparison of the paper, at small scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers import SMALL_SETTINGS, learner_of, rows_of, same, weights_of

from rllib_cikd import CIKD, CIKDConfig
from rllib_cikd.algorithm.sac_update import SACUpdate
from rllib_cikd.experiments.experiment import load_experiments

ROOT = Path(__file__).parents[2]
TUNED_EXAMPLES = sorted((ROOT / "tuned_examples").glob("*.yaml"))
PENDULUM = ROOT / "tuned_examples" / "cikd-pendulum.yaml"
#: Examples that learn in minutes, with settings of their own.
QUICK = (PENDULUM, ROOT / "tuned_examples" / "cikd-cartpole.yaml")
TASKS = {
    "Ant-v5",
    "CartPole-v1",
    "HalfCheetah-v5",
    "Hopper-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "InvertedDoublePendulum-v5",
    "Pendulum-v1",
    "Reacher-v5",
    "Swimmer-v5",
    "Walker2d-v5",
}
SMALL = SMALL_SETTINGS | {
    "distillation_interval": 250,
    "min_sample_timesteps_per_iteration": 100,
    "evaluation_interval": 1_000,  # not within these short runs
    "log_level": "ERROR",
}


def load_config(path: Path, **options) -> CIKDConfig:
    """The config of the file's one experiment, as Tune would build the algorithm with."""
    (experiment,) = load_experiments(path, **options)
    (settings,) = experiment.trial_configs
    return CIKDConfig().update_from_dict(settings)


# ---------------------------------------------------------------- tasks


def test_every_task_has_an_example():
    assert {load_config(path).env for path in TUNED_EXAMPLES} == TASKS


@pytest.mark.parametrize("path", TUNED_EXAMPLES, ids=lambda path: path.stem)
def test_every_example_follows_the_paper(path):
    """Of the algorithm's settings no example but the quick ones differs from the defaults, the
    paper's; every member plays 20 deterministic episodes each 10,000 steps."""
    config, default = load_config(path), CIKDConfig()
    if path in QUICK:
        return
    for name in ("ensemble_size", "return_window", "distillation_interval", "distillation_updates"):
        assert getattr(config, name) == getattr(default, name), name
    for name in ("actor_lr", "critic_lr", "alpha_lr", "gamma", "tau", "n_step", "target_entropy"):
        assert getattr(config, name) == getattr(default, name), name
    assert config.train_batch_size_per_learner == 256
    assert config.replay_buffer_config["capacity"] == 1_000_000
    steps_between = config.evaluation_interval * config.min_sample_timesteps_per_iteration
    assert (steps_between, config.evaluation_duration) == (10_000, 20)


@pytest.mark.parametrize("path", TUNED_EXAMPLES, ids=lambda path: path.stem)
def test_every_example_trains_past_its_first_phase(build, path):
    """With small networks; episodes that would be longer are cut, so that there is an R_k."""
    # No random actions: with them, no episode would count for an R_k before the phase.
    start = {"random_steps": 0, "num_steps_sampled_before_learning_starts": 200}
    settings = {**SMALL, **start, "env_config": {"max_episode_steps": 100}}
    algo = build(load_config(path, config=settings))
    result: dict[str, Any] = {}
    while result.get("num_env_steps_sampled_lifetime", 0) < 300:
        result = algo.train()
    assert result["ensemble"]["num_distillations_lifetime"] == 1
    assert np.isfinite(list(result["ensemble"]["return_mean"].values())).any()
    for member in weights_of(algo).values():
        assert np.isfinite(member).all()


#: By Gymnasium's documentation: when the robot has not fallen, by the state that is reached. Random
#: actions do not overturn Ant, so it is given a narrower range. And a time limit at which some
#: episodes are cut and others are not.
TERMINATING: dict[str, tuple[Callable[[np.ndarray], bool], int, dict[str, Any]]] = {
    "Hopper-v5": (lambda obs: obs[0] > 0.7 and abs(obs[1]) < 0.2, 15, {}),
    "Walker2d-v5": (lambda obs: 0.8 < obs[0] < 2.0 and abs(obs[1]) < 1.0, 15, {}),
    "Ant-v5": (lambda obs: 0.6 < obs[0] < 0.9, 15, {"healthy_z_range": (0.6, 0.9)}),
    "Humanoid-v5": (lambda obs: 1.0 < obs[0] < 2.0, 25, {}),
}


@pytest.mark.parametrize("env", TERMINATING)
def test_falling_terminates_and_the_time_limit_does_not(build, env):
    """Every transition in the buffer is terminal if and only if the robot has fallen there."""
    is_healthy, limit, env_config = TERMINATING[env]
    (path,) = (path for path in TUNED_EXAMPLES if load_config(path).env == env)
    env_config = {**env_config, "max_episode_steps": limit}
    algo = build(load_config(path, config={**SMALL, "random_steps": 600, "env_config": env_config}))
    while (result := algo.train())["num_env_steps_sampled_lifetime"] < 600:
        pass
    rows = rows_of(algo)
    assert len(rows["rewards"]) == result["num_env_steps_sampled_lifetime"]
    fallen = np.array([not is_healthy(obs) for obs in rows["next_obs"]])
    assert np.array_equal(rows["terminated"], fallen)
    # An episode ends where the next row does not begin with the state that this one reached.
    ends = np.flatnonzero((rows["next_obs"][:-1] != rows["obs"][1:]).any(axis=1))
    lengths = np.diff(ends, prepend=-1)
    assert lengths.max() == limit
    assert fallen[ends[lengths < limit]].all()
    cut = ends[(lengths == limit) & ~fallen[ends]]
    assert len(cut) > 0  # a time limit, and no termination
    assert fallen.any()


# ---------------------------------------------------------------- variants

#: What each comparison must come out as, by what is seen of a training run: members, phases,
#: SAC steps beyond one per member and environment step, and what a phase does to each student.
VARIANTS: dict[str, dict[str, Any]] = {
    "vanilla-sac": {"members": 1, "phases": 0},
    "ensemble-sac": {"phases": 0},
    "vanilla-sac-extra": {"members": 1, "extra_steps": 3},
    "ensemble-sac-extra": {"extra_steps": 3},
    "cikd": {"changed": {"policy", "qf1", "qf2"}},
    "cikd-hardcopy": {"changed": {"policy", "qf1", "qf2"}, "copied": True},
    "cikd-random-teacher": {"changed": {"policy", "qf1", "qf2"}, "teacher_election": "random"},
    "cikd-policy-only": {"changed": {"policy"}},
    "cikd-critic-only": {"changed": {"qf1", "qf2"}},
    "cikd-reset": {"changed": {"policy", "qf1", "qf2"}, "reset": True},
    "cikd-k2": {"members": 2, "changed": {"policy", "qf1", "qf2"}},
    "cikd-k5": {"members": 5, "changed": {"policy", "qf1", "qf2"}},
}


#: Comparisons that the paper has not.
LAYER_NORM = {"model_config": {"critic_layer_norm": True}}
CROSSQ = {
    "model_config": {"batch_norm": True},
    "policy_delay": 3,
    "adam_beta1": 0.5,
    "actor_lr": 1e-3,
    "critic_lr": 1e-3,
    "alpha_lr": 1e-3,
}
BEYOND_THE_PAPER = {
    "vanilla-sac-matched": {
        "ensemble_size": 1,
        "knowledge_sharing": "none",
        "training_intensity": 768,
    },
    "ensemble-sac-softmax": {"knowledge_sharing": "none", "policy_selection": "softmax"},
    "cikd-window-3": {"return_window": 3},
    "cikd-evaluated": {"teacher_election": "evaluation", "evaluation_interval": 4},
    "cikd-recent": {"policy_selection": "round", "return_horizon": 5000},
    "cikd-advantage": {"distillation_filter": "advantage"},
    "cikd-renewed-targets": {"renew_target_critics": True},
    "cikd-shared-targets": {"critic_targets": "shared"},
    "vanilla-sac-layer-norm": {"ensemble_size": 1, "knowledge_sharing": "none"} | LAYER_NORM,
    "ensemble-sac-layer-norm": {"knowledge_sharing": "none"} | LAYER_NORM,
    "cikd-layer-norm": LAYER_NORM,
    "vanilla-crossq": {"ensemble_size": 1, "knowledge_sharing": "none"} | CROSSQ,
    "vanilla-crossq-matched": {
        "ensemble_size": 1,
        "knowledge_sharing": "none",
        "training_intensity": 768,
    }
    | CROSSQ,
    "ensemble-crossq": {"knowledge_sharing": "none"} | CROSSQ,
    "cikd-plus": {"knowledge_sharing": "distillation"} | CROSSQ,
}


def test_the_variants_are_those_of_the_paper_and_some_more():
    stated = yaml.safe_load((ROOT / "studies" / "variants.yaml").read_text())
    assert [name for name in stated if name not in BEYOND_THE_PAPER] == list(VARIANTS)
    assert {name: stated[name] for name in BEYOND_THE_PAPER} == BEYOND_THE_PAPER


@pytest.mark.parametrize("variant", BEYOND_THE_PAPER)
def test_a_variant_beyond_the_paper_is_a_config(variant):
    config = load_config(PENDULUM, variant=variant)
    for name, value in BEYOND_THE_PAPER[variant].items():
        found = getattr(config, name)
        assert found == value if name != "model_config" else value.items() <= found.items()


def test_a_matched_lone_agent_makes_three_gradient_steps_a_step():
    config = load_config(PENDULUM, variant="vanilla-sac-matched")
    assert (config.ensemble_size, config.knowledge_sharing) == (1, "none")
    assert config.updates_per_step == 3.0


def test_a_teacher_elected_by_three_episodes():
    assert load_config(PENDULUM, variant="cikd-window-3").return_window == 3


def test_softmax_selection_without_teaching():
    config = load_config(PENDULUM, variant="ensemble-sac-softmax")
    assert (config.ensemble_size, config.knowledge_sharing) == (3, "none")
    assert config.policy_selection == "softmax"


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_comes_out_as_it_says(build, monkeypatch, variant):
    expected = VARIANTS[variant]
    config = load_config(PENDULUM, variant=variant, config={**SMALL, "distillation_interval": 450})
    algo: CIKD = build(config)
    members = expected.get("members", 3)
    assert config.teacher_election == expected.get("teacher_election", "best")
    steps: list[int] = []
    step = SACUpdate.step

    def counted(self, batch, noise):
        steps.append(batch.rewards.shape[-1])
        return step(self, batch, noise)

    monkeypatch.setattr(SACUpdate, "step", counted)
    networks = ("policy", "qf1", "qf2", "target_qf1", "log_alpha")
    seen: dict[str, Any] = {}
    learner = learner_of(algo)
    share = learner.share_knowledge

    def watched(teacher: int):
        before = {n: weights_of(algo, n + "." if n != "log_alpha" else n) for n in networks}
        done = len(steps)
        report = share(teacher)
        after = {n: weights_of(algo, n + "." if n != "log_alpha" else n) for n in networks}
        seen.update(before=before, after=after, teacher=f"policy_{teacher}")
        seen.update(extra=steps[done:], report=report)
        return report

    learner.share_knowledge = watched
    result: dict[str, Any] = {}
    while result.get("num_env_steps_sampled_lifetime", 0) < 500:
        result = algo.train()

    assert len(result["ensemble"]["return_mean"]) == members
    phases = expected.get("phases", 1)
    assert result["ensemble"]["num_distillations_lifetime"] == phases
    if not phases:
        assert len(steps) == 300  # one for each step after the 200 random ones
        return
    # As many extra steps, of the same batch size, as a distillation makes.
    assert seen["extra"] == [8] * expected.get("extra_steps", 0)
    assert len(steps) == 300 + expected.get("extra_steps", 0)
    if "changed" in expected:
        for network in networks:
            unchanged = same(seen["before"][network], seen["after"][network])
            for member, is_same in unchanged.items():
                is_student = member != seen["teacher"]
                assert is_same != (is_student and network in expected["changed"]), (network, member)
    if members > 1 and "changed" in expected:
        equal = [
            np.array_equal(weights, seen["after"]["policy"][seen["teacher"]])
            for member, weights in seen["after"]["policy"].items()
            if member != seen["teacher"]
        ]
        assert equal == [expected.get("copied", False)] * (members - 1)
        # Three small steps do not move a policy far; a new one is somewhere else.
        moved = [
            np.abs(seen["after"]["policy"][m] - seen["before"]["policy"][m]).mean()
            for m in seen["before"]["policy"]
            if m != seen["teacher"]
        ]
        if not expected.get("copied"):
            assert all((distance > 0.05) == expected.get("reset", False) for distance in moved)
