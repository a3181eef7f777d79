"""What a learned start is learned by: the method, its rates and its numbers of steps, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from ..errors import ArgumentError, did_you_mean
from ..seeds import check_seed

RATES = {"reptile": 0.1, "fomaml": 0.001, "maml": 0.001, "anil": 0.001}
"""The methods, each with the outer rate that it has where none is given."""


@dataclass(frozen=True)
class Settings:
    """What decides how a start is learned.

    Attributes:
        method: "reptile", "fomaml", "maml" or "anil".
        inner_steps: steps of gradient descent inside of an episode.
        inner_lr: their rate.
        outer_lr: Adam's rate; of Reptile the share of the way to the adapted weights.
        meta_batch: episodes of a round, after which the start moves once.
        seed: of what is random.
        head: path of the part that adapts; empty where all does.
    """

    method: str
    inner_steps: int
    inner_lr: float
    outer_lr: float
    meta_batch: int
    seed: int
    head: str = ""

    @property
    def second_order(self) -> bool:
        """Whether the outer gradient goes through the inner gradients."""
        return self.method in ("maml", "anil")


def checked(
    method: Any, *, inner_steps: Any, inner_lr: Any, outer_lr: Any, meta_batch: Any, seed: Any, head: Any
) -> Settings:
    """Returns settings that are in their ranges; the head's path is looked up later.

    Raises:
        ArgumentError: one is not.
    """
    if method not in RATES:
        raise ArgumentError(f"method is {method!r}. {did_you_mean(str(method), RATES)}")
    if head is not None and method != "anil":
        raise ArgumentError(
            f"head is {head!r}, and with {method!r} all layers adapt. Pass method='anil' with it, or leave it out."
        )
    check_seed(seed)
    check_count("inner_steps", inner_steps)
    check_count("meta_batch", meta_batch)
    check_rate("inner_lr", inner_lr)
    outer = RATES[method] if outer_lr is None else outer_lr
    check_rate("outer_lr", outer)
    if method == "reptile" and outer > 1:
        raise ArgumentError(
            f"outer_lr is {outer!r}. With 'reptile' it is the share of the way to the adapted weights: above 0, and 1 "
            "at the most."
        )
    return Settings(method, int(inner_steps), float(inner_lr), float(outer), int(meta_batch), int(seed), head or "")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raises ArgumentError for what is no whole number, or a smaller one than the least."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ArgumentError(f"{name} must be a whole number, {least} or more. Got {value!r}.")


def check_rate(name: str, value: Any) -> None:
    """Raises ArgumentError for what is no positive finite number."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise ArgumentError(f"{name} must be a finite number above 0. Got {value!r}.")
