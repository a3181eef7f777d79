"""Post-norm blocks, encoders and decoders."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo import ZOO

import autoinit
from autoinit.graph import Graph
from autoinit.tracing.tracing import read_graph

D = 8


class Net(nn.Module):
    """A stem, two branches (a, b) and (c, d), norms and a head around what the test writes."""

    def __init__(self, block: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(3, D), nn.Linear(D, 2)
        self.a, self.b, self.c, self.d = (nn.Linear(D, D) for _ in range(4))
        self.norm, self.last, self.rms = nn.LayerNorm(D), nn.LayerNorm(D), nn.RMSNorm(D)
        self.omega = nn.Parameter(torch.ones(D))
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self, self.stem(x)))

    def first(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))

    def second(self, x: Tensor) -> Tensor:
        return self.d(torch.relu(self.c(x)))


def read(block: Callable[[Net, Tensor], Tensor], device: str = "cpu") -> Graph:
    net = Net(block).to(device)
    x = torch.randn(4, 6, 3, device=device)
    return read_graph(net, lambda: net(x).pow(2).mean())


def by_hand(x: Tensor) -> Tensor:
    """LayerNorm as in the formula."""
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)


POST: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "LayerNorm": lambda m, x: m.last(m.norm(x + m.first(x))),
    "two blocks": lambda m, x: m.last((y := m.norm(x + m.first(x))) + m.second(y)),
    "RMSNorm": lambda m, x: m.rms((y := m.rms(x + m.first(x))) + m.second(y)),
    "LayerNorm by hand": lambda m, x: by_hand((y := by_hand(x + m.first(x))) + m.second(y)),
    "RMSNorm by hand": lambda m, x: (y := x + m.first(x)) * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6),
    "dropout and casts": lambda m, x: m.norm(F.dropout(x + F.dropout(m.first(x), 0.1), 0.1).double().float()),
    "DeepNorm": lambda m, x: m.norm(1.7 * x + m.first(x)),
    "Admin": lambda m, x: m.norm(m.omega * x + m.first(x)),
    "GroupNorm": lambda m, x: F.group_norm((x + m.first(x)).transpose(1, 2), 2).transpose(1, 2),
}
OTHER: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "pre-norm": lambda m, x: m.last((y := x + m.first(m.norm(x))) + m.second(m.rms(y))),
    "one pre-norm block": lambda m, x: m.last(x + m.first(m.norm(x))),
    "no norm but the last": lambda m, x: m.last((y := x + m.first(x)) + m.second(y)),
    "norm on the branch": lambda m, x: m.last((y := x + m.norm(m.first(x))) + m.rms(m.second(y))),
    "norm within the branch": lambda m, x: m.last(x + m.b(torch.relu(m.norm(m.a(x))))),
    "activation after the add": lambda m, x: m.norm(torch.relu(x + m.first(x))),
    "norm and skip": lambda m, x: (y := x + m.first(x)) + m.second(m.norm(y)),
    "none": lambda m, x: x + m.first(x),
}


def post(graph: Graph) -> set[str]:
    return {name for name, layer in graph.items() if layer.post_norm}


@pytest.mark.parametrize("name", POST)
def test_post_norm_blocks(name: str) -> None:
    graph = read(POST[name])
    assert post(graph) == {layer.name for layer in graph.layers if layer.closes_branch} != set()
    assert read(POST[name], "meta") == graph


@pytest.mark.parametrize("name", OTHER)
def test_blocks_that_are_not_post_norm(name: str) -> None:
    graph = read(OTHER[name])
    assert graph.residual_adds > 0
    assert post(graph) == set()


@pytest.mark.parametrize(
    "name", ["bert", "encoder_post_ln", "encoder_pre_ln", "gpt2", "t5", "resnet", "convnext", "vit"]
)
def test_post_norm_in_known_models(name: str) -> None:
    case = ZOO[name]()
    graph = read_graph(case.model, lambda: case.loss(case.model, case.batch))
    closing = {layer.name for layer in graph.layers if layer.closes_branch}
    assert closing
    assert post(graph) == (closing if name in ("bert", "encoder_post_ln") else set())


def test_the_factor_of_a_skip_folds_into_what_is_called_post_norm() -> None:
    """LN(αx + f(x)) = LN(x + f(x)/α), which is why it matters."""
    net = Net(lambda m, x: x).double()
    x, alpha = torch.randn(5, D, dtype=torch.float64), 1.7
    norm = nn.LayerNorm(D, eps=0.0, dtype=torch.float64)
    assert torch.allclose(norm(alpha * x + net.first(x)), norm(x + net.first(x) / alpha), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(norm(alpha * x + net.first(x)), norm(x + net.first(x)), rtol=1e-3, atol=1e-3)


def test_encoder_and_decoder() -> None:
    graph = read_graph((case := ZOO["t5"]()).model, lambda: case.loss(case.model, case.batch))
    for layer in graph.layers:
        if layer.role == "embedding":
            assert layer.stack == ""  # one table serves both
        else:
            assert layer.stack == layer.name.partition(".")[0], layer.name


@pytest.mark.parametrize("name", ["bert", "gpt2", "lstm", "resnet"])
def test_there_are_no_stacks_without_cross_attention(name: str) -> None:
    graph = read_graph((case := ZOO[name]()).model, lambda: case.loss(case.model, case.batch))
    assert {layer.stack for layer in graph.layers} == {""}


def test_a_decoder_alone_looks_at_the_data() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.TransformerDecoderLayer(8, 2, 16, batch_first=True))
    x, memory = torch.randn(2, 5, 3), torch.randn(2, 4, 8)
    graph = read_graph(model, lambda: model[1](model[0](x), memory).pow(2).mean())
    assert {layer.stack for layer in graph.layers} == {"decoder"}
    assert [layer.name for layer in graph.layers if layer.cross] == [
        "1.multihead_attn.in_proj_weight", "1.multihead_attn.out_proj.weight",
    ]  # fmt: skip


def test_two_streams_that_look_at_each_other_are_neither() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(3, D), nn.Linear(3, D)
            self.blocks = nn.ModuleList(nn.MultiheadAttention(D, 2, batch_first=True) for _ in range(4))
            self.head = nn.Linear(D, 2)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            x, y = self.left(x), self.right(y)
            for one, two in (self.blocks[:2], self.blocks[2:]):
                x, y = x + one(x, y, y)[0], y + two(y, x, x)[0]
            return self.head(x.mean(1) + y.mean(1))

    model, x, y = Both(), torch.randn(2, 5, 3), torch.randn(2, 4, 3)
    graph = read_graph(model, lambda: model(x, y).pow(2).mean())
    assert {layer.cross for layer in graph.layers if layer.attention} == {True}
    assert {layer.stack for layer in graph.layers} == {""}


class Conditioned(nn.Module):
    """A stream, a condition that two layers embed, and `film`, which the test lets act on the stream."""

    def __init__(self, block: Callable[[Conditioned, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.inner, self.out, self.head = nn.Linear(3, D), nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, 2)
        self.embed, self.mix, self.film, self.more = (
            nn.Linear(1, D),
            nn.Linear(D, D),
            nn.Linear(D, 3 * D),
            nn.Linear(D, D),
        )
        self.norm, self.affine = nn.LayerNorm(D, elementwise_affine=False), nn.LayerNorm(D)
        self.table = nn.Parameter(torch.zeros(3 * D))
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        condition = F.silu(self.mix(F.silu(self.embed(x[:, :1]))))
        return self.head(F.silu(self.block(self, self.stem(x), condition)))

    def branch(self, x: Tensor) -> Tensor:
        return self.out(F.gelu(self.inner(x)))

    def three(self, c: Tensor) -> tuple[Tensor, ...]:
        return self.film(c).chunk(3, -1)


def modulation_of(
    block: Callable[[Conditioned, Tensor, Tensor], Tensor], device: str = "cpu"
) -> tuple[set[str], set[str]]:
    model, x = Conditioned(block).to(device), torch.randn(4, 3, device=device)
    graph = read_graph(model, lambda: model(x).square().mean())
    modulates = {layer.name.removesuffix(".weight") for layer in graph.layers if layer.modulates}
    return modulates, {layer.name.removesuffix(".weight") for layer in graph.layers if layer.conditions}


def adaln(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    shift, scale, gate = self.three(c)
    return x + gate * self.branch(self.norm(x) * (1 + scale) + shift)


def adaln_with_a_table(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    shift, scale, gate = (self.table + self.film(c)).chunk(3, -1)
    return x + torch.tanh(gate) * self.branch(self.affine(x) * (scale + 1) + shift)


def shift_first(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    shift, scale, gate = self.three(c)
    return x + self.branch((self.norm(x) + shift) * (1 + scale)) * gate


def film(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    scale, shift, _ = self.three(c)
    return F.relu(self.inner(x) * (1 + scale) + shift)


def film_of_two_layers(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    return F.relu(self.inner(x) * (1 + self.more(c)) + self.film(c)[:, :D])


def gate_alone(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    return x + self.more(c) * self.branch(x)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("block", "modulates"),
    [
        (adaln, {"film"}),
        (adaln_with_a_table, {"film"}),
        (shift_first, {"film"}),
        (film, {"film"}),
        (film_of_two_layers, {"film", "more"}),
        (gate_alone, {"more"}),
    ],
)
def test_what_shifts_scales_and_gates_streams_modulates(
    block: Callable[[Conditioned, Tensor, Tensor], Tensor], modulates: set[str], device: str
) -> None:
    assert modulation_of(block, device) == (modulates, {"embed", "mix"})


def plain_factor(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    scale, shift, _ = self.three(c)  # at zero nothing would pass
    return F.relu(self.inner(x) * scale + shift)


def other_number(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    return F.relu(self.inner(x) * (2 + self.more(c)))


def added(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    return F.relu(self.inner(x) + self.more(c))


def residual(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    return x + self.out(F.relu(self.inner(self.norm(x))))


def squeezed(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    return x + torch.sigmoid(self.more(c)) * self.branch(x)


def bilinear(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    return x + self.inner(x) * self.out(x)


def both_halves(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    value, scale, _ = self.film(x).chunk(3, -1)
    return value * (1 + scale)


def each_other(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    first, second, _ = self.three(c)
    return F.relu(self.inner(x)) + (1 + first) * (1 + second)


def used_otherwise(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
    scale = self.more(c)
    return F.relu(self.inner(x) * (1 + scale)) + self.out(scale)


@pytest.mark.parametrize(
    "block",
    [plain_factor, other_number, added, residual, squeezed, bilinear, both_halves, each_other, used_otherwise],
)
def test_what_would_do_more_at_zero_does_not_modulate(block: Callable[[Conditioned, Tensor, Tensor], Tensor]) -> None:
    assert modulation_of(block) == (set(), set())


def test_a_condition_that_is_used_otherwise_too_is_none() -> None:
    def block(self: Conditioned, x: Tensor, c: Tensor) -> Tensor:
        return F.relu(self.inner(x) * (1 + self.more(c))) + self.out(c)

    assert modulation_of(block) == ({"more"}, set())


class Tower(nn.Module):
    """Residual branches, and an output where asked for."""

    def __init__(self, branches: int, outputs: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(1 + branches))
        self.head = nn.Linear(8, outputs) if outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](x)
        for layer in self.layers[1:]:
            x = x + torch.tanh(layer(x))
        return self.head(x)  # type: ignore[no-any-return]


class Several(nn.Module):
    """A generator and a critic, and a temperature that is part of neither."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Tower(2), Tower(5, 2)
        self.temperature = nn.Parameter(torch.ones(()))


