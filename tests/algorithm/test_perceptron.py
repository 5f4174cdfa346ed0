"""One network, and what the policy's output means."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rllib_cikd.algorithm.perceptron import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    perceptron,
    split_policy_output,
)


@pytest.mark.parametrize(("name", "kind"), [("relu", nn.ReLU), ("tanh", nn.Tanh), ("elu", nn.ELU)])
def test_hidden_layers_have_the_activation_and_the_last_is_linear(name, kind):
    network = perceptron(5, [16, 12], 3, name)
    assert [type(layer) for layer in network] == [nn.Linear, kind, nn.Linear, kind, nn.Linear]
    assert [tuple(layer.weight.shape) for layer in network[::2]] == [(16, 5), (12, 16), (3, 12)]


def test_without_hidden_layers_it_is_linear():
    (layer,) = perceptron(5, [], 3, "relu")
    assert (layer.in_features, layer.out_features) == (5, 3)


def test_log_std_is_clipped_and_the_mean_is_not():
    """[mean | log std] side by side; log std within [-20, 2], SAC's published bounds."""
    output = torch.tensor([[100.0, -100.0, -50.0, 50.0], [1.0, 2.0, -19.0, 1.9]])
    mean, log_std = split_policy_output(output)
    assert mean.tolist() == [[100.0, -100.0], [1.0, 2.0]]
    torch.testing.assert_close(log_std, torch.tensor([[-20.0, 2.0], [-19.0, 1.9]]))
    assert (LOG_STD_MIN, LOG_STD_MAX) == (-20.0, 2.0)
