"""New rows of tables and heads: of tokens that were added, of classes, of a vocabulary's padding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, get_args

from torch import Tensor, nn

from ..errors import ArgumentError, SourceError, did_you_mean
from ..seeds import check_seed
from ..task.assign import assign
from ..text import few
from .given import Given
from .row_fills import SPREAD, NewRows, RowMethod
from .tables import Table, tables_of

Pairs = Mapping[int, int | Sequence[int]]


def rows_(
    model: nn.Module,
    *,
    method: RowMethod = "mean",
    old: int | None = None,
    rows: Sequence[int] | slice | None = None,
    pairs: Pairs | None = None,
    tables: str | Sequence[str] | None = None,
    spread: float = SPREAD,
    seed: int = 0,
) -> dict[str, str]:
    """Sets the new rows of a table of embeddings and of the head that goes with it; all other rows stay, bit for bit.

    Rows are new where tokens or classes were added to a trained model, and inside the padding of a vocabulary, which
    no training ever touched: GPT-2 has 50,257 tokens, and its table often 50,304 rows. A row as in a fresh network has
    scores around zero, which may be far above those of trained rows, and so takes probability from every token that
    the model knows. At the mean of the old ones it takes at most one part in their number (Hewitt 2021, "Initializing
    New Word Embeddings for Pretrained Language Models"). A tied tensor is set once, a padding row of `nn.Embedding`
    stays zero, and statistics of tables in half precision are taken in float32.

    Args:
        model: Any module; one of transformers after `resize_token_embeddings`, for example.
        method: What the rows get. "mean" is the mean of the old rows. "mean_cov" is a draw from the normal distribution
            with their mean and covariance. "nearest" is, for each new row, the old one that `pairs` names, or the mean
            of several: of a word's pieces, for example; in a head, a copy is as probable as its original. "zero" is
            for heads. "small" is normal around zero, a tenth as large as the old rows. Biases get the mean of the old
            ones, of those in `pairs` with "nearest", and zero with "zero" and "small".
        old: The number of rows that were trained; all after them are new.
        rows: The rows that are new, as whole numbers or a slice, in the place of `old`.
        pairs: New row → old row, or several, for "nearest". It tells by itself which rows are new; where `old` or
            `rows` name more, those without a pair get the mean.
        tables: Paths of embeddings and linear layers, or names of their weights. Without it, the table of tokens and
            the head that is tied to it or comes last with as many rows.
        spread: Standard deviations of "mean_cov" in those of the old rows. With one, the new rows' scores vary as much
            as the old ones' and take probability from them; transformers' resizing has √1e-9.
        seed: Seed of the draws; no global random state is used.

    Returns:
        Name of each tensor that was set → what its rows got and why.

    Raises:
        ArgumentError: Rows, pairs or the method are none, out of range or contradict each other; or no old row is left.
        SourceError: A table has fewer rows than there are old ones, or old rows are not finite.
        ModelError: The model has no table, several of which none is named, or one whose rows cannot be set.

    Example:
        >>> import torch, autoinit
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Embedding(6, 2), nn.Linear(2, 6))
        >>> _ = nn.init.ones_(model[0].weight)
        >>> told = autoinit.rows_(model, old=4)  # two tokens were added
        >>> print(told["0.weight"])
        2 new rows (4 and 5) of 6: the mean of 4 old rows
    """
    given = new_rows(model, method=method, old=old, rows=rows, pairs=pairs, tables=tables, spread=spread, seed=seed)
    for name, value in given.values.items():
        assign(model, name, value)
    return dict(given.why)


def new_rows(
    model: nn.Module,
    *,
    method: RowMethod = "mean",
    old: int | None = None,
    rows: Sequence[int] | slice | None = None,
    pairs: Pairs | None = None,
    tables: str | Sequence[str] | None = None,
    spread: float = SPREAD,
    seed: int = 0,
) -> Given:
    """Returns what `rows_` sets: whole tables and biases with their new rows; nothing is changed.

    Args: as of `rows_`.

    Raises: as `rows_`.
    """
    _check(method, old, rows, pairs, spread)
    check_seed(seed)
    values: dict[str, Tensor] = {}
    why: dict[str, str] = {}
    notes: list[str] = []
    for table in tables_of(model, tables):
        new = _new(table, old, rows, pairs)
        fill = NewRows(table, new, _sources(table, new, pairs or {}), method, spread, seed)
        values |= fill.values()
        why |= dict.fromkeys((table.name, *table.biases), fill.told())
        notes += fill.notes()
    return Given(values, why, tuple(notes))


def _check(
    method: str, old: int | None, rows: Sequence[int] | slice | None, pairs: Pairs | None, spread: float
) -> None:
    methods = get_args(RowMethod)
    if method not in methods:
        raise ArgumentError(f"method={method!r} is not known. {did_you_mean(str(method), methods)}")
    if (method == "nearest") != (pairs is not None):
        raise ArgumentError("pairs go with method='nearest', and it with pairs: new row → old row, or several.")
    if old is not None and rows is not None:
        raise ArgumentError("Which rows are new is said by old, how many were trained, or by rows, not by both.")
    if old is None and rows is None and not pairs:
        raise ArgumentError("Say which rows are new: old=, how many were trained, rows=, or pairs= for 'nearest'.")
    if old is not None and not _is_whole(old, 1):
        raise ArgumentError(f"old is the number of rows that were trained, 1 or more. Got {old!r}.")
    if rows is not None and not isinstance(rows, (Sequence, slice)):
        raise ArgumentError(f"rows is a sequence of whole numbers, or a slice. Got {type(rows).__name__}.")
    if isinstance(spread, bool) or not isinstance(spread, (int, float)) or not 0 <= spread < math.inf:
        raise ArgumentError(f"spread is a factor of standard deviations, 0 or more. Got {spread!r}.")


def _new(table: Table, old: int | None, rows: Sequence[int] | slice | None, pairs: Pairs | None) -> list[int]:
    """Returns the new rows of a table in their order, each once."""
    if old is not None and old > table.rows:
        raise SourceError(
            f"{table.name} has {table.rows} rows, fewer than the {old} old ones. Rows that shrink have nothing new; "
            "set old to the number of trained rows that it still has, or name its new ones by rows."
        )
    if old is not None:
        found = list(range(old, table.rows))
    elif rows is not None:
        found = list(range(table.rows))[rows] if isinstance(rows, slice) else list(rows)
    else:
        found = list(pairs or {})
    _check_rows(found, table, "new rows")
    if not found:
        raise ArgumentError(f"No row of {table.name} is new: it has {table.rows} rows.")
    if len(set(found)) == table.rows:
        raise ArgumentError(f"All {table.rows} rows of {table.name} are named as new: no old row is left to go by.")
    return sorted({int(row) for row in found})


def _check_rows(rows: Sequence[object], table: Table, what: str) -> None:
    wrong = [row for row in rows if not _is_whole(row, below=table.rows)]
    if wrong:
        raise ArgumentError(
            f"{what} of {table.name} are whole numbers from 0 to {table.rows - 1}. Got {few(list(map(repr, wrong)))}."
        )


def _is_whole(value: Any, least: int = 0, below: float = math.inf) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral) and least <= int(value) < below


def _sources(table: Table, new: Sequence[int], pairs: Pairs) -> dict[int, list[int]]:
    """Returns new row → the old rows that it is the mean of."""
    found = {row: list(old) if isinstance(old, Sequence) else [old] for row, old in pairs.items()}
    named = [row for old in found.values() for row in old]
    _check_rows(named, table, "old rows in pairs")
    are_new = sorted(set(named) & set(new))
    strangers = sorted(set(found) - set(new))
    if are_new or strangers:
        wrong, said = (are_new, "is new itself") if are_new else (strangers, "is not among the new ones")
        raise ArgumentError(f"pairs go from new rows of {table.name} to old ones, and row {wrong[0]} {said}.")
    empty = [row for row, old in found.items() if not old]
    if empty:
        raise ArgumentError(f"pairs name no old row for row {empty[0]} of {table.name}.")
    return found
