"""A head of class means as a recipe: on a trained body, under a plan, in a search."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import Tensor, nn

import autoinit
from autoinit.calibrations.closed_head import ROWS

PIXELS, LABELS = load_digits(return_X_y=True)
DATA = torch.tensor(PIXELS / 16, dtype=torch.float32), torch.tensor(LABELS)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 10))


def body() -> dict[str, Tensor]:
    """Returns the weights of another network's body, as a checkpoint without a head."""
    return {name: value for name, value in network(7).state_dict().items() if name.startswith("0.")}


def loaded(seed: int = 0) -> nn.Sequential:
    model = network(seed)
    model.load_state_dict(body(), strict=False)
    return model


def right(model: nn.Module) -> float:
    return float((model.eval()(DATA[0]).argmax(1) == DATA[1]).float().mean())


def test_the_head_is_set_on_the_body_and_the_body_stays(tmp_path: Path) -> None:
    model, other = loaded(), loaded(seed=1)
    plan = autoinit.apply_(model, "class_means", DATA, checkpoint=body())
    assert right(model) > 0.9 > right(loaded())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in body().items())
    assert f"class means of {ROWS} rows" in plan["3.weight"].reason
    plan.save(tmp_path / "plan.json")
    autoinit.apply_(other, tmp_path / "plan.json")
    assert torch.equal(other[3].weight, model[3].weight)
    assert torch.equal(other[3].bias, model[3].bias)


def test_features_are_those_of_the_drawn_body() -> None:
    recipe = autoinit.Recipe(base="orthogonal", calibration="lsuv", head="class_means")
    model, other = network(), network()
    plan = autoinit.apply_(model, recipe, DATA, seed=3)
    assert plan["0.weight"].factor != 1.0  # of the calibration
    other[3].load_state_dict(model[3].state_dict())  # beside the owner's body
    assert right(model) > 0.9 > 0.6 > right(other)


def test_labels_that_are_no_classes_of_the_head_are_refused_and_nothing_is_set() -> None:
    model = loaded()
    with pytest.raises(autoinit.RecipeError, match="labels of single classes"), unchanged(model):
        autoinit.apply_(model, "class_means", (DATA[0], torch.randn(len(DATA[0]), 10)), checkpoint=body())
    with pytest.raises(autoinit.RecipeError, match="Pass data="), unchanged(model):
        autoinit.apply_(model, "class_means", checkpoint=body())


class Twice(nn.Module):
    """Calls its head twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 48), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x).relu()
        return self.head(hidden) + self.head(hidden.flip(1))


def test_a_head_that_is_called_twice_says_so_and_nothing_is_set() -> None:
    model = Twice()
    with pytest.raises(autoinit.CalibrationError, match="called 2 times"), unchanged(model):
        autoinit.apply_(model, "class_means", DATA)


def test_a_search_tries_it_where_the_body_is_trained_and_nowhere_else() -> None:
    budget = autoinit.Budget(steps=1500)
    model = loaded()
    with unchanged(model):
        found = autoinit.select(model, DATA, checkpoint=body(), budget=budget, apply=False)
    tried = found.trials[found.trials["recipe"] == "as_is head=class_means"]
    assert len(tried)
    assert "failed" not in set(tried["state"])
    fresh = autoinit.select(network(), DATA, budget=budget, apply=False)
    assert not any("class_means" in key for key in fresh.trials["recipe"])
