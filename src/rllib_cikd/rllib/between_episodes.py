"""What a checkpoint keeps of environments that have ended an episode and not begun the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rllib_cikd.rllib.vector_env import SingleAgentAsMulti, TaskVectorEnv


class BetweenEpisodes(NamedTuple):
    """With it, a run that was stopped goes on as if it had not been."""

    members: Sequence[int]  #: who acts in the next episode of each environment; drawn already
    generators: Sequence[dict[str, Any] | None]  #: states of the environments' own generators

    def restore(self, env: TaskVectorEnv) -> None:
        """Sets the generators of new environments; those that were not known stay as they are."""
        for one, state in zip(env.envs, self.generators, strict=True):
            bits = one.env.unwrapped.np_random.bit_generator
            if state is not None and type(bits).__name__ == state["bit_generator"]:
                bits.state = state


def generator_state(env: SingleAgentAsMulti) -> dict[str, Any] | None:
    """Of Gymnasium's own generator, from which an environment draws its start states."""
    generator = env.env.unwrapped.np_random
    return getattr(getattr(generator, "bit_generator", None), "state", None)
