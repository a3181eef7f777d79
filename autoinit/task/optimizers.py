"""Fresh optimizers like the owner's: same class, same groups, same parameters, any learning rate."""

from __future__ import annotations

import bisect
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau, SequentialLR

from ..errors import OptimizerError
from .assign import derived_name

DEFAULT_LR = 1e-3
"""Centre of the learning rates that are searched where no optimizer is given."""

ALLOWED = (
    "Allowed: optimizer=callable(params) returning an Optimizer or (Optimizer, scheduler), "
    "an existing Optimizer, or None for AdamW."
)
RATES = ("lr", "initial_lr", "max_lr", "min_lr")
"""Group entries that are learning rates; the last two are OneCycleLR's."""


@runtime_checkable
class _Schedulers(Protocol):
    _schedulers: list[Any]


@runtime_checkable
class _BaseRates(Protocol):
    base_lrs: list[Any]


@runtime_checkable
class _MaxRates(Protocol):
    max_lrs: list[Any]


class OptimizerBuilder:
    """Builds the same optimizer again and again, each time with fresh state.

    Attributes:
        name: class of the optimizer.
        lr: its base learning rate (of the first group); None where it has none.
        lr_searched: whether the learning rate is to be searched around `lr`.
        untrained: names of the trainable parameters that the optimizer does not hold, as the graph has them.
    """

    def __init__(self, model: nn.Module, optimizer: Any = None, lr: float | str | None = None) -> None:
        _check_lr(lr)
        self._model = model
        self._optimizer = inner_optimizer(optimizer)
        self._scale = 1.0
        built, scheduler = self._fresh()
        _check(built, model)
        self.name = type(built).__name__
        self.untrained = _untrained(built, model)
        own = _base_lr(built, scheduler)
        self.lr_searched = lr == "search" or (lr is None and optimizer is None)
        self.lr = own
        if isinstance(lr, (int, float)):
            if own is None:
                raise OptimizerError(f"lr={lr} is given, but {self.name} has no learning rate to set.")
            self.lr = float(lr)
            self._scale = float(lr) / own if own else 1.0
        if self.lr is None or self.lr == 0:
            self.lr_searched = False

    def __call__(self, lr_factor: float = 1.0) -> tuple[Optimizer, Any]:
        """Returns (optimizer, scheduler or None), every learning rate times `lr_factor`."""
        optimizer, scheduler = self._fresh()
        scale_lr(optimizer, scheduler, self._scale * lr_factor)
        fuse(optimizer)
        return optimizer, scheduler

    def _fresh(self) -> tuple[Optimizer, Any]:
        trainable = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        if self._optimizer is None:
            return AdamW(trainable, lr=DEFAULT_LR), None
        if isinstance(self._optimizer, Optimizer):
            return rebuilt(self._optimizer), None
        if not callable(self._optimizer):
            raise OptimizerError(f"optimizer is {self._optimizer!r}. {ALLOWED}")
        return _unpacked(_called(self._optimizer, trainable))


def inner_optimizer(optimizer: Any) -> Any:
    """Returns the optimizer within a wrapper that is one itself, as Accelerate's is; any other as it is."""
    while isinstance(optimizer, Optimizer) and isinstance(vars(optimizer).get("optimizer"), Optimizer):
        optimizer = vars(optimizer)["optimizer"]
    return optimizer


def fuse(optimizer: Optimizer) -> None:
    """Lets Adam or AdamW on a CPU move all weights in one kernel where its owner asked for no form of it.

    The fused form does the same arithmetic, rounded elsewhere; training steps take 7 to 38 % less time by it
    (benchmarks/results/concurrency.md). SGD gains nothing. On a GPU torch chooses a form of its own.
    """
    if type(optimizer) not in (Adam, AdamW):
        return
    if not all(_is_fusible(group) for group in optimizer.param_groups):
        return
    for group in optimizer.param_groups:
        group["fused"] = True
    optimizer.register_step_pre_hook(unfuse_strided)


def _is_fusible(group: dict[str, Any]) -> bool:
    free = group["fused"] is None and group["foreach"] is None
    plain = not group["capturable"] and not group["differentiable"]
    return (
        free
        and plain
        and all(
            weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64) and weight.is_contiguous()
            for weight in group["params"]
        )
    )


