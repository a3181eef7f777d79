"""What will be trained: model, batches, loss and optimizer; the model is put back exactly as found."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import USER_ERRORS, AutoInitError, DataError, DeviceError, ModelError, StepError, described, hint
from ..graph import Graph
from .batches import Batch, clone, describe, halves, move, regrouped, rows, select_rows, signature, tensors
from .casting import Numbers
from .checks import check_memory, check_trainable, check_weights, device_of, float_dtype, unwrap
from .data import MEASURED_ROWS, all_batches, check_finite, fetch, first_batch, held_back_groups, held_out, in_two
from .evaluation import MANNERS, ForwardOnly, Manner, evaluating, uncompiled
from .losses import (
    Loss,
    LossName,
    best_constant,
    check_labels,
    class_count,
    classes,
    own_loss,
    prediction,
    scalar_place,
    split,
    targets,
)
from .machine import OUT_OF_MEMORY, numbers
from .optimizers import DEFAULT_LR, OptimizerBuilder
from .precision import LossScale
from .priors import batch_spread, constant_of, lowest_constant
from .snapshot import Snapshot, preserved, preserved_random
from .stillness import check_still, stilled

_AUTOCAST_DTYPES = (torch.bfloat16, torch.float16)
SIGNATURES = 8
"""Batches of different shapes that are tried out; more of them are padded sequences of every length."""
RESIDENT_BYTES = 256 << 20
"""Data up to this size lie on the device throughout; of more, each batch is moved there when its turn comes."""
_BYTES = "Convert bytes to numbers first, for example with .float() / 255. "
"""What is said where a model cannot take a batch of bytes."""
ROUNDING, HALF_ROUNDING = 1e-5, 3e-3
"""By how much a loss may differ from that of its halves, which are added up in another order; in half precision."""


class Own(Protocol):
    """A training that its owner wrote, in the place of batches, loss and optimizer.

    Attributes:
        train: the generator function.
    """

    train: Callable[[nn.Module, int], Any]

    def begun(self, model: nn.Module, seed: int) -> Any:
        """Returns the steps of a training that begins at a model's present weights."""

    def evaluate(self, model: nn.Module, wanted: Sequence[Any]) -> list[float]:
        """Returns some held-back values."""


@dataclass(frozen=True)
class Trained:
    """A trained network of the same kind and another size, which a model may take after.

    Attributes:
        weights: the module, or its tensors by name.
        graph: its architecture; None where only tensors are known.
    """

    weights: nn.Module | Mapping[str, Tensor]
    graph: Graph | None = None


@dataclass(frozen=True)
class Start:
    """A start with weights of its own: one that was learned, or a ticket.

    Attributes:
        name: made of its kind and its contents, the value of `Recipe.start`.
        words: what it is, as in "of another architecture than …".
        values: parameters and buffers by name.
        masks: True where an entry stays, by the weight's name; none where it is no ticket.
    """

    name: str
    words: str
    values: Mapping[str, Tensor] = field(repr=False)
    masks: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


