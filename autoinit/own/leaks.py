"""Whether a training of one's own gives the same numbers twice, and, where it does not, what came over in between."""

from __future__ import annotations

import collections
import functools
import hashlib
import inspect
import itertools
import math
import operator
import random
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import StepError
from ..judging.score import Curve
from ..task.snapshot import Snapshot, seed_generators
from ..task.task import Own
from ..text import kind
from .training import OwnTraining

MOST_STEPS, FEWEST_STEPS = 16, 2
"""That a training is run twice for: as many as `LOOK_SECONDS` pay for."""
LOOK_SECONDS = 1.0
ROUNDING = 1e-5
"""Relative difference of two values of one step that may be an order of summation; on a GPU more, since it adds up."""
DEVICE_ROUNDING = 1e-2

_DEEPEST, _MOST_ITEMS, _SAMPLED = 5, 256, 4096
_SEED = 0


def check_repeats(own: OwnTraining, model: nn.Module, snapshot: Snapshot) -> None:
    """Runs the first steps of a training twice from the same weights and the same seed, and compares what they yield.

    Candidates can be compared only where each begins with nothing but its weights: a replay buffer, an optimizer or an
    environment that is made outside of the training goes on from one candidate to the next.

    Args:
        own: the training.
        model: with the weights that it begins at, which are put back.
        snapshot: of them.

    Raises:
        StepError: they differ; it says what has changed of all that the training refers to, or what it did wrong.
    """
    before = _seen(own.train)
    first = _values(own, model, snapshot, None)
    changed = _changed(before, _seen(own.train))
    _compare(first, _values(own, model, snapshot, len(first)), _device(model), changed)


def check_repeated(own: Own, model: nn.Module, first: Sequence[float], run: Callable[[], Curve]) -> None:
    """Runs a training of before once more, after others, and compares what it yields.

    What comes over late, such as a memory of moves that is learned from when it is full, shows in a long run only.

    Args:
        own: the training.
        model: that it trains.
        first: what it yielded then.
        run: runs it again, from the same weights and the same seed, for as many steps or fewer.

    Raises:
        StepError: they differ; it says what this run has changed of all that the training refers to.
    """
    before = _seen(own.train)
    again = run().losses
    # On a device sums are not always in one order, and what that changes grows with the steps.
    most = len(again) if _device(model) == "cpu" else MOST_STEPS
    _compare(first[:most], again[:most], _device(model), _changed(before, _seen(own.train)))


def _device(model: nn.Module) -> str:
    return next(model.parameters()).device.type


def _compare(first: Sequence[float], again: Sequence[float], device: str, changed: Sequence[str]) -> None:
    rounding = ROUNDING if device == "cpu" else DEVICE_ROUNDING
    for place, (one, other) in enumerate(zip(first, again, strict=False), 1):
        if not _alike(one, other, rounding):
            raise StepError(
                "train does not give the same numbers twice from the same weights and the same seed: "
                f"step {place} gave {one:.6g}, and then {other:.6g}. {_told(changed)}"
            )


def _values(own: OwnTraining, model: nn.Module, snapshot: Snapshot, steps: int | None) -> list[float]:
    """Returns what the first steps yield: so many, or as many as there is time for."""
    snapshot.rewind()
    seed_generators(_SEED, next(model.parameters()).device)
    model.train()
    running = own.begun(model, _SEED)
    values, started = list[float](), time.perf_counter()
    try:
        while len(values) < (steps or MOST_STEPS):
            values.append(float(running.take()))
            late = time.perf_counter() - started > LOOK_SECONDS
            if steps is None and ((late and len(values) >= FEWEST_STEPS) or not math.isfinite(values[-1])):
                break
    finally:
        running.close()
        snapshot.rewind()
    return values


def _alike(one: float, other: float, rounding: float) -> bool:
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.isfinite(one) == math.isfinite(other)
    return math.isclose(one, other, rel_tol=rounding, abs_tol=rounding)


def _told(changed: Sequence[str]) -> str:
    if not changed:
        return (
            "Nothing that it refers to has changed in between, so it draws numbers of its own: make its environments, "
            "generators and loaders from the seed that it is called with."
        )
    return (
        f"From one training to the next it changes {', '.join(changed)}, which it refers to from outside: make that "
        "inside of train, from its seed."
    )


@dataclass(frozen=True, slots=True)
class _Mark:
    """What an object was like: its contents as a hash, and in words."""

    contents: bytes
    words: str


