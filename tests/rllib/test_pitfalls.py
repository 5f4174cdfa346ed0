"""RLlib 2.60's ten worst surprises for an algorithm like this one: each is shown not to happen."""

from __future__ import annotations

import csv
import json
import time
from unittest.mock import Mock

import envs
import numpy as np
import pytest
import torch
from helpers import MEMBERS, learner_of, rows_of, same, small_config, weights_of
from ray.tune.logger.csv import CSVLoggerCallback

from rllib_cikd import CIKD, CIKDConfig
from rllib_cikd.algorithm.members import acting_member, member_of
from rllib_cikd.algorithm.replay_buffer import ReplayBuffer
from rllib_cikd.rllib.environment import AGENT_ID


def ask_learner(algo: CIKD, question):
    """The answer of the one learner, local or remote."""
    (answer,) = algo.learner_group.foreach_learner(question)
    return answer.get()


# 1. Multi-agent episodes store every time limit as a termination.


def test_1_time_limit_is_not_stored_as_termination(build):
    algo = build(small_config("Pendulum-v1", steps_per_iteration=450, random_steps=1000))
    assert algo.train()["env_runners"]["num_episodes_lifetime"] == 2
    rows = rows_of(algo)
    assert not rows["terminated"].any()
    # So what the critics learn is bootstrapped at every step, also at steps 200 and 400.
    batch = learner_of(algo).replay_buffer.gather(torch.arange(450), gamma=0.9)
    assert batch.discounts.numpy() == pytest.approx(np.full(450, 0.9))
    assert not np.allclose(rows["next_obs"][199], rows["obs"][200])


def test_1_termination_is_stored_as_termination(build):
    env_config = {"lengths": [3, 5], "ends": ["terminates", "truncates"]}
    algo = build(small_config(envs.CountingEnv, env_config=env_config, fragment=7))
    algo.train()
    terminated = np.flatnonzero(rows_of(algo)["terminated"])
    assert terminated.tolist() == list(range(2, algo.history.env_steps, 8))


# 2. `explore=False` acts with clip(mean) instead of tanh(mean), and evaluation explores.


def test_2_deterministic_actions_are_tanh_of_the_mean(build):
    algo = build(small_config("Pendulum-v1"))
    stack = learner_of(algo).stacks[0]
    with torch.no_grad():
        stack.policy.weights[-1].zero_()
        stack.policy.biases[-1][..., 0] = 1.5
    algo._sync_weights()
    received = []
    env = algo.env_runner.env.unwrapped.envs[0].unwrapped.env
    step = env.step
    env.step = lambda action: received.append(float(action[0])) or step(action)
    chunks = algo.env_runner.sample(num_timesteps=5, explore=False)
    stored = chunks[0].agent_episodes[AGENT_ID].get_actions()
    assert stored.ravel() == pytest.approx(np.full(5, np.tanh(1.5)))
    assert received == pytest.approx([2.0 * np.tanh(1.5)] * 5)


def test_2_evaluation_does_not_explore(build):
    """Neither ours nor the configuration that RLlib would evaluate with."""
    algo = build(small_config("Pendulum-v1").evaluation(evaluation_interval=1))
    assert algo.evaluation_config.explore is False
    first, second = (algo.evaluate_members(2, seed=0) for _ in range(2))
    for member in MEMBERS:
        assert np.array_equal(first[member]["returns"], second[member]["returns"])


# 3. A remote learner's exception is swallowed, and training goes on without learning.


def spoil(learner) -> None:
    with torch.no_grad():
        learner.stacks[0].critics.biases[0][1, 0, 0] = float("nan")


def test_3_remote_learner_that_raises_stops_the_run(build):
    algo = build(small_config(envs.DriftEnv).learners(num_learners=1))
    algo.train()
    ask_learner(algo, spoil)
    with pytest.raises(RuntimeError, match="qf_loss of policy_1 became nan after 150 transitions"):
        algo.train()
    # And it cannot be talked into going on without its learner.
    with pytest.raises(RuntimeError, match="learner"):
        algo.train()


# 4. After a restore, env runners keep newer weights, and evaluation uses those.


