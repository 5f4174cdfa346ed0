"""`rllib study run`: what a study file asks for, how it is cut off and goes on, its raw figures."""

import csv
import json
import math
import os
import time
from pathlib import Path

import pytest
from helpers import finish, start

from rllib_cikd import CIKD, CIKDConfig
from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.variants import VARIANTS_FILE
from rllib_cikd.study import run
from rllib_cikd.study.plan import load_study
from rllib_cikd.study.progress import StudyProgress
from rllib_cikd.study.raw_figures import evaluation_rows, phase_rows, read_results

ROOT = Path(__file__).parents[2]
STUDIES = sorted(path for path in (ROOT / "studies").glob("*.yaml") if path.stem != "variants")

EXAMPLE = """\
small:
  run: CIKD
  env: Pendulum-v1
  stop: {timesteps_total: 50}
  config:
    random_steps: 200
    train_batch_size_per_learner: 32
    distillation_interval: 400
    distillation_updates: 3
    min_sample_timesteps_per_iteration: 200
    model_config: {fcnet_hiddens: [8, 8]}
    evaluation_interval: 2
    evaluation_duration: 2
"""
STUDY = """\
tuned_examples: [small]
variants: [vanilla-sac, cikd]
seeds: [0, 1]
steps: 1000
config: {assess_distillation: true}
"""


@pytest.fixture
def project(tmp_path):
    """A folder with a tuned example, the paper's variants and a study."""
    (tmp_path / "tuned_examples").mkdir()
    (tmp_path / "tuned_examples" / "small.yaml").write_text(EXAMPLE)
    (tmp_path / "studies").mkdir()
    (tmp_path / VARIANTS_FILE).write_text((ROOT / VARIANTS_FILE).read_text())
    (tmp_path / "studies" / "small.yaml").write_text(STUDY)
    return tmp_path


# ---------------------------------------------------------------- study files


def test_a_study_is_a_grid(project):
    study = load_study(project / "studies" / "small.yaml")
    assert study.name == "small"
    assert study.baseline == "vanilla-sac"
    assert [cell.name for cell in study.cells] == [
        "small_vanilla-sac_seed0",
        "small_cikd_seed0",
        "small_vanilla-sac_seed1",
        "small_cikd_seed1",
    ]
    vanilla, cikd = study.cells[2:]
    assert (vanilla.task, vanilla.steps, vanilla.config["seed"]) == ("Pendulum-v1", 1000, 1)
    differing = {
        key
        for key in {*vanilla.config, *cikd.config}
        if vanilla.config.get(key) != cikd.config.get(key)
    }
    assert differing == {"ensemble_size", "knowledge_sharing"}
    assert vanilla.config["assess_distillation"] is True


def test_a_variant_goes_before_the_studys_settings(project):
    text = STUDY.replace("assess_distillation: true", "ensemble_size: 4, distillation_lr: 1e-4")
    (project / "studies" / "small.yaml").write_text(text)
    vanilla, cikd = load_study(project / "studies" / "small.yaml").cells[:2]
    assert (vanilla.config["ensemble_size"], cikd.config["ensemble_size"]) == (1, 4)
    assert vanilla.config["distillation_lr"] == cikd.config["distillation_lr"] == 1e-4


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_can_be_trained(path):
    study = load_study(path)
    assert study.cells
    if path.stem.startswith("figure"):  # at the paper's scale
        assert {cell.seed for cell in study.cells} == {0, 1, 2, 3, 4}
        assert {cell.steps for cell in study.cells} <= {1_000_000, 1_500_000}
        for cell in study.cells:
            assert (cell.config["evaluation_interval"], cell.config["evaluation_duration"]) == (
                10,
                20,
            )


