"""A training that its owner wrote: a generator that trains a model in any way and yields a number after each step."""

from __future__ import annotations

import contextlib
import inspect
import math
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from types import GeneratorType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import USER_ERRORS, ArgumentError, StepError, described, hint
from ..task.batches import describe
from ..task.evaluation import eval_mode
from ..task.machine import OUT_OF_MEMORY
from ..task.snapshot import Traces, seed_generators
from ..text import kind
from .patience import TimeIsUp, within

FORM = (
    "It is a generator: def train(model, seed): …, which trains the model from its weights and yields one number after "
    "each step, lower is better."
)
VALIDATE_FORM = (
    "It is called as validate(model, part), with part 0 in the search and 1 at the gate, in evaluation mode, without "
    "gradients (torch.enable_grad() brings them back), and returns a number, or one for each group of held-back rows."
)
ALONE = "a training of its own (train=) takes its steps by itself"
"""Why several candidates cannot be one stack, nor a step be recorded."""
SECONDS = 300.0
"""That one step of it may take, where nobody says."""
_ENDED = object()
PARTS = (0, 1)
"""Of what is held back: what candidates are ranked by, and what the gate looks at, which the search never sees."""


def check_beside_train(**given: Any) -> None:
    """Raises ArgumentError where something is given that a training of its own has itself, or cannot have."""
    beside = [name for name, value in given.items() if value is not None]
    if beside:
        raise ArgumentError(
            f"Beside train stands {', '.join(beside)}. A training of one's own makes its batches, losses, rates and "
            "precision itself, and has no epochs and no proxy. Leave one of the two out."
        )


def check_beside_data(data: Any, **given: Any) -> None:
    """Raises ArgumentError where there is nothing to train on, or what belongs to `train` stands beside data."""
    if inspect.isgeneratorfunction(data):
        raise ArgumentError("data is a generator function. A training of your own is given by name: train=….")
    if data is None:
        raise ArgumentError(
            "select has neither data nor train. Pass data to train probes on, select(model, data), or a training of "
            "your own, select(model, train=train, example=…)."
        )
    beside = [name for name, value in given.items() if value is not None]
    if beside:
        raise ArgumentError(
            f"{', '.join(beside)} belongs to train=, a training of your own, which is not given. Leave it out, or pass "
            "train= in the place of data."
        )


@dataclass(frozen=True, slots=True)
class Step:
    """What a training has to tell of a step beside its value.

    A generator that `select(train=…)` runs may yield one in the place of a number, where the gradients that the library
    would find in `.grad` are not the whole story: those of an inner loop, or of a step that never calls `backward`.

    Attributes:
        value: a number, or a tensor of one entry without a graph; lower is better.
        gradients: tensors, or their norms, by the parameter's name: those of the weights in this step. None means that
            those which `backward` has brought are looked at. The range from the smallest to the largest norm enters the
            score.

    Example:
        >>> import autoinit
        >>> autoinit.Step(0.25, gradients={"0.weight": 0.1, "2.weight": 0.3}).value
        0.25
    """

    value: float | Tensor
    gradients: Mapping[str, Tensor | float] | None = None


@dataclass(frozen=True)
class HeldBack:
    """One held-back value of a training of one's own.

    Attributes:
        part: 0 for those that rank candidates, 1 for those of the gate.
        place: among the values that `validate` returns for the part.
    """

    part: int
    place: int


