"""Which weights read the units of which: seen while a model runs, unit by unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..graph import Graph, Layer
from ..task.batches import tensors
from ..task.interceptor import Interceptor
from . import trails
from .trails import Trail, plain_name

_SAME_WEIGHT = frozenset("t transpose swapaxes permute get float double half bfloat16 to contiguous detach".split())
"""Functions whose result stands for the weight that they are called on, and may be its transpose."""
_SUMS = frozenset("add radd iadd sub rsub isub subtract".split())
_PRODUCTS_BY_ENTRY = frozenset("mul rmul imul multiply div truediv divide idiv itruediv".split())
_WATCHED_KINDS = ("linear", "conv", "conv_transposed")


@dataclass(frozen=True, slots=True)
class Read:
    """That a weight reads units.

    Attributes:
        weight: its name.
        ids: [entries along its input axis] the numbers of the units that it reads there.
        records: the measurements of how active they are, on the way here.
    """

    weight: str
    ids: Tensor
    records: tuple[int, ...]


class UnitPaths(Interceptor):
    """Follows the units of every layer through a pass, until weights read them.

    Attributes:
        units: (weight, row) of every unit, by its number.
        joined: pairs of units that are multiplied with each other, as [pairs, 2].
        reads: which weights read which units.
        records: (ids, sums of magnitudes) of each measurement, by its number.
        norms: (ids, name, value at the start) of the entries of normalizations, one for each unit.
        lost: (ids, why) of units that are used otherwise, so that nobody can tell what they do.
    """

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        """Makes one for a single pass."""
        super().__init__()
        self.units: list[tuple[str, int]] = []
        self.joined: list[Tensor] = []
        self.reads: list[Read] = []
        self.records: list[tuple[Tensor, Tensor]] = []
        self.norms: list[tuple[Tensor, str, float]] = []
        self.lost: list[tuple[Tensor, str]] = []
        self._graph = graph
        self._names = {id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        self._trails: dict[int, Trail] = {}
        self._alive: list[Any] = []
        self._uses: dict[str, list[Tensor]] = {}
        self._norm_ids: dict[str, Tensor] = {}

    def finish(self, output: Any) -> None:
        """Marks what the model puts out."""
        for tensor in tensors(output):
            self._lose([tensor], "they are part of what the model puts out")

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns what the function returns, and notes where units are in it."""
        name = plain_name(func)
        given = tensors((args, dict(kwargs)))
        before = {id(one): self._trails[id(one)] for one in given if id(one) in self._trails}
        result = func(*args, **kwargs)
        self._alive += [*given, result]  # no number of an object may be given to another one
        if name in _SAME_WEIGHT and given and id(given[0]) in self._names and isinstance(result, Tensor):
            self._names[id(result)] = self._names[id(given[0])]
        elif name in trails.PRODUCTS and len(args) + len(kwargs) > trails.PRODUCTS[name]:
            self._product(func, name, args, kwargs, result, before)
        elif before and (tensors(result) or name == "setitem"):
            self._follow(func, name, args, kwargs, result, before)
        return result

    # Products

    def _product(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor, before: Any
    ) -> None:
        """Notes what a weight reads, and the units that it makes."""
        place = trails.PRODUCTS[name]
        x, weight = (_argument(args, kwargs, at, key) for at, key in ((place - 1, "input"), (place, "weight")))
        layer = self._graph.get(self._names.get(id(weight), ""))
        trail = before.get(id(x))
        others = [one for one in tensors((args, dict(kwargs))) if id(one) in before and one is not x]
        self._lose(others, f"{name} uses them, and not as its input")
        why = "" if layer is None else _unreadable(layer)
        if layer is None or why:
            self._lose([x], why or f"{name} reads them, and no weight of the model by itself")
        used = self._used(layer, trail)
        if layer is None or used:
            return
        if trail is not None and not why:
            self._read(layer, x, trail)
        self._make(layer, result)

    def _used(self, layer: Layer | None, trail: Trail | None) -> bool:
        """Whether a weight has been used in this pass before; then nothing is known of all that it reads and makes."""
        if layer is None:
            return False
        before = self._uses.get(layer.name)
        ids = [] if trail is None else [trail.ids]
        if before is None:
            self._uses[layer.name] = ids
            return False
        why = f"{layer.name} is used several times in a pass"
        self.lost += [(one, why) for one in (*before, *ids)]
        return True

    def _read(self, layer: Layer, x: Tensor, trail: Trail) -> None:
        axis = _unit_axis(layer, x)
        if trail.axis != axis or layer.shape[layer.in_axes[0]] != len(trail.ids):
            self.lost.append((trail.ids, f"{layer.name} is applied along another axis than theirs"))
        else:
            self.reads.append(Read(layer.name, trail.ids, trail.records))

    def _make(self, layer: Layer, result: Tensor) -> None:
        """Gives numbers to the units that a weight makes."""
        axis, count = _unit_axis(layer, result), layer.shape[layer.out_axes[0]] if layer.out_axes else 0
        if layer.kind not in _WATCHED_KINDS or len(layer.out_axes) != 1 or not 0 <= axis < result.dim():
            return
        if result.shape[axis] == count:
            ids = torch.arange(len(self.units), len(self.units) + count)
            self.units += [(layer.name, row) for row in range(count)]
            self._uses[layer.name].append(ids)
            self._trails[id(result)] = Trail(axis, ids)
            if why := unsettable(layer):
                self.lost.append((ids, why))

    # Everything else

    def _follow(
        self,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        result: Any,
        before: Mapping[int, Trail],
    ) -> None:
        """Notes where units are after a function that is no product with a weight."""
        given = [one for one in tensors((args, dict(kwargs))) if id(one) in before]
        for one in tensors(result):
            self._trails.pop(id(one), None)
        if name in trails.MOVING and not _in_place(func):
            found = trails.labels_after(func, args, kwargs, before)
            if not found or None in found or "out" in kwargs:
                self._lose_all(before, f"{name} moves them where they cannot be told apart")
                return
            for one, trail in zip(tensors(result), found, strict=True):
                self._put(one, trail)
        elif not isinstance(result, Tensor) or len(given) > 2:
            self._lose_all(before, f"{name} uses them")
        else:
            self._entrywise(func, name, args, kwargs, result, before)

    def _entrywise(
        self,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        result: Tensor,
        before: Mapping[int, Trail],
    ) -> None:
        first, *rest = before.values()
        own = next(one for one in tensors((args, dict(kwargs))) if id(one) in before)
        others = [one for one in tensors((args, dict(kwargs))) if id(one) not in before]
        moved = Trail(first.axis + result.dim() - own.dim(), first.ids, first.records)
        alike = all(torch.equal(one.ids, first.ids) and one.axis == first.axis for one in rest)
        if name in trails.NORMS and not rest:
            self._normalized(name, first.ids, trails.bound(func, args, kwargs))
            self._put(result, moved)
        elif name in trails.REDUCING and not rest:
            self._put(result, trails.reduced(args, kwargs, result, first), lost=before, name=name)
        elif name in trails.KEEPING and not rest:
            self._put(result, moved, lost=before, name=name)
        elif (name in trails.FUNCTIONS or name in _SUMS) and alike and all(map(self._is_constant, others)):
            nonlinear = name in trails.FUNCTIONS or bool(rest)
            self._put(result, self._measured(result, moved) if nonlinear else moved, lost=before, name=name)
        elif name in _PRODUCTS_BY_ENTRY:
            self._multiplied(name, args, result, before, moved, alike)
        elif name == "glu":
            self._gated(args, kwargs, result, first)
        else:
            self._lose_all(before, f"{name} mixes them with others" if rest or others else f"{name} uses them")

    def _multiplied(
        self, name: str, args: tuple[Any, ...], result: Tensor, before: Mapping[int, Trail], moved: Trail, alike: bool
    ) -> None:
        """Notes the units of a product of two tensors, entry by entry."""
        if len(before) == 1:
            others = [one for one in tensors(args) if id(one) not in before]
            inverse = name.startswith("rtrue") or (others and "div" in name and args[0] is others[0])
            twice = len(tensors(args)) - len(others) > 1
            scaled = all(map(self._is_constant, others)) and not inverse and not twice
            self._put(result, moved if scaled else self._measured(result, moved), lost=before, name=name)
            return
        pair = [one for one in tensors(args) if id(one) in before]
        one, other = (before[id(tensor)] for tensor in pair)
        aligned = one.from_the_end(pair[0]) == other.from_the_end(pair[1]) and len(one.ids) == len(other.ids)
        if alike:
            self._put(result, self._measured(result, moved), lost=before, name=name)
        elif aligned and "div" not in name:
            self._join(one.ids, other.ids)
            self._put(result, self._measured(result, moved), lost=before, name=name)
        else:
            self._lose_all(before, f"{name} mixes them with others")

    def _gated(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor, trail: Trail) -> None:
        """Notes the units of F.glu, the halves of whose input are multiplied."""
        axis = args[1] if len(args) > 1 else kwargs.get("dim", -1)
        if axis % result.dim() != trail.axis:
            self.lost.append((trail.ids, "glu is applied along another axis than theirs"))
            return
        one, other = trail.ids.chunk(2)
        self._join(one, other)
        self._put(result, self._measured(result, Trail(trail.axis, one)))

    def _join(self, one: Tensor, other: Tensor) -> None:
        both = torch.stack([one, other], dim=1)
        self.joined.append(both[(both >= 0).all(dim=1)])

    def _normalized(self, name: str, ids: Tensor, given: Mapping[str, Any]) -> None:
        """Notes which entries of a normalization belong to which unit."""
        for key in trails.NORMS[name]:
            tensor = given.get(key)
            if not isinstance(tensor, Tensor):
                continue
            entry = self._names.get(id(tensor), "")
            layer = self._graph.get(entry)
            why = "" if layer is None else unsettable(layer)
            why = f"{entry} is used several times in a pass" if entry in self._norm_ids else why
            why = why if entry else f"{name} has entries that are not the model's"
            if why:
                self.lost += [(one, why) for one in (ids, self._norm_ids.get(entry, ids))]
            else:
                self._norm_ids[entry] = ids
                self.norms.append((ids, entry, trails.STARTS[key]))

    # Trails

    def _put(
        self, result: Tensor, trail: Trail | None, lost: Mapping[int, Trail] | None = None, name: str = ""
    ) -> None:
        """Notes where units are in a tensor; where they are not, that they are lost."""
        if trail is not None and trail.fits(result):
            self._trails[id(result)] = trail
        elif lost is not None:
            self._lose_all(lost, f"{name} mixes them")

    def _measured(self, result: Tensor, trail: Trail) -> Trail:
        """Returns the trail with a measurement of how active its units are here."""
        if not trail.fits(result):
            return trail
        self.records.append((trail.ids, trails.activity(result, trail.axis)))
        return Trail(trail.axis, trail.ids, (len(self.records) - 1,))

    def _lose(self, given: Sequence[Tensor], why: str) -> None:
        self.lost += [(self._trails[id(one)].ids, why) for one in given if id(one) in self._trails]

    def _lose_all(self, before: Mapping[int, Trail], why: str) -> None:
        self.lost += [(trail.ids, why) for trail in before.values()]

    def _is_constant(self, tensor: Tensor) -> bool:
        """Whether a tensor is a parameter, or a single number."""
        return id(tensor) in self._names or tensor.numel() == 1


