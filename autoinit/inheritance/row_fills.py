"""What new rows of one table get: statistics of the old rows, taken in float32 whatever the table's dtype."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import SourceError
from ..seeds import seed_of_parameter
from ..text import few
from .tables import Table

RowMethod = Literal["mean", "mean_cov", "nearest", "zero", "small"]

SMALL = 0.1
"""Root mean square of small rows, in that of the old ones."""

SPREAD = 0.1
"""Standard deviations of "mean_cov" in those of the old rows: new rows are told apart, and the old tokens of a small
GPT-2 lose as little as by the mean alone, where a whole one costs them as much as a fresh draw (their loss 2.425, 2.424
and 2.510)."""

CHUNK = 2**14
"""Old rows that are read at a time in float32: of a table in half precision no whole copy is made."""


@dataclass(frozen=True)
class NewRows:
    """The new rows of one table, and what they get.

    Attributes:
        table: that has them.
        new: their numbers, in order.
        sources: new row → the old rows that it is the mean of.
        method: what the rows without sources get.
        spread: factor of the standard deviations of "mean_cov".
        seed: of the draws.
    """

    table: Table
    new: Sequence[int]
    sources: Mapping[int, Sequence[int]]
    method: RowMethod
    spread: float
    seed: int

    def values(self) -> dict[str, Tensor]:
        """Returns name → the whole table and each whole bias, with the new rows."""
        found = {self.table.name: self._with_new(self.table.weight, self._rows())}
        for name, bias in self.table.biases.items():
            found[name] = self._with_new(bias, self._entries(bias))
        if self.table.padding in self.new:
            found[self.table.name][self.table.padding] = 0.0
        return found

    def told(self) -> str:
        """Returns what the rows get, as a plan prints it."""
        what = "1 new row" if len(self.new) == 1 else f"{len(self.new)} new rows"
        return f"{what} ({_listed(self.new)}) of {self.table.rows}: {self._what()}"

    def notes(self) -> list[str]:
        """Returns what is to be known beside."""
        found = []
        if self.table.padding in self.new:
            found.append(f"Row {self.table.padding} of {self.table.name} stands for padding and is zero.")
        alone = [str(row) for row in self.new if row not in self.sources]
        if self.method == "nearest" and alone:
            found.append(f"pairs name no old row for {few(alone, 6)} of {self.table.name}: these get the mean.")
        return found

    def _what(self) -> str:
        old = f"{len(self._old)} old rows"
        return {
            "mean": f"the mean of {old}",
            "mean_cov": f"drawn with mean and covariance of {old}",
            "nearest": "each the old row that pairs name, or the mean of several",
            "zero": "zero",
            "small": f"normal with {SMALL:g} times the root mean square of {old}",
        }[self.method]

    def _with_new(self, tensor: Tensor, rows: Tensor) -> Tensor:
        value = tensor.clone()
        value[torch.tensor(self.new, device=tensor.device)] = rows.to(tensor.device, tensor.dtype)
        return value

    @property
    def _old(self) -> Tensor:
        """The rows that statistics are taken of: the padding's is no word's."""
        mask = torch.ones(self.table.rows, dtype=torch.bool)
        mask[list(self.new)] = False
        if self.table.padding is not None and int(mask.sum()) > 1:
            mask[self.table.padding] = False
        return mask.nonzero().flatten()

    def _rows(self) -> Tensor:
        """Returns the new rows, [rows, columns], in float32."""
        weight, shape = self.table.weight, (len(self.new), *self.table.weight.shape[1:])
        if self.method == "zero":
            return torch.zeros(shape)
        generator = torch.Generator().manual_seed(seed_of_parameter(self.seed, self.table.name))
        if self.method == "small":
            size = SMALL * self._finite(_root_mean_square(weight, self._old))
            return size.cpu() * torch.randn(shape, generator=generator)
        mean = self._finite(_mean(weight, self._old))
        if self.method == "mean_cov":
            return mean + self.spread * _deviations(weight, self._old, mean, len(self.new), generator)
        return self._finite(self._by_sources(weight, mean))

    def _entries(self, bias: Tensor) -> Tensor:
        """Returns the new entries of a bias, in float32."""
        if self.method in ("zero", "small"):
            return torch.zeros(len(self.new))
        return self._finite(self._by_sources(bias, _mean(bias, self._old)))

    def _by_sources(self, tensor: Tensor, mean: Tensor) -> Tensor:
        """Returns for each new row the mean of its sources; for one without any, of all old rows."""
        found = [tensor[list(self.sources[row])].float().mean(0) if row in self.sources else mean for row in self.new]
        return torch.stack(found)

    def _finite(self, value: Tensor) -> Tensor:
        if not bool(value.isfinite().all()):
            raise SourceError(f"Old rows of {self.table.name} are not finite, so no new ones can be made of them.")
        return value


def _listed(rows: Sequence[int]) -> str:
    if len(rows) > 2 and rows[-1] - rows[0] == len(rows) - 1:
        return f"{rows[0]} to {rows[-1]}"
    return " and ".join(map(str, rows)) if len(rows) == 2 else few(list(map(str, rows)))


def _pieces(tensor: Tensor, rows: Tensor) -> Iterator[Tensor]:
    for piece in torch.split(rows, CHUNK):
        yield tensor[piece.to(tensor.device)].float()


def _mean(tensor: Tensor, rows: Tensor) -> Tensor:
    total = sum((piece.sum(0, dtype=torch.float64).cpu() for piece in _pieces(tensor, rows)), torch.zeros(()).double())
    return (total / len(rows)).float().to(tensor.device)


def _root_mean_square(tensor: Tensor, rows: Tensor) -> Tensor:
    squares = sum(float(piece.square().sum(dtype=torch.float64)) for piece in _pieces(tensor, rows))
    return torch.tensor(math.sqrt(squares / (len(rows) * tensor[0].numel())))


def _deviations(tensor: Tensor, rows: Tensor, mean: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Returns draws with the covariance of some rows, [count, columns].

    With C the centred rows, z C / √n for a standard normal z in Rⁿ has the covariance Cᵀ C / n, which is not formed.
    For more draws than columns it is cheaper to form it, once, and to draw along its eigenvectors.
    """
    if count <= len(mean):
        total = torch.zeros(count, len(mean), device=tensor.device)
        for piece in _pieces(tensor, rows):
            total += torch.randn(count, len(piece), generator=generator).to(tensor.device) @ (piece - mean)
        return total / math.sqrt(len(rows))
    covariance = torch.zeros(len(mean), len(mean), device=tensor.device)
    for piece in _pieces(tensor, rows):
        covariance += (piece - mean).T @ (piece - mean)
    sizes, axes = torch.linalg.eigh(covariance / len(rows))
    draws = torch.randn(count, len(mean), generator=generator).to(tensor.device)
    along: Tensor = axes * sizes.clamp_min(0.0).sqrt()
    return draws @ along.T
