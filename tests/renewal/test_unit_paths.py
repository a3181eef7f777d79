"""All that reads a unit is known, or its layer is left with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import unchanged
from renewing import fresh_of, set_values
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import ZOO

import autoinit
from autoinit.renewal.dormant import Dormancy, find_dormant, renew_dormant


def _chosen(found: Dormancy) -> Dormancy:
    """Returns every third unit as if it were dormant, and no other."""
    layers = {
        name: tuple(type(unit)(unit.incoming, unit.outgoing, unit.own, float(at % 3)) for at, unit in enumerate(units))
        for name, units in found.layers.items()
    }
    return Dormancy(layers, 0.0, found.left)


@pytest.mark.parametrize("name", [name for name in ZOO if name != "unet_with_text"])  # it has no other layers than unet
def test_all_that_reads_a_unit_is_known(name: str) -> None:
    """With what reads them at zero, nothing that feeds units changes the output; with it as it was, all of it does."""
    torch.manual_seed(0)
    case = ZOO[name]()
    graph = autoinit.trace(case.model, case.batch, step=case.loss)
    if name in ("critic", "pinn"):  # these losses differentiate
        case = case._replace(
            loss=lambda model, batch: model(*batch[0]) if isinstance(batch[0], tuple) else model(batch[0])
        )
    with unchanged(case.model):
        found = _chosen(find_dormant(case.model, graph, [case.batch], threshold=0.0, forward=case.loss))
    case.model.eval()
    for layer, units in found.layers.items():
        alone = Dormancy({layer: units}, 0.0, {})
        renewal = renew_dormant(case.model, graph, alone, fresh_of(graph))
        readers = {entry.name for entry in renewal.entries if entry.what == "outgoing"}
        states = {one: value.clone() for one, value in case.model.state_dict().items()}
        reading = {one: value for one, value in renewal.given.values.items() if one in readers}
        feeding = {one: value for one, value in renewal.given.values.items() if one not in readers}
        set_values(case.model, reading)
        silent = torch.as_tensor(_first(case.loss(case.model, case.batch)))
        set_values(case.model, feeding)
        assert torch.equal(torch.as_tensor(_first(case.loss(case.model, case.batch))), silent), layer
        case.model.load_state_dict(states)
        heard = torch.as_tensor(_first(case.loss(case.model, case.batch)))
        set_values(case.model, feeding)
        assert not torch.equal(torch.as_tensor(_first(case.loss(case.model, case.batch))), heard), layer
        case.model.load_state_dict(states)


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


FOUND = {
    "tanh_mlp": 4, "residual_mlp": 2, "cnn_bn": 2, "resnet": 2, "convolutions": 2, "encoder_pre_ln": 2, "gates": 3,
    "gpt2": 2, "bert": 2, "vit": 2, "t5": 4, "convnext": 2, "unet": 2, "dqn": 3, "lstm": 0, "mamba": 0,
}  # fmt: skip
"""How many layers of each are looked at: that none of them is left unnoticed."""


@pytest.mark.parametrize("name", FOUND)
def test_layers_that_are_looked_at(name: str) -> None:
    torch.manual_seed(0)
    case = ZOO[name]()
    graph = autoinit.trace(case.model, case.batch, step=case.loss)
    found = find_dormant(case.model, graph, [case.batch], threshold=0.0, forward=case.loss)
    assert len(found.layers) == FOUND[name]
    looked_at = {weight for layer in found.layers for weight in layer.split(" · ")}
    assert looked_at.isdisjoint(found.left)
    assert looked_at | set(found.left) >= {layer.name for layer in graph.weights}


# What is left, and why


class Odd(nn.Module):
    """A hidden layer whose units are used in a way that the case chooses."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.stem, self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)
        if way in ("both", "reshaped"):
            self.side = nn.Linear(8, 3)
        if way == "tied":
            self.up.weight = self.down.weight

    def forward(self, x: Tensor) -> Tensor:
        raw = self.up(torch.tanh(self.stem(x)))
        hidden = torch.relu(raw)
        if self.way == "residual":
            return self.head(torch.relu(self.down(hidden) + hidden))
        if self.way == "input":
            return self.head(torch.relu(self.down(hidden + F.pad(x, (0, 2)))))
        if self.way == "both":
            return self.head(torch.relu(self.down(hidden))) + self.side(raw)
        if self.way == "reshaped":
            return self.head(torch.relu(self.down(hidden))) + self.side(
                hidden.unflatten(-1, (1, 2, 4)).sum(-3).flatten(1)
            )
        if self.way == "norm":
            return self.head(torch.relu(self.down(self.norm(hidden))))
        if self.way == "twice":
            return self.head(torch.relu(self.down(torch.relu(self.down(hidden)))))
        if self.way == "aside":
            return self.head(torch.relu(self.down(hidden))) + hidden.softmax(-1)[:, :3]
        return self.head(torch.relu(self.down(hidden)))


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("residual", "add mixes them with others"),
        ("input", "add mixes them with others"),
        ("both", "a weight reads its units before their activation function, too"),
        ("reshaped", "unflatten moves them where they cannot be told apart"),
        ("norm", "layer_norm"),
        ("twice", "down.weight is used several times in a pass"),
        ("aside", "softmax uses them"),
        ("tied", "one with another parameter|used several times"),
        ("frozen reader", "down.weight, which is next to them, is to stay as it is"),
        ("frozen bias", "up.bias, which is next to them, is to stay as it is"),
    ],
)
def test_units_whose_use_cannot_be_told_are_left_with_the_reason(way: str, why: str) -> None:
    torch.manual_seed(0)
    model = Odd(way)
    if way.startswith("frozen"):
        {"frozen reader": model.down.weight, "frozen bias": model.up.bias}[way].requires_grad_(False)
    batch = (torch.randn(16, 6), torch.randint(0, 3, (16,)))
    graph = autoinit.trace(model, batch)
    found = find_dormant(model, graph, [batch], threshold=0.0)
    name = "down.weight" if way == "tied" and "up.weight" not in graph else "up.weight"
    assert name not in found.layers
    assert any(one in found.left[name] for one in why.split("|")), found.left
    assert any(name in note and found.left[name] in note for note in found.notes)
    if way != "tied":
        assert "stem.weight" in found.layers  # only the layer in question is left


def test_units_that_the_caller_gets_are_left() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    batch = (torch.randn(16, 5), torch.randint(0, 3, (16,)))
    graph = autoinit.trace(model, batch)

    def forward(one: Any, given: Any) -> object:
        features = one[:2](given[0])
        return {"features": features, "logits": one[2:](features)}

    found = find_dormant(model, graph, [batch], threshold=0.0, forward=forward)
    assert set(found.layers) == {"2.weight"}
    assert found.left["0.weight"] == "they are part of what the model puts out"
