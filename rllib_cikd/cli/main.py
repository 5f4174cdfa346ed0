"""The `rllib` command: trains from experiment files, evaluates checkpoints, runs studies.

Ray had a command of this name up to 2.42. This one keeps its option names and is thin over
`ray.tune.Tuner` and `Algorithm.from_checkpoint`.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import ray

from rllib_cikd.common.errors import INTERRUPTED, USAGE_ERROR, CommandError
from rllib_cikd.experiments import ray_messages
from rllib_cikd.experiments.checkpoint_evaluation import evaluate
from rllib_cikd.experiments.run import train_file
from rllib_cikd.study import command as study_command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the `rllib` command.

    Returns:
        The exit code: 0 done, 1 a trial failed, 2 the command, file or checkpoint cannot be
        used as given, 130 interrupted.
    """
    args = _parser().parse_args(argv)
    if not args.verbose:
        ray_messages.silence()
    ray_was_running = ray.is_initialized()
    try:
        return args.run_command(args)
    except CommandError as error:
        if args.verbose:
            traceback.print_exc()
        print(f"rllib: error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("rllib: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        if not ray_was_running:
            ray.shutdown()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rllib",
        description="Trains RLlib algorithms, CIKD among them, and evaluates their checkpoints.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_evaluate(commands)
    _add_study(commands)
    return parser


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser(
        "train", help="train an algorithm", description="Trains an algorithm with Ray Tune."
    )
    sources = train.add_subparsers(title="commands", metavar="COMMAND", required=True)
    file = sources.add_parser(
        "file",
        help="train what an experiment file describes",
        description="Trains what an experiment file describes, with Ray Tune.",
        epilog="examples:\n"
        "  rllib train file tuned_examples/cikd-pendulum.yaml\n"
        "  rllib train file tuned_examples/cikd-pendulum.yaml --resume\n"
        "  rllib train file tuned_examples/cikd-pendulum.yaml --variant ensemble-sac\n"
        '  rllib train file my.yaml --config \'{"seed": {"grid_search": [0, 1, 2]}}\'',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    file.set_defaults(run_command=train_file)
    file.add_argument(
        "file",
        metavar="FILE",
        help="a YAML file, `experiment_name: {run, env, stop, config}` with `run` being CIKD or "
        "any RLlib algorithm; or a Python file that defines `config` and, if wanted, `stop`",
    )
    file.add_argument(
        "--stop",
        "-s",
        type=_json_object,
        default={},
        metavar="JSON",
        help="stopping criteria, merged over the file's: "
        "'{\"num_env_steps_sampled_lifetime\": 100000}'",
    )
    file.add_argument(
        "--config",
        "-c",
        type=_json_object,
        default={},
        metavar="JSON",
        help="settings of the algorithm, merged over the file's",
    )
    file.add_argument(
        "--variant",
        metavar="NAME",
        help="train a comparison of studies/variants.yaml instead, such as ensemble-sac: its "
        "settings are merged over the file's, under those of --config",
    )
    file.add_argument(
        "--num-samples",
        type=_positive,
        metavar="N",
        help="run each setting N times (default: as in the file, else 1)",
    )
    file.add_argument(
        "--checkpoint-freq",
        type=_not_negative,
        metavar="N",
        help="write a checkpoint every N training iterations, 0 for none "
        "(default: as in the file, else 50; the last 2 are kept)",
    )
    file.add_argument(
        "--checkpoint-at-end",
        action=argparse.BooleanOptionalAction,
        help="write a checkpoint when a trial ends (default: as in the file, else yes)",
    )
    file.add_argument(
        "--storage-path",
        metavar="DIR",
        help="folder or URI of results (default: as in the file, else ~/ray_results)",
    )
    file.add_argument(
        "--experiment-name",
        "-n",
        metavar="NAME",
        help="name of the results' folder in there (default: the experiment's name in the file)",
    )
    file.add_argument(
        "--resume",
        action="store_true",
        help="continue the last run of this file where its checkpoints end: trials that were "
        "killed or failed go on, finished ones stay; with the settings that it was started with",
    )
    _add_common(file)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="evaluate a checkpoint",
        description="Plays deterministic episodes with the policies of a checkpoint.\n"
        "The same checkpoint, episodes and seed give the same numbers.",
        epilog="example:\n  rllib evaluate ~/ray_results/cikd-pendulum --episodes 50 --video films",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run_command=evaluate)
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a checkpoint's folder; or a trial's or experiment's, for the latest one in it",
    )
    parser.add_argument(
        "--episodes",
        type=_positive,
        default=20,
        metavar="N",
        help="episodes of each member of the ensemble (default: 20)",
    )
    parser.add_argument(
        "--member",
        default="all",
        metavar="MEMBER",
        help="whose episodes to list and record: all, best (the one the checkpoint holds for the "
        "best), or an id such as policy_0 (default: all)",
    )
    parser.add_argument(
        "--seed",
        type=_not_negative,
        metavar="N",
        help="seed of the episodes' initial states (default: the training's seed, else 0)",
    )
    parser.add_argument(
        "--video", metavar="DIR", help="also record an episode of each listed member, as MP4"
    )
    parser.add_argument("--out", metavar="FILE", help="write the results to this JSON file")
    _add_common(parser)


def _add_study(commands: argparse._SubParsersAction) -> None:
    study = commands.add_parser(
        "study",
        help="compare variants over tasks and seeds",
        description="Trains variants of tuned examples with several seeds, and reports on them.",
    )
    verbs = study.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = verbs.add_parser(
        "run",
        help="train all runs of a study",
        description="Trains all runs of a study with Ray Tune. Started again after it was cut off, "
        "it goes on from the last checkpoints and leaves what has ended.",
        epilog="example:\n  rllib study run studies/quick.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.set_defaults(run_command=study_command.run)
    run.add_argument(
        "file",
        metavar="STUDY",
        help="a YAML file, `{tuned_examples: [...], variants: [...], seeds: [...], steps: N}`",
    )
    run.add_argument(
        "--storage-path",
        metavar="DIR",
        help="folder of results (default: ~/ray_results); on a cluster one that all machines share",
    )
    run.add_argument(
        "--experiment-name",
        "-n",
        metavar="NAME",
        help="name of the study's folder in there (default: the file's name)",
    )
    _add_common(run)
    report = verbs.add_parser(
        "report",
        help="write tables and figures",
        description="Writes a table and figures from the raw figures of a study, ended or not.",
        epilog="examples:\n  rllib study report ~/ray_results/quick\n"
        "  rllib study report docs/results",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.set_defaults(run_command=study_command.report)
    report.add_argument(
        "folder",
        metavar="DIR",
        help="a study's folder, or any other with *.evaluations.csv and *.phases.csv below it",
    )
    report.add_argument(
        "--out", metavar="DIR", help="where to write it (default: `report` in that folder)"
    )
    report.add_argument(
        "--baseline",
        metavar="VARIANT",
        help="whose final return others are measured against (default: vanilla-sac, or else the "
        "first)",
    )
    report.add_argument("-v", "--verbose", action="store_true", help="show tracebacks of errors")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="use the Ray cluster at this address (default: $RAY_ADDRESS, else Ray is started "
        "on this machine)",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="show all of Ray's messages, and tracebacks of errors",
    )


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object such as '{{\"a\": 1}}'")
    return value


def _positive(text: str) -> int:
    return _integer(text, 1)


def _not_negative(text: str) -> int:
    return _integer(text, 0)


def _integer(text: str, minimum: int) -> int:
    if not text.isdecimal() or int(text) < minimum:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {minimum}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
