"""RLlib's episode callbacks, for evaluation episodes that are played in lockstep."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rllib_cikd.algorithm.members import acting_member, assign_member
from rllib_cikd.rllib.environment import AGENT_ID
from rllib_cikd.rllib.vector_env import TaskVectorEnv

_EPISODE_CALLBACKS = ("on_episode_created", "on_episode_start", "on_episode_step", "on_episode_end")


def wants_episodes(runner: Any) -> bool:
    """Whether there is a user's callback that gets to see episodes."""
    for name in (*_EPISODE_CALLBACKS, "on_sample_end"):
        theirs = [getattr(type(callback), name) for callback in runner._callbacks]
        if getattr(runner.config, f"callbacks_{name}"):
            return True
        if any(function is not getattr(RLlibCallback, name) for function in theirs):
            return True
    return False


class EvaluationEpisodes:
    """Makes RLlib's episodes of what is played, and calls the users' callbacks with them.

    They get the same arguments as in training: a `MultiAgentEpisode` with the whole episode, in
    which `episode.module_for("agent_0")` is the acting member; `env.envs[env_index]` is where it
    is played. `on_sample_end` follows when all are over.

    Args:
        runner: The env runner that plays.
        env: Its evaluation environments, those of member k from `k * width` on.
        width: Environments of each member.
        metrics: Where the callbacks log.
    """

    def __init__(self, runner: Any, env: TaskVectorEnv, width: int, metrics: MetricsLogger):
        self._runner = runner
        self._env = env
        self._width = width
        self._metrics = metrics
        self._ongoing: dict[int, MultiAgentEpisode] = {}
        self._finished: list[MultiAgentEpisode] = []

    def start(self, k: int, e: int, observation: np.ndarray, info: dict[str, Any]) -> None:
        index = k * self._width + e
        episode = MultiAgentEpisode(
            observation_space=self._env.single_observation_spaces,
            action_space=self._env.single_action_spaces,
            agent_to_module_mapping_fn=acting_member,
        )
        assign_member(episode, k)
        self._ongoing[index] = episode
        self._call("on_episode_created", index)
        episode.add_env_reset(observations={AGENT_ID: observation}, infos={AGENT_ID: info})
        self._call("on_episode_start", index)

    def step(self, k: int, e: int, action: np.ndarray, result: tuple[Any, ...]) -> None:
        index = k * self._width + e
        observation, reward, terminated, truncated, info = result
        episode = self._ongoing[index]
        episode.add_env_step(
            observations={AGENT_ID: observation},
            actions={AGENT_ID: action},
            rewards={AGENT_ID: reward},
            infos={AGENT_ID: info},
            terminateds={"__all__": terminated},
            truncateds={"__all__": truncated and not terminated},
        )
        self._call("on_episode_step", index)
        if terminated or truncated:
            self._call("on_episode_end", index, prev_episode_chunks=[])
            self._finished.append(self._ongoing.pop(index))

    def end(self) -> None:
        """All episodes are over."""
        make_callback(
            "on_sample_end",
            callbacks_objects=self._runner._callbacks,
            callbacks_functions=self._runner.config.callbacks_on_sample_end,
            kwargs={
                "env_runner": self._runner,
                "metrics_logger": self._metrics,
                "samples": [episode.to_numpy() for episode in self._finished],
            },
        )

    def _call(self, name: str, index: int, **kwargs: Any) -> None:
        make_callback(
            name,
            callbacks_objects=self._runner._callbacks,
            callbacks_functions=getattr(self._runner.config, f"callbacks_{name}"),
            kwargs={
                "episode": self._ongoing[index],
                "env_runner": self._runner,
                "metrics_logger": self._metrics,
                "env": self._env,
                "rl_module": self._runner.module,
                "env_index": index,
                **kwargs,
            },
        )
