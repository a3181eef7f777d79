from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import autoinit
from autoinit.errors import PlanFileError
from autoinit.plans.plan import Plan
from autoinit.search.selection import Selection


def net() -> nn.Module:
    torch.manual_seed(0)
    hidden = [nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(12)]
    return nn.Sequential(*hidden, nn.Linear(64, 10))


def data() -> tuple[Any, Any]:
    pixels, labels = load_digits(return_X_y=True)
    return pixels[:600] / 16, labels[:600]


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)


@pytest.fixture(scope="module")
def found() -> Selection:
    budget = autoinit.Budget(steps=400)
    return autoinit.select(net(), data(), optimizer=sgd, budget=budget, executor="sequential", apply=False)


def test_a_whole_selection_is_read_back_as_it_was(found: Selection, tmp_path: Path) -> None:
    found.save(tmp_path / "init.json", full=True)
    read = Selection.load(tmp_path / "init.json")
    assert found.curves
    for one in dataclasses.fields(Selection):
        if one.name == "trials":
            pd.testing.assert_frame_equal(read.trials, found.trials)
        else:
            assert vars(read)[one.name] == vars(found)[one.name], one.name
    assert str(read) == str(found)


def test_a_whole_selection_is_a_plan_too(found: Selection, tmp_path: Path) -> None:
    found.save(tmp_path / "full.json", full=True)
    found.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "full.json") == Plan.load(tmp_path / "plan.json") == found.plan
    one, other = net(), net()
    autoinit.apply_(one, tmp_path / "full.json")
    autoinit.apply_(other, tmp_path / "plan.json")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert "selection" not in json.loads((tmp_path / "plan.json").read_text())["provenance"]


def test_a_plan_alone_is_no_selection(found: Selection, tmp_path: Path) -> None:
    found.save(tmp_path / "plan.json")
    with pytest.raises(PlanFileError, match=r"save\(path, full=True\)"):
        Selection.load(tmp_path / "plan.json")
    with pytest.raises(PlanFileError, match="cannot be read"):
        Selection.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"curves": [{"number": 0}]}, "is not a valid"),
        ({"trials": [{"number": 0}]}, "its trials are no list of rows"),
        ({"trials": "none"}, "its trials are no list of rows"),
        ({"graph": None}, "lacks the architecture"),
        ({"graph": {"layers": [{}]}}, "is not a valid Graph"),
        ({"kept": "perhaps"}, "is not a valid"),
        ({"why": ...}, "lacks why"),
    ],
)
def test_damage_is_named(damage: dict[str, Any], said: str, found: Selection, tmp_path: Path) -> None:
    path = tmp_path / "init.json"
    found.save(path, full=True)
    content = json.loads(path.read_text())
    body = content["provenance"]["selection"]
    content["provenance"]["selection"] = {k: v for k, v in {**body, **damage}.items() if v is not ...}
    path.write_text(json.dumps(content))
    with pytest.raises(PlanFileError, match=said):
        Selection.load(path)


def test_a_trial_with_a_word_for_a_number_is_refused(found: Selection, tmp_path: Path) -> None:
    path = tmp_path / "init.json"
    found.save(path, full=True)
    content = json.loads(path.read_text())
    content["provenance"]["selection"]["trials"][0]["score"] = "good"
    path.write_text(json.dumps(content))
    with pytest.raises(PlanFileError, match="do not hold what they should"):
        Selection.load(path)
