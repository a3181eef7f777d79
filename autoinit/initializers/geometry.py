"""The matrices inside a tensor: which axes are outputs, inputs, groups and fused slices."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a tensor stacks matrices.

    Attributes:
        out_axes: axes that index outputs.
        in_axes: axes that are contracted with the input, kernel axes included.
        groups: of a convolution: axis 0 is that many blocks (of outputs; of inputs when transposed).
        slices: equal blocks along the first out axis (fused QKV, gates of a cell).
        kernel_axes: those of `in_axes` that run over the taps of a convolution's kernel.
        interleaved: the slices take turns along the first out axis, unit by unit, in the place of blocks.
        heads: of attention, equal blocks of the outputs of one slice (of the inputs, where it merges heads).
    """

    out_axes: tuple[int, ...] = (0,)
    in_axes: tuple[int, ...] = (1,)
    groups: int = 1
    slices: int = 1
    kernel_axes: tuple[int, ...] = ()
    heads: int = 1
    interleaved: bool = False

    def blocks(self, tensor: Tensor) -> Tensor:
        """Returns the matrices of a tensor, [blocks, rows (outputs), columns (inputs)], as a view or a copy."""
        return self._permuted(tensor).reshape(-1, *self._rows_and_columns(tensor))

    def scatter_(self, tensor: Tensor, blocks: Tensor) -> None:
        """Writes matrices as `blocks` returns them into a tensor, in place."""
        permuted = self._permuted(tensor)
        permuted.copy_(blocks.reshape(permuted.shape))

    def scale_rows_(self, tensor: Tensor, factors: Tensor) -> None:
        """Multiplies every output unit's weights by a factor of its own, in place.

        Args:
            tensor: of this geometry.
            factors: [blocks · rows], in the order of a bias, which is that of `blocks` where slices are blocks.
        """
        ordered = replace(self, interleaved=False)
        blocks = ordered.blocks(tensor)
        ordered.scatter_(tensor, blocks * factors.to(tensor).reshape(*blocks.shape[:2], 1))

    def taps(self, tensor: Tensor) -> int:
        """Returns the number of taps of a convolution's kernel; 1 where there is none."""
        return math.prod(tensor.shape[axis] for axis in self.kernel_axes)

    def centre(self, tensor: Tensor) -> tuple[Tensor, Geometry]:
        """Returns a view of the centre tap of every kernel, and its geometry; without kernel axes, all as it is.

        Of an even number of taps the centre is the one after the middle, as in `torch.nn.init.dirac_`.
        """
        kept = [axis for axis in range(tensor.ndim) if axis not in self.kernel_axes]
        view = tensor
        for axis in sorted(self.kernel_axes, reverse=True):
            view = view.select(axis, tensor.shape[axis] // 2)
        channels = replace(
            self,
            out_axes=tuple(kept.index(axis) for axis in self.out_axes),
            in_axes=tuple(kept.index(axis) for axis in self.in_axes if axis in kept),
            kernel_axes=(),
        )
        return view, channels

    def slice_views(self, tensor: Tensor) -> list[Tensor]:
        """Returns a view of each fused slice of the tensor."""
        axis = self.out_axes[0] if self.out_axes else 0
        if self.interleaved:
            return list(_split(tensor, axis, tensor.shape[axis] // self.slices).unbind(axis + 1))
        return list(tensor.chunk(self.slices, dim=axis))

    def _rows_and_columns(self, tensor: Tensor) -> tuple[int, int]:
        rows = math.prod(tensor.shape[axis] for axis in self.out_axes) // self.slices
        columns = math.prod(tensor.shape[axis] for axis in self.in_axes)
        if 0 in self.out_axes:
            return rows // self.groups, columns
        return rows, columns // self.groups

    def _permuted(self, tensor: Tensor) -> Tensor:
        """Returns a view with the axes (stacked …, groups, slices, outputs …, inputs …).

        An axis that is neither an output nor an input stacks matrices, as the experts of a mixture do.
        """
        stacked = [axis for axis in range(tensor.ndim) if axis not in (*self.out_axes, *self.in_axes)]
        order = [*stacked, *self.out_axes, *self.in_axes]
        view = tensor.permute(order)
        first_out = len(stacked)
        grouped = order.index(0) if self.groups > 1 else first_out
        view = _split(view, grouped, self.groups).movedim(grouped, first_out)
        if self.interleaved:
            return _split(view, first_out + 1, view.shape[first_out + 1] // self.slices).movedim(
                first_out + 2, first_out + 1
            )
        return _split(view, first_out + 1, self.slices)


def _split(tensor: Tensor, axis: int, count: int) -> Tensor:
    """Returns a view with one axis split into `count` blocks."""
    shape = tensor.shape
    return tensor.reshape(*shape[:axis], count, shape[axis] // count, *shape[axis + 1 :])
