"""Repeated blocks left out of a copy: the first few stay with their weights, and the copy runs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import pytest
import torch
from helpers import unchanged
from torch import Tensor, nn

from autoinit.errors import ModelError
from autoinit.proxies.repeats import Run, runs, with_fewer_blocks


def block(width: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Residual(nn.Module):
    def __init__(self, blocks: int, width: int = 8) -> None:
        super().__init__()
        self.num_layers = blocks
        self.stem, self.head = nn.Linear(4, width), nn.Linear(width, 2)
        self.blocks = nn.ModuleList(block(width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for place in range(self.num_layers):
            x = x + self.blocks[place](x)
        return self.head(x)


class Parallel(nn.Module):
    """Two lists that are gone through side by side, and tables, one for each column."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(5, 4) for _ in range(3))
        self.up = nn.ModuleList(nn.Linear(12, 24) for _ in range(blocks))
        self.down = nn.ModuleList(nn.Linear(24, 12) for _ in range(blocks))

    def forward(self, codes: Tensor) -> Tensor:
        x = torch.cat([table(codes[:, place]) for place, table in enumerate(self.tables)], 1)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(up(x).relu())
        return x


def test_the_first_blocks_stay_with_their_weights() -> None:
    model = Residual(16)
    model(torch.ones(1, 4)).sum().backward()
    with unchanged(model):
        small: Any = with_fewer_blocks(model, 4.0)
    assert len(small.blocks) == small.num_layers == 4
    assert all(one.equal(two) for one, two in zip(small.blocks.parameters(), model.blocks.parameters(), strict=False))
    assert small.head.weight.equal(model.head.weight)
    assert small.head.weight is not model.head.weight
    assert all(parameter.grad is None for parameter in small.parameters())
    assert small(torch.ones(1, 4)).shape == (1, 2)


def test_two_blocks_stay_at_the_least() -> None:
    small: Any = with_fewer_blocks(Residual(16), 1000.0)
    assert len(small.blocks) == 2


def test_a_plain_sequence_is_cut_inside() -> None:
    hidden = [part for _ in range(12) for part in (nn.Linear(8, 8), nn.Tanh())]
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), *hidden, nn.Linear(8, 2))
    assert list(runs(model)) == [Run("", 1, 2, 12)]
    small = with_fewer_blocks(model, 4.0)
    assert [type(part).__name__ for part in small] == [*["Linear", "Tanh"] * 4, "Linear"]  # type: ignore[arg-type]
    assert list(small._modules) == [str(place) for place in range(9)]
    assert small(torch.ones(1, 4)).shape == (1, 2)


def test_stages_are_cut_each_and_names_stay() -> None:
    stages = [nn.Sequential(*[block(width) for _ in range(8)]) for width in (8, 4)]
    model = nn.Sequential(OrderedDict(first=stages[0], between=nn.Linear(8, 4), second=stages[1]))
    small = with_fewer_blocks(model, 4.0)
    assert list(small._modules) == ["first", "between", "second"]
    assert [len(small.get_submodule(name)) for name in ("first", "second")] == [2, 2]  # type: ignore[arg-type]


def test_two_runs_of_one_sequence_are_cut_both() -> None:
    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(8)], nn.Linear(8, 4), *[nn.Linear(4, 4) for _ in range(8)])
    small = with_fewer_blocks(model, 4.0)
    assert [tuple(part.weight.shape) for part in small] == [(8, 8)] * 2 + [(4, 8)] + [(4, 4)] * 2  # type: ignore[union-attr,arg-type,misc]


def test_lists_side_by_side_stay_as_long_and_tables_stay() -> None:
    small: Any = with_fewer_blocks(Parallel(12), 4.0)
    assert [len(one) for one in (small.tables, small.up, small.down)] == [3, 3, 3]
    assert small(torch.zeros(2, 3, dtype=torch.long)).shape == (2, 12)


def test_blocks_of_blocks_stay() -> None:
    """Experts, heads or branches, of which each is used by its number."""
    experts = [nn.ModuleDict({"experts": nn.ModuleList(nn.Linear(4, 4) for _ in range(6))}) for _ in range(8)]
    assert list(runs(nn.ModuleList(experts))) == [Run("", 0, 1, 8)]


def test_an_encoder_of_torch_runs() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 8, enable_nested_tensor=False)
    small: Any = with_fewer_blocks(model, 4.0)
    assert small.num_layers == len(small.layers) == 2
    assert small(torch.ones(1, 3, 8)).shape == (1, 3, 8)


def test_a_block_that_stands_at_two_places_stays_at_that_which_is_left() -> None:
    model = Residual(8)
    model.blocks[7] = model.blocks[0]
    small: Any = with_fewer_blocks(model, 4.0)
    assert [type(part) for part in small.blocks] == [nn.Sequential] * 2
    model.last = model.blocks[5]
    kept: Any = with_fewer_blocks(model, 4.0)
    assert isinstance(kept.last, nn.Sequential)


def test_ties_are_kept() -> None:
    model = Residual(8)
    for one in model.blocks:
        one[1].weight = model.blocks[0][1].weight  # type: ignore[index,union-attr]
    small: Any = with_fewer_blocks(model, 4.0)
    assert small.blocks[1][1].weight is small.blocks[0][1].weight


def test_what_is_left_out_is_never_copied() -> None:
    model = Residual(8)
    for place in range(2, 8):
        model.blocks[place].held = threading.Lock()  # type: ignore[assignment]
    small: Any = with_fewer_blocks(model, 4.0)
    assert len(small.blocks) == 2
    with pytest.raises(ModelError, match="cannot be copied"):
        with_fewer_blocks(model, 2.0)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Linear(4, 4), "no ModuleList or Sequential of it holds more than 2 alike blocks"),
        (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), "more than 2 alike"),
        (nn.ModuleList(nn.Embedding(4, 4) for _ in range(5)), "more than 2 alike"),
        (Residual(8).to("meta"), "on the meta device, without weights"),
    ],
)
def test_what_has_nothing_to_leave_out_is_told_so(model: nn.Module, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        with_fewer_blocks(model, 4.0)


def test_a_model_that_cannot_be_copied_is_told_so() -> None:
    model = Residual(8)
    model.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ModelError, match=r"cannot be copied: TypeError.*lock"), unchanged(model):
        with_fewer_blocks(model, 4.0)
