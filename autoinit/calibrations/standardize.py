"""Gives every layer's output a wanted standard deviation, and where asked a mean of 0, on one batch.

LSUV, centred LSUV and within-layer normalization are this, for whole layers or for single units.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import USER_ERRORS
from ..graph import Graph, Layer
from ..plans.fill import Adjustment
from ..task.assign import read
from ..task.evaluation import ForwardOnly
from ..task.products import watch_products
from .units import along_units, free_bias, moments, scale, set_bias, unit_axes, unit_count

TOLERANCE = 0.004
"""Of an output's standard deviation, relative; of its mean, in units of that deviation."""
ITERATIONS = 12
LARGEST = 1e4
"""A factor beyond this, or below its inverse, would only amplify noise or a bias: the weight is left."""


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


@dataclass
class Site:
    """One weight under way to its target.

    Attributes:
        layer: the weight.
        target: standard deviation wanted of its output.
        bias: the bias that centres it; empty where it is not centred.
        apart: its product is computed out of sight, without the bias, and its output cannot be changed in place.
        scalable: whether its scale can be set.
        factors: that it has taken so far: [1], or one per unit.
        shift: the value of the bias; None before the first measurement.
    """

    layer: Layer
    target: float
    bias: str
    apart: bool
    scalable: bool = True
    factors: Tensor = field(default_factory=lambda: torch.ones(1))
    shift: Tensor | None = None


@dataclass
class _Step:
    """What one pass found that a weight needs."""

    factors: Tensor
    shift: Tensor | None
    changed: bool


def standardize(
    model: nn.Module,
    graph: Graph,
    run: Callable[[], Any],
    targets: Mapping[str, float] | None = None,
    *,
    per_unit: bool = False,
    centre: bool = False,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
    further: Iterable[Callable[[], Any]] = (),
) -> dict[str, Adjustment]:
    """Returns the adjustments by parameter name; weights and biases in the model are changed likewise, in place.

    Within one pass each output is set right as soon as it is seen, so that the next layer already sees it so; as
    many passes as there are layers come down to two or three. Further passes settle what biases shift that are
    not centred, and attention, whose input projections happen out of sight.

    Args:
        model: unwrapped; random states and buffers are not put back here.
        graph: its architecture; `reason_to_skip` says which layers are left alone.
        run: one forward pass on the batch, the same at every call; a backward inside is passed over.
        targets: standard deviation wanted of a weight's output, by name; 1 where it is not named.
        per_unit: every unit gets that deviation, and not the layer as a whole. Units that hardly vary are left,
            and so are, but as a whole, layers of which it is not clear where the units lie.
        centre: every unit's mean becomes 0, by the bias, where the layer has a free one.
        tolerance: of the standard deviation, relative.
        iterations: most passes.
        further: other passes, asked for after the first, for weights that it does not meet; each weight is measured
            in the first of them that meets it.
    """
    sites = _sites(model, graph, targets or {}, centre)
    owned = {site.bias: read(model, site.bias).detach().clone() for site in sites.values() if site.bias}

    def settle(run: Callable[[], Any], mine: Set[str]) -> dict[str, _Step]:
        steps = _measure(model, sites, run, mine, per_unit, tolerance)
        for name, step in steps.items():
            _take(model, sites[name], step)
        return steps

    steps = settle(run, sites.keys())
    passes = [(run, steps.keys()), *_other_passes(further, settle, sites.keys() - steps.keys())]
    changed = len(passes) > 1 or any(step.changed for step in steps.values())
    for _ in range(iterations - 1):
        if not changed:
            break
        taken = [step for one, mine in passes for step in settle(one, mine).values()]
        changed = any(step.changed for step in taken)
    return _adjustments(model, sites, owned)


def _other_passes(
    further: Iterable[Callable[[], Any]],
    settle: Callable[[Callable[[], Any], Set[str]], dict[str, _Step]],
    missed: Set[str],
) -> Iterator[tuple[Callable[[], Any], Set[str]]]:
    """Yields the passes that meet weights which those before have missed, with the names of these."""
    others = iter(further)
    while missed:
        run = next(others, None)
        if run is None:
            return
        try:
            met = settle(run, missed).keys()
        except USER_ERRORS:  # it is we who want this pass: the model need not be made for it
            continue
        if met:
            yield run, met
        missed = missed - met


def _sites(model: nn.Module, graph: Graph, targets: Mapping[str, float], centre: bool) -> dict[str, Site]:
    sites: dict[str, Site] = {}
    for layer in graph.layers:
        # Behind a complex product come the values of a transform, and no unit's outputs.
        if not reason_to_skip(layer) and not read(model, layer.name).is_complex():
            # A gate's bias decides what passes at the start; it is its owner's choice.
            bias = free_bias(model, graph, layer) if centre and layer.role != "gate" else ""
            sites[layer.name] = Site(layer, targets.get(layer.name, 1.0), bias, _is_apart(model, layer.name))
    return sites


