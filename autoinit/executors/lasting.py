"""An optimizer whose state and learning rates stay at their places in memory, for one training after the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from ..task.optimizers import RATES
from .capture import Unrecordable

_FUSED = (SGD, Adagrad, Adam, AdamW)
"""Those that take a step in one kernel, which reads the learning rate on the device; the first two can in no other."""

_FORMS = ("foreach", "fused", "capturable", "differentiable")
"""Options that say how a step is computed, and not which."""


def why_not_lasting(optimizer: Optimizer) -> str:
    """Returns why an optimizer's step cannot be recorded, known by its class; an empty text where it may be."""
    name, groups = type(optimizer).__name__, optimizer.param_groups
    if any("lr" not in group for group in groups):
        return f"{name} has no learning rate to set between steps"
    if type(optimizer) in _FUSED or all("capturable" in group for group in groups):
        return ""
    return f"{name} has no capturable form; SGD, Adam, AdamW, RMSprop and others of torch have"


def use_recordable_form(optimizer: Optimizer, device: torch.device) -> None:
    """Lets an optimizer without state compute its steps on the device alone.

    On a CPU it stays as it is: there is nothing to wait for, and torch refuses to.
    """
    if device.type == "cpu":
        return
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    fused = type(optimizer) in _FUSED and all(weight.is_floating_point() for weight in weights)
    for group in optimizer.param_groups:
        if "fused" in group:
            group["fused"] = fused
        if "foreach" in group:
            group["foreach"] = not fused
        if "capturable" in group:
            group["capturable"] = True
    # Else torch would warn of each training's first step, which is meant to be taken without a recording.
    optimizer._warned_capturable_if_run_uncaptured = True
    for state in optimizer.state.values():  # Adagrad's, which is made with it: a count on the host
        state.update({key: value.to(device) for key, value in state.items() if isinstance(value, Tensor)})


class Lasting:
    """The optimizer of a recorded step. A training's own one takes the first step, and this one goes on from there.

    So whatever state a fresh optimizer begins with, and whatever its first step does otherwise than later ones, is as
    its class has it.

    Attributes:
        optimizer: moves the weights.
        as_recorded: whether all its options are those that it was made with; a recorded step holds them fixed.

    Args:
        made: a fresh optimizer of the task's.
        device: of the weights.
    """

    def __init__(self, made: Optimizer, device: torch.device) -> None:
        use_recordable_form(made, device)
        self.optimizer = made
        self.as_recorded = True
        self._options = _options(made)
        kind = torch.float64 if device.type == "cpu" else torch.float32  # kernels on a device read no other
        self._rates = [torch.zeros((), dtype=kind, device=device) for _ in made.param_groups]
        for group, rate in zip(made.param_groups, self._rates, strict=True):
            group["lr"] = rate.fill_(group["lr"])
        self._homes: dict[Tensor, dict[str, Tensor]] = {}

    def settle(self) -> None:
        """Takes the places of the state as they are after a step for those where it stays.

        Raises:
            Unrecordable: a part of the state is none on the weights' device.
        """
        for weight, state in self.optimizer.state.items():
            self._homes[weight] = {}
            for key, value in state.items():
                if value is None:
                    continue
                if not isinstance(value, Tensor) or value.device != weight.device:
                    raise Unrecordable(f"{type(self.optimizer).__name__} keeps its {key!r} on the host")
                self._homes[weight][key] = value

    def why_not_settled(self) -> str:
        """Returns which part of the state a step has put elsewhere since it was settled: a replay writes to the old."""
        for weight, homes in self._homes.items():
            state = _tensors(self.optimizer.state[weight])
            if moved := [key for key, home in homes.items() if key not in state or state[key] is not home]:
                return f"{type(self.optimizer).__name__} makes its {moved[0]!r} anew at each step"
        return ""

    def take_over(self, own: Optimizer) -> bool:
        """Copies the state that another optimizer has after a step, and empties that one.

        Returns:
            Whether it did: the state has to be of the recorded form, with the same weights and entries.
        """
        states = {weight: _tensors(state) for weight, state in own.state.items()}
        if {weight: state.keys() for weight, state in states.items()} != {
            weight: homes.keys() for weight, homes in self._homes.items()
        }:
            return False
        pairs = [(home, states[weight][key]) for weight, homes in self._homes.items() for key, home in homes.items()]
        if pairs:
            torch._foreach_copy_([home for home, _ in pairs], [value for _, value in pairs])
        for weight in [weight for weight in self.optimizer.state if weight not in self._homes]:
            del self.optimizer.state[weight]
        for weight, homes in self._homes.items():
            self.optimizer.state[weight].update(homes)
        own.state.clear()
        self.follow(own)
        return True

    def give_back(self, own: Optimizer) -> None:
        """Copies the state to the optimizer that it was taken over from, for a training that goes on later."""
        for weight, homes in self._homes.items():
            own.state[weight] = {key: home.clone() for key, home in homes.items()}

    def follow(self, own: Optimizer) -> None:
        """Takes over the learning rates and options that a scheduler has set in another optimizer."""
        for rate, group in zip(self._rates, own.param_groups, strict=True):
            rate.fill_(group["lr"])
        options = _options(own)
        self.as_recorded = options == self._options
        for group, given in zip(self.optimizer.param_groups, options, strict=True):
            group.update(given)


def _options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Returns what each group says of a step beside its learning rate."""
    left_out = {"params", *RATES, *_FORMS}
    return [{key: value for key, value in group.items() if key not in left_out} for group in optimizer.param_groups]


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}
