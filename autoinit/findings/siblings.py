"""Matrices that stand out among their siblings: those of the same place in other blocks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from torch import nn

from ..graph import Graph, Layer
from ..probing.signals import Signals
from ..task.origins import parameter_call
from ..text import number
from .along_depth import place
from .finding import Finding
from .remedies import HE, recipe

APART = 10.0
"""Times its siblings' gain, or the other way round: depth rules and trained weights keep within a few times."""

_STARTS_ANYHOW = ("output", "lora", "recurrent")
"""Roles of which one may start far below another on purpose (a policy's head beside a critic's)."""


def siblings(model: nn.Module, graph: Graph, signals: Signals) -> Iterator[Finding]:
    """Yields the matrices whose gain, √fan_in × the root mean square of their values, is far from their siblings'."""
    gains = _gains(graph, signals)
    typical = statistics.median(gains.values()) if gains else 1.0
    groups: dict[tuple[str, str, bool], list[str]] = {}
    for name in gains:
        groups.setdefault(place(graph[name]), []).append(name)
    for names in groups.values():
        middle = _middle([gains[name] for name in names], typical)
        for name in names:
            if len(names) > 1 and not 1 / APART < gains[name] / middle < APART:
                yield _finding(graph[name], gains[name], middle, len(names) - 1)


def _gains(graph: Graph, signals: Signals) -> dict[str, float]:
    shown = [s for s in signals.layers if graph[s.name].is_matrix and s.role not in _STARTS_ANYHOW]
    return {s.name: s.weight_norm / math.sqrt(graph[s.name].size) * _fan(graph[s.name]) for s in shown if s.weight_norm}


def _fan(layer: Layer) -> float:
    return math.sqrt(max(1, layer.fan_in))


def _middle(gains: list[float], typical: float) -> float:
    """Returns the median; of two, the one that is nearer to what this network's matrices have."""
    if len(gains) == 2:
        return min(gains, key=lambda gain: abs(math.log(gain / typical)))
    return statistics.median(gains)


def _finding(layer: Layer, gain: float, middle: float, others: int) -> Finding:
    spread, usual = gain / _fan(layer), middle / _fan(layer)
    times = f"{number(gain / middle, 2)} times" if gain > middle else f"1/{number(middle / gain, 2)}"
    whose = f"its {others} siblings" if others > 1 else "its sibling"
    remedy = recipe(HE) if layer.parametrized else f"nn.init.normal_({parameter_call(layer.name)}, std={number(usual)})"
    return Finding(
        "warning",
        f"{layer.name} stands out among layers alike: its values have a root mean square of {number(spread)}, {times} "
        f"that of {whose}",
        f"draw it as they are: {remedy}",
    )
