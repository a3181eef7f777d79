"""What the papers derive, measured on real networks; each tolerance is derived where it is used.

Gaussian weights make a layer an exact Markov chain: given the units h of one layer, the preactivations of the next
are independent N(0, σ_w²·mean(h²) + σ_b²). So log q fluctuates by √(κ/n) in a layer of n units, κ the relative
variance of what is averaged, and a deviation in q is passed on times the slope s of the variance map. Tolerances
are five standard deviations of that; the neighbouring hypothesis has to lie outside.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit
from autoinit.activations import FORMULAS, JACOBIAN_SPREAD, Activation, Array
from autoinit.recipes.recipe import Recipe

SEEDS = (0, 1, 2)
Z = np.linspace(-10.0, 10.0, 8_001)
DENSITY = np.exp(-0.5 * Z**2) / np.exp(-0.5 * Z**2).sum()


class Function(nn.Module):
    """An activation that torch has as a function only."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "relu6": nn.ReLU6,
    "relu2": lambda: Function(lambda x: F.relu(x) ** 2),
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "sin": lambda: Function(torch.sin),
    "erf": lambda: Function(torch.erf),
    "logsigmoid": nn.LogSigmoid,
    "tanhshrink": nn.Tanhshrink,
    "softshrink": nn.Softshrink,
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit_rows(count: int, width: int, second_moment: float = 1.0, seed: int = 0) -> Tensor:
    """Inputs whose entries have this second moment, exactly, in every row."""
    x = drawn(count, width, seed=seed)
    return x * (second_moment * width / x.square().sum(1, keepdim=True)).sqrt()


def chain(width: int, depth: int, activation: Callable[[], nn.Module], outputs: int | None = None) -> nn.Sequential:
    """A plain network: `depth` hidden layers of one width, and a linear head."""
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), activation())]
    return nn.Sequential(*layers, nn.Linear(width, outputs or width))


def initialize(model: nn.Module, recipe: str | Recipe, x: Tensor, seed: int = 0) -> autoinit.Plan:
    """Applies a recipe, its architecture read from regression on x."""
    with torch.no_grad():
        target = torch.zeros_like(model(x))
    return autoinit.apply_(model, recipe, (x, target), seed=seed)


def drawings(model: nn.Module, recipe: str | Recipe, x: Tensor) -> Iterator[int]:
    """Draws the model anew for each seed, and yields the seed; the architecture is read once."""
    plan = initialize(model, recipe, x, SEEDS[0])
    yield SEEDS[0]
    for seed in SEEDS[1:]:
        autoinit.apply_(model, dataclasses.replace(plan, seed=seed))
        yield seed