def test_the_papers_figures_are_all_there():
    assert {f"figure{n}" for n in range(2, 10)} | {"quick"} <= {path.stem for path in STUDIES}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds:", "sedes:", ["unknown key 'sedes'", "Did you mean 'seeds'?"]),
        ("seeds: [0, 1]\n", "", ["`seeds` is missing"]),
        ("[0, 1]", "[0, 0]", ["`seeds` is [0, 0]", "[0, 1, 2, 3, 4]"]),
        ("[0, 1]", "3", ["`seeds` is 3"]),
        ("steps: 1000", "steps: 1e6", ["`steps` has 1000000.0", "1000000"]),
        ("steps: 1000", "steps: {smal: 5}", ["`steps` is {'smal': 5}", "['small']"]),
        ("[small]", "[smal]", ["tuned_examples: smal", "Did you mean 'small'?"]),
        ("[vanilla-sac, cikd]", "[vanila-sac]", ["vanila-sac", "Did you mean 'vanilla-sac'?"]),
        ("[vanilla-sac, cikd]", "[cikd, cikd]", ["`variants`", "each name once"]),
        ("assess_distillation", "asses_distillation", ["Did you mean 'assess_distillation'?"]),
        ("assess_distillation: true", "seed: 3", ["`seed` stands in `config`", "`seeds`"]),
        (
            "assess_distillation: true",
            "evaluation_interval: null",
            ["never evaluated", "`evaluation_interval`"],
        ),
        (
            "assess_distillation: true",
            "tau: {grid_search: [0.1, 0.2]}",
            ["`grid_search`", "into variants"],
        ),
        ("seeds:", "baseline: ensemble-sac\nseeds:", ["baseline: ensemble-sac", "none of its"]),
    ],
)
def test_what_is_wrong_with_a_study_is_said(project, old, new, words):
    path = project / "studies" / "small.yaml"
    assert old in STUDY
    path.write_text(STUDY.replace(old, new))
    with pytest.raises(CommandError) as error:
        load_study(path)
    for word in words:
        assert word in str(error.value)


# ---------------------------------------------------------------- running


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def runs_that_ended(session: Path) -> set[str]:
    """By Tune's record, as far as it can be read at this moment."""
    try:
        (record,) = session.glob("experiment_state-*.json")
        trials = [json.loads(trial) for trial, _ in json.loads(record.read_text())["trial_data"]]
    except ValueError:
        return set()
    return {t["config"]["__cell__"] for t in trials if t["status"] == "TERMINATED"}


def test_a_killed_study_goes_on_and_grows(project):
    """What has ended is not run again, what is added to the file is; changes are refused."""
    command = ["study", "run", "studies/small.yaml", "--storage-path", "results"]
    folder = project / "results" / "small"
    killed = start(*command, cwd=project)
    deadline = time.monotonic() + 240
    while not (ended := runs_that_ended(folder / "session-1")):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    assert len(ended) < 4
    raw_files = [path for name in ended for path in (folder / "raw").glob(f"{name}.*.csv")]
    assert len(raw_files) == 2 * len(ended)
    before = {path: path.read_text() for path in raw_files}  # with wall times

    exit_code, stdout, stderr = finish(start(*command, cwd=project))
    assert exit_code == 0, stderr
    assert "4 of 4 runs ended" in stdout
    assert {path: path.read_text() for path in raw_files} == before
    for variant, size in (("vanilla-sac", 1), ("cikd", 3)):
        for seed in (0, 1):
            raw = folder / "raw" / f"small_{variant}_seed{seed}"
            evaluations = rows(raw.with_name(f"{raw.name}.evaluations.csv"))
            members = {f"policy_{k}" for k in range(size)} | {"best", "worst", "mean", "elected"}
            assert {(row["member"], int(row["step"])) for row in evaluations} == {
                (member, step) for member in members for step in (400, 800)
            }
            assert {row["seed"] for row in evaluations} == {str(seed)}
            phases = rows(raw.with_name(f"{raw.name}.phases.csv"))
            assert len(phases) == (0 if size == 1 else 2 * size)

    # The same again: nothing is trained.
    results = {p: p.stat().st_mtime for p in folder.glob("session-1/*/result.json")}
    exit_code, stdout, stderr = finish(start(*command, cwd=project))
    assert exit_code == 0, stderr
    assert "steps/s" not in stdout
    assert {p: p.stat().st_mtime for p in folder.glob("session-1/*/result.json")} == results

    # One seed more: only its runs are trained.
    study = project / "studies" / "small.yaml"
    study.write_text(STUDY.replace("[0, 1]", "[0, 1, 2]"))
    exit_code, stdout, stderr = finish(start(*command, cwd=project))
    assert exit_code == 0, stderr
    assert "6 of 6 runs ended" in stdout
    assert {p: p.stat().st_mtime for p in folder.glob("session-1/*/result.json")} == results
    assert {path.name for path in (folder / "session-2").glob("small_*")} == {
        "small_vanilla-sac_seed2",
        "small_cikd_seed2",
    }

    exit_code, stdout, stderr = finish(start("study", "report", folder, cwd=project))
    assert exit_code == 0, stderr
    report = (folder / "report" / "report.md").read_text()
    assert f"report: {folder / 'report' / 'report.md'}" in stdout
    assert "baseline: **vanilla-sac**" in report
    assert (folder / "report" / "figures" / "learning-curves.png").stat().st_size > 10_000

    study.write_text(STUDY.replace("assess_distillation: true", "tau: 0.01"))
    exit_code, _, stderr = finish(start(*command, cwd=project))
    assert exit_code == 2
    assert "assess_distillation=True; now it is False" in stderr
    assert "--experiment-name" in stderr


