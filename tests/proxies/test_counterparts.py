"""An optimizer of the parameters of a model, or of its proxy, is made anew for the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import unchanged
from pairs import DATA, mlp
from torch import nn

import autoinit
from autoinit.errors import OptimizerError
from autoinit.proxies.counterparts import counterpart, optimizers_of


def decayed(model: nn.Module) -> torch.optim.Optimizer:
    """Returns an AdamW whose weights decay and whose biases do not, as most training scripts have it."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    biases = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0, "lr": 3e-3}]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.8, 0.9))


@pytest.mark.parametrize(("owner", "other"), [(6, 3), (3, 6)], ids=["fewer layers", "more layers"])
def test_groups_and_options_are_those_of_the_owner(owner: int, other: int) -> None:
    model, small = mlp(16, owner), mlp(8, other)
    given = decayed(model)
    made = counterpart(given, model, small)
    assert type(made) is torch.optim.AdamW
    for ours, theirs in zip(made.param_groups, decayed(small).param_groups, strict=True):
        assert [id(parameter) for parameter in ours["params"]] == [id(parameter) for parameter in theirs["params"]]
        rest = [{key: value for key, value in group.items() if key != "params"} for group in (ours, theirs)]
        assert rest[0] == rest[1]


def test_what_the_owner_leaves_out_is_left_out() -> None:
    model, small = mlp(16, 6), mlp(8, 3)
    given = torch.optim.SGD([p for name, p in model.named_parameters() if "bias" not in name], lr=0.1)
    held = {id(parameter) for parameter in counterpart(given, model, small).param_groups[0]["params"]}
    assert held == {id(parameter) for name, parameter in small.named_parameters() if "bias" not in name}


def test_a_rate_for_each_layer_says_which_group_cannot_be_told() -> None:
    proxy, model = mlp(8, 3), mlp(16, 6)
    layers = [{"params": list(part.parameters()), "lr": 0.1 / 2**place} for place, part in enumerate(proxy[::2])]  # type: ignore[index]
    given = torch.optim.SGD(layers, lr=0.1)
    with pytest.raises(OptimizerError, match=r"to which group '8\.weight'.*are in 4 groups.*optimizer=callable"):
        counterpart(given, proxy, model)
    by_layer = [{"params": list(part.parameters()), "lr": 0.1 / 2**place} for place, part in enumerate(model[::2])]  # type: ignore[index]
    rates = [group["lr"] for group in counterpart(torch.optim.SGD(by_layer, lr=0.1), model, proxy).param_groups]
    assert rates == [0.1 / 2**place for place in range(7)]


def test_what_makes_an_optimizer_suits_both() -> None:
    model, proxy = mlp(16, 6), mlp(8, 3)
    assert optimizers_of(model, proxy, None) == (None, None)
    assert optimizers_of(model, proxy, decayed) == (decayed, decayed)
    foreign = decayed(mlp(4))
    assert optimizers_of(model, proxy, foreign) == (foreign, foreign)


@pytest.mark.parametrize("whose", ["model", "proxy"])
def test_select_takes_an_optimizer_of_either(whose: str) -> None:
    torch.manual_seed(0)
    models = {"model": mlp(32, 12), "proxy": mlp(16, 6)}
    given = torch.optim.SGD(models[whose].parameters(), lr=0.02, momentum=0.9)
    options: dict[str, Any] = {"recipes": ["orthogonal"], "executor": "sequential", "apply": False}
    with unchanged(models["model"]), unchanged(models["proxy"]):
        selection = autoinit.select(
            models["model"], DATA, proxy=models["proxy"], optimizer=given, budget=autoinit.Budget(steps=1000), **options
        )
    assert (selection.lr, selection.lr_given) == (0.02, True)
    assert {"final", "gate"} & set(selection.trials.stage)
    assert not given.state
