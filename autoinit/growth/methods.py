"""What each way of growing and shrinking does with the units and the blocks of a trained network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..recipes.growths import GROWTH_ROWS
from . import narrower, wider
from .mapping import Axis, Choice

Weights = Iterable[tuple[Tensor, Sequence[Axis]]]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to come from a trained network to a larger or a smaller one.

    Attributes:
        name: key of `GROWTH_ROWS`, which has what is known of it.
        choose: (seed, the source's weights) → which unit each unit takes after.
        deeper: what new blocks get.
    """

    name: str
    choose: Callable[[int, Weights], Choice]
    deeper: Literal["identity", "stack"] = "identity"

    @property
    def narrower(self) -> bool:
        """Whether it is for a model that is smaller than its source."""
        return GROWTH_ROWS[self.name].narrower


_ALL = (
    Method("clone", lambda seed, weights: wider.in_turn),
    Method("net2net", lambda seed, weights: wider.at_random(seed)),
    Method("zero_pad", lambda seed, weights: wider.beside),
    Method("identity", lambda seed, weights: wider.in_turn),
    Method("stack", lambda seed, weights: wider.in_turn, deeper="stack"),
    Method("select_uniform", lambda seed, weights: narrower.evenly),
    Method("select_consecutive", lambda seed, weights: narrower.from_the_first),
    Method("select_magnitude", lambda seed, weights: narrower.largest(weights)),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""Every method by its name, in the order of `GROWTH_ROWS`."""
