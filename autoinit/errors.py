"""The errors that autoinit raises: what was received, what is allowed, what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AutoInitError(Exception):
    """Base of every error that autoinit raises on purpose."""


class DataError(AutoInitError, ValueError):
    """The data cannot be trained on: empty, not finite, labels out of range, wrong shape."""


class ModelError(AutoInitError, ValueError):
    """The model cannot be initialized: nothing trainable, or no gradient reaches it."""


class StepError(AutoInitError, TypeError):
    """A loss or step callable did not return one finite scalar."""


class OptimizerError(AutoInitError, TypeError):
    """An optimizer argument is neither an optimizer nor a factory of one."""


class RecipeError(AutoInitError, ValueError):
    """A recipe is unknown or holds a value outside its range."""


class PlanFileError(AutoInitError, ValueError):
    """A plan file is damaged, of another kind, or from a newer version."""


class PlanMismatchError(AutoInitError, ValueError):
    """A plan names other parameters than the model has."""


class BudgetError(AutoInitError, ValueError):
    """A budget is not a positive amount of seconds, trials or steps."""


class CalibrationError(AutoInitError, ValueError):
    """A calibration cannot work on this model: its loss cannot be differentiated as often as it needs."""


class ArgumentError(AutoInitError, ValueError):
    """An argument of another kind is outside its range: a seed, a storage, the name of a study."""


class StorageError(AutoInitError, RuntimeError):
    """A study's storage cannot be used now: held by another, locked, full, damaged, or its server is away."""


class KnowledgeError(AutoInitError, ValueError):
    """A file of what studies have found is damaged, of another kind, or from another version."""


class DeviceError(AutoInitError, ValueError):
    """A device is asked for that this machine does not have."""


class FactoryError(AutoInitError, ValueError):
    """A `module:callable` argument of the command line cannot be imported or called."""


USER_ERRORS = (
    RuntimeError,
    TypeError,
    ValueError,
    LookupError,
    AssertionError,
    AttributeError,
    ArithmeticError,
    OSError,
)
"""What the owner's code raises (data, a model, a loss, a step) on what it cannot take or do."""


def did_you_mean(name: str, known: Iterable[str], listed: str = "") -> str:
    """Returns "Did you mean 'x'? Known: …", or, where the list would be long, what lists them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    return f"{guess}{listed} lists all." if listed else f"{guess}Known: {', '.join(names)}."


def described(problem: BaseException) -> str:
    """Returns an exception's kind and the first line of what it says."""
    lines = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {lines[0]}" if lines else type(problem).__name__
