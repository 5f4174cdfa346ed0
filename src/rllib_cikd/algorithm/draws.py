"""What a learner draws: the rows of its minibatches, noise, and seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rllib_cikd.algorithm.learners import Learners


class Draws:
    """A learner's generator; of several learners, each has draws of its own.

    Args:
        seed: All draws follow from it and from the learner's place; None: from chance.
        device: Where the draws are made.
        learners: Whose draws they are.
    """

    def __init__(self, seed: int | None, device: torch.device, learners: Learners):
        self._device = device
        self._learners = learners
        self.generator = torch.Generator(device)
        if seed is None:
            self.generator.seed()
        else:
            self.begin_anew(seed)

    def begin_anew(self, seed: int) -> None:
        """What is drawn from here on follows from this seed."""
        rank = self._learners.rank
        if rank > 0:  # PyTorch's generators for CPUs look at 32 bits of a seed
            seed = int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])
        self.generator.manual_seed(seed)

    def rows(self, size: int, shape: Sequence[int]) -> Tensor:
        """Independent uniform integers below `size`."""
        shape = tuple(shape)
        return torch.randint(size, shape, device=self._device, generator=self.generator)

    def epochs(self, size: int, shortest: int, batch_size: int, epochs: int) -> Tensor:
        """Passes over a learner's part of the replay buffer, each in an order of its own.

        Full minibatches only; a part smaller than one is a minibatch itself. All learners get the
        same number of minibatches, and of the same size: what the shortest part has.

        Args:
            size: Transitions in this learner's part.
            shortest: Transitions in the shortest part of all learners.
            batch_size: B.
            epochs: Passes.

        Returns:
            Rows, `[number of minibatches, B]`.
        """
        batch_size = min(batch_size, shortest)
        used = shortest - shortest % batch_size
        orders = [
            torch.randperm(size, device=self._device, generator=self.generator)
            for _ in range(epochs)
        ]
        return torch.cat([order[:used].view(-1, batch_size) for order in orders])

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Independent standard normal numbers."""
        return torch.randn(tuple(shape), device=self._device, generator=self.generator)

    def pairs(self, number: int, ensemble_size: int) -> Tensor:
        """Permutations of all members' critics, `[number, 2, K]`, the same for all learners."""
        common = torch.Generator(self._device).manual_seed(self.common_seed())
        shape = (number, 2 * ensemble_size)
        draws = torch.rand(shape, device=self._device, generator=common)
        return draws.argsort(-1).view(number, 2, ensemble_size)

    def common_seed(self) -> int:
        """A seed, the same for all learners, each of which must ask for it."""
        seed = self.rows(2**31, (1,))
        self._learners.follow_the_first([seed])
        return int(seed)

    def get_state(self) -> np.ndarray:
        return self.generator.get_state().cpu().numpy()

    def set_state(self, states: Sequence[np.ndarray]) -> None:
        """Restores this learner's of all learners' states.

        A learner that was not there then draws from a seed that follows from the first one's state.
        """
        rank = self._learners.rank
        stored = torch.from_numpy(np.array(states[rank if rank < len(states) else 0]))
        # That of a GPU's generator means nothing to a CPU's: there it goes on from the seed.
        if stored.shape == self.generator.get_state().shape:
            self.generator.set_state(stored)
            if rank >= len(states):
                self.begin_anew(int(self.rows(2**31, (1,))))
