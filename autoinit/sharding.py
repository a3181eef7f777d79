"""Models of which a process holds only a part: told apart before anything is changed, with what to do instead."""

from __future__ import annotations

import sys
from types import ModuleType

from torch import nn

from .errors import ModelError

_REMEDY = (
    "Weights are chosen for whole tensors: do it in one process before the model is sharded, or on a smaller proxy "
    "(select(model, data, proxy=…)), and keep the plan with selection.plan.save('plan.json'). Then call "
    "autoinit.apply_(model, 'plan.json') in every process, before {before}: the same seed gives the same bits."
)


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
