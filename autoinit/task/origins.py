"""What sets a parameter or a buffer anew: the call that its own module has for it."""

from __future__ import annotations

import copy
from typing import Protocol, runtime_checkable

from torch import nn

from .assign import is_parametrized
from .snapshot import preserved_random


@runtime_checkable
class _Resets(Protocol):
    """A module that knows how its parameters start, as those of torch.nn do."""

    def reset_parameters(self) -> None: ...


@runtime_checkable
class _ResetsStatistics(Protocol):
    """A module that knows how its statistics start: torch's batch and instance normalizations."""

    def reset_running_stats(self) -> None: ...


def own_reset(model: nn.Module, name: str) -> str:
    """Returns the call by which the module that holds a parameter or buffer makes it finite; empty where it has none.

    Whether it does is tried on a copy of that module: some leave a token, or a table, as it is.

    Args:
        model: whose parameter or buffer it is.
        name: of the parameter or buffer, in the model.
    """
    path, _, attribute = name.rpartition(".")
    owner = model.get_submodule(path)
    if attribute in owner._buffers:
        return f"{module_call(path)}.reset_running_stats()" if isinstance(owner, _ResetsStatistics) else ""
    if not isinstance(owner, _Resets) or is_parametrized(model, name):
        return ""
    try:
        with preserved_random():
            trial = copy.deepcopy(owner)
            trial.reset_parameters()
            finite = bool(trial.get_parameter(attribute).isfinite().all())
    except Exception:  # a module of the owner's own, whose reset asks for arguments or cannot be copied
        return ""
    return f"{module_call(path)}.reset_parameters()" if finite else ""


def module_call(path: str) -> str:
    """Returns the expression for a module of the model: of "0.norm", `model.get_submodule('0.norm')`."""
    return f"model.get_submodule({path!r})" if path else "model"


def parameter_call(name: str) -> str:
    """Returns the expression for a parameter of the model."""
    return f"model.get_parameter({name!r})"


def setting_call(model: nn.Module, name: str, function: str, *arguments: str) -> str:
    """Returns the statement by which a function of torch.nn.init sets a parameter, through a parametrization too."""
    if not is_parametrized(model, name):
        return f"nn.init.{function}({', '.join([parameter_call(name), *arguments])})"
    path, _, attribute = name.rpartition(".")
    derived = f"{module_call(path)}.{attribute}"
    return f"{derived} = nn.init.{function}({', '.join([f'torch.empty_like({derived})', *arguments])})"


def is_statistic(model: nn.Module, name: str) -> bool:
    """Whether a buffer is a running statistic of a normalization: training updates it, and evaluation uses it."""
    path, _, attribute = name.rpartition(".")
    statistic = attribute in ("running_mean", "running_var")
    return statistic and isinstance(model.get_submodule(path), _ResetsStatistics)
