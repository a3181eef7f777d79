"""Sections one after the other, each in a process of its own: what breaks or hangs in one leaves the others alone."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..common.jobs import Row, append_row, read_rows
from .session import Options, Session

WHOLE = 480.0
"""Seconds of everything, the start of processes included."""
LATE = 1.25
"""Times its seconds after which a section that has not ended is killed."""
SMOKE_PATIENCE = 300.0
"""Seconds that a section has where only whether it runs is asked."""
FAILED = 3
"""Exit code of a section that raised."""
METHODS = ("forkserver", "spawn")
"""Ways of starting a section's process: forked from one that has everything loaded and has not touched the device; or
anew, some seconds slower, where the first process of the first way cannot use the device."""
START = 120.0
"""Seconds that the first process may take, which loads what all of them need."""
LOADED = (
    "benchmarks.gpu.session",
    "benchmarks.gpu.models",
    "autoinit.selector",
    "autoinit.recommendation",
    "autoinit.study.runner",
    "sklearn.datasets",
)
"""Modules that are imported once, before the processes of the sections are forked; none of them touches a device."""
LOADED_FOR_CPU = ("transformers.models.gpt2.modeling_gpt2",)
"""Likewise where no GPU is measured: transformers asks for accelerators when it is imported, and a process that is
forked after that cannot use one."""


@dataclass(frozen=True)
class Section:
    """A part of the benchmark.

    Attributes:
        where: module:function that measures it.
        seconds: that it may take in a whole run.
        about: what it measures.
    """

    where: str
    seconds: float
    about: str


SECTIONS = {
    "equality": Section("benchmarks.gpu.equality:run", 25, "the same graphs and bits on the device as on the CPU"),
    "draws": Section("benchmarks.gpu.draws:run", 20, "67 million values drawn by apply_, beside torch on the device"),
    "steps": Section("benchmarks.gpu.steps:run", 70, "steps a second of small models: eager, captured, stacked, both"),
    "select": Section("benchmarks.gpu.selects:run", 90, "a whole select on each: time, share outside training"),
    "gpt2": Section(
        "benchmarks.gpu.large:gpt2", 130, "86 million weights in bf16: steps, trials, verdict, peak memory"
    ),
    "resnet50": Section("benchmarks.gpu.large:resnet50", 50, "a CNN of ResNet-50's size, likewise"),
    "study": Section("benchmarks.gpu.study:run", 55, "several workers of a study on one card, beside one"),
}

MACHINE = Section("benchmarks.gpu.session:describe_machine", 10, "what the figures are of")
"""Comes first in every run; the time of loading what all sections need is its."""


def run_sections(names: Sequence[str], options: Options, tell: Callable[[Row], None]) -> list[Row]:
    """Returns all rows of a run of some sections.

    Args:
        names: keys of `SECTIONS`.
        options: of the run.
        tell: called with the closing row of each section.
    """
    deadline = time.monotonic() + WHOLE * options.scale
    # Asked without the runtime, how many devices there are spoils none of the processes that are forked afterwards.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    for method in METHODS:
        start = time.monotonic()
        status = _apart(MACHINE.where, "machine", options, MACHINE.seconds, START, method)
        if not status:
            break
    tell(_closed("machine", options, status, start))
    for name in names:
        start = time.monotonic()
        seconds = min(SECTIONS[name].seconds * options.scale, deadline - start)
        patience = SMOKE_PATIENCE if options.smoke else min(LATE * seconds, deadline - start)
        status = "had no time left"
        if patience > 0:
            status = _apart(SECTIONS[name].where, name, options, seconds, patience, method)
        tell(_closed(name, options, status, start))
    return rows_of(options)


def _closed(name: str, options: Options, status: str, start: float) -> Row:
    """Returns and writes what became of a section."""
    row: Row = {"run": options.run, "kind": "section", "section": name, "status": status or "done"}
    row |= {"broken": bool(status), "seconds": time.monotonic() - start}
    append_row(options.path, row)
    return row


def rows_of(options: Options) -> list[Row]:
    """Returns the rows of a run that are in the file."""
    return [row for row in read_rows(options.path) if row.get("run") == options.run]


def _apart(where: str, name: str, options: Options, seconds: float, patience: float, method: str) -> str:
    """Does the work of a section in a new process; returns what became of it, empty where it came to its end."""
    context: Any = multiprocessing.get_context(method)
    context.set_forkserver_preload([*LOADED, *(LOADED_FOR_CPU if options.device == "cpu" else ())])
    process = context.Process(target=work, args=(where, name, options, seconds))
    process.start()
    try:
        process.join(patience)
    finally:  # Ctrl-C included
        ended = process.exitcode
        _end(process)
    if ended is None:
        return f"was ended after {patience:.0f} s"
    return {0: "", FAILED: "failed"}.get(ended, f"died (exit code {ended})")


def _end(process: Any) -> None:
    for stop in (process.terminate, process.kill):
        if process.is_alive():
            stop()
            process.join(5)


def work(where: str, name: str, options: Options, seconds: float) -> None:
    """Does the work of one section, in the process that is for it.

    Args:
        where: module:function.
        name: of the section.
        options: of the run.
        seconds: that it may take.
    """
    session = Session(name, options, seconds)
    module, function = where.split(":")
    try:
        getattr(importlib.import_module(module), function)(session)
    except Exception as problem:
        session.fail("all of it", problem)
        sys.exit(FAILED)
