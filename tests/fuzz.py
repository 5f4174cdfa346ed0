"""Wrong input by the thousand: settings, files and arguments, drawn from a seed.

python tests/fuzz.py [--inputs 10000] [--seed 1]

Each input goes through the `rllib` command as a user's would, up to where Ray would be started.
What breaks: an exception, a traceback, an unknown exit code, or one without its line of error.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import random
import string
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from helpers import SMALL_SETTINGS

from rllib_cikd import CIKDConfig
from rllib_cikd.cli.main import main as rllib
from rllib_cikd.common.errors import CommandError

ACCEPTED = "this would be trained"

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1e-300, 1e308, float("inf"), float("nan")),
    *(2**31, 2**63, -(2**63), 10**40, "", " ", "abc", "2", "1e-3", "é", "\u0000", "x" * 2000),
    *([], {}, [[]], [None], [1], ["a"], [1, 2, 3], [[0, 1e-3], [1000, 1e-4]], [[0, -1], [5, "a"]]),
    *({"a": 1}, {"a": {"b": []}}, {"": None}, {"type": "abc"}, {"policy_0": 1}),
    *({"grid_search": []}, {"grid_search": 5}, {"grid_search": [1, 2]}, {"grid_search": [None]}),
    *({"tune.choice": [1, 2]}, {"tune.choice": []}, {"tune.uniform": [1, "a"]}, {"tune.a": 1}),
    *("asha", {"asha": {"max_t": -1}}, {"pbt": {"hyperparam_mutations": {"gamma": [2]}}}),
    *(
        ["wandb"],
        [{"mlflow": None}],
        ["a:b"],
        "optuna",
        {1: {}},
        {"asha": 1},
        "max",
        "time_total_s",
    ),
    *({"grid_search": {"a": 1}}, {"grid_search": [[], {}]}, {"grid_search": "ab"}),
]
SPEC_KEYS = ["run", "env", "stop", "config", "num_samples", "checkpoint_freq", "storage_path"]
SPEC_KEYS += ["checkpoint_at_end", "local_dir", "checkpoint_config", "keep_checkpoints_num", "x"]
SPEC_KEYS += ["checkpoint_on_evaluation", "loggers", "scheduler", "search_alg", "metric", "mode"]
STOP_KEYS = ["timesteps_total", "num_env_steps_sampled_lifetime", "training_iteration", "abc", ""]
STOP_KEYS += ["env_runners/episode_return_mean", "ensemble/elected", "time_total_s", "config"]
FOLDERS = ["model_config", "replay_buffer_config", "evaluation_config", "env_config", "config"]
NESTED_KEYS = [
    "fcnet_hiddens",
    "fcnet_activation",
    "batch_norm",
    "capacity",
    "type",
    "explore",
    "abc",
    "grid_search",
]
ENVS = [
    "Pendulum-v1",
    "CartPole-v1",
    "Pendulum-v0",
    "HalfCheetah",
    "abc",
    "abc:Def-v0",
    "a.b.C",
    "",
]
COMMANDS = ["train", "file", "example", "evaluate", "export", "study", "run", "report", "list"]
OPTIONS = ["--stop", "--config", "-c", "--set", "--variant", "--num-samples", "--checkpoint-freq"]
OPTIONS += ["--storage-path", "-n", "--resume", "--import", "--member", "--format", "--episodes"]
OPTIONS += ["--out", "--baseline", "--video", "--abc", "--help", "--version", "-v"]


@dataclass(frozen=True)
class Input:
    """Arguments of a command and the files in its working folder, by name."""

    arguments: list[str]
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Outcome:
    """Of one command; `broken` says what is wrong with it, and is "" if nothing is."""

    exit_code: int
    accepted: bool
    broken: str


def draw_input(draw: random.Random) -> Input:
    """An input of one of four kinds, drawn with equal odds."""
    return draw.choice([_settings_in_a_file, _settings_in_words, _damaged_file, _words])(draw)


def _value(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.random()
    if depth < 2 and kind < 0.1:
        return [_value(draw, depth + 1) for _ in range(draw.randrange(4))]
    if depth < 2 and kind < 0.2:
        return {_key(draw): _value(draw, depth + 1) for _ in range(draw.randrange(3))}
    return draw.choice(VALUES)


def _misspelt(draw: random.Random, word: str) -> str:
    at = draw.randrange(len(word) + 1)
    return word[:at] + draw.choice([*string.ascii_lowercase, "_", "", " "]) + word[at + 1 :]


def _key(draw: random.Random) -> str:
    key = draw.choice([*_fields(), *FOLDERS, *NESTED_KEYS])
    return _misspelt(draw, key) if draw.random() < 0.1 else key


_FIELDS: list[str] = []


def _fields() -> list[str]:
    if not _FIELDS:
        _FIELDS.extend(sorted(CIKDConfig().to_dict()))
    return _FIELDS


def _experiment(draw: random.Random) -> dict[str, Any]:
    config: dict[str, Any] = dict(SMALL_SETTINGS)
    spec = {"run": "CIKD", "env": "Pendulum-v1", "stop": {"timesteps_total": 400}, "config": config}
    for _ in range(draw.randint(1, 2)):
        where = draw.random()
        if where < 0.6:
            config[_key(draw)] = _value(draw)
        elif where < 0.75:
            folder, key = draw.choice(FOLDERS), draw.choice(NESTED_KEYS + _fields())
            config[folder] = {key: _value(draw)}
        elif where < 0.85:
            spec[draw.choice(SPEC_KEYS)] = _value(draw)
        elif where < 0.95:
            spec["stop"] = {draw.choice(STOP_KEYS): _value(draw)}
        else:
            spec["env"] = draw.choice(ENVS)
    return spec


def _settings_in_a_file(draw: random.Random) -> Input:
    text = yaml.safe_dump({"fuzz": _experiment(draw)}, allow_unicode=True)
    return Input(["train", "file", "fuzz.yaml"], {"fuzz.yaml": text.encode("utf-8", "replace")})


def _settings_in_words(draw: random.Random) -> Input:
    options = []
    for _ in range(draw.randint(1, 2)):
        key, value = _key(draw), _value(draw)
        if draw.random() < 0.5:
            options += [draw.choice(["--config", "--stop"]), json.dumps({key: value})]
        else:
            options += ["--set", f"{key}{draw.choice(['=', '=', '.a=', '', '=='])}{value}"]
    text = yaml.safe_dump({"fuzz": {"run": "CIKD", "env": "Pendulum-v1", "config": SMALL_SETTINGS}})
    return Input(["train", "file", "fuzz.yaml", *options], {"fuzz.yaml": text.encode()})


def _damaged_file(draw: random.Random) -> Input:
    study = draw.random() < 0.3
    if study:
        plan = {"tuned_examples": ["cikd-pendulum"], "variants": ["cikd"], "seeds": [0], "steps": 9}
        plan[draw.choice([*plan, "baseline", "config", "x"])] = _value(draw)
        text = yaml.safe_dump(plan)
    else:
        text = yaml.safe_dump({"fuzz": _experiment(draw)})
    data = bytearray(text.encode("utf-8", "replace"))
    for _ in range(draw.randrange(4)):
        at = draw.randrange(len(data))
        change = draw.randrange(5)
        if change == 0:
            data[at] = draw.randrange(256)
        elif change == 1:
            del data[at : at + draw.randrange(40)]
        elif change == 2:
            data[at:at] = draw.choice(
                [b"\t", b"{", b"]", b": ", b"&a ", b"*a", b"!!python/name:os.system ", b"\xff"]
            )
        elif change == 3:
            lines = bytes(data).split(b"\n")
            draw.shuffle(lines)
            data = bytearray(b"\n".join(lines))
        else:
            data = data[:at]
        data = data or bytearray(b" ")
    name = draw.choice(["fuzz.yaml", "fuzz.yaml", "fuzz.yml", "fuzz.py", "fuzz.json", "fuzz"])
    command = ["study", "run"] if study else ["train", "file"]
    return Input([*command, name], {name: bytes(data)})


def _words(draw: random.Random) -> Input:
    text = yaml.safe_dump({"fuzz": {"run": "CIKD", "env": "Pendulum-v1", "config": SMALL_SETTINGS}})
    groups = [["train", "file"], ["train", "example"], ["evaluate"], ["export"], ["study", "run"]]
    words = list(draw.choice([*groups, ["report"], ["list"], [draw.choice(COMMANDS)]]))
    targets = ["good.yaml", "cikd-pendulum", ".", "nothing", "empty", "binary", "", "good.yaml/x"]
    for _ in range(draw.randrange(4)):
        kind = draw.random()
        if kind < 0.4:
            words.append(draw.choice(targets))
        elif kind < 0.8:
            words.append(draw.choice(OPTIONS))
        else:
            words.append(_misspelt(draw, draw.choice(COMMANDS + OPTIONS)))
        if draw.random() < 0.4:
            words.append(draw.choice(["0", "-1", "abc", "best", "policy_0", "{}", "{", "results"]))
    binary = bytes(draw.randrange(256) for _ in range(50))
    return Input(words, {"good.yaml": text.encode(), "empty": b"", "binary": binary})


def _start_no_ray(*args: object, **kwargs: object) -> bool:
    raise CommandError(ACCEPTED)


@contextlib.contextmanager
def _in_a_folder(files: Mapping[str, bytes]) -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for name, data in files.items():
                Path(name).write_bytes(data)
            yield
        finally:
            os.chdir(before)


def run_input(given: Input) -> Outcome:
    """Runs the command in a folder with these files; Ray is not started."""
    out, err = io.StringIO(), io.StringIO()
    with (
        _in_a_folder(given.files),
        mock.patch.dict(os.environ, {"HOME": "."}),
        mock.patch("rllib_cikd.experiments.run.start_ray", _start_no_ray),
        mock.patch("rllib_cikd.study.command.start_ray", _start_no_ray),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = rllib(given.arguments)
        except BaseException:
            return Outcome(-1, False, traceback.format_exc())
    stderr = err.getvalue()
    errors = [line for line in stderr.splitlines() if line.startswith("rllib: error: ")]
    broken = ""
    if code not in (0, 1, 2) or (code == 2) != (len(errors) == 1):
        broken = f"exit code {code}, {len(errors)} errors"
    elif "Traceback" in stderr and "-v" not in given.arguments:
        broken = "a traceback"
    return Outcome(code, ACCEPTED in stderr, broken and f"{broken}:\n{stderr}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    kinds: collections.Counter[str] = collections.Counter()
    for number in range(args.inputs):
        given = draw_input(random.Random(f"{args.seed}/{number}"))
        outcome = run_input(given)
        counts["accepted" if outcome.accepted else f"exit code {outcome.exit_code}"] += 1
        if outcome.broken:
            counts["BROKEN"] += 1
            kind = "\n".join(outcome.broken.splitlines()[-3:])
            kinds[kind] += 1
            if kinds[kind] == 1:  # one of each kind is enough to see
                print(f"--- input {args.seed}/{number}: {given}\n{outcome.broken}", flush=True)
    print(f"{args.inputs} inputs:", ", ".join(f"{n} {what}" for what, n in counts.most_common()))
    return 1 if counts["BROKEN"] else 0


if __name__ == "__main__":
    sys.exit(main())
