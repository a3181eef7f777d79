"""Whether a model can be trained here at all: told before anything is changed, with what to do instead."""

from __future__ import annotations

import sys
from types import FunctionType, ModuleType

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ..errors import DeviceError, ModelError
from .origins import own_reset

_REMEDY = (
    "Weights are chosen for whole tensors: do it in one process before the model is sharded, or on a smaller proxy "
    "(select(model, data, proxy=…)), and keep the plan with selection.plan.save('plan.json'). Then call "
    "autoinit.apply_(model, 'plan.json') in every process, before {before}: the same seed gives the same bits."
)


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the module inside torch.compile, DataParallel and DistributedDataParallel.

    Raises:
        ModelError: no module, a scripted one, or one of which this process holds only a part.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"model is {_article(model)}. Allowed: a torch.nn.Module instance.{_call_hint(model)}")
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError("model is a scripted module, whose operations cannot be read. Pass it as it was before jit.")
    if isinstance(model, (DataParallel, DistributedDataParallel)):
        return unwrap(model.module)
    inner = model._modules.get("_orig_mod")  # what torch.compile wraps
    if inner is not None:
        return unwrap(inner)
    check_whole(model)
    return model


def _article(model: object) -> str:
    if isinstance(model, type):
        return f"the class {model.__name__}"
    return f"a {type(model).__name__}"


def _call_hint(model: object) -> str:
    """Returns what to do with something that makes a model."""
    if not callable(model):
        return ""
    name = model.__name__ if isinstance(model, (type, FunctionType)) else "it"
    shown = f": {name}(…)" if name.isidentifier() and name != "it" else ""
    return f" Call it, and pass what it returns{shown}."


def check_weights(model: nn.Module) -> None:
    """Raises `ModelError` where a trainable parameter holds NaN or inf."""
    if bad := not_finite(model):
        name, count, size = bad[0]
        call = own_reset(model, name) or "autoinit.diagnose(model, data) says what does"
        raise ModelError(
            f"{name} itself holds NaN or inf ({count} of {size} values), so nothing can be compared with the model as "
            f"it is. Look for where it was set, or set it anew first: {call}."
        )


def not_finite(model: nn.Module) -> list[tuple[str, int, int]]:
    """Returns (name, number of values that are NaN or inf, number of values) of trainable parameters with any."""
    counts = (
        (name, int((~parameter.detach().isfinite()).sum()), parameter.numel())
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not parameter.is_meta
    )
    return [found for found in counts if found[1]]


def check_trainable(model: nn.Module) -> None:
    """Raises `ModelError` where nothing can be initialized: no trainable parameter, or lazy ones."""
    parameters = list(model.parameters())
    lazy = sum(isinstance(parameter, nn.UninitializedParameter) for parameter in parameters)
    if lazy:
        raise ModelError(f"{lazy} parameters of lazy modules have no shape yet. Call the model once on a batch first.")
    if not any(parameter.requires_grad for parameter in parameters):
        why = "requires_grad is False on all" if parameters else "it has none at all"
        raise ModelError(
            f"{type(model).__name__} has no trainable parameter ({why} of {len(parameters)}). "
            "Unfreeze what is to be initialized with requires_grad_(True)."
        )


def device_of(model: nn.Module, device: str | torch.device | None) -> torch.device:
    """Returns the device to train on: the one that is asked for, checked, or where the model lies."""
    return next(model.parameters()).device if device is None else check_device(device)


def float_dtype(model: nn.Module) -> torch.dtype:
    """Returns the dtype of a model's numbers: that of its first floating-point parameter."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def check_device(device: str | torch.device) -> torch.device:
    """Returns a device, checked by allocating there (which also starts CUDA).

    Raises:
        DeviceError: it does not exist here.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise DeviceError(
            f"device {device!r} does not exist here. Available: {', '.join(available_devices())}."
        ) from error


def available_devices() -> list[str]:
    """Returns the names of the devices of this machine."""
    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


def check_memory(device: torch.device, purpose: str) -> None:
    """Raises ModelError for a model without values."""
    if device.type == "meta":
        raise ModelError(
            f"the model is on the meta device, without weights to {purpose}. "
            "Use trace, resolve or a plan there, or give it memory first with model.to_empty(device=…)."
        )


# Sharded models


def check_whole(model: nn.Module) -> None:
    """Raises ModelError where a parameter is spread over processes.

    That is DTensor parameters (tensor parallelism, `fully_shard`), `FullyShardedDataParallel` around the model or
    any part of it, and parameters that have been emptied meanwhile (ZeRO stage 3).
    """
    _check_wrappers(model, _loaded("torch.distributed.fsdp"))
    _check_tensors(model, _loaded("torch.distributed.tensor"))
    shapes = [parameter.numel() for parameter in model.parameters() if not _is_lazy(parameter)]
    if shapes and not any(shapes):
        raise ModelError(
            f"all {len(shapes)} parameters are empty tensors, as under ZeRO stage 3, which shares them out among "
            f"processes. {_remedy('the engine takes the model')}"
        )


def _check_wrappers(model: nn.Module, fsdp: ModuleType | None) -> None:
    if fsdp is None:
        return
    for name, module in model.named_modules():
        where = repr(name) if name else "the model"
        if isinstance(module, fsdp.FullyShardedDataParallel):
            raise ModelError(f"{where} is wrapped in FullyShardedDataParallel. {_remedy('wrapping it')}")
        if isinstance(module, fsdp.FSDPModule):
            raise ModelError(f"{where} has been sharded by fully_shard. {_remedy('fully_shard')}")


def _check_tensors(model: nn.Module, tensor: ModuleType | None) -> None:
    if tensor is None:
        return
    for name, parameter in model.named_parameters():
        if isinstance(parameter, tensor.DTensor):
            placed = ", ".join(map(str, parameter.placements))
            raise ModelError(
                f"{name} is a DTensor of shape {list(parameter.shape)}, placed {placed} on a mesh of "
                f"{parameter.device_mesh.size()} devices. {_remedy('parallelize_module or distribute_tensor')}"
            )


def _remedy(before: str) -> str:
    return _REMEDY.format(before=before)


def _loaded(name: str) -> ModuleType | None:
    """Returns a module of torch that something has imported; what it defines cannot be met before."""
    return sys.modules.get(name)


def _is_lazy(parameter: nn.Parameter) -> bool:
    return isinstance(parameter, nn.UninitializedParameter)
