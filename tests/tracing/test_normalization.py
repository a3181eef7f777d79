"""Normalizations, fused or written by hand, and the weights whose scale they take."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from block_net import D, Net, read
from torch import Tensor

from autoinit.tracing.blocks import is_softmax
from autoinit.tracing.walk import Node, walk

NORMS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "LayerNorm": lambda m, x: torch.relu(m.norm(m.a(x))),
    "GroupNorm": lambda m, x: torch.relu(F.group_norm(m.a(x), 2)),
    "RMSNorm": lambda m, x: torch.relu(F.rms_norm(m.a(x), (D,))),
    "BatchNorm": lambda m, x: torch.relu(F.batch_norm(m.a(x).transpose(1, 2), None, None, training=True)).mT,
    "by hand": lambda m, x: torch.relu(rms(m.a(x))),
    "mean and deviation by hand": lambda m, x: torch.relu(standard(m.a(x))),
    "after pooling": lambda m, x: torch.relu(m.norm(m.a(x).mean(1))),
}


def rms(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def standard(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("name", NORMS)
def test_a_normalization_takes_the_scale(name: str) -> None:
    graph = read(NORMS[name])
    assert graph["a.weight"].normalized
    assert str(graph["a.weight"].activation) == "relu"


@pytest.mark.parametrize(
    "block",
    [
        lambda m, x: m.norm(torch.relu(m.a(x))),
        lambda m, x: m.norm(x + m.a(torch.relu(m.b(x)))),
        lambda m, x: m.norm(m.a(x)) + torch.relu(m.b(torch.relu(m.a(x)))),
    ],
)
def test_the_scale_counts_before_a_nonlinearity_or_a_residual_add(block: Callable[[Net, Tensor], Tensor]) -> None:
    assert not read(block)["a.weight"].normalized


def test_a_softmax_by_hand_is_told_from_other_quotients() -> None:
    def last(x: Tensor, f: Callable[[Tensor], Tensor]) -> Node:
        return walk([f(x.requires_grad_()).grad_fn], {}, {}, {}, {})[-1]

    x = torch.randn(3, 4)
    assert is_softmax(last(x, lambda x: x.exp() / x.exp().sum()))
    assert is_softmax(last(x, lambda x: (e := x.exp()) / (e.sum(-1, keepdim=True) + 1e-9)))
    assert is_softmax(last(x, lambda x: (e := x.exp())[:2] / torch.zeros(4).index_add(0, torch.arange(3), e[:, 0])[:1]))
    assert not is_softmax(last(x, lambda x: x.exp() / (1 + x.sum())))
    assert not is_softmax(last(x, lambda x: x / x.norm()))
