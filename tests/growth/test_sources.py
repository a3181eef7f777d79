"""A trained network as a source of candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import unchanged
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

import autoinit
from autoinit.growth.preserved import preserved
from autoinit.growth.sources import with_source
from autoinit.plans.rules import resolve
from autoinit.task.task import Trained, make_task
from autoinit.tracing.tracing import trace_task

X, Y = load_digits(return_X_y=True)
DATA = (torch.tensor(X / 16, dtype=torch.float32), torch.tensor(Y))


def network(width: int, classes: int = 10) -> nn.Module:
    norm = nn.BatchNorm1d(width)
    return nn.Sequential(nn.Linear(64, width), norm, nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                         nn.Linear(width, classes))  # fmt: skip


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3)


@pytest.fixture(scope="module")
def small() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network(20)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(DATA[0]), DATA[1]).backward()
            optimizer.step()
    return model


def chosen(model: nn.Module, small: Any, steps: int = 600, **rest: Any) -> autoinit.Selection:
    return autoinit.select(model, DATA, source=small, optimizer=adamw, budget=autoinit.Budget(steps=steps), **rest)


@pytest.mark.parametrize("executor", ["sequential", "processes", "stacked"])
def test_a_trained_network_wins_against_a_start_from_scratch(small: nn.Module, executor: str, tmp_path: Path) -> None:
    large, other = network(40), network(40)
    with unchanged(small):
        selection = chosen(large, small, executor=executor)
    assert not selection.kept, selection.why
    assert selection.recipe.growth != "none"
    assert selection.plan.base == "trained"
    assert "20×64 → 40×64" in selection.plan["0.weight"].reason
    assert preserved(small, large, DATA[0]) < 1e-4
    selection.save(tmp_path / "large.json", full=True)
    autoinit.apply_(other, tmp_path / "large.json")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in large.state_dict().items())


def test_the_weights_alone_will_do(small: nn.Module, tmp_path: Path) -> None:
    save_file(small.state_dict(), tmp_path / "small.safetensors")
    assert chosen(network(40), tmp_path / "small.safetensors").recipe.growth != "none"


def test_a_smaller_network_takes_a_part_if_that_is_better(small: nn.Module) -> None:
    selection = chosen(network(10), small, apply=False)
    tried = " ".join(selection.trials["recipe"])
    assert "select_uniform" in tried
    assert "clone" not in tried


def test_a_way_that_gives_the_same_is_tried_once_and_measures_nothing(small: nn.Module) -> None:
    task = make_task(network(40), DATA, optimizer=adamw)
    graph = with_source(task, trace_task(task), Trained(small))
    assert graph.grows == ("clone", "net2net", "zero_pad")  # no block is new: identity and stack are clones
    assert {layer.name for layer in graph.layers if layer.inherits} == set(graph)
    plan = resolve(autoinit.Recipe(base="he_normal", growth="clone"), graph)
    assert {fill.distribution for fill in plan.values()} == {"given"}
    assert plan.pending


def test_what_is_excluded_does_not_inherit(small: nn.Module) -> None:
    large = network(40)
    before = large[5].weight.clone()
    chosen(large, small, exclude="5.*")
    assert torch.equal(large[5].weight, before)


def test_a_new_head_is_left_to_the_recipe(small: nn.Module) -> None:
    task = make_task(network(40, 13), DATA, optimizer=adamw)
    graph = with_source(task, trace_task(task), Trained(small))
    assert [layer.name for layer in graph.layers if not layer.inherits] == ["5.weight", "5.bias"]
    plan = resolve(autoinit.Recipe(base="he_normal", growth="clone"), graph)
    assert plan["5.weight"].distribution == "normal"


def test_a_source_that_does_not_fit_says_so(small: nn.Module) -> None:
    for model, source, error, words in (
        (network(40), {"encoder.kernel": torch.zeros(3)}, autoinit.SourceError, ""),
        (nn.Sequential(nn.Linear(64, 40), nn.LayerNorm(40), nn.Linear(40, 10)), small, autoinit.SourceError, "fit"),
        (network(40), "lost.safetensors", autoinit.SourceError, "There is no"),
    ):
        with pytest.raises(error, match=words or None), unchanged(model):
            chosen(model, source)
    with pytest.raises(autoinit.ArgumentError, match="proxy"):
        chosen(network(40), small, proxy=network(20))
