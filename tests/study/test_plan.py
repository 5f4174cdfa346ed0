"""Study files: the grid that one asks for, and what is wrong with it."""

from __future__ import annotations

import pytest
from study_examples import EXAMPLE, ROOT, STUDY

from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.variants import VARIANTS_FILE
from rllib_cikd.study.plan import load_study

STUDIES = sorted(path for path in (ROOT / "studies").glob("*.yaml") if path.stem != "variants")


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


def test_a_variants_networks_are_the_studys_in_all_else(project):
    text = STUDY.replace("assess_distillation: true", "model_config: {fcnet_hiddens: [64, 64]}")
    text = text.replace("[vanilla-sac, cikd]", "[cikd, cikd-layer-norm]")
    (project / "studies" / "small.yaml").write_text(text)
    cikd, layer_norm = load_study(project / "studies" / "small.yaml").cells[:2]
    assert cikd.config["model_config"] == {"fcnet_hiddens": [64, 64]}
    assert layer_norm.config["model_config"] == {
        "fcnet_hiddens": [64, 64],
        "critic_layer_norm": True,
    }


def test_names_may_have_dots(project):
    (project / VARIANTS_FILE).write_text("tau-0.01: {tau: 0.01}\ntau-0.02: {tau: 0.02}\n")
    for name in ("pend-0.5", "pend-0.6"):
        (project / "tuned_examples" / f"{name}.yaml").write_text(EXAMPLE)
    path = project / "studies" / "small.yaml"
    path.write_text(
        "tuned_examples: [pend-0.5, ../tuned_examples/pend-0.6.yaml]\n"
        "variants: [tau-0.01, tau-0.02]\nseeds: [0]\nsteps: {pend-0.5: 5, pend-0.6: 6}\n"
    )
    assert [(cell.name, cell.steps) for cell in load_study(path).cells] == [
        ("pend-0.5_tau-0.01_seed0", 5),
        ("pend-0.5_tau-0.02_seed0", 5),
        ("pend-0.6_tau-0.01_seed0", 6),
        ("pend-0.6_tau-0.02_seed0", 6),
    ]


def test_tasks_of_one_environment_are_called_by_their_examples(project):
    for name, env in (("light", "Pendulum-v1"), ("heavy", "Pendulum-v1"), ("cart", "CartPole-v1")):
        text = EXAMPLE.replace("Pendulum-v1", env)
        (project / "tuned_examples" / f"{name}.yaml").write_text(text)
    path = project / "studies" / "small.yaml"
    path.write_text(STUDY.replace("[small]", "[light, heavy, cart]"))
    assert {(cell.example, cell.task) for cell in load_study(path).cells} == {
        ("light", "light"),
        ("heavy", "heavy"),
        ("cart", "CartPole-v1"),
    }


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("run: CIKD", "run: PPO", ["small runs PPO.", "`run: CIKD`"]),
        (
            "  run:",
            "  num_samples: 2\n  run:",
            ["small has `num_samples: 2`", "`rllib train file`"],
        ),
        ("  run:", "  scheduler: asha\n  metric: m\n  run:", ["small has `scheduler: asha`"]),
        ("  run:", "  search_alg: optuna\n  metric: m\n  run:", ["small has `search_alg: optuna`"]),
        (
            "random_steps: 200",
            "actor_lr: {tune.loguniform: [1e-5, 1e-3]}",
            ["small: config: actor_lr is drawn", "as variants"],
        ),
    ],
)
def test_what_a_study_cannot_do_with_a_tuned_example_is_said(project, old, new, words):
    assert old in EXAMPLE
    (project / "tuned_examples" / "small.yaml").write_text(EXAMPLE.replace(old, new))
    with pytest.raises(CommandError) as error:
        load_study(project / "studies" / "small.yaml")
    for word in words:
        assert word in str(error.value)


def test_what_a_study_does_not_look_at_is_known(project):
    text = "small:\n  num_samples: 1\n  checkpoint_freq: 5\n  storage_path: elsewhere\n"
    (project / "tuned_examples" / "small.yaml").write_text(EXAMPLE.replace("small:\n", text))
    not_used = load_study(project / "studies" / "small.yaml").not_used
    assert not_used == ["checkpoint_freq of small", "storage_path of small"]
    assert load_study("quick").not_used == []


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
