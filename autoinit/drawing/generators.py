"""Random streams: one for each piece of each parameter, on the device where the draw is made."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..seeds import seed_of_parameter

CHUNK = 2**20
"""Entries of one stream, in the order of the tensor: whoever holds a part of a tensor draws the pieces it overlaps."""

CHUNK_ON_DEVICE = 2**24
"""The same on a GPU, which draws 2²⁰ entries in less time than it takes to ask for them."""

KINDS = ("cpu", "cuda")
"""Kinds of devices that draws are made on; for tensors of any other they are made on the CPU, and copied."""


def kind_of(model: nn.Module) -> str:
    """Returns on what kind of device a model is drawn: "cuda" where any parameter lies there; "" for one on meta."""
    kinds = {parameter.device.type for parameter in model.parameters()}
    return "cuda" if "cuda" in kinds else "cpu" if kinds - {"meta"} else ""


def is_there(kind: str) -> bool:
    """Whether this machine can draw on a kind of device."""
    return kind == "cpu" or torch.cuda.is_available()


def check_draw_on(draw_on: object) -> str:
    """Returns the kind of device that `draw_on` names; "" for None, which leaves it to where the model lies.

    Raises:
        ArgumentError: it names no kind of device that draws are made on, or one that this machine has not.
    """
    if draw_on is None:
        return ""
    kind = draw_on.type if isinstance(draw_on, torch.device) else draw_on
    if kind not in KINDS:
        raise ArgumentError(
            f"draw_on is 'cpu', whose numbers are the same on every machine, 'cuda', or None for where the model lies. "
            f"Got {draw_on!r}."
        )
    if not is_there(str(kind)):
        raise ArgumentError("draw_on='cuda', but torch sees no CUDA device here. Leave it out, or pass draw_on='cpu'.")
    return str(kind)


def place(tensor: Tensor, kind: str) -> torch.device:
    """Returns the device on which the draw of a tensor is made: its own, where that is of the kind."""
    return tensor.device if tensor.device.type == kind else torch.device(kind)


def generator(seed: int, stream: str, device: torch.device, chunk: int = 0) -> torch.Generator:
    """Returns the generator of one piece of a stream.

    Args:
        seed: of the plan.
        stream: name of the parameter, or of the one whose stream it shares.
        device: where the draw is made.
        chunk: number of the piece.
    """
    return torch.Generator(device).manual_seed(seed_of_parameter(seed, stream, chunk))


def chunk_size(device: torch.device) -> int:
    """Returns how many entries one stream gives at the most, where the draw is made."""
    return CHUNK_ON_DEVICE if device.type == "cuda" else CHUNK


def chunks(tensor: Tensor, size: int = CHUNK) -> Iterator[Tensor]:
    """Yields views of the pieces of a contiguous tensor, one after the other, each of `size` entries or fewer."""
    flat = tensor.view(-1)
    for start in range(0, len(flat), size):
        yield flat[start : start + size]
