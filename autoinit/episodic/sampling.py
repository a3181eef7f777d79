"""Episodes from labelled rows: some classes, some rows of each to adapt to, others to be judged on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, DataError
from ..seeds import check_seed, seed_of_use
from ..text import few
from .settings import check_count
from .stream import Episode


class Episodes:
    """Episodes without an end; every iteration begins with the first one, and the same number is the same episode.

    Attributes:
        ways: classes in each episode.
        shots: rows of each class to adapt to.
        queries: rows of each class to be judged on.
        classes: the labels that are drawn from.
    """

    def __init__(
        self, inputs: Tensor, rows_of: dict[Any, Tensor], *, ways: int, shots: int, queries: int, seed: int
    ) -> None:
        self.ways, self.shots, self.queries = ways, shots, queries
        self.classes = tuple(rows_of)
        self._inputs, self._rows, self._seed = inputs, list(rows_of.values()), seed

    def __iter__(self) -> Iterator[Episode]:
        number = 0
        while True:
            yield self.episode(number)
            number += 1

    def episode(self, number: int) -> Episode:
        """Returns one episode by its number, from 0 on.

        Args:
            number: its place in the stream.
        """
        generator = torch.Generator().manual_seed(seed_of_use(self._seed, f"episode {number}"))
        chosen = torch.randperm(len(self._rows), generator=generator)[: self.ways].tolist()
        rows = [self._drawn(self._rows[index], generator) for index in chosen]
        return self._side(rows, slice(0, self.shots)), self._side(rows, slice(self.shots, None))

    def _drawn(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return rows[torch.randperm(len(rows), generator=generator)[: self.shots + self.queries]]

    def _side(self, rows: list[Tensor], part: slice) -> tuple[Tensor, Tensor]:
        taken = [one[part] for one in rows]
        labels = torch.arange(self.ways).repeat_interleave(len(taken[0]))
        return self._inputs[torch.cat(taken)], labels


def episodes(
    inputs: Any,
    labels: Any,
    *,
    ways: int = 5,
    shots: int = 5,
    queries: int = 15,
    classes: Sequence[Any] | None = None,
    seed: int = 0,
) -> Episodes:
    """Returns episodes drawn from labelled rows, without an end, for `meta_learn` and `evaluate_episodes`.

    Each episode is a small classification task of its own: `ways` of the classes in an order drawn anew, with labels
    from 0 on in that order. So nothing about a class can be learned by heart, only how to tell classes apart from a few
    rows. No row is in both sides of an episode. Every iteration begins with the first episode, and the same arguments
    give the same ones on every machine.

    Keep some of the classes back (`classes=`): only on those do you see what a start does for something new.

    Args:
        inputs: The rows, as a tensor or an array.
        labels: One label for each row: numbers or words.
        ways: So many classes are in each episode; the model needs as many outputs.
        shots: So many rows of each class are there to adapt to.
        queries: So many other rows of each class are there to be judged on.
        classes: Only these labels are drawn from. None means all that there are.
        seed: This whole number decides which episodes are drawn.

    Returns:
        An iterable of ((inputs, labels), (inputs, labels)), the support and the query; `episode(number)` gives one.

    Raises:
        DataError: There are too few classes, or too few rows of one; inputs and labels differ in length, or are no
            arrays.
        ArgumentError: A number is out of range, or a class is not among the labels.

    Example:
        >>> import autoinit
        >>> from sklearn.datasets import load_digits
        >>> pixels, labels = load_digits(return_X_y=True)
        >>> tasks = autoinit.episodes(pixels / 16, labels, ways=3, shots=2, queries=4, classes=range(5))
        >>> (x, y), (new_x, new_y) = next(iter(tasks))
        >>> x.shape, y.tolist(), len(new_y)
        (torch.Size([6, 64]), [0, 0, 1, 1, 2, 2], 12)
    """
    check_seed(seed)
    check_count("ways", ways, 2)
    check_count("shots", shots)
    check_count("queries", queries)
    x, y = _rows(inputs), np.asarray(labels)
    if y.shape != (len(x),):
        raise DataError(
            f"labels have the shape {list(y.shape)}, where inputs are {len(x)} rows. Pass one for each row."
        )
    known: list[Any] = np.unique(y).tolist()
    wanted = known if classes is None else _wanted(classes, known)
    if len(wanted) < ways:
        raise DataError(f"there are {len(wanted)} classes, and ways is {ways}. Lower ways, or pass more classes.")
    rows_of = {one: torch.from_numpy(np.flatnonzero(y == one)) for one in wanted}
    if short := [f"{one!r} ({len(rows)})" for one, rows in rows_of.items() if len(rows) < shots + queries]:
        raise DataError(
            f"classes have fewer rows than shots and queries together, {shots + queries}: {few(short)}. Lower either, "
            "or leave these out by classes=."
        )
    return Episodes(x, rows_of, ways=int(ways), shots=int(shots), queries=int(queries), seed=int(seed))


def _rows(inputs: Any) -> Tensor:
    try:
        rows = inputs.detach() if isinstance(inputs, Tensor) else torch.as_tensor(np.array(inputs))
    except (TypeError, ValueError) as problem:
        raise DataError(f"inputs are a {type(inputs).__name__} that is no array of numbers: {problem}.") from problem
    if not rows.dim():
        raise DataError("inputs are a single number. Pass a tensor or an array with a row for each label.")
    return rows


def _wanted(classes: Sequence[Any], known: list[Any]) -> list[Any]:
    wanted = list(dict.fromkeys(np.asarray(list(classes)).tolist()))
    if unknown := [repr(one) for one in wanted if one not in known]:
        raise ArgumentError(
            f"classes holds {few(unknown)}, which no label is. Labels: {few(list(map(repr, known)), 12)}."
        )
    return wanted