def _changed(before: Mapping[str, _Mark], after: Mapping[str, _Mark]) -> list[str]:
    """Returns the names of what is no longer as it was, each with its kind and, where that says it, its length."""
    found = []
    for name, mark in after.items():
        then = before.get(name)
        if then is None or then.contents != mark.contents:
            words = mark.words if then is None or then.words == mark.words else f"{then.words} before, {mark.words} now"
            found.append(f"`{name}` ({words})")
    return found


def _seen(function: Any) -> dict[str, _Mark]:
    """Returns what a function refers to beside its arguments, by name, as it is now."""
    return {name: _Mark(_hashed(value), _words(value)) for name, value in _referred(function)}


def _referred(function: Any) -> Iterator[tuple[str, Any]]:
    """Yields the variables that a function uses and does not make, and those of the functions that it calls."""
    waiting, known = collections.deque([function]), set[int]()
    while waiting and len(known) < _MOST_ITEMS:
        one = waiting.popleft()
        while isinstance(one, functools.partial):
            yield from one.keywords.items()
            yield from ((f"argument {place}", value) for place, value in enumerate(one.args))
            one = one.func
        one = inspect.unwrap(one)
        if isinstance(one, types.MethodType):
            yield "self", one.__self__
            one = one.__func__
        elif not isinstance(one, types.FunctionType):
            yield type(one).__name__, one
            one = type(one).__call__
        if not isinstance(one, types.FunctionType) or id(one) in known:
            continue
        known.add(id(one))
        for name, value in _variables(one):
            if isinstance(value, types.FunctionType):
                if value.__module__ == one.__module__:
                    waiting.append(value)
            elif not isinstance(value, (types.ModuleType, type, types.BuiltinFunctionType)):
                yield name, value


def _variables(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    names = itertools.chain(function.__code__.co_names, *(code.co_names for code in _inner(function.__code__)))
    yield from ((name, function.__globals__[name]) for name in dict.fromkeys(names) if name in function.__globals__)
    parameters = inspect.signature(function).parameters.values()
    yield from ((one.name, one.default) for one in parameters if one.default is not inspect.Parameter.empty)


def _inner(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _inner(constant)


def _words(value: Any) -> str:
    if isinstance(value, (int, float, str)):
        return repr(value)
    if isinstance(value, (list, tuple, set, dict, collections.deque)):
        return f"{kind(value)} of {len(value)}"
    return kind(value)


def _hashed(value: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(value, 0, set()):
        digest.update(part)
    return digest.digest()


def _parts(value: Any, depth: int, known: set[int]) -> Iterator[bytes]:
    """Yields what an object holds, as bytes: enough to see that it has changed, and no more of large ones."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        yield repr(value).encode()
        return
    yield type(value).__qualname__.encode()
    if depth > _DEEPEST or id(value) in known:
        return
    known.add(id(value))
    if isinstance(value, Tensor):
        yield f"{tuple(value.shape)} {value._version} {value.dtype}".encode()
        if not value.is_meta:
            yield repr(value.detach().flatten()[:: max(1, value.numel() // _SAMPLED)].tolist()).encode()
    elif isinstance(value, np.ndarray):
        yield f"{value.shape} {value.ravel()[:: max(1, value.size // _SAMPLED)].tolist()}".encode()
    elif isinstance(value, torch.Generator):
        yield value.get_state().numpy().tobytes()
    elif isinstance(value, random.Random):
        yield repr(value.getstate()).encode()
    elif isinstance(value, (np.random.Generator, np.random.RandomState)):
        state = value.bit_generator.state if isinstance(value, np.random.Generator) else value.get_state()
        yield repr(state).encode()
    else:
        for inner in _inside(value):
            yield from _parts(inner, depth + 1, known)


def _inside(value: Any) -> list[Any]:
    """Returns what an object is made of."""
    if isinstance(value, Mapping):
        items = list(itertools.islice(value.items(), _MOST_ITEMS))
        return [len(value), *(part for item in items for part in item)]
    if isinstance(value, (list, tuple, collections.deque)):
        middle = max(0, len(value) - _MOST_ITEMS // 2)
        return [len(value), *itertools.islice(value, _MOST_ITEMS // 2), *itertools.islice(value, middle, None)]
    if isinstance(value, (set, frozenset)):
        return [len(value), *sorted(map(repr, itertools.islice(value, _MOST_ITEMS)))]
    if isinstance(value, types.GeneratorType):
        frame = value.gi_frame
        return ["ended"] if frame is None else [frame.f_lasti, dict(frame.f_locals)]
    if isinstance(value, Iterator) and "__dict__" not in dir(value):
        return [operator.length_hint(value, -1), repr(value) if isinstance(value, itertools.count) else ""]
    return [dict(vars(value))] if "__dict__" in dir(value) else []
