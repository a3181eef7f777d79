"""Filling any tensor by functions that know only plain ones: on the CPU, contiguous, float32 or float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import ArgumentError

_DRAWN_IN_PLACE = (torch.float32, torch.float64)


def draw_into(tensor: Tensor, draw: Callable[[Tensor], None]) -> None:
    """Fills a tensor of any device, dtype and memory layout, in place and without gradient.

    The draw is made on the CPU, in float64 for a float64 tensor and in float32 for any other, then cast and
    copied, so that its bits depend on neither the device nor the layout. A plain tensor is drawn in place, with
    no copy. Of a complex tensor the real part is drawn, the imaginary part is zero. Tensors on the meta device
    and empty ones are left as they are.

    Raises:
        ArgumentError: the tensor's numbers are neither floating-point nor complex.
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        raise ArgumentError(f"Weights are floating-point or complex; got a tensor of {tensor.dtype}.")
    if tensor.is_meta or tensor.numel() == 0:
        return
    with torch.no_grad():
        if tensor.device.type == "cpu" and tensor.is_contiguous() and tensor.dtype in _DRAWN_IN_PLACE:
            draw(tensor)
            return
        double = tensor.dtype in (torch.float64, torch.complex128)
        drawn = torch.empty(tensor.shape, dtype=torch.float64 if double else torch.float32)
        draw(drawn)
        tensor.copy_(drawn)
