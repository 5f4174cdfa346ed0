"""Several learners of one run: equal networks, and each a part of the replay buffer.

Losses are means over a learner's own minibatch. So gradients that are averaged over N learners with
minibatches of B are those of one learner with a minibatch of N * B.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed

# Imported here, before a process group is made: the defaults of its functions keep a group that is
# there already from being closed, and PyTorch's optimisers import it in the end.
import torch.distributed.nn.functional
from torch import Tensor


class AnotherLearnerFailed(RuntimeError):
    """What the other learners raise when one has failed."""


@dataclass(frozen=True)
class Learners:
    """The learners of a run, as one of them sees them.

    Whoever makes more than one has set up `torch.distributed` for them. All of them must call the
    methods the same number of times in the same order: each call waits for the others.

    Attributes:
        rank: The place of this one, from 0.
        size: N, how many there are.
    """

    rank: int = 0
    size: int = 1

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its mean over all learners, in place, with the same bits in all."""
        if self.size == 1:
            return
        together = torch.cat([tensor.flatten() for tensor in tensors])
        try:
            torch.distributed.all_reduce(together)
        except RuntimeError as error:
            raise AnotherLearnerFailed(f"Another learner has failed: {error}") from error
        together /= self.size
        means = together.split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))

    @torch.no_grad()
    def follow_the_first(self, tensors: Iterable[Tensor]) -> None:
        """Each tensor becomes the first learner's, in place."""
        if self.size == 1:
            return
        for tensor in tensors:
            torch.distributed.broadcast(tensor, src=0)

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """If this learner raises, the others do so at once, where they wait for it."""
        try:
            yield
        except Exception:
            if self.size > 1 and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            raise


#: The only learner of a run.
ALONE = Learners()