def apart(model: Several, rows: Tensor) -> Tensor:
    return (model.first(rows).square().mean() + model.second(rows).mean()) * model.temperature


def one_after_the_other(model: Several, rows: Tensor) -> Tensor:
    return model.second(model.first(rows)).mean()  # type: ignore[no-any-return]


def tied(model: Several, rows: Tensor) -> Tensor:
    return apart(model, rows) + model.second.layers[1](model.first(rows)).mean()


def test_networks_that_only_the_loss_brings_together_are_several_in_one() -> None:
    rows = torch.linspace(-1, 1, 32).reshape(4, 8)
    graph = autoinit.trace(Several(), rows, step=apart)
    assert graph.networks == (2, 5)
    assert {name.split(".")[0]: layer.network for name, layer in graph.items()} == {
        "temperature": 0,
        "first": 0,
        "second": 1,
    }
    assert "5 residual adds, 2 networks" in str(graph)
    for step in (one_after_the_other, tied):
        graph = autoinit.trace(Several(), rows, step=step)
        assert graph.networks == ()
        assert {layer.network for layer in graph.layers} == {0}


def test_depth_is_that_of_a_layers_own_network() -> None:
    rows = torch.linspace(-1, 1, 32).reshape(4, 8)
    graph = autoinit.trace(Several(), rows, step=apart)
    plan = autoinit.resolve(autoinit.Recipe(base="lecun_normal", residual_out="scaled"), graph)
    assert [plan[name].std for name in ("first.layers.1.weight", "second.layers.1.weight")] == pytest.approx(
        [16**-0.5, 40**-0.5]
    )
    sloped = autoinit.resolve(autoinit.Recipe(base="lecun_normal", depth_slope=2.0), graph)
    places = ("first.layers.0.weight", "first.layers.2.weight", "second.layers.0.weight", "second.head.weight")
    ends = [sloped[name].std * 8**0.5 for name in places]
    assert ends == pytest.approx([0.5, 2.0, 0.5, 2.0])


