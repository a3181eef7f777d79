"""The errors that autoinit raises: what was received, what is allowed, what to do next."""

from __future__ import annotations

import difflib
import re
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


class SourceError(AutoInitError, ValueError):
    """Trained weights that a model is to inherit cannot be used: damaged, foreign, incomplete, of another shape."""


class DeviceError(AutoInitError, ValueError):
    """A device is asked for that this machine does not have."""


class FactoryError(AutoInitError, ValueError):
    """A `module:callable` argument of the command line cannot be imported or called."""


USER_ERRORS = (Exception,)
"""What the owner's code raises (data, a model, a loss, a step) on what it cannot take or do: libraries have errors of
their own, which derive from no standard one."""

_DETACHED = "Detach the module from its trainer (module.trainer = None), so that self.log only warns"
_ATTACHED = (
    "attach one that does nothing (module.trainer = Trainer(barebones=True)), with which self.log only warns, too"
)

_HINTS = (
    (r"\bself\.log", f"{_DETACHED}; where the step reads self.trainer, {_ATTACHED}."),
    (
        r"not attached to a `?Trainer|self\.trainer` reference is not registered",
        f"Where the step only reads self.trainer, {_ATTACHED}; without automatic optimization, pass a step that "
        "computes the loss.",
    ),
    (
        r"'(Tensor|ModelOutput|\w+Output|tuple|dict)' object has no attribute '(training_step|forward|parameters)'",
        "loss is called as loss(output, target); pass what takes the model and a batch as step=.",
    ),
)
"""What libraries say where a model's own code is called outside of them → what to do about it."""


def hint(problem: BaseException) -> str:
    """Returns what to do about an exception that is known by what it says, as a sentence; empty for others."""
    return next((remedy for pattern, remedy in _HINTS if re.search(pattern, str(problem))), "")


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
