"""Blocks of two depths side by side."""

from __future__ import annotations

import pytest

from autoinit.growth.stacks import Look, Partner, partners


def _block(outs: int, ins: int) -> Look:
    return {".weight": [(outs, ins)], ".bias": [(outs,)]}


def _places(found: list[Partner] | None) -> list[int | None]:
    assert found is not None
    return [None if one.new else one.place for one in found]


@pytest.mark.parametrize(
    ("small", "large", "places"),
    [
        (2, 4, [0, None, None, 1]),
        (3, 5, [0, None, 1, None, 2]),
        (1, 3, [0, None, None]),
        (3, 3, [0, 1, 2]),
        (4, 2, [0, 1]),
    ],
)
def test_equal_blocks_are_spread_evenly(small: int, large: int, places: list[int | None]) -> None:
    found = partners([_block(8, 8)] * large, [_block(4, 4)] * small, [1.0, 2.0])
    assert _places(found) == places


def test_shapes_decide_before_places_do() -> None:
    small = [_block(8, 5), _block(8, 8), _block(3, 8)]
    large = [_block(16, 5), _block(16, 16), _block(16, 16), _block(16, 16), _block(3, 16)]
    places = _places(partners(large, small, [1.0, 2.0]))
    assert (places[0], places[4]) == (0, 2)
    assert sorted(place for place in places[1:4] if place is not None) == [1]


def test_a_new_block_takes_after_its_nearest_neighbour() -> None:
    found = partners([_block(8, 8)] * 6, [_block(8, 8)] * 2, [1.0])
    assert found is not None
    assert [one.place for one in found] == [0, 0, 0, 1, 1, 1]


def test_blocks_of_other_tensors_are_no_partners() -> None:
    assert partners([_block(8, 8)], [{".scale": [(8,)]}], [1.0]) is None
    with_more = {**_block(8, 8), ".skip": [(8, 8)]}
    found = partners([with_more, _block(8, 8)], [with_more], [1.0])
    assert found == [Partner(0), Partner(None, new=True)]
