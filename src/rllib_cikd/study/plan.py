"""Reads a study file: which tuned examples, variants and seeds are trained, and how far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rllib_cikd.cikd import CIKD
from rllib_cikd.common.errors import CommandError, did_you_mean
from rllib_cikd.common.result_keys import STEPS
from rllib_cikd.common.user_modules import NO_MODULES, UserModules, given_modules
from rllib_cikd.experiments.check import find_algorithm
from rllib_cikd.experiments.experiment import Experiment, check_experiments, merge, read_specs
from rllib_cikd.experiments.packaged import (
    TUNED_EXAMPLES,
    packaged,
    packaged_names,
    study_file,
)
from rllib_cikd.experiments.read import read_experiments
from rllib_cikd.experiments.search_space import domains
from rllib_cikd.experiments.variants import load_variant
from rllib_cikd.experiments.yaml_file import read_yaml

#: Keys of a study file.
STUDY_KEYS = ("tuned_examples", "variants", "seeds", "steps", "config", "baseline")
_ENDINGS = (".yaml", ".yml")
# Of a tuned example: what a study looks at or has keys of its own for, and what it does not do.
_USED = ("run", "env", "config", "stop", "metric", "mode")
_CHOOSE_TRIALS = ("num_samples", "scheduler", "search_alg")


@dataclass(frozen=True)
class Cell:
    """One training run of a study.

    Attributes:
        example: Name of the tuned example, such as "cikd-hopper".
        variant: Name of the comparison, such as "ensemble-sac".
        seed: Of everything random in the run.
        steps: Environment steps at which the run ends.
        config: The algorithm's settings: the example's, the study's and the variant's.
        task: What figures call its task: the environment's id, or the example's name where others
            of the study have the same environment.
    """

    example: str
    variant: str
    seed: int
    steps: int
    config: Mapping[str, Any]
    task: str

    @property
    def name(self) -> str:
        return f"{self.example}_{self.variant}_seed{self.seed}"


@dataclass(frozen=True)
class Study:
    """A grid of training runs.

    Attributes:
        name: The file's; names the folder of results.
        cells: All runs. Seeds vary slowest, so that a study cut short has whole comparisons.
        algorithm: CIKD, or a class of the user's that is derived from it.
        baseline: The variant that others are measured against.
        not_used: Keys of its tuned examples that a study does not look at, such as "loggers of
            cikd-hopper".
        modules: The user's: those named to the command, and any beside its tuned examples.
        notes: What is worth saying before it starts.
    """

    name: str
    cells: list[Cell]
    algorithm: type[CIKD]
    baseline: str
    not_used: list[str]
    modules: UserModules
    notes: list[str]


def load_study(path: str | Path, modules: UserModules = NO_MODULES) -> Study:
    """Reads a study file and checks every run that it asks for.

    Args:
        path: A YAML file, or the name of a study that comes with the package; with `tuned_examples`
            (names of files in `tuned_examples/` beside or above the study's folder, or of those of
            the package; or paths seen from it), `variants` (names in `studies/variants.yaml`),
            `seeds`, `steps` (a number, or one for each example) and, if wanted, `config` (settings
            of all runs; a variant's own go before them) and `baseline` (a variant; "vanilla-sac"
            or else the first if there is none).
        modules: Those that environments and callbacks come from, besides any that are beside the
            tuned examples.

    Raises:
        CommandError: If the file cannot be read, or one of its runs could not be trained.
    """
    path = study_file(str(path))
    content = _read(path)
    for key in STUDY_KEYS[:4]:
        if key not in content:
            raise CommandError(
                f"{path}: `{key}` is missing. The form is {{tuned_examples: [cikd-hopper], "
                "variants: [vanilla-sac, cikd], seeds: [0, 1, 2], steps: 1000000}."
            )
    examples = _names(path, content, "tuned_examples", _example_name)
    variants = _names(path, content, "variants")
    seeds = _seeds(path, content["seeds"])
    baseline = content.get("baseline", "vanilla-sac" if "vanilla-sac" in variants else variants[0])
    if baseline not in variants:
        raise CommandError(f"{path}: baseline: {baseline} is none of its variants {variants}.")
    horizons = _horizons(path, content["steps"], [_example_name(name) for name in examples])
    config = content.get("config") or {}
    if not isinstance(config, dict):
        raise CommandError(f"{path}: `config` is {config!r}, not a mapping of settings.")
    if "seed" in config:
        raise CommandError(f"{path}: `seed` stands in `config`. List them as `seeds`.")

    files = [_example_file(path, example) for example in examples]
    modules = modules.over(given_modules((), *[file.parent for file in files]))
    modules.load()
    not_used = [f"{key} of {file.stem}" for file in files for key in _other_keys(path, file)]

    algorithm = _algorithm(path, files)
    configs = []
    notes: dict[str, None] = {}
    for file in files:
        for variant in variants:
            settings = merge(config, load_variant(variant, path))
            settings["seed"] = {"grid_search": seeds}
            specs = read_specs(file, variant=None, config=settings, options={})
            try:
                experiments = check_experiments(file, specs, {STEPS: horizons[file.stem]})
            except CommandError as error:
                raise CommandError(f"{path}: variant {variant}: {error}") from error
            for experiment in experiments:
                notes |= dict.fromkeys(f"{file.stem}: {note}" for note in experiment.notes)
                _check_drawn(path, file, experiment)
                configs += [(file.stem, variant, found) for found in experiment.trial_configs]
    cells = _cells(configs, horizons)
    _check_cells(path, cells)
    cells.sort(key=lambda cell: seeds.index(cell.seed))
    return Study(path.stem, cells, algorithm, baseline, not_used, modules, list(notes))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CommandError(f"{path}: no such file.")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise CommandError(f"{path}: a study is a mapping with {', '.join(STUDY_KEYS)}.")
    for key in content:
        if key not in STUDY_KEYS:
            raise CommandError(
                f"{path}: unknown key {key!r}.{did_you_mean(str(key), STUDY_KEYS)} "
                f"Known keys: {', '.join(STUDY_KEYS)}."
            )
    return content


def _names(
    path: Path, content: Mapping[str, Any], key: str, short: Callable[[str], str] = str
) -> list[str]:
    names = content[key]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise CommandError(f"{path}: `{key}` is {names!r}. Give a list of names.")
    if len({short(name) for name in names}) < len(names):
        raise CommandError(f"{path}: `{key}` is {names!r}. Give each name once.")
    return names


def _example_name(example: str) -> str:
    """As runs and `steps` call it: of a path, the file's name without ending."""
    return Path(example).stem if Path(example).suffix in _ENDINGS else Path(example).name