def preactivations(model: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The outputs of the linear layers."""
    found = []
    for part in model:
        x = part(x)
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            found.append(x)
    return found


def expected(function: Callable[[Array], Array], q: float) -> float:
    """E[function(√q·z)] for z ~ N(0, 1)."""
    return float(DENSITY @ function(math.sqrt(q) * Z))


def excess(function: Callable[[Array], Array], q: float) -> float:
    """The relative variance of function(√q·z)², κ: 5 for ReLU."""
    return expected(lambda x: function(x) ** 4, q) / expected(lambda x: function(x) ** 2, q) ** 2 - 1


def variance_slope(phi: Activation, q: float) -> float:
    """d log E[φ(√q·z)²] / d log q: the factor on a deviation of log q in one layer without biases."""
    above, below = (expected(lambda x: phi(x) ** 2, q * c) for c in (1.001, 0.999))
    return (math.log(above) - math.log(below)) / math.log(1.001 / 0.999)


# The second moment is kept


def fluctuation(phi: Activation, width: int, depth: int) -> float:
    """The standard deviation of log q after `depth` layers at the gain for which q = 1 is kept."""
    s = variance_slope(phi, 1.0)
    passed_on = sum(s ** (2 * k) for k in range(depth))
    return math.sqrt((2 + passed_on * excess(phi, 1.0)) / width)


def is_calm(phi: Activation) -> bool:
    """Whether q = 1 does not repel at the gain for which it is kept."""
    return variance_slope(phi, 1.0) <= 1 + 1e-6


def depth_of_fluctuation(phi: Activation, width: int, most: float) -> int:
    """The largest depth up to fifty at which log q fluctuates by no more than `most`."""
    return max(depth for depth in range(1, 51) if depth == 1 or fluctuation(phi, width, depth) < most)


def last_log_q(name: str, recipe: str | Recipe, width: int, depth: int) -> float:
    """The mean over seeds of log(mean of z²) at the last hidden layer, where it starts at 0 under the gain of φ."""
    model = chain(width, depth, MODULES[name], outputs=1)
    x = unit_rows(4, width, second_moment=Activation(name).gain() ** -2)
    logs = []
    for _ in drawings(model, recipe, x):
        with torch.no_grad():
            logs.append(float(preactivations(model, x)[-2][0].square().mean().log()))
    return sum(logs) / len(logs)


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "linear"])
def test_the_computed_gain_keeps_the_second_moment(name: str) -> None:
    # Fifty layers, where the fixed point q = 1 does not repel (s ≤ 1). Where it does (GELU: s = 1.14, so that a
    # deviation grows 850 times in fifty layers), as many as keep the predicted fluctuation below 0.5.
    phi = Activation(name)
    width, depth = (256, 50) if is_calm(phi) else (1024, depth_of_fluctuation(phi, 1024, 0.5))
    spread = fluctuation(phi, width, depth)
    # The mean of a logarithm lies half a variance below the logarithm of the mean.
    tolerance = 5 * spread / math.sqrt(len(SEEDS))
    assert last_log_q(name, "he_normal", width, depth) == pytest.approx(-(spread**2) / 2, abs=tolerance)
    # A gain 40 % off, as that of ReLU is for a linear layer, is told from it.
    off = last_log_q(name, Recipe(base="he_normal", log2_gain=-0.5), width, depth)
    assert abs(off + spread**2 / 2) > tolerance


def test_depth_fifty_is_reached_by_most() -> None:
    calm = [name for name in FORMULAS if is_calm(Activation(name))]
    assert set(calm) == {
        *("linear", "relu", "leaky_relu", "relu6", "elu", "celu", "selu", "softplus", "logsigmoid", "softsign"),
        *("tanh", "sigmoid", "hardtanh", "hardsigmoid", "sin", "erf"),
    }


def test_xavier_halves_the_second_moment_in_every_relu_layer() -> None:
    # log q = −50·log 2 = −34.7 at the last of 51 layers, the first of which had He's too much: ± 5 standard deviations.
    tolerance = 5 * fluctuation(Activation("relu"), 256, 50) / math.sqrt(len(SEEDS))
    assert last_log_q("relu", "xavier_normal", 256, 50) == pytest.approx(-50 * math.log(2), abs=tolerance + 0.5)


def test_selu_is_drawn_to_mean_0_and_variance_1() -> None:
    # From inputs of second moment 3. At the fixed point the mean of n units fluctuates by 1/√n, and by what q does.
    width, phi = 256, Activation("selu")
    s = variance_slope(phi, 1.0)
    spread_q = math.sqrt(excess(phi, 1.0) / width / (1 - s**2))
    mean_by_q = (expected(phi, 1.01) - expected(phi, 0.99)) / 0.02
    means, moments = [], []
    model, x = chain(width, 50, nn.SELU, outputs=1), unit_rows(4, width, second_moment=3.0)
    for _ in drawings(model, "selu", x):
        with torch.no_grad():
            units = model[:-1](x)[0]
        means.append(float(units.mean()))
        moments.append(float(units.square().mean()))
    five = 5 / math.sqrt(len(SEEDS))
    assert np.mean(means) == pytest.approx(0, abs=five * math.hypot(1 / math.sqrt(width), mean_by_q * spread_q))
    assert np.mean(moments) == pytest.approx(1, abs=five * math.hypot(s, 1) * spread_q)
    initialize(model, Recipe(base="selu", log2_gain=0.5), x)
    with torch.no_grad():
        assert float(model[:-1](x)[0].square().mean()) > 1 + 2 * five * spread_q


# The edge of chaos


def gradient_growth(model: nn.Sequential, x: Tensor) -> tuple[float, list[float]]:
    """log(|gradient at the first hidden layer|² / |at the last|²), and q of every hidden layer between."""
    layers = preactivations(model, x)[:-1]
    grad = drawn(*layers[-1].shape, seed=9)
    first, last = torch.autograd.grad(layers[-1], [layers[0], layers[-1]], grad)
    growth = (first[0].square().sum() / last[0].square().sum()).log()
    return float(growth), [float(z[0].detach().square().mean()) for z in layers]


def critical_growth(name: str, log2_gain: float, width: int, depth: int) -> tuple[float, float, float]:
    """The mean growth over seeds, the one that mean-field theory predicts, and its standard deviation.

    Forward, q settles where σ_w and σ_b make it; backward each layer gives the factor χ(q) = σ_w²·E[φ'(√q·z)²],
    with independent fluctuations of 3·E[φ'⁴]/E[φ'²]² − 1 over n, and those of q, which s passes on from layer
    to layer, so that over many layers they sum up to 1/(1 − s) each.
    """
    phi = Activation(name)
    point = phi.edge_of_chaos()
    assert point is not None
    sigma2 = point.sigma_w**2 * 4.0**log2_gain
    model, x = chain(width, depth, MODULES[name], outputs=1), unit_rows(4, width)
    grown, predicted = [], []
    for _ in drawings(model, Recipe(base="edge_of_chaos", log2_gain=log2_gain), x):
        growth, (q, *_) = gradient_growth(model, x)
        grown.append(growth)
        predicted.append(0.0)
        for _layer in range(depth - 1):
            predicted[-1] += math.log(sigma2 * expected(lambda x: phi.slope(x) ** 2, q))
            q = sigma2 * expected(lambda x: phi(x) ** 2, q) + point.sigma_b**2
    share = 1 - point.sigma_b**2 / q
    s = share * variance_slope(phi, q)
    up, down = (math.log(expected(lambda x: phi.slope(x) ** 2, q * c)) for c in (1.01, 0.99))
    chi_by_q = (up - down) / 0.02
    slopes2, slopes4 = (expected(lambda x, p=p: phi.slope(x) ** p, q) for p in (2, 4))
    backward = 3 * slopes4 / slopes2**2 - 1
    forward = (chi_by_q * share / (1 - s)) ** 2 * excess(phi, q)
    spread = math.sqrt(depth * (backward + forward) / width / len(SEEDS))
    return float(np.mean(grown)), float(np.mean(predicted)), spread


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_gradients_keep_their_norm_at_the_edge_of_chaos_and_nowhere_else(name: str) -> None:
    width, depth = 256, 40
    growth, predicted, spread = critical_growth(name, 0.0, width, depth)
    # q starts at σ_w² of the unit inputs, or at its fixed point; from there it settles within a few layers.
    assert predicted == pytest.approx(0, abs=1.0)
    assert growth == pytest.approx(predicted, abs=5 * spread)
    for log2_gain in (-0.25, 0.25):
        off, predicted_off, spread_off = critical_growth(name, log2_gain, width, depth)
        assert off == pytest.approx(predicted_off, abs=5 * spread_off)
        assert abs(off - predicted) > 5 * spread
        assert math.copysign(1, off) == math.copysign(1, log2_gain)


# Dynamical isometry


def singular_values(model: nn.Module, x: Tensor) -> Tensor:
    """Those of the Jacobian of the output with respect to one input."""
    jacobian = torch.autograd.functional.jacobian(lambda row: model(row[None])[0], x[0], vectorize=True)
    return torch.linalg.svdvals(jacobian.flatten(1) if jacobian.dim() == 2 else jacobian)


@pytest.mark.parametrize("recipe", ["orthogonal", "butterfly_orthogonal", "delta_orthogonal", "identity", "hadamard"])
def test_thirty_linear_layers_are_an_isometry(recipe: str) -> None:
    model, x = chain(64, 29, nn.Identity), drawn(4, 64)
    initialize(model, recipe, x)
    values = singular_values(model, x)
    assert torch.allclose(values, torch.ones(64), atol=1e-3)


def test_thirty_gaussian_layers_are_not() -> None:
    model, x = chain(64, 29, nn.Identity), drawn(4, 64)
    initialize(model, "lecun_normal", x)
    values = singular_values(model, x)
    # log of the largest squared singular value grows like the sum of the logs: orders of magnitude apart.
    assert values[0] / values[-1] > 1e3


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "gelu", "hardswish"])
def test_mirrored_units_are_a_linear_isometry(activation: str) -> None:
    hidden = [part for _ in range(29) for part in (nn.Linear(128, 128), MODULES[activation]())]
    model = nn.Sequential(nn.Linear(64, 128), MODULES[activation](), *hidden, nn.Linear(128, 64))
    x = drawn(4, 64)
    initialize(model, "looks_linear", x)
    assert torch.allclose(singular_values(model, x), torch.ones(64), atol=1e-3)
    initialize(model, "orthogonal", x)
    assert float((singular_values(model, x) - 1).abs().max()) > 0.1


def jacobian_spread(recipe: str, seed: int) -> tuple[float, float, float]:
    """Variance over squared mean of the squared singular values of a tanh network's Jacobian.

    With it what theory has for orthogonal weights, Σ (E[φ'⁴]/E[φ'²]² − 1) at each layer's own q, and for Gaussian
    ones, Σ E[φ'⁴]/E[φ'²]² (Pennington, Schoenholz & Ganguli 2018, arXiv:1802.09979, eq. 24).
    """
    model, x = chain(128, 30, nn.Tanh), unit_rows(4, 128)
    initialize(model, recipe, x, seed)
    squares = singular_values(model, x).square()
    slope = Activation("tanh").slope
    orthogonal = 0.0
    for z in preactivations(model, x)[:-1]:
        q = float(z[0].detach().square().mean())
        orthogonal += expected(lambda x: slope(x) ** 4, q) / expected(lambda x: slope(x) ** 2, q) ** 2 - 1
    return float(squares.var() / squares.mean() ** 2), orthogonal, orthogonal + 31


@pytest.mark.parametrize("seed", SEEDS)
def test_tanh_is_near_an_isometry_with_orthogonal_weights_and_far_from_it_with_gaussian_ones(seed: int) -> None:
    measured, orthogonal, _ = jacobian_spread("dynamical_isometry", seed)
    assert orthogonal <= 1.2 * JACOBIAN_SPREAD
    # The theory is for infinite width; at n = 128 sums over singular values are off by some 1/n, variances by several.
    assert measured == pytest.approx(orthogonal, rel=10 / 128)
    gaussian, _, predicted = jacobian_spread("edge_of_chaos", seed)
    # 128 values cannot show a variance of their predicted size, of which a few outliers are the most: they bound
    # it by n − 1 only. A tenth of the prediction is still far above the orthogonal network's.
    assert predicted > 31
    assert gaussian > predicted / 10 > 5 * measured


def test_a_deep_plain_cnn_keeps_norms() -> None:
    layers = [nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular") for _ in range(30)]
    model, x = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 36, 2)), drawn(4, 8, 6, 6)
    for recipe, kept in (("delta_orthogonal", True), ("orthogonal", False)):
        initialize(model, recipe, x)
        with torch.no_grad():
            ratios = model[:30](x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
        assert (float((ratios - 1).abs().max()) < 1e-4) is kept


# Residual networks


class Branches(nn.Module):
    """x + W₂·relu(W₁·norm(x)), again and again, between a stem and a head."""

    def __init__(self, width: int, depth: int, norm: bool = False) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(width, width), nn.Linear(width, 1)
        self.first = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.second = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm else nn.Identity() for _ in range(depth))

    def stream(self, x: Tensor) -> list[Tensor]:
        """The residual stream before each block and after the last."""
        found = [self.stem(x)]
        for first, second, norm in zip(self.first, self.second, self.norms, strict=True):
            found.append(found[-1] + second(F.relu(first(norm(found[-1])))))
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stream(x)[-1])


def step_size(model: nn.Module, x: Tensor, moving: str = "") -> float:
    """|change of the output| per learning rate, in one SGD step of the weight matrices on a loss of gradient 1.

    Biases start at zero in each of these rules, and are left where they are: their gradients add a term for each
    layer whatever the weights' scale, which the papers leave out too.

    Args:
        model: with one output.
        x: one input.
        moving: only weights with this in their name.
    """
    named = [(name, weight) for name, weight in model.named_parameters() if weight.dim() == 2 and moving in name]
    before = model(x).sum()
    grads = torch.autograd.grad(before, [weight for _, weight in named])
    # So small that the step is linear: it changes the output by a thousandth of itself, or of 1.
    eta = 1e-3 * (1 + abs(float(before.detach()))) / sum(float(grad.square().sum()) for grad in grads)
    with torch.no_grad():
        for (_, weight), grad in zip(named, grads, strict=True):
            weight -= eta * grad
        return float((model(x).sum() - before).abs()) / eta


def steps(recipe: str | Recipe, depths: tuple[int, int], x: Tensor) -> tuple[float, float]:
    """The size of a step in a shallower and a deeper network of plain branches."""
    sizes = []
    for depth in depths:
        model = Branches(64, depth).double()
        initialize(model, recipe, x)
        sizes.append(step_size(model, x[:1]))
    return sizes[0], sizes[1]


@pytest.mark.parametrize("head", ["zero", "same"])
def test_fixup_s_step_does_not_depend_on_depth(head: str) -> None:
    # With its zero head only the head moves at first. With another head each of the L branches adds |relu(W₁x)|² ~ 1/L
    # by its last weight: a sum of L terms of relative variance κ/n = 5/64 each, beside what stem and head add
    # whatever L is; within 5·√(5/64/10) = 45 % at depth 10.
    rule = Recipe(base="he_normal", residual_out="zero", depth_rule="fixup", head=head)
    shallow, deep = steps("fixup" if head == "zero" else rule, (10, 100), unit_rows(4, 64).double())
    assert deep / shallow == pytest.approx(1, abs=0.45)


def test_other_rules_steps_grow_with_depth() -> None:
    x = unit_rows(4, 64).double()
    # Without the factor 1/√L inside the branches, ten times as many add ten times as much; stem and head add about
    # as much as two branches each: (2 + 2 + 100)/(2 + 2 + 10) = 7.
    shallow, deep = steps(Recipe(base="he_normal", residual_out="zero"), (10, 100), x)
    assert deep / shallow > 4
    # He doubles the second moment in every block: 2^90 at the head alone.
    shallow, deep = steps("he_normal", (10, 100), x)
    assert deep / shallow > 2.0**80


def stream_growth(recipe: str, depth: int, seed: int) -> float:
    """The second moment of what all branches together add to the stream."""
    model, x = Branches(128, depth, norm=True), unit_rows(4, 128)
    initialize(model, recipe, x, seed)
    with torch.no_grad():
        stream = model.stream(x)
    return float((stream[-1] - stream[0]).square().mean())


def test_gpt2_s_residual_stream_grows_by_the_same_at_every_depth() -> None:
    # L branches of variance v/L each, v = (0.02²·128)²·E[relu²], whatever L. In each the second moment of 128 units is
    # off by √(5/128), that of their sum, which is again 128 Gaussian numbers, by √(2/128).
    tolerance = 5 * math.sqrt(5 / 128 / 8 + 2 / 128)
    shallow, deep = stream_growth("gpt2", 8, 0), stream_growth("gpt2", 64, 0)
    v = (0.02**2 * 128) ** 2 / 2
    assert shallow == pytest.approx(v, rel=tolerance)
    assert deep == pytest.approx(v, rel=tolerance)
    assert stream_growth("normal", 64, 0) == pytest.approx(64 * v, rel=tolerance)


def test_a_zero_branch_leaves_the_stream_as_it_is() -> None:
    assert stream_growth("zero_residual", 64, 0) == 0.0


# Transformers


class Attention(nn.Module):
    """Self-attention by four linear maps."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """Blocks of attention and feed-forward around a stream; a norm after each add, or none; α on the skips."""

    def __init__(self, width: int, depth: int, heads: int = 2, norm: bool = True, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.stem, self.head = nn.Linear(width, width), nn.Linear(width, 1)
        self.attention = nn.ModuleList(Attention(width, heads) for _ in range(depth))
        self.up = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm else nn.Identity() for _ in range(2 * depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        norms: Iterable[nn.Module] = iter(self.norms)
        for attention, up, down in zip(self.attention, self.up, self.down, strict=True):
            x = next(iter(norms))(self.alpha * x + attention(x))
            x = next(iter(norms))(self.alpha * x + down(F.relu(up(x))))
        return self.head(x).mean(1)


def tokens(width: int = 32) -> Tensor:
    return drawn(2, 5, width).double()


def test_deepnorm_folds_its_alpha_exactly() -> None:
    depth = 3
    folded, explicit = Transformer(32, depth).double(), Transformer(32, depth, alpha=(2 * depth) ** 0.25).double()
    initialize(folded, "deepnorm", tokens())
    explicit.load_state_dict(folded.state_dict())
    beta, root = (8 * depth) ** -0.25, math.sqrt(2 / 64)
    for attention, down in zip(explicit.attention, explicit.down, strict=True):
        for closing in (attention.out, down):
            closing.weight.data.mul_(explicit.alpha)
    # Unfolded it is the paper's own draw: Xavier × β.
    for attention in explicit.attention:
        assert float(attention.out.weight.detach().std()) == pytest.approx(beta * root, rel=5 / math.sqrt(2 * 1024))
        assert float(attention.v.weight.detach().std()) == pytest.approx(beta * root, rel=5 / math.sqrt(2 * 1024))
        assert float(attention.q.weight.detach().std()) == pytest.approx(root, rel=5 / math.sqrt(2 * 1024))
    with torch.no_grad():
        # LN(αx + f) = LN(x + f/α) but for ε = 1e-5 under its root.
        assert torch.allclose(folded(tokens()), explicit(tokens()), atol=1e-4)
        explicit.alpha = 1.0
        assert not torch.allclose(folded(tokens()), explicit(tokens()), atol=1e-2)


def transformer_step(depth: int, recipe: str, norm: bool, skip: float = 1.0, scale: float = 1.0) -> float:
    """The size of a step of the blocks' weights; the stream starts at `scale`, and folded branches are unfolded."""
    model = Transformer(32, depth, norm=norm).double()
    initialize(model, recipe, tokens())
    model.alpha = skip
    with torch.no_grad():
        for attention, down in zip(model.attention, model.down, strict=True):
            assert isinstance(attention, Attention)
            attention.out.weight.mul_(skip)
            down.weight.mul_(skip)
    return sum(step_size(model, scale * tokens()[:1], moving=part) for part in ("attention", "up", "down"))


def test_t_fixup_s_step_does_not_depend_on_depth() -> None:
    # N·(v²·x² + w²·x² + …) with v, w ~ N^(−1/4), and a stream that starts at (9N)^(−1/4), as the paper's embeddings do.
    # Some 30 units in each of 4 layers: within 5·√(5/32/4) = 1.0 of the mean, taken as a factor of 2.
    shallow, deep = (transformer_step(n, "t_fixup", norm=False, scale=(9 * n) ** -0.25) for n in (4, 32))
    assert 0.5 < deep / shallow < 2
    # Where nothing is scaled, each block multiplies what reaches the next.
    shallow, deep = (transformer_step(n, "xavier_uniform", norm=False) for n in (4, 32))
    assert deep / shallow > 2.0**8


def test_deepnorm_s_step_does_not_depend_on_depth() -> None:
    # 2N·(v² + w²)/α² with v, w = (8N)^(−1/4) and α = (2N)^(1/4), where α multiplies the skip.
    shallow, deep = (transformer_step(n, "deepnorm", norm=True, skip=(2 * n) ** 0.25) for n in (4, 32))
    assert 0.5 < deep / shallow < 2
    # Folded, the function is the same, and the closing weights learn α² times as fast under SGD: √N in all.
    folded = [transformer_step(n, "deepnorm", norm=True) for n in (4, 32)]
    assert 1.5 < folded[1] / folded[0] < 2 * math.sqrt(8)
    for depth, size in ((4, folded[0]), (32, folded[1])):
        assert transformer_step(depth, "xavier_normal", norm=True) > 5 * size


# The best product of two factors of rank r to a·Z + b·1, Z from N(0, 1/d): by the singular value decomposition.


def mean_diagonal(random: float, identity: float, width: int, rank: int) -> float:
    """The mean diagonal entry of that product, from twenty draws that share nothing with the library's."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(20):
        target = random * rng.standard_normal((width, width)) / math.sqrt(width) + identity * np.eye(width)
        left, values, right = np.linalg.svd(target)
        found.append(np.trace((left[:, :rank] * values[:rank]) @ right[:rank]) / width)
    return float(np.mean(found))


@pytest.mark.parametrize("heads", [1, 4])
def test_mimetic_attention_is_near_the_identity(heads: int) -> None:
    width = 64
    model = Transformer(width, 1, heads)
    initialize(model, "mimetic", drawn(2, 5, width))
    attention = model.attention[0]
    assert isinstance(attention, Attention)
    with torch.no_grad():
        queries, keys = (part.weight.reshape(heads, -1, width) for part in (attention.q, attention.k))
        product = torch.einsum("hri,hrj->hij", queries, keys).mean(0)
        mixing = attention.out.weight @ attention.v.weight
    # The mean of 64 entries of α·Z is off by α/64; a mean over heads is off by less.
    diagonal = mean_diagonal(0.7, 0.7, width, width // heads)
    assert float(product.diagonal().mean()) == pytest.approx(diagonal, abs=5 * 0.7 / width + 0.01)
    if heads == 1:
        assert diagonal == pytest.approx(0.7, abs=5 * 0.7 / width / math.sqrt(20))
    assert float(mixing.diagonal().mean()) == pytest.approx(-0.4, abs=5 * 0.4 / width)
    initialize(model, "xavier_normal", drawn(2, 5, width))
    with torch.no_grad():
        assert abs(float((attention.out.weight @ attention.v.weight).diagonal().mean())) < 0.1


# Sines


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(30.0 * x)


def test_siren_keeps_the_distribution_of_its_units() -> None:
    # Weights of variance 2/(n·ω²) on units of second moment m, and biases of variance 1/(3n), give a phase of variance
    # v = 2m + ω²/(3n), and E[sin²] = (1 − e^(−2v))/2: m = 0.48 is kept, near the 1/2 of a uniform phase (the paper's
    # 1/√2 as a deviation). Without the biases it would be 0.398.
    depth, width = 10, 256
    kept = 0.4
    for _ in range(50):
        kept = (1 - math.exp(-4 * kept - 2 * 30**2 / (3 * width))) / 2
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), Sine())]
    model = nn.Sequential(nn.Linear(1, width), Sine(), *layers, nn.Linear(width, 1))
    x = torch.linspace(-1, 1, 200)[:, None]
    moments = []
    for _ in drawings(model, "siren", x):
        with torch.no_grad():
            moments.append([float(torch.sin(30 * z).square().mean()) for z in preactivations(model, x)[:-1]])
    # κ = E[sin⁴]/E[sin²]² − 1 < 1 of n units; the map passes on s = 0.4 of a deviation: 5·√(1/256/(1 − 0.16)/3).
    tolerance = 5 * math.sqrt(1 / width / (1 - 0.16) / len(SEEDS))
    means = np.mean(moments, axis=0)
    assert means[3:] == pytest.approx(np.full(depth - 2, kept), rel=tolerance)
    assert math.sqrt(kept) == pytest.approx(1 / math.sqrt(2), rel=0.04)
    initialize(model, Recipe(base="siren", bias="zero", log2_gain=-0.75), x)
    with torch.no_grad():
        last = float(torch.sin(30 * preactivations(model, x)[-2]).square().mean())
    assert last < kept * (1 - 2 * tolerance)


# Recurrent networks


class Recurrent(nn.Module):
    """The last output of a recurrent network, read out by a linear layer."""

    def __init__(self, cell: nn.Module, width: int) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


def test_irnn_keeps_its_state() -> None:
    cell = nn.RNN(8, 32, nonlinearity="relu", batch_first=True)
    model, x = Recurrent(cell, 32), drawn(2, 100, 8)
    state = drawn(1, 2, 32).abs()
    for recipe, kept in (("irnn", True), ("he_normal", False)):
        initialize(model, recipe, x)
        with torch.no_grad():
            after = cell(torch.zeros_like(x), state)[1]
        assert torch.equal(after, state) is kept


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_chrono_s_time_constants_cover_the_sequence(cell: type[nn.LSTM | nn.GRU]) -> None:
    # A gate σ(b) that keeps has the time constant 1/(1 − σ(b)) = 1 + e^b; with b = log U(1, T − 1) it is U(2, T).
    # Of 512 units the mean is off by (T − 2)/√12/√512, the nearest to either end by 1/512 of the range or so.
    steps, width = 200, 512
    model, x = Recurrent(cell(4, width, batch_first=True), width), drawn(2, steps, 4)
    initialize(model, "chrono", x)
    recurrent = model.cell
    assert isinstance(recurrent, (nn.LSTM, nn.GRU))
    bias = (recurrent.bias_ih_l0 + recurrent.bias_hh_l0).detach().reshape(-1, width)[1]
    constants = 1 + torch.exp(bias)
    assert float(constants.mean()) == pytest.approx((2 + steps) / 2, abs=5 * (steps - 2) / math.sqrt(12 * 512))
    assert 2 <= float(constants.min()) < 2 + 10 * (steps - 2) / 512
    assert steps - 10 * (steps - 2) / 512 < float(constants.max()) <= steps
    if cell is nn.LSTM:
        entered = (recurrent.bias_ih_l0 + recurrent.bias_hh_l0).detach().reshape(-1, width)[0]
        assert torch.allclose(entered, -bias, atol=1e-6)
