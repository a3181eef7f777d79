"""What the owner has set on purpose, or does not train: weights and biases that must stay, or follow others."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..graph import Globs, Graph, Layer
from ..inheritance.checkpoints import Source
from ..inheritance.pairs import with_pairs
from ..inheritance.trained import with_trained
from ..task.assign import read
from ..text import numberless
from .inventory import FROZEN, UNREACHED, UNTRAINED

ROUNDING = 1e-3
"""By how much the lengths of a pattern's rows may differ, relative, in half precision too; random ones differ more."""
STILL = frozenset({FROZEN, UNREACHED, UNTRAINED})
"""Why a parameter gets no gradient, or none that counts."""
SET = "its owner sets it to a constant"
"""Why a parameter stays that holds one number throughout, and not zero."""
ENOUGH_VALUES = 64
"""Of a tensor that are looked at to tell a random draw from a constant or an identity."""


@dataclass(frozen=True)
class Parts:
    """Which parameters of a model may change, as its owner says.

    Attributes:
        only: globs of names that may; None for all.
        exclude: globs of names that may not; None for none.
        checkpoint: what it has is trained, and may not; None where none is known.
    """

    only: Globs = None
    exclude: Globs = None
    checkpoint: Source | None = None

    def free(self, model: nn.Module, graph: Graph) -> Graph:
        """Returns a model's graph in which everything else must stay, what its owner has set on purpose too.

        Raises:
            ModelError: a glob matches nothing, or nothing is left to initialize.
            SourceError: the checkpoint cannot be read, or is of another architecture.
        """
        return keep_choices(model, graph, self.checkpoint).restricted(self.only, self.exclude)


ALL = Parts()
"""All that nothing else speaks against."""


def keep_untrained(graph: Graph, names: Iterable[str]) -> Graph:
    """Returns the graph in which what the optimizer does not hold must stay: a trained body, under a new head.

    Args:
        graph: the architecture.
        names: of the parameters that the optimizer does not hold.
    """
    return graph.keeping(dict.fromkeys(names, UNTRAINED))


def keep_choices(model: nn.Module, graph: Graph, checkpoint: Source | None = None) -> Graph:
    """Returns the graph in which what its owner has set on purpose must stay.

    That is a weight that is all zeros (a zero head, an adapter, the last convolution of a branch) or one other number
    throughout (a spread of noise, a mean), a bias that is one constant other than zero (a prior, a forget gate at 1),
    and a table of positions with rows of one length (sines and cosines, zeros), which no random draw has. A model
    whose weights are all set so is left free: it could not train.

    Low-rank additions to trained weights are marked, and free as far as they train, whatever they hold: a zero is how
    they usually start. What is a copy of others and gets no gradient (a target network) is marked as such, to stay
    equal to them. With a checkpoint, what that has is trained, and must stay; what it lacks is new.

    Args:
        model: as its owner made it.
        graph: its architecture.
        checkpoint: the trained weights that the model holds, whatever `read_checkpoint` reads; None where none is
            known.

    Raises:
        SourceError: the checkpoint cannot be read, or is of another architecture.
    """
    graph = _with_copies(model, graph)
    chosen: dict[str, str] = {}
    for layer in graph.weights:
        value = _one_value(read(model, layer.name))
        if value is not None:
            chosen[layer.name] = SET if value else "its owner starts it at zero"
    if len(chosen) == len(graph.weights):
        chosen = {}
    for layer in graph.layers:
        if layer.role == "bias" and not layer.keep and _is_set(read(model, layer.name), layer.slices):
            chosen[layer.name] = SET
        elif layer.role == "position" and not layer.keep and _is_pattern(read(model, layer.name)):
            chosen[layer.name] = "its owner sets it to a pattern (zeros, sines and cosines)"
    return with_trained(model, with_pairs(model, graph.keeping(chosen)), checkpoint)


def _with_copies(model: nn.Module, graph: Graph) -> Graph:
    copies = find_copies(model, graph)
    if not copies:
        return graph
    layers = (dataclasses.replace(layer, copy_of=copies.get(layer.name, "")) for layer in graph.layers)
    return dataclasses.replace(graph, layers=tuple(layers))


def _one_value(tensor: Tensor) -> float | None:
    """Returns the value that a tensor holds throughout; None where it holds several, or is one number other than zero.

    The first rows settle it for all but constants: looking at every value costs a third of drawing it.
    """
    if tensor.is_meta:
        return None
    if tensor.numel() == 0:
        return 0.0
    first = tensor[(0,) * tensor.dim()]
    if not bool((tensor[:1] == first).all()) or not bool((tensor == first).all()):
        return None
    value = first.item()
    return value if tensor.numel() > 1 or value == 0 else None


