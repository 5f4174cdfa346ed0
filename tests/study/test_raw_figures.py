"""Raw figures: results as Tune writes them become rows and CSVs."""

from __future__ import annotations

from study_examples import result, write_results

from rllib_cikd.study.raw_figures import evaluation_rows, phase_rows, read_results, write_raw


def test_results_after_a_resume_replace_those_before(tmp_path):
    first = [result(i, None, 0) for i in (1, 2, 3, 4)]
    again = [result(3, None, 1), result(4, None, 1), result(5, None, 1)]
    trial = write_results(tmp_path, *first, *again, tail='{"training_iteration": 6, "num')
    results = read_results(trial, steps=10_000)
    assert [r["training_iteration"] for r in results] == [1, 2, 3, 4, 5]
    assert [r["ensemble"]["num_distillations_lifetime"] for r in results] == [0, 0, 1, 1, 1]
    assert [r["training_iteration"] for r in read_results(trial, steps=350)] == [1, 2, 3, 4]


def test_rows_of_evaluations():
    results = [result(1, None, 0), result(2, 200, 0), result(3, 200, 1), result(4, 400, 1)]
    results[3]["ensemble"]["num_updates_lifetime"] = 390  # not reported before
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
        "updates": 390,
    }
    assert (by_member["policy_1"]["return"], by_member["policy_1"]["kl"]) == (80.0, None)
    assert (by_member["best"]["return"], by_member["elected"]["return"]) == (5.0, None)
    assert found[0]["teacher"] is found[0]["updates"] is None


def test_rows_of_phases():
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
    assert (teacher["kl_before"], teacher["return_after"]) == (None, 2.0)
    assert found[0]["return_before"] is None


def test_files_have_a_line_for_each_row(tmp_path):
    trial = write_results(tmp_path, result(1, None, 0), result(2, 200, 1), result(4, 400, 2))
    write_raw(trial, {"variant": "cikd", "steps": 300}, tmp_path / "raw", "small")
    evaluations, phases = sorted((tmp_path / "raw").glob("small.*.csv"))
    lines = evaluations.read_text().splitlines()
    assert len(lines) == 1 + 2 * 6  # the second evaluation ends the run
    assert lines[:2] == [
        "variant,task,seed,member,step,return,wall_seconds,teacher,kl,updates",
        "cikd,Task-v0,7,policy_0,200,20.0,3.0,1,0.123457,",
    ]
    assert phases.read_text().splitlines()[1:] == [
        "cikd,Task-v0,7,1,200,1,policy_0,8.0,0.123457,4.0,2.0,,,0.5",
        "cikd,Task-v0,7,1,200,1,policy_1,,,,,,,0.5",
        "cikd,Task-v0,7,2,400,1,policy_0,8.0,0.123457,4.0,2.0,,,0.5",
        "cikd,Task-v0,7,2,400,1,policy_1,,,,,,,0.5",
    ]


def test_a_task_may_have_another_name_than_its_environment(tmp_path):
    trial = write_results(tmp_path, result(2, 200, 1))
    run = {"variant": "cikd", "task": "heavy", "steps": 300}
    write_raw(trial, run, tmp_path / "raw", "small")
    for path in (tmp_path / "raw").glob("small.*.csv"):
        assert {line.split(",")[1] for line in path.read_text().splitlines()[1:]} == {"heavy"}
