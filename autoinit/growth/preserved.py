"""How far the outputs of two networks are apart: what a growth has kept, measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..task.batches import clone, describe
from ..task.evaluation import eval_mode, uncompiled
from ..task.losses import prediction, split
from ..task.snapshot import preserved as unchanged


def preserved(source: nn.Module, model: nn.Module, batch: Any) -> float:
    """Returns the largest difference of two networks' outputs on a batch, relative to the source's largest output.

    max |f'(x) - f(x)| / max |f(x)|, in evaluation mode and without gradients. Neither network is changed.

    Args:
        source: the trained network.
        model: what has been grown from it.
        batch: one batch as training takes it; its target is not used.

    Raises:
        ModelError: the outputs are of different shapes.
    """
    one, other = _output(source, batch), _output(model, batch)
    if one.shape != other.shape:
        raise ModelError(
            f"Outputs of shapes {tuple(one.shape)} and {tuple(other.shape)} cannot be compared: the model's head is "
            "not the source's."
        )
    largest = one.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float((other - one).abs().max() / largest)


def _output(model: nn.Module, batch: Any) -> Tensor:
    args, kwargs, _ = split(clone(batch))
    with uncompiled(), unchanged(model), eval_mode(model), torch.no_grad():
        output: Any = model(*args, **kwargs)
    found = prediction(output)
    if found is None:
        raise ModelError(f"The model returned no tensor for {describe(batch)}, but {type(output).__name__}.")
    return found.detach().to(device="cpu", dtype=torch.float64 if not found.is_complex() else torch.complex128)
