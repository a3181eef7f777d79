"""What is wrong with a model's initial weights, in plain language, and what would mend it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .graph import Graph, Layer
from .jsonfile import finite
from .probing.signals import LayerSignal, Signals, measure
from .task.assign import read
from .task.batches import tensors
from .task.checks import not_finite
from .task.losses import split, targets
from .task.task import Task, make_task
from .text import few, number, percent, table
from .tracing.tracing import trace_task

Severity = Literal["error", "warning", "note"]
"""error: it will hardly train; warning: it trains worse than it could; note: good to know."""

VANISHING = 1e-2
"""First layer's gradient as a share of the last's. Healthy deep networks keep within a factor of ten; at a
hundred, PyTorch's default on 15 tanh layers stays at chance under SGD."""
VANISHED = 1e-5
"""Below this share not even an adaptive optimizer recovers: float32 keeps 7 digits."""
EXPLODING = 1e2
"""The same factor the other way round."""
FADING = 2e-2
"""Last hidden output's spread as a share of the first's: the classes differ by less than a step moves them."""
GROWING = 50.0
"""The same factor the other way round: a post-activation network doubles only a few times on purpose."""
DEAD = 0.5
"""Share of dead units in a layer; a third is common in narrow deep ReLU layers that still train well."""
SATURATED = 0.3
"""Share of saturated values; standard normal inputs saturate 3 % of a tanh's."""
HIGH_LOSS = 1.5
"""Times the best constant predictor's loss: the first steps only unlearn the initial guess."""
VERY_HIGH_LOSS = 10.0
"""Times the best constant predictor's loss: the search refuses such a start, too."""
WIDE = 20.0
"""Spread of the first layer's output: of inputs with variance 1, PyTorch's default makes 0.6 and he_normal 1.4."""
LARGE_INPUT = 5.0
"""Root mean square of inputs that nobody has scaled: bytes, years, prices."""
NEGLIGIBLE = 1e-6
"""Smallest gradient of a matrix as a share of the largest: at the limit of float32's 7 digits."""
DISAGREEMENT = -0.1
"""Cosine of two half-batch gradients: pure noise lies around 0; below this the halves pull against each other."""

_RECURRENT = ("recurrent", "recurrent_input")
_ASIDE = ("query", "key", "qkv", "embedding", "position", "gate", "router", "lora", *_RECURRENT)
"""Roles whose gradients are small or large by design; they do not show how depth treats a gradient."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was found, and its remedy.

    `autoinit.diagnose` makes them, in the `findings` of its answer; printed, one is a line with what was measured, and
    a line with what to do about it, often a call that can be pasted.

    Attributes:
        severity: how much it matters: "error" (the model will hardly train), "warning" (it trains worse than it could)
            or "note" (good to know).
        text: what was measured, with numbers.
        remedy: what would mend it.
    """

    severity: Severity
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}\n    → {self.remedy}"


@dataclass(frozen=True, slots=True)
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
        return f"{_summary(self)}\n\n{_layers_table(self)}\n\n{_findings_text(self)}"