def test_an_actor_and_a_critic_that_read_the_same_state_are_two() -> None:
    class Agent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
            self.other = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

        def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
            return self.one(state), self.other(state)

    graph = autoinit.trace(Agent(), torch.ones(3, 4))
    assert graph.networks == (0, 0)
    plan = autoinit.resolve("rl", graph)
    assert [plan[name].std for name in ("one.2.weight", "other.2.weight")] == pytest.approx([0.01 / 8**0.5, 8**-0.5])


def test_what_shares_a_recurrent_cell_is_one_network() -> None:
    class Readers(nn.Module):
        def __init__(self, *, shared: bool) -> None:
            super().__init__()
            self.cells = nn.ModuleList(nn.GRU(4, 8, batch_first=True) for _ in range(1 if shared else 2))
            self.heads = nn.ModuleList(nn.Linear(8, 2) for _ in range(2))

        def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
            cells = (self.cells[0], self.cells[-1])
            return tuple(head(cell(rows)[0][:, -1]) for cell, head in zip(cells, self.heads, strict=True))

    rows = torch.linspace(-1, 1, 60).reshape(3, 5, 4)
    assert autoinit.trace(Readers(shared=True), rows).networks == ()
    assert autoinit.trace(Readers(shared=False), rows).networks == (0, 0)
