"""What is not finite: weights and buffers that hold NaN, and outputs that grow beyond what a number can hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from ..graph import Graph
from ..probing.signals import Signals
from ..task.assign import derived_name
from ..task.origins import is_statistic
from ..text import few, number
from . import remedies
from .finding import Finding, Severity


@dataclass(frozen=True, slots=True)
class _Bad:
    """A tensor of the model with values that are not finite."""

    name: str
    count: int
    size: int
    said: str = ""


def broken(model: nn.Module, graph: Graph, signals: Signals) -> list[Finding]:
    """Returns what is not finite, each with what sets it anew."""
    whole = is_finite(signals)
    found = [*_parameters(model, graph), *_buffers(model, graph, whole)]
    if not whole and not found:
        found = [_outputs(model, graph, signals)]
    return found


def is_finite(signals: Signals) -> bool:
    """Returns whether all that was measured is: else no comparison means anything."""
    outputs = all(s.forward_std is None or math.isfinite(s.forward_std) for s in signals.layers)
    return outputs and math.isfinite(signals.loss) and math.isfinite(signals.grad_norm)


def _parameters(model: nn.Module, graph: Graph) -> Iterator[Finding]:
    """Yields the parameters that a recipe draws together, and each other one with what sets it."""
    bad = [_bad(name, parameter, ~parameter.detach().isfinite()) for name, parameter in model.named_parameters()]
    found = [one for one in bad if one is not None]
    drawn = [one for one in found if remedies.is_drawn(model, graph, derived_name(one.name))]
    if drawn:
        yield _finding(drawn, f"look for where it was set, or draw anew: {remedies.plainly(remedies.HE)}")
    by_remedy: dict[str, list[_Bad]] = {}
    for one in found:
        if one not in drawn:
            by_remedy.setdefault(remedies.set_anew(model, graph, one.name), []).append(one)
    for remedy, ones in by_remedy.items():
        yield _finding(ones, f"look for where it was set, or set it anew: {remedy}")


def _buffers(model: nn.Module, graph: Graph, whole: bool) -> Iterator[Finding]:
    """Yields buffers with NaN, and those with inf that may be why the pass is not finite; masks hold -inf.

    Args:
        model: whose buffers are looked at.
        graph: of the model.
        whole: whether the pass was finite, so that they did no harm in training mode.
    """
    for name, buffer in model.named_buffers():
        if not (buffer.is_floating_point() or buffer.is_complex()):
            continue
        wrong = buffer.isnan() if whole else buffer.isnan() | (buffer == math.inf)
        if bad := _bad(name, buffer, wrong, ", a buffer,"):
            harmless = whole and not is_statistic(model, name)
            remedy = f"look for where it was set, or set it anew: {remedies.set_anew(model, graph, name)}"
            yield _finding([bad], remedy, "note" if harmless else "error")


def _bad(name: str, tensor: Tensor, wrong: Tensor, said: str = "") -> _Bad | None:
    count = 0 if tensor.is_meta else int(wrong.sum())
    return _Bad(name, count, tensor.numel(), said) if count else None


def _finding(bad: list[_Bad], remedy: str, severity: Severity = "error") -> Finding:
    first, others = bad[0], [one.name for one in bad[1:]]
    also = f", and so {'does' if len(others) == 1 else 'do'} {few(others)}" if others else ""
    text = f"{first.name}{first.said} itself holds NaN or inf ({first.count} of {first.size} values){also}"
    return Finding(severity, text, remedy)


def _outputs(model: nn.Module, graph: Graph, signals: Signals) -> Finding:
    wild = [s.name for s in signals.layers if s.forward_std is not None and not math.isfinite(s.forward_std)]
    where = f"; the first output that is not finite is {wild[0]}'s" if wild else ""
    return Finding(
        "error",
        f"the loss is {number(signals.loss)} and the gradient norm {number(signals.grad_norm)}{where}",
        f"the weights are too large for this depth: {remedies.recipe(remedies.HE, model, graph)}",
    )
