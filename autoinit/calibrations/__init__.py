"""Rescalings of drawn weights that are measured on batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..plan import Adjustment
from .gradinit import gradinit
from .lsuv import lsuv
from .metainit import metainit
from .nio import nio
from .subject import Subject, forward_pass

Calibration = Callable[[Subject], Mapping[str, Adjustment]]


def _lsuv(subject: Subject) -> dict[str, Adjustment]:
    factors = lsuv(subject.model, subject.graph, subject.forward, subject.targets)
    return {name: Adjustment(factor) for name, factor in factors.items()}


CALIBRATIONS: dict[str, Calibration] = {
    "lsuv": _lsuv,
    "gradinit": gradinit,
    "metainit": metainit,
    "nio": nio,
}
"""Name → function of a drawn model and its data that returns what to change; it may tread on the model."""

__all__ = ["CALIBRATIONS", "Calibration", "Subject", "forward_pass"]
