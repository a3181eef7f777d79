"""What the owner has set on purpose: weights and biases that must stay as they are."""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from ..graph import Graph
from ..task.assign import read


def keep_choices(model: nn.Module, graph: Graph) -> Graph:
    """Returns the graph in which what its owner has set on purpose must stay.

    That is a weight that is all zeros (a zero head, an adapter, the last convolution of a branch), and a bias that
    is one constant other than zero (a prior, a forget gate at 1). A model whose weights are all zeros is left free:
    it could not train.
    """
    chosen: dict[str, str] = {}
    for layer in graph.weights:
        tensor = read(model, layer.name)
        # The first rows settle it for all but zeros: looking at every value costs a third of drawing it.
        if not tensor.is_meta and not bool(tensor[:1].any()) and not bool(tensor.any()):
            chosen[layer.name] = "its owner starts it at zero"
    if len(chosen) == len(graph.weights):
        chosen = {}
    for layer in graph.layers:
        if layer.role == "bias" and not layer.keep and _is_set(read(model, layer.name), layer.slices):
            chosen[layer.name] = "its owner sets it to a constant"
    layers = (
        dataclasses.replace(layer, keep=chosen[layer.name]) if layer.name in chosen else layer for layer in graph.layers
    )
    return dataclasses.replace(graph, layers=tuple(layers)) if chosen else graph


def _is_set(bias: Tensor, slices: int) -> bool:
    """Whether each slice of a bias holds one value throughout, and not all of them are zero."""
    if bias.is_meta or bias.numel() < 2 * slices or not bool(bias.any()):
        return False
    return all(bool((part == part.flatten()[0]).all()) for part in bias.detach().chunk(slices))
