from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from graphs import bias, linear, transformer
from torch import Tensor, nn

import autoinit
from autoinit.graph import Graph, Layer
from autoinit.plans.depth import DepthScale, deepnorm, depth_scale, fixup, is_zeroed, left_out, stack_depths, t_fixup
from autoinit.recipes.recipe import Recipe


def branches(count: int, weights: int) -> Graph:
    """A residual network of `count` branches of so many weights, between a stem and a head."""
    inside: dict[str, Any] = {"in_branch": True, "branch_weights": weights}
    layers = [linear("stem", 8, 8, role="input")]
    for branch in range(count):
        for place in range(weights):
            last = place == weights - 1
            role = "residual_out" if last else "hidden"
            layers.append(linear(f"{branch}.{place}", 8, 8, role=role, closes_branch=last, **inside))
    return Graph((*layers, linear("head", 2, 8, role="output")), residual_adds=count)


# Fixup


@pytest.mark.parametrize(("count", "weights"), [(10, 2), (100, 2), (16, 3), (50, 4)])
def test_fixup_scales_inside_branches_only(count: int, weights: int) -> None:
    graph = branches(count, weights)
    inside = count ** (-1 / (2 * weights - 2))
    for layer in graph.layers:
        free = layer.in_branch and not layer.closes_branch
        assert fixup(layer, graph).factor == pytest.approx(inside if free else 1.0), layer.name
    plan, he = autoinit.resolve("fixup", graph), autoinit.resolve("he_normal", graph)
    assert plan["0.0"].std == pytest.approx(he["0.0"].std * inside)
    assert plan[f"0.{weights - 1}"].values == plan["head"].values == (0.0,)
    assert f"{count}^(−1/{2 * weights - 2}), Fixup" in plan["0.0"].reason


def test_a_branch_of_one_weight_is_zero_and_nothing_else() -> None:
    graph = branches(10, 1)
    assert all(fixup(layer, graph) == DepthScale() for layer in graph.layers)
    assert autoinit.resolve("fixup", graph)["3.0"].values == (0.0,)


# Transformers


