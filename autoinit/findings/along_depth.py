"""Gradients and signals along the depth of a network: like is compared with like, the first with the last."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from torch import nn

from ..graph import Graph, Layer
from ..probing.signals import LayerSignal, Signals
from ..task.task import Task
from ..text import few, number, numberless
from .finding import Finding, Severity
from .remedies import drawn_anew, suited

VANISHING = 1e-2
"""First layer's gradient as a share of the last's. Healthy deep networks keep within a factor of ten; at a
hundred, PyTorch's default on 15 tanh layers stays at chance under SGD."""
VANISHED = 1e-5
"""Below this share not even an adaptive optimizer recovers: float32 keeps 7 digits."""
EXPLODING = 1e2
"""The same factor the other way round."""
FADING = 5e-3
"""Last hidden output's spread as a share of the first's. Where small weights are why nets stand still for 200 steps of
SGD, it is 0.0018 or less; at 0.013 they train (benchmarks/probes/stuck.py, the nets that thresholds are chosen on)."""
GROWING = 50.0
"""The same factor the other way round: a post-activation network doubles only a few times on purpose."""
NEGLIGIBLE = 1e-6
"""Smallest gradient of a matrix as a share of the largest: at the limit of float32's 7 digits."""
LONG = 3
"""Layers of one kind that show what depth does: between two, it is no trend."""

Value = Callable[[LayerSignal], float | None]

_RECURRENT = ("recurrent", "recurrent_input")
_ASIDE = ("query", "key", "qkv", "embedding", "position", "gate", "router", "lora", *_RECURRENT)
"""Roles whose gradients are small or large by design; they do not show how depth treats a gradient."""


@dataclass(frozen=True, slots=True)
class _Trend:
    """The first and the last of some layers alike, by depth, and the last's value as a share of the first's."""

    first: LayerSignal
    last: LayerSignal
    ratio: float


def along_depth(task: Task, graph: Graph, signals: Signals) -> Iterator[Finding]:
    """Yields what depth does to gradients and to signals."""
    yield from _no_gradient(task.model, graph, signals)
    yield from gradients(task, graph, signals) or _negligible(task.model, graph, signals)
    yield from forward(task, graph, signals)


def aside(layer: Layer) -> bool:
    """Whether a layer's gradients and outputs are small or large by design, and show nothing of what depth does."""
    return layer.role in _ASIDE


def place(layer: Layer) -> tuple[str, str, bool]:
    """Returns what siblings have in common: the name but for numbers, the role, and whether it ends its branch."""
    return numberless(layer.name), layer.role, layer.closes_branch


def _trunk(graph: Graph, signals: Signals, value: Value) -> list[LayerSignal]:
    """Returns the layers in series outside branches, from the data to the loss, where a value was measured."""
    return [s for s in in_order(graph, signals, value) if not graph[s.name].in_branch]


def _trends(graph: Graph, signals: Signals, value: Value) -> list[_Trend]:
    """Returns how a value changes with depth: along the trunk, in a long branch, and among siblings in branches.

    A branch adds to what passes by it: how large its parts are says nothing of what came before, only of its siblings.
    """
    alike: dict[Hashable, list[LayerSignal]] = {"trunk": _trunk(graph, signals, value)}
    for signal in in_order(graph, signals, value):
        layer = graph[signal.name]
        if layer.in_branch:
            alike.setdefault(place(layer), []).append(signal)
            if layer.branch_weights > LONG:
                alike.setdefault(layer.residual_depth, []).append(signal)
    return [
        _Trend(chain[0], chain[-1], (value(chain[-1]) or 0.0) / (value(chain[0]) or 1.0))
        for chain in alike.values()
        if len(chain) >= LONG
    ]


def in_order(graph: Graph, signals: Signals, value: Value) -> list[LayerSignal]:
    """Returns the layers that show what depth does, from the data to the loss, where a value was measured."""
    found = [s for s in signals.layers if graph[s.name].is_matrix and not aside(graph[s.name]) and value(s)]
    return sorted(found, key=lambda s: graph[s.name].depth)


