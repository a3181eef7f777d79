"""Draws that are used again: of a search's candidates, and of the two passes of a calibration."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

from torch import Tensor, nn

from ..plans.plan import Plan
from ..task.machine import bytes_of, free_bytes

ON_CPU = 2**28
"""Bytes that a search's draws may take of the host's memory."""

SHARE = 0.1
"""Of the parameters' own bytes: what they may take on a device, where memory is dear and draws are fast."""

CALIBRATED = 2**22
"""Bytes of all draws together that are kept from before a calibration until after it, where the model is on a CPU."""

CALIBRATED_SHARE, SPARE = 0.75, 0.25
"""Of the parameters' own bytes, and of what is free: what these draws may take on a device."""


class Memory:
    """Costly draws of unit std by seed, parameter, distribution and kind of device: a search makes each of them once.

    They stay where they were drawn, as long as there is room; what comes later is drawn again each time, as it would be
    if room were made for it, since every candidate asks for the same draws in the same order.

    Args:
        room: bytes that may be kept.
    """

    def __init__(self, room: int = ON_CPU) -> None:
        self._room = room
        self._values: dict[tuple[int, str, str, str], Tensor] = {}
        self._given: dict[str, Plan] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def recall(self, seed: int, name: str, distribution: str, tensor: Tensor) -> bool:
        """Fills a tensor with what was drawn for it, and returns whether there is such a draw."""
        known = self._values.get((seed, name, distribution, tensor.device.type))
        if known is None or known.dtype != tensor.dtype:
            return False
        tensor.copy_(known)
        return True

    def keep(self, seed: int, name: str, distribution: str, tensor: Tensor) -> None:
        """Keeps a copy of a draw, if there is room."""
        size = tensor.numel() * tensor.element_size()
        with self._lock:
            if size > self._room:
                return
            self._room -= size
        self._values[seed, name, distribution, tensor.device.type] = tensor.clone()

    def worked_out(self, plan: Plan, work: Callable[[], Plan]) -> Plan:
        """Returns a plan with the values that no formula gives: those of an earlier plan of the same start, or new.

        Args:
            plan: that has values to work out.
            work: works them out.
        """
        key = f"{plan.recipe.adapter} {plan.recipe.rows}"
        known = self._given.get(key)
        if known is None:
            self._given[key] = work()
            return self._given[key]
        origins = {fill.name: fill.origin for fill in known.fills if fill.origin}
        fills = (dataclasses.replace(one, origin=origins.get(one.name, "")) for one in plan.fills)
        return dataclasses.replace(plan, fills=tuple(fills), given=known.given)


class Drawn:
    """The draws of a plan before any factor: of the plan that a calibration makes of it they are the same.

    Args:
        room: bytes that may be kept.
    """

    def __init__(self, room: int = CALIBRATED) -> None:
        self._values: dict[str, Tensor] = {}
        self._room = room
        self._lock = threading.Lock()

    def fill(self, tensor: Tensor, name: str) -> bool:
        """Fills a tensor with the draw of a parameter, and returns whether it is there."""
        known = self._values.get(name)
        if known is not None:
            tensor.copy_(known)
        return known is not None

    def remember(self, tensor: Tensor, name: str) -> None:
        """Keeps a copy of a draw, as long as there is room."""
        size = tensor.numel() * tensor.element_size()
        with self._lock:
            if size > self._room:
                return
            self._room -= size
        self._values[name] = tensor.clone()


def room_for(model: nn.Module) -> int:
    """Returns the bytes that the remembered draws of a model may take where it lies."""
    if lies_on_cpu(model):
        return ON_CPU
    return int(SHARE * bytes_of(model.parameters()))


def room_beside(model: nn.Module) -> int:
    """Returns the bytes that draws may take until a calibration is over.

    On a device most of them are kept, as far as there is room: what a calibration adds to the time of a candidate shall
    not be a decomposition of each matrix. Gradients are not there yet, and the rest of what they take is left to what
    a draw needs beside itself: so a search holds no more than plain training does.
    """
    if lies_on_cpu(model):
        return CALIBRATED
    bound = int(CALIBRATED_SHARE * bytes_of(model.parameters()))
    free = [free_bytes(device) for device in {parameter.device for parameter in model.parameters()}]
    return min([bound, *(int(SPARE * spare) for spare in free if spare is not None)])


def lies_on_cpu(model: nn.Module) -> bool:
    """Whether remembering takes the memory of the host, and none of a device that training needs."""
    return all(parameter.device.type == "cpu" for parameter in model.parameters())
