"""Optimizers with the schedules that people train with."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def warmed_adamw(
    parameters: Iterable[nn.Parameter], lr: float, warm_up: int = 20, weight_decay: float = 0.01
) -> tuple[AdamW, LambdaLR]:
    """Returns AdamW whose learning rate grows linearly over the first steps and stays.

    Args:
        parameters: what is trained.
        lr: at the end of the warm-up.
        warm_up: steps until then.
        weight_decay: of all parameters.
    """
    optimizer = AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.95))
    return optimizer, LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warm_up))
