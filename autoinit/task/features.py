"""What a task is, in numbers, as far as it has to be measured: its owner's draw, its data, its optimizer."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import jsonfile
from ..graph import ADDED, Graph
from ..knowledge.features import Features, architecture_features, own_features, ratio_features
from .assign import read
from .batches import Batch, rows, tensors
from .losses import entropy, split
from .task import Task

ROWS = 1024
"""At most so many rows of data are measured."""
COLUMNS = 256
"""At most so many numbers of a row, evenly spaced, go into a covariance."""
NO_DECAY = -8.0


FOLLOWING = frozenset({"modulates", "conditions"})
"""Fields of layers that a fingerprint leaves out: they came later, and say of old architectures what was true before.

What tells them follows from the model alone, of which the other fields and the data say enough."""


def task_features(task: Task, graph: Graph, own: Mapping[str, float] | None = None) -> Features:
    """Returns all that describes a task: `autoinit.knowledge.features.FEATURES` says what each number is.

    Args:
        task: what will be trained.
        graph: its architecture.
        own: `own_scales` of its model, where they are known already.
    """
    found = {
        **architecture_features(graph),
        **own_features(graph, own_scales(task.model, graph) if own is None else own),
    }
    if task.own is None:  # of a training of its own neither data nor optimizer are known
        optimizer, _ = task.build_optimizer()
        found |= data_features(task.train, () if task.independent_labels else task.label_prior, task.reference)
        found |= training_features(optimizer, task.lr)
    return found | ratio_features(found)


def task_fingerprint(task: Task, graph: Graph, told: Mapping[str, Any]) -> str:
    """Returns a hash of what decides a training: architecture, data, and what is told of loss and optimizer.

    Of the data count the shapes of a batch and, over all batches, how large the numbers are at two digits: which
    batches are held back differs with the seed, and last bits differ between machines and numbers of threads.

    Args:
        task: what is trained.
        graph: its architecture.
        told: JSON-ready; of loss, optimizer and whatever else decides.
    """
    hashed = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8)
    architecture = jsonfile.to_data(dataclasses.replace(graph, label_prior=()))
    architecture["layers"] = [
        {name: value for name, value in jsonfile.as_before(layer, ADDED).items() if name not in FOLLOWING}
        for layer in architecture["layers"]
    ]
    del architecture["independent_labels"]  # it goes with the labels
    architecture = jsonfile.as_before(architecture, {"grows": [], "starts": [], "networks": []})
    hashed.update(json.dumps(architecture, sort_keys=True, default=str).encode())
    batches = [tensors(batch) for batch in (*task.train, *task.probe_eval, *task.gate_eval)]
    for place, first in enumerate(batches[0] if batches else ()):
        everything = [batch[place] for batch in batches if len(batch) > place]
        hashed.update(f"{tuple(first.shape[1:])} {first.dtype} {_size(everything)}".encode())
    return hashed.hexdigest()


def _size(values: Sequence[Tensor]) -> str:
    """Returns the mean and the root mean square of the sizes of numbers, at two digits."""
    count = sum(tensor.numel() for tensor in values)
    mean = sum(float(tensor.abs().double().sum()) for tensor in values) / max(1, count)
    square = sum(float(tensor.abs().double().pow(2).sum()) for tensor in values) / max(1, count)
    return f"{mean:.1e} {math.sqrt(square):.1e}"


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
                numbers = weight if weight.is_complex() else weight.float()
                scales[name] = float(torch.linalg.vector_norm(numbers)) / math.sqrt(weight.numel())
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
