"""What is wrong with a model's initial weights, in plain language, and what would mend it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .findings.along_depth import along_depth
from .findings.broken import broken, is_finite
from .findings.finding import SEVERITIES, Finding
from .findings.first_loss import first_loss, halves
from .findings.siblings import norm_siblings, siblings
from .findings.symmetry import symmetry
from .findings.table_rows import table_rows
from .findings.told_apart import told_apart
from .findings.units import units
from .graph import Graph
from .inheritance.checkpoints import Source
from .inheritance.trained import with_trained
from .jsonfile import finite
from .probing.signals import Signals, measure
from .screen import chart, markup
from .screen.columns import Column, table, wrapped
from .task.task import Task, measured_task
from .text import few, number, percent
from .tracing.tracing import trace_task


@dataclass(frozen=True, slots=True, repr=False)
class Diagnosis:
    """The signals of a model as it is, with findings.

    `autoinit.diagnose` returns it. Print it for a row of each weight and for the findings with their remedies; ask
    `healthy` whether anything is wrong, for example in a test of your own; write it with `to_json`, or as a page with
    `autoinit.report`.

    Attributes:
        signals: what was measured: the loss, the gradient's norm, how far the halves of the batch agree, and of each
            weight the outputs and gradients.
        graph: the architecture as it was read.
        findings: what stands out, the gravest first; empty where all is healthy.
        reference: loss of the best constant predictor (entropy of the labels, variance of the targets); None where it
            is unknown.
    """

    signals: Signals
    graph: Graph
    findings: tuple[Finding, ...]
    reference: float | None = None

    @property
    def healthy(self) -> bool:
        """Whether nothing worse than a note was found."""
        return all(finding.severity == "note" for finding in self.findings)

    def to_json(self) -> str:
        """Returns signals and findings as JSON; what is not finite is null."""
        data = {
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "signals": dataclasses.asdict(self.signals),
            "reference": self.reference,
            "healthy": self.healthy,
        }
        return json.dumps(finite(data), ensure_ascii=False, indent=2)

    def __str__(self) -> str:
        return f"{wrapped(_summary(self))}\n\n{table(_COLUMNS, _layer_rows(self))}\n\n{_findings_text(self)}"

    def __repr__(self) -> str:
        return f"<Diagnosis: {_verdict(self)}; {_summary(self)[:-1]}>"

    def _repr_html_(self) -> str:
        layers = self.signals.layers
        outputs = [(place, one.forward_std) for place, one in enumerate(layers) if one.forward_std is not None]
        gradients = [(place, one.grad_norm) for place, one in enumerate(layers) if one.grad_norm is not None]
        series = [chart.Series("gradient", gradients), chart.Series("output std", outputs)]
        return markup.page(
            _verdict(self),
            markup.facts([("", _summary(self)), *(("", line) for line in _findings_text(self).splitlines())]),
            chart.lines(series, "weight, from the input on", "size", logarithmic=True),
            markup.folded("Every weight", markup.table(_COLUMNS, _layer_rows(self))),
        )


def diagnose(
    model: nn.Module,
    data: Any,
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    step: Callable[[nn.Module, Any], Tensor] | None = None,
    optimizer: Any = None,
    checkpoint: Source | None = None,
) -> Diagnosis:
    """Returns how signals and gradients pass through the model as it is, and what stands out.

    One batch is sent forward and backward through the model, and once more in halves. Of each weight the spread of its
    outputs, the size of its gradient, and the shares of dead and of saturated units are measured, and compared with
    what healthy networks have: vanishing or exploding gradients, signals that fade, inputs that the last layer can
    hardly tell apart, units that start equal, a matrix, a norm's scale or a row far larger than its siblings, a first
    loss far above that of the best constant guess, weights or buffers that hold NaN.

    It takes as long as a few training steps. Nothing is trained, and the model and every random state are left as they
    were: what it finds, `apply_` or `select` mend.

    Args:
        model: This module is looked at as it is, freshly drawn or trained; one parameter at least is trainable.
        data: The batch is taken from this, of the kinds that `select` takes: a DataLoader, a Dataset, (X, y) with X of
            shape (rows, …) and y of shape (rows,) or (rows, …), any iterable of batches, or one batch. A few batches
            more may be read for their targets, which tell the best constant guess.
        loss: This callable (output, target) -> scalar tensor is the loss. None means that it is inferred, as in
            `select`.
        step: This callable (model, batch) -> scalar takes the place of `loss`, for whatever else trains by one loss.
        optimizer: The model will be trained with this: a callable (params) -> Optimizer, or an existing one, which is
            left alone. Only its kind counts: what holds up SGD is a note for Adam and its like, whose steps have one
            size whatever the gradient's. None means that it is not known, and what would hold up SGD is a warning.
        checkpoint: The model holds trained weights of this, of the kinds that `select` takes: the graph of the answer
            tells what is trained, and what is new. None means that none is known.

    Returns:
        A `Diagnosis`. Print it for a row of each weight and the findings with their remedies; `healthy` is false where
        one of them is a warning or an error.

    Raises:
        DataError: The data are empty, hold NaN or infinity, have labels out of range, or the model rejects them.
        ModelError: Nothing is trainable, no gradient arrives, or the model is on the meta device.
        StepError: The loss or the step cannot be called or returns no scalar, or the step trains the model itself.
        OptimizerError: The optimizer is none and makes none.
        SourceError: The checkpoint cannot be read, or is of another architecture.

    Example:
        >>> import autoinit, torch
        >>> from sklearn.datasets import load_digits
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> pixels, labels = load_digits(return_X_y=True)
        >>> hidden = [nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(14)]
        >>> model = nn.Sequential(*hidden, nn.Linear(64, 10))
        >>> diagnosis = autoinit.diagnose(model, (pixels / 16, labels))
        >>> diagnosis.healthy
        False
        >>> print(diagnosis.findings[0])
        warning: gradients vanish: 0.0.weight gets 0.00... of what 14.weight gets
            → try autoinit.apply_(model, 'orthogonal', data), or let autoinit.select(model, data) choose
        >>> print(diagnosis.findings[1].text)
        inputs are hardly told apart: two rows differ by 0.1... in the outputs of 0.0.weight and by ... in what
        14.weight reads (0.000... of it); SGD hardly moves such a net away from a constant guess
    """
    task = measured_task(model, data, loss=loss, step=step, optimizer=optimizer)
    graph = with_trained(task.model, trace_task(task), checkpoint)
    signals = measure(task, graph)
    return Diagnosis(signals, graph, find(task, graph, signals), task.reference)


def find(task: Task, graph: Graph, signals: Signals) -> tuple[Finding, ...]:
    """Returns what stands out in some signals, the gravest first."""
    found = broken(task.model, graph, signals)
    if is_finite(signals):
        found += [
            *symmetry(task, graph),
            *along_depth(task, graph, signals),
            *told_apart(task, graph, signals),
            *siblings(task.model, graph, signals),
            *norm_siblings(task.model, graph),
            *table_rows(task.model, graph),
            *units(task.model, graph, signals),
            *first_loss(task, graph, signals),
            *halves(task, signals),
        ]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def _summary(diagnosis: Diagnosis) -> str:
    signals = diagnosis.signals
    best = f", best constant guess {number(diagnosis.reference)}" if diagnosis.reference is not None else ""
    return (
        f"Loss {number(signals.loss, 4)}{best}; gradient norm {number(signals.grad_norm)}; "
        f"agreement of half batches {number(signals.agreement, 2)}."
    )


_COLUMNS = (
    Column("weight", least=20, cut="middle"),
    Column("role", rank=3),
    Column("activation", rank=4),
    Column("output mean", ">", rank=5),
    Column("std", ">"),
    Column("gradient", ">"),
    Column("dead", ">", rank=1),
    Column("saturated", ">", rank=2),
)


def _verdict(diagnosis: Diagnosis) -> str:
    """Returns the findings' numbers in a few words."""
    counts = {name: sum(one.severity == name for one in diagnosis.findings) for name in SEVERITIES}
    found = ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count)
    return found or "nothing stands out"


