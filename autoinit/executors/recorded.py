"""One training step, recorded once and replayed for each candidate: its weights are put where the last one's were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..probing.agreement import changed_attribute, state_of
from ..task.batches import Batch, map_tensors, tensors
from ..task.optimizers import step_scheduler
from ..task.snapshot import RandomStates
from ..task.task import Task
from .capture import Capture, Unrecordable
from .lasting import Lasting, use_recordable_form

MOST_SHAPES = 0.5
"""Share of the batches that has to be of the recorded shape: the others are computed operation by operation."""


class Recording:
    """A model's training step in two parts, which read and write the same places in memory at each replay.

    The first part computes gradients, the second moves the weights. A batch of another shape than the recorded one is
    computed operation by operation, in the same places, and so is a step with options that a scheduler has changed.

    Attributes:
        fitting: the batches that it can replay, of those to train on.
        replays: how often each part was replayed.

    Args:
        task: whose model trains, in training mode; weights and random states change.
        capture: records on the task's device.

    Raises:
        Unrecordable: it says why a replay would not do what the step does. Whatever else the step raises, it raises.
    """

    def __init__(self, task: Task, capture: Capture) -> None:
        self.replays = Counter[str]()
        self._task = task
        self._trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
        self.fitting = _commonest(task)
        self._parts = {id(batch): tensors(batch) for batch in self.fitting}
        self._batch = map_tensors(lambda value: value.detach().to(task.device, copy=True), self.fitting[0])
        self._inputs = tensors(self._batch)
        self.lasting = Lasting(task.build_optimizer()[0], task.device)
        task.model.train()
        self._rehearse(capture)
        self._homes = _places(task.model)
        self._held = _stored(task.model)  # what the graphs read has to live as long as they do
        (self._loss, self._grads), self._replay_pass = capture.record(self._pass)
        _, self._replay_step = capture.record(self.lasting.optimizer.step)
        self._moved = next((place for place, grad in enumerate(self._grads) if grad is not None), 0)

    def stepper(self, task: Task, lr_factor: float) -> Replayed:
        """Returns what takes the steps of the next training; the one before ends.

        Args:
            task: the recorded one, whose weights are set.
            lr_factor: on every group's learning rate.
        """
        self._bring_home()
        return Replayed(self, *task.build_optimizer(lr_factor), task.device)

    def backward(self, batch: Batch) -> tuple[Tensor, bool]:
        """Sets the gradients of a batch's loss; returns the loss, and whether it was a replay."""
        parts = self._parts.get(id(batch))
        if parts is None:
            for parameter in self._trained:
                parameter.grad = None
            return self._task.backward(batch), False
        self.replays["pass"] += 1
        if parts:
            with torch.no_grad():
                torch._foreach_copy_(self._inputs, parts)
        self._replay_pass()
        loss = self._loss.clone()  # the next replay writes over it before anybody has read it
        if self._trained[self._moved].grad is not self._grads[self._moved]:
            for parameter, grad in zip(self._trained, self._grads, strict=True):
                parameter.grad = grad
        return loss, True

    def step(self) -> None:
        """Moves the weights by the gradients of the last replay."""
        self.replays["step"] += 1
        self._replay_step()

    def _pass(self) -> tuple[Tensor, list[Tensor | None]]:
        for parameter in self._trained:
            parameter.grad = None  # so that they come to lie where each replay writes them anew
        return self._task.backward(self._batch), [parameter.grad for parameter in self._trained]

    def _rehearse(self, capture: Capture) -> None:
        """Takes three steps as they will be recorded, and sees what they leave; the first makes what is made once.

        Raises:
            Unrecordable: a step leaves something that a replay would not.
        """

        def work() -> None:
            self._pass()
            self.lasting.optimizer.step()

        model = self._task.model
        capture.rehearse(work, strict=False)
        self.lasting.settle()
        before, places, random = state_of(model), _places(model), RandomStates()
        capture.rehearse(work, strict=True)
        capture.rehearse(work, strict=True)
        for why in (
            _replaced(places, _places(model)),
            _kept(changed_attribute(before, state_of(model))),
            _drawn(random, self._task.device),
            self.lasting.why_not_settled(),
        ):
            if why:
                raise Unrecordable(why)

    def _bring_home(self) -> None:
        """Puts weights and buffers where the graphs have them, if a draw has put them elsewhere."""
        with torch.no_grad():
            for name, tensor in _named(self._task.model).items():
                home = self._homes.get(name)
                if home is not None and tensor.data_ptr() != home.data_ptr():
                    home.copy_(tensor)
                    tensor.data = home


class Replayed:
    """Takes the steps of one training by replaying a recording.

    The first step is the optimizer's own, as is every one until its state is of the recorded form.

    Attributes:
        optimizer: fresh; a scheduler goes on setting its learning rates, which the recording's follows.
        scaled: never; a loss scale is adjusted on the host.
    """

    scaled = False

    def __init__(self, recording: Recording, optimizer: Any, scheduler: Any, device: torch.device) -> None:
        use_recordable_form(optimizer, device)
        self.optimizer = optimizer
        self._scheduler = scheduler
        self._recording = recording
        self._lasting = recording.lasting
        self._replayed = False
        self._follows = False

    def backward(self, batch: Batch) -> Tensor:
        """Sets the gradients of a batch's loss and returns the loss."""
        loss, self._replayed = self._recording.backward(batch)
        return loss

    def step(self, loss: Tensor) -> None:
        """Moves the weights, and steps the scheduler."""
        if not self._follows:
            self.optimizer.step()
            self._follows = self._lasting.take_over(self.optimizer)
        elif self._replayed and self._lasting.as_recorded:
            self._recording.step()
        else:
            self._lasting.optimizer.step()
        if self._scheduler is not None:
            step_scheduler(self._scheduler, loss)
            if self._follows:
                self._lasting.follow(self.optimizer)


def _commonest(task: Task) -> tuple[Batch, ...]:
    """Returns the batches of the shape that most of them have."""
    frames = [frame(batch) for batch in task.train]
    shape, count = Counter(frames).most_common(1)[0]
    if count < MOST_SHAPES * len(frames):
        raise Unrecordable(f"its batches are of {len(set(frames))} shapes, and a graph holds one")
    return tuple(batch for batch, its in zip(task.train, frames, strict=True) if its == shape)


def frame(batch: Batch) -> Hashable:
    """Returns all that a step sees of a batch beside its tensors' values; another object is like none but itself."""
    if isinstance(batch, Tensor):
        return tuple(batch.shape), batch.dtype, batch.layout
    if isinstance(batch, Mapping):
        return type(batch), tuple((key, frame(value)) for key, value in batch.items())
    if isinstance(batch, (tuple, list)):
        return type(batch), tuple(map(frame, batch))
    if is_dataclass(batch) and not isinstance(batch, type):
        return type(batch), tuple(frame(vars(batch)[field.name]) for field in fields(batch))
    return (type(batch), batch) if isinstance(batch, (bool, int, float, str, bytes, type(None))) else id(batch)


def _named(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _places(model: nn.Module) -> dict[str, Tensor]:
    """Returns the memory of each weight and buffer, by name."""
    return {name: tensor.data for name, tensor in _named(model).items()}


def _stored(model: nn.Module) -> list[Tensor]:
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
