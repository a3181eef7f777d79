"""A stack's training step, recorded once and replayed for one group of candidates after the other."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from ..stacks.elementwise import Shares, StackedOptimizer, mixes_rates, step_by_shares
from ..stacks.stack import Stack
from ..task.batches import Batch
from ..task.task import Task
from .capture import Capture
from .gradients import Gradients
from .inputs import Inputs
from .lasting import Lasting, use_recordable_form
from .rehearsal import rehearse, stored


class _Home(Stack):
    """A stack whose tensors stay where they are in memory."""

    @torch.no_grad()
    def _put(self, buffers: dict[str, Tensor]) -> None:
        for name, values in buffers.items():
            if values.data_ptr() != self.buffers[name].data_ptr():
                self.buffers[name].copy_(values)


class RecordedStack:
    """Places in memory for some candidates, and a step of theirs: gradients, and the moves of the weights by them.

    Candidates of several learning rates are moved by a part of its own, which reads their shares. As of one candidate's
    `Recording`, what does not fit is computed operation by operation in the same places.

    Attributes:
        size: candidates that it has places for.
        home: their places.
        inputs: the batches that it can replay.
        lasting: the optimizer that it moves the weights with.
        replays: how often each part was replayed.

    Args:
        task: whose model the candidates' weights are of; random states change.
        size: as above.
        moving: names of the buffers that training changes, from `moving_buffers`.
        capture: records on the task's device.

    Raises:
        Unrecordable: it says why a replay would not do what the step does. Whatever else the step raises, it raises.
    """

    def __init__(self, task: Task, size: int, moving: Collection[str], capture: Capture) -> None:
        self.replays = Counter[str]()
        self.size = size
        self.inputs = Inputs(task)
        self.home = _Home(task, size, moving)
        for _ in range(size):
            self.home.add()
        self.home.start([1.0] * size)
        self._device = task.device
        self._leaves = list(self.home.leaves.values())
        self.lasting = Lasting(self.home.optimizer.optimizer, task.device)
        self._shares = Shares(self.lasting.optimizer, size)
        self._mixes = mixes_rates(task)
        self._tenant: weakref.ref[ReplayedStack] | None = None
        task.model.train()
        rehearse(capture, self._whole, task, self.lasting)
        self._held = stored(task.model)  # what the graphs read has to live as long as they do
        (self._losses, grads), self._replay_pass = capture.record(self._pass)
        self._replay_step = {False: capture.record(self._step)[1]}
        if self._mixes:
            self._replay_step[True] = capture.record(self._step_by_shares)[1]
        self._gradients = Gradients(self._leaves, grads)

    def houses(self, stack: ReplayedStack) -> bool:
        """Whether it is this stack's candidates that its places hold."""
        return self._tenant is not None and self._tenant() is stack

    @torch.no_grad()
    def house(self, stack: ReplayedStack) -> None:
        """Copies a stack's weights and buffers into its places; those that are there move out."""
        present = self._tenant() if self._tenant is not None else None
        if present is not None:
            present.move_out()
        self._tenant = weakref.ref(stack)
        homes = [*self._leaves, *self.home.buffers.values()]
        torch._foreach_copy_(homes, [*stack.leaves.values(), *stack.buffers.values()])

    def vacate(self) -> None:
        """Forgets whose candidates its places hold."""
        self._tenant = None

    def moved_by(self, factors: Sequence[float]) -> StackedOptimizer:
        """Returns a fresh optimizer of its places, which begins a training that it goes on with."""
        own = self.home.moved_by(factors)
        use_recordable_form(own.optimizer, self._device)
        return own

    def take_over(self, own: StackedOptimizer) -> bool:
        """Goes on from a training's own optimizer after a step of that; returns whether it can."""
        if not self.lasting.take_over(own.optimizer):
            return False
        self.follow(own)
        return True

    def follow(self, own: StackedOptimizer) -> None:
        """Takes over the learning rates that a scheduler has set in a training's own optimizer."""
        self.lasting.follow(own.optimizer)
        if own.mixes:
            self._shares.set(own.shares())

    def backward(self, batch: Batch) -> tuple[Tensor, bool]:
        """Sets the gradients of every candidate's loss; returns the losses, [size], and whether it was a replay."""
        if not self.inputs.load(batch):
            return self.home.backward(batch), False
        self.replays["pass"] += 1
        self._replay_pass()
        losses = self._losses.clone()  # the next replay writes over them before anybody has read them
        self._gradients.hand_over()
        return losses, True

    def step(self, *, mixes: bool, replayed: bool) -> None:
        """Moves the weights by the gradients.

        Args:
            mixes: whether by shares.
            replayed: whether the gradients are those of a replay.
        """
        if replayed and self.lasting.as_recorded:
            self.replays["step"] += 1
            self._replay_step[mixes]()
        elif mixes:
            self._step_by_shares()
        else:
            self._step()

    def _pass(self) -> tuple[Tensor, list[Tensor | None]]:
        losses = self.home.backward(self.inputs.batch)
        return losses, [leaf.grad for leaf in self._leaves]

    def _step(self) -> None:
        self.lasting.optimizer.step()

    def _step_by_shares(self) -> None:
        step_by_shares(self.lasting.optimizer, self._shares)

    def _whole(self) -> None:
        self._pass()
        self._step()
        if self._mixes:
            self._step_by_shares()


