"""A lottery ticket: which weights of a network are trained at all, and from which values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..screen.columns import Column, table, wrapped
from ..task.checks import unwrap
from ..text import count, percent
from . import files
from .wearing import check_fits, wear

_COLUMNS = (
    Column("weight", least=20, cut="middle"),
    Column("shape", rank=1),
    Column("weights", ">"),
    Column("kept", ">"),
    Column("density", ">"),
)


@dataclass(frozen=True, eq=False, repr=False)
class Ticket:
    """Which weights of a network are trained at all, and the values that they start from.

    `autoinit.ticket` chooses one. Print it for a table of its layers, `apply_` puts it on a model like its own, and
    `save` and `Ticket.load` keep it in one file of safetensors, which has masks and weights.

    Attributes:
        method: The way in which the masks were chosen, by its name.
        sparsity: The share of the weights that was to be removed.
        masks: True where an entry stays, in the shape of the weight, under the weight's name.
        weights: All parameters and saved buffers, at the start or at the step that was rewound to, removed entries too.
        notes: Which matrices stay whole and why, and which layers are empty, in whole sentences.
        provenance: Numbers and versions behind it, ready for JSON.
    """

    method: str
    sparsity: float
    masks: Mapping[str, Tensor]
    weights: Mapping[str, Tensor] = field(repr=False)
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> float:
        """The share of the weights that is removed, to a whole number of entries."""
        return 1 - self._kept / self._total

    @property
    def densities(self) -> dict[str, float]:
        """The share that is left of each weight, by its name."""
        return {name: int(mask.sum()) / mask.numel() for name, mask in self.masks.items()}

    @property
    def _kept(self) -> int:
        return sum(int(mask.sum()) for mask in self.masks.values())

    @property
    def _total(self) -> int:
        return sum(mask.numel() for mask in self.masks.values())

    def apply_(self, model: nn.Module, *, weights: bool = True) -> None:
        """Sets the ticket's weights and puts its masks on, so that training keeps them.

        The masks are those of `torch.nn.utils.prune`: a weight becomes its `…_orig` times its mask at each call, and
        `prune.remove(module, "weight")` makes it permanent. An optimizer that was made before holds the same
        parameters as after.

        Args:
            model: It has the architecture that the ticket was chosen for, and no such masks yet.
            weights: False leaves the model's own values, so that the same masks start from another draw.

        Raises:
            SourceError: The model differs from the ticket's, or has masks. After this and any other error the model is
                unchanged.
        """
        inner = unwrap(model)
        values = self.weights if weights else None
        check_fits(inner, self.masks, values)
        wear(inner, self.masks, values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the ticket to one file of safetensors, whole or not at all.

        Args:
            path: The file is made there, or replaced.
        """
        head = files.Head(self.method, self.sparsity, self.notes, dict(self.provenance))
        files.write(Path(path), head, self.masks, self.weights)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Ticket:
        """Returns the ticket that a file holds.

        Args:
            path: The file was written by `save`.

        Raises:
            SourceError: The file is damaged, or holds no ticket.
        """
        head, masks, weights = files.read(Path(path))
        return cls(head.method, head.sparsity, masks, weights, head.notes, head.provenance)

    def __str__(self) -> str:
        """Returns a table: how much of each weight is left."""
        rows = [self._row(name, mask) for name, mask in self.masks.items()]
        notes = "".join(f"\n{wrapped(f'Note: {note}', '  ')}" for note in self.notes)
        return f"{self._head}\n\n{table(_COLUMNS, rows)}{notes}"

    def __repr__(self) -> str:
        return f"<Ticket: {self._head}>"

    @property
    def _head(self) -> str:
        left = f"{self._kept} of {self._total} weights are left"
        return f"{self.method} ticket, sparsity {self.reached:.4g} (asked {self.sparsity:g}): {left}"

    def _row(self, name: str, mask: Tensor) -> tuple[str, ...]:
        kept = int(mask.sum())
        shape = "×".join(map(str, mask.shape))
        return name, shape, count(mask.numel()), count(kept), percent(kept / mask.numel())
