"""Copies of weights without gradient stay equal to them: target networks, teachers, momentum encoders."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import ZOO

import autoinit
from autoinit.errors import PlanMismatchError
from autoinit.plans.plan import Plan
from autoinit.probing.bench import Bench
from autoinit.stacks.stackable import why_not
from autoinit.task.task import make_task
from autoinit.tracing.choices import find_copies, keep_choices
from autoinit.tracing.tracing import trace_task

STATES = torch.tensor(load_digits().data[:512] / 16, dtype=torch.float32)
PLAYED = (STATES, torch.arange(512) % 4, STATES.mean(1), STATES.flip(0))
"""States, actions, rewards, next states."""


def tower(outputs: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.LayerNorm(24), nn.Linear(24, outputs))


class DQN(nn.Module):
    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.q = tower()
        self.target = copy.deepcopy(self.q).requires_grad_(not frozen)


def bellman(model: Any, batch: Any) -> Tensor:
    state, action, reward, after = batch
    with torch.no_grad():
        aim = reward + 0.9 * model.target(after).max(1).values
    return F.smooth_l1_loss(model.q(state).gather(1, action[:, None])[:, 0], aim)


def test_a_target_network_beside_what_the_model_returns_is_a_copy() -> None:
    case = ZOO["dqn"]()
    graph = keep_choices(case.model, trace_task(make_task(case.model, [case.batch] * 2, step=case.loss)))
    copies = {name: layer.copy_of for name, layer in graph.items() if layer.copy_of}
    assert copies == {name: name.replace("target", "online") for name in graph if name.startswith("target")} != {}


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("recipe", ["he_normal", "lsuv", "gradinit"])
def test_a_target_network_stays_equal_to_what_is_drawn(recipe: str, frozen: bool) -> None:
    model = DQN(frozen)
    before = copy.deepcopy(model.q)
    plan = autoinit.apply_(model, recipe, PLAYED, step=bellman)
    assert equal(model.q, model.target)
    assert not torch.equal(model.q[0].weight, before[0].weight)
    assert plan["target.3.weight"].distribution == "copy"
    assert "a copy of q.3.weight that gets no gradient" in str(plan)


def test_a_plan_file_keeps_another_instance_s_copy_equal(tmp_path: Any) -> None:
    first, second = DQN(True), DQN(True)
    autoinit.apply_(first, "he_normal", PLAYED, step=bellman).save(tmp_path / "plan.json")
    autoinit.apply_(second, Plan.load(tmp_path / "plan.json"))
    assert equal(second.target, second.q)
    assert torch.equal(second.target[0].weight, first.q[0].weight)


@pytest.mark.parametrize("frozen", [True, False])
def test_every_candidate_of_a_search_has_its_copy(frozen: bool) -> None:
    model, gaps = DQN(frozen), []

    def watched(model: Any, batch: Any) -> Tensor:
        gaps.append((model.q[0].weight - model.target[0].weight).abs().max().item())
        return bellman(model, batch)

    with unchanged(model):
        autoinit.select(
            model,
            PLAYED,
            step=watched,
            recipes=["he_normal", "orthogonal"],
            optimizer=lambda p: torch.optim.SGD(p, lr=1e-6),
            budget=autoinit.Budget(steps=200),
            executor="sequential",
            apply=False,
        )
    assert max(gaps) < 1e-3  # what so small steps move; two draws differ by more than a tenth


def test_where_the_original_stays_the_copy_does() -> None:
    model = DQN(True)
    graph = keep_choices(model, trace_task(make_task(model, PLAYED, step=bellman)))
    assert autoinit.resolve("as_is", graph)["target.0.weight"].untouched
    plan = autoinit.resolve("he_normal", graph.restricted(exclude="q.0.*"))
    assert plan["target.0.weight"].untouched
    assert plan["target.3.weight"].copy_of == "q.3.weight"


def test_candidates_with_frozen_copies_are_not_stacked() -> None:
    for frozen in (True, False):
        model = DQN(frozen)
        task = make_task(model, PLAYED, step=bellman)
        graph = keep_choices(model, trace_task(task))
        with task.preserved() as snapshot:
            why = why_not(Bench(task, graph, snapshot, 0))
        assert ("copies of others (target.0.weight)" in why) == frozen


class Momentum(nn.Module):
    """BYOL: the target has no predictor, the online network has one, and both run with gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.online = nn.ModuleDict({"body": tower(8), "predictor": nn.Linear(8, 8)})
        self.slow = nn.ModuleDict({"body": copy.deepcopy(self.online["body"])}).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        fast = self.online["predictor"](self.online["body"](x))
        slow = self.slow["body"](x + 0.01)
        return -F.cosine_similarity(fast, slow).mean()


