"""Rescalings of drawn weights that are measured on batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..plans.fill import Adjustment
from .admin import admin
from .fluctuation import fluctuation_driven
from .gradinit import gradinit
from .lsuv import lsuv, lsuv_centred
from .metainit import metainit
from .multi_task import multi_task
from .nio import nio
from .subject import Subject
from .within_layer import within_layer

Calibrate = Callable[[Subject], Mapping[str, Adjustment]]

CALIBRATIONS: dict[str, Calibrate] = {
    "lsuv": lsuv,
    "lsuv_centred": lsuv_centred,
    "within_layer": within_layer,
    "admin": admin,
    "fluctuation_driven": fluctuation_driven,
    "gradinit": gradinit,
    "metainit": metainit,
    "nio": nio,
    "multi_task": multi_task,
}
"""Name → function of a drawn model and its data that returns what to change; it may tread on the model.

What else is known of each is its row in `autoinit.recipes.calibrations`.
"""