@dataclass(kw_only=True)
class Task:
    """What will be trained.

    A task holds a model, its batches, its loss and its optimizer, checked by one step, and puts the model back exactly
    as it was found. `select`, `diagnose` and the others make one of their arguments, so you will meet it in their code
    rather than make it yourself; inside `with task.preserved():` the model may be trained, and afterwards nothing of
    that is left.

    Attributes:
        model: the owner's model, unwrapped from torch.compile and data parallelism.
        device: where batches are used, and where the model is inside `preserved`.
        autocast: dtype of mixed precision; None where it is off.
        train: batches to train probes on.
        probe_eval: held-back batches that rank candidates.
        gate_eval: held-back batches that the search never sees.
        loss_name: where the loss comes from.
        label_prior: relative frequency of each class; empty where the loss is no classification.
        independent_labels: whether each of them is a label by itself (binary cross-entropy).
        reference: loss of the best constant predictor (label entropy, target variance); None if unknown.
        reference_spread: standard deviation of its logarithm from batch to batch; None if unknown.
        lr: the optimizer's own learning rate; None where there is none to read.
        lr_searched: whether learning rates around `lr` are candidates.
        lr_given: whether `lr` is the owner's, by a number or by an optimizer, and not a default.
        optimizer_name: name of the optimizer's class.
        untrained: names of the trainable parameters that the optimizer does not hold: their weights must stay.
        manner: how held-back batches are evaluated.
        source: a trained network that candidates may take after; None where there is none.
        starts: learned starts and tickets that are candidates, by name.
        own: the training that its owner wrote, in the place of batches, loss and optimizer; None where there is none.
            Then `train` is what its architecture is read from, one batch at most, and nothing is trained on that.
    """

    model: nn.Module
    device: torch.device
    autocast: torch.dtype | None = None
    train: tuple[Batch, ...] = ()
    probe_eval: tuple[Batch, ...] = ()
    gate_eval: tuple[Batch, ...] = ()
    loss_name: LossName = "custom"
    label_prior: tuple[float, ...] = ()
    independent_labels: bool = False
    reference: float | None = None
    reference_spread: float | None = None
    lr: float | None = DEFAULT_LR
    lr_searched: bool = False
    lr_given: bool = False
    optimizer_name: str = "AdamW"
    untrained: frozenset[str] = frozenset()
    manner: Manner = MANNERS[0]
    seed: int = 0
    source: Trained | None = field(default=None, repr=False)
    starts: Mapping[str, Start] = field(default_factory=dict, repr=False)
    own: Own | None = field(default=None, repr=False)
    _loss: Loss = field(repr=False)
    _builder: OptimizerBuilder | None = field(default=None, repr=False)
    _own_backward: bool = False
    _overwrites: bool = False
    _streams: bool = False
    _output: Tensor | None = field(default=None, repr=False)

    def best_constant_on(self, batches: Sequence[Batch]) -> float | None:
        """Returns the lowest loss that any constant has on some batches; None where that is unknown."""
        if self.reference is None or self.loss_name not in ("cross_entropy", "mse", "model"):
            return None
        return lowest_constant(len(self.label_prior), batches)

    def loss(self, batch: Batch) -> Tensor:
        """Returns the scalar loss of a batch, with gradient unless the step calls backward itself."""
        if self._streams:
            batch = move(batch, self.device)
        if self._overwrites:
            batch = clone(batch)
        if self.autocast is None:
            return self._loss(self.model, batch)
        torch.clear_autocast_cache()  # an owner's block around all of this keeps casts of weights that moved meanwhile
        with torch.autocast(self.device.type, dtype=self.autocast):
            return self._loss(self.model, batch)

    def backward(self, batch: Batch, scale: LossScale | None = None) -> Tensor:
        """Adds the gradients of a batch's loss to `.grad` and returns the loss, which nobody waited for.

        Args:
            batch: of the training data.
            scale: from `loss_scale`, of the optimizer that will use the gradients.
        """
        value = self.loss(batch)
        if self._own_backward:
            pass  # the step did, scaling by itself where it wants to
        elif scale is None:
            value.backward()  # type: ignore[no-untyped-call]
        else:
            scale.backward(value)
        return value.detach()

    def loss_scale(self, optimizer: Optimizer) -> LossScale | None:
        """Returns a fresh loss scale for a training in float16, in which small gradients would become zero.

        None for every other precision, for a step that calls backward itself, and for parameters that are float16
        themselves, whose gradients torch does not unscale.
        """
        half = any(parameter.dtype == torch.float16 for parameter in self.model.parameters())
        if self.autocast != torch.float16 or self._own_backward or half:
            return None
        return LossScale(optimizer, self.device)

    def evaluate(self, batches: Sequence[Batch]) -> list[float]:
        """Returns the loss of each batch, without training on them.

        The model is left in the mode that it was in, without gradients.

        Raises:
            DataError: the model or the loss cannot take one of them; it says that this was no training.
            StepError: `validate` of a training of its own failed.
        """
        if self.own is not None:
            return self.own.evaluate(self.model, batches)
        with evaluating(self.model, self.manner):
            losses = numbers([self._held_back_loss(batch) for batch in batches])
        if self._own_backward:
            self.model.zero_grad(set_to_none=True)
        return losses

    def _held_back_loss(self, batch: Batch) -> Tensor:
        try:
            return self.loss(batch).detach()
        except OUT_OF_MEMORY:
            raise
        except USER_ERRORS as error:
            mode = "training" if self.manner.training else "evaluation"
            remedy = hint(error) or "Pass val_data that the model and the loss can take."
            raise DataError(
                f"evaluating a held-back batch, {describe(batch)}, in {mode} mode failed, which has nothing to do with "
                f"the weights: {described(error)}. {remedy}"
            ) from error

    def evaluated(self, batch: Batch, manner: Manner) -> float:
        """Returns the loss of a batch, evaluated in some manner; what the model or the loss raises is let through."""
        with evaluating(self.model, manner):
            loss = self.loss(batch).item()
        if self._own_backward:
            self.model.zero_grad(set_to_none=True)
        return loss

    @functools.cached_property
    def differentiates(self) -> bool:
        """Whether the loss differentiates by itself, and so needs gradients to be computed at all: a PINN's.

        Found out by a forward pass, which leaves nothing in the model.
        """
        return not self._takes(self.train[0], Manner(training=True))

    def halves(self, batch: Batch) -> tuple[Batch, Batch] | None:
        """Returns the two halves of a batch's rows; None where it cannot be halved, or the model does not take halves.

        A batch that is a whole graph, or has a size that is built into the model, is one that stays whole.
        """
        pair = halves(batch)
        return pair if pair is not None and self._takes_halves else None

    @functools.cached_property
    def _takes_halves(self) -> bool:
        return all(self._takes(half, MANNERS[-1]) for half in halves(self.train[0]) or ())

    def _takes(self, batch: Batch, manner: Manner) -> bool:
        """Whether a forward pass on a batch works in some manner."""
        try:
            mode: Any = ForwardOnly()
            with evaluating(self.model, manner), mode:
                self.loss(batch)
        except OUT_OF_MEMORY:
            raise
        except USER_ERRORS:
            return False
        return True

    @property
    def adapts(self) -> bool:
        """Whether the owner's optimizer makes steps of one size from large and small gradients, as Adam does."""
        return self.lr_given and "SGD" not in self.optimizer_name

    @property
    def infers_squares(self) -> bool:
        """Whether the squared error is what floats as targets call for, and nobody asked for it."""
        return self.loss_name == "mse" and self._loss.given is None

    @property
    def measured(self) -> Literal["loss", "outputs", "nothing"]:
        """What can be measured on its batches: of a training of its own no loss, where its example gives none."""
        if not self.train:
            return "nothing"
        return "outputs" if self.own is not None and self._loss.name == "custom" else "loss"

    @property
    def one_held_back(self) -> bool:
        """Whether the gate judges on the very batch that the search has seen, because it is one and stays whole."""
        return self.gate_eval is self.probe_eval and bool(self.gate_eval)

    def forwards(self, batches: Sequence[Batch]) -> float:
        """Returns how many forward passes of a training batch an evaluation of these batches costs, by their rows.

        Of a training of its own each held-back value counts as one.
        """
        if self.own is not None:
            return float(len(batches))
        return sum(map(rows, batches)) / self._batch_rows

    @functools.cached_property
    def _batch_rows(self) -> int:
        return max(map(rows, self.train), default=1)

    def build_optimizer(self, lr_factor: float = 1.0) -> tuple[Optimizer, Any]:
        """Returns a fresh (optimizer, scheduler or None), every learning rate times `lr_factor`."""
        builder = self._builder or OptimizerBuilder(self.model)
        return builder(lr_factor)

    def order(self, seed: int, steps: int) -> Iterator[Batch]:
        """Yields `steps` training batches, epoch after epoch in an order that depends on the seed only."""
        generator = torch.Generator().manual_seed(seed)
        while steps > 0:
            epoch = torch.randperm(len(self.train), generator=generator)[:steps].tolist()
            yield from (self.train[index] for index in epoch)
            steps -= len(epoch)

    @contextlib.contextmanager
    def preserved(self) -> Iterator[Snapshot]:
        """Yields a snapshot to rewind to; inside, the model is on the task's device and may be changed."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(uncompiled())
            snapshot = stack.enter_context(preserved(self.model))
            if any(tensor.device != self.device for tensor in self.model.parameters()):
                self.model.to(self.device)
                snapshot = Snapshot(self.model)
            yield snapshot


def make_task(
    model: nn.Module,
    data: Any,
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    step: Callable[[nn.Module, Batch], Tensor] | None = None,
    optimizer: Any = None,
    lr: float | str | None = None,
    val_data: Any = None,
    autocast: torch.dtype | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    finite: bool = True,
) -> Task:
    """Returns the task of training `model` on `data`, after one forward and backward as a check.

    Args:
        model: any module with a trainable parameter.
        data: batches, a Dataset or arrays (see `autoinit.task.data.fetch`); an iterator is consumed.
        loss: callable(output, target) -> scalar; inferred where None.
        step: callable(model, batch) -> scalar, in the place of a loss; it may call backward itself.
        optimizer: callable(params) -> Optimizer or (Optimizer, scheduler), or an existing Optimizer.
        lr: a number, "search", or None for the optimizer's own (searched where there is no optimizer).
        val_data: batches to hold back, in the place of a part of `data` (see `autoinit.task.data.held_out`).
        autocast: dtype of mixed precision; where None, that of an active torch.autocast.
        device: where to train; where None, where the model is.
        seed: of shuffling and of the choice of held-back batches.
        finite: whether NaN and inf in trainable parameters are refused.
    """
    model = unwrap(model)
    check_trainable(model)
    objective = Loss(loss, step)
    target = device_of(model, device)
    check_memory(target, "train")
    if finite:
        check_weights(model)
    with torch.inference_mode(False), preserved_random():
        batches = fetch(data, numbers=Numbers.of(model), seed=seed)
        val = None if val_data is None else fetch(val_data, numbers=Numbers.of(model), name="val_data")
        check_finite(batches)
        check_finite(val or [], "val_data")
        kept, held = held_out(batches, seed=seed, val=val)
        parts = kept, *in_two(held)
        streams = sum(tensor.nbytes for part in parts for batch in part for tensor in tensors(batch)) > RESIDENT_BYTES
        train, probe_eval, gate_eval = (
            tuple(batch if streams else move(batch, target) for batch in part) for part in parts
        )
    task = Task(
        model=model,
        device=target,
        autocast=autocast_of(autocast, target),
        train=train,
        probe_eval=probe_eval,
        gate_eval=gate_eval,
        seed=seed,
        _loss=objective,
        _streams=streams,
    )
    with task.preserved() as snapshot:
        task._builder = builder = OptimizerBuilder(model, optimizer, lr)
        task.lr, task.lr_searched, task.optimizer_name = builder.lr, builder.lr_searched, builder.name
        task.lr_given = optimizer is not None or isinstance(lr, (int, float))
        task.untrained = builder.untrained
        _examine(task, snapshot)
        _learn_manner(task)
        _check_others(task, batches, val or [])
        _keep_whole(task, held)
        _regroup_held_back(task, val)
        _learn_reference(task)
    return task


def example_task(
    model: nn.Module,
    data: Any,
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    step: Callable[[nn.Module, Batch], Tensor] | None = None,
    whole: bool = False,
) -> Task:
    """Returns a task that is enough to read an architecture: one batch, nothing held back, nothing run.

    Args:
        model: also on the meta device.
        data: as for `make_task`, or one batch, or one example input; without a target any output will do.
        loss: callable(output, target) -> scalar.
        step: callable(model, batch) -> scalar.
        whole: all batches, as a calibration needs them, and the frequency of their labels; runs one step.
    """
    model = unwrap(model)
    check_trainable(model)
    device, numbers = device_of(model, None), Numbers.of(model)
    if whole:
        check_memory(device, "measure")
        check_weights(model)
    with torch.inference_mode(False), preserved_random():
        batches = all_batches(data, numbers=numbers) if whole else [first_batch(data, numbers=numbers)]
        if whole:
            check_finite(batches)
        train = tuple(move(batch, device) for batch in batches)
    objective = Loss(loss, step, example=True)
    task = Task(model=model, device=device, autocast=autocast_of(None, device), train=train, _loss=objective)
    if whole:
        with task.preserved() as snapshot:
            _examine(task, snapshot)
            _learn_reference(task)
    return task


def measured_task(
    model: nn.Module,
    data: Any,
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    step: Callable[[nn.Module, Batch], Tensor] | None = None,
    optimizer: Any = None,
) -> Task:
    """Returns a task that is enough to measure a model as it is, after one forward and backward as a check.

    Nothing is held back, so one batch will do; weights that are not finite are what may be found, and not refused.

    Args:
        model: any module with a trainable parameter.
        data: as for `make_task`, or one batch; no more is read than tells the best constant predictor.
        loss: callable(output, target) -> scalar; inferred where None.
        step: callable(model, batch) -> scalar, in the place of a loss.
        optimizer: callable(params) -> Optimizer or (Optimizer, scheduler), or an existing Optimizer; only its kind is
            looked at.
    """
    model = unwrap(model)
    check_trainable(model)
    objective = Loss(loss, step)
    device = device_of(model, None)
    check_memory(device, "measure")
    with torch.inference_mode(False), preserved_random():
        batches = all_batches(data, numbers=Numbers.of(model), enough=MEASURED_ROWS)
        check_finite(batches)
        train = (move(batches[0], device), *batches[1:])  # of the others only the targets are looked at
    task = Task(model=model, device=device, autocast=autocast_of(None, device), train=train, _loss=objective)
    with task.preserved() as snapshot:
        if optimizer is not None:
            task.optimizer_name, task.lr_given = OptimizerBuilder(model, optimizer).name, True
        _examine(task, snapshot)
        _learn_reference(task)
    return task


def examine(task: Task, snapshot: Snapshot) -> float:
    """Runs one forward and backward pass on a task's first batch, as a check; puts the model back, returns the loss."""
    loss = _examine(task, snapshot)
    task._output = None
    snapshot.rewind()
    return loss


