"""Values that no formula gives, held in memory beside the plan that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from .weight_files import write_file


@dataclass(frozen=True)
class HeldValues:
    """Tensors by the names of parameters and buffers, on the CPU."""

    tensors: Mapping[str, Tensor] = field(repr=False)

    @staticmethod
    def of(values: Mapping[str, Tensor]) -> HeldValues:
        """Returns copies of values that lie anywhere."""
        return HeldValues({name: value.detach().to("cpu", copy=True) for name, value in values.items()})

    def tensor(self, name: str) -> Tensor:
        """Returns the tensor of a parameter."""
        return self.tensors[name]

    def write(self, path: Path) -> None:
        """Writes all of them as safetensors, whole or not at all: a crash leaves an older file as it was."""
        write_file(path, self.tensors)
