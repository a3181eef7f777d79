"""Seeds differ by what they are for, are the same for ever, and what is none is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from autoinit.errors import ArgumentError
from autoinit.seeds import check_member, check_seed, seed_of_member, seed_of_parameter, seed_of_use


@pytest.mark.parametrize("seed_of", [seed_of_use, seed_of_parameter])
def test_seeds_differ_by_seed_and_name(seed_of: Callable[[int, str], int]) -> None:
    assert len({seed_of(0, "a"), seed_of(0, "b"), seed_of(1, "a")}) == 3


def test_seeds_stay_what_they_are() -> None:
    """A plan or a record of another day gives the same weights and the same batch order."""
    assert seed_of_use(0, "calibration") == 3312630022
    assert seed_of_parameter(3, "0.weight") == 3235623981794975247


def test_a_member_has_a_seed_of_its_own_and_the_first_one_the_plan_s() -> None:
    assert [seed_of_member(seed, 0) for seed in (0, 7, 2**63 - 1)] == [0, 7, 2**63 - 1]
    found = [seed_of_member(seed, member) for seed in range(9) for member in range(9)]
    assert len(set(found)) == 81
    assert all(0 <= seed < 2**63 for seed in found)


@pytest.mark.parametrize("member", [-1, 1.0, True, "1", None])
def test_what_is_no_member_is_refused(member: object) -> None:
    with pytest.raises(ArgumentError, match=r"member must be a whole number, 0 or more\. Got .*pass member=k"):
        check_member(member)


def test_seeds_fit_who_takes_them() -> None:
    assert all(0 <= seed_of_use(0, str(number)) < 2**32 for number in range(99))
    assert all(0 <= seed_of_parameter(0, str(number)) < 2**63 for number in range(99))


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "1", None])
def test_what_is_no_seed_is_refused(seed: object) -> None:
    with pytest.raises(ArgumentError, match=r"seed must be a whole number from 0 to 2\*\*63 - 1. Got "):
        check_seed(seed)
