"""Algorithms, settings and environments are checked before Ray starts."""

import pytest

from rllib_cikd.common.errors import CommandError


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("ensemble_size", "ensmble_size", "'ensmble_size'.*'ensemble_size'"),
        ("actor_lr: 1e-4", "evaluation_intervall: 1", "evaluation_intervall.*evaluation_interval"),
        ("actor_lr: 1e-4", "actor_lr: fast", "actor_lr='fast'"),
        ("run: CIKD", "run: CIDK", "'CIDK'. Did you mean 'CIKD'"),
        ("run: CIKD", "num_samples: 1", "`run` is missing"),
        ("env: Pendulum-v1", "num_samples: 1", "`env` is missing"),
        ("Pendulum-v1", "Pendlum-v1", "Pendlum.*Pendulum"),
        ("Pendulum-v1", "CarRacing-v3", "env='CarRacing-v3'"),
    ],
)
def test_errors_name_the_fault(load, minimal, old, new, words):
    assert old in minimal
    with pytest.raises(CommandError, match=f"(?s)experiment.yaml: .*{words}"):
        load(minimal.replace(old, new))


def test_typo_for_another_algorithm(load):
    text = "ppo: {run: PPO, env: CartPole-v1, config: {minibatch_sise: 32}}"
    with pytest.raises(CommandError, match=r"'minibatch_sise' for PPO\. Did you mean 'mini"):
        load(text)


def test_networks_that_cannot_learn_an_environments_actions(load, minimal):
    text = minimal.replace("actor_lr: 1e-4", "model_config: {batch_norm: true}")
    load(text)
    with pytest.raises(CommandError, match=r"batch_norm.* is for continuous actions, and this env"):
        load(text.replace("Pendulum-v1", "CartPole-v1"))
