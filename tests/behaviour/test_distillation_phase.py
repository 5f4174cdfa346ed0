"""What one phase of knowledge sharing does to an ensemble in training.

Runs with the same seed are equal up to their first phase. So a run whose first iteration ends with
a phase shows what is different after it, beside a run that shares no knowledge and shows what was
there before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import envs
import numpy as np
import pytest
from helpers import MEMBERS, gradient_steps, same, small_config, weights_of

from rllib_cikd import CIKD

NETWORKS = ("policy", "qf1", "qf2", "target_qf1", "target_qf2", "log_alpha")
STEPS, UPDATES = 150, 100


def config_with(**training):
    """One iteration is 100 gradient steps and then, if the run shares knowledge, one phase."""
    return small_config(
        envs.DriftEnv, steps_per_iteration=STEPS, distillation_interval=STEPS, **training
    )


def networks_of(algo: CIKD) -> dict[str, dict[str, np.ndarray]]:
    return {network: weights_of(algo, network) for network in NETWORKS}


@pytest.fixture(scope="module")
def no_phase(ray_cluster) -> CIKD:
    """The run without knowledge sharing."""
    algo = config_with(knowledge_sharing="none").build_algo()
    algo.train()
    yield algo
    algo.stop()


class Phase(NamedTuple):
    """A run just after its first phase."""

    algo: CIKD
    before: dict[str, dict[str, np.ndarray]]  #: weights by network and member
    after: dict[str, dict[str, np.ndarray]]
    report: dict[str, Any]  #: `ensemble/distillation` of the result
    teacher: str
    students: list[str]

    @property
    def moved(self) -> set[tuple[str, str]]:
        """Networks that are not bit for bit what they were, with their member."""
        return {
            (network, member)
            for network in NETWORKS
            for member, unmoved in same(self.before[network], self.after[network]).items()
            if not unmoved
        }


@pytest.fixture
def phase_of(build, no_phase):
    """`phase_of(**training)` trains until just after the first phase."""

    def train(**training) -> Phase:
        algo = build(config_with(**training))
        result = algo.train()["ensemble"]
        assert result["num_distillations_lifetime"] == 1
        teacher = f"policy_{result['teacher']}"
        assert teacher == no_phase.elected_policy_id
        students = [member for member in MEMBERS if member != teacher]
        before, after = networks_of(no_phase), networks_of(algo)
        return Phase(algo, before, after, result["distillation"], teacher, students)

    return train


def pairs(networks, members) -> set[tuple[str, str]]:
    return {(network, member) for network in networks for member in members}


# ---------------------------------------------------------------------- What it touches


@pytest.mark.parametrize(
    ("targets", "networks"),
    [
        ("policy_and_critic", ("policy", "qf1", "qf2")),
        ("policy", ("policy",)),
        ("critic", ("qf1", "qf2")),
    ],
)
@pytest.mark.parametrize("sharing", ["distillation", "hard_copy"])
def test_what_distillation_and_hard_copy_touch(phase_of, sharing, targets, networks):
    phase = phase_of(
        knowledge_sharing=sharing,
        distillation_targets=targets,
        distillation_updates=200,
        distillation_batch_size=64,
    )
    assert phase.moved == pairs(networks, phase.students)
    assert gradient_steps(phase.algo) == UPDATES
    for student in phase.students:
        for quantity, network in (("kl", "policy"), ("critic_loss", "qf1")):
            before = phase.report[f"{quantity}_before"][student]
            after = phase.report[f"{quantity}_after"][student]
            if network not in networks:
                assert after == before
            elif sharing == "hard_copy":
                assert after == pytest.approx(0, abs=1e-6 * before)
            else:
                assert after < 0.5 * before
    if sharing == "hard_copy":
        for network in networks:
            for student in phase.students:
                copied = phase.after[network][student]
                assert np.array_equal(copied, phase.before[network][phase.teacher])


def test_the_teacher_has_no_distance_to_itself(phase_of):
    phase = phase_of()
    for name in ("kl_before", "kl_after", "critic_loss_before", "critic_loss_after"):
        assert np.isnan(phase.report[name][phase.teacher])
        assert all(phase.report[name][student] > 0 for student in phase.students)
    assert phase.report["time_s"] > 0


def test_extra_updates_train_everyone_instead(phase_of):
    phase = phase_of(knowledge_sharing="extra_updates", distillation_updates=17)
    assert phase.moved == pairs(NETWORKS, MEMBERS)
    assert gradient_steps(phase.algo) == UPDATES + 17


def test_reset_students(phase_of):
    """With an almost empty distillation after it: students' networks are fresh, others stay."""
    settings = {"distillation_updates": 1, "distillation_lr": 1e-12}
    kept, reset = phase_of(**settings), phase_of(reset_students=True, **settings)
    online = ("policy", "qf1", "qf2")
    assert reset.moved == pairs(online, reset.students)
    one, other = reset.students
    for network in online:
        for student in reset.students:
            change = np.abs(reset.after[network][student] - reset.before[network][student])
            assert np.median(change) > 0.05
            change = np.abs(kept.after[network][student] - kept.before[network][student])
            assert change.max() < 1e-6
        assert not np.array_equal(reset.after[network][one], reset.after[network][other])


def test_students_imitate_at_some_states_and_their_target_critics_are_renewed(phase_of):
    phase = phase_of(
        distillation_filter="advantage", renew_target_critics=True, distillation_updates=20
    )
    online = ("policy", "qf1", "qf2")
    assert phase.moved == pairs((*online, "target_qf1", "target_qf2"), phase.students)
    for student in phase.students:
        assert 0 < phase.report["share_imitated"][student] < 1
        for network in ("qf1", "qf2"):
            target = phase.after[f"target_{network}"][student]
            assert np.array_equal(target, phase.after[network][student])
    assert np.isnan(phase.report["share_imitated"][phase.teacher])


# ---------------------------------------------------------------------- How much it does


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"distillation_updates": 9}, 9),
        # 150 transitions are 18 full minibatches of 8, or 4 of 32.
        ({"distillation_epochs": 1}, 18),
        ({"distillation_epochs": 3, "distillation_batch_size": 32}, 12),
    ],
)
def test_size_of_a_phase(phase_of, settings, expected):
    """Extra updates are as many as a distillation would have, and the optimisers count them."""
    phase = phase_of(knowledge_sharing="extra_updates", **settings)
    assert gradient_steps(phase.algo) == UPDATES + expected


def test_distillation_lr(phase_of):
    for lr, least, most in [(1e-9, 0.9999, 1.0001), (1e-3, 0.0, 0.99)]:
        phase = phase_of(distillation_lr=lr)
        for student in phase.students:
            change = phase.report["kl_after"][student] / phase.report["kl_before"][student]
            assert least < change < most, lr


# ---------------------------------------------------------------------- Assessment


def test_assess_distillation_plays_before_and_after(phase_of, no_phase):
    """Its returns are those of the run without a phase, and of this one as it is now: the
    episodes follow from the seed and the number of steps, which are the same."""
    phase = phase_of(assess_distillation=True, distillation_updates=300, distillation_batch_size=64)
    before, after = (
        {member: played["returns"].mean() for member, played in algo.evaluate_members().items()}
        for algo in (no_phase, phase.algo)
    )
    assert phase.report["return_before"] == before
    assert phase.report["return_after"] == after
    assert before[phase.teacher] == after[phase.teacher]
    assert all(before[student] != after[student] for student in phase.students)
    above = [after[student] > after[phase.teacher] for student in phase.students]
    assert phase.report["students_above_teacher"] == np.mean(above)
