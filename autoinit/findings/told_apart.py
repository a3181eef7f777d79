"""Whether a network tells its inputs apart: whether what its last layer reads differs from row to row of a batch.

Biases keep a layer's outputs apart from each other when nothing of the input is left in them, and the gradient of a
last layer's bias is large then. Only what differs between rows can be learned from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..graph import HEADS, Graph, Layer
from ..probing.rows_apart import inputs_apart, rows_apart
from ..probing.signals import Signals
from ..task.task import Task
from ..text import number
from .along_depth import aside
from .finding import Finding
from .remedies import suited

ALIKE = 5e-3
"""What the last layer reads, between rows, as a share of what the first gives. Of 54 nets trained by SGD, all 18 that
stood at a constant guess after 200 steps lie below it, and 33 of the 36 others above; those three left it late. Chosen
on them, reported on others: benchmarks/probes/stuck.py, docs/results.md."""
SAME = 2e-6
"""The same for Adam and its like, whose steps do not shrink with the gradient: of 23 nets all 5 that stood still lie
below, and 17 of the 18 others above. The stuck ones are few, and the nearest of both kinds lie close together."""


@dataclass(frozen=True, slots=True)
class Course:
    """How far rows are apart where a network begins and where it ends.

    Attributes:
        begins: what gives the first of the two, in words.
        first: between rows there.
        end: the last weight that is not zero.
        last: between rows, in what that weight reads.
    """

    begins: str
    first: float
    end: str
    last: float

    @property
    def share(self) -> float:
        """What is left of it at the end."""
        return self.last / self.first


def told_apart(task: Task, graph: Graph, signals: Signals) -> Iterator[Finding]:
    """Yields that rows are hardly told apart at the end of the network, where they are not."""
    seen = course(task, graph, signals)
    if seen is None or seen.share >= ALIKE:
        return
    lost = seen.share < SAME
    much = f"{number(seen.share, 2)} of it" if seen.share else "nothing is left"
    yield Finding(
        "error" if lost else "note" if task.adapts else "warning",
        f"inputs are hardly told apart: two rows differ by {number(seen.first)} in {seen.begins} and by "
        f"{number(seen.last)} in what {seen.end} reads ({much}); "
        f"{'no usual optimizer moves' if lost else 'SGD hardly moves'} such a net away from a constant guess",
        f"{suited(task.model, graph)}, or add normalization"
        f"{'' if lost else '; Adam and its like get over it in more steps'}",
    )


def course(task: Task, graph: Graph, signals: Signals) -> Course | None:
    """Returns how far rows are apart at both ends; None where that was not seen."""
    apart = rows_apart(task, graph)
    norms = {signal.name: signal.weight_norm for signal in signals.layers}
    trunk = [layer for layer in _trunk(graph, apart) if norms.get(layer.name)]
    if not trunk:
        return None
    end = trunk[-1]
    begins, first = _beginning(task, graph, apart, end)
    if not first:
        return None
    return Course(begins, first, end.name, apart[end.name] / _gain(end, norms[end.name]))


def _trunk(graph: Graph, apart: Mapping[str, float]) -> list[Layer]:
    """Returns the matrices in series outside branches whose products were seen, from the data to the loss."""
    seen = [layer for layer in graph.layers if layer.name in apart and layer.is_matrix and not aside(layer)]
    return sorted((layer for layer in seen if not layer.in_branch), key=lambda layer: layer.depth)


def _beginning(task: Task, graph: Graph, apart: Mapping[str, float], end: Layer) -> tuple[str, float | None]:
    """Returns what gives the first difference between rows, and how large it is.

    The outputs of the first layer that is not the last; in front of what is not seen, as a fused recurrent layer is
    not, a table's; else the data themselves.
    """
    tables = [layer for layer in graph.layers if layer.kind == "embedding" and layer.name in apart]
    first = [layer for layer in _trunk(graph, apart) if layer.depth < end.depth and layer.role not in HEADS]
    for layer in [*first[:1], *tables]:
        return f"the outputs of {layer.name}", apart[layer.name]
    return "the data", inputs_apart(task)


def _gain(layer: Layer, norm: float) -> float:
    """Returns by how much a random matrix of this norm widens what it reads: √fan_in × the values' root mean square."""
    return math.sqrt(max(1, layer.fan_in) / layer.size) * norm * abs(layer.multiplier)