class OwnTraining:
    """A training that its owner wrote, checked, with what it yields and what it holds back.

    Args:
        train: called as train(model, seed); returns a generator.
        validate: called as validate(model, part); None where nothing is held back.
        seconds: that a step, or a call of `validate`, may take; None for five minutes.

    Raises:
        StepError: one of them cannot be called.
        ArgumentError: the time is no positive number.
    """

    def __init__(self, train: Any, validate: Any = None, seconds: float | None = None) -> None:
        if isinstance(train, Generator):
            raise StepError(f"train is a generator that runs already. Pass the function itself, uncalled. {FORM}")
        if not callable(train):
            raise StepError(f"train is {kind(train)}, which cannot be called. {FORM}")
        if validate is not None and not callable(validate):
            raise StepError(f"validate is {kind(validate)}, which cannot be called. {VALIDATE_FORM}")
        _check_takes_two(train, "train", FORM)
        if validate is not None:
            _check_takes_two(validate, "validate", VALIDATE_FORM)
        given: Any = SECONDS if seconds is None else seconds
        if isinstance(given, bool) or not isinstance(given, Real) or not 0 < float(given) < math.inf:
            raise ArgumentError(f"timeout is {seconds!r}. Allowed: a positive number of seconds for a step, or None.")
        self.train: Callable[[nn.Module, int], Any] = train
        self.validate: Callable[[nn.Module, int], Any] | None = validate
        self.seconds = float(given)
        self._counts: dict[int, int] = {}

    def begun(self, model: nn.Module, seed: int) -> Steps:
        """Returns the steps of a training that begins at a model's present weights."""
        return Steps(self, model, seed)

    def held_back(self, model: nn.Module, part: int) -> list[float]:
        """Returns what `validate` gives for a part: one number or more, as many each time.

        It is called in evaluation mode, without gradients and with the same random numbers each time; what it leaves in
        the model is put back.

        Raises:
            StepError: it failed, took too long, trained the model, or returned something else.
        """
        assert self.validate is not None
        late = f"validate took more than {self.seconds:g} s"
        before = _sizes(model)
        traces = Traces(model)
        try:
            with eval_mode(model), torch.no_grad(), _timely(self.seconds, late):
                seed_generators(part, next(model.parameters()).device)
                found = self.validate(model, part)
        except StepError:
            raise
        except USER_ERRORS as error:
            raise StepError(f"validate failed: {described(error)}. {hint(error) or VALIDATE_FORM}") from error
        finally:
            traces.wipe()
        if _sizes(model) != before:
            raise StepError(
                "validate leaves other weights in the model than it found. It is to measure them, not to train."
            )
        values = [_number(value, "validate") for value in _listed(found)]
        if not values or len(values) != self._counts.setdefault(part, len(values)):
            usual = self._counts.get(part, 0)
            raise StepError(f"validate returned {len(values)} numbers and {usual} before. {VALIDATE_FORM}")
        return values

    def parts(self, model: nn.Module) -> list[tuple[HeldBack, ...]]:
        """Returns what is held back, of each part; two empty ones where nothing is. Asks `validate` how many it has."""
        if self.validate is None:
            return [(), ()]
        return [tuple(HeldBack(part, place) for place, _ in enumerate(self.held_back(model, part))) for part in PARTS]

    def evaluate(self, model: nn.Module, wanted: Sequence[HeldBack]) -> list[float]:
        """Returns some of the held-back values, in their order; `validate` is called once for each part."""
        found = {part: self.held_back(model, part) for part in dict.fromkeys(one.part for one in wanted)}
        return [found[one.part][one.place] for one in wanted]


class Steps:
    """The steps of one training, taken one by one.

    Modes of torch that the generator sets for itself (autocast, no_grad around a `yield`) hold while it runs and at no
    other time.

    Attributes:
        gradients: norms that the last step told of, by name; None where it told nothing.
    """

    def __init__(self, own: OwnTraining, model: nn.Module, seed: int) -> None:
        self.gradients: dict[str, float] | None = None
        self._own, self._taken = own, 0
        self._kinds = tuple({"cpu", next(model.parameters()).device.type} - {"meta"})
        self._theirs: _Modes | None = None
        with self._theirs_on(), self._explained("when it was called"):
            self._steps: Any = own.train(model, seed)
        if not isinstance(self._steps, Iterator):
            got = "nothing" if self._steps is None else kind(self._steps)
            raise StepError(f"train returned {got}, and yields nothing. {FORM}")

    def take(self) -> float | Tensor:
        """Takes a step and returns its value: a number, or a tensor of one entry that nobody waited for.

        Raises:
            StepError: the training failed, ended, took too long, or yielded something else than a number.
        """
        place = f"step {self._taken + 1}"
        with self._theirs_on(), self._explained(f"in {place}"):
            yielded: Any = next(self._steps, _ENDED)
        if yielded is _ENDED:
            ended = f"after {self._taken} steps" if self._taken else "without a single yield"
            raise StepError(
                f"train ended {ended}. It has to go on for as long as it is asked for a step: write while True: around "
                "its steps, or start its epochs anew. It is closed when enough is seen."
            )
        self._taken += 1
        step = yielded if isinstance(yielded, Step) else Step(yielded)
        self.gradients = None if step.gradients is None else _norms(step.gradients)
        return _yielded(step.value, place)

    @property
    def frame(self) -> Mapping[str, Any] | None:
        """The variables of the training where it stands, by name; None where it is over, or no plain generator."""
        frame = self._steps.gi_frame if isinstance(self._steps, GeneratorType) else None
        return None if frame is None else frame.f_locals

    def close(self) -> None:
        """Ends the training where it stands, so that what it has opened is closed by its `finally`."""
        if isinstance(self._steps, Generator):
            late = "train did not close"
            with contextlib.suppress(*USER_ERRORS), self._theirs_on(), _timely(self._own.seconds, late):
                self._steps.close()

    @contextlib.contextmanager
    def _theirs_on(self) -> Iterator[None]:
        """Sets the modes that the generator has left, and ours again at the end."""
        ours = _Modes(self._kinds)
        if self._theirs is not None:
            self._theirs.set()
        try:
            yield
        finally:
            self._theirs = _Modes(self._kinds)
            ours.set()

    @contextlib.contextmanager
    def _explained(self, where: str) -> Iterator[None]:
        try:
            with _timely(self._own.seconds, f"train yielded nothing for {self._own.seconds:g} s {where}"):
                yield
        except (StepError, *OUT_OF_MEMORY):
            raise
        except USER_ERRORS as error:
            said, place = described(error).rstrip("."), _place(error, self._own.train)
            raise StepError(f"train failed {where}{place}: {said}. {hint(error)}".rstrip()) from error


