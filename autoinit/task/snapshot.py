"""A model put back exactly as found: weights, buffers, state, hooks, flags, gradients, random states."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .containers import Contents
from .machine import bytes_of

NEAR = 2**26
"""Bytes of a GPU's tensors up to which their copies stay on it, from where they come back in one operation; so much is
little beside what a step needs."""

PINNED = 2**31
"""Bytes of a GPU's tensors up to which their copies on the host are locked in memory: a model is put back many times in
a search, several times as fast from there. Of more the host might need its memory for other things."""


class RandomStates:
    """The state of every global random generator: torch on each device, numpy, `random`."""

    def __init__(self) -> None:
        self._numpy = np.random.get_state()
        self._random = random.getstate()
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        self._mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None

    def are_now(self) -> bool:
        """Whether every generator stands where it stood: nothing has been drawn, or all was put back."""
        now = RandomStates()
        mine, theirs = self._tensors(), now._tensors()
        return len(mine) == len(theirs) and all(map(torch.equal, mine, theirs)) and self.python_is_now()

    def python_is_now(self) -> bool:
        """Whether the generators of numpy and of Python itself stand where they stood."""
        return self._random == random.getstate() and all(map(np.array_equal, self._numpy, np.random.get_state()))

    def host_is_now(self) -> bool:
        """Whether the generators of the host stand where they stood, torch's included."""
        return torch.equal(self._cpu, torch.get_rng_state()) and self.python_is_now()

    def _tensors(self) -> list[Tensor]:
        return [self._cpu, *self._cuda, *([] if self._mps is None else [self._mps])]

    def restore(self) -> None:
        """Puts every generator back."""
        np.random.set_state(self._numpy)
        random.setstate(self._random)
        torch.set_rng_state(self._cpu)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        if self._mps is not None:
            torch.mps.set_rng_state(self._mps)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seeds the global generators as far as work on a device draws from them; `RandomStates` puts them back.

    numpy's and Python's too, of which augmentation and layer dropping draw: what a training sees must not depend on
    the trainings before it in the same process.

    torch.manual_seed takes a third of a millisecond on the CPU and four times that beside a GPU, for a stack trace with
    each seed that it keeps for devices not in use. Such a seed would also outlast `RandomStates`, which cannot take it
    back.
    """
    if device.type in ("cpu", "cuda"):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed_all(seed)
    else:
        torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@dataclass(frozen=True, slots=True)
class _ParameterState:
    """What one Parameter carries besides its values."""

    parameter: nn.Parameter
    data: Tensor
    requires_grad: bool
    grad: Tensor | None
    hooks: Any
    after_hooks: Any
    contents: tuple[Contents, ...]

    @classmethod
    def of(cls, parameter: nn.Parameter) -> _ParameterState:
        hooks = parameter._backward_hooks
        after: Any = parameter._post_accumulate_grad_hooks
        return cls(
            parameter,
            parameter.data,
            parameter.requires_grad,
            parameter.grad,
            hooks,
            after,
            tuple(Contents(held) for held in (hooks, after) if held is not None),
        )

    def restore(self) -> None:
        parameter = self.parameter
        parameter.data = self.data
        parameter.requires_grad_(self.requires_grad)
        parameter.grad = self.grad
        for content in self.contents:
            content.restore()
        parameter._backward_hooks = self.hooks
        parameter._post_accumulate_grad_hooks = self.after_hooks


class _ModuleState:
    """One module's class and attributes, with the content of its containers.

    Spiking and other stateful modules keep their state as plain attributes; hooks, buffers and
    flags are plain attributes too. So a shallow copy covers them all.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.kind = type(module)
        self.attributes = dict(module.__dict__)
        self.contents = [Contents(value) for value in self.attributes.values() if Contents.can_hold(value)]

    def tensors(self) -> Iterator[Tensor]:
        """Yields buffers and tensor attributes, also those inside containers."""
        for value in self.attributes.values():
            yield from _plain_tensors(value)
        for content in self.contents:
            for value in content.values:
                yield from _plain_tensors(value)

    def restore(self) -> None:
        if type(self.module) is not self.kind:
            self.module.__class__ = self.kind  # a parametrization was registered meanwhile
        self.module.__dict__.clear()
        self.module.__dict__.update(self.attributes)
        for content in self.contents:
            content.restore()


