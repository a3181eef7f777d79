"""The weights around attentions: groups, heads, cross attention; the same on the CPU and the meta device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo import ZOO, on_meta

from autoinit.graph import Graph
from autoinit.tracing.tracing import read_graph

WIDTH = 8


class Net(nn.Module):
    """A stem, projections of every width, and a head around attention that the test writes."""

    def __init__(self, block: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.other, self.head = nn.Linear(3, WIDTH), nn.Linear(3, WIDTH), nn.Linear(WIDTH, 2)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.narrow_k, self.narrow_v = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 4)
        self.all, self.some, self.pair = nn.Linear(WIDTH, 24), nn.Linear(WIDTH, 16), nn.Linear(WIDTH, 16)
        self.down, self.up = nn.Linear(WIDTH, 4), nn.Linear(4, WIDTH)
        self.shrink = nn.Conv1d(WIDTH, WIDTH, 2, 2)
        self.heads = nn.Parameter(torch.randn(2, WIDTH, 4))
        self.norm = nn.LayerNorm(4)
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self, self.stem(x)))


def read(block: Callable[[Net, Tensor], Tensor], device: str = "cpu") -> Graph:
    net = Net(block).to(device)
    x = torch.randn(2, 6, 3, device=device)
    return read_graph(net, lambda: net(x).pow(2).mean())


def split(x: Tensor, each: int) -> Tensor:
    """[batch, time, heads·each] → [batch, heads, time, each]."""
    return x.unflatten(-1, (-1, each)).transpose(1, 2)


def join(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-1, -2) * 0.5, -1) @ v


def turned(x: Tensor) -> Tensor:
    """Rotary positions on half of each head."""
    kept, moved = x.chunk(2, -1)
    return torch.cat([kept, moved * 0.8 + torch.cat([-moved[..., 1:], moved[..., :1]], -1) * 0.6], -1)


def separate(m: Net, x: Tensor) -> Tensor:
    q, k, v = (split(linear(x), 4) for linear in (m.q, m.k, m.v))
    return x + m.out(join(F.scaled_dot_product_attention(q, k, v)))


def written_out(m: Net, x: Tensor) -> Tensor:
    q, k, v = (split(linear(x), 2) for linear in (m.q, m.k, m.v))
    return x + m.out(join(by_hand(q, k, v)))


def one_head(m: Net, x: Tensor) -> Tensor:
    return x + m.out(by_hand(m.q(x), m.k(x), m.v(x)))


def grouped(m: Net, x: Tensor) -> Tensor:
    q, k, v = split(m.q(x), 2), split(m.narrow_k(x), 2), split(m.narrow_v(x), 2)
    return x + m.out(join(by_hand(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1))))


def one_key_for_all(m: Net, x: Tensor) -> Tensor:
    q, k, v = split(m.q(x), 4), m.narrow_k(x)[:, None], m.narrow_v(x)[:, None]
    return x + m.out(join(F.scaled_dot_product_attention(q, k.expand_as(q), v.expand_as(q))))


def rotary(m: Net, x: Tensor) -> Tensor:
    q, k, v = turned(split(m.q(x), 4)), turned(split(m.k(x), 4)), split(m.v(x), 4)
    return x + m.out(join(F.scaled_dot_product_attention(q, k, v)))


def normed(m: Net, x: Tensor) -> Tensor:
    q, k, v = m.norm(split(m.q(x), 4)), m.norm(split(m.k(x), 4)), split(m.v(x), 4)
    return x + m.out(join(F.scaled_dot_product_attention(q, k, v)))


def fused(m: Net, x: Tensor) -> Tensor:
    q, k, v = (split(part, 2) for part in m.all(x).chunk(3, -1))
    return x + m.out(join(by_hand(q, k, v)))


def fused_rotary(m: Net, x: Tensor) -> Tensor:
    q, k, v = m.all(x).unflatten(-1, (2, 12)).transpose(1, 2).chunk(3, -1)
    return x + m.out(join(F.scaled_dot_product_attention(turned(q), turned(k), v)))


def fused_grouped(m: Net, x: Tensor) -> Tensor:
    q, k, v = (split(part, 2) for part in m.some(x).split([8, 4, 4], -1))
    return x + m.out(join(by_hand(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1))))


def fused_pair(m: Net, x: Tensor) -> Tensor:
    k, v = (split(part, 4) for part in m.pair(x).chunk(2, -1))
    return x + m.out(join(F.scaled_dot_product_attention(split(m.q(x), 4), k, v)))


def weight_per_head(m: Net, x: Tensor) -> Tensor:
    q = torch.einsum("btd,hde->bhte", x, m.heads)
    return x + m.out(join(by_hand(q, split(m.k(x), 4), split(m.v(x), 4))))


def low_rank(m: Net, x: Tensor) -> Tensor:
    q, k, v = split(m.up(m.down(x)), 4), split(m.k(x), 4), split(m.v(x), 4)
    return x + m.out(join(F.scaled_dot_product_attention(q, k, v)))


def latent(m: Net, x: Tensor) -> Tensor:
    """DeepSeek: keys and values from a few latents, and rotary channels beside these for all heads."""
    latents, place = m.narrow_k(x).split([2, 2], -1)
    k = split(F.linear(latents, m.down.weight[:, :2]), 2)
    k = torch.cat([k, place[:, None].expand(-1, 2, -1, -1)], -1)
    v = split(F.linear(latents, m.k.weight[:, :2]), 4)
    return x + m.out(join(F.scaled_dot_product_attention(split(m.q(x), 4), k, v)))


HEADS: dict[Callable[[Net, Tensor], Tensor], dict[str, int]] = {
    separate: {"q.weight": 2, "k.weight": 2, "v.weight": 2, "out.weight": 2},
    written_out: {"q.weight": 4, "k.weight": 4, "v.weight": 4, "out.weight": 4},
    one_head: {"q.weight": 1, "k.weight": 1, "v.weight": 1, "out.weight": 1},
    grouped: {"q.weight": 4, "narrow_k.weight": 2, "narrow_v.weight": 2, "out.weight": 4},
    one_key_for_all: {"q.weight": 2, "narrow_k.weight": 1, "narrow_v.weight": 1, "out.weight": 2},
    rotary: {"q.weight": 2, "k.weight": 2, "v.weight": 2, "out.weight": 2},
    normed: {"q.weight": 2, "k.weight": 2, "v.weight": 2, "out.weight": 2},
    fused: {"all.weight": 4, "out.weight": 4},
    fused_rotary: {"all.weight": 2, "out.weight": 2},
    fused_grouped: {"some.weight": 4, "out.weight": 4},
    fused_pair: {"q.weight": 2, "pair.weight": 2, "out.weight": 2},
    weight_per_head: {"heads": 2, "k.weight": 2, "v.weight": 2, "out.weight": 2},
    latent: {"q.weight": 2, "k.weight": 2, "down.weight": 2, "out.weight": 2},
    low_rank: {"up.weight": 2, "k.weight": 2, "v.weight": 2, "out.weight": 2},
}


@pytest.mark.parametrize("block", HEADS, ids=lambda block: block.__name__)
def test_heads_and_groups(block: Callable[[Net, Tensor], Tensor]) -> None:
    graph, expected = read(block), HEADS[block]
    group = next(iter(expected)) if block is not weight_per_head else "heads"
    found = {name: (layer.heads, layer.attention) for name, layer in graph.items() if layer.attention}
    assert found == {name: (count, group) for name, count in expected.items()}
    assert all(layer.heads == 0 for layer in graph.layers if not layer.attention)
    assert not any(layer.cross or layer.stack for layer in graph.layers)
    assert read(block, "meta") == graph


ZOO_HEADS = {
    "encoder_pre_ln": ("encoder.layers.1.self_attn.in_proj_weight", {"in_proj_weight": 2, "out_proj.weight": 2}),
    "encoder_post_ln": ("encoder.layers.0.self_attn.in_proj_weight", {"in_proj_weight": 2, "out_proj.weight": 2}),
    "einsum_attention": ("wq", {"wq": 2, "wk": 2, "wv": 2, "wo": 2}),
    "gpt2": ("transformer.h.1.attn.c_attn.weight", {"c_attn.weight": 2, "c_proj.weight": 2}),
    "llama": (
        "model.layers.1.self_attn.q_proj.weight",
        {"q_proj.weight": 4, "k_proj.weight": 2, "v_proj.weight": 2, "o_proj.weight": 4},
    ),
    "mixtral": (
        "model.layers.0.self_attn.q_proj.weight",
        {"q_proj.weight": 4, "k_proj.weight": 2, "v_proj.weight": 2, "o_proj.weight": 4},
    ),
    "bert": (
        "bert.encoder.layer.1.attention.self.query.weight",
        {"self.query.weight": 2, "self.key.weight": 2, "self.value.weight": 2, "output.dense.weight": 2},
    ),
    "vit": (
        "vit.layers.0.attention.q_proj.weight",
        {"q_proj.weight": 2, "k_proj.weight": 2, "v_proj.weight": 2, "o_proj.weight": 2},
    ),
    "t5": (
        "decoder.block.1.layer.1.EncDecAttention.q.weight",
        {"q.weight": 2, "k.weight": 2, "v.weight": 2, "o.weight": 2},
    ),
}


@pytest.mark.parametrize("name", ZOO_HEADS)
def test_heads_and_groups_of_known_models(name: str) -> None:
    case = ZOO[name]()
    graph = read_graph(case.model, lambda: case.loss(case.model, case.batch))
    group, heads = ZOO_HEADS[name]
    members = [layer for layer in graph.layers if layer.attention == group]
    assert len(members) == len(heads)
    for layer in members:
        assert [count for end, count in heads.items() if layer.name.endswith(end)] == [layer.heads], layer.name
    if name != "t5":
        assert not any(layer.cross for layer in graph.layers)


def test_a_weight_of_several_attentions_belongs_to_the_first() -> None:
    def block(m: Net, x: Tensor) -> Tensor:
        for query in (m.q, m.up):
            q = query(x[..., :4]) if query is m.up else query(x)
            x = x + m.out(join(F.scaled_dot_product_attention(split(q, 4), split(m.k(x), 4), split(m.v(x), 4))))
        return x

    graph = read(block)
    assert [graph[f"{name}.weight"].attention for name in ("q", "k", "v", "out")] == ["q.weight"] * 4
    assert graph["up.weight"].attention == "up.weight"


def cross(m: Net, x: Tensor) -> Tensor:
    memory = torch.tanh(m.other(torch.randn(2, 4, 3, device=x.device)))
    q, k, v = split(m.q(x), 4), split(m.k(memory), 4), split(m.v(memory), 4)
    return x + m.out(join(F.scaled_dot_product_attention(q, k, v)))


def reduced_keys(m: Net, x: Tensor) -> Tensor:
    """PVT: keys and values are a strided convolution of the same stream."""
    less = m.shrink(x.transpose(1, 2)).transpose(1, 2)
    q, k, v = split(m.q(x), 4), split(m.k(less), 4), split(m.v(less), 4)
    return x + m.out(join(F.scaled_dot_product_attention(q, k, v)))


def class_token(m: Net, x: Tensor) -> Tensor:
    """CaiT: one token looks at all."""
    q, k, v = split(m.q(x[:, :1]), 4), split(m.k(x), 4), split(m.v(x), 4)
    return x[:, :1] + m.out(join(F.scaled_dot_product_attention(q, k, v)))


def earlier_keys(m: Net, x: Tensor) -> Tensor:
    """Keys and values of the first layer serve the second one too (YOCO)."""
    k, v = split(m.k(x), 4), split(m.v(x), 4)
    y = x + m.up(torch.relu(m.down(x)))
    return y + m.out(join(F.scaled_dot_product_attention(split(m.q(y), 4), k, v)))


def positions(m: Net, x: Tensor) -> Tensor:
    """DETR: positions are added to queries and keys alone, each time anew."""
    place = torch.ones(6, WIDTH, device=x.device)
    q, k, v = split(m.q(x + place), 4), split(m.k(x + 2 * place), 4), split(m.v(x), 4)
    return x + m.out(join(F.scaled_dot_product_attention(q, k, v)))


@pytest.mark.parametrize("block", [cross, reduced_keys, class_token, earlier_keys, positions])
def test_keys_of_another_stream(block: Callable[[Net, Tensor], Tensor]) -> None:
    graph = read(block)
    assert {layer.cross for layer in graph.layers if layer.attention} == {block is cross}
    assert read(block, "meta") == graph


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("norm_first", [True, False])
def test_cross_attention_of_an_encoder_and_decoder(norm_first: bool) -> None:
    model = nn.Transformer(8, 2, 2, 2, 16, batch_first=True, norm_first=norm_first)
    model = nn.ModuleDict({"left": nn.Linear(3, 8), "right": nn.Linear(3, 8), "body": model})  # type: ignore[assignment]
    left, right = torch.randn(2, 5, 3), torch.randn(2, 4, 3)

    def run(parts: nn.Module, left: Tensor, right: Tensor) -> Tensor:
        part = dict(parts.named_children())
        return torch.as_tensor(part["body"](part["left"](left), part["right"](right))).pow(2).mean()

    graph = read_graph(model, lambda: run(model, left, right))
    crossed = [f"body.decoder.layers.{at}.multihead_attn" for at in range(2)]
    expected = [f"{path}.{name}" for path in crossed for name in ("in_proj_weight", "out_proj.weight")]
    assert [name for name, layer in graph.items() if layer.cross] == expected
    assert {layer.heads for layer in graph.layers if layer.attention} == {2}
    bare, a, b = on_meta(model), on_meta(left), on_meta(right)
    assert read_graph(bare, lambda: run(bare, a, b)) == graph
