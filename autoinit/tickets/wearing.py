"""A ticket put on a model: the weights set, and masks that training keeps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from ..errors import SourceError
from ..task.assign import assign_all, is_parametrized, lasting_buffers
from ..task.snapshot import Snapshot, uninterrupted
from ..text import few
from .prunable import places


def check_fits(model: nn.Module, masks: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None) -> None:
    """Raises SourceError where a ticket is of another architecture, or its masks cannot be put on.

    Args:
        model: to put it on.
        masks: by name of the weight.
        weights: all parameters and buffers; None where the model's own stay.
    """
    own = dict(model.named_parameters())
    if any(
        isinstance(hook, prune.BasePruningMethod) for m in model.modules() for hook in m._forward_pre_hooks.values()
    ):
        raise SourceError(
            "The model has masks of torch.nn.utils.prune already. Make them permanent by prune.remove(module, name), "
            "or make the model anew."
        )
    _check_same({name: own.get(name) for name in masks}, masks)
    if held := [name for name in masks if is_parametrized(model, name)]:
        raise SourceError(f"{few(held)}: parametrized in this model, on which torch.nn.utils.prune can put no mask.")
    if weights is not None:
        mine = {**own, **dict(lasting_buffers(model))}
        _check_same({**mine, **{name: mine.get(name) for name in weights}}, weights)


def _check_same(mine: Mapping[str, Tensor | None], theirs: Mapping[str, Tensor]) -> None:
    differ = [
        f"{name} ({_shape(mine[name])} in the model, {_shape(theirs.get(name))} in the ticket)"
        for name in mine
        if _shape(mine[name]) != _shape(theirs.get(name))
    ]
    if differ:
        raise SourceError(f"The ticket is of another architecture: {few(differ)}. Put it on a model like its own.")


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else "×".join(map(str, tensor.shape)) or "a number"


def wear(model: nn.Module, masks: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None) -> None:
    """Sets the weights of a ticket and puts its masks on, whole or not at all; Ctrl-C waits until it is done.

    A tied weight gets the mask in every module that holds it, and stays tied.

    Args:
        model: `check_fits` has found nothing amiss with it.
        masks: by name of the weight.
        weights: all parameters and buffers; None where the model's own stay.
    """
    snapshot = Snapshot(model)
    with uninterrupted():
        try:
            found = [(list(places(model, model.get_parameter(name))), mask) for name, mask in masks.items()]
            if weights is not None:
                assign_all(model, weights)
            with torch.no_grad():  # what a module then has under the weight's name can be copied, as before
                for homes, mask in found:
                    for module, name in homes:
                        prune.custom_from_mask(module, name, mask.to(module._parameters[name].device))  # type: ignore[union-attr, no-untyped-call]
        except BaseException:
            snapshot.restore(failed=True)
            raise
