"""Indices of axes, digit by digit, against indices by hand."""

from __future__ import annotations

import torch

from autoinit.growth.mapping import Axis, Factor, Segment, contraction, copies, factors, index, plain
from autoinit.growth.wider import beside, in_turn


def test_digits_are_mapped_one_by_one() -> None:
    """Two heads of 3 units become four of 3: unit (head, place) takes after (head // 2, place)."""
    axis = Axis((Segment((Factor(2, 4, "heads"), Factor(3, 3, "head size"))),))
    assert (axis.before, axis.after) == (6, 12)
    by_hand = [(unit // 3 // 2) * 3 + unit % 3 for unit in range(12)]
    assert index(axis, in_turn).tolist() == by_hand
    assert copies(index(axis, in_turn), 6).tolist() == [2] * 12


def test_segments_follow_one_another() -> None:
    segment = Segment((Factor(2, 4),))
    assert index(Axis((segment, segment)), in_turn).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert index(Axis((segment, segment)), beside).tolist() == [0, 1, -1, -1, 2, 3, -1, -1]


def test_what_is_new_in_one_digit_is_new() -> None:
    axis = Axis((Segment((Factor(1, 2), Factor(2, 2))),))
    assert index(axis, beside).tolist() == [0, 1, -1, -1]
    assert copies(index(axis, beside), 2).tolist() == [1, 1, 1, 1]


def test_rows_of_tables_are_the_first_ones() -> None:
    assert index(plain(2, 4, "rows"), in_turn).tolist() == [0, 1, -1, -1]
    assert index(plain(4, 2, "rows"), in_turn).tolist() == [0, 1]
    assert list(factors([plain(2, 4, "rows"), plain(1, 2)])) == [Factor(1, 2)]


def test_contracted_units_are_scaled_for_their_copies_and_the_larger_root() -> None:
    axis = Axis((Segment((Factor(2, 2), Factor(4, 16)), contracted=True), Segment((Factor(8, 32),))))
    scale = contraction(axis, in_turn)
    torch.testing.assert_close(scale[:32], torch.full((32,), 2 / 4, dtype=torch.float64))  # √(16 / 4) / 4 copies
    assert torch.all(scale[32:] == 1)
    assert torch.all(contraction(axis, beside)[:32] == 2)