def diagnose(
    model: nn.Module,
    data: Any,
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    step: Callable[[nn.Module, Any], Tensor] | None = None,
) -> Diagnosis:
    """Returns how signals and gradients pass through the model as it is, and what stands out.

    One batch is sent forward and backward through the model, and once more in halves. Of each weight the spread of its
    outputs, the size of its gradient, and the shares of dead and of saturated units are measured, and compared with
    what healthy networks have: vanishing or exploding gradients, signals that fade, units that start equal, a first
    loss far above that of the best constant guess, weights that hold NaN.

    It takes as long as a few training steps. Nothing is trained, and the model and every random state are left as they
    were: what it finds, `apply_` or `select` mend.

    Args:
        model: This module is looked at as it is, freshly drawn or trained; one parameter at least is trainable.
        data: The batch is taken from this, of the kinds that `select` takes: a DataLoader, a Dataset, (X, y) with X of
            shape (rows, …) and y of shape (rows,) or (rows, …), or any iterable of batches, two at least.
        loss: This callable (output, target) -> scalar tensor is the loss. None means that it is inferred, as in
            `select`.
        step: This callable (model, batch) -> scalar takes the place of `loss`, for whatever else trains by one loss.

    Returns:
        A `Diagnosis`. Print it for a row of each weight and the findings with their remedies; `healthy` is false where
        one of them is a warning or an error.

    Raises:
        DataError: The data are empty or one batch, hold NaN or infinity, have labels out of range, or the model rejects
            them.
        ModelError: Nothing is trainable, no gradient arrives, or the model is on the meta device.
        StepError: The loss or the step cannot be called, or returns no scalar.

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
        >>> for finding in diagnosis.findings:
        ...     print(finding)
        warning: gradients vanish: 0.0.weight gets 0.00... of what 14.weight gets
            → try autoinit.apply_(model, 'orthogonal', data), or let autoinit.select(model, data) choose
    """
    task = make_task(model, data, loss=loss, step=step, finite=False)
    graph = trace_task(task)
    signals = measure(task, graph)
    return Diagnosis(signals, graph, find(task, graph, signals), task.reference)


def find(task: Task, graph: Graph, signals: Signals) -> tuple[Finding, ...]:
    """Returns what stands out in some signals, the gravest first."""
    if wild := list(_broken_weights(task.model)) or list(_not_finite(signals)):
        return tuple(wild)
    found = [
        *_symmetry(task, graph),
        *_no_gradient(signals),
        *_depth(graph, signals),
        *_negligible(graph, signals),
        *_forward(graph, signals),
        *_units(signals),
        *_loss(task, graph, signals),
        *_halves(signals),
    ]
    order = ("error", "warning", "note")
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def _broken_weights(model: nn.Module) -> Iterator[Finding]:
    bad = not_finite(model)
    if not bad:
        return
    others = f", and so {'does' if len(bad) == 2 else 'do'} {few([name for name, _, _ in bad[1:]])}" if bad[1:] else ""
    yield Finding(
        "error",
        f"{bad[0][0]} itself holds NaN or inf ({bad[0][1]} of {bad[0][2]} values){others}",
        f"look for where it was set, or draw anew: {_recipe('he_normal')}",
    )


def _not_finite(signals: Signals) -> Iterator[Finding]:
    wild = [s.name for s in signals.layers if s.forward_std is not None and not math.isfinite(s.forward_std)]
    where = f"; the first output that is not finite is {wild[0]}'s" if wild else ""
    if math.isfinite(signals.loss) and math.isfinite(signals.grad_norm) and not wild:
        return
    yield Finding(
        "error",
        f"the loss is {number(signals.loss)} and the gradient norm {number(signals.grad_norm)}{where}",
        f"the weights are too large for this depth: {_recipe('he_normal')}",
    )


def _symmetry(task: Task, graph: Graph) -> Iterator[Finding]:
    """Units that start equal stay equal: they get the same gradient."""
    equal = [layer.name for layer in graph.weights if layer.size > 1 and _is_constant(task.model, layer)]
    zero_out = [name for name in equal if graph[name].closes_branch or graph[name].role == "output"]
    if bad := [name for name in equal if name not in zero_out]:
        yield Finding(
            "error",
            f"all values are equal in {few(bad)}, so its units get the same gradient and never differ",
            f"draw them at random: {_recipe('he_normal')}",
        )
    elif zero_out:
        yield Finding(
            "note",
            f"{few(zero_out)} starts at a constant, as zero-initialized residual branches and heads do",
            "nothing, if that is meant: what lies before it gets its first gradient after one step",
        )


def _is_constant(model: nn.Module, layer: Layer) -> bool:
    with torch.no_grad():
        weight = read(model, layer.name)
        return bool((weight == weight.flatten()[0]).all())


