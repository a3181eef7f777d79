"""The hidden units of a model by layer, put together from what one pass showed: what feeds, shifts and reads each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..graph import Graph, Layer
from .unit_paths import UnitPaths, unsettable

JOINT = " · "
"""Between the names of weights that feed the same units."""
LINEAR = "no activation function lies between its units and the weights that read them"
_ALSO_LINEAR = "a weight reads its units before their activation function, too"
_RECURRENT = "the units of recurrent cells are not looked at: each reads all of them, step after step"
_UNSEEN = "no product with it by itself was seen in the pass"


@dataclass(frozen=True, slots=True)
class Unit:
    """One hidden unit: what belongs to it.

    Attributes:
        incoming: (weight, row) of what feeds it; of a gated unit, of both factors.
        outgoing: (weight, column) of what reads it; of a channel that is flattened, one for each position.
        own: (parameter or buffer, entry, value at the start) of biases and of normalizations.
        score: mean magnitude of its activation, in the mean of its layer.
    """

    incoming: tuple[tuple[str, int], ...]
    outgoing: tuple[tuple[str, int], ...]
    own: tuple[tuple[str, int, float], ...]
    score: float = 0.0


@dataclass(frozen=True)
class Measured:
    """The units of one layer in one pass, and the sums of magnitudes of each.

    Attributes:
        units: without scores.
        sums: [units, measurements]; not a number where a unit is not part of a measurement.
    """

    units: tuple[Unit, ...]
    sums: Tensor


@dataclass(frozen=True)
class Pass:
    """What one pass tells.

    Attributes:
        layers: names of the weights that feed their units, joined → the units.
        left: weights of whose units not all is known → why.
    """

    layers: Mapping[str, Measured]
    left: Mapping[str, str]


def layers_of(graph: Graph, paths: UnitPaths) -> Pass:
    """Returns the layers whose units are known, and why others are not."""
    roots = _roots(paths)
    members: dict[int, list[int]] = {}
    for number, root in enumerate(roots):
        members.setdefault(root, []).append(number)
    found = _Belongings(graph, paths, roots)
    groups: dict[tuple[str, ...], list[int]] = {}
    for root, numbers in members.items():
        groups.setdefault(tuple(dict.fromkeys(paths.units[one][0] for one in numbers)), []).append(root)
    layers, left = dict[str, Measured](), dict[str, str]()
    for names, its in groups.items():
        why = next((found.lost[root] for root in its if root in found.lost), "")
        why = why or ("" if all(found.outgoing.get(root) for root in its) else "no weight was seen to read all of them")
        why = why or ("" if all(found.records.get(root) for root in its) else LINEAR)
        why = why or ("" if found.linear.isdisjoint(its) else _ALSO_LINEAR)
        if why:
            left |= dict.fromkeys(names, why)
        else:
            layers[JOINT.join(names)] = found.layer(its, members)
    for layer in graph.weights:
        if layer.name not in left and all(layer.name not in name.split(JOINT) for name in layers):
            left[layer.name] = _RECURRENT if layer.kind == "recurrent" else _UNSEEN
    return Pass(layers, left)


def _roots(paths: UnitPaths) -> list[int]:
    """Returns, of each unit, the smallest number among those that it is multiplied with, and they with others."""
    roots = list(range(len(paths.units)))

    def root(one: int) -> int:
        while roots[one] != one:
            roots[one] = roots[roots[one]]
            one = roots[one]
        return one

    for pairs in paths.joined:
        for one, other in pairs.tolist():
            low, high = sorted((root(one), root(other)))
            roots[high] = low
    return [root(one) for one in range(len(roots))]


class _Belongings:
    """What belongs to each unit of a pass, by its root.

    Attributes:
        outgoing: (weight, column) of what reads it.
        own: (name, entry, value at the start).
        records: numbers of its measurements.
        linear: those that some weight reads before any activation function.
        lost: why it is left.
    """

    def __init__(self, graph: Graph, paths: UnitPaths, roots: list[int]) -> None:
        self._paths, self._roots, self._biases = paths, roots, _biases(graph)
        self.outgoing: dict[int, list[tuple[str, int]]] = {}
        self.own: dict[int, list[tuple[str, int, float]]] = {}
        self.records: dict[int, set[int]] = {}
        self.linear: set[int] = set()
        self.lost: dict[int, str] = {}
        for ids, why in paths.lost:
            self._lose(ids, why)
        fixed = {name: unsettable(bias) for name, its in self._biases.items() for bias in its if unsettable(bias)}
        self.lost |= {roots[at]: fixed[name] for at, (name, _) in enumerate(paths.units) if name in fixed}
        for read in paths.reads:
            for column, root in self._places(read.ids):
                self.outgoing.setdefault(root, []).append((read.weight, column))
                self.records.setdefault(root, set()).update(read.records)
            if not read.records:
                self.linear |= {root for _, root in self._places(read.ids)}
        for ids, name, start in paths.norms:
            for entry, root in self._places(ids):
                self.own.setdefault(root, []).append((name, entry, start))

    def _lose(self, ids: Tensor, why: str) -> None:
        for _, root in self._places(ids):
            self.lost.setdefault(root, why)

    def _places(self, ids: Tensor) -> list[tuple[int, int]]:
        return [(place, self._roots[one]) for place, one in enumerate(ids.tolist()) if one >= 0]

    def layer(self, its: list[int], members: Mapping[int, list[int]]) -> Measured:
        """Returns the layer of some units."""
        units = [self._unit(root, members[root]) for root in its]
        numbers = sorted({one for root in its for one in self.records[root]})
        place = {root: at for at, root in enumerate(its)}
        sums = torch.full((len(its), len(numbers)), torch.nan, dtype=torch.float64)
        for column, number in enumerate(numbers):
            ids, values = self._paths.records[number]
            for at, root in self._places(ids):
                if root in place and number in self.records[root]:
                    sums[place[root], column] = values[at]
        return Measured(tuple(units), sums)

    def _unit(self, root: int, numbers: list[int]) -> Unit:
        incoming = tuple(self._paths.units[one] for one in numbers)
        biases = [(bias.name, row, 0.0) for weight, row in incoming for bias in self._biases.get(weight, ())]
        return Unit(incoming, tuple(self.outgoing[root]), (*biases, *self.own.get(root, ())))


def _biases(graph: Graph) -> dict[str, list[Layer]]:
    """Returns the biases of each weight that have one entry for each of its units."""
    found: dict[str, list[Layer]] = {}
    for bias in graph.layers:
        weight = graph.get(bias.of or "")
        shifts = weight is not None and bias.role == "bias" and len(weight.out_axes) == 1
        if weight is not None and shifts and bias.size == weight.shape[weight.out_axes[0]]:
            found.setdefault(weight.name, []).append(bias)
    return found