def _layer_rows(diagnosis: Diagnosis) -> list[tuple[str, ...]]:
    return [
        (
            signal.name,
            signal.role,
            str(diagnosis.graph[signal.name].activation),
            number(signal.forward_mean, 2),
            number(signal.forward_std),
            number(signal.grad_norm),
            _share(signal.dead),
            _share(signal.saturated),
        )
        for signal in diagnosis.signals.layers
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _findings_text(diagnosis: Diagnosis) -> str:
    """Returns the findings, and what nothing was found in only because it was not measured."""
    gaps = list(_not_measured(diagnosis))
    lines = [wrapped(line, "    ") for finding in diagnosis.findings for line in str(finding).splitlines()]
    if not lines:
        healthy = "Healthy: signals and gradients keep their size, and the loss starts where it should."
        lines = ["Nothing stands out." if gaps else wrapped(healthy)]
    return "\n".join([*lines, *map(wrapped, gaps)])


def _not_measured(diagnosis: Diagnosis) -> Iterator[str]:
    signals = diagnosis.signals.layers
    if outputs := [s.name for s in signals if s.forward_mean is None]:
        yield f"Not measured: outputs of {few(outputs)}."
    units = [
        s.name
        for s in signals
        if s.forward_mean is not None and s.dead is None and diagnosis.graph[s.name].activation.name != "linear"
    ]
    if units:
        yield f"Not measured: dead and saturated units of {few(units)}."
    if diagnosis.reference is None:
        yield "Not measured: the best constant guess of this loss, to compare its start with."
