"""Where units are after functions that move entries: against numbers that are put into the tensor itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from autoinit.renewal.trails import Trail, activity, labels_after, located, plain_name, reduced

CHANNELS = 6

MOVES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "flatten": (torch.flatten, (1,)),
    "view": (Tensor.view, (4, -1)),
    "reshape": (Tensor.reshape, (4, CHANNELS, 15)),
    "permute": (torch.permute, ((2, 0, 3, 1),)),
    "transpose": (torch.transpose, (1, 3)),
    "narrow": (torch.narrow, (1, 2, 3)),
    "getitem": (Tensor.__getitem__, ((slice(None), slice(1, 5)),)),
    "getitem by index": (Tensor.__getitem__, ((slice(None), torch.tensor([4, 0, 4])),)),
    "flip": (torch.flip, ((1,),)),
    "repeat_interleave": (torch.repeat_interleave, (2, 1)),
    "unsqueeze": (torch.unsqueeze, (0,)),
    "chunk": (torch.chunk, (2, 1)),
    "split": (torch.split, ([1, 3, 2], 1)),
}
"""Functions that move entries, with their arguments after the tensor of shape [4, 6, 3, 5]."""


@pytest.mark.parametrize("name", [name for name in MOVES if name != "split"])
def test_units_are_where_their_values_went(name: str) -> None:
    func, rest = MOVES[name]
    ids = torch.arange(10, 10 + CHANNELS)
    tensor = ids[None, :, None, None].double().expand(4, CHANNELS, 3, 5).contiguous()
    trail = Trail(1, ids, (7,))
    found = labels_after(func, (tensor, *rest), {}, {id(tensor): trail})
    results = func(tensor, *rest)
    for result, one in zip([results] if isinstance(results, Tensor) else results, found, strict=True):
        assert one is not None
        assert one.records == (7,)
        along = [1] * result.dim()
        along[one.axis] = -1
        assert torch.equal(one.ids.double().reshape(along).expand_as(result), result)


@pytest.mark.parametrize(
    ("func", "rest"),
    [
        (Tensor.reshape, (4, 2, 3, 15)),  # channels in two axes
        (torch.select, (1, 2)),  # one channel: no axis runs over them
        (torch.split, ([1, 3, 2], 1)),  # the first part is a single channel
    ],
)
def test_units_that_no_single_axis_runs_over_are_not_located(func: Any, rest: Any) -> None:
    tensor = torch.zeros(4, CHANNELS, 3, 5)
    assert None in labels_after(func, (tensor, *rest), {}, {id(tensor): Trail(1, torch.arange(CHANNELS))})


def test_a_call_that_numbers_cannot_pass_tells_nothing() -> None:
    tensor = torch.zeros(4, CHANNELS)
    trails = {id(tensor): Trail(1, torch.arange(CHANNELS))}
    assert labels_after(Tensor.view, (tensor, 5, 5), {}, trails) == []


def test_what_is_joined_keeps_its_place_and_the_rest_is_no_unit() -> None:
    one, other, plain = torch.zeros(4, 3), torch.zeros(4, 2), torch.zeros(4, 2)
    trails = {id(one): Trail(1, torch.tensor([5, 6, 7]), (1,)), id(other): Trail(1, torch.tensor([0, 1]), (0,))}
    (found,) = labels_after(torch.cat, ([one, plain, other],), {"dim": -1}, trails)
    assert found is not None
    assert found.ids.tolist() == [5, 6, 7, -1, -1, 0, 1]
    assert found.records == (0, 1)
    assert labels_after(torch.cat, ([one, torch.zeros(4, 3)],), {"dim": 0}, trails) == [None]


def test_strides_decide_what_view_takes_as_in_the_call() -> None:
    tensor = torch.zeros(2, CHANNELS, 3, 5).to(memory_format=torch.channels_last)
    trails = {id(tensor): Trail(1, torch.arange(CHANNELS))}
    rows = tensor.permute(0, 2, 3, 1)
    (moved,) = labels_after(torch.permute, (tensor, (0, 2, 3, 1)), {}, trails)
    assert moved is not None
    (seen,) = labels_after(Tensor.view, (rows, -1, CHANNELS), {}, {id(rows): moved})
    assert seen is not None
    assert (seen.axis, seen.ids.tolist()) == (1, list(range(CHANNELS)))


@pytest.mark.parametrize(("axes", "keepdim", "axis"), [((2, 3), False, 1), ((-1, 0), False, 0), ((0, 2), True, 1)])
def test_axes_that_are_summed_up(axes: tuple[int, ...], keepdim: bool, axis: int) -> None:
    tensor = torch.arange(CHANNELS)[None, :, None, None].double().expand(4, CHANNELS, 3, 5)
    result = tensor.mean(axes, keepdim=keepdim)
    found = reduced((tensor, axes), {"keepdim": keepdim}, result, Trail(1, torch.arange(CHANNELS)))
    assert found is not None
    assert found.axis == axis
    assert found.fits(result)
    assert reduced((tensor,), {"dim": (1, 2)}, tensor.mean((1, 2)), Trail(1, torch.arange(CHANNELS))) is None
    assert reduced((tensor,), {}, tensor.mean(), Trail(1, torch.arange(CHANNELS))) is None


def test_activity_is_the_sum_of_magnitudes() -> None:
    generator = torch.Generator().manual_seed(0)
    tensor = torch.randn(4, CHANNELS, 3, generator=generator)
    sums = activity(tensor, 1)
    by_hand = [sum(abs(float(x)) for x in tensor[:, at].flatten()) for at in range(CHANNELS)]
    torch.testing.assert_close(sums, torch.tensor(by_hand, dtype=torch.float64))
    assert activity(tensor > 0, 1).tolist() == (tensor > 0).sum((0, 2)).tolist()


def test_names_and_places() -> None:
    assert [plain_name(func) for func in (Tensor.__mul__, Tensor.mul_, torch.mul)] == ["mul"] * 3
    assert plain_name(F.relu) == "relu"
    assert located(torch.zeros(3, 4), ()) is None  # no numbers of units
    assert located(torch.zeros(0, 4, dtype=torch.int64), ()) is None
    assert Trail(1, torch.arange(4)).from_the_end(torch.zeros(2, 4, 3)) == 2
