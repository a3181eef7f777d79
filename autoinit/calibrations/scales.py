"""One scale per parameter tensor, learned from gradients: the loss as a function of them, and the descent on them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..errors import CalibrationError
from ..graph import Layer
from ..plans.fill import Adjustment
from ..task.assign import is_parametrized, read
from ..task.batches import Batch
from ..task.interceptor import Interceptor
from ..task.machine import OUT_OF_MEMORY
from ..task.snapshot import seed_generators
from ..task.task import Task
from .fetching import fetched
from .subject import Subject

RECURRENT = 3.0
"""Differentiated twice, a recurrent cell runs step by step, while a training step has a fused kernel (measured)."""

_T = TypeVar("_T")


class ScaledModel:
    """A task's loss as a function of one scale per parameter tensor; the model itself keeps its weights.

    A scale multiplies the tensor as the graph names it: a tied tensor has one, a parametrized weight is scaled
    through its parametrization's `right_inverse`, exactly as the factor would be assigned to it later.

    Attributes:
        names: of the parameters that have a scale, in the order of `scales`.
        scales: [len(names)], a leaf with gradient; 1 where nothing has been learned.
        burden: how much more of a training step's cost it takes to differentiate a gradient of this model than of
            one without recurrent cells.
    """

    def __init__(self, subject: Subject, wanted: Callable[[Layer], bool]) -> None:
        """Reads the weights as they are now.

        Args:
            subject: the drawn model and its data.
            wanted: which of the free layers are to have a scale; layers that are kept, and tensors that are all
                zeros, have none in any case.
        """
        self._task, self._seed = subject.task, subject.seed
        self._wrapper = _Within(subject.model)
        parameters = {name: p for name, p in subject.model.named_parameters() if _learns(p)}
        free = [layer for layer in subject.graph.layers if not layer.keep and wanted(layer)]
        parts = _parts(subject.model, [layer.name for layer in free], parameters)
        self.names = tuple(part.name for part in parts)
        self.scales = torch.ones(len(parts), device=subject.task.device, requires_grad=True)
        self._parts = parts
        scaled = {name for part in parts for name in part.leaves}
        self._others = {name: p.detach() for name, p in parameters.items() if name not in scaled}
        plain = {name for name, _ in subject.model.named_parameters()}
        copies = ((layer.name, layer.copy_of) for layer in subject.graph.layers if layer.name in plain)
        self._copies = {name: original for name, original in copies if original in scaled}
        self._cells = any(isinstance(module, nn.RNNBase) for module in subject.model.modules())
        self.burden = RECURRENT if self._cells else 1.0
        self._weight_normed = any(_is_weight_norm(module) for module in subject.model.modules())
        self._checked = False

    def weights(self) -> dict[str, Tensor]:
        """Returns what the optimizer would train, by name: each trainable tensor as a function of the scales."""
        found = {name: value.requires_grad_() for name, value in self._fresh_others().items()}
        for part, scale in zip(self._parts, self.scales.unbind(), strict=True):
            found.update(part.scaled(scale))
        return found

    def _fresh_others(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self._others.items()}

    def inside(self, weights: Mapping[str, Tensor], work: Callable[[], _T]) -> _T:
        """Returns what `work` returns while the model uses other weights.

        Gradients have to be taken inside: checkpointed models run forward again on the way back. Buffers are
        copies; attention, recurrent cells on a GPU and weight_norm have their plain formulas, since the fused
        kernels have no second derivative, or a wrong one.

        Args:
            weights: in the place of the model's own, as from `weights`.
            work: calls `loss` and `gradient`.
        """
        model = self._task.model
        if not model.training:
            model.train()
        substitutes = {f"model.{name}": value for name, value in weights.items()}
        substitutes |= {f"model.{name}": buffer.clone() for name, buffer in model.named_buffers()}
        if self._copies:  # a target network has the scales of its original, and not yet the step after which it is seen
            present = self.weights()
            substitutes |= {f"model.{name}": present[own].detach() for name, own in self._copies.items()}
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if self._weight_normed:
                stack.enter_context(_PlainWeightNorm())
            if self._cells and self._task.device.type == "cuda":
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            result: _T = functional_call(self._wrapper, substitutes, (work,))
        return result

    def loss(self, *batches: Batch) -> Tensor:
        """Returns the mean loss of some batches in training mode, dropout the same at every call; only `inside`.

        Raises:
            CalibrationError: a step that calls backward itself, or returns a loss without gradient.
        """
        seed_generators(self._seed, self._task.device)
        with contextlib.nullcontext() if self._checked else _BackwardRefused():
            losses = [self._task.loss(batch) for batch in batches]
        if not all(loss.requires_grad for loss in losses):
            raise CalibrationError(_NEEDS_LOSS.format("returned a loss that carries no gradient"))
        self._checked = True
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def adjustments(self) -> dict[str, Adjustment]:
        """Returns the factor of each parameter whose scale has moved."""
        factors = zip(self.names, self.scales.tolist(), strict=True)
        return {name: Adjustment(factor) for name, factor in factors if factor != 1.0}


def gradient(output: Tensor, inputs: Iterable[Tensor], *, create_graph: bool = False) -> tuple[Tensor, ...]:
    """Returns the gradient of a scalar by each input, zero where it does not depend on it.

    Args:
        output: a scalar.
        inputs: what to differentiate by.
        create_graph: whether the gradient is to be differentiated again.

    Raises:
        CalibrationError: an operation on the way has no second derivative.
    """
    wanted = tuple(inputs)
    if not output.requires_grad:  # the gradient of a linear function is a constant
        return tuple(torch.zeros_like(tensor) for tensor in wanted)
    try:
        return torch.autograd.grad(
            output,
            wanted,
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
    except OUT_OF_MEMORY:
        raise
    except RuntimeError as error:
        said = str(error).strip().splitlines()
        raise CalibrationError(
            f"this calibration differentiates gradients, and an operation of the model does not allow it: "
            f"{said[0] if said else type(error).__name__} Use plain operations in the place of fused ones and of "
            "once-differentiable functions, dense in the place of sparse gradients; or a calibration that only "
            "runs forward (lsuv)."
        ) from error


def norm(gradients: Sequence[Tensor], order: int = 2) -> Tensor:
    """Returns the norm of all gradients as one vector: Σ|g| (order 1) or √Σg² (order 2)."""
    if order == 1:
        return sum_of([g.abs() for g in gradients])
    return sum_of([g.square() for g in gradients]).sqrt()


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Returns the sum of all entries of some tensors, in the tensors' own order."""
    return torch.stack([tensor.sum() for tensor in tensors]).sum()