def test_a_default_that_changed_since_is_refused(project, monkeypatch):
    """Unless the study sets it to what it was."""
    path, folder = project / "studies" / "small.yaml", project / "results"
    monkeypatch.setattr(run, "_start", lambda *_: [])
    run.run_study(load_study(path), folder)  # writes cells.json, but Tune is not started
    monkeypatch.setattr(run, "_sessions", lambda _: [folder / "session-1"])
    monkeypatch.setattr(run, "_resume", lambda *_: [])
    run.run_study(load_study(path), folder)
    monkeypatch.setattr(
        CIKD, "get_default_config", lambda: CIKDConfig().training(return_window=7, tau=0.01)
    )
    path.write_text(STUDY.replace("true}", "true, return_window: 5}"))
    with pytest.raises(CommandError, match=r"begun .* with tau=0.005; now it is 0.01.*`config`"):
        run.run_study(load_study(path), folder)
    path.write_text(STUDY.replace("true}", "true, return_window: 5, tau: 0.005}"))
    run.run_study(load_study(path), folder)


@pytest.mark.parametrize("left", ["nothing", "a folder without a record"])
def test_a_session_killed_before_its_first_record_starts_anew(project, monkeypatch, left):
    study, folder = load_study(project / "studies" / "small.yaml"), project / "results"
    started = []
    monkeypatch.setattr(
        run, "_start", lambda study, cells, session: started.append((session, cells)) or []
    )
    run.run_study(study, folder)  # writes cells.json, but Tune is not started
    if left != "nothing":
        (folder / "session-1").mkdir()
        (folder / "session-1" / "tuner.pkl").write_bytes(b"")
    run.run_study(study, folder)
    assert started == [(folder / "session-1", study.cells)] * 2


# ---------------------------------------------------------------- raw figures


def result(iteration: int, evaluated: int | None, phases: int, **ensemble) -> dict:
    """A result of two members, as Tune writes it."""
    nan = math.nan
    returns = {"policy_0": 10.0 * iteration, "policy_1": 20.0 * iteration}
    return {
        "training_iteration": iteration,
        "num_env_steps_sampled_lifetime": 100 * iteration,
        "time_total_s": 1.5 * iteration,
        "config": {"env": "Task-v0", "seed": 7},
        "evaluation": {
            "ensemble": {
                "num_env_steps_sampled_lifetime": nan if evaluated is None else evaluated,
                "return_mean": returns,
                **{f"{who}_return_mean": 5.0 for who in ("best", "worst", "mean")},
                "elected_return_mean": nan,
            }
        },
        "ensemble": {
            "return_mean": returns,
            "teacher": nan if phases == 0 else 1,
            "num_distillations_lifetime": phases,
            "distillation": {
                "kl_before": {"policy_0": 8.0, "policy_1": nan},
                "kl_after": {"policy_0": 0.123456789, "policy_1": nan},
                "critic_loss_before": {"policy_0": 4.0, "policy_1": nan},
                "critic_loss_after": {"policy_0": 2.0, "policy_1": nan},
                "time_s": 0.5,
                **ensemble,
            },
        },
    }


def write_results(folder: Path, *results: dict, tail: str = "") -> Path:
    (folder / "result.json").write_text("".join(f"{json.dumps(r)}\n" for r in results) + tail)
    return folder


