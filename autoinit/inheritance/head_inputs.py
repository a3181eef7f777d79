"""What a head is given: the features of batches, in evaluation mode, and the targets that belong to them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import USER_ERRORS, ArgumentError, DataError, ModelError, described, did_you_mean
from ..task.batches import Batch, describe, move
from ..task.checks import check_memory
from ..task.evaluation import eval_mode, uncompiled
from ..task.losses import split
from ..task.snapshot import Traces


@dataclass(frozen=True)
class HeadInputs:
    """What a linear layer is given, and what is wanted of it.

    Attributes:
        layer: the head.
        names: of its weight and, where it has one, its bias.
        features: [rows, inputs], float64, on the CPU.
        targets: [rows], or [rows, numbers] where there are several for each row; in their own dtype, on the CPU.
    """

    layer: nn.Linear
    names: tuple[str, ...]
    features: Tensor
    targets: Tensor


def head_inputs(model: nn.Module, batches: Iterable[Batch], head: str) -> HeadInputs:
    """Returns the features of batches as a model gives them to its head; the model is left as it was.

    The passes are made in evaluation mode and without gradients. What they leave (statistics, the state of modules and
    of random generators) is put back.

    Args:
        model: on the device where the passes are to be made.
        batches: (inputs, targets) each, or a mapping with labels.
        head: path of a linear layer that is called once in a pass.

    Raises:
        ArgumentError: there is no such layer.
        ModelError: the layer shares its weight, is not called once, or the model fails on a batch.
        DataError: there is no batch, one has no targets, or features are not finite.
    """
    layer = _linear(model, head)
    names = ("weight",) if layer.bias is None else ("weight", "bias")
    check_memory(layer.weight.device, "take features of")
    features: list[Tensor] = []
    targets: list[Tensor] = []
    with _watched(model, layer) as given:
        for batch in batches:
            target = _passed(model, batch)
            if len(given) != 1:
                raise ModelError(f"{head or 'The head'} is called {len(given)} times in a pass; a head is called once.")
            inputs = given.pop()
            features.append(inputs.reshape(-1, inputs.shape[-1]).double().cpu())
            targets.append(_by_rows(target.detach().cpu(), len(features[-1])))
    if not features:
        raise DataError("There is no batch to take features of. Pass an iterable of (inputs, targets).")
    whole = torch.cat(features)
    if not bool(whole.isfinite().all()):
        raise DataError(f"The features that {head or 'the head'} is given are not finite.")
    return HeadInputs(layer, tuple(f"{head}.{name}" if head else name for name in names), whole, torch.cat(targets))


def _linear(model: nn.Module, head: str) -> nn.Linear:
    modules = dict(model.named_modules())
    layers = {path: module for path, module in modules.items() if isinstance(module, nn.Linear)}
    if head not in layers:
        what = f"a {type(modules[head]).__name__}" if head in modules else "no module"
        raise ArgumentError(f"head={head!r} is {what} of the model. {did_you_mean(head, layers)}")
    layer = layers[head]
    own = layer._parameters.get("weight")  # none where it is parametrized, and so shared with nothing
    sharing = [
        path
        for path, module in modules.items()
        if own is not None and module is not layer and any(value is own for value in module._parameters.values())
    ]
    if sharing:
        raise ModelError(f"{head} shares its weight with {sharing[0]}, which a start of the head would overwrite.")
    return layer


@contextlib.contextmanager
def _watched(model: nn.Module, layer: nn.Module) -> Iterator[list[Tensor]]:
    """Yields a list that gets what a layer is given in each pass, in evaluation mode; puts the model back after."""
    given: list[Tensor] = []
    traces = Traces(model)
    handle = layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
    try:
        with torch.no_grad(), uncompiled(), eval_mode(model):
            yield given
    finally:
        handle.remove()
        traces.wipe()


def _passed(model: nn.Module, batch: Batch) -> Tensor:
    """Passes a batch through a model; returns its targets."""
    device = next(model.parameters()).device
    positional, named, target = split(move(batch, device))
    if not isinstance(target, Tensor):
        raise DataError(f"A batch has no targets beside its inputs: got {describe(batch)}. Pass (inputs, targets).")
    try:
        model(*positional, **named)
    except USER_ERRORS as problem:
        raise ModelError(f"The model fails on a batch, {describe(batch)}: {described(problem)}") from problem
    return target


def _by_rows(target: Tensor, rows: int) -> Tensor:
    """Returns targets by the rows of the features that they belong to."""
    if target.numel() == rows:
        return target.reshape(rows)
    if target.dim() > 1 and target.numel() and target.numel() // target.shape[-1] == rows:
        return target.reshape(rows, target.shape[-1])
    raise DataError(
        f"The head is given {rows} rows of features for targets of shape {list(target.shape)}. Each row needs its own; "
        "a head that is averaged over places afterwards has none."
    )
