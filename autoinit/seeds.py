"""Seeds: what may be one, and what the random streams of a search, a plan or a member are seeded with."""

from __future__ import annotations

import hashlib
from numbers import Integral
from typing import Any

from .errors import ArgumentError


def check_seed(seed: Any) -> None:
    """Raises ArgumentError for what is no seed."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < 2**63:
        raise ArgumentError(f"seed must be a whole number from 0 to 2**63 - 1. Got {seed!r}.")


def check_member(member: Any) -> None:
    """Raises ArgumentError for what is no number of a member."""
    if isinstance(member, bool) or not isinstance(member, Integral) or int(member) < 0:
        raise ArgumentError(
            f"member must be a whole number, 0 or more. Got {member!r}. 0 is the draw itself, and each other number an "
            "independent one: pass member=k for the k-th model of an ensemble."
        )


def seed_of_member(seed: int, member: int) -> int:
    """Returns the seed of an independent draw of the same choice, of 63 bits; that of member 0 is the seed itself.

    Args:
        seed: of the plan.
        member: its number, as `check_member` allows.
    """
    return seed if member == 0 else int.from_bytes(_hashed(f"{seed}/member {int(member)}", 8), "big") >> 1


def seed_of_use(seed: int, use: str) -> int:
    """Returns the seed of one named use, a batch order or a sampler, so that no two uses share their random numbers.

    It has 32 bits, as many as every library takes.
    """
    return int.from_bytes(_hashed(f"{seed}/{use}", 4), "big")


def seed_of_parameter(seed: int, name: str, chunk: int = 0) -> int:
    """Returns the seed of one parameter's draw, of 63 bits: it depends on the plan's seed and the name alone.

    Args:
        seed: of the plan.
        name: of the parameter, or of the one whose stream it shares.
        chunk: which of the pieces that a large draw is made in.
    """
    text = f"{seed}:{name}" + (f"\n{chunk}" if chunk else "")  # no name holds a line break
    return int.from_bytes(_hashed(text, 8), "big") >> 1


def _hashed(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=size).digest()
