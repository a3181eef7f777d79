"""Where the elements of a weight lie after reshapes and turns, checked against their true positions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from autoinit.tracing.layout import block_axis, dim_of, moved, of_data, of_parameter
from autoinit.tracing.walk import Node

SHAPE = (12, 4)


def node_of(value: Tensor) -> Node:
    assert value.grad_fn is not None
    return Node(value.grad_fn.name().removesuffix("Backward0"), value.grad_fn, shapes=(tuple(value.shape),))


@pytest.mark.parametrize(
    ("turn", "cut", "axis"),
    [
        (lambda w: w, lambda w: w[3:6], 0),
        (lambda w: w, lambda w: w[:, 1:3], 1),
        (lambda w: w.t(), lambda w: w[:, 3:6], 0),
        (lambda w: w.transpose(0, -1), lambda w: w.select(-1, 2), 0),
        (lambda w: w.unsqueeze(1), lambda w: w[3:6], 0),
        (lambda w: w.view(3, 4, 4), lambda w: w[1], 0),
        (lambda w: w.view(3, 4, 4), lambda w: w[:, 1], None),
        (lambda w: w.view(3, 4, 4), lambda w: w[:, :, 1:3], 1),
        (lambda w: w.view(2, 6, 4), lambda w: w[:, :2], None),
        (lambda w: w.view(3, 4, 4).permute(1, 0, 2), lambda w: w[:, 1], 0),
        (lambda w: w.view(3, 4, 4).permute(1, 0, 2).reshape(12, 4), lambda w: w[:4], None),
        (lambda w: w.view(3, 4, 4).view(12, 4), lambda w: w[4:8], 0),
        (lambda w: w.view(3, 2, 2, 4).view(6, 8), lambda w: w[2:4], 0),
        (lambda w: w.view(48), lambda w: w[16:32], 0),
        (lambda w: w.view(48), lambda w: w[2:4], None),
        (lambda w: w.view(8, 6), lambda w: w[:2], None),
        (lambda w: w.tanh().clone(), lambda w: w[3:6], 0),
        (lambda w: w.cumsum(0), lambda w: w[3:6], None),
    ],
)
def test_a_cut_is_a_block_of_neighbours_or_not(
    turn: Callable[[Tensor], Tensor], cut: Callable[[Tensor], Tensor], axis: int | None
) -> None:
    weight = torch.zeros(SHAPE, requires_grad=True)
    value, layout = turn(weight), of_parameter(SHAPE)
    chain, fn = [], value.grad_fn
    while fn is not None and fn.name() != "torch::autograd::AccumulateGrad":
        chain.append(fn)
        fn = fn.next_functions[0][0]
    before: tuple[int, ...] = SHAPE
    for fn in reversed(chain):
        shape = tuple(fn._input_metadata[0].shape)
        layout = moved(Node(fn.name().removesuffix("Backward0"), fn, shapes=(shape,)), layout, before)
        before = shape
    assert block_axis(node_of(cut(value)), 0, layout) == axis


def test_data_has_no_axis_of_a_parameter() -> None:
    value = torch.zeros(SHAPE, requires_grad=True)[3:6]
    assert block_axis(node_of(value), 0, of_data(SHAPE)) is None


def test_negative_axes_are_counted_from_the_end() -> None:
    assert [dim_of(dim, 3) for dim in (0, 2, -1, 2**64 - 1)] == [0, 2, 2, 2]
