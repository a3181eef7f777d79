"""Numbers that the host has to know, fetched together: each fetch makes it wait for the device once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def fetched(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns tensors as they are on the host, in one copy from each device; those that lie there are returned as such.

    Between two types of numbers the wider one is copied, so that none loses a digit.
    """
    found = [tensor.detach() for tensor in tensors]
    for device in dict.fromkeys(tensor.device for tensor in found if tensor.device.type != "cpu"):
        places = [place for place, tensor in enumerate(found) if tensor.device == device]
        mine = [found[place] for place in places]
        together = torch.cat([tensor.flatten() for tensor in mine]).cpu()
        parts = torch.split(together, [tensor.numel() for tensor in mine])
        for place, tensor, part in zip(places, mine, parts, strict=True):
            found[place] = part.to(tensor.dtype).reshape(tensor.shape)
    return found