def _take_states_slowly(runner):
    set_state = runner.set_state

    def slow(state):
        time.sleep(0.5)
        set_state(state)

    runner.set_state = slow


def test_4_older_weights_reach_remote_env_runners(build, tmp_path):
    """Also while an env runner is still busy with weights that were sent to it before."""
    algo = build(small_config(envs.DriftEnv).env_runners(num_env_runners=1))
    algo.env_runner_group.foreach_env_runner(_take_states_slowly, local_env_runner=False)
    algo.train()
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    old, played = weights_of(algo, "policy"), algo.evaluate_members(3, seed=0)
    algo.train()
    assert not any(same(weights_of(algo, "policy"), old).values())
    algo.restore_from_path(path)
    (remote,) = algo.env_runner_group.foreach_env_runner(
        lambda runner: runner.module.get_state(), local_env_runner=False
    )
    local = algo.env_runner.module.get_state()
    for member, weights in learner_of(algo).module.get_state(inference_only=True).items():
        for name, value in weights.items():
            assert np.array_equal(remote[member][name], value)
            assert np.array_equal(local[member][name], value)
    assert all(same(weights_of(algo, "policy"), old).values())
    again = algo.evaluate_members(3, seed=0)
    for member in MEMBERS:
        assert np.array_equal(again[member]["returns"], played[member]["returns"])


# 5. Checkpoints miss temperatures, buffer, generators and election; syncs drag the buffer along.


def test_5_checkpoint_holds_what_rllib_leaves_out(build, tmp_path):
    algo = build(small_config(envs.DriftEnv))
    for _ in range(3):
        algo.train()
    restored = CIKD.from_checkpoint(algo.save_to_path(str(tmp_path / "checkpoint")))
    alphas = weights_of(algo, "log_alpha")
    assert all(alphas[member] != 0.0 for member in MEMBERS)
    assert weights_of(restored, "log_alpha") == alphas
    assert all(
        np.array_equal(restored_rows, rows)
        for restored_rows, rows in zip(
            rows_of(restored).values(), rows_of(algo).values(), strict=True
        )
    )
    assert torch.equal(
        learner_of(restored).draws.generator.get_state(),
        learner_of(algo).draws.generator.get_state(),
    )
    assert restored.history.returns.get_state() == algo.history.returns.get_state()
    assert restored._rng.bit_generator.state == algo._rng.bit_generator.state
    assert restored.history.times_teacher == algo.history.times_teacher != [0, 0, 0]
    restored.stop()


def test_5_weight_syncs_do_not_read_the_buffer(build, monkeypatch):
    algo = build(small_config(envs.DriftEnv).evaluation(evaluation_interval=1))
    reads = []
    get_state = ReplayBuffer.get_state
    monkeypatch.setattr(ReplayBuffer, "get_state", lambda self: reads.append(1) or get_state(self))
    algo.train()
    algo.evaluate()
    assert reads == []
    algo.get_state()
    assert reads == [1]


# 6. Metrics are forgotten each iteration, `timesteps_total` never comes, CSV fixes its columns.


def test_6_returns_are_there_also_without_a_new_episode(build):
    """Pendulum's episodes have 200 steps, an iteration 50: most iterations finish none."""
    start = {"random_steps": 0, "num_steps_sampled_before_learning_starts": 1000}
    algo = build(small_config("Pendulum-v1", steps_per_iteration=50, **start))
    results = [algo.train()["ensemble"] for _ in range(11)]
    known = [
        sum(not np.isnan(value) for value in result["return_mean"].values()) for result in results
    ]
    assert known[:3] == [0, 0, 0]
    assert known[3:] == sorted(known[3:])
    assert known[3] == 1
    assert repr(results[4]["return_mean"]) == repr(results[6]["return_mean"])
    assert [sum(r["episodes_lifetime"].values()) for r in results] == [0] * 3 + [1] * 4 + [2] * 4