def windows(subject: Subject, count: int) -> Iterator[tuple[Batch, Batch]]:
    """Yields `count` pairs of consecutive batches in the order of the subject's seed."""
    batches = subject.batches(count + 1)
    current = next(batches)
    for following in batches:
        yield current, following
        current = following


def split(task: Task, batch: Batch, following: Batch) -> tuple[Batch, Batch]:
    """Returns the two halves of a batch's rows; where it cannot be halved, it and the batch after it."""
    return task.halves(batch) or (batch, following)


def has_scale(layer: Layer) -> bool:
    """Whether a free layer's scale is learned: whatever has been told apart, vectors and embeddings included."""
    return layer.role != "other"


_NEEDS_LOSS = (
    "the step {}, so its loss cannot be differentiated twice, which this calibration needs. Let the step return the "
    "loss tensor and leave backward to autoinit, or use a calibration that only runs forward (lsuv)."
)


class _Within(nn.Module):
    """Runs some work as its forward pass, so that `functional_call` substitutes the model's weights around it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], Any]) -> Any:
        return work()


class _BackwardRefused(Interceptor):
    """Raises where a step calls `loss.backward()`: that would use up the graph, and fill `.grad`."""

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if func is Tensor.backward:
            raise CalibrationError(_NEEDS_LOSS.format("calls backward itself"))
        return func(*args, **kwargs)


class _PlainWeightNorm(Interceptor):
    """Puts the formula v·g/‖v‖ in the place of the fused weight_norm, whose second derivative is wrong.

    In torch 2.13.0 its derivative treats ‖v‖ as a constant when it is differentiated again; gradgradcheck says so.
    """

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if func is torch._weight_norm:
            return _weight_norm(*args, **kwargs)
        return func(*args, **kwargs)


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _is_weight_norm(module: nn.Module) -> bool:
    """Whether a module is the parametrization, or has the old hook, that derives v·g/‖v‖."""
    hooks = module._forward_pre_hooks.values()
    return isinstance(module, _WeightNorm) or any(isinstance(hook, WeightNorm) for hook in hooks)


class _Part:
    """One scaled tensor of the model, and the trainable tensors behind it."""

    def __init__(self, name: str, value: Tensor, steps: parametrize.ParametrizationList | None, prefix: str) -> None:
        self.name = name
        self._value = value
        self._steps = steps
        self._prefix = prefix
        self.leaves = tuple(self.scaled(torch.ones((), device=value.device)))

    def scaled(self, scale: Tensor) -> dict[str, Tensor]:
        """Returns the trainable tensors that give the tensor times `scale`, by name."""
        value: Any = self._value * scale
        if self._steps is None:
            return {self.name: value}
        return {f"{self._prefix}{name}": original for name, original in originals(self._steps, value).items()}


def originals(steps: parametrize.ParametrizationList, value: Tensor) -> dict[str, Tensor]:
    """Returns the tensors behind a parametrized weight that give it a value, differentiable by that value."""
    found: Any = value
    parts: list[Any] = list(steps)
    for part in reversed(parts):
        found = part.right_inverse(found)
    if isinstance(found, Tensor):
        return {"original": found}
    # Aliases: weight_norm makes one of them from the other, and a gradient by that one must not count both ways.
    return {f"original{index}": tensor.view_as(tensor) for index, tensor in enumerate(found)}


def _parts(model: nn.Module, names: Iterable[str], parameters: Mapping[str, nn.Parameter]) -> list[_Part]:
    """Returns the tensors that can be scaled: no others than trained numbers, not all zero, whose scale is not fixed.

    The host looks at their values once, at all together.
    """
    found: list[tuple[_Part, Tensor]] = []
    for name in names:
        value = read(model, name).detach()
        if value.is_meta or not value.is_floating_point():
            continue
        if is_parametrized(model, name):
            found += _behind(model, name, value, parameters)
        elif name in parameters:
            found.append((_Part(name, value, None, ""), value.any()))
    fit = fetched([flag for _, flag in found])
    return [part for (part, _), flag in zip(found, fit, strict=True) if flag]


def _behind(
    model: nn.Module, name: str, value: Tensor, parameters: Mapping[str, nn.Parameter]
) -> list[tuple[_Part, Tensor]]:
    """Returns a parametrized weight and whether it can be scaled, on its device; nothing where it is clear that not."""
    path, _, attribute = name.rpartition(".")
    lists: Any = model.get_submodule(path).parametrizations
    steps: parametrize.ParametrizationList = lists[attribute]
    prefix = f"{path}.parametrizations.{attribute}.".removeprefix(".")
    follows = _follows(steps, value)
    if follows is None:
        return []
    part = _Part(name, value.clone(), steps, prefix)
    return [(part, value.any() & follows)] if all(leaf in parameters for leaf in part.leaves) else []


def _follows(steps: parametrize.ParametrizationList, value: Tensor) -> Tensor | None:
    """Returns whether a weight behind a parametrization takes a factor that is assigned to it, on its device.

    It does not where it is orthogonal; None where nothing of it can be assigned, or trained.
    """
    training = [part for part in steps.modules() if part.training]
    scale = torch.tensor(1.5, device=value.device, requires_grad=True)
    try:
        for part in training:  # in training mode spectral_norm would change its buffers
            part.training = False
        with torch.enable_grad():
            derived: Tensor = functional_call(steps, originals(steps, value * scale), ())
        return torch.isclose(derived, 1.5 * value, rtol=1e-3, atol=1e-6).all() if derived.requires_grad else None
    except (RuntimeError, ValueError):
        return None
    finally:
        for part in training:
            part.training = True


def _learns(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad and parameter.is_floating_point()
