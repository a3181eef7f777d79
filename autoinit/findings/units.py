"""Units that pass no gradient, or next to none: dead and saturated ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from ..graph import Graph
from ..probing.signals import LayerSignal, Signals
from ..text import percent
from .finding import Finding
from .remedies import HE, recipe

DEAD = 0.5
"""Share of dead units in a layer; a third is common in narrow deep ReLU layers that still train well."""
SATURATED = 0.3
"""Share of saturated values; standard normal inputs saturate 3 % of a tanh's."""


def units(model: nn.Module, graph: Graph, signals: Signals) -> Iterator[Finding]:
    """Yields the layer with the most dead, and the one with the most saturated units."""
    dead = [s for s in signals.layers if s.dead is not None and s.dead > DEAD]
    if dead:
        worst = max(dead, key=lambda s: s.dead or 0.0)
        yield Finding(
            "error" if worst.dead == 1 else "warning",
            f"dead units: {percent(worst.dead or 0.0)} of {worst.name}'s pass no gradient for any row of the batch"
            f"{_others(dead)}",
            f"{recipe(HE, model, graph, _names(dead))}; look at large negative biases and unscaled inputs",
        )
    flat = [s for s in signals.layers if s.saturated is not None and s.saturated > SATURATED]
    if flat:
        worst = max(flat, key=lambda s: s.saturated or 0.0)
        call = recipe("xavier_normal", model, graph, _names(flat))
        yield Finding(
            "warning",
            f"saturated units: {percent(worst.saturated or 0.0)} of {worst.name}'s outputs lie where its activation "
            f"is flat{_others(flat)}",
            f"smaller weights: {call}; scale inputs to mean 0 and variance 1",
        )


def _names(layers: Sequence[LayerSignal]) -> list[str]:
    return [layer.name for layer in layers]


def _others(layers: Sequence[LayerSignal]) -> str:
    return f" ({len(layers)} layers like it)" if len(layers) > 1 else ""
