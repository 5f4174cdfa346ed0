"""`rllib report`: its options, and what it makes of the folder of a run."""

from __future__ import annotations


def test_every_option_reaches_the_report(run_main, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "rllib_cikd.study.report.report", lambda folder, **given: seen.update(given, folder=folder)
    )
    run_main("report", "d", "--out", "o", "--baseline", "cikd", "--video", "a", "--video", "b")
    assert seen == {"folder": "d", "out": "o", "baseline": "cikd", "videos": ["a", "b"]}


def test_a_study_has_no_report_of_its_own(run_main):
    exit_code, _, stderr = run_main("study", "report", "d")
    assert exit_code == 2
    assert "No such command 'report'" in stderr


def test_a_run_as_it_was_trained(run_main, runs, tmp_path):
    """Of two phases."""
    run = runs[0] / "results" / "small"
    (trial,) = (file.parent for file in run.glob("*/result.json"))
    for folder, title in ((run, "small"), (trial, f"small, {trial.name}")):
        out = tmp_path / folder.name
        assert run_main("report", folder, "--out", out) == (0, f"report: {out}/report.html\n", "")
        page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
        assert f"<h1>Run report: {title}</h1>" in page
        assert "final return at step 800: mean member **-" in text
        figures = {path.stem for path in out.glob("figures/*.svg")}
        assert {"learning-curves", "members", "teachers", "distances"} <= figures
        assert page.count("<svg") == len(figures)
        # How it was made: as it was trained, in whichever folder the report starts.
        assert "rllib train file small.yaml --storage-path results`, 20" in text
        assert "Versions: rllib-cikd " in text
        assert "Machine: " in text
        assert "Seeds: 3." in text
        assert "| `ensemble_size` | `2` | `3` | all |" in text
        assert "| `seed` |" not in text
        assert "tau" not in text  # which is the default
    assert not (run / "report").exists()
