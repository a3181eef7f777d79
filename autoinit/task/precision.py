"""Training in float16 as its owner trains: the loss is scaled up, so that small gradients do not become zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LossScale:
    """Dynamic loss scaling around one optimizer, by `torch.amp.GradScaler` with its own defaults.

    Micikevicius et al. 2018, "Mixed precision training", arXiv:1710.03740. A step whose gradients overflow is
    skipped and halves the scale: that is part of the method, and no divergence.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        self._scaler = torch.amp.GradScaler(device.type)
        self._optimizer = optimizer
        self._taken = taken = list[bool]()

        def note(*_: Any) -> None:  # holds no reference back, so that the optimizer goes with its last user
            taken.append(True)

        optimizer.register_step_post_hook(note)

    @property
    def factor(self) -> float:
        """What the next loss is multiplied by."""
        return self._scaler.get_scale()

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss to `.grad`, at their true size; overflown ones are inf or NaN there."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)

    def step(self) -> bool:
        """Takes the optimizer's step, where all gradients are finite; returns whether it was taken."""
        self._taken.clear()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return bool(self._taken)