def test_6_csv_has_all_columns_from_the_first_row_on(build, tmp_path):
    algo = build(
        small_config(
            envs.DriftEnv, steps_per_iteration=50, random_steps=100, assess_distillation=True
        ).evaluation(evaluation_interval=2, evaluation_duration=1)
    )
    logger, trial = CSVLoggerCallback(), Mock(local_path=str(tmp_path), checkpoint=None)
    for iteration in range(5):
        logger.log_trial_result(iteration, trial, algo.train())
    logger.log_trial_end(trial)
    with (tmp_path / "progress.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    for column in (
        "timesteps_total",
        "ensemble/return_mean/policy_2",
        "ensemble/distillation/students_above_teacher",
        "evaluation/ensemble/best_return_mean",
        "evaluation/env_runners/episode_return_mean",
        "learners/policy_1/qf_loss",
        "learners/policy_1/alpha_value",
    ):
        assert np.isfinite(float(last[column])), column
    assert last["timesteps_total"] == "250"


# 7. Episodes sent to learners through RLlib's sharding lose terminal flags and order.


def test_7_remote_learner_gets_flags_and_order(build):
    env_config = {"lengths": [1, 6, 9, 2], "ends": ["truncates", "terminates"] * 2}
    # Random actions come from the runner's own generator, so both runs act alike.
    config = small_config(envs.CountingEnv, env_config=env_config, fragment=7, random_steps=500)
    local, remote = build(config), build(config.copy(copy_frozen=False).learners(num_learners=1))
    for algo in (local, remote):
        algo.train()
    rows = ask_learner(remote, lambda learner: learner.replay_buffer.get_state()["rows"])
    expected = learner_of(local).replay_buffer.get_state()["rows"]
    # All but the number of the environment's instance, in the observation and the next one.
    assert np.array_equal(np.delete(rows, [1, 9], axis=1), np.delete(expected, [1, 9], axis=1))
    numbers = rows[:, -5:-1] / envs.UNIT
    places = numbers[:, 2] * 10 + numbers[:, 3]
    assert np.array_equal(places, np.sort(places))
    # Of each 18 steps, the 7th and the 18th end an episode by termination.
    terminated = np.flatnonzero(rows[:, 7])
    expected = [i for i in range(len(rows)) if i % 18 in (6, 17)]
    assert terminated.tolist() == expected


# 8. The mapping function is called again at each cut, and copies of it draw the same members.


def test_8_mapping_function_neither_draws_nor_counts():
    class HalfBuilt:
        """As RLlib passes it while it cuts an episode: no attributes yet."""

    assert acting_member(AGENT_ID, HalfBuilt()) == "policy_0"
    episode = HalfBuilt()
    episode._custom_data = {"cikd_member": "policy_2"}
    assert [acting_member(AGENT_ID, episode) for _ in range(5)] == ["policy_2"] * 5


def members_drawn(runner, num_episodes: int = 40) -> list[int]:
    members: dict[str, int] = {}
    while len(members) < num_episodes:
        for chunk in runner.sample(random_actions=True):
            members[chunk.id_] = member_of(chunk)
    return list(members.values())[:num_episodes]


# 9. Everyone starts at the same states; random actions have no seed; iterations go by the clock.


def start_states(runner) -> list[float]:
    envs.DriftEnv.first_observations.clear()
    while len(envs.DriftEnv.first_observations) < 10:
        runner.sample()
    return list(envs.DriftEnv.first_observations)


def test_8_and_9_env_runners_draw_other_members_and_start_states(build):
    config = small_config(envs.DriftEnv, num_envs=2).env_runners(num_env_runners=2)
    group = build(config).env_runner_group
    first, second = group.foreach_env_runner(members_drawn, local_env_runner=False)
    assert first != second
    first, second = group.foreach_env_runner(start_states, local_env_runner=False)
    assert len(set(first) | set(second)) == len(first) + len(second)


def test_9_random_actions_follow_the_seed_in_the_policies_units(build):
    actions = []
    for seed in (4, 4, 5):
        algo = build(small_config("Pendulum-v1", seed=seed, random_steps=1000))
        algo.train()
        actions.append(rows_of(algo)["actions"])
    assert np.array_equal(actions[0], actions[1])
    assert not np.array_equal(actions[0], actions[2])
    assert 0.9 < np.abs(actions[0]).max() <= 1.0


