"""Named comparisons: what `--variant` loads, and over what it is laid."""

import functools
from pathlib import Path

import pytest
import yaml

from rllib_cikd.common.errors import CommandError
from rllib_cikd.experiments.experiment import load_experiments
from rllib_cikd.experiments.variants import VARIANTS_FILE, load_variant

ROOT = Path(__file__).parents[2]
PENDULUM = ROOT / "tuned_examples" / "cikd-pendulum.yaml"


def test_every_shipped_variant_can_be_loaded():
    for name, settings in yaml.safe_load((ROOT / VARIANTS_FILE).read_text()).items():
        assert load_variant(name, PENDULUM).keys() == settings.keys()


def test_it_names_the_run_and_lies_between_file_and_config():
    (plain,) = load_experiments(PENDULUM)
    (experiment,) = load_experiments(
        PENDULUM, variant="cikd-k5", config={"distillation_interval": 777}
    )
    assert experiment.name == "cikd-pendulum_cikd-k5"
    changed = {"ensemble_size": 5, "distillation_interval": 777}
    assert experiment.trial_configs == [plain.trial_configs[0] | changed]
    (experiment,) = load_experiments(PENDULUM, variant="cikd-k5", config={"ensemble_size": 4})
    assert experiment.trial_configs[0]["ensemble_size"] == 4


def test_nested_settings_are_laid_over_one_by_one():
    networks = {"model_config": {"fcnet_hiddens": [64, 64]}}
    (experiment,) = load_experiments(PENDULUM, variant="cikd-layer-norm", config=networks)
    (found,) = experiment.trial_configs
    assert found["model_config"] == {"fcnet_hiddens": [64, 64], "critic_layer_norm": True}


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("ensembel-sac", "Did you mean 'ensemble-sac'"),
        ("nonsense", r"nor in the package\. Known: vanilla-sac, "),
    ],
)
def test_unknown_variants_are_refused(variant, words):
    with pytest.raises(CommandError, match=words):
        load_experiments(PENDULUM, variant=variant)


def test_own_variants_are_laid_over_the_packages(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(PENDULUM.read_text())
    load = functools.partial(load_experiments, file, variant="cikd-k5")
    (experiment,) = load()  # by those that come with the package
    assert experiment.trial_configs[0]["ensemble_size"] == 5
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "variants.yaml").write_text("cikd-k5: 5")
    with pytest.raises(CommandError, match="its form is"):
        load()
    (tmp_path / "studies" / "variants.yaml").write_text(
        "cikd-k5: {ensemble_size: 7, actor_lr: 1e-4}"
    )
    (experiment,) = load()
    assert experiment.trial_configs[0]["ensemble_size"] == 7
    assert experiment.trial_configs[0]["actor_lr"] == 1e-4  # no text
    (experiment,) = load_experiments(file, variant="vanilla-sac")  # the package's, as it has none
    assert experiment.trial_configs[0]["ensemble_size"] == 1


def test_only_lone_agents_set_the_number_of_members():
    """A file's own `ensemble_size` is every ensemble's, so that they can be compared."""
    for name, settings in yaml.safe_load((ROOT / VARIANTS_FILE).read_text()).items():
        size = settings.get("ensemble_size")
        assert size in ((1,) if name.startswith("vanilla") else (None, 2, 5)), name
