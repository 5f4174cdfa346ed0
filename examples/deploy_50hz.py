"""A trained member in a control loop of 50 Hz, and the worst time that it took to answer.

    rllib train example cikd-pendulum
    python examples/deploy_50hz.py ~/ray_results/cikd-pendulum

The folder of a run, of a checkpoint or of `rllib export` (ONNX or safetensors); Ray is not started.
Ten seconds. Exit code 1 if an answer came too late.
"""

import argparse
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from rllib_cikd import load_policy


def onnx_policy(file: Path, space: gym.Space):
    """The network of `rllib export --format onnx`: a batch of flat observations in, actions out."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options)

    def act(observation):
        flat = gym.spaces.flatten(space, observation).astype(np.float32)
        return session.run(None, {"observation": flat[None]})[0][0]

    return act


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("--env", default="Pendulum-v1", help="the one that it was trained in")
parser.add_argument("--seconds", type=float, default=10.0)
parser.add_argument("--hz", type=float, default=50.0)
args = parser.parse_args()

torch.set_num_threads(1)  # for one small network, more threads only wait for each other
env = gym.make(args.env)
file = args.folder / "policy.onnx"
policy = onnx_policy(file, env.observation_space) if file.is_file() else load_policy(args.folder)

observation, _ = env.reset(seed=0)
for _ in range(100):  # the first answers take longer
    policy(observation)

period, latencies = 1 / args.hz, []
tick = time.perf_counter()
for _ in range(int(args.seconds * args.hz)):
    asked = time.perf_counter()
    action = policy(observation)
    latencies.append(time.perf_counter() - asked)
    observation, _, terminated, truncated, _ = env.step(action)
    if terminated or truncated:
        observation, _ = env.reset()
    tick += period
    time.sleep(max(0.0, tick - time.perf_counter()))

worst, median = max(latencies), np.median(latencies)
print(
    f"{len(latencies)} answers at {args.hz:g} Hz ({1e3 * period:g} ms each): "
    f"median {1e3 * median:.2f} ms, worst {1e3 * worst:.2f} ms"
)
raise SystemExit(worst > period)
