"""Two learners of one run, as two processes that `torch.distributed` (gloo) connects."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
from experience import A, D, Experience

from rllib_cikd.algorithm.draws import Draws
from rllib_cikd.algorithm.ensemble import MemberStack
from rllib_cikd.algorithm.knowledge_sharing import Teacher, distill
from rllib_cikd.algorithm.learners import ALONE, AnotherLearnerFailed, Learners
from rllib_cikd.algorithm.replay_buffer import Batch
from rllib_cikd.algorithm.sac_update import SACSettings, SACUpdate
from rllib_cikd.rllib.sac_module import SACModule

K, B, NUM_STEPS = 3, 8, 20
SETTINGS = SACSettings(actor_lr=1e-3, critic_lr=2e-3, alpha_lr=3e-3, gamma=31 / 32, grad_clip=0.5)


def learn(learners: Learners, dtype: torch.dtype, own: slice) -> dict[str, Any]:
    """20 SAC steps, then 20 of distillation, on some columns of minibatches of 2 * B.

    Returns:
        Copies of the members' tensors "at_first", "after_sac" and "after_distillation"; the
        "statistics" of the last step.
    """
    torch.manual_seed(learners.rank)
    modules = [
        SACModule(
            observation_space=gym.spaces.Box(-9.0, 9.0, (D,), np.float32),
            action_space=gym.spaces.Box(-1.0, 1.0, (A,), np.float32),
            model_config={"fcnet_hiddens": [24, 16], "initial_alpha": 0.5 + k},
        ).to(dtype)
        for k in range(K)
    ]
    stack = MemberStack(range(K), modules)
    learners.follow_the_first(stack.tensors)
    update = SACUpdate(stack, SETTINGS, learners)
    buffer, generator = Experience().buffer(), torch.Generator().manual_seed(1)

    def batch_of(rows: torch.Tensor) -> Batch:
        return Batch(*(x.to(dtype) for x in buffer.gather(rows[..., own], SETTINGS.gamma)))

    def copies() -> list[torch.Tensor]:
        return [tensor.detach().clone() for tensor in stack.tensors]

    result: dict[str, Any] = {"at_first": copies()}
    for _ in range(NUM_STEPS):
        rows = torch.randint(150, (K, 2 * B), generator=generator)
        noise = torch.randn(K, 2, 2 * B, A, generator=generator, dtype=dtype)
        statistics = update.step(batch_of(rows), noise[:, :, own])
    learners.average([statistics])
    result |= {"after_sac": copies(), "statistics": statistics}

    def minibatches() -> Iterator[Batch]:
        for _ in range(NUM_STEPS):
            yield batch_of(torch.randint(150, (2 * B,), generator=generator))

    distill([stack], Teacher([stack], 1), minibatches, lr=1e-3, learners=learners)
    return result | {"after_distillation": copies()}


def work_together(learners: Learners) -> dict[Any, Any]:
    """All that the tests look at; then the second learner raises."""
    half = slice(learners.rank, None, learners.size)
    results: dict[Any, Any] = {
        dtype: learn(learners, dtype, half) for dtype in (torch.float32, torch.float64)
    }
    learners.average([torch.zeros(0)])
    draws = Draws(7, torch.device("cpu"), learners)
    results["rows"] = draws.rows(1000, (20,))
    results["seed"] = draws.common_seed()
    start = time.monotonic()
    try:
        with learners.failing_together():
            if learners.rank == 1:
                raise ValueError("out of luck")
            learners.average([torch.ones(1)])
    except Exception as error:
        results["error"] = f"{type(error).__name__}: {error}"
    return results | {"waited": time.monotonic() - start}


def lose_the_second(learners: Learners) -> dict[str, Any]:
    """The second learner's process ends, while the first one waits for it."""
    if learners.rank == 1:
        os._exit(0)
    start = time.monotonic()
    try:
        learners.average([torch.ones(1)])
    except AnotherLearnerFailed as error:
        return {"loss": str(error), "waited_for_the_lost": time.monotonic() - start}
    return {}


def _one_of_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    learners = Learners(rank, 2)
    _meet(learners, folder / "first")
    results = work_together(learners)
    torch.save(results, folder / f"{rank}.pt")
    _meet(learners, folder / "second")
    torch.save(results | lose_the_second(learners), folder / f"{rank}.pt")


def _meet(learners: Learners, at: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{at}", rank=learners.rank, world_size=learners.size
    )


def of_both(folder: Path) -> list[dict[Any, Any]]:
    """What the first and the second learner report."""
    torch.multiprocessing.spawn(_one_of_two, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def of_a_lone_one(dtype: torch.dtype, own: slice) -> dict[str, Any]:
    """What one learner gets from these columns of the minibatches."""
    return learn(ALONE, dtype, own)
