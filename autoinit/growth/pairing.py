"""Names of a model's tensors and of the source's that they take after, across prefixes and other depths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from torch import Tensor, nn

from ..errors import SourceError
from ..task.assign import derived_name, read
from ..text import numberless
from .stacks import Look, Shape, partners

Tree = dict[str, "Tree | str"]
"""Names by their parts; a leaf is the whole name."""

_RECURRENT = re.compile(r"(weight|bias)_(ih|hh|hr)_l(\d+)(_reverse)?")
"""How torch numbers the layers of an LSTM or a GRU."""

_CANDIDATES = 3
"""Ratios of widths that are tried: names shift where blocks are new, so that the commonest one may mislead."""

_LONGEST_PREFIX = 3
"""Parts of a name that a wrapper may have put before it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of the model and the one that it takes after.

    Attributes:
        name: in the model.
        source: in the source; None where nothing there has its place.
        block: the path of the new block that it is in, whose neighbour the source is, where one is alike; empty for
            what is not new.
    """

    name: str
    source: str | None
    block: str = ""


def tensors_of(source: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns parameters and lasting buffers by name, every name of a tied one; of a parametrized one, what is derived.

    Raises:
        SourceError: there are none.
    """
    state = source.state_dict() if isinstance(source, nn.Module) else source
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        derived = derived_name(name)
        if derived != name and isinstance(source, nn.Module):
            found.setdefault(derived, read(source, derived).detach())
        elif derived == name and isinstance(value, Tensor):
            found[name] = value.detach()
    if not found:
        raise SourceError(
            f"The source has no tensors: {type(source).__name__} with {len(state)} entries. Pass a trained module or "
            "its state_dict()."
        )
    return found


def pairs(model: Mapping[str, Shape], source: Mapping[str, Shape]) -> list[Pair]:
    """Returns what each tensor of a model takes after, in the model's order.

    Args:
        model: shapes by name.
        source: shapes by name; a constant prefix more or less than in the model is no difference.
    """
    added, dropped = _prefixes(model, source)
    mine = {name.removeprefix(added): name for name in model if name.startswith(added)}
    theirs = {name.removeprefix(dropped): name for name in source if name.startswith(dropped)}
    ratios = _ratios((model[mine[name]], source[theirs[name]]) for name in mine if name in theirs)
    meeting = _Meeting(model, source, ratios)
    found = {pair.name: pair for pair in meeting.walk(_tree(mine), _tree(theirs), "")}
    return [found.get(name, Pair(name, None)) for name in model]


def _ratios(shapes: Iterable[tuple[Shape, Shape]]) -> list[float]:
    """Returns how many times wider the model may be: not at all, or by a ratio that two lengths have often."""
    ratios = Counter(
        one / other for a, b in shapes if len(a) == len(b) for one, other in zip(a, b, strict=True) if one != other
    )
    return [1.0, *(ratio for ratio, _ in ratios.most_common(_CANDIDATES))]


def _prefixes(model: Iterable[str], source: Iterable[str]) -> tuple[str, str]:
    """Returns what stands before the names that are common, in the model and in the source."""
    mine, theirs = {numberless(name) for name in model}, {numberless(name) for name in source}

    def common(prefixes: tuple[str, str]) -> int:
        bare = {name.removeprefix(prefixes[1]) for name in theirs if name.startswith(prefixes[1])}
        return sum(name.startswith(prefixes[0]) and name.removeprefix(prefixes[0]) in bare for name in mine)

    return max(product(_starts(mine), _starts(theirs)), key=common)


def _starts(names: Iterable[str]) -> list[str]:
    """Returns what may have been put before names, from nothing to the longest; no number is part of it."""
    starts = {""}
    for name in names:
        parts = name.split(".")[:-1][:_LONGEST_PREFIX]
        starts |= {".".join(parts[: size + 1]) + "." for size in range(len(parts)) if "*" not in parts[: size + 1]}
    return sorted(starts, key=lambda start: (len(start), start))


def _tree(names: Mapping[str, str]) -> Tree:
    root: Tree = {}
    for name, whole in names.items():
        *path, last = _parts(name)
        here = root
        for part in path:
            inner = here.setdefault(part, {})
            if isinstance(inner, str):
                break  # a tensor whose name is the beginning of another's; it stays alone
            here = inner
        else:
            here[last] = whole
    return root


def _parts(name: str) -> list[str]:
    *path, last = name.split(".")
    found = _RECURRENT.fullmatch(last)
    return [*path, last] if found is None else [*path, "layers", found[3], f"{found[1]}_{found[2]}{found[4] or ''}"]


def _leaves(tree: Tree | str) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    else:
        for inner in tree.values():
            yield from _leaves(inner)


class _Meeting:
    """Two trees of names, walked side by side."""

    def __init__(self, model: Mapping[str, Shape], source: Mapping[str, Shape], ratios: Sequence[float]) -> None:
        self._model, self._source, self._ratios = model, source, ratios

    def walk(self, model: Tree | str, source: Tree | str | None, path: str, block: str = "") -> Iterator[Pair]:
        """Yields a pair for each name under `path` of the model."""
        if isinstance(model, str) or not isinstance(source, dict):
            for name in _leaves(model):
                yield Pair(name, source if isinstance(source, str) and name == model else None, block)
            return
        partner_of = self._partners(model, source)
        for part, inner in model.items():
            twin, new = partner_of.get(part, (part, False))
            here = f"{path}.{part}" if path else part
            yield from self.walk(inner, source.get(twin or ""), here, block or (here if new else ""))

    def _partners(self, model: Tree, source: Tree) -> dict[str, tuple[str | None, bool]]:
        """Returns for each numbered block of the model the number of its partner, and whether it is new."""
        mine, theirs = (sorted(filter(str.isdigit, tree), key=int) for tree in (model, source))
        if not mine or not theirs:
            return {}
        found = partners(
            [self._look(model[number], self._model) for number in mine],
            [self._look(source[number], self._source) for number in theirs],
            self._ratios,
        )
        if found is None:
            return {}
        return {
            number: (None if one.place is None else theirs[one.place], one.new)
            for number, one in zip(mine, found, strict=True)
        }

    @staticmethod
    def _look(block: Tree | str, shapes: Mapping[str, Shape]) -> Look:
        look: dict[str, list[Shape]] = {}
        for path, name in _paths(block):
            look.setdefault(numberless(path), []).append(shapes[name])
        return look


def _paths(tree: Tree | str, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, str):
        yield path, tree
    else:
        for part, inner in tree.items():
            yield from _paths(inner, f"{path}.{part}")
