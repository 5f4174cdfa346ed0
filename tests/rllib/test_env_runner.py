"""`CIKDEnvRunner` by itself: seeds, generators, members of episodes, state."""

from __future__ import annotations

import itertools
from collections import Counter

import envs
import numpy as np
import pytest
import torch
from helpers import small_config

from rllib_cikd.algorithm.members import member_of
from rllib_cikd.rllib.env_runner import CIKDEnvRunner
from rllib_cikd.rllib.environment import AGENT_ID


@pytest.fixture
def make_runner(ray_cluster):
    """`make_runner(config, worker_index)` makes a runner in this process."""
    runners = []

    def make(config, worker_index: int = 0) -> CIKDEnvRunner:
        config = config.copy(copy_frozen=False)
        config.validate()
        runners.append(CIKDEnvRunner(config=config, worker_index=worker_index))
        return runners[-1]

    yield make
    for runner in runners:
        runner.stop()


def observations_of(chunks) -> np.ndarray:
    return np.concatenate([c.agent_episodes[AGENT_ID].get_observations() for c in chunks])


def actions_of(chunks) -> np.ndarray:
    return np.concatenate([c.agent_episodes[AGENT_ID].get_actions() for c in chunks])


def start_states(runner: CIKDEnvRunner, num_episodes: int = 20) -> list[float]:
    """Where the first episodes of all sub-environments start."""
    envs.DriftEnv.first_observations.clear()
    while len(envs.DriftEnv.first_observations) < num_episodes:
        runner.sample()
    return list(envs.DriftEnv.first_observations)


def test_same_seed_same_samples(make_runner):
    one, two = (make_runner(small_config("Pendulum-v1", seed=3)) for _ in range(2))
    one.module.set_state(two.module.get_state())
    for _ in range(3):
        a, b = one.sample(), two.sample()
        assert np.array_equal(observations_of(a), observations_of(b))
        assert np.array_equal(actions_of(a), actions_of(b))
        assert [member_of(chunk) for chunk in a] == [member_of(chunk) for chunk in b]


@pytest.mark.parametrize("num_envs", [1, 3])
def test_start_states_differ_between_runners_and_sub_environments(make_runner, num_envs):
    config = small_config(envs.DriftEnv, seed=0, num_envs=num_envs)
    states = [start_states(make_runner(config, worker_index=w)) for w in (1, 2, 3)]
    assert len(set(itertools.chain(*states))) == sum(map(len, states))


def test_evaluation_runner_starts_elsewhere(make_runner):
    config = small_config(envs.DriftEnv, seed=0)
    training = start_states(make_runner(config))
    config.in_evaluation = True
    assert not set(training) & set(start_states(make_runner(config)))


def test_seeds_of_neighbours_do_not_overlap(make_runner):
    """Seed 0 of worker 1 must not be seed 1 of worker 0, as it is with RLlib's sums."""
    states = [
        start_states(make_runner(small_config(envs.DriftEnv, seed=seed), worker_index=worker))
        for seed, worker in [(0, 1), (1, 0), (0, 0), (1, 1)]
    ]
    assert len(set(itertools.chain(*states))) == sum(map(len, states))


def test_without_a_seed_runners_differ(make_runner):
    states = [start_states(make_runner(small_config(envs.DriftEnv, seed=None))) for _ in range(2)]
    assert not set(states[0]) & set(states[1])


def test_random_actions_do_not_depend_on_global_generators(make_runner):
    actions = []
    for disturbance in (0, 1):
        runner = make_runner(small_config("Pendulum-v1", seed=1))
        np.random.seed(disturbance)
        torch.manual_seed(disturbance)
        chunks = runner.sample(random_actions=True)
        actions.append(actions_of(chunks))
    assert np.array_equal(*actions)
    # Stored in the policies' units, [-1, 1], not in Pendulum's, [-2, 2].
    assert np.abs(actions[0]).max() <= 1.0


def test_policy_after_random_actions_within_one_episode(make_runner):
    runner = make_runner(small_config("Pendulum-v1"))
    kinds = [runner.sample(random_actions=random) for random in (True, False, True, False)]
    assert {chunk.id_ for chunks in kinds for chunk in chunks} == {kinds[0][0].id_}
    assert [len(chunks[0]) for chunks in kinds] == [50] * 4


def test_only_actions_are_stored_in_episodes(make_runner):
    (chunk,) = make_runner(small_config("Pendulum-v1")).sample()
    assert list(chunk.agent_episodes[AGENT_ID].extra_model_outputs) == []


def test_one_member_acts_through_an_episode(make_runner):
    runner = make_runner(
        small_config(envs.CountingEnv, env_config={"lengths": [23]}, fragment=5, num_envs=2)
    )
    members: dict[str, set[int]] = {}
    for _ in range(40):
        for chunk in runner.sample():
            members.setdefault(chunk.id_, set()).add(member_of(chunk))
            assert chunk.module_for(AGENT_ID) == f"policy_{member_of(chunk)}"
    assert len(members) >= 17
    assert all(len(acted) == 1 for acted in members.values())
    assert len(set.union(*members.values())) == 3