def _is_apart(model: nn.Module, name: str) -> bool:
    """Whether a weight is an input projection of nn.MultiheadAttention."""
    path, _, own = name.rpartition(".")
    return own.endswith("_proj_weight") and isinstance(model.get_submodule(path), nn.MultiheadAttention)


def _measure(
    model: nn.Module,
    sites: Mapping[str, Site],
    run: Callable[[], Any],
    mine: Set[str],
    per_unit: bool,
    tolerance: float,
) -> dict[str, _Step]:
    """Returns what the first output of each weight of `mine` needs, later layers seeing it applied.

    A bias that centres is 0 in the model meanwhile and added here, so that it does not matter where the model
    adds it. Only where the output cannot be changed is it set in the model.
    """
    steps: dict[str, _Step] = {}
    watch = AttentionWatch()

    def on_product(name: str, output: Tensor) -> None:
        site = sites.get(name)
        if site is None or output.numel() < 2:
            return
        if name in mine and name not in steps:
            steps[name] = _step(site, output.detach(), watch.parts, per_unit, tolerance)
        if not site.apart:
            _apply(site, steps.get(name, _Step(torch.ones(1), site.shift, changed=False)), output)

    for site in sites.values():
        if site.bias and (not site.apart or site.shift is None):
            set_bias(model, site.bias, torch.zeros(unit_count(site.layer)))
    with torch.no_grad(), watch_products(model, on_product), watch:
        run()
    return steps


def _step(site: Site, output: Tensor, parts: tuple[int, ...], per_unit: bool, tolerance: float) -> _Step:
    values = output if output.dtype == torch.float64 else output.float()
    found = moments(site.layer, output, parts) if per_unit or site.bias else None
    if found is None:
        variance = values.var(correction=0).reshape(1)
    else:
        variance = found[1] if per_unit else found[1].mean().reshape(1)
    factors = _factors(variance.sqrt(), site, tolerance)
    shift = None if found is None or not site.bias else _shift(site, -found[0] * factors, tolerance)
    return _Step(factors, shift, changed=bool((factors != 1).any()) or shift is not site.shift)


def _factors(std: Tensor, site: Site, tolerance: float) -> Tensor:
    if not site.scalable:
        return torch.ones_like(std)
    if std.numel() == 1:  # a dozen operations on tensors of one number would take as long as the layer itself
        value = std.item()
        near = abs(value - site.target) <= tolerance * site.target
        return torch.ones_like(std) if near or not 1 / LARGEST < value < LARGEST else site.target / std
    usable = (std > 1 / LARGEST) & (std < LARGEST) & ((std / site.target - 1).abs() > tolerance)
    return torch.where(usable, site.target / std, 1.0)


def _shift(site: Site, wanted: Tensor, tolerance: float) -> Tensor:
    """Returns the old shift where the new one hardly differs, so that passes come to an end."""
    old = site.shift
    near = old is not None and bool(((wanted - old).abs() <= tolerance * site.target).all())
    return old if near and old is not None else wanted


def _apply(site: Site, step: _Step, output: Tensor) -> None:
    single = step.factors.numel() == 1 and step.shift is None
    if single or unit_axes(site.layer, output):  # a second use may have another shape; the next pass sees it
        output.mul_(along_units(site.layer, output, step.factors))
        if step.shift is not None:
            output.add_(along_units(site.layer, output, step.shift))


def _take(model: nn.Module, site: Site, step: _Step) -> None:
    """Changes the weight, and the bias of a projection that was computed out of sight, as a pass has found."""
    site.shift = step.shift
    if site.apart and site.shift is not None:
        set_bias(model, site.bias, site.shift)
    if bool((step.factors != 1).any()):
        site.scalable = scale(model, site.layer, step.factors)
        if site.scalable:
            site.factors = site.factors * step.factors.to(site.factors)


def _adjustments(model: nn.Module, sites: Mapping[str, Site], owned: Mapping[str, Tensor]) -> dict[str, Adjustment]:
    """Returns what was done; every bias gets its value, or its owner's where its weight was never seen."""
    found: dict[str, Adjustment] = {}
    for name, site in sites.items():
        factors = tuple(site.factors.tolist())
        if len(factors) == 1 and factors[0] != 1.0:
            found[name] = Adjustment(factor=factors[0])
        elif len(factors) > 1:
            found[name] = Adjustment(channels=factors)
        if site.shift is not None:
            found[site.bias] = Adjustment(values=tuple(site.shift.tolist()))
        if site.bias:
            set_bias(model, site.bias, owned[site.bias] if site.shift is None else site.shift)
    return found


class AttentionWatch(ForwardOnly):
    """Notes how many rows attention has stacked, and passes over `loss.backward()`.

    Attributes:
        parts: rows of the queries, keys and values of the last attention of nn.MultiheadAttention.
    """

    parts: tuple[int, ...] = ()

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns what the function returns; None for a backward, which is left out."""
        if func is F.multi_head_attention_forward:
            given = inspect.signature(func).bind(*args, **kwargs).arguments
            self.parts = tuple(given[key].shape[:-1].numel() for key in ("query", "key", "value"))
        return super().called(func, args, kwargs)