class Teacher(nn.Module):
    """A teacher that is a copy of all the rest of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = tower(8), nn.Linear(8, 4)
        self.teacher = nn.ModuleDict({"body": copy.deepcopy(self.body), "head": copy.deepcopy(self.head)})

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            aim = self.teacher["head"](self.teacher["body"](x)).softmax(-1)
        return F.cross_entropy(self.head(self.body(x)), aim)


@pytest.mark.parametrize(("build", "count"), [(Momentum, 6), (Teacher, 8)])
def test_copies_with_more_or_less_around_them_are_found(build: Callable[[], nn.Module], count: int) -> None:
    model = build()
    plan = autoinit.apply_(model, "xavier_uniform", STATES)
    assert sum("a copy of" in fill.reason for fill in plan.fills) == count
    stay = [fill.name for fill in plan.fills if fill.untouched]
    assert stay == [name for name, _ in model.named_parameters() if name.endswith("2.weight")]  # LayerNorm's scales
    for fill in plan.fills:
        if fill.copy_of:
            assert torch.equal(model.get_parameter(fill.name), model.get_parameter(fill.copy_of))


class Cloned(nn.Module):
    """Cloned layers in series, the first of which is frozen: nobody's copy."""

    def __init__(self, count: int) -> None:
        super().__init__()
        first = nn.Linear(64, 64)
        self.stem = first.requires_grad_(False)
        self.deep = nn.ModuleList(copy.deepcopy(first).requires_grad_() for _ in range(count))
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for layer in self.deep:
            x = layer(x).relu()
        return self.head(x)


class Trained(DQN):
    """A target that has drifted from its network, as in a training that goes on."""

    def __init__(self) -> None:
        super().__init__(True)
        with torch.no_grad():
            self.q[3].bias.add_(0.1)


class Tables(nn.Module):
    """A frozen table of positions beside a trained one that starts equal: no matrix, no copy."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = nn.Embedding(64, 8), nn.Linear(8, 4)
        self.other = copy.deepcopy(self.one).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(64)
        return self.head((self.one(places) + self.other(places)) * x[..., None]).mean(1)


@pytest.mark.parametrize(
    ("model", "step"),
    [
        (Cloned(1), None),
        (Cloned(3), None),
        (nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 32, batch_first=True), 2), None),
        (Trained(), bellman),
        (Tables(), None),
    ],
    ids=["one clone", "three clones", "encoder", "drifted", "tables"],
)
def test_what_only_looks_like_a_copy_stays_as_it_is(model: nn.Module, step: Any) -> None:
    if isinstance(model, nn.TransformerEncoder):
        model.layers[0].requires_grad_(False)
    data = PLAYED if step else STATES[:, None] if isinstance(model, nn.TransformerEncoder) else STATES
    still = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    assert still
    assert find_copies(model, autoinit.trace(model, data, step=step)) == {}
    autoinit.apply_(model, "he_normal", data, step=step)
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in still.items())


def test_a_plan_whose_copy_has_no_original_is_refused() -> None:
    model = DQN(True)
    plan = autoinit.apply_(model, "he_normal", PLAYED, step=bellman)
    for change in ({"copy_of": ""}, {"copy_of": "q.3.weight"}, {"distribution": "normal"}):
        fills = [dataclasses.replace(fill, **change) if fill.name == "target.0.weight" else fill for fill in plan.fills]
        with unchanged(model), pytest.raises(PlanMismatchError, match=r"nothing to copy to target\.0\.weight"):
            autoinit.apply_(model, dataclasses.replace(plan, fills=tuple(fills)))
