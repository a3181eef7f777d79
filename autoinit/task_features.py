"""What a task is, in numbers, as far as it has to be measured: its owner's draw, its data, its optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .assign import read
from .data import Batch, rows, tensors
from .graph import Graph
from .losses import entropy, split
from .metafeatures import Features, architecture_features, own_features
from .task import Task

ROWS = 1024
"""At most so many rows of data are measured."""
COLUMNS = 256
"""At most so many numbers of a row, evenly spaced, go into a covariance."""
NO_DECAY = -8.0


def task_features(task: Task, graph: Graph) -> Features:
    """Returns all that describes a task: `autoinit.metafeatures.FEATURES` says what each number is."""
    optimizer, _ = task.build_optimizer()
    return {
        **architecture_features(graph),
        **own_features(graph, own_scales(task.model, graph)),
        **data_features(task.train, task.label_prior, task.reference),
        **training_features(optimizer, task.lr),
    }


def own_scales(model: nn.Module, graph: Graph) -> dict[str, float]:
    """Returns the root mean square of each weight's entries as they are now, by name; none on the meta device.

    Args:
        model: whose architecture was read.
        graph: its parameters.
    """
    named = [layer.name for layer in graph.layers if layer.is_matrix or layer.kind == "embedding"]
    scales = {}
    with torch.no_grad():
        for name in named:
            weight = read(model, name)
            if not weight.is_meta and weight.numel():
                scales[name] = float(torch.linalg.vector_norm(weight.float())) / math.sqrt(weight.numel())
    return scales


def data_features(
    batches: Sequence[Batch], label_prior: Sequence[float] = (), reference: float | None = None
) -> Features:
    """Returns what data are, in numbers.

    Args:
        batches: to train on.
        label_prior: relative frequency of each class; empty where the loss is no classification.
        reference: loss of the best constant prediction; None where it is unknown.
    """
    if not batches:
        return {}
    found = {
        "data_classes": math.log2(max(1, len(label_prior))),
        "data_entropy": entropy(label_prior) / math.log(len(label_prior)) if len(label_prior) > 1 else 0.0,
        "data_batch": math.log2(max(1, rows(batches[0]))),
        "data_batches": math.log2(len(batches)),
    }
    if reference is not None and reference > 0:
        found["data_reference"] = math.log(reference)
    inputs = _inputs(batches)
    return found if inputs is None else found | _input_features(inputs)


def training_features(optimizer: Optimizer, lr: float | None) -> Features:
    """Returns what an optimizer is, in numbers.

    Args:
        optimizer: as it starts; its first group of parameters is looked at.
        lr: its own learning rate; None where there is none to read.
    """
    group = optimizer.param_groups[0]
    betas = group.get("betas")
    decay = float(group.get("weight_decay") or 0.0)
    found = {
        "train_adaptive": float(betas is not None or "alpha" in group),
        "train_momentum": float(betas[0] if betas else group.get("momentum", 0.0)),
        "train_decay": math.log10(decay) if decay > 0 else NO_DECAY,
    }
    if lr is not None and lr > 0:
        found["train_lr"] = math.log10(lr)
    return found


def _inputs(batches: Sequence[Batch]) -> Tensor | None:
    """Returns the first input of enough batches, a row each; None where there is no tensor of one size."""
    found: list[Tensor] = []
    for batch in batches:
        positional, named, _ = split(batch)
        first = next((item for part in (*positional, *named.values()) for item in tensors(part)), None)
        if first is None or first.dim() == 0 or (found and first.shape[1:] != found[0].shape[1:]):
            break
        found.append(first.detach())
        if sum(map(len, found)) >= ROWS:
            break
    return torch.cat(found)[:ROWS].reshape(-1, math.prod(found[0].shape[1:])) if found else None


def _input_features(inputs: Tensor) -> Features:
    whole = not inputs.is_floating_point() and not inputs.is_complex()
    found = {"data_size": math.log2(max(1, inputs.shape[1])), "data_tokens": float(whole)}
    if whole or inputs.is_meta or inputs.is_complex():
        return found
    values = inputs.float()
    spread = float(values.std(correction=0))
    scale = float(values.pow(2).mean().sqrt())
    found["data_mean"] = float(values.mean()) / spread if spread > 0 else 0.0
    found["data_scale"] = math.log2(scale) if scale > 0 else 0.0
    found["data_rank"] = _rank(values[:, :: math.ceil(values.shape[1] / COLUMNS)])
    return found


def _rank(values: Tensor) -> float:
    """Returns (Σλ)²/Σλ² of the covariance's eigenvalues λ, over the most that it can be: 1 for equal ones."""
    centred = values - values.mean(0)
    # The smaller of the two Gram matrices has the same eigenvalues; their squares sum to its squared entries.
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    squares = float(gram.pow(2).sum())
    most = max(1, min(len(values) - 1, values.shape[1]))
    return float(gram.trace()) ** 2 / squares / most if squares > 0 else 0.0
