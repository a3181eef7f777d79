"""How many candidates a device has room for, told from one of them before any more are tried."""

from __future__ import annotations

import math

import torch

from ..probing.bench import Bench
from ..probing.probe import probe
from ..task.machine import bytes_of, free_bytes, peak_memory
from ..text import number

SHARE = 0.8
"""Of the free memory: what candidates together may need; blocks of a caching allocator never fit exactly."""

STEPS = 2
"""Optimizers make their state at the first step; the second has it beside gradients and activations."""

GIB = 2**30


def candidates_that_fit(bench: Bench) -> tuple[float, str]:
    """Returns how many candidates train at a time in the free memory, and in words what one needs.

    One candidate's step is taken and measured: its weights, gradients, optimizer's state and activations. On devices
    that do not count their memory nothing is known: any number fits.

    Args:
        bench: of the model as its owner drew it; put back.
    """
    device = bench.task.device
    free = free_bytes(device)
    if free is None:
        return math.inf, ""
    held = torch.cuda.memory_allocated(device)
    with peak_memory(device) as peak:
        probe(bench.task, steps=STEPS, seed=0)
        bench.snapshot.rewind()
    needed = max(1, (peak.bytes or 0) - held + bytes_of(bench.task.model.parameters()))
    return int(SHARE * free / needed), f"one needs {_gib(needed)}, and {_gib(free)} are free"


def _gib(size: int) -> str:
    return f"{number(size / GIB, 2)} GiB"