@pytest.mark.parametrize("newer", ["figures", "results"])
def test_figures_are_not_replaced_by_older_results(project, monkeypatch, newer):
    """Tune copies a run's last results after its figures have been written, unless it is killed."""
    study, folder = load_study(project / "studies" / "small.yaml"), project / "results"
    monkeypatch.setattr(run, "_start", lambda *_: [])
    run.run_study(study, folder)  # writes cells.json, but Tune is not started
    name = study.cells[0].name
    trial, raw = folder / "session-1" / name, folder / "raw"
    trial.mkdir(parents=True)
    write_results(trial, result(2, 200, 1), result(4, 400, 2))
    run.collect_raw(folder)
    whole = (raw / f"{name}.evaluations.csv").read_text()
    write_results(trial, result(2, 200, 1))
    now = time.time()
    os.utime(trial / "result.json", (now, now))
    for path in raw.glob("*.csv"):
        os.utime(path, (now, now + (1 if newer == "figures" else -1)))
    run.collect_raw(folder)
    kept = (raw / f"{name}.evaluations.csv").read_text() == whole
    assert kept is (newer == "figures")


def test_results_after_a_resume_replace_those_before(tmp_path):
    first = [result(i, None, 0) for i in (1, 2, 3, 4)]
    again = [result(3, None, 1), result(4, None, 1), result(5, None, 1)]
    trial = write_results(tmp_path, *first, *again, tail='{"training_iteration": 6, "num')
    results = read_results(trial, steps=10_000)
    assert [r["training_iteration"] for r in results] == [1, 2, 3, 4, 5]
    assert [r["ensemble"]["num_distillations_lifetime"] for r in results] == [0, 0, 1, 1, 1]
    assert [r["training_iteration"] for r in read_results(trial, steps=350)] == [1, 2, 3, 4]


def test_rows_of_evaluations(tmp_path):
    results = [result(1, None, 0), result(2, 200, 0), result(3, 200, 1), result(4, 400, 1)]
    found = evaluation_rows(results, "cikd")
    # Iteration 3 repeats the evaluation of iteration 2.
    assert [row["step"] for row in found] == [200] * 6 + [400] * 6
    by_member = {row["member"]: row for row in found[6:]}
    assert by_member["policy_0"] == {
        "variant": "cikd",
        "task": "Task-v0",
        "seed": 7,
        "member": "policy_0",
        "step": 400,
        "return": 40.0,
        "wall_seconds": 6.0,
        "teacher": 1,
        "kl": 0.123457,
    }
    assert (by_member["policy_1"]["return"], by_member["policy_1"]["kl"]) == (80.0, "")
    assert (by_member["best"]["return"], by_member["elected"]["return"]) == (5.0, "")
    assert found[0]["teacher"] == ""


def test_rows_of_phases(tmp_path):
    assessed = {
        "return_before": {"policy_0": 1.0, "policy_1": 2.0},
        "return_after": {"policy_0": 3.0, "policy_1": 2.0},
    }
    results = [result(1, None, 0), result(2, None, 1), result(3, None, 1)]
    results.append(result(4, None, 2, **assessed))
    found = phase_rows(results, "cikd")
    assert [(row["phase"], row["step"], row["member"]) for row in found] == [
        (1, 200, "policy_0"),
        (1, 200, "policy_1"),
        (2, 400, "policy_0"),
        (2, 400, "policy_1"),
    ]
    student, teacher = found[2:]
    assert (student["teacher"], student["kl_before"], student["critic_loss_after"]) == (1, 8.0, 2.0)
    assert (student["return_before"], student["return_after"], student["seconds"]) == (
        1.0,
        3.0,
        0.5,
    )
    assert (teacher["kl_before"], teacher["return_after"]) == ("", 2.0)
    assert found[0]["return_before"] == ""


# ---------------------------------------------------------------- progress


class FakeTrial:
    def __init__(self, name, status, steps):
        self.name, self.status = name, status
        self.last_result = {"num_env_steps_sampled_lifetime": steps}
        self.trial_id = name

    def __str__(self):
        return self.name


def test_a_studys_progress_tells_the_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rllib_cikd.study.progress.time.monotonic", lambda: now[0])
    progress = StudyProgress("s", {"a": 1000, "b": 1000, "c": 2000})
    a, b = FakeTrial("a", "TERMINATED", 1040), FakeTrial("b", "RUNNING", 200)
    progress.on_trial_start(0, [a, b], b)  # resumed: 1,200 of 4,000 steps were done
    now[0], b.last_result = 150.0, {"num_env_steps_sampled_lifetime": 1000}
    # 800 steps in 50 s; 2,000 are left: 125 s.
    line = progress.summary([a, b], ending=b)
    assert line == "s: 2 of 3 runs ended, 50% of all steps, 2m 05s left"