def test_selection_probabilities(make_runner):
    runner = make_runner(small_config(envs.CountingEnv, env_config={"lengths": [1]}))
    runner.selection_probabilities = np.array([0.0, 0.25, 0.75])
    members = Counter(member_of(chunk) for _ in range(8) for chunk in runner.sample())
    assert members[0] == 0
    assert 0.15 < members[1] / sum(members.values()) < 0.35


def test_members_act_in_rounds(make_runner):
    """Also over the end of a fragment, with random actions, and after a restore within a round."""
    settings = {"policy_selection": "round", "env_config": {"lengths": [10]}}
    config = small_config(envs.CountingEnv, fragment=40, **settings)
    runner = make_runner(config)
    members: dict[str, int] = {}
    for i in range(9):
        chunks = runner.sample(random_actions=i < 3)
        members |= {chunk.id_: member_of(chunk) for chunk in chunks if len(chunk)}
    acted = [*members.values()]
    assert len(acted) == 36
    assert all(sorted(acted[i : i + 3]) == [0, 1, 2] for i in range(0, 36, 3))
    other = make_runner(config)
    other.set_state(runner.get_state())
    assert other._round == runner._round


def test_state_holds_the_generators(make_runner):
    config = small_config(envs.CountingEnv, env_config={"lengths": [3]})
    runner, other = make_runner(config), make_runner(config)
    runner.sample()
    other.set_state(runner.get_state())
    assert other._selection_rng.random() == runner._selection_rng.random()
    a, b = (torch.rand(3, generator=r._exploration_rng) for r in (runner, other))
    assert torch.equal(a, b)


def test_state_of_another_runner_brings_its_weights_but_not_its_draws(make_runner):
    config = small_config(envs.CountingEnv)
    source, target = make_runner(config, worker_index=0), make_runner(config, worker_index=2)
    source.sample()
    target.set_state(source.get_state())
    assert target._selection_rng.random() != source._selection_rng.random()
    for member, state in source.module.get_state().items():
        for name, value in state.items():
            assert np.array_equal(value, target.module[member].get_state()[name])


def test_weight_sync_leaves_episodes_and_generators_alone(make_runner):
    config = small_config(envs.CountingEnv, env_config={"lengths": [60]}, fragment=20)
    runner, reference = make_runner(config), make_runner(config)
    steps = []
    for _ in range(3):
        (chunk,) = runner.sample(random_actions=True)
        (expected,) = reference.sample(random_actions=True)
        steps.append(chunk.env_t_started)
        assert np.array_equal(actions_of([chunk]), actions_of([expected]))
        runner.set_state(runner.get_state(components=["rl_module"]))
    assert steps == [0, 20, 40]


def test_state_of_components_only(make_runner):
    runner = make_runner(small_config(envs.DriftEnv))
    assert "generators" in runner.get_state()
    assert "generators" not in runner.get_state(components=["rl_module"])
    assert "generators" not in runner.get_state(not_components=["generators"])


@pytest.mark.parametrize("num_episodes", [1, 3])
def test_shares_of_an_evaluation_make_up_the_whole(make_runner, num_episodes):
    runner = make_runner(small_config(envs.DriftEnv))
    returns, lengths = runner.evaluate_members(num_episodes, seed=5)
    shares = [runner.evaluate_members(num_episodes, 5, (i, 2)) for i in range(2)]
    together = np.concatenate([share[0] for share in shares], axis=1)
    assert together.shape == returns.shape == lengths.shape == (3, num_episodes)
    assert np.allclose(np.sort(together, axis=1), np.sort(returns, axis=1), rtol=1e-5)


def test_evaluation_envs_are_kept_and_closed(make_runner):
    made, closed = [], []

    class Counted(envs.DriftEnv):
        def __init__(self, config=None):
            super().__init__(config)
            made.append(self)

        def close(self):
            closed.append(self)

    runner = make_runner(small_config(Counted))
    of_training = len(made)
    for episodes, environments in ((2, 6), (2, 6), (3, 9), (5, 9)):  # more are played in turns
        runner.evaluate_members(episodes, seed=0)
        assert len(made) == of_training + environments
    assert closed == []
    runner.stop()
    assert len(closed) == of_training + 9


def test_truncation_is_no_termination(make_runner):
    config = small_config(
        envs.CountingEnv,
        env_config={"lengths": [4, 4], "ends": ["truncates", "terminates"]},
        fragment=8,
    )
    chunks = make_runner(config).sample()
    flags = [
        (c.agent_episodes[AGENT_ID].is_terminated, c.agent_episodes[AGENT_ID].is_truncated)
        for c in chunks
    ]
    assert flags == [(False, True), (True, False)]


def test_failing_environment_can_be_restarted(make_runner):
    """With RLlib's `restart_failed_sub_environments`, sampling goes on with a new one.

    What came before the crash is not lost.
    """
    calls = []
    step = envs.DriftEnv.step

    class FailingEnv(envs.DriftEnv):
        def step(self, action):
            calls.append(1)
            if len(calls) == 30:
                raise RuntimeError("simulator crashed")
            return step(self, action)

    config = small_config(FailingEnv).fault_tolerance(restart_failed_sub_environments=True)
    runner = make_runner(config)
    assert sum(len(chunk) for chunk in runner.sample()) == 29
    assert sum(len(chunk) for chunk in runner.sample()) == 50
    assert len(calls) > 30