def _place(error: BaseException, train: Callable[..., Any]) -> str:
    """Returns the line of a training's own file that an error went through last: of one in a worker no more is told."""
    code = inspect.unwrap(train)
    file = code.__code__.co_filename if inspect.isfunction(code) else ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" (line {lines[-1]} of {Path(file).name})" if lines else ""


class _Modes:
    """What torch keeps for a thread, and a block around a yield leaves set: no_grad, autocast."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self._gradients = torch.is_grad_enabled()
        self._autocast = {kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds}

    def set(self) -> None:
        torch.set_grad_enabled(self._gradients)
        for device, (enabled, dtype) in self._autocast.items():
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)


@contextlib.contextmanager
def _timely(seconds: float, late: str) -> Iterator[None]:
    """Raises StepError where a block takes longer; says what was late."""
    try:
        with within(seconds):
            yield
    except TimeIsUp:
        raise StepError(f"{late}. Make its steps shorter, or give it more time by timeout=, in seconds.") from None


def _check_takes_two(function: Callable[..., Any], name: str, form: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built in, or in C
        return
    try:
        signature.bind(None, 0)
    except TypeError:
        raise StepError(f"{name} takes {signature}, and not two arguments. {form}") from None


def _sizes(model: nn.Module) -> list[float]:
    """Returns two norms of each weight: they show whether values have changed, and not how they were written."""
    found = []
    for parameter in model.parameters():
        weight = parameter.detach()
        numbers = weight if weight.is_floating_point() or weight.is_complex() else weight.float()
        found += [torch.linalg.vector_norm(numbers, order).float() for order in (1, 2)]
    sizes: list[float] = torch.stack([one.to(found[0].device) for one in found]).tolist()
    return sizes


def _yielded(value: Any, place: str) -> float | Tensor:
    if value is None:
        raise StepError(f"train yielded nothing in {place}: a yield without a value. Write yield loss.item().")
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.is_complex():
            raise StepError(f"train yielded a tensor {describe(value)} in {place}, and not one number. {FORM}")
        if value.requires_grad:
            raise StepError(
                f"train yielded a tensor with its graph in {place}, which would keep every step's activations. Write "
                "yield loss.detach()."
            )
        return value.reshape(())
    return _number(value, "train yielded", place)


def _number(value: Any, whose: str, place: str = "") -> float:
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return float(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        where = f" in {place}" if place else ""
        verb = whose if place else f"{whose} returned"
        raise StepError(f"{verb} {kind(value)}{where}, and not a number. {FORM if place else VALIDATE_FORM}")
    return float(value)


def _listed(found: Any) -> list[Any]:
    if isinstance(found, Tensor):
        return list(found.detach().flatten().unbind()) if found.dim() else [found]
    is_many = isinstance(found, Iterable) and not isinstance(found, (str, bytes, Mapping))
    return list(found) if is_many else [found]


def _norms(gradients: Any) -> dict[str, float]:
    if not isinstance(gradients, Mapping):
        raise StepError(f"gradients are {kind(gradients)}. Allowed: a mapping of parameter names to tensors or norms.")
    return {
        str(name): float(torch.linalg.vector_norm(one.detach().float())) if isinstance(one, Tensor) else float(one)
        for name, one in gradients.items()
    }
