"""The file beside a saved plan, with the values that no formula gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import PlanFileError


@dataclass(frozen=True, slots=True)
class SavedValues:
    """Values in a safetensors file, each read when it is asked for.

    Attributes:
        path: of the file.
        plan: the file of the plan that it is for, for messages.
    """

    path: Path
    plan: str

    def tensor(self, name: str) -> Any:
        """Returns the tensor of a parameter, on the CPU.

        Raises:
            PlanFileError: the file is missing or damaged, or lacks the parameter.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                return file.get_tensor(name)
        except FileNotFoundError:
            raise PlanFileError(
                f"Plan file {self.plan!r} needs {self.path.name!r} beside it, which holds the values that no formula "
                "gives. Copy both files together."
            ) from None
        except (SafetensorError, OSError) as problem:
            raise PlanFileError(
                f"{str(self.path)!r} cannot be used for plan file {self.plan!r}: {str(problem).rstrip('.')}. "
                "Copy it anew from where the plan was saved."
            ) from None

    def write(self, path: Path) -> None:
        """Writes the same file elsewhere."""
        if path.resolve() != self.path.resolve():
            path.write_bytes(self.path.read_bytes())
