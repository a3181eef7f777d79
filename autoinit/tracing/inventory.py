"""The parameters of a model as the graph names them: tied names together, parametrized tensors as one."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..errors import ModelError

FROZEN = "frozen (requires_grad is False)"
UNREACHED = "no gradient reaches it in this step"
UNTRAINED = "your optimizer does not train it"


@dataclass(frozen=True, slots=True)
class Item:
    """One tensor to initialize; the attributes are those of `Layer`."""

    name: str
    shape: tuple[int, ...]
    tied_to: tuple[str, ...] = ()
    parametrized: str = ""
    keep: str = ""


def inventory(model: nn.Module) -> list[Item]:
    """Returns every parameter once, in the order of `model.named_parameters()`.

    Raises:
        ModelError: there is none, or one has no shape yet (a lazy module before its first call).
    """
    parameters = dict(model.named_parameters())
    if not parameters:
        raise ModelError(f"{type(model).__name__} has no parameters. Pass the module that is to be trained.")
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    derived = _derived(model)
    legacy = _legacy(model)
    items: dict[str, Item] = {}
    for name, parameter in parameters.items():
        if isinstance(parameter, UninitializedParameter):
            raise ModelError(
                f"Parameter {name!r} is lazy and has no shape yet. Call the model once on a batch before this."
            )
        item = derived.get(name) or Item(name, tuple(parameter.shape), tuple(names[id(parameter)][1:]))
        if not parameter.requires_grad:
            item = replace(item, keep=FROZEN)
        elif not (parameter.is_floating_point() or parameter.is_complex()):
            item = replace(item, keep=f"neither floating-point nor complex ({parameter.dtype})")
        items.setdefault(item.name, replace(item, keep=item.keep or legacy.get(name, "")))
    return list(items.values())


def _derived(model: nn.Module) -> dict[str, Item]:
    """Returns the name of each original tensor of a parametrization → the tensor derived from it."""
    found: dict[str, Item] = {}
    for path, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        parametrizations: Any = module.parametrizations
        for name, steps in parametrizations.items():
            prefix = f"{path}." if path else ""
            item = Item(
                f"{prefix}{name}", _shape(module, name, steps), parametrized=_label(steps), keep=_unassignable(steps)
            )
            for original, _ in steps.named_parameters():
                found[f"{prefix}parametrizations.{name}.{original}"] = item
    return found


def _shape(module: nn.Module, name: str, steps: nn.Module) -> tuple[int, ...]:
    """Returns the shape of a derived tensor, made in eval mode: spectral_norm counts its steps in training mode."""
    training = [part for part in steps.modules() if part.training]
    try:
        for part in training:
            part.training = False
        with torch.no_grad():
            return tuple(attrgetter(name)(module).shape)
    finally:
        for part in training:
            part.training = True


def _label(steps: Any) -> str:
    names = [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(step).__name__.lstrip("_")).lower() for step in steps]
    return "+".join(names)


def _unassignable(steps: Any) -> str:
    for step in steps:
        if "right_inverse" not in dir(step):
            return f"its parametrization {type(step).__name__} has no right_inverse, so nothing can be assigned to it"
    return ""


def _legacy(model: nn.Module) -> dict[str, str]:
    """Returns the parameters behind the old weight_norm and spectral_norm hooks → why they stay."""
    found: dict[str, str] = {}
    for path, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, (WeightNorm, SpectralNorm)):
                old = "weight_norm" if isinstance(hook, WeightNorm) else "spectral_norm"
                reason = f"set by the old torch.nn.utils.{old}; use torch.nn.utils.parametrizations.{old} instead"
                prefix = f"{path}." if path else ""
                found.update({f"{prefix}{hook.name}{end}": reason for end in ("_g", "_v", "_orig")})
    return found
