"""Wider: every unit of a trained network several times, each copy heard by its share; or new units, not heard yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..seeds import seed_of_use
from .mapping import Axis, Choice, Factor, contraction, copies, index


def in_turn(factor: Factor) -> Tensor:
    """Returns unit u' → ⌊u'·before / after⌋: the copies of a unit stand beside each other.

    Whatever is put side by side keeps its place, and so do the groups of a group normalization, which copies in whole
    blocks ([W W], as HyperCloning has them: Samragh et al. 2024, arXiv:2409.12903) would mix.
    """
    return torch.arange(factor.after) * factor.before // factor.after


def at_random(seed: int) -> Choice:
    """Returns Net2Net's choice: the old units first, then copies of units drawn at random (arXiv:1511.05641).

    They are drawn without replacement until each has been taken, so that a normalization over twice as many units sees
    each of them twice.
    """

    def choose(factor: Factor) -> Tensor:
        generator = torch.Generator().manual_seed(seed_of_use(seed, f"copies of {factor}"))
        units = [torch.arange(factor.before)]
        for _ in range((factor.after - 1) // factor.before):
            units.append(torch.randperm(factor.before, generator=generator))
        return torch.cat(units)[: factor.after]

    return choose


def beside(factor: Factor) -> Tensor:
    """Returns the old units, and after them new ones that take after none."""
    units = torch.arange(factor.after)
    return torch.where(units < factor.before, units, -1)


@dataclass(frozen=True, slots=True)
class Filling:
    """How a tensor is read from the source's.

    Attributes:
        axes: what its axes count.
        choose: the source's unit for each of the model's.
        silent: new units are zero, because a normalization would see them; elsewhere they are as the model has them,
            and no old unit hears them.
        divides: units that are summed over share what their original had; False where a part is selected.
        noise: standard deviation of what is added to copies, relative to the tensor's own; the noise of all copies of
            a unit adds up to zero, so that no output changes.
        seed: of the noise.
    """

    axes: Sequence[Axis]
    choose: Choice
    silent: bool = False
    divides: bool = True
    noise: float = 0.0
    seed: int = 0

    def of(self, source: Tensor, own: Tensor) -> Tensor:
        """Returns the tensor for the model.

        W'[o, i] = W[u(o), u(i)] / (copies of i), u being the unit that is taken after.

        Args:
            source: the trained tensor.
            own: the model's, whose dtype and device the new one has.
        """
        units = [index(axis, self.choose) for axis in self.axes]
        value = source.to(device="cpu", dtype=torch.promote_types(source.dtype, torch.float32))
        for dimension, (axis, chosen) in enumerate(zip(self.axes, units, strict=True)):
            value = value.index_select(dimension, chosen.clamp(min=0))
            if axis.kind == "in" and self.divides:
                value = value / _along(copies(chosen, axis.before), dimension, value)
                value = self._stirred(value, chosen, axis.before, dimension)
        if self.divides:
            for dimension, axis in enumerate(self.axes):
                value = value * _along(contraction(axis, self.choose), dimension, value)
        return self._with_new(value.to(own.device), own, units).to(own.dtype)

    def _with_new(self, value: Tensor, own: Tensor, units: Sequence[Tensor]) -> Tensor:
        """Returns the tensor with what is new: rows of new units first, as they have columns of new ones, too."""
        kinds = list(enumerate(zip(self.axes, units, strict=True)))
        fresh = torch.zeros_like(value) if self.silent else own.detach().to(value.dtype)
        for wanted, new in (("in", torch.zeros_like(value)), ("out", fresh), ("rows", own.detach().to(value.dtype))):
            for dimension, (axis, chosen) in kinds:
                if axis.kind == wanted and bool((chosen < 0).any()):
                    value = torch.where(_along(chosen < 0, dimension, value).to(value.device), new, value)
        return value

    def _stirred(self, value: Tensor, chosen: Tensor, before: int, dimension: int) -> Tensor:
        """Returns the tensor with noise on the copies of each unit, which adds up to zero over them."""
        if not self.noise or not bool((copies(chosen, before) > 1).any()):
            return value
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype) * value.std() * self.noise
        shape = list(value.shape)
        shape[dimension] = before
        means = value.new_zeros(shape).index_add(dimension, chosen.clamp(min=0), drawn)
        means = means.index_select(dimension, chosen.clamp(min=0)) / _along(copies(chosen, before), dimension, value)
        return value + (drawn - means)


def _along(vector: Tensor, dimension: int, tensor: Tensor) -> Tensor:
    """Returns a vector as it stands along one dimension of a tensor; numbers in the tensor's dtype."""
    shape = [1] * tensor.dim()
    shape[dimension] = -1
    return (vector if vector.dtype == torch.bool else vector.to(tensor.dtype)).reshape(shape)


def is_even(factor: Factor) -> bool:
    """Whether each unit has as many copies as any other, so that no mean over them moves."""
    return factor.after % factor.before == 0