class Snapshot:
    """Everything that training may change in a model, as it was when this was made.

    Weights and buffers of a large model are copied to the host, so that a device need not hold it twice.

    Attributes:
        left: the parameters that a `restore` has left as they were set.
    """

    def __init__(self, model: nn.Module) -> None:
        self.left: list[nn.Parameter] = []
        self._leaving: list[nn.Parameter] = []
        self.random = RandomStates()
        self._modules = [_ModuleState(module) for module in model.modules()]
        self._parameters = [_ParameterState.of(parameter) for parameter in model.parameters()]
        tensors = {id(state.parameter): state.data for state in self._parameters}
        for module in self._modules:
            tensors.update((id(tensor), tensor) for tensor in module.tensors())
        self._targets, self._values = _copies(tensors.values())
        self._owners = [owner for owner, tensor in tensors.items() if tensor.device.type != "meta"]  # of the targets
        self._grads = _copies(state.grad for state in self._parameters if state.grad is not None)

    @property
    def bytes(self) -> int:
        """What the copies take."""
        return bytes_of((*self._values, *self._grads[1]))

    def moved(self) -> list[nn.Parameter]:
        """Returns the parameters whose values are no longer what they were."""
        held = [state for state in self._parameters if state.data.device.type != "meta"]  # they are the first targets
        pairs = ((state.parameter, value) for state, value in zip(held, self._values, strict=False))
        return [parameter for parameter, value in pairs if not _same(_dense(parameter.detach()).cpu(), value.cpu())]

    def rewind(self, but: Collection[nn.Parameter] = ()) -> None:
        """Puts weights, buffers and module state back, and drops gradients; cheap, between trials.

        Args:
            but: parameters that are about to be set as a whole: their values are not brought back.
        """
        for module in self._modules:
            module.restore()
        for state in self._parameters:
            state.parameter.data = state.data
            state.parameter.grad = None
        left = {id(parameter) for parameter in but}
        pairs = zip(self._targets, self._values, strict=True)
        back = [pair for pair, owner in zip(pairs, self._owners, strict=True) if owner not in left]
        _copy_back([target for target, _ in back], [value for _, value in back])
        torch.clear_autocast_cache()  # inside an owner's autocast it holds casts of what was here before

    def leave(self, parameters: Iterable[nn.Parameter]) -> None:
        """Has the values of parameters stay at the end, if no error comes before it, where they kept their memory."""
        memory = {id(state.parameter): state.data.data_ptr() for state in self._parameters}
        self._leaving = [parameter for parameter in parameters if memory.get(id(parameter)) == parameter.data_ptr()]

    def restore(self, *, failed: bool = False) -> None:
        """Puts everything back, gradients and random states included; Ctrl-C waits until it is done.

        Args:
            failed: whether an error came between, so that nothing is left as it is.
        """
        with uninterrupted():
            self.left = [] if failed else self._leaving
            self.rewind(self.left)
            for state in self._parameters:
                state.restore()
            _copy_back(*self._grads)
            self.random.restore()


class Traces:
    """What a forward pass leaves in a model beside gradients, as it was when this was made.

    That is buffers (statistics of batch normalization), the attributes of modules (a spiking neuron's membrane), and
    the states of the random generators.
    """

    def __init__(self, model: nn.Module) -> None:
        self._random = RandomStates()
        self._modules = [_ModuleState(module) for module in model.modules()]
        tensors = {id(tensor): tensor for module in self._modules for tensor in module.tensors()}
        self._targets, self._values = _copies(tensors.values())

    def wipe(self) -> None:
        """Puts all of it back."""
        for module in self._modules:
            module.restore()
        _copy_back(self._targets, self._values)
        self._random.restore()


@contextlib.contextmanager
def preserved(model: nn.Module) -> Iterator[Snapshot]:
    """Yields a `Snapshot` of the model and restores it at the end, whatever happens inside.

    Inside, gradients start as None, so that the owner's gradient tensors are never added to.
    """
    snapshot = Snapshot(model)
    try:
        for parameter in model.parameters():
            parameter.grad = None
        yield snapshot
        snapshot.restore()
    except BaseException:
        snapshot.restore(failed=True)
        raise


@contextlib.contextmanager
def preserved_random() -> Iterator[None]:
    """Restores every global random state at the end, whatever happens inside."""
    states = RandomStates()
    try:
        yield
    finally:
        states.restore()


def _plain_tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        yield value


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors on the host hold the same values, NaN included."""
    if torch.equal(one, other):
        return True
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def _dense(tensor: Tensor) -> Tensor:
    """Returns a view without repeated memory: `expand` repeats, and torch refuses to write to that."""
    if tensor.layout is not torch.strided:
        return tensor
    for axis, (length, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and length > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor


def _copies(tensors: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Returns views to write to and copies of their values; meta tensors hold nothing to copy."""
    targets = []
    for tensor in tensors:
        plain = tensor.detach()
        if plain.device.type != "meta":
            targets.append(_dense(plain))
    size = bytes_of(targets)
    if size <= NEAR and all(target.is_cuda for target in targets):
        with contextlib.suppress(torch.OutOfMemoryError):  # then the host has to do
            return targets, [target.clone() for target in targets]
    return targets, [_on_host(target, pinned=size <= PINNED) for target in targets]


def _on_host(tensor: Tensor, *, pinned: bool) -> Tensor:
    """Returns a copy on the host; of a GPU's tensor, where asked for, in memory that the GPU copies from by itself."""
    if pinned and tensor.is_cuda and tensor.layout is torch.strided:
        with contextlib.suppress(RuntimeError):  # there is none left: any memory will do
            return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)
    return tensor.to("cpu", copy=True)


def _copy_back(targets: list[Tensor], values: list[Tensor]) -> None:
    if targets:
        with torch.no_grad():
            # The copies are never changed, so the program need not wait until a GPU has read them.
            torch._foreach_copy_(targets, values, non_blocking=targets[0].is_cuda)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds a Ctrl-C back until the block is done; only the main thread receives signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[Any, ...]] = []
    before: Callable[..., Any] | int | None = signal.getsignal(signal.SIGINT)
    if not callable(before):
        yield
        return
    signal.signal(signal.SIGINT, lambda *arguments: held.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(*held[0])
