"""Fluctuation-driven spiking: membranes that hover below the threshold and cross it by chance.

Rossbroich, Gygax & Zenke 2022, "Fluctuation-driven initialization for spiking neural network training",
arXiv:2206.10226.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..graph import Layer
from ..plans.fill import Adjustment
from ..task.batches import tensors
from ..task.products import watch_products
from .follower import Follower
from .standardize import reason_to_skip
from .subject import Subject
from .units import along_units, free_bias, moments, scale, set_bias, unit_axes, unit_count

MEAN = 0.0
"""μ_U: of the membrane potential, which rests at 0."""
XI = 1.0
"""ξ = (θ − μ_U)/σ_U: how many standard deviations the threshold θ lies above the mean."""
THRESHOLD = 1.0
"""θ where none can be read: a step function of something that has no threshold subtracted, or none above 0."""
TOLERANCE = 0.01
"""Of the standard deviation, relative; of the unit means' root mean square, in units of that deviation."""
ITERATIONS = 24
"""Most passes for one layer; four to nine are usual, two or three without resets."""
LARGEST = 1e6
"""A factor beyond this, or below its inverse, would only amplify noise: the weight is left."""

_COMPARISONS = frozenset("gt ge lt le greater greater_equal less less_equal heaviside sign sgn".split())
_STEPS = frozenset("getitem select unbind iter narrow split chunk tensor_split index_select".split())
"""What takes single time steps out of a product that was computed for all of them at once."""
_SUBTRACTIONS = frozenset({"sub", "subtract", "isub"})


def fluctuation_driven(subject: Subject) -> dict[str, Adjustment]:
    """Returns the factors of weights and the biases at which membranes have mean μ_U and deviation (θ − μ_U)/ξ.

    The paper sets σ_w² from n·ν·∫ε², the number of inputs, their firing rate and the energy of the kernel by which
    a spike acts on the membrane, for Poisson inputs that are independent. Here the same aim is reached by measuring:
    forward passes on the batch, layer after layer, each seeing the spikes that the calibrated ones before it fire. So
    rates, correlations, decays, synapses and the number of steps are what they are, and no neuron model is assumed.

    - A membrane is what is compared with a threshold and was computed from a weight's output: the argument of
      gt, ge, heaviside or sign, also inside a surrogate gradient's Function, once for each step.
      So snntorch's neurons are found, and neurons written by hand.
    - θ is the number that it is compared with, or that was subtracted before a comparison with 0.
    - The paper's statistics are those of a membrane that is never reset. What is measured here includes resets, as
      does training.
    - The standard deviation is that of a unit around its own mean, over batch and steps. The mean of each unit is
      set by its bias (biases of a recurrent connection are left). Without a free bias only the scale is set, and the
      deviation is that around the mean of all.
    - Each weight's own factor in the recipe multiplies its target.

    Weights that reach no membrane, or whose output is normalized, are left.
    """
    weights = {layer.name: layer for layer in subject.graph.layers if not (reason_to_skip(layer) or layer.normalized)}
    pools = {name: layer for name, layer in weights.items() if layer.activation.name in ("spike", "linear")}
    return _Calibration(subject, pools).run() if pools else {}


@dataclass
class Membrane:
    """What was seen of one layer's membrane in one pass.

    Attributes:
        layer: the weight whose units it has.
        steps: comparisons with the threshold.
        threshold: mean of θ.
        mean: of each unit, [units]; of all, [1], where it is not clear which axis runs over them.
        within: mean variance of a unit around its mean.
        total: variance around the mean of all.
    """

    layer: Layer
    steps: int = 0
    threshold: float = 0.0
    mean: Tensor = field(default_factory=lambda: torch.zeros(1))
    within: float = 0.0
    total: float = 0.0
    _square: Tensor = field(default_factory=lambda: torch.zeros(1))

    def add(self, potential: Tensor, threshold: float) -> None:
        """Adds one step: a membrane potential [batch, …units…] and its threshold."""
        potential = potential.detach()
        found = moments(self.layer, potential)
        if found is None:
            found = (potential.double().mean().reshape(1), potential.double().var(correction=0).reshape(1))
        mean, variance = (moment.to("cpu", torch.float64) for moment in found)
        square = variance + mean**2
        self.steps += 1
        share = 1 / self.steps
        self.mean = mean * share + self.mean * (1 - share)
        self._square = square * share + self._square * (1 - share)
        self.threshold += (threshold - self.threshold) * share
        self.within = (self._square - self.mean**2).mean().item()
        self.total = (self._square.mean() - self.mean.mean() ** 2).item()