def autocast_of(dtype: torch.dtype | None, device: torch.device) -> torch.dtype | None:
    """Returns the dtype of mixed precision on a device: the given one, or that of an active torch.autocast."""
    if dtype is None:
        if device.type == "meta" or not torch.is_autocast_enabled(device.type):
            return None
        return torch.get_autocast_dtype(device.type)
    if dtype not in _AUTOCAST_DTYPES:
        allowed = ", ".join(map(str, _AUTOCAST_DTYPES))
        raise DeviceError(f"autocast is {dtype!r}. Allowed: {allowed}, or None for full precision.")
    return dtype


def _examine(task: Task, snapshot: Snapshot) -> float:
    """Runs one step, and returns its loss: checks that it works, and learns the loss and what a step does beside it."""
    batch = clone(move(task.train[0], task.device))
    versions = [tensor._version for tensor in tensors(batch)]
    task.model.train()
    with explained(task, batch) as seen:
        value = task.loss(batch)
    task._overwrites = versions != [tensor._version for tensor in tensors(batch)]
    task._own_backward = any(parameter.grad is not None for parameter in task.model.parameters())
    task.loss_name = task._loss.name
    if task._loss.is_step:
        check_still(task.model, snapshot, value, lambda: task.loss(clone(move(task.train[0], task.device))))
    if not task._own_backward:
        with stilled(task.model):  # hooks on gradients may step an optimizer, too
            _check_reached(task, value)
    task.model.zero_grad(set_to_none=True)
    # Of the prediction only its shape is asked for later; a language model's takes more memory than its weights.
    task._output = None if not seen or seen[0] is None else torch.empty_like(seen[0], device="meta")
    return value.item()


