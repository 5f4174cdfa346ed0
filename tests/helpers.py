"""What several test files need to make algorithms and to look into them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import envs
import numpy as np
import torch
import yaml
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune.utils import flatten_dict
from torch import Tensor, nn

from rllib_cikd import CIKD, CIKDConfig
from rllib_cikd.rllib.learner import CIKDTorchLearner

MEMBERS = ("policy_0", "policy_1", "policy_2")

#: A run that trains in fractions of a second, as keys of a plain config dict.
SMALL_RUN: dict[str, Any] = {
    "random_steps": 50,
    "train_batch_size_per_learner": 8,
    "distillation_interval": 100,
    "distillation_updates": 3,
    "distillation_batch_size": 8,
    "replay_buffer_config": {"capacity": 5_000},
    "model_config": {"fcnet_hiddens": [16, 16]},
    "min_sample_timesteps_per_iteration": 100,
    "evaluation_duration": 3,
    "delay_between_env_runner_restarts_s": 1.0,
    "seed": 0,
    "log_level": "ERROR",
    "log_sys_usage": False,
}


def small_config(
    env: Any = "Pendulum-v1",
    *,
    env_config: dict[str, Any] | None = None,
    fragment: int = 50,
    num_envs: int = 1,
    steps_per_iteration: int = 100,
    seed: int | None = 0,
    **training,
) -> CIKDConfig:
    """A `SMALL_RUN` in this environment; `training` goes to `.training()`."""
    return (
        CIKDConfig()
        .update_from_dict(SMALL_RUN)
        .environment(env, env_config=env_config or {})
        .env_runners(rollout_fragment_length=fragment, num_envs_per_env_runner=num_envs)
        .reporting(min_sample_timesteps_per_iteration=steps_per_iteration)
        .training(**training)
        .debugging(seed=seed)
    )


#: Settings of an experiment file that trains in seconds, two phases of distillation included.
SMALL_SETTINGS: dict[str, Any] = {
    "random_steps": 200,
    "train_batch_size_per_learner": 8,
    "distillation_interval": 400,
    "distillation_updates": 3,
    "distillation_batch_size": 8,
    "replay_buffer_config": {"capacity": 2_000},
    "model_config": {"fcnet_hiddens": [16, 16]},
    "min_sample_timesteps_per_iteration": 200,
    "evaluation_interval": 2,
    "evaluation_duration": 2,
    "seed": 0,
}


def write_experiment(
    path: Path, env: str = "Pendulum-v1", stop: dict[str, Any] | None = None, **settings
) -> Path:
    """Writes a small experiment file of that name; `settings` go over `SMALL_SETTINGS`."""
    experiment = {"run": "CIKD", "env": env, "stop": stop or {"timesteps_total": 800}}
    experiment["config"] = SMALL_SETTINGS | settings
    path.write_text(yaml.safe_dump({path.stem: experiment}))
    return path


def eventful_config(**training) -> CIKDConfig:
    """After some hundred steps all state that there can be.

    An election, a fraction of an update that is owed, n-step links, an odd fragment.
    """
    return small_config(
        envs.DriftEnv,
        fragment=7,
        teacher_election="random",
        policy_selection="softmax",
        training_intensity=5,
        n_step=2,
        **training,
    )


def plain_values(config: AlgorithmConfig) -> dict[str, Any]:
    """The config's values without functions and classes, as text."""
    values = {key: repr(value) for key, value in vars(config).items() if key != "policies"}
    plain = {key: text for key, text in values.items() if "0x" not in text}
    return plain | {"policies": list(config.policies)}


def train(algo: CIKD, steps: int) -> dict[str, Any]:
    """Trains until at least `steps` environment steps are done; returns the last result."""
    result: dict[str, Any] = {}
    while algo.history.env_steps < steps:
        result = algo.train()
    return result


def learner_of(algo: CIKD) -> CIKDTorchLearner:
    """The local learner."""
    return algo.learner_group._learner


def gradient_steps(algo: CIKD) -> int:
    """How many steps each network's Adam has taken, which must be the same number for all."""
    steps = {
        float(optimizer.state[parameter]["step"]) if optimizer.state else 0.0
        for update in learner_of(algo).updates
        for optimizer in update.optimizers.values()
        for parameter in optimizer.param_groups[0]["params"]
    }
    assert len(steps) == 1, steps
    return int(steps.pop())


