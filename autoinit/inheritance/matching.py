"""Which tensor of a model is which of a checkpoint: under other prefixes, with fewer rows, or not at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from ..errors import ModelError, SourceError
from ..task.assign import derived_name, lasting_buffers, read
from ..text import few
from .checkpoints import Checkpoint, Source, read_checkpoint
from .prefixes import Prefix, best_names, has_more_rows

_Shape = tuple[int, ...]


@dataclass(frozen=True)
class Matching:
    """Which parameters and buffers of a model a checkpoint has.

    A tensor that a model has under several names is here under its first one; a parametrized weight under the name of
    the weight, unless the checkpoint has the tensors that it is derived from.

    Attributes:
        checkpoint: the trained weights.
        same: name of a tensor of the model → name of the checkpoint's tensor of the same shape.
        rows: the same, where the model's has more rows: the checkpoint's are its first ones.
        new: parameters of the model that the checkpoint does not have.
        new_buffers: buffers that belong to the model's state and that the checkpoint does not have.
        unused: tensors of the checkpoint that the model has no place for.
        notes: what is to be known beside, in whole sentences.
    """

    checkpoint: Checkpoint
    same: Mapping[str, str]
    rows: Mapping[str, str]
    new: tuple[str, ...]
    new_buffers: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def differs(self, model: nn.Module) -> list[str]:
        """Returns the names of tensors whose values in a model are not those of the checkpoint, in the model's dtype.

        Of a tensor with more rows the first ones are compared. What holds no values (on the meta device) differs.

        Args:
            model: the one that was matched, or another with the same names.
        """
        buffers = dict(model.named_buffers())
        return [
            name
            for name, stored in (*self.same.items(), *self.rows.items())
            if not _equal(buffers[name] if name in buffers else read(model, name), self.checkpoint.tensor(stored))
        ]


def matched(model: nn.Module, weights: Source) -> Matching:
    """Returns which parameters and buffers of a model are which tensors of trained weights; no numbers are read.

    Names may begin otherwise on either side (a wrapper's, a base model's prefix): the prefixes are taken under which
    most tensors have a place. A tensor whose first axis is longer than the checkpoint's has new rows.

    Args:
        model: whose names and shapes are looked at.
        weights: whatever `read_checkpoint` reads.

    Raises:
        SourceError: the weights cannot be read, nothing of them fits, two prefixes fit as well as each other, or some
            have other shapes than the model's.
        ModelError: a parameter of the model has no shape before its first batch.
    """
    checkpoint = read_checkpoint(weights)
    tensors = _tensors(model)
    buffers = {name for name, tensor in tensors.items() if tensor.is_buffer}
    originals_of = _derived(tensors)
    shapes = {name: tensor.shape for tensor in tensors.values() for name in tensor.names}
    shapes |= {name: tuple(read(model, name).shape) for name in originals_of}
    names = best_names(shapes, checkpoint)
    found = {name: names.first_of(tensor.names) for name, tensor in tensors.items()}
    for derived, originals in originals_of.items():
        if not all(found[name] for name in originals):
            found = {name: stored for name, stored in found.items() if name not in originals}
            found[derived] = names.of(derived)
    same, rows = _by_shape({name: stored for name, stored in found.items() if stored}, shapes, checkpoint)
    lacking = [name for name, stored in found.items() if not stored]
    taken = {names.of(name) for tensor in tensors.values() for name in tensor.names} | set(found.values())
    return Matching(
        checkpoint,
        same,
        rows,
        new=tuple(name for name in lacking if name not in buffers),
        new_buffers=tuple(name for name in lacking if name in buffers),
        unused=tuple(name for name in checkpoint.names if name not in taken),
        notes=(*checkpoint.notes, *_renamed(names.prefix, checkpoint.title)),
    )


@dataclass(frozen=True)
class _Tensor:
    """A parameter or a buffer of a model: all names that it has, and its shape."""

    names: tuple[str, ...]
    shape: _Shape
    is_buffer: bool


def _tensors(model: nn.Module) -> dict[str, _Tensor]:
    """Returns what a model's state consists of, each tensor once, by its first name."""
    found: dict[int, list[str]] = defaultdict(list)
    held: dict[int, Tensor] = {}
    for name, tensor in (*model.named_parameters(remove_duplicate=False), *lasting_buffers(model, every_name=True)):
        if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
            raise ModelError(f"{name} gets its shape from the first batch. Pass one through the model before.")
        found[id(tensor)].append(name)
        held[id(tensor)] = tensor
    return {
        names[0]: _Tensor(tuple(names), tuple(held[key].shape), not isinstance(held[key], nn.Parameter))
        for key, names in found.items()
    }


def _derived(tensors: Mapping[str, _Tensor]) -> dict[str, list[str]]:
    """Returns name of a parametrized weight → names of the parameters that it is derived from."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        if derived_name(name) != name and not tensor.is_buffer:
            found[derived_name(name)].append(name)
    return found


def _renamed(prefix: Prefix, title: str) -> tuple[str, ...]:
    return (prefix.told(title),) if prefix != Prefix() else ()


def _by_shape(
    found: Mapping[str, str], shapes: Mapping[str, _Shape], checkpoint: Checkpoint
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns those of the same shape, and those with more rows in the model."""
    same: dict[str, str] = {}
    rows: dict[str, str] = {}
    unfit: list[str] = []
    for name, stored in found.items():
        shape, kept = shapes[name], checkpoint.shapes[stored]
        if shape == kept:
            same[name] = stored
        elif has_more_rows(shape, kept):
            rows[name] = stored
        else:
            unfit.append(f"{name} is {list(shape)}, there {list(kept)}")
    if unfit:
        raise SourceError(
            f"{len(unfit)} of {len(found)} tensors have another shape in {checkpoint.title} than in the model: "
            f"{few(unfit)}. Pass weights of the same architecture; what is meant to start anew, a head for other "
            "classes for example, is left out by read_checkpoint(…).without(name, …)."
        )
    return same, rows


def _equal(value: Tensor, stored: Tensor) -> bool:
    """Whether the first rows of a tensor are the stored ones in its dtype; NaN equals NaN."""
    if value.is_meta or stored.is_meta:
        return False
    rows = value.detach() if value.dim() == 0 else value.detach()[: len(stored)]
    kept = stored.to(rows.device, rows.dtype)
    return bool(torch.equal(rows, kept) or ((rows == kept) | ((rows != rows) & (kept != kept))).all())