def _learn_manner(task: Task) -> None:
    """Finds the first manner of evaluating that gives the loss that training has, on a batch that it trains on."""
    for manner in MANNERS:
        if task._own_backward and not manner.gradients:
            continue
        task.manner = manner
        try:
            task.evaluated(task.train[0], manner)
        except OUT_OF_MEMORY:
            raise
        except USER_ERRORS:
            continue
        if task._loss.name == task.loss_name:  # else it gives its loss in training mode, and predictions in the other
            break
    task._loss.name = task.loss_name


def _keep_whole(task: Task, held: Sequence[Batch]) -> None:
    """Judges on a single held-back batch as a whole, in the search and at the gate, where the model takes no halves."""
    if len(held) > 1:
        return
    try:
        cut = halves(held[0]) is not None and task.evaluate([*task.probe_eval, *task.gate_eval])
    except DataError:
        cut = None
    if not cut:
        task.probe_eval = task.gate_eval = tuple(held if task._streams else [move(held[0], task.device)])


@contextlib.contextmanager
def explained(task: Task, batch: Batch) -> Iterator[list[Tensor | None]]:
    """Yields where the prediction will stand; what the model or the loss raises is told with shapes."""
    seen: list[Tensor | None] = []

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if not seen:
            seen.append(prediction(output))
            own = own_loss(output) is not None or scalar_place(output) is not None
            if task._loss.may_classify and not own:  # before a device could fail on them
                _check_class_range(seen[0], batch)

    hook = task.model.register_forward_hook(look)
    try:
        yield seen
    except (AutoInitError, *OUT_OF_MEMORY):
        raise
    except USER_ERRORS as error:
        raise _rejection(task, batch, seen, error) from error
    finally:
        hook.remove()


