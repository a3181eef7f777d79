"""One fill becomes the values of one tensor: a draw, its factors, and where they are made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..initializers.draws import COSTLY, DRAWS, INDEPENDENT
from ..initializers.filling import drawn_dtype, is_plain
from ..initializers.geometry import Geometry
from ..initializers.recurrent import chrono_
from ..plans.fill import Fill
from .generators import chunk_size, chunks, generator
from .memory import Drawn, Memory

Work = Callable[[], None]
"""A part of setting a model's weights that waits for no other part."""


@dataclass(frozen=True, slots=True)
class Source:
    """What the draws of one plan have in common.

    Attributes:
        seed: of the plan.
        memory: costly draws are looked up there, and added to it; the bits are the same without.
        drawn: what a calibration's second pass need not draw again; None where there is none.
    """

    seed: int
    memory: Memory
    drawn: Drawn | None = None


def in_pieces(target: Tensor, fill: Fill, device: torch.device) -> bool:
    """Whether a draw on a device is large, of independent entries, scaled by one number: it is made piece by piece."""
    alike = not (fill.slice_factors or fill.channel_factors)
    large = target.numel() > chunk_size(device) and target.is_contiguous() and not target.is_complex()
    return large and alike and fill.distribution in INDEPENDENT


def pieces(
    target: Tensor, fill: Fill, source: Source, device: torch.device, padding: int | None = None
) -> Iterator[Work]:
    """Yields what draws a target piece by piece: of one that is drawn elsewhere, no more than a piece stands beside it.

    Args:
        target: for which `in_pieces` holds.
        fill: what it gets.
        source: of random numbers.
        device: where the draw is made.
        padding: a row that stays zero.
    """
    row, size = target[0].numel(), chunk_size(device)
    zero = (0, 0) if padding is None else (padding * row, (padding + 1) * row)
    for number, piece in enumerate(chunks(target, size)):

        def work(piece: Tensor = piece, number: int = number) -> None:
            here = is_plain(piece, device)
            value = piece if here else torch.empty(piece.shape, dtype=drawn_dtype(piece), device=device)
            _draw_independent(value, fill, source.seed, number)
            if fill.mean:
                value.add_(fill.mean)
            if fill.factor != 1.0:
                value.mul_(fill.factor)
            first, last = (max(0, place - number * size) for place in zero)
            value[first:last] = 0.0
            if not here:
                piece.copy_(value)

        yield work


def fill_whole(tensor: Tensor, fill: Fill, source: Source, padding: int | None = None) -> None:
    """Gives a contiguous tensor, on the device of its draw, what a fill says.

    Args:
        tensor: float32, float64 or complex; where the draw is kept it holds that.
        fill: what it gets.
        source: of random numbers.
        padding: a row that stays zero.
    """
    geometry = geometry_of(fill)
    if fill.distribution == "constant":
        _fill_constant(tensor, fill, geometry)
    elif fill.distribution == "chrono":
        chrono_(tensor, geometry, int(fill.values[0]), _generator(tensor, fill, source.seed))
    elif fill.distribution != "keep" and not (source.drawn and source.drawn.fill(tensor, fill.name)):
        _draw(tensor, fill, geometry, source)
        if source.drawn:
            source.drawn.remember(tensor, fill.name)
    if fill.mean:
        tensor.add_(fill.mean)
    if fill.slice_factors:
        for part, factor in zip(geometry.slice_views(tensor), fill.slice_factors, strict=False):
            part.mul_(factor)
    if fill.channel_factors:
        geometry.scale_rows_(tensor, torch.tensor(fill.channel_factors, device="cpu"))
    if fill.factor != 1.0:
        tensor.mul_(fill.factor)
    if padding is not None:
        tensor[padding] = 0.0


def geometry_of(fill: Fill) -> Geometry:
    """Returns the matrices in the tensor of a fill."""
    return Geometry(
        fill.out_axes or (0,),
        fill.in_axes,
        fill.groups,
        fill.slices,
        fill.kernel_axes,
        fill.heads,
        interleaved=fill.interleaved,
    )


def _draw(tensor: Tensor, fill: Fill, geometry: Geometry, source: Source) -> None:
    """Fills a tensor with the draw of a fill, before its factors.

    The two parts of a complex tensor are drawn by themselves, half of the variance each.
    """
    if tensor.is_complex():
        for part, name in ((tensor.real, fill.name), (tensor.imag, f"{fill.name} (imaginary)")):
            drawn = torch.empty(tensor.shape, dtype=part.dtype, device=tensor.device)
            stream = fill.stream and f"{fill.stream}{name.removeprefix(fill.name)}"
            _draw(drawn, dataclasses.replace(fill, name=name, stream=stream), geometry, source)
            part.copy_(drawn.mul_(math.sqrt(0.5)))
    elif fill.distribution in INDEPENDENT:
        for number, piece in enumerate(chunks(tensor, chunk_size(tensor.device))):
            _draw_independent(piece, fill, source.seed, number)
    elif fill.distribution in COSTLY:
        _draw_costly(tensor, fill, geometry, source)
        tensor.mul_(_std(fill))
    else:
        DRAWS[fill.distribution](tensor, geometry, _std(fill), _generator(tensor, fill, source.seed))


def _draw_independent(piece: Tensor, fill: Fill, seed: int, number: int) -> None:
    DRAWS[fill.distribution](piece, Geometry(), _std(fill), _generator(piece, fill, seed, number))


def _draw_costly(tensor: Tensor, fill: Fill, geometry: Geometry, source: Source) -> None:
    """Fills a tensor with the draw of std 1, remembered or new."""
    if source.memory.recall(source.seed, fill.name, fill.distribution, tensor):
        return
    DRAWS[fill.distribution](tensor, geometry, 1.0, _generator(tensor, fill, source.seed))
    source.memory.keep(source.seed, fill.name, fill.distribution, tensor)


def _std(fill: Fill) -> float:
    return 1.0 if fill.std is None else fill.std


def _generator(tensor: Tensor, fill: Fill, seed: int, number: int = 0) -> torch.Generator:
    """Returns the generator of one parameter, or of the ones that share a stream."""
    return generator(seed, fill.stream or fill.name, tensor.device, number)


def _fill_constant(tensor: Tensor, fill: Fill, geometry: Geometry) -> None:
    if len(fill.values) == tensor.numel():
        tensor.copy_(torch.tensor(fill.values, dtype=tensor.dtype, device="cpu").reshape(tensor.shape))
    elif len(fill.values) == 1:
        tensor.fill_(fill.values[0])
    else:
        for part, value in zip(geometry.slice_views(tensor), fill.values, strict=True):
            part.fill_(value)