class Membranes(Follower[Mapping[str, int]]):
    """Finds the membranes of a forward pass: marks are the weights that went in, each with the number of its product.

    A membrane is compared with its threshold more than once where a reset looks at it again. It counts where some
    product went in since the last comparison.

    Attributes:
        found: weight → the membrane that it feeds, in the order of the forward pass.
    """

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        super().__init__()
        self.found: dict[str, Membrane] = {}
        self._layers = layers
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
        return value.double().mean().item() if isinstance(value, Tensor) and self.mark_of(value) is None else None

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


@dataclass
class _Pool:
    """One layer of spiking neurons under way: the weights that feed it, and the bias that centres it.

    Attributes:
        weights: that feed it.
        bias: of the first of them that has a free one; empty where there is none.
        layer: the weight of that bias.
        kernel: how far a membrane moves for a constant input of 1, mean over the steps, [units] or [1].
        shift: value of the bias.
        drive: mean of the weights' outputs without the bias, per unit, in the last pass.
        factors: that each weight has taken.
        response: [2, 2], by how much (log of the deviation, mean/target) answer to (log of the factor, a push of
            the mean by the bias); the identity for a linear membrane.
        last: the last change, and where it started from, both [2].
    """

    weights: tuple[str, ...]
    bias: str
    layer: Layer
    kernel: Tensor
    shift: Tensor
    drive: Tensor
    factors: dict[str, float]
    response: Tensor = field(default_factory=lambda: torch.eye(2, dtype=torch.float64))
    last: tuple[Tensor, Tensor] | None = None

    def solve(self, state: Tensor, wanted: Tensor) -> Tensor:
        """Returns the next change, [2]; what the last one did has been learned (Broyden's rule)."""
        if self.last is not None:
            change, before = self.last
            error = state - before - self.response @ change
            self.response = self.response + torch.outer(error, change) / torch.dot(change, change).clamp(min=1e-12)
        if self.response.diagonal().min() < 0.2 or torch.linalg.det(self.response) < 0.1:
            self.response = torch.eye(2, dtype=torch.float64)
        step: Tensor = torch.linalg.solve(self.response, wanted - state)
        step = step if self.last is None else step.clamp(-1.0, 1.0)
        self.last = (step, state)
        return step


