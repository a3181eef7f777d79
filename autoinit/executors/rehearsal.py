"""A training step tried before it is recorded: what it leaves has to be what a replay would leave."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..probing.agreement import changed_attribute, state_of
from ..task.snapshot import RandomStates
from ..task.task import Task
from .capture import Capture, Unrecordable
from .lasting import Lasting


def rehearse(capture: Capture, work: Callable[[], object], task: Task, lasting: Lasting) -> None:
    """Takes three steps as they will be recorded, and sees what they leave; the first makes what is made once.

    Args:
        capture: will record.
        work: a step of all that will be recorded.
        task: whose model is trained.
        lasting: the optimizer that the step moves the weights with.

    Raises:
        Unrecordable: a step leaves something that a replay would not.
    """
    model = task.model
    capture.rehearse(work, strict=False)
    lasting.settle()
    before, homes, random = state_of(model), places(model), RandomStates()
    capture.rehearse(work, strict=True)
    capture.rehearse(work, strict=True)
    for why in (
        _replaced(homes, places(model)),
        _kept(changed_attribute(before, state_of(model))),
        _drawn(random, task.device),
        lasting.why_not_settled(),
    ):
        if why:
            raise Unrecordable(why)


def named(model: nn.Module) -> dict[str, Tensor]:
    """Returns all weights and buffers, by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def places(model: nn.Module) -> dict[str, Tensor]:
    """Returns the memory of each weight and buffer, by name."""
    return {name: tensor.data for name, tensor in named(model).items()}


def stored(model: nn.Module) -> list[Tensor]:
    """Returns every tensor that a model's modules hold, in containers too."""
    leaves = tree_leaves([list(vars(module).values()) for module in model.modules()])
    return [leaf.data for leaf in leaves if isinstance(leaf, Tensor)]


def _replaced(before: dict[str, Tensor], after: dict[str, Tensor]) -> str:
    """Returns which weight or buffer a step has put another tensor in the place of: a replay writes to the old one."""
    for name, tensor in after.items():
        if name not in before or before[name].data_ptr() != tensor.data_ptr():
            return f"the step replaces {name} instead of writing into it; {name}.copy_(…) would let it be recorded"
    return ""


def _kept(attribute: str) -> str:
    """Returns that a module keeps something of its own from step to step: replays would all see the first."""
    if not attribute:
        return ""
    return f"its attribute {attribute} changes from step to step and is no buffer; register_buffer would let it be"


def _drawn(states: RandomStates, device: torch.device) -> str:
    """Returns whether a step draws random numbers that a replay would not draw anew."""
    still = states.python_is_now() if device.type == "cpu" else states.host_is_now()
    return "" if still else "the step draws random numbers on the host, which a replay would not draw anew"