def _no_gradient(signals: Signals) -> Iterator[Finding]:
    """Exactly zero: something multiplies by zero on the way."""
    if signals.grad_norm == 0:
        yield Finding(
            "error",
            "every gradient is exactly zero, so no step will change anything",
            f"look for zero weights in series, or draw anew: {_recipe('he_normal')}",
        )
        return
    zero = [s.name for s in signals.layers if s.grad_norm == 0]
    if zero:
        yield Finding(
            "warning",
            f"{len(zero)} of {len(signals.layers)} weights get a gradient of exactly zero: {few(zero)}",
            "fine for one step behind a zero-initialized layer; otherwise a layer after them is dead or unused",
        )


def _depth(graph: Graph, signals: Signals) -> Iterator[Finding]:
    """First layer's gradient against the last's."""
    chain = _chain(graph, signals, lambda s: s.grad_norm)
    if len(chain) < 3:
        return
    first, last = chain[0], chain[-1]
    ratio = (first.grad_norm or 0.0) / (last.grad_norm or 1.0)
    said = f"{first.name} gets {number(ratio, 2)} of what {last.name} gets"
    if 0 < ratio < VANISHING:
        yield Finding(
            "error" if ratio < VANISHED else "warning",
            f"gradients vanish: {said}",
            f"{_suited(graph)}, or let autoinit.select(model, data) choose",
        )
    elif ratio > EXPLODING:
        yield Finding(
            "warning",
            f"gradients explode on their way back: {said}",
            f"{_suited(graph)}, or let autoinit.select(model, data) choose",
        )


def _negligible(graph: Graph, signals: Signals) -> Iterator[Finding]:
    """Gradients that get lost where depth is no chain of layers: along the steps of a recurrent one."""
    if any(_depth(graph, signals)):
        return
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
            f"{_suited(graph)}, or let autoinit.select(model, data) choose",
        )


def _forward(graph: Graph, signals: Signals) -> Iterator[Finding]:
    """First hidden output's spread against the last's; a head is small on purpose."""
    chain = _chain(graph, signals, lambda s: None if s.role == "output" else s.forward_std)
    if len(chain) < 3:
        return
    first, last = chain[0], chain[-1]
    ratio = (last.forward_std or 0.0) / (first.forward_std or 1.0)
    said = f"outputs spread by {number(first.forward_std)} in {first.name}, {number(last.forward_std)} in {last.name}"
    if ratio < FADING:
        yield Finding("warning", f"signals fade with depth: {said}", _suited(graph))
    elif ratio > GROWING:
        yield Finding("warning", f"signals grow with depth: {said}", _suited(graph))


def _units(signals: Signals) -> Iterator[Finding]:
    dead = [s for s in signals.layers if s.dead is not None and s.dead > DEAD]
    if dead:
        worst = max(dead, key=lambda s: s.dead or 0.0)
        yield Finding(
            "error" if worst.dead == 1 else "warning",
            f"dead units: {percent(worst.dead or 0.0)} of {worst.name}'s pass no gradient for any row of the batch"
            f"{_others(dead)}",
            f"{_recipe('he_normal')}; look at large negative biases and unscaled inputs",
        )
    flat = [s for s in signals.layers if s.saturated is not None and s.saturated > SATURATED]
    if flat:
        worst = max(flat, key=lambda s: s.saturated or 0.0)
        yield Finding(
            "warning",
            f"saturated units: {percent(worst.saturated or 0.0)} of {worst.name}'s outputs lie where its activation "
            f"is flat{_others(flat)}",
            f"smaller weights: {_recipe('xavier_normal')}; scale inputs to mean 0 and variance 1",
        )


def _loss(task: Task, graph: Graph, signals: Signals) -> Iterator[Finding]:
    if task.reference is None or signals.loss <= HIGH_LOSS * task.reference:
        return
    times = signals.loss / task.reference
    remedies = [*_off_centre(task), *_unscaled(task, graph, signals)]
    if not remedies and any(_forward(graph, signals)):
        remedies = [_suited(graph)]
    if not remedies:
        remedies = ["a smaller last layer: try autoinit.apply_(model, autoinit.Recipe(head='eighth'), data)"]
        remedies += ["for a regression, scale the targets"] if task.loss_name == "mse" else []
    yield Finding(
        "error" if times > VERY_HIGH_LOSS else "warning",
        f"the loss starts at {number(signals.loss)}, {number(times, 2)} times the {number(task.reference)} of the best "
        "constant guess",
        "; ".join(remedies),
    )


