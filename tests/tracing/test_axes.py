"""Which axes of a weight are contracted, however it is turned before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autoinit.graph import Layer
from autoinit.tracing.axes import normalizes, offset
from autoinit.tracing.tracing import read_graph
from autoinit.tracing.walk import Edge, walk


def read(shape: tuple[int, ...], use: Callable[[Tensor], Tensor]) -> Layer:
    model = nn.ParameterDict({"w": nn.Parameter(torch.randn(shape))})
    return read_graph(model, lambda: use(model["w"]).tanh().sum())["w"]


X = torch.randn(2, 5, 6)


@pytest.mark.parametrize(
    ("shape", "use", "inside", "outside"),
    [
        ((6, 4), lambda w: X @ w, (0,), (1,)),
        ((4, 6), lambda w: X @ w.T, (1,), (0,)),
        ((4, 6), lambda w: X @ w.t().contiguous(), (1,), (0,)),
        ((4, 6), lambda w: X @ w.transpose(-1, -2), (1,), (0,)),
        ((4, 6), lambda w: w @ X.transpose(1, 2), (1,), (0,)),
        ((24,), lambda w: X @ w.view(4, 6).T, (0,), ()),
        ((4, 6, 1), lambda w: X @ w.squeeze(-1).permute(1, 0), (1,), (0,)),
        ((4, 6, 1, 1), lambda w: nn.functional.conv2d(X.transpose(1, 2)[..., None], w), (1, 2, 3), (0,)),
        ((2, 3, 6), lambda w: X @ w.reshape(6, 6).T, (2,), (0, 1)),
        ((6, 2, 3), lambda w: torch.einsum("btd,dhe->bhte", X, w), (0,), (1, 2)),
        ((2, 3, 6), lambda w: torch.einsum("btd,hed->bhte", X, w), (2,), (0, 1)),
        ((2, 6, 3), lambda w: torch.einsum("btd,hde->bhte", X, w), (1,), (0, 2)),
        ((6,), lambda w: X @ w, (0,), ()),
        ((6, 4), lambda w: X.bfloat16() @ w.bfloat16(), (0,), (1,)),
        ((2, 6, 4), lambda w: torch.bmm(X, w), (1,), (2,)),
    ],
)
def test_contracted_axes(
    shape: tuple[int, ...], use: Callable[[Tensor], Tensor], inside: tuple[int, ...], outside: tuple[int, ...]
) -> None:
    layer = read(shape, use)
    assert layer.in_axes == inside
    assert layer.out_axes == outside


@pytest.mark.parametrize(
    ("module", "fan_in", "fan_out"),
    [
        (nn.Conv1d(6, 4, 3), 18, 12),
        (nn.Conv1d(6, 4, 3, groups=2), 9, 6),
        (nn.Conv1d(6, 6, 3, groups=6), 3, 3),
        (nn.ConvTranspose1d(6, 4, 4, stride=2), 12, 16),
        (nn.ConvTranspose1d(6, 4, 3, groups=2), 9, 6),
        (nn.Conv1d(6, 4, 3, stride=2), 18, 12),
    ],
)
def test_fans_of_convolutions(module: nn.Module, fan_in: int, fan_out: int) -> None:
    layer = read_graph(module, lambda: module(X.transpose(1, 2)).sum())["weight"]
    assert (layer.fan_in, layer.fan_out) == (fan_in, fan_out)


def test_fan_in_is_the_variance_of_the_output() -> None:
    """With weights of variance 1/fan_in unit inputs give unit outputs; a transposed convolution's stride is counted."""
    for module, shape in (
        (nn.ConvTranspose2d(16, 8, 4, stride=2, bias=False), (4, 16, 12, 12)),
        (nn.Conv2d(16, 8, 3, groups=4, bias=False), (4, 16, 20, 20)),
        (nn.Bilinear(12, 10, 64, bias=False), (512, 12)),
    ):
        inputs = [torch.randn(shape)]
        if isinstance(module, nn.Bilinear):
            inputs.append(torch.randn(512, 10))
        layer = read_graph(module, lambda module=module, inputs=inputs: module(*inputs).sum())["weight"]
        with torch.no_grad():
            module.weight.normal_(0, layer.fan_in**-0.5)
            output = module(*inputs)
        inner = output[..., 4:-4, 4:-4] if output.dim() == 4 else output
        assert inner.var().item() == pytest.approx(1.0, rel=0.2)


def test_weight_standardization_is_told_from_plain_arithmetic() -> None:
    assert normalizes(frozenset({"Sub", "Div", "Std"}))
    assert normalizes(frozenset({"NativeBatchNorm", "View"}))
    assert not normalizes(frozenset({"Mul", "T"}))


PARTS: list[tuple[Callable[[Tensor], Tensor], int]] = [
    (lambda x: x[..., 4:8], 4),
    (lambda x: x[..., -4:], 8),
    (lambda x: x.narrow(-1, 4, 4), 4),
    (lambda x: x.unflatten(-1, (3, 4))[..., -1, :], 2),
    (lambda x: x.unflatten(-1, (3, 4))[..., 1, :], 1),
    (lambda x: x.chunk(3, -1)[2], 2),
    (lambda x: x.unflatten(-1, (3, 4)).unbind(-2)[1], 1),
]


@pytest.mark.parametrize("at", range(len(PARTS)))
def test_where_a_part_begins(at: int) -> None:
    cut, expected = PARTS[at]
    x = torch.randn(2, 5, 12, requires_grad=True)
    part = cut(x * 1.0)
    node = walk([part.grad_fn], {}, {}, {}, {})[-1]
    assert offset(Edge(node, part.output_nr)) == expected
