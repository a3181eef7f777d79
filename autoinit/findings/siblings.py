"""Matrices and scales of normalizations that stand out among siblings: those of the same place in other blocks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from ..graph import Graph, Layer
from ..probing.signals import Signals
from ..task.assign import read
from ..task.origins import setting_call
from ..text import number
from ..tracing.choices import STILL
from .along_depth import place
from .finding import Finding

APART = 10.0
"""Times its siblings' gain, or the other way round: depth rules and trained weights keep within a few times."""

FAR_APART = 30.0
"""Times its siblings' for a norm's scale that has been trained: trained ones differ by ten and more, and small ones
are how a network switches a block off."""

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
                yield _finding(model, graph[name], gains[name], middle, len(names) - 1)


@dataclass(frozen=True, slots=True)
class _Scale:
    """What a normalization multiplies with: the root mean square over its channels, and whether it is one number."""

    size: float
    uniform: bool


def norm_siblings(model: nn.Module, graph: Graph) -> Iterator[Finding]:
    """Yields the scales of normalizations that are far from their siblings', where these are the larger part.

    As they are made, scales are one number throughout, mostly 1. Where most of the siblings still are, their values
    were chosen; else they have been trained, and differ more.
    """
    groups: dict[tuple[str, str, bool], dict[str, _Scale]] = {}
    for layer in graph.layers:
        if layer.role == "norm_scale" and (not layer.keep or layer.keep in STILL):
            scale = _scale(model, layer)
            if scale.size:  # one of zero switches its branch off on purpose
                groups.setdefault(place(layer), {})[layer.name] = scale
    for scales in groups.values():
        middle = _middle([scale.size for scale in scales.values()], 1.0)
        chosen = sum(scale.uniform for scale in scales.values()) * 2 >= len(scales)
        least, most = (1 / APART, APART) if chosen else (0.0, FAR_APART)
        apart = [name for name, scale in scales.items() if not least < scale.size / middle < most]
        if len(apart) * 2 < len(scales) or len(scales) == 2:
            for name in apart:
                yield _norm_finding(model, graph[name], scales[name].size, middle, len(scales) - 1)


def _scale(model: nn.Module, layer: Layer) -> _Scale:
    values = read(model, layer.name).detach().flatten().double() * layer.multiplier + layer.offset
    return _Scale(values.square().mean().sqrt().item(), bool((values == values[0]).all()))


def _norm_finding(model: nn.Module, layer: Layer, size: float, middle: float, others: int) -> Finding:
    usual = number((middle - layer.offset) / layer.multiplier)
    remedy = setting_call(model, layer.name, "constant_", usual)
    return Finding(
        "warning",
        f"{layer.name} stands out among norms alike: it scales by {number(size)}, {_compared(size, middle, others)}",
        f"set it as they are: {remedy}",
    )


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


def _finding(model: nn.Module, layer: Layer, gain: float, middle: float, others: int) -> Finding:
    spread, usual = gain / _fan(layer), middle / _fan(layer)
    remedy = setting_call(model, layer.name, "normal_", f"std={number(usual)}")
    return Finding(
        "warning",
        f"{layer.name} stands out among layers alike: its values have a root mean square of {number(spread)}, "
        f"{_compared(gain, middle, others)}",
        f"draw it as they are: {remedy}",
    )


def _compared(value: float, middle: float, others: int) -> str:
    times = f"{number(value / middle, 2)} times" if value > middle else f"1/{number(middle / value, 2)}"
    return f"{times} that of {f'its {others} siblings' if others > 1 else 'its sibling'}"