def _off_centre(task: Task) -> Iterator[str]:
    """Targets far from zero: no output starts there, and no draw of weights brings it there."""
    if task.loss_name != "mse" or task.reference is None:
        return
    mean = float(torch.cat([value.detach().double().flatten() for value in targets(task.train)]).mean())
    if abs(mean) > math.sqrt(task.reference):
        yield f"subtract the targets' mean ({number(mean)}), or set the output bias to it"


def _unscaled(task: Task, graph: Graph, signals: Signals) -> Iterator[str]:
    """Large inputs make large outputs whatever the weights; large weights on common inputs are another matter."""
    first = next(iter(_chain(graph, signals, lambda s: s.forward_std)), None)
    if first is None or (first.forward_std or 0.0) <= WIDE:
        return
    arguments, keywords, target = split(task.train[0])
    inputs = [x for x in tensors([*arguments, *keywords.values()]) if x.is_floating_point() and x is not target]
    if not inputs:
        return
    values = torch.cat([x.detach().double().flatten() for x in inputs])
    if values.square().mean().sqrt() > LARGE_INPUT:
        mean, std = number(values.mean().item()), number(values.std().item())
        yield f"inputs have mean {mean} and std {std}: scale them to mean 0 and variance 1"


def _halves(signals: Signals) -> Iterator[Finding]:
    if signals.agreement is not None and signals.agreement < DISAGREEMENT:
        yield Finding(
            "warning",
            f"the two halves of the batch pull in opposite directions (cosine {number(signals.agreement, 2)})",
            "early steps are mostly noise: use larger batches, or a start whose units respond to the input",
        )


def _chain(graph: Graph, signals: Signals, value: Callable[[LayerSignal], float | None]) -> list[LayerSignal]:
    """Returns the layers that show what depth does, from the data to the loss, where a value was measured."""
    found = [s for s in signals.layers if graph[s.name].is_matrix and s.role not in _ASIDE and value(s)]
    return sorted(found, key=lambda s: graph[s.name].depth)


def _suited(graph: Graph) -> str:
    """Returns a remedy that keeps signals and gradients level through this network's activations."""
    names = [layer.activation.name for layer in graph.weights if layer.activation.name != "linear"]
    common = max(set(names), key=names.count) if names else "linear"
    if common in ("sigmoid", "hardsigmoid"):  # its slope of at most 1/4 asks for weights four times as large
        return "try autoinit.apply_(model, autoinit.Recipe(base='orthogonal', log2_gain=2), data), or tanh units"
    return _recipe("orthogonal" if common in ("tanh", "softsign", "erf", "linear") else "he_normal")


def _recipe(name: str) -> str:
    return f"try autoinit.apply_(model, {name!r}, data)"


def _others(layers: Sequence[LayerSignal]) -> str:
    return f" ({len(layers)} layers like it)" if len(layers) > 1 else ""


def _summary(diagnosis: Diagnosis) -> str:
    signals = diagnosis.signals
    best = f", best constant guess {number(diagnosis.reference)}" if diagnosis.reference is not None else ""
    return (
        f"Loss {number(signals.loss, 4)}{best}; gradient norm {number(signals.grad_norm)}; "
        f"agreement of half batches {number(signals.agreement, 2)}."
    )


def _layers_table(diagnosis: Diagnosis) -> str:
    header = ("weight", "role", "activation", "output mean", "std", "gradient", "dead", "saturated")
    body = [
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
    return table(header, body, "<<<>>>>>")


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _findings_text(diagnosis: Diagnosis) -> str:
    """Returns the findings, and what nothing was found in only because it was not measured."""
    gaps = list(_not_measured(diagnosis))
    lines = [str(finding) for finding in diagnosis.findings]
    if not lines:
        healthy = "Healthy: signals and gradients keep their size, and the loss starts where it should."
        lines = ["Nothing stands out." if gaps else healthy]
    return "\n".join([*lines, *gaps])


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
