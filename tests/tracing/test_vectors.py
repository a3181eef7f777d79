"""Biases, scales, positions, tokens and scalars: what contracts nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import autoinit
from autoinit.graph import Graph
from autoinit.tracing.tracing import read_graph

D = 8


class Net(nn.Module):
    """An embedding or a stem before, and a head after, a parameter `p` that the test uses as it likes."""

    def __init__(self, shape: tuple[int, ...], use: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.randn(shape))
        self.stem, self.inner, self.head = nn.Linear(3, D), nn.Linear(D, D), nn.Linear(D, 2)
        self.norm = nn.LayerNorm(D, elementwise_affine=False)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.use(self, self.stem(x)))


def read(shape: tuple[int, ...], use: Callable[[Net, Tensor], Tensor]) -> Graph:
    net = Net(shape, use)
    x = torch.randn(4, 6, 3)
    return read_graph(net, lambda: net(x).pow(2).mean())


@pytest.mark.parametrize(
    ("shape", "use", "role"),
    [
        ((D,), lambda m, x: torch.relu(x + m.p), "bias"),
        ((1, 1, D), lambda m, x: torch.relu(x + m.p), "bias"),
        ((6, D), lambda m, x: torch.relu(x + m.p), "position"),
        ((1, 9, D), lambda m, x: torch.relu(x + m.p[:, :6]), "position"),
        ((1, D), lambda m, x: torch.cat([m.p.expand(4, 1, D), x], 1), "other"),
        ((D,), lambda m, x: m.norm(x) * m.p, "norm_scale"),
        ((D,), lambda m, x: x + m.p * m.inner(torch.relu(x)), "layer_scale"),
        ((1,), lambda m, x: x + m.p * m.inner(torch.relu(x)), "layer_scale"),
        ((1,), lambda m, x: m.p * x + m.inner(torch.relu(x)), "scalar"),
        ((D,), lambda m, x: m.p * x + m.inner(torch.relu(x)), "scalar"),
        ((), lambda m, x: x * m.p.exp(), "scalar"),
        ((1,), lambda m, x: x / m.p, "scalar"),
        ((), lambda m, x: x + m.p, "scalar"),
    ],
)
def test_roles(shape: tuple[int, ...], use: Callable[[Net, Tensor], Tensor], role: str) -> None:
    layer = read(shape, use)["p"]
    assert layer.role == role
    assert bool(layer.keep) == (role in ("other", "scalar"))


def test_a_bias_belongs_to_the_weight_whose_output_it_shifts() -> None:
    graph = read((D,), lambda m, x: torch.relu(x + m.p))
    assert graph["p"].of == "stem.weight"
    graph = read((D,), lambda m, x: x + m.inner(torch.relu(x)) + m.p)
    assert graph["p"].of == graph["inner.bias"].of == "inner.weight"


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(D), nn.GroupNorm(2, D), nn.BatchNorm1d(D), nn.InstanceNorm1d(D, affine=True), nn.RMSNorm(D)]
)
def test_scales_and_shifts_of_normalizations(norm: nn.Module) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Linear(3, D), norm

        def forward(self, x: Tensor) -> Tensor:
            h = self.stem(x)
            channels_last = isinstance(norm, nn.LayerNorm | nn.RMSNorm)
            return torch.relu(norm(h) if channels_last else norm(h.mT))

    model = Model()
    x = torch.randn(4, 6, 3)
    graph = read_graph(model, lambda: model(x).pow(2).mean())
    assert (graph["norm.weight"].role, graph["norm.weight"].kind) == ("norm_scale", "norm")
    assert graph["stem.weight"].normalized
    if "norm.bias" in graph:
        assert (graph["norm.bias"].role, graph["norm.bias"].of) == ("bias", "norm.weight")


class Tables(nn.Module):
    def __init__(self, lookup: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.tokens, self.second, self.head = nn.Embedding(11, D), nn.Embedding(16, D), nn.Linear(D, 2)
        self.lookup = lookup

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.tokens(tokens) + self.second(self.lookup(tokens)))


@pytest.mark.parametrize(
    ("lookup", "role"),
    [
        (lambda tokens: torch.arange(6), "position"),
        (lambda tokens: torch.arange(6)[None], "position"),
        (lambda tokens: torch.arange(6).expand(4, 6), "position"),
        (lambda tokens: tokens % 3, "embedding"),
    ],
)
def test_position_tables_are_told_by_their_indices(lookup: Callable[[Tensor], Tensor], role: str) -> None:
    model = Tables(lookup)
    tokens = torch.randint(0, 11, (4, 6))
    graph = read_graph(model, lambda: model(tokens).pow(2).mean())
    assert graph["tokens.weight"].role == "embedding"
    assert graph["second.weight"].role == role


MULTIPLIERS: dict[str, tuple[tuple[int, ...], Callable[[Net, Tensor], Tensor], tuple[str, str | None, bool, bool]]] = {
    "ReZero": (
        (1,), lambda m, x: x + m.p * m.inner(torch.relu(x)), ("layer_scale", "inner.weight", True, False),
    ),
    "ReZero, no axis": (
        (), lambda m, x: x + m.inner(torch.relu(x)) * m.p, ("layer_scale", "inner.weight", True, False),
    ),
    "LayerScale": (
        (D,), lambda m, x: x + m.p * m.inner(torch.relu(x)), ("layer_scale", "inner.weight", True, False),
    ),
    "SkipInit after a norm and dropout": (
        (1,),
        lambda m, x: x + m.p * torch.dropout(m.norm(m.inner(torch.relu(x))), 0.1, True),
        ("layer_scale", "inner.weight", True, False),
    ),
    "after an activation": (
        (D,), lambda m, x: x + m.p * torch.tanh(m.inner(x)), ("layer_scale", None, True, False),
    ),
    "Admin": (
        (D,), lambda m, x: m.norm(x * m.p + m.inner(torch.relu(x))), ("scalar", "inner.weight", False, True),
    ),
    "learned DeepNorm": (
        (), lambda m, x: m.norm(m.p * x + m.inner(torch.relu(x))), ("scalar", "inner.weight", False, True),
    ),
    "temperature": ((1,), lambda m, x: m.inner(torch.relu(x)) * m.p, ("scalar", None, False, False)),
    "on no branch": ((D,), lambda m, x: torch.relu(x * m.p), ("layer_scale", None, False, False)),
}  # fmt: skip


@pytest.mark.parametrize("name", MULTIPLIERS)
def test_multipliers_of_branches_and_skips(name: str) -> None:
    shape, use, expected = MULTIPLIERS[name]
    layer = read(shape, use)["p"]
    assert (layer.role, layer.of, layer.in_branch, layer.on_skip) == expected
    assert bool(layer.keep) == (layer.role == "scalar")  # a multiplier of a branch is free to be zero
    assert layer.slices == 1


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda m, x: x + m.inner(torch.relu(x)) / m.p, "no value switches that off"),
        (lambda m, x: x + m.inner(torch.relu(x)) * torch.sigmoid(m.p), "no value switches that off"),
        (lambda m, x: x + m.inner(torch.relu(x)) * m.p[:1], "several branches"),
        (lambda m, x: _twice(m, _twice(m, x)), "several branches"),
    ],
    ids=["inverse", "sigmoid", "part", "shared"],
)
def test_a_multiplier_that_cannot_switch_one_branch_off_is_kept(
    use: Callable[[Net, Tensor], Tensor], said: str
) -> None:
    graph = read((D,), use)
    assert said in graph["p"].keep
    zero = autoinit.resolve("zero_residual", graph)
    assert zero["p"].untouched
    assert zero["inner.weight"].values == (0.0,)


def _twice(model: Net, x: Tensor) -> Tensor:
    return x + model.p * model.inner(torch.relu(x))


def test_a_multiplier_that_several_passes_of_a_step_meet_is_of_one_branch() -> None:
    """Two views of each example go through one network, as where it learns without labels."""
    net = Net((D,), lambda m, x: x + m.p * m.inner(torch.relu(x)))
    x = torch.randn(6, 3)
    once = read_graph(net, lambda: net(x).pow(2).mean())
    twice = read_graph(net, lambda: (net(x) - net(x + 0.1 * torch.randn_like(x))).pow(2).mean())
    assert twice["p"] == once["p"]
    assert autoinit.resolve("zero_residual", twice)["p"].values == (0.0,)


def test_a_multiplier_of_its_own_is_zero_in_the_place_of_the_weight() -> None:
    graph = read((1,), lambda m, x: x + m.p * m.inner(torch.relu(x)))
    for recipe, multiplier, weight in (("zero_residual", (0.0,), ()), ("fixup", (1.0,), (0.0,))):
        plan = autoinit.resolve(recipe, graph)
        assert (plan["p"].values, plan["inner.weight"].values) == (multiplier, weight)
        assert not any("left out" in note for note in plan.notes)


class Distances(nn.Module):
    """Attention whose scores have a learned bias for each distance, looked up or added, and tokens with places."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, D), nn.Linear(D, 2)
        self.query, self.key, self.value = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D)
        self.place = nn.Parameter(torch.randn(6, D))
        self.by_distance = nn.Embedding(6, 1)
        self.by_pair = nn.Parameter(torch.randn(1, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.enter(x) + self.place
        at = torch.arange(6)
        looked_up = self.by_distance((at[:, None] - at).abs()).squeeze(-1)
        scores = self.query(tokens) @ self.key(tokens).mT / D**0.5 + looked_up + self.by_pair
        return self.leave((scores.softmax(-1) @ self.value(tokens)).mean(1))


def test_a_learned_bias_of_attention_scores_is_no_table_of_positions() -> None:
    graph = autoinit.trace(Distances(), (torch.randn(8, 6, 3), torch.randint(0, 2, (8,))))
    for name in ("by_distance.weight", "by_pair"):
        assert graph[name].keep == "a learned bias of attention scores; its scale belongs to the scores"
    assert (graph["place"].role, graph["place"].keep) == ("position", "")


class Stacked(nn.Module):
    """Several products in one tensor, each with a bias for each of its units, and what the test makes of them."""

    def __init__(
        self, weight: tuple[int, ...], bias: tuple[int, ...], use: Callable[[Stacked, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(3, D), nn.LazyLinear(2)
        self.w, self.b, self.use = nn.Parameter(torch.randn(weight)), nn.Parameter(torch.randn(bias)), use

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.use(self, self.stem(x)).relu().flatten(2))


STACKED: dict[str, tuple[tuple[int, ...], tuple[int, ...], Callable[[Stacked, Tensor], Tensor], str]] = {
    "experts": ((5, D, 7), (5, 7), lambda m, x: torch.einsum("btd,edh->bteh", x, m.w) + m.b, "bias"),
    "experts, one after the other": (
        (5, D, 7), (5, 1, 7), lambda m, x: (x.flatten(0, 1) @ m.w + m.b).movedim(0, 1).unflatten(0, (4, 6)), "bias",
    ),
    "an expert for each token": (
        (5, D, 7), (5, 7),
        lambda m, x: torch.einsum("btd,tdh->bth", x, m.w[torch.arange(6) % 5]) + m.b[torch.arange(6) % 5],
        "bias",
    ),
    "heads": ((D, 2, 4), (2, 4), lambda m, x: torch.einsum("btd,dnh->btnh", x, m.w) + m.b, "bias"),
    "groups": (
        (2, 4, 3), (2, 3), lambda m, x: torch.einsum("btgi,gio->btgo", x.unflatten(2, (2, 4)), m.w) + m.b, "bias",
    ),
    "places": ((D, 2, 4), (6, 1, 4), lambda m, x: torch.einsum("btd,dnh->btnh", x, m.w) + m.b, "position"),
    "places of one product": ((D, 7), (6, 7), lambda m, x: x @ m.w + m.b, "position"),
}  # fmt: skip


@pytest.mark.parametrize("name", STACKED)
def test_the_biases_of_several_products_in_one_tensor_belong_to_their_weight(name: str) -> None:
    weight, bias, use, role = STACKED[name]
    model, x = Stacked(weight, bias, use), torch.randn(4, 6, 3)
    model(x)
    graph = read_graph(model, lambda: model(x).pow(2).mean())
    assert (graph["b"].role, graph["b"].of) == (role, "w" if role == "bias" else None)
    if role == "bias":
        autoinit.apply_(model, "he_normal", [(x, torch.randn(4, 6, 2))])
        assert not model.b.any()


@pytest.mark.parametrize(
    ("use", "drawn"),
    [
        (lambda m, x: (x * m.p).sum(-1, keepdim=True), False),
        (lambda m, x: torch.nn.functional.leaky_relu((x.relu() * m.p).sum(2)).softmax(1)[..., None] * x, False),
        (lambda m, x: (x @ m.p).softmax(1)[..., None] * x, True),
        (lambda m, x: torch.einsum("btd,d->bt", x, m.p).softmax(1)[..., None] * x, True),
    ],
    ids=["a sum", "additive attention", "a product", "einsum"],
)
def test_a_vector_that_scores_are_made_with_is_a_matrix_where_it_is_in_a_product(
    use: Callable[[Net, Tensor], Tensor], drawn: bool
) -> None:
    graph = read((D,), lambda m, x: x + m.inner(use(m, x) + torch.zeros(D)))
    assert graph["p"].is_matrix == drawn
    assert (graph["p"].fan_in, graph["p"].fan_out) == ((D, 1) if drawn else (0, 0))
    assert ("summed up" in graph["p"].keep) == (not drawn)


def test_a_scale_whose_products_are_summed_over_other_axes_is_none() -> None:
    graph = read((D,), lambda m, x: torch.relu((x * m.p).sum(1)))
    assert graph["p"].role == "layer_scale"
