"""Checks that several tests share; they look for themselves and use nothing of the package."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
)


def bits(tensor: Tensor | None) -> bytes | None:
    """The bytes of a tensor: NaN equals NaN, and −0 differs from 0."""
    if tensor is None or tensor.is_meta:
        return None
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def observed(model: nn.Module) -> dict[str, Any]:
    """Everything about a model and the global generators that a user could find changed."""
    seen: dict[str, Any] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        seen[f"{name} (object)"] = id(parameter)
        seen[f"{name} (memory)"] = parameter.data_ptr()
        seen[f"{name} (values)"] = bits(parameter)
        seen[f"{name} (place)"] = (
            parameter.device,
            parameter.dtype,
            tuple(parameter.shape),
            parameter.stride(),
        )
        seen[f"{name} (requires_grad)"] = parameter.requires_grad
        seen[f"{name} (grad object)"] = None if parameter.grad is None else id(parameter.grad)
        seen[f"{name} (grad values)"] = bits(parameter.grad)
        seen[f"{name} (hooks)"] = list((parameter._backward_hooks or {}).items())
    for name, buffer in model.named_buffers(remove_duplicate=False):
        seen[f"{name} (buffer)"] = (id(buffer), bits(buffer))
    for name, module in model.named_modules():
        seen[f"{name} (class)"] = type(module)
        seen[f"{name} (training)"] = module.training
        seen[f"{name} (attributes)"] = {key: id(value) for key, value in vars(module).items() if key != "training"}
        seen[f"{name} (hooks)"] = {key: list(vars(module)[key].items()) for key in HOOKS if key in vars(module)}
        for key, value in vars(module).items():
            if isinstance(value, Tensor):
                seen[f"{name}.{key} (state)"] = bits(value)
            elif isinstance(value, (int, float, str, list, tuple)) and key != "training":
                seen[f"{name}.{key} (state)"] = repr(value) if not isinstance(value, list) else len(value)
    kind, keys, *rest = np.random.get_state()
    seen["numpy generator"] = (kind, keys.tobytes(), tuple(rest))
    seen["random generator"] = random.getstate()
    seen["torch generator"] = torch.get_rng_state().numpy().tobytes()
    if torch.cuda.is_initialized():
        seen["cuda generators"] = [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]
    return seen


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Fails, naming what changed, where the block leaves the model or a global generator other than before.

    It looks also where an exception ends the block, so it goes inside `pytest.raises`.
    """
    before = observed(model)
    try:
        yield
    finally:
        after = observed(model)
        changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
        assert not changed, f"changed: {', '.join(sorted(changed))}"


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
