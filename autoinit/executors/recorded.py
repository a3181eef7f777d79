"""One training step, recorded once and replayed for each candidate: its weights are put where the last one's were."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from ..probing.stepping import InParts
from ..task.batches import Batch
from ..task.optimizers import step_scheduler
from ..task.task import Task
from .capture import Capture
from .gradients import Gradients
from .inputs import Inputs
from .lasting import Lasting, use_recordable_form
from .rehearsal import named, places, rehearse, stored


class Recording:
    """A model's training step in two parts, which read and write the same places in memory at each replay.

    The first part computes gradients, the second moves the weights. A batch of another shape than the recorded one is
    computed operation by operation, in the same places, and so is a step with options that a scheduler has changed.

    Attributes:
        inputs: the batches that it can replay.
        lasting: the optimizer that it moves the weights with.
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
        self.inputs = Inputs(task)
        self.lasting = Lasting(task.build_optimizer()[0], task.device)
        task.model.train()
        rehearse(capture, self._whole, task, self.lasting)
        self._homes = places(task.model)
        self._held = stored(task.model)  # what the graphs read has to live as long as they do
        (self._loss, grads), self._replay_pass = capture.record(self._pass)
        _, self._replay_step = capture.record(self.lasting.optimizer.step)
        self._gradients = Gradients(self._trained, grads)

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
        if not self.inputs.load(batch):
            for parameter in self._trained:
                parameter.grad = None
            return self._task.backward(batch), False
        self.replays["pass"] += 1
        self._replay_pass()
        loss = self._loss.clone()  # the next replay writes over it before anybody has read it
        self._gradients.hand_over()
        return loss, True

    def step(self) -> None:
        """Moves the weights by the gradients of the last replay."""
        self.replays["step"] += 1
        self._replay_step()

    def _pass(self) -> tuple[Tensor, list[Tensor | None]]:
        for parameter in self._trained:
            parameter.grad = None  # so that they come to lie where each replay writes them anew
        return self._task.backward(self.inputs.batch), [parameter.grad for parameter in self._trained]

    def _whole(self) -> None:
        self._pass()
        self.lasting.optimizer.step()

    def _bring_home(self) -> None:
        """Puts weights and buffers where the graphs have them, if a draw has put them elsewhere."""
        with torch.no_grad():
            for name, tensor in named(self._task.model).items():
                home = self._homes.get(name)
                if home is not None and tensor.data_ptr() != home.data_ptr():
                    home.copy_(tensor)
                    tensor.data = home


class Replayed(InParts):
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

    def step(self, loss: Tensor | float) -> None:
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
