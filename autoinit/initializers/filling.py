"""Filling any tensor by functions that know only plain ones: contiguous, float32 or float64, where the generator is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError

_DRAWN_IN_PLACE = (torch.float32, torch.float64)


def draw_into(tensor: Tensor, draw: Callable[[Tensor], None], device: torch.device) -> None:
    """Fills a tensor of any device, dtype and memory layout, in place and without gradient.

    The draw is made on the given device, in float64 for a float64 tensor and in float32 for any other, then cast and
    copied, so that its bits depend neither on where the tensor lies nor on its layout. A plain tensor of that device is
    drawn in place, with no copy. Of a complex tensor the real part is drawn, the imaginary part is zero. Tensors on the
    meta device and empty ones are left as they are.

    Raises:
        ArgumentError: the tensor's numbers are neither floating-point nor complex.
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        raise ArgumentError(f"Weights are floating-point or complex; got a tensor of {tensor.dtype}.")
    if tensor.is_meta or tensor.numel() == 0:
        return
    with exact_draws(device):
        if is_plain(tensor, device):
            draw(tensor)
            return
        drawn = torch.empty(tensor.shape, dtype=drawn_dtype(tensor), device=device)
        draw(drawn)
        tensor.copy_(drawn)


def is_plain(tensor: Tensor, device: torch.device) -> bool:
    """Whether a draw on a device can be made in the tensor itself, and gives the bits of one made beside it."""
    return tensor.device == device and tensor.is_contiguous() and tensor.dtype in _DRAWN_IN_PLACE


def drawn_dtype(tensor: Tensor) -> torch.dtype:
    """Returns in what a tensor's entries, or the parts of complex ones, are drawn."""
    return torch.float64 if tensor.dtype in (torch.float64, torch.complex128) else torch.float32


@contextlib.contextmanager
def exact_draws(device: torch.device) -> Iterator[None]:
    """Lets what is drawn inside be the same whatever surrounds it: no gradients, no TF32, no autocast of the owner's.

    Under autocast the products inside of a draw would be in half precision, and decompositions have no such form.
    """
    with torch.no_grad(), full_float32(device), torch.autocast(device.type, enabled=False):
        yield


@contextlib.contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Lets products and convolutions in float32 have all their digits on a GPU, of which TF32 would keep three."""
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    kinds: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, was in zip(kinds, before, strict=True):
            kind.fp32_precision = was