def rows_of(algo: CIKD) -> dict[str, np.ndarray]:
    """The transitions in the buffer, in the order they came: obs, actions, rewards, ..."""
    buffer = learner_of(algo).replay_buffer
    state = buffer.get_state()
    assert state["num_added"] <= buffer.capacity, "the oldest transitions are gone"
    rows, d, a = state["rows"], buffer._obs_dim, buffer._action_dim
    return {
        "obs": rows[:, :d],
        "actions": rows[:, d : d + a],
        "rewards": rows[:, d + a],
        "terminated": rows[:, d + a + 1].astype(bool),
        "next_obs": rows[:, d + a + 2 :],
    }


def weights_of(algo: CIKD, prefix: str = "") -> dict[str, np.ndarray]:
    """Per member its parameters whose names begin with `prefix`, as one vector."""
    return {
        member: np.concatenate(
            [np.ravel(value) for name, value in sorted(state.items()) if name.startswith(prefix)]
        )
        for member, state in learner_of(algo).module.get_state().items()
    }


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, bool]:
    """Per member whether two `weights_of` are bit-identical."""
    return {member: np.array_equal(a[member], b[member]) for member in a}


def optimizer_state(algo: CIKD) -> dict[str, np.ndarray]:
    """Steps and moments of every Adam, by optimiser, parameter and name."""
    return {
        f"{i}/{name}/{parameter}/{key}": np.array(value)
        for i, update in enumerate(learner_of(algo).updates)
        for name, optimizer in update.optimizers.items()
        for parameter, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def full_state(algo: CIKD) -> dict[str, np.ndarray]:
    """All state that training goes on from."""
    runner = algo.env_runner
    buffer = learner_of(algo).replay_buffer.get_state()
    own = algo.get_state(components="cikd")["cikd"]
    history = own["history"]
    plain = {name: history[name] for name in ("env_steps", "num_updates", "num_phases", "teacher")}
    return {
        "iteration": np.array(algo.iteration),
        **{f"own/{name}": np.array(value, dtype=float) for name, value in plain.items()},
        "stored": np.array(algo.history.stored),
        "times_teacher": np.array(history["times_teacher"]),
        "episodes": np.array(history["episodes"]),
        "returns": np.array([json.dumps(window) for window in history["returns"]]),
        "election_generator": np.array(json.dumps(own["rng"])),
        "learner_generator": learner_of(algo).draws.generator.get_state().numpy(),
        "selection_generator": np.array(json.dumps(runner._selection_rng.bit_generator.state)),
        "exploration_generator": runner._exploration_rng.get_state().numpy(),
        **{f"buffer/{name}": np.asarray(value) for name, value in buffer.items()},
        **{f"weights/{member}": value for member, value in weights_of(algo).items()},
        **{f"log_alpha/{m}": value for m, value in weights_of(algo, "log_alpha").items()},
        **{f"optimizer/{name}": value for name, value in optimizer_state(algo).items()},
    }


def assert_same_state(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert set(a) == set(b)
    different = [name for name in a if not np.array_equal(a[name], b[name])]
    assert not different, different


def parameters_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a member's parameters by name."""
    return {name: p.detach().clone() for name, p in module.state_dict().items()}


#: Names of a member's online networks, by what `distillation_targets` calls them.
ONLINE: dict[str, tuple[str, ...]] = {"policy": ("policy.",), "critic": ("qf1.", "qf2.")}
ONLINE["policy_and_critic"] = ONLINE["policy"] + ONLINE["critic"]


def assert_changed_only(
    before: dict[str, Tensor], module: nn.Module, changed: tuple[str, ...]
) -> None:
    """Parameters whose names start so all differ from before; the others have the same bits."""
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, before[name]) != name.startswith(changed or "-"), name


def flat(result: dict[str, Any]) -> dict[str, Any]:
    """A result as Tune's loggers see it: "ensemble/teacher" and so on, without the config."""
    return flatten_dict({key: value for key, value in result.items() if key != "config"})


def start(*args: Any, cwd: Path) -> subprocess.Popen:
    """Starts `rllib ARGS`."""
    # As in a fresh terminal, without what other tests set.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "OMP_", "TUNE_"))}
    env["PYTHONPATH"] = os.pathsep.join([path for path in sys.path if path])
    return subprocess.Popen(
        [sys.executable, "-m", "rllib_command", *map(str, args)],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a test may send signals to its whole process group
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Waits for a started command; returns exit code, stdout and stderr."""
    try:
        stdout, stderr = process.communicate(timeout=600)  # it takes 20 s on an idle machine
    finally:
        process.kill()
    return process.returncode, stdout, stderr