def _check_others(task: Task, batches: Sequence[Batch], val: Sequence[Batch]) -> None:
    """Tries one batch of every other shape, dtype and structure, before a search would fail on it.

    Validation batches are only evaluated, so they are tried in the manner of evaluation.
    """
    first = task.train[0]
    known = {signature(first)}
    for name, part in (("data", batches), ("val_data", val)):
        for index, batch in enumerate(part):
            kind = signature(batch)
            if kind in known or len(known) > SIGNATURES:
                continue
            known.add(kind)
            moved = clone(move(batch, task.device))
            try:
                with explained(task, moved):
                    task.evaluated(moved, MANNERS[-1] if name == "data" else task.manner)
            except AutoInitError as error:
                raise DataError(
                    f"batch {index} of {name}, {describe(batch)}, does not fit, while another, {describe(first)}, "
                    f"does: {error}"
                ) from error


def _regroup_held_back(task: Task, val: Sequence[Batch] | None) -> None:
    """Puts held-back rows into groups of near-equal size, where the loss is a mean over rows."""
    if task.one_held_back:
        return
    held = list(val) if val is not None else [*task.probe_eval, *task.gate_eval]
    size = max(rows(batch) for batch in task.train)
    if not _is_mean_over_rows(task, max(held, key=rows)):
        return
    groups = held_back_groups(held, size=size, seed=task.seed)
    if groups is not None:
        task.probe_eval, task.gate_eval = (
            tuple(group if task._streams else move(group, task.device) for group in part) for part in groups
        )


