from __future__ import annotations

from graphs import RELU, linear, transformer

from autoinit.graph import Graph
from autoinit.plans.rules import resolve
from autoinit.recipes.recipe import Recipe


def test_printed_plan_joins_layers_that_are_alike() -> None:
    drawn = str(resolve(Recipe(base="he_normal"), transformer(blocks=12)))
    assert len(drawn.splitlines()) == 13
    assert "block.*.up.weight (12)" in drawn
    assert drawn.splitlines()[-1].startswith("Sets 49 and rescales 0 of 62 parameters")


def test_numbers_that_differ_in_a_reason_are_a_range() -> None:
    layers = [linear(f"{i}.weight", 8, 8, activation=RELU, depth=i) for i in range(4)]
    text = str(resolve(Recipe(base="he_normal", depth_slope=2.0), Graph(tuple(layers))))
    assert "He for relu: std = √2/√8 = 0.5; × 0.5…2 (depth)" in text


def test_only_numbers_that_differ_are_starred() -> None:
    layers = [linear(f"h.{i}.dense_h_to_4h.weight", 8, 8) for i in range(3)]
    assert "h.*.dense_h_to_4h.weight (3)" in str(resolve("he_normal", Graph(tuple(layers))))
