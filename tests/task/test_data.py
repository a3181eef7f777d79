"""Every kind of data becomes the same lists of batches, and the owner's own stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from autoinit.errors import ArgumentError, DataError
from autoinit.task import data as module
from autoinit.task.batches import describe, rows, tensors
from autoinit.task.casting import Numbers
from autoinit.task.data import all_batches, fetch, first_batch, held_back_groups, held_out, in_two, length_of_training
from autoinit.task.snapshot import preserved_random
from autoinit.task.task import make_task

X, Y = load_digits(return_X_y=True)
XT, YT = torch.tensor(X, dtype=torch.float32), torch.tensor(Y)


def hold_out(batches: list[Any], **options: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """Returns (training, probe-eval, gate-eval) batches."""
    kept, held = held_out(batches, **options)
    return kept, *in_two(held)


class Rows(Dataset[Any]):
    def __len__(self) -> int:
        return len(XT)

    def __getitem__(self, index: int) -> Any:
        return {"x": XT[index], "labels": Y[index]}


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(XT, YT, strict=True))


class HubDataset:
    """As the `datasets` library's: rows by number, no torch Dataset."""

    def __len__(self) -> int:
        return len(XT)

    def __getitem__(self, index: int) -> Any:
        return {"x": X[index].tolist(), "labels": int(Y[index])}

    def __getitems__(self, keys: list[int]) -> list[Any]:
        return [self[key] for key in keys]


class Loops:
    """Re-iterable, no Sequence."""

    def __iter__(self) -> Iterator[Any]:
        return iter(DataLoader(TensorDataset(XT, YT), batch_size=64))


def generator() -> Iterator[Any]:
    yield from Loops()


ROWS = {
    "tensors": lambda: (XT, YT),
    "numpy": lambda: (X, Y),
    "frames": lambda: (pd.DataFrame(X), pd.Series(Y)),
    "frame and one-column frame": lambda: (pd.DataFrame(X), pd.DataFrame({"y": Y})),
    "mixed": lambda: (pd.DataFrame(X), Y),
    "several inputs": lambda: (X[:, :32], X[:, 32:], Y),
    "nested inputs": lambda: ((X[:, :32], X[:, 32:]), Y),
    "dict of arrays": lambda: {"x": X, "labels": Y},
    "one array": lambda: X,
    "Dataset": Rows,
    "TensorDataset": lambda: TensorDataset(XT, YT),
    "datasets library": HubDataset,
    "DataLoader": lambda: DataLoader(TensorDataset(XT, YT), batch_size=64, shuffle=True),
    "DataLoader of an IterableDataset": lambda: DataLoader(Stream(), batch_size=64),
    "IterableDataset": Stream,
    "tuple of tuples": lambda: tuple(Loops()),
    "list of tuples": lambda: list(Loops()),
    "list of dicts": lambda: [{"x": x, "labels": y} for x, y in Loops()],
    "list of tensors": lambda: [x for x, _ in Loops()],
    "list of numpy pairs": lambda: [(x.double().numpy(), y.numpy()) for x, y in Loops()],
    "re-iterable": Loops,
    "generator": generator,
}


@pytest.mark.parametrize("kind", ROWS)
def test_every_kind_gives_batches_of_64_float32_rows(kind: str) -> None:
    batches = fetch(ROWS[kind](), seed=0)
    assert len(batches) in (28, 29)  # 1797 rows; a ragged last batch is dropped where rows are batched here
    for batch in batches:
        assert rows(batch) in (64, 5)
        for tensor in tensors(batch):
            assert tensor.dtype in (torch.float32, torch.int64)
    total = torch.cat([tensors(batch)[0].flatten() for batch in batches])
    assert total.mean().item() == pytest.approx(X.mean(), rel=0.05)


@pytest.mark.parametrize("kind", ROWS)
def test_reading_leaves_generators_and_the_owners_tensors(kind: str) -> None:
    data = ROWS[kind]()
    x, y = XT.clone(), YT.clone()
    with unchanged(nn.Linear(1, 1)), preserved_random():
        fetch(data, seed=0)
        first_batch(ROWS[kind]())
    assert XT.equal(x)
    assert YT.equal(y)


