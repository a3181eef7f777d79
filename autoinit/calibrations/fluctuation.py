"""Fluctuation-driven spiking: membranes that hover below the threshold and cross it by chance.

Rossbroich, Gygax & Zenke 2022, "Fluctuation-driven initialization for spiking neural network training",
arXiv:2206.10226.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..graph import Layer
from ..plans.fill import Adjustment
from ..task.products import watch_products
from .membranes import MEAN, Membrane, Membranes, read_together
from .standardize import reason_to_skip
from .subject import Subject
from .units import along_units, free_bias, moments, scale, set_bias, unit_axes, unit_count

XI = 1.0
"""ξ = (θ − μ_U)/σ_U: how many standard deviations the threshold θ lies above the mean."""
TOLERANCE = 0.01
"""Of the standard deviation, relative; of the unit means' root mean square, in units of that deviation."""
ITERATIONS = 24
"""Most passes for one layer; four to nine are usual, two or three without resets."""
LARGEST = 1e6
"""A factor beyond this, or below its inverse, would only amplify noise: the weight is left."""


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

    A pass looks at all layers, and the host reads what they did once at its end. Yet it sets one layer only: what a
    membrane makes of other weights follows from its whole course, resets included, and is not known before another
    pass, unlike the output of a product, which is set right within one (`standardize`).
    """
    weights = {layer.name: layer for layer in subject.graph.layers if not (reason_to_skip(layer) or layer.normalized)}
    pools = {name: layer for name, layer in weights.items() if layer.activation.name in ("spike", "linear")}
    return _Calibration(subject, pools).run() if pools else {}


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
        self._levels: Any = WeakTensorKeyDictionary()
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
        read_together(seen)
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
        """Returns the membranes of a pass in which products are changed, still on their devices."""
        membranes = Membranes(self._layers, self._levels)

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
            outputs[name].append(output.new_zeros(1) if found is None else found[0])
            if name == pool.layer.name:
                output.add_(along_units(pool.layer, output, pool.shift))

        seen = self._watch(change)
        means = [[torch.stack(outputs[name]).mean(0) for name in pool.weights if outputs[name]] for pool in self._pools]
        drives = read_together(
            seen, [torch.stack(parts).sum(0) if parts else torch.zeros(1, device="cpu") for parts in means]
        )
        for pool, drive in zip(self._pools, drives, strict=True):
            pool.drive = drive
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


def _drive(outputs: Sequence[Sequence[Tensor]]) -> Tensor:
    """Returns the sum over weights of the mean, over their uses, of what they put out for each unit."""
    parts = [torch.stack(list(uses)).mean(0) for uses in outputs if uses]
    return torch.stack(parts).sum(0) if parts else torch.zeros(1, device="cpu")


def _deviation(pool: _Pool, membrane: Membrane) -> float:
    return math.sqrt(max(0.0, membrane.within if pool.bias else membrane.total))