class Translator(nn.Module):
    """An encoder of three layers and a decoder of two, token by token."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target, self.head = nn.Embedding(20, 16), nn.Embedding(20, 16), nn.Linear(16, 20)
        self.body = nn.Transformer(16, 2, 3, 2, 32, dropout=0.0, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.source(tokens), self.target(tokens)))


@pytest.fixture(scope="module")
def translator() -> Graph:
    return autoinit.trace(Translator(), torch.randint(0, 20, (4, 5), generator=torch.Generator().manual_seed(0)))


def test_layers_of_each_stack_are_counted(translator: Graph) -> None:
    assert stack_depths(translator) == (3, 2)
    assert stack_depths(transformer(blocks=5)) == (5, 0)


def test_shared_layers_count_as_often_as_they_run() -> None:
    shared = dataclasses.replace(transformer(blocks=1), residual_adds=24)
    assert stack_depths(shared) == (12, 0)
    parallel = dataclasses.replace(transformer(blocks=6), residual_adds=6)  # attention and feed-forward in one add
    assert stack_depths(parallel) == (6, 0)


@pytest.mark.parametrize(
    ("stack", "t_fixup_factor", "alpha", "beta"),
    [
        ("encoder", 0.67 * 3**-0.25, 0.81 * (3**4 * 2) ** (1 / 16), 0.87 * (3**4 * 2) ** (-1 / 16)),
        ("decoder", 18**-0.25, 6**0.25, 24**-0.25),
    ],
)
def test_encoder_and_decoder_have_constants_of_their_own(
    translator: Graph, stack: str, t_fixup_factor: float, alpha: float, beta: float
) -> None:
    names = ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"]
    names += ["multihead_attn.in_proj_weight", "multihead_attn.out_proj.weight"] if stack == "decoder" else []
    for name in names:
        layer = translator[f"body.{stack}.layers.1.{name}"]
        fixed, normed = t_fixup(layer, translator), deepnorm(layer, translator)
        if name.endswith("in_proj_weight"):
            assert (fixed.factor, normed.factor) == (1.0, 1.0)  # queries and keys
            assert (fixed.value_factor, normed.value_factor) == (pytest.approx(t_fixup_factor), pytest.approx(beta))
        else:
            assert (fixed.factor, normed.factor) == (pytest.approx(t_fixup_factor), pytest.approx(beta))
        assert normed.fold == pytest.approx(1 / alpha if layer.closes_branch else 1.0)
        assert fixed.fold == 1.0


def test_embeddings_belong_to_t_fixup(translator: Graph) -> None:
    plan = autoinit.resolve("t_fixup", translator)
    for name in ("source.weight", "target.weight"):
        assert plan[name].std == pytest.approx(18**-0.25 / math.sqrt(16))
        assert deepnorm(translator[name], translator) == DepthScale()
    assert plan["head.weight"].std == pytest.approx(math.sqrt(2 / 36))  # Xavier, as everything else
    drawn = autoinit.resolve(Recipe(base="normal", depth_rule="t_fixup"), translator)
    assert drawn["source.weight"].std == pytest.approx(0.02 * 18**-0.25)


def test_separate_projections_are_told_apart() -> None:
    roles = ("query", "key", "value", "attention_out")
    layers = tuple(linear(role, 8, 8, role=role, attention="query", heads=1, in_branch=True) for role in roles)
    graph = Graph(layers, residual_adds=2)
    assert [deepnorm(layer, graph).factor for layer in layers] == pytest.approx([1.0, 1.0, 8**-0.25, 8**-0.25])


# DeepNorm's α


class PostLN(nn.Module):
    """Six layers of nn.TransformerEncoderLayer and a head; with α, each residual add by its formula."""

    def __init__(self, depth: int = 6) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, layer_norm_eps=0.0, batch_first=True)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(depth))
        self.head = nn.Linear(16, 3)
        self.alpha: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if self.alpha is None:
                x = layer(x)
            else:
                x = layer.norm1(self.alpha * x + layer.self_attn(x, x, x, need_weights=False)[0])
                x = layer.norm2(self.alpha * x + layer.linear2(layer.linear1(x).relu()))
        return self.head(x.mean(1))


def pair() -> tuple[PostLN, PostLN, autoinit.Plan, Tensor]:
    """A model to which DeepNorm was applied, and the same with α = 12^(1/4) in its skips and β in its weights."""
    generator = torch.Generator().manual_seed(0)
    folded = PostLN().double()
    with torch.no_grad():
        for parameter in folded.parameters():  # biases too, and scales other than 1
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    explicit = copy.deepcopy(folded)
    explicit.alpha, beta = 12**0.25, 48**-0.25
    with torch.no_grad():
        for layer in explicit.layers:
            layer.self_attn.in_proj_weight[32:].mul_(beta)
            for weight in (layer.self_attn.out_proj.weight, layer.linear1.weight, layer.linear2.weight):
                weight.mul_(beta)
    x = torch.randn(4, 5, 16, generator=generator, dtype=torch.float64)
    return folded, explicit, autoinit.apply_(folded, Recipe(depth_rule="deepnorm"), x), x


def test_the_folded_model_is_the_one_with_alpha() -> None:
    folded, explicit, _, x = pair()
    with torch.no_grad():
        torch.testing.assert_close(folded(x), explicit(x), atol=1e-10, rtol=0.0)
        explicit.alpha = 1.0
        assert (folded(x) - explicit(x)).abs().max() > 1e-3


@pytest.mark.parametrize(("optimizer", "lr"), [(torch.optim.SGD, 0.1), (torch.optim.Adam, 0.01)])
def test_it_trains_as_the_one_with_alpha(optimizer: Any, lr: float) -> None:
    folded, explicit, plan, x = pair()
    rest = {"eps": 1e-30} if optimizer is torch.optim.Adam else {}
    groups = plan.param_groups(folded, lr, optimizer=optimizer)
    assert len(groups) == 2
    for model, parameters in ((folded, groups), (explicit, list(explicit.parameters()))):
        steps = optimizer(parameters, lr=lr, **rest)
        for _ in range(3):
            steps.zero_grad()
            nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0])).backward()
            steps.step()
    with torch.no_grad():
        torch.testing.assert_close(folded(x), explicit(x), atol=1e-7, rtol=0.0)
        assert (folded(x) - pair()[0](x)).abs().max() > 1e-2  # the steps have moved it


def test_nothing_is_folded_where_it_would_not_be_exact() -> None:
    assert deepnorm(transformer()["block.0.out.weight"], transformer()).fold == 1.0  # pre-LN
    graph = transformer(post_norm=True)
    kept = bias("block.0.out.bias", "block.0.out.weight", 16, keep="its owner sets it to a constant")
    graph = dataclasses.replace(graph, layers=(*graph.layers, kept))
    assert deepnorm(graph["block.0.out.weight"], graph).fold == 1.0
    assert deepnorm(graph["block.1.out.weight"], graph).fold == pytest.approx(4**-0.25)


# What starts at zero, and what is left out


ZERO, SCALED = Recipe(residual_out="zero"), Recipe(residual_out="scaled")


@pytest.mark.parametrize(
    ("recipe", "keep", "zeroed"),
    [
        (ZERO, "", ["1.1", "alpha"]),
        (ZERO, "excluded by name", ["0.1", "1.1"]),
        (Recipe(residual_out="zero", depth_rule="fixup"), "", ["0.1", "1.1"]),
        (SCALED, "", []),
    ],
)
def test_a_branch_is_zeroed_by_its_multiplier_where_it_has_one(recipe: Recipe, keep: str, zeroed: list[str]) -> None:
    multiplier = Layer(name="alpha", shape=(1,), kind="other", role="layer_scale", of="0.1", keep=keep)
    graph = Graph((*branches(2, 2).layers, multiplier), residual_adds=2)
    assert [layer.name for layer in graph.layers if is_zeroed(layer, recipe, graph)] == zeroed


@pytest.mark.parametrize(
    ("rule", "graph", "said"),
    [
        ("none", transformer(), ""),
        ("fixup", branches(2, 2), "scalar multiplier and biases are left out"),
        ("t_fixup", transformer(), "the model keeps its normalization"),
        ("t_fixup", branches(2, 2), ""),
        ("deepnorm", transformer(), "left out at 4 of 4 residual branches"),
        ("deepnorm", transformer(post_norm=True), ""),
    ],
)
def test_what_a_paper_asks_for_beyond_weights_is_said(rule: str, graph: Graph, said: str) -> None:
    found = left_out(rule, graph)
    assert said in found if said else found == ""


def test_no_layer_has_no_scale() -> None:
    assert depth_scale(None, "deepnorm", transformer()) == DepthScale()


class ReZero(nn.Module):
    """Blocks x + α·f(x), each with a multiplier α of its own (Bachlechner et al. 2020)."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.up = nn.ModuleList(nn.Linear(8, 16) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(16, 8) for _ in range(depth))
        self.alpha = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for up, down, alpha in zip(self.up, self.down, self.alpha, strict=True):
            x = x + alpha * down(up(x).relu())
        return self.head(x)


