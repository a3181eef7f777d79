"""Values that no formula gives, held in memory beside the plan that they belong to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True)
class HeldValues:
    """Tensors by the names of parameters and buffers, on the CPU."""

    tensors: Mapping[str, Tensor] = field(repr=False)

    def tensor(self, name: str) -> Tensor:
        """Returns the tensor of a parameter."""
        return self.tensors[name]

    def write(self, path: Path) -> None:
        """Writes all of them as safetensors, whole or not at all: a crash leaves an older file as it was."""
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, temporary)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # as any other file; temporary ones are readable by their owner only
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
