"""What low-rank adapters are told of the data: the second moments of a weight's inputs, the gradient it would get."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CalibrationError
from ..recipes.adapters import PASSES
from ..task.evaluation import evaluating
from ..task.snapshot import preserved_random, seed_generators
from ..task.task import Task
from .pairs import Pair

ROOM = 2**30
"""Bytes of what is measured at a time: where a model needs more, its weights are looked at group by group."""


@dataclass(slots=True)
class Moments:
    """Sums over the inputs of one weight, in float64 on the CPU and float32 elsewhere.

    Attributes:
        outer: Σ x·xᵀ, [in, in].
        total: Σ x, [in].
        count: inputs that were seen.
    """

    outer: Tensor
    total: Tensor
    count: int = 0

    def add(self, inputs: Tensor) -> None:
        """Adds inputs, of which the last axis is that of the features."""
        rows = inputs.detach().reshape(-1, len(self.total)).to(self.outer.dtype)
        self.outer.addmm_(rows.T, rows)
        self.total.add_(rows.sum(0))
        self.count += rows.shape[0]

    @property
    def second(self) -> Tensor:
        """E[x·xᵀ]."""
        return self.outer / max(1, self.count)

    @property
    def covariance(self) -> Tensor:
        """E[(x − E x)·(x − E x)ᵀ]."""
        mean = self.total / max(1, self.count)
        return self.second - torch.outer(mean, mean)


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""What they multiply are patches of their inputs."""

Spend = Callable[..., None]


def seen_inputs(task: Task, pairs: Sequence[Pair], seed: int, spend: Spend) -> Iterator[tuple[Pair, Moments]]:
    """Yields each pair with the moments of what the weight beside it multiplies, over some training batches.

    The passes are those of evaluation, without gradient. The caller puts the model back.

    Args:
        task: with the trained weights in place.
        pairs: of the model.
        seed: of the order of the batches.
        spend: told the forward passes.

    Raises:
        CalibrationError: a weight was not used in the passes, or its inputs are not finite.
    """
    for group in _groups(pairs, lambda pair: _width(task.model, pair) ** 2 * 8):
        moments = {pair.module: _moments(task.model, pair) for pair in group}
        with _hooked(task.model, moments), preserved_random(), torch.no_grad():
            for batch in task.order(seed, PASSES):
                seed_generators(seed, task.device)
                with evaluating(task.model, task.manner):
                    task.loss(batch)
                spend(forwards=1)
        for pair in group:
            found = moments[pair.module]
            if not found.count or not bool(found.outer.isfinite().all()):
                why = "is used by no pass on the data" if not found.count else "gets inputs that are not finite"
                raise CalibrationError(f"{pair.base} {why}: its adapter cannot start from them. Use lora_default.")
            yield pair, found


def seen_gradients(task: Task, pairs: Sequence[Pair], seed: int, spend: Spend) -> Iterator[tuple[Pair, Tensor]]:
    """Yields each pair with the mean gradient of the weight beside it, over some training batches, in its own shape.

    The passes are those of training, and only what was asked for gets a gradient. The caller puts the model back.

    Args: and Raises: as of `seen_inputs`.
    """
    for group in _groups(pairs, lambda pair: task.model.get_parameter(pair.base).numel() * 4):
        weights = {pair.base: task.model.get_parameter(pair.base) for pair in group}
        with _only_trained(task.model, list(weights.values())), preserved_random(), torch.enable_grad():
            for batch in task.order(seed, PASSES):
                seed_generators(seed, task.device)
                task.model.train()
                task.backward(batch)
                spend(steps=1)
            found = {name: weight.grad for name, weight in weights.items()}
        for pair in group:
            gradient = found[pair.base]
            if gradient is None or not bool(gradient.isfinite().all()):
                why = "gets no gradient on the data" if gradient is None else "gets a gradient that is not finite"
                raise CalibrationError(f"{pair.base} {why}: its adapter cannot start from it. Use lora_default.")
            yield pair, gradient / PASSES


def _groups(pairs: Sequence[Pair], size: Callable[[Pair], int]) -> Iterator[list[Pair]]:
    """Yields the pairs in groups of which what is measured has room; pairs of one module count once."""
    group: list[Pair] = []
    held: dict[str, int] = {}
    for pair in pairs:
        if group and sum(held.values()) + size(pair) > ROOM and pair.module not in held:
            yield group
            group, held = [], {}
        group.append(pair)
        held[pair.module] = size(pair)
    if group:
        yield group


def _width(model: nn.Module, pair: Pair) -> int:
    return model.get_parameter(pair.down)[0].numel()


def _moments(model: nn.Module, pair: Pair) -> Moments:
    device, width = model.get_parameter(pair.base).device, _width(model, pair)
    dtype = torch.float64 if device.type == "cpu" else torch.float32
    return Moments(
        torch.zeros(width, width, dtype=dtype, device=device), torch.zeros(width, dtype=dtype, device=device)
    )


def _patches(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, inputs: Tensor) -> Iterator[Tensor]:
    """Yields what a convolution's kernels see, [places…, channels · taps], row by row: all at once may have no room."""
    places = len(module.kernel_size)
    rows = inputs if inputs.dim() == places + 2 else inputs[None]
    ends: list[int] = module._reversed_padding_repeated_twice  # before and after, "same" included, the last axis first
    for row in rows.detach():
        seen = nn.functional.pad(row, ends)
        for axis in range(places):
            seen = seen.unfold(1 + axis, module.kernel_size[axis], module.stride[axis])
        yield seen.movedim(0, places).flatten(places)


@contextlib.contextmanager
def _hooked(model: nn.Module, moments: dict[str, Moments]) -> Iterator[None]:
    """Has the inputs of modules added up while the block runs."""

    def watch(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def seen(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor) and inputs[0].is_floating_point():
                for part in _patches(module, inputs[0]) if isinstance(module, _CONVOLUTIONS) else inputs[:1]:
                    moments[path].add(part)

        return seen

    handles = [model.get_submodule(path).register_forward_pre_hook(watch(path)) for path in moments]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _only_trained(model: nn.Module, weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Has these weights alone get gradients while the block runs; those that others hold stay as they are."""
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    chosen = {id(weight) for weight in weights}
    try:
        for parameter, _, _ in before:
            parameter.requires_grad_(id(parameter) in chosen)
            parameter.grad = None
        yield
    finally:
        for parameter, requires, gradient in before:
            parameter.requires_grad_(requires)
            parameter.grad = gradient