def unfuse_strided(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Goes back to torch's loop where a weight or its gradient is not contiguous in memory.

    torch's fused kernel for the CPU then pairs entries of the one with other entries of the other (seen in 2.13).
    Autograd lays gradients out like their weights; hooks and steps of one's own may not, and may lay a weight anew.
    """
    for group in optimizer.param_groups:
        moved = [weight for weight in group["params"] if weight.grad is not None]
        if group["fused"] and not all(map(_contiguous, (*moved, *(weight.grad for weight in moved)))):
            group["fused"] = False


def _contiguous(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.is_contiguous()


def scale_lr(optimizer: Optimizer, scheduler: Any, factor: float) -> None:
    """Multiplies every learning rate of an optimizer and its schedulers."""
    if factor == 1.0:
        return
    for group in optimizer.param_groups:
        for key in RATES:
            if key in group:
                group[key] = group[key] * factor
    for part in scheduler_parts(scheduler):
        if isinstance(part, _BaseRates):
            part.base_lrs = [rate * factor for rate in part.base_lrs]
        if isinstance(part, _MaxRates):
            part.max_lrs = [rate * factor for rate in part.max_lrs]


def step_scheduler(scheduler: Any, loss: float | Tensor) -> None:
    """Steps a scheduler after an optimizer step.

    ReduceLROnPlateau is told the loss. OneCycleLR refuses to be stepped past its end: it stays at its last rate.
    """
    if scheduler is None or _is_over(scheduler):
        return
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(loss)
    else:
        scheduler.step()


def _is_over(scheduler: Any) -> bool:
    """Whether the next step would take a OneCycleLR, also one inside another scheduler, past its end."""
    if isinstance(scheduler, OneCycleLR):
        return scheduler.last_epoch >= scheduler.total_steps - 1
    parts: list[Any] = scheduler._schedulers if isinstance(scheduler, _Schedulers) else []
    if isinstance(scheduler, SequentialLR):  # only the one whose turn it is will be stepped
        turn = bisect.bisect_right(scheduler._milestones, scheduler.last_epoch + 1)
        parts = parts[turn : turn + 1]
    return any(_is_over(part) for part in parts)


def scheduler_parts(scheduler: Any) -> Iterator[Any]:
    """Yields a scheduler and those inside it; nothing for None."""
    if scheduler is None:
        return
    yield scheduler
    if isinstance(scheduler, _Schedulers):
        for part in scheduler._schedulers:
            yield from scheduler_parts(part)


def _called(factory: Callable[..., Any], parameters: list[nn.Parameter]) -> Any:
    try:
        return factory(parameters)
    except OptimizerError:
        raise
    except Exception as error:
        raise OptimizerError(
            f"the optimizer factory failed on {len(parameters)} parameters: {type(error).__name__}: {error}. {ALLOWED}"
        ) from error


def _unpacked(result: Any) -> tuple[Optimizer, Any]:
    if isinstance(result, Optimizer):
        return result, None
    if isinstance(result, (tuple, list)) and len(result) == 2 and isinstance(result[0], Optimizer):
        scheduler = result[1]
        if scheduler is None or isinstance(scheduler, (LRScheduler, ReduceLROnPlateau)):
            return result[0], scheduler
        raise OptimizerError(
            f"the optimizer factory returned a {type(scheduler).__name__} as scheduler. "
            "Allowed: a torch.optim.lr_scheduler, or None."
        )
    got = "None (is its return missing?)" if result is None else f"a {type(result).__name__}"
    raise OptimizerError(f"the optimizer factory returned {got}. {ALLOWED}")


def rebuilt(owner: Optimizer, parameters: Sequence[Sequence[nn.Parameter]] | None = None) -> Optimizer:
    """Returns an optimizer of the same class with the same options per group, and no state.

    Args:
        owner: the given one.
        parameters: of each group; None for its own.

    Raises:
        OptimizerError: its class cannot be called with its own options.
    """
    kind = type(owner)
    accepted = inspect.signature(kind).parameters
    options = {key: value for key, value in owner.defaults.items() if key in accepted}
    groups = [{key: _plain(value) for key, value in group.items()} for group in owner.param_groups]
    held = [group["params"] for group in groups] if parameters is None else parameters
    try:
        fresh = kind([{"params": list(group)} for group in held], **options)
    except Exception as error:
        raise OptimizerError(
            f"the given {kind.__name__} cannot be built again from its own options ({error}). "
            f"Pass a factory: optimizer=lambda params: {kind.__name__}(params, …)."
        ) from error
    for new, old in zip(fresh.param_groups, groups, strict=True):
        new.update({key: value for key, value in old.items() if key != "params"})
    return fresh


def _plain(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _check(optimizer: Optimizer, model: nn.Module) -> None:
    name = type(optimizer).__name__
    needs = inspect.signature(optimizer.step).parameters.get("closure")
    if isinstance(optimizer, LBFGS) or (needs is not None and needs.default is inspect.Parameter.empty):
        raise OptimizerError(
            f"{name} needs a closure that evaluates the loss several times per step, which a probe of equal "
            "steps cannot give. Choose the initial weights with SGD or AdamW, then train with it."
        )
    known = {id(parameter) for parameter in model.parameters()}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    foreign = sum(id(parameter) not in known for parameter in held)
    if foreign:
        raise OptimizerError(
            f"{foreign} of the {len(held)} parameters in the {name} do not belong to the model. "
            "Build it from this model's parameters; put parameters of a loss into the model."
        )


def _untrained(optimizer: Optimizer, model: nn.Module) -> frozenset[str]:
    """Returns the trainable parameters without a place in an optimizer; of a parametrized weight, all or none."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    named = ((derived_name(name), parameter) for name, parameter in model.named_parameters())
    return frozenset(name for name, parameter in named if parameter.requires_grad and id(parameter) not in held)


def _base_lr(optimizer: Optimizer, scheduler: Any) -> float | None:
    """Returns the first group's rate; where a scheduler has changed it (a warm-up), the one before."""
    group = optimizer.param_groups[0]
    key = "initial_lr" if scheduler is not None and "initial_lr" in group else "lr"
    return float(group[key]) if key in group else None


def _check_lr(lr: Any) -> None:
    if lr is None or lr == "search":
        return
    number = isinstance(lr, (int, float)) and not isinstance(lr, bool)
    if not number or not math.isfinite(lr) or lr <= 0:
        raise OptimizerError(f"lr is {lr!r}. Allowed: a positive number, 'search', or None.")