def _is_set(bias: Tensor, slices: int) -> bool:
    """Whether each slice of a bias holds one value throughout, and not all of them are zero."""
    if bias.is_meta or bias.numel() < 2 * slices or not bool(bias.any()):
        return False
    return all(bool((part == part.flatten()[0]).all()) for part in bias.detach().chunk(slices))


def _is_pattern(table: Tensor) -> bool:
    """Whether the rows of a table of positions have one length throughout."""
    if table.is_meta or table.dim() < 2 or table.shape[-1] < 2 or table.numel() < 2 * table.shape[-1]:
        return False
    lengths = table.detach().abs().float().flatten(0, -2).norm(dim=1)
    return bool((lengths - lengths[0]).abs().max() <= ROUNDING * lengths[0])


def find_copies(model: nn.Module, graph: Graph) -> dict[str, str]:
    """Returns the name of each parameter that is a copy → the name of its original, which is trained.

    A module without gradient is a copy where some other module has parameters of the same names and shapes, bit for
    bit equal, and a random matrix among them. Where several have, or it is one of a row of layers that differ in their
    number only, nothing says whose copy it is. Where one differs in some value, it has been trained apart, and its
    parts are no copies either. Frozen parts of the network itself lie at another depth than what they equal (the
    cloned layers of nn.TransformerEncoder); copies lie beside their originals.

    Args:
        model: as its owner made it.
        graph: its architecture.
    """
    still = {layer.name for layer in graph.layers if layer.keep in STILL}
    if not still:
        return {}
    places = _places(layer.name for layer in graph.layers if layer.name not in still)
    found: dict[str, str] = {}
    settled: set[str] = set()
    for path, ends in _modules(graph, still):
        if f"{path}.{ends[0]}" in settled:
            continue  # as a part of a larger module
        alike = [place for place in places[ends[0]] if _are_alike(graph, (path, place), ends)]
        originals = [place for place in alike if _is_copy(model, graph, (path, place), ends)]
        if alike:
            settled.update(f"{path}.{end}" for end in ends)
        if len(originals) == 1:
            found.update((f"{path}.{end}", _joined(originals[0], end)) for end in ends)
    return found


def _modules(graph: Graph, still: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields the path of each module whose parameters all get no gradient, outer ones first, with their names in it."""
    inside: defaultdict[str, list[str]] = defaultdict(list)
    for name in graph:
        for path, end in _cuts(name):
            inside[path].append(end)
    for path in sorted(inside, key=lambda path: path.count(".")):
        if path and all(f"{path}.{end}" in still for end in inside[path]):
            yield path, inside[path]


def _places(names: Iterator[str]) -> defaultdict[str, list[str]]:
    """Returns the end of a name → the paths of all modules in which something has that name; "" for the model."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        for path, end in _cuts(name):
            found[end].append(path)
    return found


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """Yields every (path of a module, name inside it) of a parameter."""
    parts = name.split(".")
    for place in range(len(parts)):
        yield ".".join(parts[:place]), ".".join(parts[place:])


def _joined(path: str, end: str) -> str:
    return f"{path}.{end}" if path else end


def _are_alike(graph: Graph, paths: tuple[str, str], ends: Sequence[str]) -> bool:
    """Whether the second of two modules has all that the first has, in the same shapes, and with gradients."""
    pairs = ((graph[_joined(paths[0], end)], graph.get(_joined(paths[1], end))) for end in ends)
    return all(other is not None and other.keep not in STILL and other.shape == one.shape for one, other in pairs)


def _is_copy(model: nn.Module, graph: Graph, paths: tuple[str, str], ends: Sequence[str]) -> bool:
    """Whether the first of two modules that are alike is a copy of the second."""
    if len(set(map(numberless, paths))) == 1:
        return False
    pairs = [(graph[_joined(paths[0], end)], graph[_joined(paths[1], end)]) for end in ends]
    if not all(_are_beside(*pair) and _are_equal(model, *pair) for pair in pairs):
        return False
    return any(original.is_matrix and _is_random(read(model, original.name)) for _, original in pairs)


def _are_beside(copy: Layer, original: Layer) -> bool:
    """Whether two parameters may lie beside each other; the place of what the loss does not see is not known."""
    return copy.keep == UNREACHED or copy.kind != original.kind or copy.depth == original.depth


def _are_equal(model: nn.Module, copy: Layer, original: Layer) -> bool:
    one, other = read(model, copy.name), read(model, original.name)
    return not one.is_meta and one.dtype == other.dtype and torch.equal(one, other.to(one.device))


def _is_random(tensor: Tensor) -> bool:
    return len(set(tensor.detach().flatten()[:ENOUGH_VALUES].tolist())) > 2
