"""Heads of two networks, read from what a step shows of each."""

from __future__ import annotations

import pytest
from grown import Pair, fresh

from autoinit.growth.attention import Attention, attentions


def _read(pair: Pair, *, told: bool = True) -> Attention:
    shapes = {name: value.shape for name, value in pair.source.state_dict().items()}
    twin = {name: name for name in pair.graph if name in shapes}

    def widths(layer, axis):  # type: ignore[no-untyped-def]
        return shapes[layer.name][axis], layer.shape[axis]

    found = attentions(pair.graph, pair.source_graph if told else None, twin, widths)
    assert found
    return next(iter(found.values()))


@pytest.mark.parametrize(
    ("name", "kv", "group", "size", "fused"),
    [
        ("gpt2", (2, 4), (1, 1), (8, 8), "blocks"),
        ("gpt2, larger heads", (2, 2), (1, 1), (8, 16), "blocks"),
        ("llama", (2, 4), (2, 2), (4, 4), ""),
        ("llama, more queries", (2, 2), (2, 4), (4, 4), ""),
        ("llama, keys for each query", (2, 8), (2, 1), (4, 4), ""),
        ("phi3", (2, 4), (2, 2), (4, 4), "blocks"),
        ("neox", (2, 4), (1, 1), (8, 8), "turns"),
        ("bert", (2, 4), (1, 1), (8, 8), ""),
        ("encoder, pre-norm", (2, 4), (1, 1), (8, 8), "blocks"),
    ],
)
def test_heads_of_an_architecture(
    name: str, kv: tuple[int, int], group: tuple[int, int], size: tuple[int, int], fused: str
) -> None:
    found = _read(fresh(name))
    assert [(one.before, one.after) for one in (found.kv, found.group, found.size)] == [kv, group, size]
    assert found.fused == fused
    assert found.known


def test_heads_are_of_the_models_size_where_nobody_tells() -> None:
    found = _read(fresh("gpt2"), told=False)
    assert (found.kv.before, found.size.before, found.known) == (2, 8, False)
    found = _read(fresh("gpt2, larger heads"), told=False)
    assert (found.kv.before, found.size.before, found.known) == (1, 16, False)
