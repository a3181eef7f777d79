"""SynFlow: scores that flow through the network from an input of ones, without data and without collapse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..graph import Graph
from ..task.batches import map_tensors, tensors
from ..task.evaluation import eval_mode
from ..task.losses import prediction
from ..task.task import Task
from .ranking import Masks, best

ROUNDS = 100
"""Iterations of the paper."""
_REMEDY = "Choose method='magnitude', 'snip' or 'grasp'."


def synflow(task: Task, graph: Graph, names: list[str], sparsity: float, *, rounds: int) -> tuple[Masks, Masks]:
    """Returns the masks of SynFlow and the scores of the last iteration, in which a removed entry has 0.

    In each of n iterations, θ ⊙ ∂R/∂θ is taken of the network with |θ| for its weights, R the sum of its outputs on an
    input of ones, and the lowest scores are removed until (1 − sparsity)^(k/n) of all are left. Biases and running
    means are zero meanwhile, and the model is in evaluation mode, so that R = 1ᵀ·∏|θ|·1 as in the paper: what flows
    into a unit flows out of it, and all layers of a chain have one sum of scores. Double precision holds products
    of many layers. Source: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving
    synaptic flow", arXiv:2006.05467.

    Args:
        task: the model, which is put back, and a batch, of which only the shapes count.
        graph: of this model.
        names: of the weights.
        sparsity: share of their entries that is removed.
        rounds: iterations.

    Raises:
        ModelError: the model takes whole numbers, or its outputs do not tell weights apart.
    """
    with task.preserved(), eval_mode(task.model):
        call = _ones(task)
        _linearize(task.model, graph)
        weights = {name: task.model.get_parameter(name) for name in names}
        masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        scores: Masks = {}
        for turn in range(1, rounds + 1):
            scores = flow(call, weights)
            alive = {name: score.masked_fill(~masks[name], -torch.inf) for name, score in scores.items()}
            masks = best(alive, 1 - (1 - sparsity) ** (turn / rounds))
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.mul_(masks[name])
        return masks, scores


def flow(call: Callable[[], Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns θ ⊙ ∂R/∂θ of each weight.

    Args:
        call: gives R.
        weights: |θ|, the removed entries zero.
    """
    total = call()
    if not total.requires_grad:
        raise ModelError(f"SynFlow sees no weight in what the model puts out. {_REMEDY}")
    found = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    scores = {
        name: torch.zeros_like(weight) if part is None else (part * weight.detach()).abs()
        for (name, weight), part in zip(weights.items(), found, strict=True)
    }
    if not any(bool((score > 0).any()) for score in scores.values()):
        raise ModelError(
            "SynFlow's scores are all zero: the sum of the model's outputs is the same for any weights, as after a "
            f"softmax, or nothing passes from input to output. Take the softmax out of the model. {_REMEDY}"
        )
    return scores


def _linearize(model: nn.Module, graph: Graph) -> None:
    """Puts |θ| in double precision in the place of all parameters, and zero in that of biases and running means."""
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.abs_()
        for layer in graph.layers:
            if layer.role == "bias" and not layer.parametrized:
                model.get_parameter(layer.name).zero_()
        for name, buffer in model.named_buffers():
            if name.rpartition(".")[2] == "running_mean":
                buffer.zero_()


def _ones(task: Task) -> Callable[[], Tensor]:
    """Returns what gives the sum of a model's outputs on one row of ones.

    How the model is called is seen in a pass on the first batch.
    """
    seen: list[tuple[Any, Any]] = []
    handle = task.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
    )
    task.loss(task.train[0])
    handle.remove()
    if not seen:
        raise ModelError(f"SynFlow calls the model on ones, and the step does not call it. {_REMEDY}")
    args, kwargs = seen[0]
    if not any(one.is_floating_point() for one in tensors([args, kwargs])):
        raise ModelError(f"SynFlow feeds ones in the place of the data, and this model takes whole numbers. {_REMEDY}")
    args, kwargs = map_tensors(_as_ones, args), map_tensors(_as_ones, kwargs)

    def total() -> Tensor:
        with torch.enable_grad(), torch.autocast(task.device.type, enabled=False):
            output = prediction(task.model(*args, **kwargs))
        if output is None:
            raise ModelError(f"SynFlow sums up the outputs of the model, and they hold no tensor. {_REMEDY}")
        return output.sum()

    return total


def _as_ones(tensor: Tensor) -> Tensor:
    """Returns one row of ones in double precision for numbers with a fraction, and one row of anything else."""
    row = tensor[:1] if tensor.dim() else tensor
    return torch.ones_like(row, dtype=torch.float64) if row.is_floating_point() else row