def _no_gradient(model: nn.Module, graph: Graph, signals: Signals) -> Iterator[Finding]:
    """Exactly zero: something multiplies by zero on the way."""
    if signals.grad_norm == 0:
        matrices = [s for s in signals.layers if graph[s.name].is_matrix]
        zeros = [s.name for s in matrices if s.weight_norm == 0] or [s.name for s in matrices]
        yield Finding(
            "error",
            "every gradient is exactly zero, so no step will change anything",
            f"look for zero weights in series, or draw anew: {drawn_anew(model, graph, zeros)}",
        )
        return
    # The first matrix of an adapter waits for one step: the second one starts at zero, on purpose, and has a gradient.
    waits = any(signal.role == "lora" and signal.grad_norm for signal in signals.layers)
    zero = [s.name for s in signals.layers if s.grad_norm == 0 and not (waits and s.role == "lora")]
    if zero:
        yield Finding(
            "warning",
            f"{len(zero)} of {len(signals.layers)} weights get a gradient of exactly zero: {few(zero)}",
            "fine for one step behind a zero-initialized layer; otherwise a layer after them is dead or unused",
        )


def gradients(task: Task, graph: Graph, signals: Signals) -> list[Finding]:
    """Returns whether gradients vanish or explode on their way back.

    An adaptive optimizer gives all layers steps of one size, so that to it a share that is not lost is worth a note.
    """
    trends = [trend for trend in _trends(graph, signals, lambda s: s.grad_norm) if trend.ratio]
    remedy = f"{suited(task.model, graph)}, or let autoinit.select(model, data) choose"
    found = []
    if trends:
        worst = max(trends, key=lambda trend: trend.ratio)
        share = 1 / worst.ratio
        if share < VANISHING:
            severity: Severity = "error" if share < VANISHED else "note" if task.adapts else "warning"
            found.append(Finding(severity, f"gradients vanish: {_said(worst)}", remedy))
        worst = min(trends, key=lambda trend: trend.ratio)
        if 1 / worst.ratio > EXPLODING:
            found.append(Finding("warning", f"gradients explode on their way back: {_said(worst)}", remedy))
    return found


def _said(trend: _Trend) -> str:
    return f"{trend.first.name} gets {number(1 / trend.ratio, 2)} of what {trend.last.name} gets"


def _negligible(model: nn.Module, graph: Graph, signals: Signals) -> Iterator[Finding]:
    """Gradients that get lost where depth is no chain of layers: along the steps of a recurrent one."""
    shown = [s for s in signals.layers if s.role not in _ASIDE or s.role in _RECURRENT]
    shown = [s for s in shown if graph[s.name].is_matrix and s.grad_norm]
    if not shown:
        return
    least, most = (choose(shown, key=lambda s: s.grad_norm or 0.0) for choose in (min, max))
    ratio = (least.grad_norm or 0.0) / (most.grad_norm or 1.0)
    if ratio < NEGLIGIBLE:
        yield Finding(
            "warning",
            f"gradients are lost: {least.name} gets {number(ratio, 2)} of what {most.name} gets",
            f"{suited(model, graph)}, or let autoinit.select(model, data) choose",
        )


def forward(task: Task, graph: Graph, signals: Signals) -> list[Finding]:
    """Returns whether outputs fade or grow with depth; a head is small on purpose.

    Of outputs that fade gradients are small as well, which an adaptive optimizer makes up for.
    """
    trends = _trends(graph, signals, lambda s: None if s.role == "output" else s.forward_std)
    found = []
    for said, worst in (
        ("fade", min(trends, key=lambda trend: trend.ratio, default=None)),
        ("grow", max(trends, key=lambda trend: trend.ratio, default=None)),
    ):
        if worst is not None and (worst.ratio < FADING if said == "fade" else worst.ratio > GROWING):
            first, last = worst.first, worst.last
            spread = f"{number(first.forward_std)} in {first.name}, {number(last.forward_std)} in {last.name}"
            severity: Severity = "note" if task.adapts and said == "fade" else "warning"
            text = f"signals {said} with depth: outputs spread by {spread}"
            found.append(Finding(severity, text, suited(task.model, graph)))
    return found
