"""What one parameter gets: as data, how the rules make it, and how a calibration changes it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from .. import text
from ..graph import Layer
from ..recipes.formulas import Distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """What one parameter gets.

    A `Plan` maps the name of each parameter to one: `plan["0.weight"].std`. The rules of a recipe make it, and a
    calibration may change its factors; `reason` says why the parameter gets what it gets. It is plain data; unless the
    owner's draw is kept, it decides the parameter's values together with the plan's seed, bit for bit.

    Attributes:
        name: name of the parameter, as in `Layer.name`.
        shape: shape of the tensor.
        role: what the parameter is for.
        distribution: distribution of its entries; "keep" is the owner's own draw, times `factor` and `slice_factors`,
            "copy" the values of `copy_of`, "given" values that no formula gives, which stand beside the plan, and
            "remainder" the owner's own less what an adapter adds to it (`less`).
        std: standard deviation of the entries before `factor`; None where the draw is kept.
        mean: what the entries of a draw lie around before `factor`: 0 but for scales of normalizations.
        values: values of a constant: one for all entries, one per slice, or one per entry.
        factor: multiplies the draw; a calibration sets it.
        scale: the recipe's own factors on this matrix, a part of `std` (of `factor`, where the draw is kept);
            a calibration aims at it.
        slice_factors: multiply the slices of a fused weight, in order; empty for none.
        channel_factors: multiply the output units, in order; a calibration sets them; empty for none.
        out_axes, in_axes, groups, slices, interleaved, kernel_axes, heads: the geometry that structured draws need, as
            in `Layer`.
        stream: the parameter whose random stream the draw uses; empty for its own. A pair that is drawn as one
            (queries and keys) shares a stream.
        lr_adam, lr_sgd: factor on the parameter's learning rate (μP), under Adam and its kin, and under SGD.
        copy_of: the parameter whose values it takes once they are set; empty for none.
        less: the matrices "up" and "down" of the adapter whose product, times `scale`, a remainder leaves out
            of the owner's values; empty elsewhere.
        origin: fingerprint of the owner's values that a remainder was taken from.
        result: fingerprint of what a rescaled draw, given values or a remainder became; tells it from a fresh one.
        reason: why, in words.
    """

    name: str
    shape: tuple[int, ...]
    role: str
    distribution: Distribution
    std: float | None = None
    mean: float = 0.0
    values: tuple[float, ...] = ()
    factor: float = 1.0
    scale: float = 1.0
    slice_factors: tuple[float, ...] = ()
    channel_factors: tuple[float, ...] = ()
    out_axes: tuple[int, ...] = ()
    in_axes: tuple[int, ...] = ()
    groups: int = 1
    slices: int = 1
    interleaved: bool = False
    kernel_axes: tuple[int, ...] = ()
    heads: int = 1
    stream: str = ""
    lr_adam: float = 1.0
    lr_sgd: float = 1.0
    copy_of: str = ""
    less: tuple[str, ...] = ()
    origin: str = ""
    result: str = ""
    reason: str

    @property
    def untouched(self) -> bool:
        """Whether the parameter stays exactly as it is."""
        rescaled = self.factor != 1.0 or self.slice_factors or self.channel_factors
        return self.distribution == "keep" and not rescaled

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What a calibration does to one parameter that has been drawn.

    Attributes:
        factor: multiplies it.
        channels: multiply its output units, in order; empty for none.
        values: replace it, one per entry (of a bias); empty where it is only multiplied.
        fold: the part of `factor` that stands for a multiplier of the skip: the learning rates undo it.
    """

    factor: float = 1.0
    channels: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    fold: float = 1.0


def make(layer: Layer, distribution: Distribution, reason: str, **rest: Any) -> Fill:
    """Returns the fill of a layer that is drawn, or rescaled where that is kept; `rest` are more fields."""
    return Fill(
        name=layer.name,
        shape=layer.shape,
        role=layer.role,
        distribution=distribution,
        out_axes=layer.out_axes,
        in_axes=layer.in_axes,
        groups=layer.groups,
        slices=layer.slices,
        interleaved=layer.interleaved,
        kernel_axes=layer.kernel_axes,
        heads=max(1, layer.heads),
        reason=reason,
        **rest,
    )


def kept(layer: Layer, reason: str) -> Fill:
    """Returns the fill of a layer that stays as it is."""
    return make(layer, "keep", reason)


def copied(layer: Layer) -> Fill:
    """Returns the fill of a layer that is a copy of another one, and stays equal to it."""
    reason = f"a copy of {layer.copy_of} that gets no gradient, as of a target network: it stays equal to it"
    return make(layer, "copy", reason, copy_of=layer.copy_of)


def constant(layer: Layer, values: tuple[float, ...], reason: str) -> Fill:
    """Returns the fill of a layer that is set: to one value, one per slice, or one per entry."""
    return make(layer, "constant", reason, std=0.0, values=values)


def adjusted(fill: Fill, by: Adjustment, calibration: str) -> Fill:
    """Returns a fill as a calibration changes it; values that the recipe sets on purpose stay."""
    if by.values and fill.distribution == "constant" and any(fill.values):
        return fill  # a label prior is set on purpose
    if by.values:
        reason = f"measured on a batch ({calibration})"
        return dataclasses.replace(
            fill, distribution="constant", std=0.0, values=by.values, factor=1.0, slice_factors=(), reason=reason
        )
    reason = "as its owner drew it" if fill.untouched else fill.reason
    said = [f"; × {text.number(by.factor)} ({calibration})"] if by.factor != 1.0 else []
    if by.channels:
        low, high = (text.number(choose(by.channels)) for choose in (min, max))
        said.append(f"; units × {low}…{high} ({calibration})")
    old = fill.channel_factors or (1.0,) * len(by.channels)
    channels = tuple(a * b for a, b in zip(old, by.channels, strict=True)) if by.channels else fill.channel_factors
    return dataclasses.replace(
        fill,
        factor=fill.factor * by.factor,
        channel_factors=channels,
        lr_adam=fill.lr_adam * by.fold,
        lr_sgd=fill.lr_sgd * by.fold**2,
        reason=reason + "".join(said),
    )
