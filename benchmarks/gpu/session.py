"""One section at its work: its device, its time, and the file that its rows go to as soon as they are there."""

from __future__ import annotations

import contextlib
import platform
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from autoinit.errors import described
from autoinit.task.machine import free_cache

from ..common.jobs import Row, append_row, provenance
from ..speed.concurrency import machine, waited
from .figures import Value, Wanted, figure


@dataclass(frozen=True)
class Options:
    """What a run was asked for, the same for all of its sections.

    Attributes:
        path: of the file of JSON lines.
        run: names this run in the file.
        smoke: whether to take small models and few steps, whatever the time.
        device: to measure; empty for the GPU, or the CPU where there is none.
        commit: of the library, where no git tells.
        scale: of the sections' seconds, 1 for eight minutes.
    """

    path: Path
    run: str
    smoke: bool = False
    device: str = ""
    commit: str = ""
    scale: float = 1.0


@dataclass
class Session:
    """A section that measures.

    Attributes:
        section: its name.
        options: of the run.
        seconds: that it may take.
        device: that it measures.
    """

    section: str
    options: Options
    seconds: float
    device: torch.device = field(init=False)
    _until: float = field(init=False)

    def __post_init__(self) -> None:
        self.device = torch.device(self.options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._until = time.monotonic() + self.seconds

    @property
    def smoke(self) -> bool:
        """Whether everything is small."""
        return self.options.smoke

    def left(self) -> float:
        """Returns the seconds that are left of the section's."""
        return self._until - time.monotonic()

    def write(self, row: Row) -> None:
        """Adds a row to the file."""
        append_row(self.options.path, {"run": self.options.run, **row})

    def figure(
        self, case: str, name: str, value: Value, *, unit: str = "", wanted: Wanted | None = None, note: str = ""
    ) -> None:
        """Writes one measurement (see `figures.figure`)."""
        self.write(figure(self.section, case, name, value, unit=unit, wanted=wanted, note=note))

    def cases(self, names: Sequence[str], least: float) -> Iterator[tuple[str, float]]:
        """Yields cases, each with its part of the time that is left; those without time are left out, and said to be.

        Args:
            names: of the cases.
            least: seconds that one of them needs.
        """
        for place, name in enumerate(names):
            if self.left() < least and not self.smoke:
                self.write({"kind": "left out", "section": self.section, "case": name})
                continue
            yield name, self.left() / (len(names) - place)

    @contextlib.contextmanager
    def contained(self, case: str) -> Iterator[None]:
        """Has a case that fails say why, so that the others go on."""
        try:
            yield
        except Exception as problem:
            self.fail(case, problem)
        finally:
            free_cache(self.device)

    def fail(self, case: str, problem: Exception) -> None:
        """Writes why a case could not be measured, and prints where."""
        traceback.print_exception(problem)
        self.write({"kind": "problem", "section": self.section, "case": case, "problem": described(problem)[:500]})

    def waited(self) -> float:
        """Returns the time once the device has done all that it was given."""
        return waited(self.device)


def describe_machine(session: Session) -> None:
    """Writes what the run measures, and with what.

    Raises:
        Exception: the device cannot be used.
    """
    torch.ones(2, device=session.device).sum().item()
    made: dict[str, Any] = provenance()
    made["commit"] = session.options.commit or made["commit"]  # a copied folder may tell an older one
    made |= {"python": platform.python_version(), "cuda": torch.version.cuda, "smoke": session.smoke}
    session.write({"kind": "machine", "section": session.section, "device_name": machine(session.device), **made})
