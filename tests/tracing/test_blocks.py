"""Gates and attention, found in what autograd recorded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from block_net import D, Net, read
from torch import Tensor

GATES: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "GLU": lambda m, x: m.c(torch.sigmoid(m.a(x)) * m.b(x)),
    "SwiGLU": lambda m, x: m.c(F.silu(m.a(x)) * m.b(x)),
    "written-out SwiGLU": lambda m, x: m.c(m.b(x) * (m.a(x) * torch.sigmoid(m.a(x)))),
    "reversed": lambda m, x: m.c(m.b(x) * F.gelu(m.a(x))),
    "squeeze and excitation": lambda m, x: m.b(x) * torch.sigmoid(m.a(x.mean(1, keepdim=True))),
}


@pytest.mark.parametrize("name", GATES)
def test_gates(name: str) -> None:
    graph = read(GATES[name])
    assert graph["a.weight"].role == "gate"
    assert graph["b.weight"].role == "hidden"
    assert str(graph["b.weight"].activation) == "linear"


def test_a_gate_at_the_end_of_a_branch_does_not_close_it() -> None:
    graph = read(lambda m, x: x + torch.relu(m.b(x)) * torch.sigmoid(m.a(x.mean(1, keepdim=True))))
    assert not graph["a.weight"].closes_branch
    assert graph["b.weight"].closes_branch


def test_a_router_is_kept() -> None:
    def block(m: Net, x: Tensor) -> Tensor:
        share = torch.softmax(F.linear(x, m.a.weight[:2]), -1)
        best, _ = share.topk(2, -1)
        best = best / best.sum(-1, keepdim=True)
        return x + best[..., :1] * m.b(x) + best[..., 1:] * m.c(x)

    graph = read(block)
    assert graph["a.weight"].role == "router"
    assert "routes" in graph["a.weight"].keep


def attention(m: Net, x: Tensor) -> Tensor:
    q, k, v = m.a(x), m.b(x), m.c(x)
    return x + m.d(torch.softmax(q @ k.transpose(1, 2) / D**0.5, -1) @ v)


def masked(m: Net, x: Tensor) -> Tensor:
    q, k, v = m.a(x) * D**-0.5, m.b(x), m.c(x)
    scores = torch.einsum("bqd,bkd->bqk", q, k)
    scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), float("-inf"))
    return x + m.d(torch.einsum("bqk,bkd->bqd", F.dropout(scores.softmax(-1), 0.1), v))


def normalized(m: Net, x: Tensor) -> Tensor:
    q, k, v = F.normalize(m.a(x), dim=-1), F.normalize(m.b(x), dim=-1), m.c(x)
    return x + m.d(F.scaled_dot_product_attention(q, k, v, scale=4.0))


@pytest.mark.parametrize("block", [attention, masked, normalized])
def test_attention(block: Callable[[Net, Tensor], Tensor]) -> None:
    graph = read(block)
    roles = [graph[f"{name}.weight"].role for name in "abcd"]
    assert roles == ["query", "key", "value", "attention_out"]
    assert graph["d.weight"].closes_branch
    assert graph["a.weight"].normalized == (block is normalized)
