"""Gives every layer's output a wanted standard deviation, and where asked a mean of 0, on one batch.

LSUV, centred LSUV and within-layer normalization are this, for whole layers or for single units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import USER_ERRORS
from ..graph import Graph, Layer
from ..plans.fill import Adjustment
from ..task.assign import read
from ..task.products import watch_products
from .fetching import fetched
from .projections import Projections, projection_weights
from .units import along_units, free_bias, moments, scale, scaled, set_bias, unit_axes

TOLERANCE = 0.004
"""Of an output's standard deviation, relative; of its mean, in units of that deviation."""
ITERATIONS = 12
LARGEST = 1e4
"""A factor beyond this, or below its inverse, would only amplify noise or a bias: the weight is left."""


def _number(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns a number as a tensor without axes on the host: any device takes it along with the next operation.

    Operations on the few numbers of a layer take half as long with it as with a float, which torch makes one of.
    """
    return torch.tensor(value, dtype=dtype, device="cpu")


_ONE, _LEAST, _MOST = _number(1.0), _number(1 / LARGEST), _number(LARGEST)


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
        target: standard deviation wanted of its output, a number as of `_number`.
        slack: how far off it may be.
        bias: the bias that centres it; empty where it is not centred.
        scalable: whether its scale can be set.
        factors: that it has taken so far, on the host: [1], or one per unit.
        shift: the value of the bias, on its device; None before the first measurement.
    """

    layer: Layer
    target: Tensor
    slack: Tensor
    bias: str
    scalable: bool = True
    factors: Tensor = field(default_factory=lambda: torch.ones(1, device="cpu"))
    shift: Tensor | None = None


@dataclass
class _Step:
    """What one pass found that a weight needs, on the weight's device."""

    factors: Tensor
    shift: Tensor | None


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

    Within one pass each output is set right as soon as it is seen, so that what comes after it already sees it so. The
    host looks at what was measured once in a pass, all of it together, and the measured numbers stay on the device
    meanwhile. So as many passes as there are layers come down to two: one that measures, one that finds all in order.

    One pass is exact, up to rounding, for every weight whose products torch's functions make (linear layers,
    convolutions, tables, products and einsums of bare weights), for the input projections inside nn.MultiheadAttention,
    and for weights behind a parametrization that takes any scale, as weight normalization does. Of a weight that is
    used several times the first output is measured, and every one is scaled. It is not exact, and further passes settle
    it, where

    - a bias that is not centred is added inside the product: within the pass it is scaled along, in the model it stays;
    - a parametrization does not take the scale, or rounding (bfloat16) is coarser than the tolerance;
    - later uses of a weight have other shapes, in which its units cannot be told.

    Products of torch.tensordot, of recurrent cells and of code outside torch are not seen; no pass measures them.

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
    sites = _sites(model, graph, targets or {}, centre, tolerance)
    owned = {site.bias: read(model, site.bias).detach().clone() for site in sites.values() if site.bias}

    def settle(run: Callable[[], Any], mine: Set[str]) -> dict[str, bool]:
        return _take(model, sites, _measure(model, sites, run, mine, per_unit))

    changes = settle(run, sites.keys())
    passes = [(run, changes.keys()), *_other_passes(further, settle, sites.keys() - changes.keys())]
    changed = len(passes) > 1 or any(changes.values())
    for _ in range(iterations - 1):
        if not changed:
            break
        taken = [change for one, mine in passes for change in settle(one, mine).values()]
        changed = any(taken)
    return _adjustments(model, sites, owned)