@pytest.mark.parametrize("kind", ["tensors", "numpy", "Dataset", "datasets library"])
def test_rows_are_shuffled_by_the_seed_alone(kind: str) -> None:
    first, again, other = (fetch(ROWS[kind](), seed=seed)[0] for seed in (0, 0, 1))
    assert all(a.equal(b) for a, b in zip(tensors(first), tensors(again), strict=True))
    assert not all(a.equal(b) for a, b in zip(tensors(first), tensors(other), strict=True))
    assert not tensors(first)[0].equal(XT[:64])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loaders_own_generator_is_put_back(workers: int) -> None:
    own = torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(XT, YT), batch_size=64, shuffle=True, generator=own, num_workers=workers)
    state = own.get_state()
    batches = fetch(loader)
    assert own.get_state().equal(state)
    assert next(iter(loader))[0].equal(batches[0][0])


def test_an_iterator_is_consumed_only_as_far_as_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHE_BATCHES", 4)
    source = generator()
    assert len(fetch(source)) == 4
    assert next(source)[0].equal(XT[256:320])


def test_a_reused_buffer_gives_batches_of_their_own() -> None:
    def reusing() -> Iterator[Any]:
        buffer = torch.empty(8, 64)
        for index in range(3):
            yield buffer.copy_(XT[8 * index : 8 * index + 8])

    batches = fetch(reusing())
    assert batches[0].equal(XT[:8])
    assert batches[2].equal(XT[16:24])


def test_no_more_bytes_are_kept_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHE_BYTES", 5 * 64 * 65 * 4)
    assert len(fetch((XT, YT))) <= 5
    assert len(fetch(Loops())) <= 5


def test_small_arrays_get_small_batches() -> None:
    x, y = load_wine(return_X_y=True)
    batches = fetch((x, y))
    assert [rows(batch) for batch in batches] == [17] * 10


def test_a_slow_loader_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FETCH_SECONDS", 0.0)
    assert len(fetch(Loops())) == module.SLOW_BATCHES
    assert [len(part) for part in hold_out(fetch(Loops()))] == [2, 1, 1]


