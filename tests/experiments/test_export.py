"""`rllib export`: what is written acts as the member does, in the environment's units."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import small_config, train

from rllib_cikd import load_policy
from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.checkpoint_evaluation import evaluate
from rllib_cikd.experiments.export import FILES, export


class Odd(gym.Env):
    """Two numbers of one action are whole, observations have all scales."""

    def __init__(self, config=None):
        self.observation_space = spaces.Dict(
            place=spaces.Box(-1e6, 1e6, (2,), np.float64), lamp=spaces.Discrete(3)
        )
        self.action_space = spaces.Tuple(
            [spaces.Box(-3.0, 1.0, (2,), np.float32), spaces.Box(0, 9, (2,), np.int64)]
        )

    def _observe(self):
        return {"place": self.np_random.normal([5e3, 0.0], [1e3, 1e-2]), "lamp": 1}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._left = 30
        return self._observe(), {}

    def step(self, action):
        self._left -= 1
        return self._observe(), float(action[0][0]), False, self._left == 0, {}


@pytest.fixture(scope="module")
def checkpoints(ray_cluster, tmp_path_factory) -> dict[str, str]:
    """Of short runs: with normalisation and odd spaces, discrete actions, CrossQ, none of them."""
    paths = {}
    tasks = {"odd": Odd, "discrete": "CartPole-v1", "crossq": "Pendulum-v1", "plain": "Pendulum-v1"}
    for name, env in tasks.items():
        config = small_config(env, ensemble_size=2)
        if name == "crossq":
            config.rl_module(model_config={"fcnet_hiddens": [16], "batch_norm": True})
        if name == "odd":
            config.env_runners(observation_filter="MeanStdFilter")
        algo = config.build_algo()
        train(algo, 200)
        paths[name] = algo.save_to_path(tmp_path_factory.mktemp("runs") / name)
        algo.stop()
    return paths


def test_onnx_maps_observations_to_the_environments_actions(checkpoints, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    for name, path in checkpoints.items():
        out = tmp_path / name
        assert export(path, member="policy_1", out=str(out), num_episodes=3) == 0
        policy = load_policy(path, "policy_1")
        session = onnxruntime.InferenceSession(str(out / "policy.onnx"))
        space = policy.observation_space
        space.seed(0)
        for _ in range(5):
            observation = space.sample()
            flat = gym.spaces.flatten(space, observation).astype(np.float32)
            (actions,) = session.run(None, {"observation": flat[None]})
            expected = policy(observation)
            if name != "discrete":
                expected = gym.spaces.flatten(policy.action_space, expected)
            np.testing.assert_allclose(actions[0], expected, atol=1e-4)
        assert "largest difference" in capsys.readouterr().out
        card = (out / "README.md").read_text()
        assert "policy_1 of CIKD" in card
        assert "| return |" in card
        assert f"np.zeros((1, {len(flat)})" in card


def test_pt2_is_compared_with_the_member(checkpoints, tmp_path):
    out = tmp_path / "odd"
    export(checkpoints["odd"], form="pt2", out=str(out), num_episodes=2)
    network = torch.export.load(str(out / "policy.pt2")).module()
    policy = load_policy(checkpoints["odd"])
    observation = {"place": np.array([4e3, 0.01]), "lamp": 1}
    flat = torch.from_numpy(gym.spaces.flatten(policy.observation_space, observation)).float()
    numbers, whole = policy(observation)
    np.testing.assert_allclose(network(flat[None])[0], [*numbers, *whole], atol=1e-4)


@pytest.mark.parametrize("name", ["odd", "discrete", "crossq", "plain"])
def test_safetensors_act_and_are_evaluated_alike(checkpoints, tmp_path, monkeypatch, name):
    out, path = tmp_path / "member", checkpoints[name]
    export(path, member="policy_0", form="safetensors", out=str(out), num_episodes=4, seed=3)
    assert {p.name for p in out.iterdir()} == {"policy.safetensors", "policy.json", "README.md"}
    policy = load_policy(path, "policy_0")

    def refuse(*args, **kwargs):
        raise AssertionError("nothing may be unpickled")

    for unpickle in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, unpickle, refuse)
    exported = load_policy(out)
    assert exported.member == "policy_0"
    assert exported.action_space == policy.action_space
    policy.observation_space.seed(1)
    for _ in range(5):
        observation = policy.observation_space.sample()
        assert str(exported(observation)) == str(policy(observation))
    results = tmp_path / "results.json"
    if name != "odd":  # whose class is in this test
        assert evaluate(str(out), num_episodes=4, seed=3, out=str(results)) == 0
        played = json.loads(results.read_text())["members"]["policy_0"]["returns"]
        assert played == json.loads((out / "policy.json").read_text())["returns"]["all"]


def test_damaged_exports_are_refused(checkpoints, tmp_path):
    out = tmp_path / "member"
    export(checkpoints["plain"], form="safetensors", out=str(out), num_episodes=1)
    weights, description = out / "policy.safetensors", out / "policy.json"
    whole, text = weights.read_bytes(), description.read_text()
    for damage in (whole[:-40], whole[:100], b"", b"\xff" * 200):
        weights.write_bytes(damage)
        with pytest.raises(CommandError, match="cannot be read as a member"):
            load_policy(out)
    weights.write_bytes(whole)
    for damage in ("{}", "[", text.replace('"Box"', '"Text"'), text.replace("16", "17", 1)):
        description.write_text(damage)
        with pytest.raises(CommandError, match=r"Export it again|is not known"):
            load_policy(out)
    description.write_text(text)
    with pytest.raises(CommandError, match=r"holds policy_0 alone|holds policy_1 alone"):
        load_policy(out, "policy_7")


def test_what_cannot_be_exported_leaves_nothing(checkpoints, tmp_path):
    out = tmp_path / "member"
    out.mkdir()
    with pytest.raises(CommandError, match="it exists already"):
        export(checkpoints["plain"], out=str(out))
    with pytest.raises(CommandError, match="'policy_9'"):
        export(checkpoints["plain"], member="policy_9", out=str(tmp_path / "other"))
    assert [p.name for p in tmp_path.iterdir()] == ["member"]
    assert set(FILES) == {"onnx", "pt2", "safetensors"}
    assert not Path("checkpoint-policy_9").exists()
