"""What the axes of each architecture count."""

from __future__ import annotations

import pytest
from grown import Pair, fresh

from autoinit.growth.mapping import Factor
from autoinit.growth.norms import norms
from autoinit.growth.units import Units


def _units(pair: Pair) -> Units:
    before, after = (
        {name: tuple(value.shape) for name, value in net.state_dict().items()} for net in (pair.source, pair.model)
    )
    twin = {name: name for name in after if name in before}
    shapes = {name: (before[name], after[name]) for name in twin}
    return Units(pair.graph, shapes, twin, pair.source_graph, norms(pair.model, pair.graph))


def _lengths(pair: Pair, name: str) -> list[list[tuple[tuple[int, int], ...]]]:
    axes = _units(pair).axes(name)
    return [[tuple((one.before, one.after) for one in part.factors) for part in axis.segments] for axis in axes]


@pytest.mark.parametrize(
    ("pair", "name", "lengths"),
    [
        ("mlp, relu", "2.weight", [[((8, 16),)], [((8, 16),)]]),
        ("mlp, relu", "4.weight", [[((3, 3),)], [((8, 16),)]]),
        ("cnn", "7.weight", [[((16, 32),)], [((8, 16), (16, 16))]]),
        ("cnn", "4.running_var", [[((8, 16),)]]),
        ("lstm", "cell.weight_hh_l0", [[((8, 16),)] * 4, [((8, 16),)]]),
        ("lstm, both ways", "cell.weight_ih_l1", [[((8, 16),)] * 4, [((2, 2), (8, 16))]]),
        ("gru", "cell.bias_ih_l0", [[((8, 16),)] * 3]),
        ("encoder, flattened", "head.weight", [[((3, 3),)], [((6, 6), (16, 32))]]),
        ("gpt2", "transformer.h.0.attn.c_attn.bias", [[((2, 4), (1, 1), (8, 8)), ((2, 4), (8, 8)), ((2, 4), (8, 8))]]),
        ("llama", "model.layers.0.self_attn.o_proj.weight", [[((16, 32),)], [((2, 4), (2, 2), (4, 4))]]),
        ("neox", "gpt_neox.layers.0.attention.query_key_value.bias", [[((2, 4), (1, 1), (3, 3), (8, 8))]]),
        ("more groups", "3.weight", [[((2, 4), (4, 4))], [((2, 2),)], [((3, 3),)], [((3, 3),)]]),
        ("more groups", "1.weight", [[((2, 4), (2, 2))]]),
        ("larger groups", "3.weight", [[((2, 2), (4, 8))], [((2, 4),)], [((3, 3),)], [((3, 3),)]]),
        ("depthwise", "6.weight", [[((8, 16), (2, 2))], [((1, 1),)], [((3, 3),)], [((3, 3),)]]),
    ],
)
def test_axes_of_a_tensor(pair: str, name: str, lengths: list[list[tuple[tuple[int, int], ...]]]) -> None:
    assert _lengths(fresh(pair), name) == lengths


def test_rows_of_a_table_and_kernels_are_no_units() -> None:
    pair = fresh("gpt2")
    assert [axis.kind for axis in _units(pair).axes("transformer.wte.weight")] == ["rows", "out"]
    assert [axis.kind for axis in _units(fresh("cnn")).axes("0.weight")] == ["out", "in", "fixed", "fixed"]


def test_queries_are_contracted_and_values_are_not() -> None:
    (axis,) = _units(fresh("gpt2")).axes("transformer.h.0.attn.c_attn.bias")
    assert [segment.contracted for segment in axis.segments] == [True, False, False]


def test_joined_streams_are_named_and_positions_are_not() -> None:
    units = _units(fresh("joined"))
    axes = units.axes("both.weight")
    assert axes[1].segments[0].factors == (Factor(12, 24),)
    assert units.joined == ["both.weight"]
    units = _units(fresh("cnn"))
    units.axes("7.weight")
    assert not units.joined
