"""Data of every accepted kind as lists of batches, and which of them are held back."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, default_collate

from ..errors import ArgumentError, DataError
from .batches import Batch, clone, describe, halves, regrouped, row_counts, rows, select_rows, tensors
from .casting import TARGET_KEYS, Numbers
from .reading import reading

FLOATS = Numbers()
"""What numbers are cast to for no model in particular."""

BATCH_ROWS = 64
"""Rows per batch where the data come as arrays or a Dataset."""
MIN_BATCHES = 10
"""Small arrays get smaller batches, down to 8 rows, so that there are this many to train and to hold back."""
MIN_EVAL_ROWS = 256
"""Rows in each held-back half, where there are so many: the noise of a mean over fewer hides small gains."""
MAX_EVAL_ROWS = 2 * MIN_EVAL_ROWS
"""A held-back half that has so many rows takes no further batch: every trial has to evaluate it."""
FEWEST_GROUPS = 8
"""Groups of held-back rows in each half, where there are so many rows: fewer tell little of how much rows disagree."""
GROUPED_BYTES = 64 << 20
"""Held-back rows up to this size are put into groups, which are copies; larger ones stay in their batches."""
HOLD_OUT = 0.2
CACHE_BYTES = 1 << 30
CACHE_BATCHES = 512
"""More than the longest probe's steps between two visits of a batch."""
FETCH_SECONDS = 20.0
"""A slow loader stops here, once `SLOW_BATCHES` are read: reading must not eat the search's time."""
SLOW_BATCHES = 4
"""Enough to train on and to hold back two."""
MEASURED_ROWS = 512
"""Rows that tell the best constant predictor well enough, where one batch is measured: eight batches of 64."""


ACCEPTED = (
    "Allowed: a DataLoader, a Dataset, (X, y) as tensors, numpy arrays or pandas frames, "
    "or an iterable of batches (tuple, dict or tensor)."
)


@runtime_checkable
class _RowSource(Protocol):
    """A sequence of rows that is no torch Dataset: Hugging Face's `datasets`."""

    def __getitems__(self, keys: list[int]) -> Any: ...


@runtime_checkable
class _HasGenerator(Protocol):
    generator: Any


def fetch(
    data: Any,
    *,
    numbers: Numbers = FLOATS,
    seed: int = 0,
    name: str = "data",
    enough: int | None = None,
) -> list[Batch]:
    """Returns the batches of `data`, on the host, at most `CACHE_BYTES` of them.

    A DataLoader's or an iterable's batches are kept as they come, but for arrays and frames in them, which become
    tensors; rows of arrays and Datasets are shuffled and batched here. An iterator is consumed as far as it is read.

    Args:
        data: any kind in `ACCEPTED`.
        numbers: the model's; every floating-point array and frame is cast to them, and so are the rows that are batched
            here. Tensors in batches that came as such stay as they are.
        seed: of the shuffle of rows.
        name: of the argument, for messages.
        enough: rows after which reading stops; None for no such limit.
    """
    with reading(data, name):
        return _fetched(data, numbers, seed, name, enough)


def _fetched(data: Any, numbers: Numbers, seed: int, name: str, enough: int | None) -> list[Batch]:
    if data is None or isinstance(data, (str, bytes, int, float)):
        raise DataError(f"{name} is {data!r}. {ACCEPTED}")
    if _is_arrays(data):
        return _batch_arrays(data, numbers, seed, name)
    if isinstance(data, Mapping):
        raise DataError(
            f"{name} is one dict, {describe(data)}, whose values have no axis of rows in common. Pass tensors that all "
            "have as many rows, or an iterable of such dicts, two at least; a single example is no data to train on."
        )
    if isinstance(data, (Dataset, _RowSource)):
        return numbers.cast(_cached(_dataset_loader(data, seed, name), numbers, name, enough=enough))
    if not isinstance(data, Iterable):
        raise DataError(f"{name} is a {type(data).__name__}, which cannot be iterated. {ACCEPTED}")
    with _generators_kept(data):
        return _cached(data, numbers, name, copies=not isinstance(data, (DataLoader, list)), enough=enough)


