"""What a batch is made of, moved, halved and described, whatever container it comes in."""

from __future__ import annotations

import collections

import pytest
import torch
from torch import Tensor

from autoinit.task.batches import describe, halves, map_tensors, move, regrouped, select_rows, tensors

XT, YT = torch.arange(640.0).reshape(10, 64), torch.arange(10)

Pair = collections.namedtuple("Pair", "x y")


def test_containers_keep_their_types() -> None:
    batch = {"pair": Pair(XT[:2], [YT[:2]]), "name": "a", "ordered": collections.OrderedDict(x=XT[:2])}
    moved = move(batch, torch.device("meta"))
    assert isinstance(moved["pair"], Pair)
    assert isinstance(moved["pair"].y, list)
    assert isinstance(moved["ordered"], collections.OrderedDict)
    assert moved["name"] == "a"
    assert all(tensor.is_meta for tensor in tensors(moved))
    assert not any(tensor.is_meta for tensor in tensors(batch))


def test_halves_split_rows() -> None:
    pair = halves((XT[:5], YT[:5]))
    assert pair is not None
    assert pair[0][0].equal(XT[:2])
    assert pair[1][1].equal(YT[2:4])
    assert halves(XT[:1]) is None
    assert halves((XT[:4], YT[:3])) is None


def test_descriptions_name_shapes_and_dtypes() -> None:
    assert describe((XT[:2], {"y": YT[:2]})) == "([2, 64] float32, {y: [2] int64})"
    assert describe(None) == "NoneType"
    assert map_tensors(Tensor.sum, 3) == 3


def test_rows_are_taken_from_several_batches_in_the_order_wanted() -> None:
    batches = [{"x": XT[:4], "y": YT[:4]}, {"x": XT[4:7], "y": YT[4:7]}]
    made = regrouped(batches, [6, 0, 5, 3, 1], [2, 3])
    assert made is not None
    assert [group["y"].tolist() for group in made] == [[6, 0], [5, 3, 1]]
    assert made[1]["x"].equal(XT[[5, 3, 1]])


@pytest.mark.parametrize(
    "batches",
    [
        [(XT[:4], YT[:3])],  # parts of different length
        [(XT[:4], YT[:4]), (XT[:4, :9], YT[:4])],  # rows of different kinds
        [{"x": XT[:4], "name": "a"}],  # something that is no tensor
        [{"x": XT[:4], "scale": torch.tensor(2.0)}],  # something that all rows share
    ],
)
def test_batches_whose_rows_cannot_be_told_are_left(batches: list[object]) -> None:
    assert regrouped(batches, [0, 1], [2]) is None


def test_rows_are_taken_of_parts_on_several_devices() -> None:
    """Rows here and labels there: each part is asked with an index on its own device."""
    here, there = torch.arange(6.0).view(3, 2), torch.empty(3, device="meta")
    found = select_rows((here, there), torch.tensor([2, 0]))
    assert found[0].tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert (found[1].shape, found[1].device.type) == ((2,), "meta")
    assert select_rows((here, there), slice(1, 3))[1].shape == (2,)
