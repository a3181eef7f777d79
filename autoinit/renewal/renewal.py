"""Shrink and perturb: trained weights made smaller, with a little of a fresh draw added, before a training goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, SourceError, did_you_mean
from ..graph import Graph, Layer
from ..inheritance.given import Given
from ..task.assign import padding_rows, read

_AROUND_A_START = ("norm_scale", "layer_scale", "scalar")
"""Roles of multipliers, whose fresh value is a constant such as 1: shrinking one would not forget but silence."""
_STATISTICS = (
    "Running statistics ({names}) stay as they are, and were taken with the weights of before: until some batches of "
    "training have renewed them, the model is not to be judged in evaluation mode."
)
_HELD = "{names}: restricted by a parametrization, so that what is set may become something else; read it back."


def shrink_and_perturb(
    model: nn.Module, fresh: Mapping[str, Tensor], graph: Graph, *, shrink: float, perturb: float
) -> Given:
    """Returns trained values made smaller, with a part of a fresh draw of the same parameters added.

    Of weights, tables and biases θ ← shrink · θ + perturb · fresh. What multiplies a signal by a number around its
    start (the scales of normalizations and of residual branches) moves toward that start instead, θ ← fresh +
    shrink · (θ − fresh): shrunk by itself it would make the whole signal smaller, at every layer anew. Parameters that
    are to be kept stay as they are, and so do the rows of padding. Source: Ash & Adams 2020, "On Warm-Starting Neural
    Network Training", arXiv:1910.08475, whose shrink and perturb are λ and the standard deviation of the noise, here
    in multiples of the draw's own.

    Args:
        model: with its trained weights; it is only read.
        fresh: a fresh draw of each free parameter, as whole values under the graph's names.
        graph: of this model.
        shrink: share of the trained values that is left, from 0 to 1.
        perturb: share of the fresh draw that is added, 0 or more.

    Raises:
        ArgumentError: a share is out of range, or the draw of a parameter is missing or has another shape.
        SourceError: trained values are not finite.
    """
    _check_shares(shrink, perturb)
    padding = padding_rows(model)
    values: dict[str, Tensor] = {}
    why: dict[str, str] = {}
    with torch.no_grad():
        for layer in graph.layers:
            if not layer.keep and not layer.copy_of:
                old = _trained(model, layer.name)
                draw = _draw(fresh, layer.name, old)
                values[layer.name] = _renewed(layer, old, draw, (shrink, perturb), padding.get(layer.name))
                why[layer.name] = _reason(layer, shrink, perturb)
        for layer in graph.layers:
            if layer.copy_of in values:  # no gradient reaches a target network, which is why it is kept by itself
                values[layer.name] = values[layer.copy_of].clone()
                why[layer.name] = f"equal to {layer.copy_of}, as before"
    return Given(values, why, _notes(model, graph, values))


def _check_shares(shrink: float, perturb: float) -> None:
    if not 0.0 <= shrink <= 1.0:
        raise ArgumentError(f"shrink is {shrink!r}, but the share of the trained weights that is left is from 0 to 1.")
    if not 0.0 <= perturb < math.inf:
        raise ArgumentError(f"perturb is {perturb!r}, but the share of the fresh draw that is added is 0 or more.")


def _trained(model: nn.Module, name: str) -> Tensor:
    """Returns the values of a parameter, all of them finite."""
    old = read(model, name).detach()
    if not bool(torch.isfinite(old).all()):
        raise SourceError(
            f"{name} holds values that are not finite, and so would whatever is made of them. Go back to weights from "
            "before the training diverged, or start anew."
        )
    return old


def _draw(fresh: Mapping[str, Tensor], name: str, old: Tensor) -> Tensor:
    """Returns the fresh draw of a parameter, on its device."""
    if name not in fresh:
        raise ArgumentError(f"There is no fresh draw of {name}. {did_you_mean(name, fresh)} Give one for each.")
    draw = fresh[name].detach()
    if draw.shape != old.shape:
        raise ArgumentError(f"The fresh draw of {name} has shape {tuple(draw.shape)}, the model {tuple(old.shape)}.")
    return draw.to(old.device)


def _renewed(layer: Layer, old: Tensor, draw: Tensor, shares: tuple[float, float], padding: int | None) -> Tensor:
    """Returns the new values of one parameter; of half precision they are summed up in single."""
    shrink, perturb = shares
    kind = torch.promote_types(old.dtype, torch.float32)
    trained, anew = old.to(kind), draw.to(kind)
    around = layer.role in _AROUND_A_START
    value = (anew + shrink * (trained - anew) if around else shrink * trained + perturb * anew).to(old.dtype)
    if padding is not None:
        value[padding] = old[padding]
    return value


def _reason(layer: Layer, shrink: float, perturb: float) -> str:
    if layer.role in _AROUND_A_START:
        return f"moved toward its start, {shrink:g} of the distance is left"
    return f"{shrink:g} of the trained values and {perturb:g} of a fresh draw"


def _notes(model: nn.Module, graph: Graph, values: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Returns what stays, and what may come out otherwise, in sentences."""
    kept: dict[str, list[str]] = {}
    for layer in graph.layers:
        if layer.name not in values:
            kept.setdefault(layer.keep or f"a copy of {layer.copy_of}", []).append(layer.name)
    notes = [f"{', '.join(names)}: stays as it is ({reason})." for reason, names in kept.items()]
    statistics = [name for name, _ in model.named_buffers() if name.endswith(("running_mean", "running_var"))]
    held = [layer.name for layer in graph.layers if layer.parametrized and not layer.keep]
    if statistics:
        notes.append(_STATISTICS.format(names=", ".join(statistics)))
    if held:
        notes.append(_HELD.format(names=", ".join(held)))
    return tuple(notes)
