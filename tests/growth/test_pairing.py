"""Names of two networks' tensors, across prefixes and depths."""

from __future__ import annotations

from autoinit.growth.pairing import Pair, pairs


def test_prefixes_come_and_go() -> None:
    model = {"body.0.weight": (8, 8), "body.1.weight": (8, 8), "head.weight": (3, 8)}
    source = {"module.net.body.0.weight": (4, 4), "module.net.body.1.weight": (4, 4)}
    assert pairs(model, source) == [
        Pair("body.0.weight", "module.net.body.0.weight"),
        Pair("body.1.weight", "module.net.body.1.weight"),
        Pair("head.weight", None),
    ]
    found = pairs({f"net.{name}": shape for name, shape in model.items()}, {"body.0.weight": (4, 4)})
    assert found[0] == Pair("net.body.0.weight", "body.0.weight")
    assert found[1] == Pair("net.body.1.weight", "body.0.weight", "body.1")


def test_layers_of_an_lstm_are_blocks() -> None:
    shapes = {"weight_ih": (16, 4), "weight_hh": (16, 4)}
    model = {f"cell.{kind}_l{layer}": shape for layer in range(3) for kind, shape in shapes.items()}
    source = {f"cell.{kind}_l{layer}": shape for layer in range(2) for kind, shape in shapes.items()}
    assert [pair.source for pair in pairs(model, source) if not pair.block] == [*source]


def test_a_tensor_whose_name_begins_anothers_stays_alone() -> None:
    model = {"scale": (8,), "scale.inner": (8,), "weight": (8, 8)}
    found = pairs(model, {"scale": (4,), "weight": (4, 4)})
    assert [pair.source for pair in found] == ["scale", None, "weight"]
