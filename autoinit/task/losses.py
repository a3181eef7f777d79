"""The loss of one batch: how a batch splits into inputs and target, and which loss fits the two."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DataError, StepError
from .batches import Batch, describe, tensors
from .casting import TARGET_KEYS
from .stillness import stilled

LossName = Literal["model", "cross_entropy", "mse", "custom", "step", "train"]
"""Where the loss comes from: the model's own `.loss`, inferred, given as `loss`, or computed by `step`."""

IGNORED = -100
"""The label that torch's cross-entropy leaves out."""

VARIANCE_BATCHES = 64
"""Enough for a variance to a few percent, where targets are images and there are gigabytes of them."""


@runtime_checkable
class _HasLoss(Protocol):
    loss: Any


@runtime_checkable
class _HasLogits(Protocol):
    logits: Any


def split(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Returns (positional inputs, keyword inputs, target or None) of a batch.

    (x, y) and (x1, x2, …, y) have their target last; ((x1, x2), y) and ({…}, y) unpack their inputs;
    a dict is passed as keywords, labels included, and its target is what stands under a `TARGET_KEYS`.
    """
    if not isinstance(batch, (tuple, list)):  # the commonest kind is asked for first: this is done in every step
        return _split_one(batch)
    if len(batch) == 1:
        return split(batch[0])
    *inputs, target = batch
    if len(inputs) > 1:
        return tuple(inputs), {}, target
    if isinstance(inputs[0], Mapping):
        return (), {str(key): value for key, value in inputs[0].items()}, target
    return (tuple(inputs[0]) if isinstance(inputs[0], (tuple, list)) else (inputs[0],)), {}, target


def _split_one(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Returns the parts of a batch that is no sequence."""
    if isinstance(batch, Mapping):
        target = next((batch[key] for key in TARGET_KEYS if key in batch), None)
        return (), {str(key): value for key, value in batch.items()}, target
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return _split_one(vars(batch))
    return (batch,), {}, None


def prediction(output: Any) -> Tensor | None:
    """Returns the tensor that an output predicts with: its logits, or its first tensor that is no single number."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and "logits" in output:
        return prediction(output["logits"])
    if isinstance(output, _HasLogits):
        return prediction(output.logits)
    found = tensors(output)
    return next((tensor for tensor in found if tensor.dim()), next(iter(found), None))


def own_loss(output: Any) -> Tensor | None:
    """Returns the loss that a model computed itself: `.loss`, ["loss"], or an output that is a scalar."""
    # The commonest kind is asked for first: this is done in every step, and asking for a protocol takes microseconds.
    if type(output) is Tensor and not vars(output):
        return output if output.dim() == 0 else None
    if isinstance(output, Mapping):
        loss = output.get("loss")
    elif isinstance(output, _HasLoss):
        loss = output.loss
    else:
        loss = output if isinstance(output, Tensor) and output.dim() == 0 else None
    return loss if isinstance(loss, Tensor) else None


def scalar_place(output: Any) -> int | None:
    """Returns where in a tuple the only scalar with a gradient stands: (loss, logits), or (logits, loss)."""
    if type(output) not in (tuple, list):
        return None
    places = [at for at, item in enumerate(output) if _is_scalar(item) and item.requires_grad]
    return places[0] if len(places) == 1 else None


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 0 and value.is_floating_point()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Returns the mean cross-entropy of integer targets, classes on whichever axis the shapes say.

    Args:
        logits: [B, C], [B, T, C] or torch's own [B, C, …].
        target: [B], [B, 1], [B, T] or […].
    """
    logits, target = aligned(logits, target)
    return F.cross_entropy(logits, target)


def aligned(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Returns logits with classes on axis 1, and integer targets to match."""
    target = target if target.dtype == torch.int64 else target.long()
    if target.dim() == logits.dim() and target.shape[-1] == 1:
        target = target.squeeze(-1)
    if logits.dim() <= 2:
        return logits, target
    if logits.shape[:-1] == target.shape:
        return logits.flatten(0, -2), target.flatten()
    return logits, target


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Returns the mean squared error; [B] and [B, 1] are the same thing here, not a [B, B] broadcast."""
    if output.shape != target.shape and output.numel() == target.numel():
        target = target.view_as(output)
    if output.shape != target.shape:
        raise DataError(
            f"the model's output {describe(output)} and the target {describe(target)} differ in shape. "
            "The mean squared error needs the same shape; pass loss= for anything else."
        )
    return F.mse_loss(output, target if target.is_floating_point() else target.to(output.dtype))


def _inferred(output: Any, target: Any, inputs: tuple[Any, ...]) -> tuple[LossName, Tensor]:
    """Returns the loss that the output and the target call for, with its name."""
    own = own_loss(output)
    if own is not None:
        return "model", own
    predicted = prediction(output)
    if predicted is None:
        raise StepError(
            f"the model returned a {type(output).__name__} without a tensor, so no loss can be inferred. "
            "Pass loss=callable(output, target) or step=callable(model, batch)."
        )
    if isinstance(target, Tensor):
        if target.is_floating_point():
            return "mse", mse(predicted, target)
        return "cross_entropy", _checked_cross_entropy(predicted, target)
    if target is None and isinstance(inputs[0] if inputs else None, Tensor):
        if inputs[0].shape == predicted.shape and inputs[0].is_floating_point():
            return "mse", mse(predicted, inputs[0])
        raise DataError(
            f"batches are single tensors {describe(inputs[0])} and the output {describe(predicted)} has "
            "another shape, so there is nothing to compare it with. "
            "Pass (input, target) batches, loss= or step=."
        )
    raise DataError(
        f"no target was found to compare the output {describe(predicted)} with (got {describe(target)}). "
        f"Pass (input, target) batches, dicts with one of {', '.join(TARGET_KEYS)}, loss= or step=."
    )


BINARY = (
    "loss=lambda output, target: torch.nn.functional.binary_cross_entropy_with_logits(output, "
    "target.to(output.dtype).view_as(output))"
)
"""What to pass where each output is one logit of yes or no."""


def is_binary(target: Any) -> bool:
    """Whether a target holds zeros and ones and nothing else, both of them."""
    if not isinstance(target, Tensor) or target.is_complex() or not target.numel():
        return False
    return bool(((target == 0) | (target == 1)).all()) and bool((target == 0).any()) and bool((target == 1).any())


def _checked_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    if logits.numel() == target.numel() and is_binary(target):
        raise DataError(
            f"the model's output {describe(logits)} is one logit for each target {describe(target)}, all 0 or 1. "
            f"Pass binary cross-entropy, {BINARY}; or, where they are one-hot classes, target.argmax(-1)."
        )
    aligned_logits, classes = aligned(logits, target)
    lead = aligned_logits.shape[:1] + aligned_logits.shape[2:]
    if aligned_logits.dim() < 2 or lead != classes.shape:
        raise DataError(
            f"the model's output {describe(logits)} does not fit integer targets {describe(target)}. "
            "Cross-entropy needs one score per class for each target; make the targets floats for "
            "regression, or pass loss=."
        )
    return F.cross_entropy(aligned_logits, classes)


def is_plain(loss: Any, function: Callable[..., Any], module: type[nn.Module]) -> bool:
    """Whether a given loss is torch's own without options, so that its best constant is known."""
    if loss is function:
        return True
    if type(loss) is not module:
        return False
    if isinstance(loss, nn.CrossEntropyLoss):
        plain = loss.weight is None and loss.label_smoothing == 0 and loss.ignore_index == IGNORED
        return plain and loss.reduction == "mean"
    return isinstance(loss, nn.MSELoss) and loss.reduction == "mean"


class Loss:
    """The scalar loss of a batch under a model; what is not given is inferred from each output.

    Attributes:
        name: where it comes from; known after the first call.
        source: what a step is called in messages.
        example: any output will do, as long as it gives a scalar with a gradient: for reading an
            architecture from an example input without target.
    """

    def __init__(
        self,
        loss: Callable[[Any, Any], Tensor] | None = None,
        step: Callable[[nn.Module, Batch], Tensor] | None = None,
        example: bool = False,
        source: str = "step",
    ) -> None:
        for label, value in (("loss", loss), ("step", step)):
            if isinstance(value, type):
                raise StepError(f"{label} is a class; pass {_class_name(value)}(), an instance of it. {_CALLABLES}")
            if value is not None and not callable(value):
                raise StepError(f"{label} is {value!r}, which cannot be called. {_CALLABLES}")
        if loss is not None and step is not None:
            raise StepError("loss and step are both given; a step computes its own loss, so pass only one.")
        self._loss = loss
        self._step = step
        self.source = source
        self.example = example
        self._place: int | None = None
        self.name: LossName = "step" if step is not None else "custom"
        if is_plain(loss, F.cross_entropy, nn.CrossEntropyLoss):
            self.name = "cross_entropy"
        elif is_plain(loss, F.mse_loss, nn.MSELoss):
            self.name = "mse"

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns the scalar loss."""
        if self._step is not None:
            with stilled(model):
                value = self._step(model, batch)
            return _scalar(self._picked(value), self.source)
        args, keywords, target = split(batch)
        if self._loss is None:
            output = model(*args, **keywords)
            # A model that is not given the target cannot know the loss: a scalar of its own is a penalty or the like.
            told = target is not None and not args
            return self.inferred(self._picked(output) if told else output, target, args)
        if not args:  # a given loss takes the target, so the model need not
            keywords = {key: value for key, value in keywords.items() if value is not target}
        target = args[0] if target is None and args else target
        return _scalar(self._picked(self._loss(model(*args, **keywords), target)), "loss")

    def _picked(self, value: Any) -> Any:
        """Returns the scalar with a gradient where a tuple holds one, as it does in the passes without gradient after.

        Anything else is returned as it is.
        """
        if torch.is_grad_enabled():
            self._place = scalar_place(value)
        found = value[self._place : self._place + 1] if self._place is not None and type(value) in (tuple, list) else ()
        return found[0] if found and _is_scalar(found[0]) else value

    @property
    def is_step(self) -> bool:
        """Whether a step computes it, whose code may do anything."""
        return self._step is not None

    @property
    def given(self) -> Callable[[Any, Any], Tensor] | None:
        """The loss as it was given; None where it is inferred, or a step's."""
        return self._loss

    @property
    def may_classify(self) -> bool:
        """Whether integer targets are class numbers: cross-entropy, given or to be inferred."""
        return self.name == "cross_entropy" or (self._loss is None and self._step is None)

    def inferred(self, output: Any, target: Any, args: tuple[Any, ...]) -> Tensor:
        """Returns the inferred loss of one output, and remembers its name."""
        try:
            self.name, value = _inferred(output, target, args)
        except (DataError, StepError):
            if not self.example:
                raise
            floats = [tensor for tensor in tensors(output) if tensor.is_floating_point()]
            self.name, value = "custom", sum((x.square().mean() for x in floats), torch.zeros(()))
        return _scalar(value, "the model's loss")


_CALLABLES = "Allowed: loss=callable(output, target) -> scalar, step=callable(model, batch) -> scalar."


def _scalar(value: Any, source: str) -> Tensor:
    if isinstance(value, Tensor) and value.dim() == 0:
        return value
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.reshape(())
    got = f"a tensor {describe(value)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    remedy = "Reduce it with .mean() or .sum(), and return the loss tensor itself."
    if isinstance(value, Mapping) and "loss" in value:
        remedy = "Return its ['loss']."
    elif isinstance(value, _HasLoss):
        remedy = "Return its .loss."
    elif isinstance(value, (tuple, list)):
        remedy = "Return the one part of it that is the loss; it is found by itself where one scalar has a gradient."
    form = "Allowed: example=callable(model) -> scalar, an input, or a batch." if source == "example" else _CALLABLES
    raise StepError(f"{source} returned {got} where one scalar is needed. {form} {remedy}")


def _class_name(kind: type) -> str:
    return f"nn.{kind.__name__}" if kind.__module__.startswith("torch.nn.") else kind.__name__


def targets(batches: Sequence[Batch]) -> list[Tensor]:
    """Returns the target of each batch, itself where a batch is a single tensor."""
    found = []
    for batch in batches:
        args, _, target = split(batch)
        found.append(target if target is not None else args[0] if args else None)
    return [target for target in found if isinstance(target, Tensor)]


def check_labels(labels: Sequence[Tensor], width: int, name: str = "data") -> None:
    """Raises `DataError` where an integer label is no class of an output of `width` classes."""
    for index, label in enumerate(labels):
        wrong = _out_of_range(label, width)
        if wrong.numel():
            raise DataError(
                f"label {int(wrong.flatten()[0])} in batch {index} of {name} is out of range: the model's "
                f"output has {width} classes, so labels must lie in 0 … {width - 1} ({IGNORED} is ignored). "
                "Widen the last layer, renumber the labels, or pass loss= for another kind of target."
                + (f" Of yes or no, pass {BINARY}." if width == 1 else "")
            )


@dataclass(frozen=True, slots=True)
class BestConstant:
    """The best predictor that does not look at its input.

    Attributes:
        label_prior: relative frequency of each class; empty where the loss is no classification.
        loss: what it reaches, label entropy or target variance; None where it is unknown.
        independent: whether each label has a frequency by itself (binary cross-entropy), whatever the others have.
    """

    label_prior: tuple[float, ...] = ()
    loss: float | None = None
    independent: bool = False


def best_constant(name: LossName, output: Tensor | None, batches: Sequence[Batch]) -> BestConstant:
    """Returns the best constant predictor of the batches' targets, as far as the loss is a known one.

    Args:
        name: where the loss comes from.
        output: a prediction; only its shape and dtype are asked for.
        batches: to learn from.
    """
    values = targets(batches)
    if output is None or not values:
        return BestConstant()
    if name == "mse":
        some = [value.cpu() for value in values[:VARIANCE_BATCHES]]  # in double precision, several batches at a time
        same = len({tuple(value.shape[1:]) for value in some}) == 1  # else there is no mean over rows
        return BestConstant(loss=(variance(some) or None) if same else None)
    width = class_count(name, output, batches[0])
    if not width or any(_is_no_label(value) or _out_of_range(value, width).numel() for value in values):
        return BestConstant()
    label_prior = class_frequencies(values, width)
    return BestConstant(label_prior, entropy(label_prior) or None)


def class_count(name: LossName, output: Tensor | None, batch: Batch) -> int:
    """Returns the number of classes that an output has scores for; 0 where the loss is no classification."""
    found = None if output is None or name not in ("cross_entropy", "model") else classes(output, split(batch)[2])
    if found is None:
        return 0
    width, labels = found
    return 0 if name == "model" and int(labels.max()) >= width else width  # the model took them: no class numbers


def classes(output: Tensor, target: Any) -> tuple[int, Tensor] | None:
    """Returns (number of classes, labels in shape of one per prediction), where it is a classification."""
    if not isinstance(target, Tensor) or _is_no_label(target):
        return None
    if output.dim() < 2 or not output.is_floating_point():
        return None
    logits, labels = aligned(output, target)
    fits = logits.shape[:1] + logits.shape[2:] == labels.shape
    return (logits.shape[1], labels) if fits else None


def _is_no_label(value: Tensor) -> bool:
    return value.is_floating_point() or value.dtype == torch.bool


def _out_of_range(labels: Tensor, width: int) -> Tensor:
    """Returns the labels that are no class of an output of `width` classes."""
    return labels[(labels != IGNORED) & ((labels < 0) | (labels >= width))]


def class_frequencies(labels: Sequence[Tensor], width: int) -> tuple[float, ...]:
    """Returns the relative frequency of each class; empty where every label is ignored."""
    counts: Counter[int] = Counter()
    for label in labels:
        kept = label[label != IGNORED]
        values, numbers = torch.unique(kept, return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    total = counts.total()
    return tuple(counts[index] / total for index in range(width)) if total else ()


def entropy(frequencies: Sequence[float]) -> float:
    """Returns −Σ p log p in nats: the best constant predictor's cross-entropy."""
    return -sum(p * math.log(p) for p in frequencies if p > 0)


def variance(values: Sequence[Tensor]) -> float:
    """Returns the mean over outputs of the variance over rows: the best constant's squared error."""
    whole = torch.cat([value.detach().double().flatten(1) if value.dim() > 1 else value[:, None].double()
                       for value in values])  # fmt: skip
    return float(whole.var(dim=0, correction=0).mean())
