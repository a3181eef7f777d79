"""Seeds: what may be one, and what the random streams of one search are seeded with."""

from __future__ import annotations

import hashlib
from numbers import Integral
from typing import Any

from .errors import ArgumentError


def check_seed(seed: Any) -> None:
    """Raises ArgumentError for what is no seed."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < 2**63:
        raise ArgumentError(f"seed must be a whole number from 0 to 2**63 - 1. Got {seed!r}.")


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
