"""Tensors by name: the names and shapes a model has, reading one, setting one through its parametrization."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _WeightNorm

_PARAMETRIZATIONS = "parametrizations"


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter by name; of a parametrized weight, the derived tensor's."""
    found: dict[str, tuple[int, ...]] = {}
    for name, parameter in model.named_parameters():
        found.setdefault(derived_name(name), tuple(parameter.shape))
        if derived_name(name) != name:
            found[derived_name(name)] = tuple(read(model, derived_name(name)).shape)
    return found


def derived_name(name: str) -> str:
    """Returns "0.weight" for "0.parametrizations.weight.original0", and any other name as it is."""
    parts = name.split(".")
    if _PARAMETRIZATIONS not in parts:
        return name
    place = parts.index(_PARAMETRIZATIONS)
    return ".".join([*parts[:place], parts[place + 1]])


def read(model: nn.Module, name: str) -> Tensor:
    """Returns the tensor called `name`; of a parametrized weight, the derived tensor, without gradient."""
    owner, attribute = _owner(model, name)
    if not parametrize.is_parametrized(owner, attribute):
        return owner.get_parameter(attribute)
    steps = _parametrization(owner, attribute)
    training = [part for part in steps.modules() if part.training]
    try:
        for part in training:  # in training mode spectral_norm takes a reading for a step, and changes its buffers
            part.training = False
        with torch.no_grad():
            derived: Tensor = steps()
        return derived
    finally:
        for part in training:
            part.training = True


def digest(tensor: Tensor) -> str:
    """Returns a short fingerprint of a tensor's bits."""
    content = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(content.numpy().tobytes(), digest_size=8).hexdigest()


def padding_rows(model: nn.Module) -> dict[str, int]:
    """Returns the row that stands for padding and stays zero, by every name of every table that has one.

    A tied table has it under all its names, whichever of them belongs to the embedding.
    """
    rows: dict[int, int] = {}
    found: dict[str, int] = {}
    for path, module in model.named_modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.padding_idx is not None:
            found[f"{path}.weight" if path else "weight"] = module.padding_idx
            if "weight" in module._parameters:  # a parametrized one is tied to nothing
                rows[id(module.weight)] = module.padding_idx
    for name, parameter in model.named_parameters(remove_duplicate=False) if rows else ():
        if id(parameter) in rows:
            found[name] = rows[id(parameter)]
    return found


def is_parametrized(model: nn.Module, name: str) -> bool:
    """Whether the tensor called `name` is derived from others by `torch.nn.utils.parametrize`."""
    return parametrize.is_parametrized(*_owner(model, name))


def assign(model: nn.Module, name: str, value: Tensor) -> None:
    """Sets the tensor called `name` to `value` in place, under no_grad.

    A parametrized weight is set through its parametrization's `right_inverse`, so what the layer then uses
    can differ from `value` where the parametrization restricts it (orthogonal, spectral_norm): read it back.
    Under weight normalization a row of zeros keeps its old direction and gets length 0; it has no direction of its own.

    Raises:
        RuntimeError: where the parametrization has no right inverse.
    """
    owner, attribute = _owner(model, name)
    with torch.no_grad():
        if not parametrize.is_parametrized(owner, attribute):
            owner.get_parameter(attribute).copy_(value)
            return
        steps = _parametrization(owner, attribute)
        norms = [step for step in steps if isinstance(step, _WeightNorm)]
        if len(steps) != 1 or not norms:
            steps.right_inverse(value)
            return
        zero = torch.norm_except_dim(value, 2, norms[0].dim) == 0
        steps.right_inverse(torch.where(zero, steps.get_parameter("original1"), value))
        steps.get_parameter("original0").masked_fill_(zero, 0.0)


def assign_all(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Sets parameters, as `assign` does, and buffers by name in place."""
    buffers = dict(model.named_buffers())
    with torch.no_grad():
        for name, value in values.items():
            if name in buffers:
                buffers[name].copy_(value)
            else:
                assign(model, name, value)


def lasting_buffers(model: nn.Module, *, every_name: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Yields the buffers that belong to a model's state by name: each once, or under every name that it has."""
    seen: set[int] = set()
    for path, module in model.named_modules(remove_duplicate=not every_name):
        for key, buffer in module._buffers.items():
            if buffer is None or key in module._non_persistent_buffers_set or (id(buffer) in seen and not every_name):
                continue
            seen.add(id(buffer))
            yield f"{path}.{key}" if path else key, buffer


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    *path, attribute = name.split(".")
    owner = model
    for part in path:  # what get_submodule does, whose checks take as long as filling a small tensor
        inner = owner._modules.get(part)
        if inner is None:
            return model.get_submodule(".".join(path)), attribute  # it says what is missing
        owner = inner
    return owner, attribute


def _parametrization(owner: nn.Module, attribute: str) -> parametrize.ParametrizationList:
    return cast(parametrize.ParametrizationList, owner.get_submodule(f"{_PARAMETRIZATIONS}.{attribute}"))
