"""Which weights a mask may thin out, and why each of the others stays whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from ..errors import ModelError
from ..graph import Graph, Layer
from ..task.task import Task

_TABLE = "a table, of which a pass reads some rows only; the papers have none"
_FOREIGN = "it is no weight matrix ({role})"
_HELD = "derived by {how}, on which torch.nn.utils.prune cannot put a mask"
_NUMBERS = "its values are {dtype}, not real numbers with a fraction"
_UNCALLED = "its module is read without being called, so that torch.nn.utils.prune could not keep a mask on it"


@dataclass(frozen=True)
class Prunable:
    """Weights that may be thinned out.

    Attributes:
        sizes: name of each → its number of entries, in the order of the model's parameters.
        notes: which other matrices stay whole and why, in whole sentences.
    """

    sizes: dict[str, int]
    notes: tuple[str, ...]


def find_prunable(task: Task, graph: Graph) -> Prunable:
    """Returns the free matrices of a model: of linear layers, convolutions and recurrent cells, the head included.

    Biases, scales and other vectors stay as they are, as in all of the papers. A tied weight is one weight, whatever
    it is called; the graph has it under its first name. One forward pass tells which modules are called.

    Args:
        task: the model and its data.
        graph: of this model; what it keeps stays whole.

    Raises:
        ModelError: nothing is left.
    """
    called = _called(task)
    sizes: dict[str, int] = {}
    kept: dict[str, list[str]] = {}
    for layer in graph.layers:
        if len(layer.shape) > 1:
            reason = _reason(task.model, layer, called)
            if reason:
                kept.setdefault(reason, []).append(layer.name)
            else:
                sizes[layer.name] = layer.size
    notes = tuple(f"{', '.join(names)}: stays whole ({reason})." for reason, names in kept.items())
    if not sizes:
        raise ModelError(f"No weight of the model can be thinned out. {' '.join(notes) or 'It has no matrix.'}")
    return Prunable(sizes, notes)


def places(model: nn.Module, weight: Tensor) -> Iterator[tuple[nn.Module, str]]:
    """Yields every module that holds a parameter, with the name that it has there; of a tied one there are several."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is weight:
                yield module, name


def _reason(model: nn.Module, layer: Layer, called: set[int]) -> str:
    """Returns why a matrix stays whole; empty where it may be thinned out."""
    if layer.keep:
        return layer.keep
    if layer.kind == "embedding":
        return _TABLE
    if not layer.is_matrix:
        return _FOREIGN.format(role=layer.role)
    if layer.parametrized:
        return _HELD.format(how=layer.parametrized)
    weight = model.get_parameter(layer.name)
    if not weight.is_floating_point():
        return _NUMBERS.format(dtype=weight.dtype)
    if any(id(module) not in called for module, _ in places(model, weight)):
        return _UNCALLED
    return ""


def _called(task: Task) -> set[int]:
    """Returns the identities of the modules that a pass calls; the model is as it was afterwards."""
    found: set[int] = set()

    def note(module: nn.Module, inputs: object) -> None:
        found.add(id(module))

    with task.preserved():
        for module in task.model.modules():
            module.register_forward_pre_hook(note)  # the snapshot takes it away
        task.model.train()
        task.loss(task.train[0])
    return found
