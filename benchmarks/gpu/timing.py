"""Where the time of a `select` goes on a device: what is given to it counts for who gave it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F

from ..common.clock import Clock
from ..speed.select_time import CALIBRATE, REST, TRAINING, places, split_calibrations
from .models import Subject

REPLAYED = "captured step"
TRAINED = (*TRAINING, REPLAYED)
"""Regions that are training."""
NAMED = 3
"""Of the other regions, the largest that are told."""


@dataclass(frozen=True)
class Split:
    """Where some work's time went.

    Attributes:
        wall: seconds of all of it.
        outside: share that was no forward pass, backward pass or optimizer step.
        most: the largest regions of that, in words.
    """

    wall: float
    outside: float
    most: str


def timer_of(device: torch.device) -> Callable[[], float]:
    """Returns a clock that waits for what the device was given, so that it counts where it was asked for."""
    if device.type != "cuda":
        return time.perf_counter

    def waited() -> float:
        # A step that is recorded may not be waited for, nor one that is tried for whether it waits.
        if not (torch.cuda.is_current_stream_capturing() or torch.cuda.get_sync_debug_mode()):
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return waited


def split_time(subject: Subject, device: torch.device, work: Callable[[], object]) -> Split:
    """Returns where the time of some work on a subject went.

    Args:
        subject: whose model and kind of optimizer are watched, in all their instances.
        device: that computes.
        work: is done once.
    """
    clock = Clock(REST, timer_of(device))
    with clock.watching(places()), _training_watched(clock, subject):
        clock.start()
        work()
        wall = clock.stop()
    seconds = {"forward": 0.0, **split_calibrations({"forward": 0.0, **clock.seconds}, {"forward": 1, **clock.calls})}
    others = sorted((name for name in seconds if name not in TRAINED), key=lambda name: -seconds[name])
    most = ", ".join(f"{name} {seconds[name] / wall:.1%}" for name in others[:NAMED])
    return Split(wall, 1 - sum(seconds.get(name, 0.0) for name in TRAINED) / wall, most)


@contextlib.contextmanager
def _training_watched(clock: Clock, subject: Subject) -> Iterator[None]:
    """Counts forward passes, optimizer steps and replayed graphs, of all instances, whoever makes them."""
    optimizer = subject.spec.optimizer([torch.nn.Parameter(torch.zeros(1))])
    kind = next(base for base in type(optimizer).__mro__ if "step" in vars(base))
    watched: list[tuple[str, Any, str]] = [
        ("forward", type(subject.model), "forward"),
        ("forward", F, "cross_entropy"),
        ("forward", F, "mse_loss"),
        ("optimizer step", kind, "step"),
        (REPLAYED, torch.cuda.CUDAGraph, "replay"),
    ]
    with contextlib.ExitStack() as stack:
        for region, owner, name in watched:
            within = CALIBRATE if region == "forward" else ""
            timed = clock.wrap(region, vars(owner)[name], within=within)
            stack.enter_context(mock.patch.object(owner, name, timed))
        yield