def _argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int, key: str) -> Any:
    return args[place] if len(args) > place else kwargs.get(key)


def _unit_axis(layer: Layer, tensor: Tensor) -> int:
    """Returns the axis of what a weight reads, or makes, that runs over units: the channels, or the last one."""
    return tensor.dim() - 1 - len(layer.kernel_axes)


def _in_place(func: Callable[..., Any]) -> bool:
    name = str(func.__name__)
    return name.endswith("_") and not name.endswith("__")


def unsettable(layer: Layer) -> str:
    """Returns why the entries of a parameter that belong to a unit cannot be set; empty where they can."""
    if layer.keep:
        return f"{layer.name}, which is next to them, is to stay as it is"
    if layer.tied_to or layer.copy_of:
        return f"{layer.name}, which is next to them, is one with another parameter"
    return f"{layer.name}, which is next to them, is derived from other tensors" if layer.parametrized else ""


def _unreadable(layer: Layer) -> str:
    """Returns why the entries of a weight that read a unit cannot be told, or not be set; empty where they can."""
    if layer.groups > 1:
        return f"{layer.name} reads them in groups"
    plain = len(layer.in_axes) == 1 + len(layer.kernel_axes) and layer.kind in _WATCHED_KINDS
    return unsettable(layer) or ("" if plain else f"{layer.name} is no plain matrix")
