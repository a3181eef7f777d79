"""A product that stands for several, stacked in one tensor or cut out of one output: each has fans of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import autoinit
from autoinit.graph import Layer

X, Y = torch.randn(8, 5, 16), torch.randint(0, 3, (8,))

Shapes = dict[str, tuple[int, ...]]


class Holder(nn.Module):
    """A head after whatever some bare weights do to the data."""

    def __init__(self, use: Callable[[Holder, Tensor], Tensor], shapes: Shapes) -> None:
        super().__init__()
        self.use = use
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(0.1 * torch.randn(shape)))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.use(self, x).mean(1))


def read(use: Callable[[Holder, Tensor], Tensor], **shapes: tuple[int, ...]) -> Layer:
    return autoinit.trace(Holder(use, shapes), (X, Y))["w"]


def gated(parts: tuple[Tensor, ...]) -> Tensor:
    value, gate = parts
    return value * torch.sigmoid(gate)


def lstm(parts: tuple[Tensor, ...]) -> Tensor:
    i, f, g, o = parts
    return o.sigmoid() * (f.sigmoid() + i.sigmoid() * g.tanh()).tanh()


def sampled(parts: tuple[Tensor, ...]) -> Tensor:
    mean, log_variance = parts
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)


def experts(m: Holder, x: Tensor) -> Tensor:
    return torch.einsum("btd,edh->bteh", x, m.w).relu()


def shares(m: Holder, x: Tensor) -> Tensor:
    return F.linear(x, m.r).softmax(-1)


SIX: Shapes = {"w": (6, 16, 4), "r": (6, 16), "v": (6, 4, 4), "s": (4, 4)}


@pytest.mark.parametrize(
    "use",
    [
        lambda m, x: (experts(m, x) * shares(m, x)[..., None]).sum(2),
        lambda m, x: torch.einsum("bte,bteh->bth", shares(m, x), experts(m, x)),
        lambda m, x: torch.einsum("bteh,eho->beto", experts(m, x), m.v).mean(1),
        lambda m, x: torch.einsum("bteh,ho->beto", F.layer_norm(experts(m, x), (4,)), m.s).mean(1),
        lambda m, x: sum(F.linear(h, m.s) for h in experts(m, x).unbind(2)),
        lambda m, x: sum(h[:, :, 0].sin() for h in experts(m, x).split(1, 2)),
        lambda m, x: torch.einsum("dhe,btd->bthe", m.w.permute(1, 2, 0), x).softmax(2).mean(-1),
    ],
)
def test_an_axis_of_experts_is_no_axis_of_outputs(use: Callable[[Holder, Tensor], Tensor]) -> None:
    layer = read(use, **SIX)
    assert (layer.fan_in, layer.fan_out) == (16, 4)
    assert (layer.in_axes, layer.out_axes) == ((1,), (2,))


@pytest.mark.parametrize("combined", ["bte,bteh->bth", "bte,betd->btd"])
def test_what_weighs_experts_is_a_router(combined: str) -> None:
    def use(m: Holder, x: Tensor) -> Tensor:
        h = experts(m, x)
        return torch.einsum(combined, shares(m, x), h if "bteh" in combined else torch.einsum("bteh,eho->beto", h, m.v))

    assert autoinit.trace(Holder(use, SIX), (X, Y))["r"].role == "router"


@pytest.mark.parametrize(
    "use",
    [
        lambda m, x: F.linear(experts(m, x).flatten(2), m.v),
        lambda m, x: torch.einsum("bteh,oeh->bto", experts(m, x), m.v.view(4, 6, 4)),
        lambda m, x: F.linear(experts(m, x).reshape(8, 5, 4, 6).flatten(2), m.v),
    ],
)
def test_outputs_that_the_next_weight_sums_over_are_one_product_s(use: Callable[[Holder, Tensor], Tensor]) -> None:
    layer = read(use, **{**SIX, "v": (4, 24)})
    assert (layer.fan_out, layer.out_axes) == (24, (0, 2))


def test_the_heads_of_a_written_out_attention_are_one_product_s() -> None:
    def attention(m: Holder, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btd,dhk->bhtk", x, weight) for weight in (m.w, m.k, m.v))
        return torch.einsum("bhtk,hkd->btd", (q @ k.mT).softmax(-1) @ v, m.o)

    shapes: Shapes = {"w": (16, 2, 4), "k": (16, 2, 4), "v": (16, 2, 4), "o": (2, 4, 4)}
    graph = autoinit.trace(Holder(attention, shapes), (X, Y))
    assert [graph[name].fan_out for name in "wkvo"] == [8, 8, 8, 4]


@pytest.mark.parametrize(
    ("use", "shapes", "fan_out", "slices", "interleaved"),
    [
        (lambda m, x: gated(F.linear(x, m.w).chunk(2, -1)), {"w": (8, 16)}, 4, 2, False),
        (lambda m, x: gated((x @ m.w + m.b).tensor_split(2, -1)), {"w": (16, 8), "b": (8,)}, 4, 2, False),
        (lambda m, x: gated(((h := F.linear(x, m.w))[..., 4:], h[..., :4])), {"w": (8, 16)}, 4, 2, False),
        (lambda m, x: gated(((h := F.linear(x, m.w))[..., ::2], h[..., 1::2])), {"w": (8, 16)}, 4, 2, True),
        (lambda m, x: gated(F.linear(x, m.w).view(8, 5, 4, 2).unbind(-1)), {"w": (8, 16)}, 4, 2, True),
        (lambda m, x: gated(F.linear(x, m.w).view(8, 5, 2, 4).unbind(2)), {"w": (8, 16)}, 4, 2, False),
        (lambda m, x: gated(F.linear(x, m.w).view(8, 5, 2, 4).chunk(2, -1)).flatten(2), {"w": (8, 16)}, 4, 1, False),
        (lambda m, x: gated(F.linear(x, m.w)[:, -1].chunk(2, -1))[:, None], {"w": (8, 16)}, 4, 2, False),
        (lambda m, x: gated(F.linear(x, m.w)[:, 1:3].split(4, 2)), {"w": (8, 16)}, 4, 2, False),
        (lambda m, x: gated(F.conv1d(x.mT, m.w).split(4, 1)).mT, {"w": (8, 16, 3)}, 12, 2, False),
        (lambda m, x: gated((x.transpose(0, 1) @ m.w + m.b).chunk(2, -1)), {"w": (5, 16, 8), "b": (1, 8)}, 4, 2, False),
        (lambda m, x: sampled(F.linear(x, m.w).chunk(2, -1)), {"w": (8, 16)}, 4, 2, False),
        (lambda m, x: lstm(F.linear(x, m.w).chunk(4, -1)), {"w": (16, 16)}, 4, 4, False),
        (lambda m, x: lstm((F.linear(x, m.w) + x @ m.v).chunk(4, -1)), {"w": (16, 16), "v": (16, 16)}, 4, 4, False),
        (lambda m, x: torch.cat([p.tanh() for p in F.linear(x, m.w).split(2, -1)], -1), {"w": (4, 16)}, 4, 1, False),
        (lambda m, x: F.linear(x, m.w)[..., :4].tanh(), {"w": (8, 16)}, 8, 1, False),
        (lambda m, x: gated(F.linear(x, m.w).split([4, 4, 8], -1)[:2]), {"w": (16, 16)}, 16, 1, False),
        (lambda m, x: (h := F.linear(x, m.w))[..., :4] * h[..., 4:] + h.mean(-1, True), {"w": (8, 16)}, 8, 1, False),
    ],
)  # fmt: skip
def test_equal_parts_of_an_output_have_fans_of_their_own(
    use: Callable[[Holder, Tensor], Tensor], shapes: Shapes, fan_out: int, slices: int, interleaved: bool
) -> None:
    layer = read(use, **shapes)
    assert (layer.fan_out, layer.slices, layer.interleaved) == (fan_out, slices, interleaved)


def test_each_part_is_drawn_as_a_matrix_of_its_own() -> None:
    def use(m: Holder, x: Tensor) -> Tensor:
        h = torch.einsum("btd,edh->bteh", x, m.w)
        return torch.einsum("bteh,eho->beto", gated((h[..., ::2], h[..., 1::2])), m.v).mean(1)

    model = Holder(use, {"w": (3, 16, 16), "v": (3, 8, 4)})
    autoinit.apply_(model, "orthogonal", (X, Y))
    for expert in model.w:
        for part in (expert[:, ::2], expert[:, 1::2]):
            gram = part.mT @ part
            torch.testing.assert_close(gram, gram[0, 0] * torch.eye(8), atol=1e-5, rtol=0)


def test_a_saved_plan_tells_parts_that_take_turns(tmp_path: Path) -> None:
    def use(m: Holder, x: Tensor) -> Tensor:
        h = F.linear(x, m.w)
        return gated((h[..., 1::2], h[..., ::2]))

    model, other = (Holder(use, {"w": (8, 16)}) for _ in range(2))
    plan = autoinit.apply_(model, "orthogonal", (X, Y))
    plan.save(tmp_path / "plan.json")
    assert autoinit.apply_(other, tmp_path / "plan.json")["w"].interleaved
    assert torch.equal(model.w, other.w)
    assert autoinit.resolve("xavier_normal", autoinit.trace(model, (X, Y)))["w"].std == pytest.approx(0.1**0.5)