def first_batch(data: Any, *, numbers: Numbers = FLOATS) -> Batch:
    """Returns one batch of `data`, which may itself be a batch or one example input."""
    with reading(data, "data"):
        return _first(data, numbers)


def _first(data: Any, numbers: Numbers) -> Batch:
    if isinstance(data, Mapping) or dataclasses.is_dataclass(data):
        return _as_batch(data, numbers)
    if _is_arrays(data):
        tree = numbers.cast([_converted(data, numbers)])[0]
        return select_rows(tree, slice(0, BATCH_ROWS)) if len(row_counts(tree)) == 1 else tree
    if isinstance(data, (tuple, list)) and data and all(_is_leaf(item) for item in data):
        same = len(data) > 1 and len({tuple(item.shape) for item in data}) == 1
        return _as_batch(data[0] if same and isinstance(data, list) else data, numbers)
    if isinstance(data, tuple):
        return _as_batch(data, numbers)
    if isinstance(data, (Dataset, _RowSource)):
        data = _dataset_loader(data, 0, "data")
    if not isinstance(data, Iterable):
        raise DataError(f"data is a {type(data).__name__}. {ACCEPTED}")
    with _generators_kept(data):
        for batch in data:
            return _as_batch(batch, numbers)
    raise DataError(f"data is empty: no batch came out of the {type(data).__name__}. {ACCEPTED}")


def all_batches(data: Any, *, numbers: Numbers = FLOATS, enough: int | None = None) -> list[Batch]:
    """Returns every batch of `data`, as `fetch` does; one of what may itself be a batch, as `first_batch` does."""
    if _is_arrays(data):
        with reading(data, "data"):
            lengths = row_counts(_converted(data, numbers))
        single = len(lengths) != 1 or 0 < max(lengths) <= BATCH_ROWS  # as many rows as one batch are one batch
    else:
        single = isinstance(data, (Mapping, tuple)) or dataclasses.is_dataclass(data)
    return [first_batch(data, numbers=numbers)] if single else fetch(data, numbers=numbers, enough=enough)


def held_out(
    batches: Sequence[Batch], *, seed: int = 0, val: Sequence[Batch] | None = None
) -> tuple[list[Batch], list[Batch]]:
    """Returns the batches to train on, and those that are held back, for `in_two`.

    Args:
        batches: what was fetched. Where `val` is None, about `HOLD_OUT` of them is held back: more where the halves
            would stay below `MIN_EVAL_ROWS`, less where they already have `MAX_EVAL_ROWS`; all others are trained on,
            but for a ragged last one (see `_without_ragged_end`).
        seed: of the choice.
        val: the owner's validation batches; as many of them as give each half `MAX_EVAL_ROWS` are used.
    """
    batches = _without_ragged_end(batches)
    if val is not None:
        order = torch.randperm(len(val), generator=_generator(seed)).tolist()
        count = _enough([rows(val[index]) for index in order])
        return list(batches), [val[index] for index in sorted(order[:count])]
    if len(batches) < 2:
        raise DataError(
            f"data holds one batch ({describe(batches[0])}); at least two are needed, one to train on "
            "and one to hold back. Use a smaller batch size, or pass val_data."
        )
    order = torch.randperm(len(batches), generator=_generator(seed)).tolist()
    shares = [rows(batches[index]) for index in order]
    count = max(1, round(HOLD_OUT * len(batches)))
    while count < len(batches) // 2 and sum(shares[:count]) < 2 * MIN_EVAL_ROWS:
        count += 1
    held = sorted(order[: _enough(shares[:count])])
    kept = [batch for index, batch in enumerate(batches) if index not in set(held)]
    return kept, [batches[index] for index in held]


