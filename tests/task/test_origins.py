"""The call that sets a parameter or buffer anew does so."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import unchanged
from torch import nn
from torch.nn.utils import parametrizations

from autoinit.task.origins import is_statistic, own_reset, parameter_call


class Scale(nn.Module):
    """A module without a reset, with a parameter and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))
        self.register_buffer("place", torch.zeros(4))


class Asks(Scale):
    """A module whose reset asks for something."""

    def reset_parameters(self, std: float) -> None:
        nn.init.normal_(self.gain, std=std)


def model() -> nn.Sequential:
    weighted = parametrizations.weight_norm(nn.Linear(4, 4))
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Embedding(5, 4), Scale(), Asks(), weighted)


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.weight", "1.running_var", "2.weight"])
def test_torchs_own_modules_set_theirs(name: str) -> None:
    net = model()
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    tensors[name].detach().view(-1)[0] = math.nan
    with unchanged(net):
        call = own_reset(net, name)
    eval(call, {"model": net})
    assert tensors[name].isfinite().all()


@pytest.mark.parametrize("name", ["3.gain", "3.place", "4.gain", "5.weight"])
def test_where_no_call_is_known_none_is_named(name: str) -> None:
    assert own_reset(model(), name) == ""


def test_the_models_own_parameter_is_set_by_the_model() -> None:
    assert own_reset(nn.Linear(2, 2), "weight") == "model.reset_parameters()"
    assert parameter_call("weight") == "model.get_parameter('weight')"


def test_running_statistics_are_told_from_other_buffers() -> None:
    assert is_statistic(model(), "1.running_mean")
    assert not is_statistic(model(), "1.num_batches_tracked")
    assert not is_statistic(model(), "3.place")
