"""Adam on scales, without a look of the host."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST = 0.01
"""No scale falls below this share of the draw (Zhu et al. 2021), so that no tensor is switched off."""

CLIP = 1.0
"""Bound on the slope along each scale (Zhu et al. 2021): one explosion must not stall Adam for all later steps."""

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of Adam, as everywhere."""


class Descent:
    """Adam on the scales, with moments of its own for each of two aims: an objective, and a bound to come back to.

    Zhu et al. 2021 (arXiv:2102.08098), algorithm 1: which of the two is lowered changes from step to step. Whether a
    slope is finite, and so counts, is decided on the device: the host does not wait for it.
    """

    def __init__(self, scales: Tensor, lr: float) -> None:
        self._scales, self._lr = scales, lr
        self._objective, self._bound = ([torch.zeros_like(scales) for _ in range(3)] for _ in range(2))

    @torch.no_grad()
    def step(self, slope: Tensor, *, bound: bool = False) -> None:
        """Takes one step down; a slope that is not finite is passed over.

        Args:
            slope: [number of scales], the gradient of what is to be lowered.
            bound: whether that is the bound rather than the objective.
        """
        *moments, count = self._bound if bound else self._objective
        finite, clipped = slope.isfinite().all(), slope.clamp(-CLIP, CLIP)
        count.add_(finite)
        means = []
        for moment, new, beta in zip(moments, (clipped, clipped.square()), BETAS, strict=True):
            moment.copy_(torch.where(finite, torch.lerp(new, moment, beta), moment))
            means.append(moment / -(count * math.log(beta)).expm1())  # over 1 − β^count
        move = self._lr * means[0] / (means[1].sqrt() + EPSILON)
        self._scales.sub_(torch.where(finite, move, 0.0)).clamp_(min=SMALLEST)
