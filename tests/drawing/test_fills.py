"""One tensor as its fill says: in pieces or whole, with the same bits."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from autoinit.drawing.fills import Source, fill_whole, in_pieces, pieces
from autoinit.drawing.generators import CHUNK, generator
from autoinit.drawing.memory import Memory
from autoinit.plans.fill import Fill

CPU = torch.device("cpu")
SHAPE = (2 * CHUNK // 1024 + 1, 1024)


def fill(distribution: str = "normal", **rest: object) -> Fill:
    axes = {"out_axes": (0,), "in_axes": (1,)}
    given = {"name": "w", "shape": SHAPE, "role": "hidden", "reason": "", "std": 0.5} | axes | rest
    return Fill(distribution=distribution, **given)  # type: ignore[arg-type]


def source() -> Source:
    return Source(0, Memory(room=0))


def pieced(target: torch.Tensor, of: Fill) -> torch.Tensor:
    for work in reversed(list(pieces(target, of, source(), CPU))):  # in any order
        work()
    return target


@pytest.mark.parametrize("distribution", ["normal", "uniform", "truncated_normal"])
def test_pieces_in_any_order_make_the_whole(distribution: str) -> None:
    of = fill(distribution, factor=1.7)
    whole = torch.empty(SHAPE)
    fill_whole(whole, of, source())
    assert torch.equal(pieced(torch.empty(SHAPE), of), whole)
    assert abs(whole.std().item() / 0.85 - 1) < 0.005


def test_a_piece_can_be_drawn_by_whoever_holds_it() -> None:
    whole = pieced(torch.empty(SHAPE), fill())
    held = torch.empty(CHUNK).normal_(0.0, 0.5, generator=generator(0, "w", CPU, chunk=1))
    assert torch.equal(whole.view(-1)[CHUNK : 2 * CHUNK], held)


def test_a_gpu_is_asked_for_large_pieces() -> None:
    """Its kernels take less time than to start them, unless they draw some millions of entries."""
    target, gpu = torch.empty(2**24 + 1, 1), torch.device("cuda")
    of = fill(shape=tuple(target.shape))
    assert len(list(pieces(target, of, source(), gpu))) == 2
    assert len(list(pieces(target, of, source(), CPU))) == 17
    assert not in_pieces(torch.empty(SHAPE), fill(), gpu)


def test_half_precision_is_the_cast_of_the_same_draw_with_its_factor() -> None:
    of = fill(factor=0.3)
    single, half = pieced(torch.empty(SHAPE), of), pieced(torch.empty(SHAPE, dtype=torch.bfloat16), of)
    assert torch.equal(half, single.to(torch.bfloat16))


def test_what_needs_its_whole_tensor_is_drawn_whole() -> None:
    large = torch.empty(SHAPE)
    assert in_pieces(large, fill(), CPU)
    assert not in_pieces(torch.empty(1024, 1024), fill(), CPU)
    assert not in_pieces(large.T, fill(), CPU)
    assert not in_pieces(large.to(torch.complex64), fill(), CPU)
    assert not in_pieces(large, fill("orthogonal"), CPU)
    assert not in_pieces(large, fill(slice_factors=(1.0, 2.0)), CPU)
    assert not in_pieces(large, fill(channel_factors=(1.0,) * SHAPE[0]), CPU)


def test_scaled_slices_of_a_large_tensor_hold_the_draw_of_its_pieces() -> None:
    plain = pieced(torch.empty(2 * SHAPE[0], 1024), fill())
    scaled = torch.empty(2 * SHAPE[0], 1024)
    fill_whole(scaled, dataclasses.replace(fill(), slices=2, slice_factors=(1.0, 2.0)), source())
    assert torch.equal(scaled[: SHAPE[0]], plain[: SHAPE[0]])
    assert torch.equal(scaled[SHAPE[0] :], 2 * plain[SHAPE[0] :])


def test_a_row_that_stays_zero_may_lie_in_two_pieces() -> None:
    row = CHUNK // 1000  # begins in the first piece, ends in the second
    target = torch.empty(2 * row, 1000)
    for work in pieces(target, fill(), source(), CPU, padding=row):
        work()
    assert target.eq(0).all(dim=1).nonzero().flatten().tolist() == [row]
    assert target.eq(0).sum() <= 1000 + 2
