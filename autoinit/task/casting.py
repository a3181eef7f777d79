"""Which dtype the numbers of the data take: those that a model computes in, as long as these can hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .batches import Batch, map_tensors, tensors

TARGET_KEYS = ("labels", "label", "targets", "target", "y")
"""Keys under which dict batches carry what is to be predicted."""

SAFE = torch.float32
"""What numbers stay in, or go to, that would overflow in a model's own dtype."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The dtypes that floating-point numbers of the data are cast to.

    A cast may round, and never makes a finite number infinite: float16 ends at 65,504. What does not fit is float32.

    Attributes:
        inputs: of what the model reads.
        targets: of what its output is compared with.
    """

    inputs: torch.dtype = torch.float32
    targets: torch.dtype = torch.float32

    @classmethod
    def of(cls, model: nn.Module) -> Numbers:
        """Returns the dtype of a model's first parameter, where data enter, and of its first trained one.

        An output is computed behind what is trained.
        """
        floats = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
        trained = [parameter.dtype for parameter in floats if parameter.requires_grad]
        first = floats[0].dtype if floats else torch.float32
        return cls(first, trained[0] if trained else first)

    @classmethod
    def all_in(cls, dtype: torch.dtype) -> Numbers:
        """Returns the numbers of a model of one dtype."""
        return cls(dtype, dtype)

    def cast(self, batches: Sequence[Batch]) -> list[Batch]:
        """Returns the batches with their floating-point tensors in these dtypes, alike in all of them."""
        parts = [(tensor, target) for batch in batches for tensor, target in _marked(batch)]
        wide = Numbers(
            *(
                _holding(dtype, [tensor for tensor, target in parts if target == is_target])
                for dtype, is_target in ((self.inputs, False), (self.targets, True))
            )
        )
        return [wide._cast(batch) for batch in batches]

    def cast_one(self, tensor: Tensor, *, target: bool) -> Tensor:
        """Returns one tensor of the data in its dtype."""
        if not tensor.is_floating_point():
            return tensor
        return tensor.to(_holding(self.targets if target else self.inputs, [tensor]))

    def _cast(self, batch: Batch) -> Batch:
        targets = {id(tensor) for tensor, target in _marked(batch) if target}

        def cast(tensor: Tensor) -> Tensor:
            return tensor.to(self.targets if id(tensor) in targets else self.inputs)

        return map_tensors(lambda tensor: cast(tensor) if tensor.is_floating_point() else tensor, batch)


def _holding(dtype: torch.dtype, parts: Sequence[Tensor]) -> torch.dtype:
    """Returns a dtype in which no finite number of some tensors becomes infinite."""
    ends = torch.finfo(dtype).max
    wider = [one for one in parts if one.is_floating_point() and torch.finfo(one.dtype).max > ends]
    if any(bool((one.to(dtype).isinf() & one.isfinite()).any()) for one in wider):
        return SAFE if dtype != SAFE else torch.float64
    return dtype


def _marked(batch: Any, target: bool = False) -> list[tuple[Tensor, bool]]:
    """Returns the tensors of a batch, and of each whether it is a target: the last part of a tuple, or by its key."""
    if isinstance(batch, Mapping):
        return [pair for key, item in batch.items() for pair in _marked(item, target or str(key) in TARGET_KEYS)]
    if isinstance(batch, (tuple, list)):
        last = len(batch) - 1
        return [pair for at, item in enumerate(batch) for pair in _marked(item, target or at == last > 0)]
    return [(tensor, target) for tensor in tensors(batch)]
