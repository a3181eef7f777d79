"""Finds the membranes of a spiking network in a forward pass, and takes their moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..graph import Layer
from ..task.batches import tensors
from .fetching import fetched
from .follower import Follower
from .units import moments

MEAN = 0.0
"""μ_U: of the membrane potential, which rests at 0."""
THRESHOLD = 1.0
"""θ where none can be read: a step function of something that has no threshold subtracted, or none above 0."""

_COMPARISONS = frozenset("gt ge lt le greater greater_equal less less_equal heaviside sign sgn".split())
_STEPS = frozenset("getitem select unbind iter narrow split chunk tensor_split index_select".split())
"""What takes single time steps out of a product that was computed for all of them at once."""
_SUBTRACTIONS = frozenset({"sub", "subtract", "isub"})


@dataclass
class Membrane:
    """What was seen of one layer's membrane in one pass; on its device until the pass is over, and then on the host.

    Attributes:
        layer: the weight whose units it has.
        steps: comparisons with the threshold.
        threshold: mean of θ.
        mean: of each unit, [units]; of all, [1], where it is not clear which axis runs over them.
        square: mean of the square of each unit, or of all.
    """

    layer: Layer
    steps: int = 0
    threshold: float = 0.0
    mean: Tensor = field(default_factory=lambda: torch.zeros(1, device="cpu"))
    square: Tensor = field(default_factory=lambda: torch.zeros(1, device="cpu"))

    @property
    def within(self) -> float:
        """Mean variance of a unit around its mean."""
        return (self.square - self.mean**2).mean().item()

    @property
    def total(self) -> float:
        """Variance around the mean of all."""
        return (self.square.mean() - self.mean.mean() ** 2).item()

    def add(self, potential: Tensor, threshold: float) -> None:
        """Adds one step: a membrane potential [batch, …units…] and its threshold."""
        potential = potential.detach()
        wide = torch.float32 if potential.device.type == "mps" else torch.float64
        found = moments(self.layer, potential)
        if found is None:
            found = (potential.to(wide).mean().reshape(1), potential.to(wide).var(correction=0).reshape(1))
        mean, variance = (moment.to(wide) for moment in found)
        square = variance + mean**2
        self.steps += 1
        share = 1 / self.steps
        self.mean = mean * share + self.mean.to(mean) * (1 - share)
        self.square = square * share + self.square.to(square) * (1 - share)
        self.threshold += (threshold - self.threshold) * share


class Membranes(Follower[Mapping[str, int]]):
    """Finds the membranes of a forward pass: marks are the weights that went in, each with the number of its product.

    A membrane is compared with its threshold more than once where a reset looks at it again. It counts where some
    product went in since the last comparison.

    Attributes:
        found: weight → the membrane that it feeds, in the order of the forward pass.
    """

    def __init__(self, layers: Mapping[str, Layer], levels: Any = None) -> None:
        """Follows the products of some weights.

        Args:
            layers: the weights by name.
            levels: thresholds that the host has read, by the tensor; it looks once at one that stays as it is.
        """
        super().__init__()
        self.found: dict[str, Membrane] = {}
        self._layers = layers
        self._levels: Any = WeakTensorKeyDictionary() if levels is None else levels
        self._clock = 0
        self._compared: dict[str, int] = {}
        self._shifted: Any = WeakTensorKeyDictionary()

    def product(self, name: str, output: Tensor) -> None:
        """Says that a weight's product has just made this output."""
        self.made(output, self._now([name]) if name in self._layers else None)

    def hand_on(
        self, name: str, args: tuple[Any, ...], marks: list[Mapping[str, int]], result: Tensor
    ) -> Mapping[str, int] | None:
        """Returns the latest product of each weight that went in; notes the membrane where this is a comparison."""
        joined = {weight: max(mark.get(weight, 0) for mark in marks) for mark in marks for weight in mark}
        if name in _COMPARISONS:
            self._compare(args, joined)
            return None
        if name in _SUBTRACTIONS and self.mark_of(args[0]) is not None and (level := self._level(args[1])) is not None:
            self._shifted[result] = (args[0], level)
        if not result.is_floating_point():
            return None
        return self._now(joined) if name in _STEPS else joined

    def _now(self, names: Any) -> Mapping[str, int]:
        self._clock += 1
        return dict.fromkeys(names, self._clock)

    def _level(self, value: Any) -> float | None:
        """Returns a threshold; None for a value that depends on data."""
        if isinstance(value, Real):
            return float(value)
        if not isinstance(value, Tensor) or self.mark_of(value) is not None:
            return None
        version = -1 if value.is_inference() else value._version
        if self._levels.get(value, (None,))[0] != version or version < 0:
            self._levels[value] = (version, value.double().mean().item())
        level: float = self._levels[value][1]
        return level

    def _compare(self, args: tuple[Any, ...], joined: Mapping[str, int]) -> None:
        fresh = [weight for weight, time in joined.items() if time > self._compared.get(weight, 0)]
        side = next((value for value in tensors(args) if self.mark_of(value) is not None), None)
        if not fresh or side is None:
            return
        self._compared.update((weight, joined[weight]) for weight in fresh)
        levels = [level for value in args if value is not side and (level := self._level(value)) is not None]
        potential, threshold = side, levels[0] if levels else 0.0
        if threshold == 0.0:
            potential, threshold = self._shifted.get(side) or (side + THRESHOLD, THRESHOLD)
        known = next((weight for weight in fresh if weight in self.found), fresh[0])
        membrane = self.found.setdefault(known, Membrane(self._layers[known]))
        for weight in fresh:
            self.found.setdefault(weight, membrane)
        membrane.add(potential, threshold if threshold > MEAN else THRESHOLD)


def read_together(seen: Mapping[str, Membrane], others: Sequence[Tensor] = ()) -> list[Tensor]:
    """Brings membranes to the host, and returns other tensors from there: all that it waits for after a pass."""
    membranes = list({id(membrane): membrane for membrane in seen.values()}.values())
    found = iter(fetched([*others, *(part for membrane in membranes for part in (membrane.mean, membrane.square))]))
    here = [next(found) for _ in others]
    for membrane in membranes:
        membrane.mean, membrane.square = next(found), next(found)
    return here
