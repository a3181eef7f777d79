"""What the owner has set on purpose, or does not train: weights and biases that must stay as they are."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ..graph import Graph
from ..task.assign import read

ROUNDING = 1e-3
"""By how much the lengths of a pattern's rows may differ, relative, in half precision too; random ones differ more."""

UNTRAINED = "your optimizer does not train it"


def keep_untrained(graph: Graph, names: Iterable[str]) -> Graph:
    """Returns the graph in which what the optimizer does not hold must stay: a trained body, under a new head.

    Args:
        graph: the architecture.
        names: of the parameters that the optimizer does not hold.
    """
    return graph.keeping(dict.fromkeys(names, UNTRAINED))


def keep_choices(model: nn.Module, graph: Graph) -> Graph:
    """Returns the graph in which what its owner has set on purpose must stay.

    That is a weight that is all zeros (a zero head, an adapter, the last convolution of a branch), a bias that is one
    constant other than zero (a prior, a forget gate at 1), and a table of positions with rows of one length (sines and
    cosines, zeros), which no random draw has. A model whose weights are all zeros is left free:
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
        elif layer.role == "position" and not layer.keep and _is_pattern(read(model, layer.name)):
            chosen[layer.name] = "its owner sets it to a pattern (zeros, sines and cosines)"
    return graph.keeping(chosen)


def _is_set(bias: Tensor, slices: int) -> bool:
    """Whether each slice of a bias holds one value throughout, and not all of them are zero."""
    if bias.is_meta or bias.numel() < 2 * slices or not bool(bias.any()):
        return False
    return all(bool((part == part.flatten()[0]).all()) for part in bias.detach().chunk(slices))


def _is_pattern(table: Tensor) -> bool:
    """Whether the rows of a table of positions have one length throughout."""
    if table.is_meta or table.dim() < 2 or table.shape[-1] < 2 or table.numel() < 2 * table.shape[-1]:
        return False
    lengths = table.detach().float().flatten(0, -2).norm(dim=1)
    return bool((lengths - lengths[0]).abs().max() <= ROUNDING * lengths[0])