DTYPES = [torch.float32, torch.float64, torch.bfloat16]
ARRAYS = ["numpy", "frames", "frame and one-column frame", "tensors", "list of numpy pairs", "list of frames"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("given", [np.float32, np.float64])
def test_floating_arrays_and_frames_fit_a_model_of_any_precision(kind: str, dtype: torch.dtype, given: type) -> None:
    x, y = X[:200].astype(given), Y[:200]
    data = {
        "numpy": (x, y),
        "frames": (pd.DataFrame(x), pd.Series(y)),
        "frame and one-column frame": (pd.DataFrame(x), pd.DataFrame({"y": y})),
        "tensors": (torch.tensor(x), torch.tensor(y)),
        "list of numpy pairs": [(x[i : i + 20], y[i : i + 20]) for i in range(0, 200, 20)],
        "list of frames": [(pd.DataFrame(x[i : i + 20]), pd.Series(y[i : i + 20])) for i in range(0, 200, 20)],
    }[kind]
    task = make_task(nn.Linear(64, 10).to(dtype), data)
    assert task.train[0][0].dtype == dtype
    assert task.train[0][1].dtype == torch.int64
    assert first_batch(data, numbers=Numbers.all_in(dtype))[0].dtype == dtype


def test_a_frame_keeps_the_digits_of_a_double_model() -> None:
    batch = fetch((pd.DataFrame({"a": [1 / 3] * 40}), pd.Series([0] * 40)), numbers=Numbers.all_in(torch.float64))[0]
    assert batch[0][0].item() == 1 / 3


def test_tensors_of_the_owners_batches_keep_their_dtype() -> None:
    batches = [(XT[:4].half(), YT[:4]), {"x": XT[:4].double(), "y": Y[:4]}, {"x": pd.DataFrame(X[:4])}]
    found = [tensors(batch)[0].dtype for batch in fetch(batches, numbers=Numbers.all_in(torch.bfloat16))]
    assert found == [torch.float16, torch.float64, torch.bfloat16]


def test_floating_arrays_take_the_models_dtype_and_integers_stay() -> None:
    x, tokens, y = (tensors(fetch((X, Y, X[:, 0]), numbers=Numbers.all_in(torch.bfloat16)))[i] for i in range(3))
    assert x.dtype == torch.bfloat16
    assert tokens.dtype == torch.int64
    assert y.dtype == torch.bfloat16


def test_a_frame_of_integers_is_an_input_or_a_target() -> None:
    frame = pd.DataFrame({"a": range(40), "b": range(40)})
    x, y = fetch((frame, frame["a"]))[0]
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "data is None.*Allowed: a DataLoader"),
        ("digits", "data is 'digits'.*Allowed"),
        (3, "data is 3"),
        (object(), "object, which cannot be iterated"),
        ([], "empty.*list"),
        ((X[:0], Y[:0]), r"empty.*\[0, 64\]"),
        (TensorDataset(XT[:0]), "empty TensorDataset"),
        ((X, Y[:5]), r"different length.*\[1797, 64\].*\[5\]"),
        ((pd.DataFrame({"size": [1.0], "city": ["Ulm"]}), Y[:1]), "no numbers: city.*get_dummies"),
        ((X, np.array(["a"] * len(X))), "dtype <U1.*factorize"),
        ((X, pd.Series(["a"] * len(X), name="kind")), "no numbers: kind"),
    ],
)
def test_what_is_no_data_is_told_so(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fetch(data)


def test_rows_that_cannot_be_batched_are_told_so() -> None:
    class Pictures(Dataset[Any]):
        def __len__(self) -> int:
            return 99

        def __getitem__(self, index: int) -> Any:
            return object(), 1

    with pytest.raises(DataError, match=r"data could not be read: TypeError.*collate_fn"):
        fetch(Pictures())


def test_non_finite_values_are_named() -> None:
    x = XT.clone()
    x[70, 3] = float("nan")
    batches = list(DataLoader(TensorDataset(x, YT), batch_size=64))
    with pytest.raises(DataError, match=r"1 of 4096 values of batch 1 \(\[64, 64\] float32\)"):
        module.check_finite(batches)
    with pytest.raises(DataError, match="values in 'x' of batch 0"):
        module.check_finite([{"x": torch.tensor([float("inf")])}], "val_data")
    module.check_finite([{"attention_mask": torch.tensor([float("-inf")])}])


def test_held_back_parts_share_no_row_and_have_256_rows_each() -> None:
    numbered = (torch.arange(3200.0)[:, None], torch.arange(3200))
    batches = fetch(numbered)
    train, probe, gate = hold_out(batches, seed=0)
    assert (len(train), len(probe), len(gate)) == (40, 5, 5)
    seen = torch.cat([batch[1] for part in (train, probe, gate) for batch in part])
    assert seen.unique().numel() == 3200
    small = fetch((X, Y))
    train, probe, gate = hold_out(small, seed=0)
    assert sum(map(rows, probe)) >= 256 <= sum(map(rows, gate))
    assert len(train) >= len(small) / 2


@pytest.mark.parametrize("given", [False, True])
def test_no_more_is_held_back_than_it_takes(given: bool) -> None:
    """What every trial evaluates does not grow with the data; what is not held back is trained on."""
    batches = fetch((torch.arange(30000.0)[:, None], torch.arange(30000)))
    train, probe, gate = hold_out(batches, seed=0, val=fetch((torch.zeros(9000, 1),)) if given else None)
    assert sum(map(rows, probe)) == sum(map(rows, gate)) == 512
    assert len(train) == len(batches) - (0 if given else 16)
    large = [(torch.zeros(4096, 1),)] * 20
    assert [len(part) for part in hold_out(large)] == [18, 1, 1]


def test_validation_batches_are_picked_by_the_seed() -> None:
    val = [(torch.full((64, 1), float(index)),) for index in range(100)]
    first, again, other = (hold_out(val[:1], seed=seed, val=val)[1:] for seed in (0, 0, 1))
    assert describe(first) == describe(again)
    picked = [sorted(batch[0][0].item() for part in parts for batch in part) for parts in (first, again, other)]
    assert picked[0] == picked[1] != picked[2]
    assert picked[0] != list(range(16))


def test_the_same_seed_holds_the_same_batches_back() -> None:
    batches = fetch((X, Y))
    assert hold_out(batches, seed=3)[1][0][0] is hold_out(batches, seed=3)[1][0][0]
    ids = [[id(batch) for batch in hold_out(batches, seed=seed)[1]] for seed in (3, 4)]
    assert ids[0] != ids[1]


@pytest.mark.parametrize("end", [1, 3])
def test_a_ragged_last_batch_is_neither_trained_on_nor_held_back(end: int) -> None:
    whole = [(XT[8 * place : 8 * place + 8],) for place in range(6)]
    for val in (None, [(XT[100:120],)]):
        seen = [batch for part in hold_out([*whole, (XT[:end],)], val=val) for batch in part]
        expected = [batch for part in hold_out(whole, val=val) for batch in part]
        assert [batch[0].tolist() for batch in seen] == [batch[0].tolist() for batch in expected]


@pytest.mark.parametrize("sizes", [(8, 8, 8, 4), (8, 8, 3), (8, 6, 8, 3), (8, 8, 3, 8), (2, 2, 2, 1, 1)])
def test_other_batches_are_all_used(sizes: tuple[int, ...]) -> None:
    """A half is enough, a few rows are a part of little data, and sizes that differ are meant to."""
    parts = hold_out([(XT[:size],) for size in sizes], val=[(XT[100:120],)])
    assert [rows(batch) for batch in parts[0]] == list(sizes)


def test_two_batches_are_enough_and_one_is_not() -> None:
    train, probe, gate = hold_out([(XT[:8], YT[:8]), (XT[8:16], YT[8:16])])
    assert [rows(part[0]) for part in (train, probe, gate)] == [8, 4, 4]
    with pytest.raises(DataError, match=r"one batch \(\(\[8, 64\] float32, \[8\] int64\)\).*smaller batch size"):
        hold_out([(XT[:8], YT[:8])])


def test_given_validation_data_is_held_back_instead() -> None:
    train, probe, gate = hold_out([(XT[:8], YT[:8])], val=[(XT[8:16], YT[8:16])])
    assert [len(part) for part in (train, probe, gate)] == [1, 1, 1]
    with pytest.raises(DataError, match="cannot be halved"):
        hold_out([(XT[:8], YT[:8])], val=[(XT[:1], YT[:1])])


def test_a_single_batch_whose_rows_cannot_be_told_is_held_back_whole() -> None:
    graph = (XT[:8], torch.tensor([[0, 1, 2], [1, 2, 3]]), YT[:8])  # nodes, edges, labels of nodes
    _, probe, gate = hold_out([graph], val=[graph])
    assert probe[0] is gate[0] is graph


@pytest.mark.parametrize(
    ("example", "shape"),
    [
        (XT, [64, 64]),
        ((XT, YT), [64, 64]),
        ((XT[:3], YT[:3]), [3, 64]),
        ([XT[:3], YT[:3]], [3, 64]),  # what next(iter(loader)) gives
        ({"x": XT[:3], "labels": YT[:3]}, [3, 64]),
        ((torch.zeros(100, 2, 3), YT[:2]), [100, 2, 3]),  # time first: its parts have no common rows
        (torch.zeros(2, 3, device="meta"), [2, 3]),
        ([(XT[:3], YT[:3])] * 2, [3, 64]),
    ],
)
def test_one_batch_or_example_is_enough_to_look_at(example: Any, shape: list[int]) -> None:
    assert list(tensors(first_batch(example))[0].shape) == shape


def test_real_tabular_frame() -> None:
    frame = load_breast_cancer(as_frame=True).frame
    batches = fetch((frame.drop(columns="target"), frame["target"]))
    assert describe(batches[0]) == "([56, 30] float32, [56] int64)"


def test_one_batch_is_told_from_many() -> None:
    x, y = torch.randn(64, 3), torch.zeros(64)
    (only,) = all_batches((x, y))
    assert torch.equal(only[0], x)  # one batch is used as it is
    assert len(all_batches((x.repeat(3, 1), y.repeat(3)))) > 1
    assert [len(batch) for batch in all_batches([(x, y), (x, y)])] == [2, 2]
    (nested,) = all_batches(((x, x), y))
    assert len(nested[0]) == 2
    (mapping,) = all_batches({"x": x})
    assert set(mapping) == {"x"}


@pytest.mark.parametrize("size", [128, 97, 32, 400])
def test_held_back_groups_do_not_depend_on_how_rows_were_batched(size: int) -> None:
    x, y = torch.arange(397.0)[:, None], torch.arange(397)
    batches = list(zip(x.split(size), y.split(size), strict=True))
    groups = held_back_groups(batches, size=32, seed=3)
    whole = held_back_groups([(x, y)], size=32, seed=3)
    assert groups is not None
    assert whole is not None
    for part, same in zip(groups, whole, strict=True):
        assert [group[1].tolist() for group in part] == [group[1].tolist() for group in same]
        # Half of 397 is 198 rows: eight groups of 24 and 25.
        assert sorted(map(rows, part)) == [24] * 2 + [25] * 6
    numbers = [set(torch.cat([group[1] for group in part]).tolist()) for part in groups]
    assert not numbers[0] & numbers[1]


def test_held_back_groups_are_as_large_as_a_training_batch_at_most_and_of_512_rows_in_all() -> None:
    x = torch.arange(5000.0)[:, None]
    groups = held_back_groups([(x,)], size=16)
    assert groups is not None
    assert [list(map(rows, part)) for part in groups] == [[16] * 32] * 2
    few = held_back_groups([(x[:6],)], size=16)
    assert few is not None
    assert [list(map(rows, part)) for part in few] == [[1] * 3] * 2
    assert held_back_groups([(x[:1],)], size=16) is None


def test_the_length_of_a_training_is_steps_or_passes_through_its_batches() -> None:
    loader = DataLoader(TensorDataset(XT, YT), 100)
    assert length_of_training(None, None, loader) is None
    assert length_of_training(700, None, None) == 700.0
    assert length_of_training(None, 2.5, loader) == 2.5 * len(loader)
    assert length_of_training(None, 3, [XT, YT]) == 6.0


@pytest.mark.parametrize(
    ("steps", "epochs", "data", "said"),
    [
        (5, 5, [XT], "training_steps is 5 and epochs is 5. Give one of the two."),
        (0, None, [XT], "training_steps must be a positive, finite number. Got 0."),
        (True, None, [XT], "training_steps must be a positive, finite number. Got True."),
        (None, float("inf"), [XT], "epochs must be a positive, finite number. Got inf."),
        (None, "3", [XT], "epochs must be a positive, finite number. Got '3'."),
        (None, 3, (XT, YT), "epochs is 3, but a tuple does not tell how many batches an epoch has. Give"),
        (None, 3, DataLoader(Stream(), 4), "epochs is 3, but a DataLoader does not tell"),
    ],
)
def test_what_is_no_length_is_told_so(steps: Any, epochs: Any, data: Any, said: str) -> None:
    with pytest.raises(ArgumentError) as error:
        length_of_training(steps, epochs, data)
    assert str(error.value).startswith(said)


def test_large_rows_stay_in_their_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [(torch.zeros(50, 100),)] * 4
    monkeypatch.setattr(module, "GROUPED_BYTES", 200 * 100 * 4)
    assert held_back_groups(batches, size=16) is not None
    monkeypatch.setattr(module, "GROUPED_BYTES", 200 * 100 * 4 - 1)
    assert held_back_groups(batches, size=16) is None


def test_reading_stops_where_enough_rows_are_read() -> None:
    read: list[int] = []

    def batches() -> Any:
        for index in range(100):
            read.append(index)
            yield XT[:10], torch.zeros(10, dtype=torch.long)

    assert len(all_batches(batches(), enough=25)) == 3
    assert read == [0, 1, 2]
    assert len(all_batches(TensorDataset(XT), enough=100)) == 2