def test_9_an_iteration_does_not_depend_on_the_clock():
    config = CIKDConfig()
    assert not config.min_time_s_per_iteration
    assert config.min_sample_timesteps_per_iteration == 1000


# 10. SAC's defaults in RLlib are not SAC's.


def test_10_networks_and_optimisers_are_the_published_ones(build):
    algo = build(CIKDConfig().environment("HalfCheetah-v5").debugging(log_level="ERROR"))
    module = learner_of(algo).module["policy_0"]
    sizes = {
        network: sum(p.numel() for p in getattr(module, network).parameters())
        for network in ("policy", "qf1", "qf2", "target_qf1", "target_qf2")
    }
    hidden = 256 * 256 + 256
    critic = (17 + 6) * 256 + 256 + hidden + 256 + 1
    assert sizes["qf1"] == sizes["qf2"] == sizes["target_qf1"] == sizes["target_qf2"] == critic
    assert sizes["policy"] == 17 * 256 + 256 + hidden + 256 * 12 + 12
    assert isinstance(module.policy[1], torch.nn.ReLU)
    (update,) = learner_of(algo).updates
    for name, optimizer in update.optimizers.items():
        (group,) = optimizer.param_groups
        assert (group["lr"], group["eps"], group["betas"]) == (3e-4, 1e-8, (0.9, 0.999)), name
    output = torch.tensor([[0.5] * 6 + [-30.0] * 3 + [30.0] * 3])
    log_std = ask_log_std(module, output)
    assert log_std.tolist() == [[-20.0] * 3 + [2.0] * 3]


def ask_log_std(module, output: torch.Tensor) -> torch.Tensor:
    """The log std that a member's policy has, if its last layer gives `output`."""
    with torch.no_grad():
        last = module.policy[-1]
        weight, bias = last.weight.clone(), last.bias.clone()
        last.weight.zero_()
        last.bias.copy_(output[0])
        dist_inputs = module.forward_train({"obs": torch.zeros(1, 17)})["action_dist_inputs"]
        last.weight.copy_(weight)
        last.bias.copy_(bias)
    return dist_inputs.chunk(2, dim=-1)[1]


def test_10_targets_follow_once_per_gradient_step(build):
    """RLlib's own hook would move them once more after each call."""
    algo = build(
        small_config(envs.DriftEnv, tau=0.25, fragment=1, steps_per_iteration=1, random_steps=20)
    )
    for _ in range(21):
        before = weights_of(algo, "target_qf1")
        algo.train()
    assert algo.history.num_updates == 1
    online, after = weights_of(algo, "qf1"), weights_of(algo, "target_qf1")
    for member in MEMBERS:
        expected = before[member] + 0.25 * (online[member] - before[member])
        assert after[member] == pytest.approx(expected, abs=1e-6)
        assert np.abs(online[member] - before[member]).max() > 1e-5


def test_10_critics_learn_from_half_the_squared_error(build):
    """With errors a hundred times as large, of which Huber's loss would grow linearly."""
    losses = {}
    for scale in (1.0, 100.0):
        algo = build(
            small_config(
                envs.CountingEnv,
                env_config={"reward_scale": scale},
                gamma=0.0,
                critic_lr=1e-12,
                knowledge_sharing="none",
                steps_per_iteration=300,
            )
        )
        losses[scale] = algo.train()["learners"]["policy_0"]["qf_loss"]
    assert losses[100.0] / losses[1.0] > 1000


def test_10_a_typo_in_a_dict_is_an_error(ray_cluster):
    with pytest.raises(ValueError, match="Did you mean 'distillation_interval'"):
        CIKD(config={"env": "Pendulum-v1", "distillation_intervall": 100})


def test_results_can_be_written_as_json(build):
    """No tensors, arrays or objects in a result: what Tune's JSON logger needs."""
    algo = build(small_config(envs.DriftEnv).evaluation(evaluation_interval=1))
    result = algo.train()
    for section in ("ensemble", "evaluation"):
        assert json.loads(json.dumps(result[section]))