FindRecorded = Callable[[int], RecordedStack | None]
"""Returns what has places for so many candidates, and not many more; None where nothing has."""


class ReplayedStack(Stack):
    """Candidates that train by replays, in the places of a recorded stack.

    They move in when they go on. Where another stack takes its turn in the same places, they wait outside with their
    optimizer's state; where some are dropped, the others move to fewer places. Places that are left over hold copies of
    the first candidate. The first step of a training is its own optimizer's, as is every one until its state is of the
    recorded form.

    Args:
        task: of the model.
        capacity: the most candidates that will be added.
        moving: names of the buffers that training changes.
        recorded: has places for as many.
        find: where fewer of them go.
    """

    def __init__(
        self, task: Task, capacity: int, moving: Collection[str], recorded: RecordedStack, find: FindRecorded
    ) -> None:
        super().__init__(task, capacity, moving)
        self._recorded = recorded
        self._find = find
        self._replayed = False
        self._follows = False

    def start(self, factors: Sequence[float]) -> None:
        """Makes the optimizer, once all candidates are added.

        Args:
            factors: of each candidate, on every learning rate.
        """
        rows = self._places_for(range(self.size))
        self.optimizer = self._recorded.moved_by([factors[row] for row in rows])
        self._take(rows)

    def backward(self, batch: Batch) -> Tensor:
        """Sets the gradients of every candidate's loss on a batch and returns the losses, [K], not waited for."""
        losses, self._replayed = self._at_home().backward(batch)
        return losses[: self.size]

    def step(self) -> None:
        """Moves every candidate by its gradients, and steps the scheduler."""
        own, recorded = self.optimizer, self._at_home()
        if not self._follows:
            own.step()
            self._follows = recorded.take_over(own)
            return
        recorded.step(mixes=own.mixes, replayed=self._replayed)
        if own.schedule():
            recorded.follow(own)

    def gradient_norms(self) -> list[list[float]]:
        """Returns for every candidate the norms of its gradients, of the same weights as any stack."""
        return self._at_home().home.gradient_norms()[: self.size]

    def gradients(self, row: int) -> dict[str, Tensor]:
        """Returns one candidate's gradients, by the names of the model's parameters."""
        return self._at_home().home.gradients(row)

    def values(self, row: int) -> dict[str, Tensor]:
        """Returns copies of one candidate's weights and buffers, by the names that they have in the model."""
        return self._at_home().home.values(row)

    def evaluate(self, batches: Sequence[Batch]) -> list[list[float]]:
        """Returns for every candidate the loss of each batch, without training on them."""
        return self._at_home().home.evaluate(batches)[: self.size]

    def keep(self, places: Sequence[int]) -> None:
        """Drops all candidates but those at some places, with their buffers and the optimizer's state."""
        self._at_home()
        self.move_out()
        before = self._recorded.home.leaves
        self.size = len(places)
        rows = self._places_for(places)
        after = self._recorded.home.leaves
        self.optimizer.keep(self._index(rows), {leaf: after[name] for name, leaf in before.items()})
        self._take(rows)

    def move_out(self) -> None:
        """Takes copies of all that lies in the recorded stack's places, which it is free to go on without."""
        home = self._recorded.home
        self.leaves = {name: leaf.detach().clone() for name, leaf in home.leaves.items()}
        self.buffers = {name: values.clone() for name, values in home.buffers.items()}
        if self._follows:
            self._recorded.lasting.give_back(self.optimizer.optimizer)
        self._recorded.vacate()

    def _at_home(self) -> RecordedStack:
        """Returns the recorded stack, in whose places the candidates are."""
        if not self._recorded.houses(self):
            self._recorded.house(self)
            if self._follows:
                self._follows = self._recorded.take_over(self.optimizer)
            self.leaves, self.buffers = {}, {}  # what lies there now need not lie here
        return self._recorded

    def _places_for(self, rows: Sequence[int]) -> list[int]:
        """Finds places for some rows; returns the row for each place."""
        self._recorded = self._find(len(rows)) or self._recorded
        return [*rows, *[rows[0]] * (self._recorded.size - len(rows))]

    def _take(self, rows: Sequence[int]) -> None:
        index = self._index(rows)
        self.leaves = {name: values[index] for name, values in self.leaves.items()}
        self.buffers = {name: values[index] for name, values in self.buffers.items()}

    def _index(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(rows, dtype=torch.long, device=next(iter(self.leaves.values())).device)