def _is_mean_over_rows(task: Task, batch: Batch) -> bool:
    """Whether the loss of a batch is the mean of that of two halves of its rows, in another order than they came in.

    Where the first axis is time, and rows stand on another, a recurrent net tells the halves of a shuffled batch apart.
    """
    count = rows(batch) // 2 * 2
    order = torch.randperm(count, generator=torch.Generator().manual_seed(task.seed)).tolist()
    cut = regrouped([batch], order, [count // 2] * 2) if count else None
    if cut is None:
        return False
    try:
        found, *parts = task.evaluate([move(one, task.device) for one in (select_rows(batch, slice(0, count)), *cut)])
    except DataError:  # a model that takes batches of one size only
        return False
    rounding = HALF_ROUNDING if task.autocast or float_dtype(task.model).itemsize < 4 else ROUNDING
    return math.isclose(found, sum(parts) / 2, rel_tol=rounding, abs_tol=rounding)


def _check_class_range(output: Tensor | None, batch: Batch) -> None:
    found = None if output is None else classes(output, split(batch)[2])
    if found is not None:
        check_labels([found[1]], found[0])


def _check_reached(task: Task, value: Tensor) -> None:
    if value.requires_grad:
        try:
            value.backward()  # type: ignore[no-untyped-call]
        except OUT_OF_MEMORY:
            raise
        except RuntimeError as error:
            raise ModelError(f"backward failed on the first batch: {error}") from error
    if not any(parameter.grad is not None for parameter in task.model.parameters()):
        raise ModelError(
            f"no gradient reaches any of the model's parameters: the loss {value.item():.4g} does not "
            "depend on them. Look for .detach(), .data, torch.no_grad() or .item() between model and loss, and for "
            "checkpointing without use_reentrant=False."
        )


def _rejection(task: Task, batch: Batch, seen: list[Tensor | None], error: Exception) -> AutoInitError:
    """Returns an error with the shapes of both sides of what did not fit."""
    said, known = described(error).rstrip("."), hint(error)
    if task.own is not None and task._loss.is_step:
        remedy = known or "It is called as example(model), and returns a scalar that all of the model's parts touch."
        return StepError(f"example failed: {said}. {remedy}")
    if task._loss.name == "step":
        remedy = known or "It is called as step(model, batch), with the model in training mode, and returns the loss."
        return StepError(f"step failed on a batch of {describe(batch)}: {said}. {remedy}")
    if seen:
        target = split(batch)[2]
        return DataError(
            f"the loss failed on the output {describe(seen[0])} and the target {describe(target)}: {said}. "
            f"{known or 'Make the two fit, or pass loss=callable(output, target).'}"
        )
    matrices = ((name, p) for name, p in task.model.named_parameters() if p.dim() > 1)
    name, first = next(matrices, next(task.model.named_parameters()))
    bytes_hint = _BYTES if any(tensor.dtype == torch.uint8 for tensor in tensors(batch)) else ""
    example_hint = _EXAMPLE if _is_example(batch) else ""
    whole = "example=callable (model) -> scalar" if task.own is not None else "step=callable(model, batch)"
    remedy = (
        known
        or f"{bytes_hint}{example_hint}Batches are split into (inputs…, target); pass {whole} where that is wrong."
    )

    return DataError(
        f"the model cannot take a batch of {describe(batch)}; its first weight {name!r} is {describe(first)}. "
        f"It said {said}. {remedy}"
    )


_EXAMPLE = (
    "It looks like a single example, as datasets have them: pass torch.utils.data.DataLoader(data, batch_size=32), "
    "with a collate_fn where lengths differ (for tokens transformers.DataCollatorWithPadding(tokenizer), or one of "
    "your own with torch.nn.utils.rnn.pad_sequence). "
)


def _is_example(batch: Batch) -> bool:
    """Whether a batch looks like one row: a dict without any tensor, or whose target is a single number."""
    if not isinstance(batch, Mapping):
        return False
    target = split(batch)[2]
    return not tensors(batch) or isinstance(target, (int, float)) or (isinstance(target, Tensor) and target.dim() == 0)


def _learn_reference(task: Task) -> None:
    """Fills in the label prior and the best constant predictor's loss, where the loss is a known one."""
    output, task._output = task._output, None
    if width := class_count(task.loss_name, output, task.train[0]):
        for batches, name in ((task.train, "data"), (task.probe_eval + task.gate_eval, "the held-back data")):
            labels = targets(batches)
            if task.loss_name == "model":  # which may ignore another number than torch does
                labels = [label.clamp(min=0) for label in labels]
            check_labels(labels, width, name)
    known = best_constant(task.loss_name, output, task.train)
    if task.loss_name == "custom":
        known = constant_of(task._loss.given, output, task.train)
    task.label_prior, task.reference, task.independent_labels = known.label_prior, known.loss, known.independent
    task.reference_spread = batch_spread(known, task.train)