def length_of_training(steps: Any, epochs: Any, data: Any) -> float | None:
    """Returns the steps of a training, given as such or as passes through its data; None where neither is given.

    Raises:
        ArgumentError: both are given, one is no positive number, or nothing tells the batches of an epoch.
    """
    given = {name: value for name, value in (("training_steps", steps), ("epochs", epochs)) if value is not None}
    if len(given) > 1:
        raise ArgumentError(f"training_steps is {steps!r} and epochs is {epochs!r}. Give one of the two.")
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
            raise ArgumentError(f"{name} must be a positive, finite number. Got {value!r}.")
    if epochs is None:
        return None if steps is None else float(steps)
    try:
        batches = len(data) if isinstance(data, (DataLoader, list)) else 0
    except TypeError:  # a loader of rows that come without a number
        batches = 0
    if not batches:
        raise ArgumentError(
            f"epochs is {epochs!r}, but a {type(data).__name__} does not tell how many batches an epoch has. Give "
            "training_steps, or a DataLoader or a list of batches."
        )
    return float(epochs) * batches


def held_back_groups(batches: Sequence[Batch], *, size: int, seed: int = 0) -> tuple[list[Batch], list[Batch]] | None:
    """Returns held-back rows in two halves of groups of near-equal size; None where rows cannot be told, or are large.

    So what is found on them does not depend on how their owner had batched or ordered them, and the groups tell how
    much rows disagree.

    Args:
        batches: with all held-back rows; at most `MAX_EVAL_ROWS` of them are taken for each half.
        size: rows of a group at most; fewer where there would be less than `FEWEST_GROUPS`.
        seed: of the choice.
    """
    count = sum(rows(batch) for batch in batches)
    chosen = torch.randperm(count, generator=_generator(seed))[: 2 * MAX_EVAL_ROWS].tolist()
    middle = len(chosen) // 2
    held = sum(tensor.nbytes for batch in batches for tensor in tensors(batch))
    if middle < 1 or held / count * len(chosen) > GROUPED_BYTES:
        return None
    made = []
    for half in (chosen[:middle], chosen[middle : 2 * middle]):
        groups = max(math.ceil(middle / size), min(FEWEST_GROUPS, middle))
        found = regrouped(batches, half, [middle // groups + (place < middle % groups) for place in range(groups)])
        if found is None:
            return None
        made.append(found)
    return made[0], made[1]


def _without_ragged_end(batches: Sequence[Batch]) -> Sequence[Batch]:
    """Returns the batches without a last one of less than half the rows that all others have, of which there are three.

    Losses of batches are compared, and that of a few rows, which may be one, is mostly noise: it would weigh as much as
    that of a whole batch. Arrays and Datasets are batched without such an end too.
    """
    sizes = [rows(batch) for batch in batches]
    ragged = len(sizes) > 3 and len(set(sizes[:-1])) == 1 and 2 * sizes[-1] < sizes[0]
    return batches[:-1] if ragged else batches


def _enough(shares: Sequence[int]) -> int:
    """Returns how many batches of so many rows give each half `MAX_EVAL_ROWS`, at least two; all where none do."""
    totals = list(itertools.accumulate(shares))
    reached = next((count for count, total in enumerate(totals, 1) if total >= 2 * MAX_EVAL_ROWS), len(totals))
    return min(len(totals), max(2, reached))


def check_finite(batches: Sequence[Batch], name: str = "data") -> None:
    """Raises `DataError` where a batch holds NaN or inf; additive attention masks may hold -inf."""
    for index, batch in enumerate(batches):
        for label, tensor in _labelled(batch):
            if "mask" in label or not tensor.is_floating_point() or bool(tensor.isfinite().all()):
                continue
            bad = int((~tensor.isfinite()).sum())
            where = f" in {label!r}" if label else ""
            raise DataError(
                f"{name} holds NaN or inf: {bad} of {tensor.numel()} values{where} of batch {index} "
                f"({describe(tensor)}). Values must be finite: drop, impute or clip them before."
            )


def _labelled(batch: Batch, label: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _labelled(value, str(key))
    else:
        for tensor in tensors(batch):
            yield label, tensor


def _is_leaf(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray, pd.DataFrame, pd.Series, pd.Index))


def _is_arrays(data: Any) -> bool:
    """Whether this is one array per variable with all rows, and not a sequence of batches."""
    if isinstance(data, Tensor):
        return data.dim() > 0
    if _is_leaf(data):
        return True
    if not isinstance(data, (tuple, Mapping)) or not data:
        return False
    parts = list(data.values()) if isinstance(data, Mapping) else list(data)
    if isinstance(data, tuple) and not _is_leaf(parts[-1]):
        return False  # ((x, y), (x, y)) are batches; of arrays, the last is the target
    leaves = list(itertools.chain.from_iterable(_leaves(part) for part in parts))
    if not leaves or not all(_is_leaf(leaf) for leaf in leaves):
        return False
    return all(len(leaf.shape) > 0 for leaf in leaves)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, Mapping):
        yield from _leaves(list(value.values()))
    else:
        yield value


def _converted(value: Any, numbers: Numbers, target: bool = False) -> Any:
    """Returns the same tree with tensors for arrays, floating-point ones in this dtype.

    The last part of a tuple is the target. What already is a tensor stays as it is.
    """
    if isinstance(value, Mapping):
        return {key: _converted(item, numbers, str(key) in TARGET_KEYS) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        last = len(value) - 1
        return tuple(_converted(item, numbers, index == last > 0) for index, item in enumerate(value))
    return value.detach() if isinstance(value, Tensor) else numbers.cast_one(_tensor(value, target), target=target)


def _tensor(value: Any, target: bool) -> Tensor:
    """Returns an array or frame as a tensor; columns of a frame of inputs become floating-point."""
    if isinstance(value, (pd.DataFrame, pd.Series, pd.Index)):
        _check_columns(value)
        value = value.to_numpy() if target else value.to_numpy(dtype=np.float64)
    if value.dtype == object or value.dtype.kind not in "biuf":
        raise DataError(
            f"an array of dtype {value.dtype} and shape {list(value.shape)} cannot become a tensor. "
            "Allowed: numbers and booleans. Encode other values first, for example with pandas.factorize."
        )
    whole = value.dtype.kind in "iu" and value.dtype != np.uint8  # images stay bytes
    if whole or (target and value.dtype.kind in "bu"):
        value = value.astype(np.int64)
    return torch.tensor(value)


def _check_columns(frame: Any) -> None:
    columns = frame.items() if isinstance(frame, pd.DataFrame) else [(frame.name or "the column", frame)]
    bad = [str(name) for name, column in columns if not pd.api.types.is_numeric_dtype(column.dtype)]
    if bad:
        raise DataError(
            f"columns that hold no numbers: {', '.join(bad)}. Allowed: numeric and boolean columns. "
            "Encode them first, for example with pandas.get_dummies or pandas.factorize."
        )


def _batch_arrays(data: Any, numbers: Numbers, seed: int, name: str) -> list[Batch]:
    tree = numbers.cast([_converted(data, numbers)])[0]
    parts = tensors(tree)
    lengths = [tensor.shape[0] for tensor in parts]
    if len(set(lengths)) > 1:
        raise DataError(
            f"{name} has parts of different length: {describe(tree)}. "
            "All must have one row per example; a sequence of batches must be a list."
        )
    count = lengths[0]
    if count == 0:
        raise DataError(f"{name} is empty: {describe(tree)}. It needs rows, one for each example.")
    size = min(BATCH_ROWS, max(8, count // MIN_BATCHES))
    row_bytes = sum(tensor.nbytes for tensor in parts) / count
    total = min(count, CACHE_BATCHES * size, max(2 * size, int(CACHE_BYTES / max(row_bytes, 1e-9))))
    order = torch.randperm(count, generator=_generator(seed))[:total]
    if total >= 2 * size:
        order = order[: total - total % size]  # a ragged last batch of one row breaks batch normalization
    return [select_rows(tree, index) for index in torch.split(order, size)]


def _dataset_loader(data: Any, seed: int, name: str) -> DataLoader[Any]:
    if isinstance(data, IterableDataset):
        return DataLoader(data, batch_size=BATCH_ROWS)
    count = len(data)
    if count == 0:
        raise DataError(f"{name} is an empty {type(data).__name__}. It needs rows, one for each example.")
    size = min(BATCH_ROWS, max(8, count // MIN_BATCHES))
    generator = _generator(seed)
    ragged = count >= 2 * size
    collate = None if isinstance(data, Dataset) else _collate_lists
    return DataLoader(data, batch_size=size, shuffle=True, generator=generator, drop_last=ragged, collate_fn=collate)


def _collate_lists(items: list[Any]) -> Batch:
    """Returns rows of lists of numbers stacked; torch's own collation would turn rows and columns round."""
    return default_collate([{key: torch.as_tensor(value) for key, value in item.items()} for item in items])


def _cached(
    source: Iterable[Any], numbers: Numbers, name: str, copies: bool = False, enough: int | None = None
) -> list[Batch]:
    """Returns as many batches as may be kept; copies of them where the source may use its memory again."""
    batches: list[Batch] = []
    size, seen, start = 0, 0, time.perf_counter()
    iterator = iter(source)
    for item in iterator:
        batch = _as_batch(item, numbers)
        batches.append(clone(batch) if copies else batch)
        size += sum(tensor.nbytes for tensor in tensors(batch))
        seen += rows(batch)
        slow = time.perf_counter() - start > FETCH_SECONDS and len(batches) >= SLOW_BATCHES
        if len(batches) >= CACHE_BATCHES or size >= CACHE_BYTES or slow or (enough is not None and seen >= enough):
            break
    if not batches:
        raise DataError(f"{name} is empty: no batch came out of the {type(source).__name__}. {ACCEPTED}")
    return batches


def _as_batch(item: Any, numbers: Numbers) -> Batch:
    """Returns a batch as it came, with tensors in the place of arrays and frames."""
    if isinstance(item, (np.ndarray, pd.DataFrame, pd.Series)):
        return _converted(item, numbers)
    if isinstance(item, (tuple, list)):
        leaves = list(_leaves(item))
        arrays = all(_is_leaf(leaf) for leaf in leaves)
        return _converted(item, numbers) if arrays and not all(isinstance(x, Tensor) for x in leaves) else item
    if isinstance(item, dict):
        changes = {
            key: _converted(value, numbers, str(key) in TARGET_KEYS)
            for key, value in item.items()
            if _is_leaf(value) and not isinstance(value, Tensor)
        }
        return {**item, **changes} if changes else item
    return item


@contextlib.contextmanager
def _generators_kept(data: Any) -> Iterator[None]:
    """Puts the generators of a DataLoader and its samplers back, as if it had not been iterated."""
    owners: list[Any] = [data]
    if isinstance(data, DataLoader):
        owners += [data.sampler, data.batch_sampler]
        owners += [data.batch_sampler.sampler] if isinstance(data.batch_sampler, BatchSampler) else []
    found = [owner.generator for owner in owners if isinstance(owner, _HasGenerator)]
    kept = [(item, item.get_state()) for item in found if isinstance(item, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in kept:
            generator.set_state(state)


def in_two(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
    """Returns two parts of about equal rows; a single batch is cut in two, or is both where its rows cannot be told."""
    if len(batches) > 1:
        middle = math.ceil(len(batches) / 2)
        return list(batches[0::2][:middle]), list(batches[1::2])
    pair = halves(batches[0])
    if pair is not None:
        return [pair[0]], [pair[1]]
    if rows(batches[0]) < 2:
        raise DataError(
            f"one held-back batch ({describe(batches[0])}) that cannot be halved by rows; two are needed. "
            "Pass more batches, or a val_data of at least two."
        )
    return [batches[0]], [batches[0]]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