class _Calibration:
    """The pools of one model, set right one after the other."""

    def __init__(self, subject: Subject, layers: Mapping[str, Layer]) -> None:
        self._subject, self._layers = subject, layers
        self._pools: list[_Pool] = []
        self._pool_of: dict[str, _Pool] = {}

    def run(self) -> dict[str, Adjustment]:
        """Returns the adjustments of all pools."""
        self._find()
        seen = self._pass()
        for pool in self._pools:
            for _ in range(ITERATIONS):
                if self._is_settled(pool, seen) or not self._improve(pool, seen[pool.weights[0]]):
                    break
                seen = self._pass()
        found: dict[str, Adjustment] = {}
        for pool in self._pools:
            found |= {name: Adjustment(factor=factor) for name, factor in pool.factors.items() if factor != 1.0}
            if pool.bias:
                set_bias(self._subject.model, pool.bias, pool.shift)
                found[pool.bias] = Adjustment(values=tuple(pool.shift.tolist()))
        return found

    def _find(self) -> None:
        """Fills in the pools, by a pass in which every product is −1: no neuron fires, and the kernels can be read."""
        seen = self._watch(lambda name, output: output.fill_(-1.0) if name in self._layers else output)
        for membrane in {id(membrane): membrane for membrane in seen.values()}.values():
            weights = tuple(name for name, other in seen.items() if other is membrane)
            biases = {name: free_bias(self._subject.model, self._subject.graph, self._layers[name]) for name in weights}
            named = next((name for name in weights if biases[name] and len(membrane.mean) > 1), "")
            kernel = -membrane.mean / len(weights)
            pool = _Pool(
                weights=weights,
                bias=biases.get(named, ""),
                layer=self._layers[named or weights[0]],
                kernel=torch.where(kernel > 0.1, kernel, 1.0),
                shift=torch.zeros(unit_count(self._layers[named]) if named else 1),
                drive=torch.zeros(1),
                factors=dict.fromkeys(weights, 1.0),
            )
            self._pools.append(pool)
            self._pool_of.update(dict.fromkeys(weights, pool))
            if pool.bias:
                set_bias(self._subject.model, pool.bias, pool.shift)  # it is added here, wherever the model adds it

    def _watch(self, change: Callable[[str, Tensor], object]) -> dict[str, Membrane]:
        membranes = Membranes(self._layers)

        def on_product(name: str, output: Tensor) -> None:
            change(name, output)
            membranes.product(name, output)

        with torch.no_grad(), watch_products(self._subject.model, on_product), membranes:
            self._subject.forward()
        return membranes.found

    def _pass(self) -> dict[str, Membrane]:
        """Returns the membranes of a pass with the biases as they stand, and notes what drives them."""
        outputs: dict[str, list[Tensor]] = {name: [] for name in self._pool_of}

        def change(name: str, output: Tensor) -> None:
            pool = self._pool_of.get(name)
            if pool is None or not pool.bias or not unit_axes(self._layers[name], output):
                return
            found = moments(self._layers[name], output.detach())
            outputs[name].append(torch.zeros(1) if found is None else found[0].cpu())
            if name == pool.layer.name:
                output.add_(along_units(pool.layer, output, pool.shift))

        seen = self._watch(change)
        for pool in self._pools:
            parts = [torch.stack(outputs[name]).mean(0) for name in pool.weights if outputs[name]]
            pool.drive = torch.stack(parts).sum(0) if parts else torch.zeros(1)
        return seen

    def _target(self, pool: _Pool, membrane: Membrane) -> float:
        return (membrane.threshold - MEAN) / XI * self._subject.targets.get(pool.weights[0], 1.0)

    def _is_settled(self, pool: _Pool, seen: Mapping[str, Membrane]) -> bool:
        membrane = seen.get(pool.weights[0])
        if membrane is None:
            return True
        target = self._target(pool, membrane)
        off = (membrane.mean - MEAN).square().mean().sqrt().item() if pool.bias else 0.0
        return abs(_deviation(pool, membrane) / target - 1) <= TOLERANCE and off <= TOLERANCE * target

    def _improve(self, pool: _Pool, membrane: Membrane) -> bool:
        """Changes weights and bias as the membrane needs it; returns whether that can be done.

        A linear membrane has U = K·(drive + bias): a factor f on the weights multiplies its deviation by f, and the
        bias that then gives μ_U is bias + (μ_U − U)/K − (f − 1)·drive. Resets, pooling and recurrent connections
        answer otherwise: how is learned from what each change did.
        """
        deviation = _deviation(pool, membrane)
        if not 1 / LARGEST < deviation < LARGEST:
            return False
        target = self._target(pool, membrane)
        mean = membrane.mean.mean().item() if pool.bias else MEAN
        state = torch.tensor([math.log(deviation), mean / target], dtype=torch.float64)
        wanted = torch.tensor([math.log(target), MEAN / target], dtype=torch.float64)
        log_factor, push = pool.solve(state, wanted).tolist()
        factor = math.exp(log_factor)
        changes = [(self._layers[name], torch.tensor([factor])) for name in pool.weights]
        for name, taken in scale(self._subject.model, changes).items():
            pool.factors[name] *= factor if taken else 1.0
        if pool.bias:
            pushes = push * target + mean - membrane.mean  # what sets units apart is evened out besides
            pool.shift = pool.shift + pushes / pool.kernel - (factor - 1) * pool.drive
        return True


def _deviation(pool: _Pool, membrane: Membrane) -> float:
    return math.sqrt(max(0.0, membrane.within if pool.bias else membrane.total))
