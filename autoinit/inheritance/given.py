"""Values that no formula gives: of parameters and buffers, by name, with the reason for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..plans.fill import Fill


@dataclass(frozen=True)
class Given:
    """What a start gives to a model, before anything of the model is changed.

    Attributes:
        values: name of a parameter or a buffer → its whole new value, with the shape, the dtype and the device that it
            has in the model.
        why: the same names → the reason in words, as a plan prints it.
        notes: what is to be known beside, in whole sentences: what could not be kept, what is only nearly so.
    """

    values: Mapping[str, Tensor]
    why: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def beside(self, other: Given) -> Given:
        """Returns both together; neither has a value for what the other one has."""
        values, why = {**self.values, **other.values}, {**self.why, **other.why}
        return Given(values, why, (*self.notes, *other.notes))

    def told(self, fill: Fill) -> Fill:
        """Returns a fill with the reason that was found for it, if one was."""
        return dataclasses.replace(fill, reason=self.why[fill.name]) if fill.name in self.why else fill
