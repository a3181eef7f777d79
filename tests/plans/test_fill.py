from __future__ import annotations

import pytest
from graphs import linear, transformer

from autoinit.graph import Layer
from autoinit.plans.fill import constant, kept, make

CONV = Layer(
    name="conv",
    shape=(8, 2, 3, 3),
    kind="conv",
    role="hidden",
    fan_in=18,
    fan_out=36,
    out_axes=(0,),
    in_axes=(1, 2, 3),
    groups=4,
)


@pytest.mark.parametrize("layer", [CONV, linear("w", 3, 4), *transformer().layers], ids=lambda layer: layer.name)
def test_a_fill_carries_the_geometry_of_its_layer(layer: Layer) -> None:
    for fill in (make(layer, "normal", "why", std=0.5), kept(layer, "why"), constant(layer, (0.0,), "why")):
        assert (fill.name, fill.shape, fill.role, fill.reason) == (layer.name, layer.shape, layer.role, "why")
        assert (fill.out_axes, fill.in_axes, fill.kernel_axes) == (layer.out_axes, layer.in_axes, layer.kernel_axes)
        assert (fill.groups, fill.slices, fill.heads) == (layer.groups, layer.slices, max(1, layer.heads))


def test_kernel_axes_are_those_of_the_taps() -> None:
    assert make(CONV, "delta_orthogonal", "why", std=1.0).kernel_axes == (2, 3)
    assert make(linear("w", 3, 4), "normal", "why", std=1.0).kernel_axes == ()


def test_what_is_kept_is_untouched_unless_it_is_rescaled() -> None:
    assert kept(CONV, "why").untouched
    assert not make(CONV, "keep", "why", factor=0.5).untouched
    assert not make(CONV, "keep", "why", slice_factors=(1.0, 2.0)).untouched
    assert not constant(CONV, (0.0,), "why").untouched


def test_a_constant_has_no_spread() -> None:
    fill = constant(CONV, (1.0, 2.0), "why")
    assert (fill.distribution, fill.std, fill.values) == ("constant", 0.0, (1.0, 2.0))
