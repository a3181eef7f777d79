"""Biases of recurrent cells that set how long the gates remember."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ArgumentError
from .filling import draw_into
from .geometry import Geometry

_LSTM, _GRU = 4, 3


def chrono_(tensor: Tensor, geometry: Geometry, steps: int, generator: torch.Generator) -> None:
    """Fills the bias of an LSTM or a GRU so that its units remember for times spread from 1 to `steps` − 1.

    LSTM (slices input, forget, cell, output): forget = log U(1, steps − 1), input = −forget, others 0.
    GRU (slices reset, update, new): torch's update gate keeps the state, so update = log U(1, steps − 1), others 0.
    torch's cells have two biases, which are added: fill one of them, and the other with zeros.
    Tallec & Ollivier 2018, arXiv:1804.11188.

    Args:
        tensor: [slices · units], of any device and dtype.
        geometry: whose slices tell the cell: 4 for an LSTM, 3 for a GRU.
        steps: length of the sequences, or of the longest dependency in them.
        generator: the draw is made on its device.

    Raises:
        ArgumentError: fewer than three steps, another number of slices, or one that does not divide the tensor.
    """
    if steps < 3:
        raise ArgumentError(f"chrono spreads memories over 1 to steps − 1 and needs at least 3 steps; got {steps}.")
    if geometry.slices not in (_LSTM, _GRU):
        raise ArgumentError(f"chrono fills biases of 4 slices (LSTM) or 3 (GRU); got {geometry.slices}.")
    if tensor.ndim != 1 or len(tensor) % geometry.slices:
        raise ArgumentError(
            f"chrono fills a bias of {geometry.slices} slices of equal length; got the shape {tuple(tensor.shape)}."
        )

    def draw(bias: Tensor) -> None:
        parts = bias.zero_().chunk(geometry.slices)
        parts[1].uniform_(1.0, steps - 1.0, generator=generator).log_()
        if geometry.slices == _LSTM:
            torch.neg(parts[1], out=parts[0])

    draw_into(tensor, draw, generator.device)
