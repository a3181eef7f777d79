"""Layer-sequential unit variance: every layer's output gets variance 1 on a batch.

Mishkin & Matas 2016, "All you need is a good init", arXiv:1511.06422.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..assign import assign, read
from ..graph import Graph, Layer
from ..tape import watch_products

TOLERANCE = 0.02
"""Of the output's standard deviation; the paper's 0.1 of the variance is coarser than what a pass reaches."""
ITERATIONS = 8
LARGEST = 1e4
"""A factor beyond this, or below its inverse, would only amplify noise or a bias: the weight is left."""


def lsuv(
    model: nn.Module,
    graph: Graph,
    run: Callable[[], Any],
    targets: Mapping[str, float] | None = None,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
) -> dict[str, float]:
    """Returns the factor of each weight, rescaled in place until its output has the std that is wanted.

    Within one pass each output is rescaled as soon as it is seen, so that the next layer already sees unit
    variance; as many passes as the paper has layers come down to two or three. Further passes settle what
    biases shift.

    Args:
        model: unwrapped; random states and buffers are not put back here.
        graph: its architecture; `reason_to_skip` says which layers are left alone.
        run: one forward pass on the batch; a backward inside is passed over.
        targets: standard deviation wanted of a weight's output, by name; 1 where it is not named.
        tolerance: of the standard deviation, relative.
        iterations: most passes.
    """
    named = targets or {}
    wanted = {layer.name: named.get(layer.name, 1.0) for layer in graph.layers if not reason_to_skip(layer)}
    total: dict[str, float] = {}
    for _ in range(iterations):
        factors = {name: value for name, value in _measure(model, wanted, run, tolerance).items() if value != 1.0}
        done = {name: _rescale(model, name, value) for name, value in factors.items()}
        for name, value in done.items():
            total[name] = total.get(name, 1.0) * value
            if not math.isclose(value, factors[name], rel_tol=1e-2):
                wanted.pop(name)  # its parametrization fixes the scale
        if not done or not wanted:
            break
    return total


def reason_to_skip(layer: Layer) -> str:
    """Returns why a layer is not rescaled; empty where it is."""
    if layer.keep:
        return layer.keep
    if layer.kind == "recurrent" or layer.role in ("recurrent", "recurrent_input"):
        return "a recurrent cell's outputs are bounded by its gates, not by one product"
    if not layer.is_matrix:
        return "it multiplies no input, so it has no output variance of its own"
    if layer.tied_to and layer.role in ("embedding", "output"):
        return "it is tied to an embedding, whose scale the head would change"
    return ""


def _measure(
    model: nn.Module, wanted: Mapping[str, float], run: Callable[[], Any], tolerance: float
) -> dict[str, float]:
    """Returns the factor that each free weight's first output needs, later layers seeing it applied."""
    factors: dict[str, float] = {}

    def on_product(name: str, output: Tensor) -> None:
        if name not in wanted or output.numel() < 2:
            return
        if name not in factors:
            factors[name] = _factor(output, wanted[name], tolerance)
        if factors[name] != 1.0:
            output.mul_(factors[name])

    with torch.no_grad(), _NoBackward(), watch_products(model, on_product):
        run()
    return factors


def _factor(output: Tensor, target: float, tolerance: float) -> float:
    std = output.float().std().item()
    if not math.isfinite(std) or std < 1 / LARGEST or std > LARGEST or abs(std / target - 1) <= tolerance:
        return 1.0
    return target / std


def _rescale(model: nn.Module, name: str, factor: float) -> float:
    """Multiplies a weight and returns the factor it took: a parametrization may keep its scale."""
    with torch.no_grad():
        before = read(model, name).detach().clone()
        assign(model, name, before * factor)
        norm = before.norm().item()
        return read(model, name).norm().item() / norm if norm else 1.0


class _NoBackward(TorchFunctionMode):
    """Passes over `loss.backward()`, which a step that clips or accumulates calls itself."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return None if func is Tensor.backward else func(*args, **(kwargs or {}))
