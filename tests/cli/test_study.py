"""`rllib study run` and `rllib study watch`: their options."""


def test_every_option_reaches_the_study(run_main, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "rllib_cikd.study.command.run", lambda file, **given: seen.update(given, file=file)
    )
    options = ["--storage-path", "d", "-n", "n", "--ray-address", "a:1", "-v"]
    options += ["--import", "m", "--import", "o"]
    run_main("study", "run", "s.yaml", *options)
    names = {"storage_path": "d", "experiment_name": "n", "ray_address": "a:1"}
    assert seen == {"file": "s.yaml", **names, "imports": ["m", "o"], "verbose": True}


def test_a_studys_results_are_in_a_folder(run_main):
    exit_code, _, stderr = run_main(
        "study", "run", "studies/quick.yaml", "--storage-path", "s3://bucket"
    )
    assert exit_code == 2
    assert "must be in a folder" in stderr


def test_what_cannot_be_watched_is_one_line(run_main, tmp_path):
    exit_code, stdout, stderr = run_main("study", "watch", tmp_path / "nowhere")
    assert (exit_code, stdout) == (2, "")
    assert stderr == f"rllib: error: {tmp_path / 'nowhere'}: no such folder.\n"
