"""Stale weights as a recipe: the same values as `renew_` gives, the model as it was where something fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import Tensor, nn

import autoinit
from autoinit.drawing.renewed import PERTURB, SHRINK, THRESHOLD

PIXELS, LABELS = load_digits(return_X_y=True)
DATA = torch.tensor(PIXELS[:256] / 16, dtype=torch.float32), torch.tensor(LABELS[:256])


def stale() -> nn.Sequential:
    """Returns a convolutional network with a BatchNorm and two dead channels."""
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)
    )
    with torch.no_grad():
        model[2].bias[2:4] = -50.0
        model[5].bias.fill_(0.25).add_(torch.arange(10) / 100)
    return model


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("method", ["shrink_and_perturb", "redo"])
def test_a_recipe_gives_what_the_verb_gives(method: str, tmp_path: Path) -> None:
    first, second, third = stale(), stale(), stale()
    plan = autoinit.apply_(first, method, DATA, seed=4)
    autoinit.renew_(second, DATA, method=method, seed=4, shrink=SHRINK, perturb=PERTURB, threshold=THRESHOLD)
    mine, theirs = values(first), values(second)
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items() if "running" not in name)
    assert not torch.equal(mine["1.weight"], values(stale())["1.weight"])
    plan.save(tmp_path / "plan.json")
    autoinit.apply_(third, tmp_path / "plan.json")
    assert all(torch.equal(value, values(third)[name]) for name, value in mine.items())


def test_only_dormant_units_are_drawn_anew_and_the_output_stays() -> None:
    model = stale()
    before, output = values(model), model.eval()(DATA[0]).detach()
    plan = autoinit.apply_(model, "redo", DATA)
    changed = (values(model)["1.weight"] != before["1.weight"]).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [2, 3]
    assert torch.allclose(model(DATA[0]), output, atol=1e-5)
    assert plan["5.bias"].untouched
    assert plan.base == "trained"


def test_another_seed_draws_other_values() -> None:
    first, second = stale(), stale()
    autoinit.apply_(first, "shrink_and_perturb", DATA, seed=1)
    autoinit.apply_(second, "shrink_and_perturb", DATA, seed=2)
    assert not torch.equal(first[1].weight, second[1].weight)


def test_values_that_are_not_finite_are_refused_and_nothing_is_set() -> None:
    model = stale()
    with torch.no_grad():
        model[1].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(autoinit.AutoInitError), unchanged(model):
        autoinit.apply_(model, "shrink_and_perturb", DATA)
    with pytest.raises(autoinit.RecipeError, match="Pass data="), unchanged(model):
        autoinit.apply_(model, "redo")


def test_a_search_chooses_between_going_on_and_renewing() -> None:
    model = stale()
    with unchanged(model):
        found = autoinit.select(
            model,
            DATA,
            recipes=["shrink_and_perturb", "redo", "he_normal"],
            budget=autoinit.Budget(steps=1200),
            apply=False,
        )
    tried = set(found.trials["recipe"])
    assert {"as_is", "he_normal renewal=redo", "he_normal renewal=shrink_and_perturb"} <= tried
    assert "failed" not in set(found.trials["state"])
