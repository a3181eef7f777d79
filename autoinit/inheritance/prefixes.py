"""Under which names a checkpoint has the tensors of a model, where either side's begin otherwise."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import SourceError
from ..text import few
from .checkpoints import Checkpoint

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer")
"""Parts of a name that a wrapper puts in anywhere: torch.compile, sharding, checkpointing, an adapter of peft."""

DEEPEST = 3
"""Parts of a name that may be a prefix; peft's are two."""

_TRIED = 16
"""Pairs of prefixes that are compared in full, of those under which most names meet."""

_COMMON = 64
"""Tensors of one name below their prefixes that tell nothing of it any more: one of each layer of a deep model."""

_Shape = tuple[int, ...]


@dataclass(frozen=True)
class Prefix:
    """What names of a model begin with in the place of what names of a checkpoint begin with; either may be empty."""

    model: str = ""
    file: str = ""

    def told(self, title: str) -> str:
        """Returns what it says of two kinds of names, as a sentence.

        Args:
            title: of the checkpoint.
        """
        if self.model and self.file:
            return f"Names of {title} begin with {self.file!r} where the model's begin with {self.model!r}."
        if self.file:
            return f"Names of {title} begin with {self.file!r}, which the model's lack."
        if self.model:
            return f"Names of the model begin with {self.model!r}, which those of {title} lack."
        return f"Names of {title} are the model's."

    @property
    def parts(self) -> int:
        """How many parts of names it takes away."""
        return self.model.count(".") + self.file.count(".")


class Names:
    """Names of a model looked up in a checkpoint, under one pair of prefixes."""

    def __init__(self, stored: Mapping[str, str], prefix: Prefix) -> None:
        self._stored = stored
        self.prefix = prefix

    def of(self, name: str) -> str:
        """Returns the checkpoint's name for a name of the model; empty where it has none."""
        own = _unwrapped(name)
        tried = [own]
        if own.startswith(self.prefix.model):
            tried.insert(0, self.prefix.file + own.removeprefix(self.prefix.model))
        tried += [_old_norm(one) for one in tried]
        return next((self._stored[one] for one in tried if one in self._stored), "")

    def first_of(self, names: Iterable[str]) -> str:
        """Returns the checkpoint's name for the first of a tensor's names that it has; empty where it has none."""
        return next((stored for name in names if (stored := self.of(name))), "")


def best_names(shapes: Mapping[str, _Shape], checkpoint: Checkpoint) -> Names:
    """Returns the names under the prefixes with which most tensors of a model are in a checkpoint.

    Args:
        shapes: of the model's tensors, by all names that they have.
        checkpoint: the trained weights.

    Raises:
        SourceError: nothing of it is there, or two prefixes fit as well as each other and give other tensors.
    """
    stored: dict[str, str] = {}
    for name in checkpoint.names:
        stored.setdefault(_unwrapped(name), name)
    plain, *others = (_Ranked(Names(stored, prefix), shapes, checkpoint) for prefix in _prefixes(shapes, stored))
    # A prefix is one of all names, so hardly any are there without it; and it is no accident of a few names alike.
    least = max(2 * plain.fit, min(len(shapes), len(stored)) / 2)
    best = max((plain, *(other for other in others if other.fit >= least)), key=lambda one: one.rank)
    if not best.found:
        raise SourceError(
            f"{checkpoint.title} has nothing of the model: its names are {few(checkpoint.names)}; the model's are "
            f"{few(list(shapes))}."
        )
    for other in others:
        if other.rank == best.rank and other.found != best.found:
            raise SourceError(
                f"{checkpoint.title} fits the model in two ways that give it other tensors. Either: "
                f"{best.names.prefix.told(checkpoint.title)} Or: {other.names.prefix.told(checkpoint.title)} Pass a "
                "mapping that has those alone that are meant."
            )
    return best.names


class _Ranked:
    """One pair of prefixes, and how many tensors of a checkpoint have a place in a model under it."""

    def __init__(self, names: Names, shapes: Mapping[str, _Shape], checkpoint: Checkpoint) -> None:
        self.names = names
        self.found = {name: stored for name in shapes if (stored := names.of(name))}
        kept = checkpoint.shapes
        # Each tensor of the checkpoint counts once: one that two layers could be is no better met than one of a layer.
        self.fit = len({stored for name, stored in self.found.items() if _fits(shapes[name], kept[stored])})
        self.rank = (self.fit, len(set(self.found.values())), -names.prefix.parts)


def _fits(shape: _Shape, kept: _Shape) -> bool:
    return shape == kept or has_more_rows(shape, kept)


def _prefixes(names: Iterable[str], stored: Iterable[str]) -> list[Prefix]:
    """Returns the pairs of prefixes under which most names meet, and the pair of none."""
    beginnings: dict[str, list[str]] = defaultdict(list)
    for name in stored:
        for beginning, rest in _splits(name):
            beginnings[rest].append(beginning)
    votes: Counter[Prefix] = Counter()
    for name in map(_unwrapped, names):
        for beginning, rest in _splits(name):
            if len(beginnings.get(rest, ())) > _COMMON:
                continue
            # Two that end alike are a shorter pair of prefixes and a longer rest.
            votes.update(
                Prefix(beginning, other)
                for other in beginnings.get(rest, ())
                if not beginning or not other or beginning.split(".")[-2] != other.split(".")[-2]
            )
    return list(dict.fromkeys([Prefix(), *(prefix for prefix, _ in votes.most_common(_TRIED))]))


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Yields a name as a beginning, empty or with its dot, and the rest."""
    parts = name.split(".")
    for count in range(min(DEEPEST, len(parts) - 1) + 1):
        yield "".join(f"{part}." for part in parts[:count]), ".".join(parts[count:])


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _old_norm(name: str) -> str:
    """Returns what a tensor of a weight normalization was called before torch 2.0; any other name as it is."""
    return re.sub(r"parametrizations\.(\w+)\.original([01])$", lambda part: f"{part[1]}_{'gv'[int(part[2])]}", name)


def has_more_rows(shape: _Shape, kept: _Shape) -> bool:
    """Whether a shape is another one with a longer first axis."""
    return len(shape) == len(kept) > 0 and shape[0] > kept[0] and shape[1:] == kept[1:]