def _other_passes(
    further: Iterable[Callable[[], Any]],
    settle: Callable[[Callable[[], Any], Set[str]], Mapping[str, bool]],
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


def _sites(
    model: nn.Module, graph: Graph, targets: Mapping[str, float], centre: bool, tolerance: float
) -> dict[str, Site]:
    sites: dict[str, Site] = {}
    for layer in graph.layers:
        # Behind a complex product come the values of a transform, and no unit's outputs.
        if reason_to_skip(layer) or (weight := read(model, layer.name)).is_complex():
            continue
        target = targets.get(layer.name, 1.0)
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        # A gate's bias decides what passes at the start; it is its owner's choice.
        bias = free_bias(model, graph, layer) if centre and layer.role != "gate" else ""
        sites[layer.name] = Site(layer, _number(target, dtype), _number(tolerance * target, dtype), bias)
    return sites


def _measure(
    model: nn.Module,
    sites: Mapping[str, Site],
    run: Callable[[], Any],
    mine: Set[str],
    per_unit: bool,
) -> dict[str, _Step]:
    """Returns what the first output of each weight of `mine` needs, later layers seeing it applied.

    A bias that centres is 0 in the model meanwhile and added here, so that it does not matter where the model adds it.
    """
    steps: dict[str, _Step] = {}

    def step_at(name: str, output: Tensor) -> _Step | None:
        """Returns what an output needs, measured if it is the first one; None where that is nothing."""
        site = sites.get(name)
        if site is None or output.numel() < 2:
            return None
        if name in mine and name not in steps:
            steps[name] = _step(site, output.detach(), watch.parts, per_unit)
        return steps.get(name) or (None if site.shift is None else _Step(output.new_ones(1), site.shift))

    def on_product(name: str, output: Tensor) -> None:
        if (step := step_at(name, output)) is not None:
            _apply(sites[name].layer, step, output)

    def on_projection(name: str, weight: Tensor, output: Tensor) -> tuple[Tensor, Tensor | None]:
        step = step_at(name, output)
        if step is None:
            return weight, None
        shift = None if step.shift is None else step.shift.to(weight)
        return scaled(weight, sites[name].layer, step.factors), shift

    watch = Projections(on_projection)
    for site in sites.values():
        if site.bias:
            with torch.no_grad():
                read(model, site.bias).zero_()
    with torch.no_grad(), watch_products(model, on_product):
        watch.names = {id(weight): name for name, weight in projection_weights(model).items()}
        with watch:
            run()
    return steps


def _step(site: Site, output: Tensor, parts: tuple[int, ...], per_unit: bool) -> _Step:
    values = output if output.dtype == torch.float64 else output.float()
    found = moments(site.layer, output, parts) if per_unit or site.bias else None
    if found is None:
        variance = values.var(correction=0).reshape(1)
    else:
        variance = found[1] if per_unit else found[1].mean().reshape(1)
    factors = _factors(variance.sqrt(), site)
    shift = None if found is None or not site.bias else _shift(site, -found[0] * factors)
    return _Step(factors, shift)


def _factors(std: Tensor, site: Site) -> Tensor:
    if not site.scalable:
        return torch.ones_like(std)
    usable = (std - site.target).abs_() > site.slack
    usable.logical_and_(std > _LEAST).logical_and_(std < _MOST)
    return torch.where(usable, std.reciprocal().mul_(site.target), _ONE)


def _shift(site: Site, wanted: Tensor) -> Tensor:
    """Returns the old shift where the new one hardly differs, so that passes come to an end."""
    if site.shift is None:
        return wanted
    near = (wanted - site.shift).abs_() <= site.slack
    return torch.where(near.all(), site.shift, wanted)


def _apply(layer: Layer, step: _Step, output: Tensor) -> None:
    single = step.factors.numel() == 1 and step.shift is None
    if single or unit_axes(layer, output):  # a second use may have another shape; the next pass sees it
        output.mul_(along_units(layer, output, step.factors))
        if step.shift is not None:
            output.add_(along_units(layer, output, step.shift))


def _take(model: nn.Module, sites: Mapping[str, Site], steps: Mapping[str, _Step]) -> dict[str, bool]:
    """Changes the weights as a pass has found, and returns of each whether there was anything to change."""
    shifted = [_differs(step.shift, sites[name].shift) for name, step in steps.items()]
    numbers = iter(fetched([*(step.factors for step in steps.values()), *shifted]))
    factors = {name: next(numbers) for name in steps}
    for name, step in steps.items():
        sites[name].shift = step.shift
    moved = {name: values for name, values in factors.items() if bool((values != 1).any())}
    for name, taken in scale(model, [(sites[name].layer, moved[name]) for name in moved]).items():
        site = sites[name]
        site.scalable = taken
        if taken:
            site.factors = site.factors * moved[name].to(site.factors)
    return {name: bool(change) or name in moved for name, change in zip(steps, numbers, strict=True)}


def _differs(shift: Tensor | None, before: Tensor | None) -> Tensor:
    """Returns whether a shift is another than before, as a number on its device."""
    if shift is None or before is None:
        return torch.tensor(shift is not before, device="cpu")
    return (shift != before).any()


def _adjustments(model: nn.Module, sites: Mapping[str, Site], owned: Mapping[str, Tensor]) -> dict[str, Adjustment]:
    """Returns what was done; every bias gets its value, or its owner's where its weight was never seen."""
    found: dict[str, Adjustment] = {}
    shifts = {name: site.shift for name, site in sites.items() if site.shift is not None}
    values = dict(zip(shifts, fetched(list(shifts.values())), strict=True))
    for name, site in sites.items():
        factors = tuple(site.factors.tolist())
        if len(factors) == 1 and factors[0] != 1.0:
            found[name] = Adjustment(factor=factors[0])
        elif len(factors) > 1:
            found[name] = Adjustment(channels=factors)
        if name in values:
            found[site.bias] = Adjustment(values=tuple(values[name].tolist()))
        if site.bias:
            set_bias(model, site.bias, owned[site.bias] if site.shift is None else site.shift)
    return found