def test_a_model_with_multipliers_starts_as_its_skips_and_still_learns() -> None:
    model, x = ReZero(), torch.randn(8, 6)
    before = copy.deepcopy(model.state_dict())
    autoinit.apply_(model, "rezero", x)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"alpha.{index}" for index in range(4)}
    torch.testing.assert_close(model(x), model.head(model.stem(x)))
    model(x).square().mean().backward()
    assert all(float(alpha.grad.abs()) > 0 for alpha in model.alpha)


def test_a_branch_whose_weight_is_zero_keeps_its_multiplier() -> None:
    """Both at zero would never move: neither gets a gradient."""
    model, x = ReZero(), torch.randn(8, 6)
    nn.init.zeros_(model.down[0].weight)
    for _ in range(2):  # and again, where multipliers are zero already
        autoinit.apply_(model, "rezero", x)
        assert [alpha.item() for alpha in model.alpha] == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("start", [0.0, 0.1])
def test_fixup_starts_multipliers_at_one_so_that_weights_of_zero_learn(start: float) -> None:
    model, x = ReZero(), torch.randn(8, 6)
    for alpha in model.alpha:
        nn.init.constant_(alpha, start)
    autoinit.apply_(model, "fixup", x)
    assert [alpha.item() for alpha in model.alpha] == [1.0] * 4
    assert not any(bool(down.weight.any()) for down in model.down)
    nn.init.ones_(model.head.weight)  # Fixup's head starts at zero and lets nothing back in the first step
    model(x).square().mean().backward()
    assert all(bool(down.weight.grad.any()) for down in model.down)
