"""docs/METRICS.md names every key of a result of CIKD's, and no other."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import envs
from helpers import MEMBERS, flat, small_config

PAGE = Path(__file__).parents[2] / "docs" / "METRICS.md"
#: What is CIKD's in a result, or explained there; all else is RLlib's.
EXPLAINED = ("ensemble/", "evaluation/ensemble/", "evaluation_")
#: Statistics of the learner that RLlib logs beside ours.
LEARNER = re.compile(r"learners/(policy_\d+|__all_modules__)/\w*(loss|mean|logps|alpha|rate)\w*$")


def expand(key: str) -> set[str]:
    """`a/{b,c}/policy_k` as the keys that it stands for."""
    parts = [
        part[1:-1].split(",") if part.startswith("{") else [part]
        for part in re.findall(r"\{[^}]*\}|[^{]+", key)
    ]
    keys = {"".join(choice) for choice in itertools.product(*parts)}
    return {key.replace("policy_k", m) for key in keys for m in MEMBERS}


def documented(page: str) -> set[str]:
    cells = re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE)
    names = itertools.chain.from_iterable(re.findall(r"`([^`]+)`", cell) for cell in cells)
    return set().union(*map(expand, names))


def test_the_page_has_the_keys_of_a_run_and_no_others(build):
    # With every setting that adds keys.
    config = small_config(
        envs.DriftEnv, random_steps=50, assess_distillation=True, distillation_filter="advantage"
    )
    algo = build(config.evaluation(evaluation_interval=1, evaluation_duration=1))
    result = [flat(algo.train()) for _ in range(3)][-1]
    on_page = documented(PAGE.read_text())
    assert len(on_page) > 60
    assert sorted(on_page - set(result)) == []
    ours = {key for key in result if key.startswith(EXPLAINED) or LEARNER.match(key)}
    assert sorted(ours - on_page) == []