def _seeds(path: Path, seeds: Any) -> list[int]:
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise CommandError(f"{path}: `seeds` is {seeds!r}. Give a list such as [0, 1, 2, 3, 4].")
    return seeds


def _horizons(path: Path, steps: Any, examples: list[str]) -> dict[str, int]:
    horizons = steps if isinstance(steps, dict) else dict.fromkeys(examples, steps)
    if set(horizons) != set(examples):
        raise CommandError(
            f"{path}: `steps` is {steps!r}. Give a number, or one for each of {examples}."
        )
    for value in horizons.values():
        if type(value) is not int or value < 1:
            raise CommandError(
                f"{path}: `steps` has {value!r}. Give a whole number such as 1000000."
            )
    return horizons


def _example_file(study: Path, example: str) -> Path:
    folders = study.resolve().parents
    if Path(example).suffix in _ENDINGS:
        candidates = [folders[0] / example]
    else:
        candidates = [folder / TUNED_EXAMPLES / f"{example}.yaml" for folder in folders]
        candidates += filter(None, [packaged(TUNED_EXAMPLES, example)])
    found = next((file for file in candidates if file.is_file()), None)
    if found is None:
        known = [file.stem for folder in folders for file in (folder / TUNED_EXAMPLES).glob("*")]
        known += packaged_names(TUNED_EXAMPLES)
        raise CommandError(
            f"{study}: tuned_examples: {example}: there is no {candidates[0]}, nor in a "
            f"tuned_examples folder above.{did_you_mean(example, known)}"
        )
    return found


def _other_keys(path: Path, file: Path) -> list[str]:
    """Those of a tuned example that a study does not look at.

    Raises:
        CommandError: If the example says how trials are chosen.
    """
    given: dict[str, Any] = {}
    for experiment in read_experiments(file).values():
        given |= {key: value for key, value in experiment.items() if value is not None}
    for key in _CHOOSE_TRIALS:
        if given.get(key, 1) != 1:  # `num_samples: 1` is the default
            raise CommandError(
                f"{path}: {file.stem} has `{key}: {given[key]}`. A study trains each variant with "
                "each seed once: leave it out, or train the example with `rllib train file`."
            )
    return [key for key in given if key not in (*_USED, *_CHOOSE_TRIALS)]


def _algorithm(path: Path, files: Sequence[Path]) -> type[CIKD]:
    """The one of all tuned examples."""
    found = {}
    for file in files:
        for experiment in read_experiments(file).values():
            algorithm = found[file.stem] = find_algorithm(experiment.get("run"))
            if not issubclass(algorithm, CIKD):
                raise CommandError(
                    f"{path}: {file.stem} runs {algorithm.__name__}. A study compares variants of "
                    "CIKD, vanilla-sac among them: give `run: CIKD`, or train the example with "
                    "`rllib train file`."
                )
    first, *others = dict.fromkeys(found.values())
    if others:
        names = {example: algorithm.__name__ for example, algorithm in found.items()}
        raise CommandError(f"{path}: its tuned examples run {names}. A study has one algorithm.")
    return first


def _check_drawn(path: Path, file: Path, experiment: Experiment) -> None:
    for key, value in experiment.param_space.items():
        if any(domains(value)):
            raise CommandError(
                f"{path}: {file.stem}: config: {key} is drawn anew each time that the study is "
                "started. Give a value, or several as variants."
            )


def _cells(configs: Sequence[tuple[str, str, Any]], horizons: Mapping[str, int]) -> list[Cell]:
    """A run for each config, which comes with its example and variant."""
    examples_of: dict[str, set[str]] = {}
    for example, _, config in configs:
        examples_of.setdefault(str(config["env"]), set()).add(example)
    cells = []
    for example, variant, config in configs:
        env = str(config["env"])
        task = env if len(examples_of[env]) == 1 else example
        cells.append(Cell(example, variant, config["seed"], horizons[example], config, task))
    return cells


def _check_cells(path: Path, cells: list[Cell]) -> None:
    names = [cell.name for cell in cells]
    if len(set(names)) < len(names):
        raise CommandError(
            f"{path}: one of its tuned examples has several experiments or a `grid_search`. A "
            "study varies seeds and variants alone: put the rest into variants."
        )
    for cell in cells:
        if not cell.config.get("evaluation_interval"):
            raise CommandError(
                f"{path}: {cell.example} is never evaluated, so there would be no curves. Set "
                "`evaluation_interval` in its `config`, or in the study's."
            )
