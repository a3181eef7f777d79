"""The plain functions of a tensor, against torch.nn.init and against their formulas."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoinit import init
from autoinit.activations import FORMULAS, Activation
from autoinit.errors import ArgumentError

Function = Callable[..., Tensor]
OF_A_WEIGHT: dict[str, Function] = {
    name: function
    for name, function in vars(init).items()
    if name.endswith("_")
    and not name.startswith("_")
    and inspect.isfunction(function)
    and function.__module__ == init.__name__
    and name not in ("mimetic_", "chrono_", "truncated_normal_")
}
DETERMINISTIC = ("identity_", "hadamard_")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spread(tensor: Tensor) -> float:
    return tensor.double().square().mean().sqrt().item()


def test_every_function_of_the_family_is_here() -> None:
    families = {f"{name}_{kind}_" for name in ("he", "xavier", "lecun") for kind in ("normal", "uniform", "truncated")}
    others = "variance_scaling_ sparse_ identity_ orthogonal_ delta_orthogonal_ butterfly_orthogonal_ looks_linear_"
    assert set(OF_A_WEIGHT) == families | set(others.split()) | {"hadamard_", "siren_"}


# Beside torch.nn.init: the same root mean square, and the same largest entry where there is one.

TORCH: dict[str, tuple[Function, Function]] = {
    "he_normal": (init.he_normal_, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
    "he_uniform": (init.he_uniform_, lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu")),
    "he_fan_out": (
        lambda w: init.he_normal_(w, "relu", "fan_out"),
        lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
    ),
    "he_leaky": (
        lambda w: init.he_normal_(w, Activation("leaky_relu", (0.3,))),
        lambda w: nn.init.kaiming_normal_(w, a=0.3),
    ),
    "xavier_normal": (init.xavier_normal_, nn.init.xavier_normal_),
    "xavier_uniform": (init.xavier_uniform_, nn.init.xavier_uniform_),
    "xavier_gain": (lambda w: init.xavier_uniform_(w, 1.7), lambda w: nn.init.xavier_uniform_(w, 1.7)),
    "orthogonal": (init.orthogonal_, nn.init.orthogonal_),
    "orthogonal_gain": (lambda w: init.orthogonal_(w, 1.7), lambda w: nn.init.orthogonal_(w, 1.7)),
    "butterfly": (init.butterfly_orthogonal_, nn.init.orthogonal_),
}


@pytest.mark.parametrize("shape", [(160, 100), (100, 160), (40, 24, 3, 3), (48, 24, 5)])
@pytest.mark.parametrize("name", TORCH)
def test_agrees_with_torch(name: str, shape: tuple[int, ...]) -> None:
    ours, theirs = (spread(function(torch.empty(shape))) for function in TORCH[name])
    tolerance = 5 / math.sqrt(math.prod(shape))  # both are drawn: √2 · 5/√(2n)
    assert abs(ours / theirs - 1) <= tolerance
    assert abs(math.sqrt(2) - 1) > 2 * tolerance  # the neighbouring gain would be seen


@pytest.mark.parametrize(("groups", "shape"), [(1, (3, 16, 5, 5)), (1, (16, 3, 4)), (3, (12, 2, 3, 3, 3))])
def test_identity_is_torchs_dirac(groups: int, shape: tuple[int, ...]) -> None:
    expected = nn.init.dirac_(torch.empty(shape), groups)
    torch.testing.assert_close(init.identity_(torch.empty(shape), groups=groups), expected, rtol=1e-6, atol=0)


def test_identity_is_torchs_eye() -> None:
    torch.testing.assert_close(init.identity_(torch.empty(5, 8)), nn.init.eye_(torch.empty(5, 8)), rtol=1e-6, atol=0)


def test_the_cut_is_corrected_where_torch_shrinks() -> None:
    tolerance = 5 / math.sqrt(2 * 200_000)
    tensor = init.truncated_normal_(torch.empty(200_000), 3.0)
    assert abs(spread(tensor) / 3 - 1) <= tolerance
    assert abs(spread(nn.init.trunc_normal_(torch.empty(200_000), 0, 3.0, -6, 6)) / 3 - 0.8796) <= tolerance
    # Its quartile lies where a normal has 0.5 + 0.9545/4 of its mass; a uniform or an uncut one have others.
    width, place = 3.0 / 0.8796, NormalDist().inv_cdf(0.5 + 0.9545 / 4)
    error = math.sqrt(0.25 * 0.75 / tensor.numel()) / (NormalDist().pdf(place) / 0.9545)
    assert abs(tensor.quantile(0.75).item() / width - place) <= 5 * error
    assert abs(NormalDist().inv_cdf(0.75) - place) > 5 * error


# Formulas

SHAPE = (240, 60, 3)
FANS = {"fan_in": 180.0, "fan_out": 720.0, "fan_avg": 450.0, "fan_geometric": 360.0}


@pytest.mark.parametrize("distribution", ["normal", "uniform", "truncated_normal"])
@pytest.mark.parametrize("mode", FANS)
def test_variance_scaling(mode: Any, distribution: Any) -> None:
    tensor = init.variance_scaling_(torch.empty(SHAPE), 3.0, mode, distribution)
    tolerance = 5 / math.sqrt(2 * tensor.numel())
    fans = {other: spread(tensor) / math.sqrt(3.0 / fan) for other, fan in FANS.items()}
    assert abs(fans[mode] - 1) <= tolerance
    assert all(
        abs(fans[other] - 1) > tolerance
        for other in FANS
        if {mode, other} != {"fan_avg", "fan_geometric"} and mode != other
    )


def within(tensor: Tensor, std: float) -> bool:
    return abs(spread(tensor) / std - 1) <= 5 / math.sqrt(2 * tensor.numel())


@pytest.mark.parametrize("kind", ["normal", "uniform", "truncated"])
def test_families_are_rows_of_variance_scaling(kind: str) -> None:
    he, xavier, lecun = (OF_A_WEIGHT[f"{family}_{kind}_"] for family in ("he", "xavier", "lecun"))
    assert within(he(torch.empty(SHAPE)), math.sqrt(2 / 180))
    assert within(he(torch.empty(SHAPE), "tanh", "fan_out"), Activation("tanh").gain() / math.sqrt(720))
    assert within(xavier(torch.empty(SHAPE)), math.sqrt(1 / 450))
    assert within(lecun(torch.empty(SHAPE)), math.sqrt(1 / 180))


def test_transposed_and_grouped_weights_have_their_own_fans() -> None:
    assert within(init.lecun_normal_(torch.empty(80, 200), transposed=True), math.sqrt(1 / 80))
    assert within(init.lecun_normal_(torch.empty(80, 20, 5), transposed=True, groups=4), math.sqrt(1 / (20 * 5)))
    fan_out = init.variance_scaling_(torch.empty(120, 20, 5), mode="fan_out", groups=4)
    assert within(fan_out, math.sqrt(1 / (30 * 5)))


@pytest.mark.parametrize("name", sorted(set(FORMULAS) - {"relu2"}))  # whose kurtosis, 23, asks for wider layers
def test_the_gain_of_what_came_before_keeps_the_second_moment(name: str) -> None:
    # Of n inputs with kurtosis κ the mean square is known within √((κ − 1)/n), that of n outputs within √(2/n).
    width, activation = 2000, Activation(name)
    x = torch.from_numpy(activation(torch.randn(4, width, dtype=torch.float64).numpy()))
    weight = init.he_normal_(torch.empty(width, width, dtype=torch.float64), activation)
    kurtosis = (x.pow(4).mean() / x.square().mean().square()).item()
    tolerance = 5 * math.sqrt((kurtosis + 1) / width)
    assert abs((x @ weight.T).square().mean().item() - 1) <= tolerance < 0.5


def test_sparse_units_keep_their_scale() -> None:
    tensor = init.sparse_(torch.empty(4000, 90), "relu")
    assert ((tensor != 0).sum(1) == 15).all()
    assert within(tensor[tensor != 0], math.sqrt(2 / 15))


def test_delta_orthogonal_convolution_keeps_lengths() -> None:
    conv = nn.Conv2d(8, 20, 3, padding=1, bias=False)
    init.delta_orthogonal_(conv.weight, 2.0)
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(conv(x).norm(), 2 * x.norm(), rtol=1e-5, atol=0)


def test_transposed_convolution_takes_its_matrices_the_other_way() -> None:
    conv = nn.ConvTranspose2d(8, 20, 3, padding=1, bias=False)
    init.delta_orthogonal_(conv.weight, transposed=True)
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(conv(x).norm(), x.norm(), rtol=1e-5, atol=0)


def test_looks_linear_network_is_linear() -> None:
    net = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 10))
    for place, position in zip((0, 2, 4), ("first", "hidden", "last"), strict=True):
        layer = net[place]
        assert isinstance(layer, nn.Linear)
        init.looks_linear_(layer.weight, position)  # type: ignore[arg-type]
        nn.init.zeros_(layer.bias)
    x, y = torch.randn(2, 10), torch.randn(2, 10)
    torch.testing.assert_close(net(x - 3 * y), net(x) - 3 * net(y), rtol=0, atol=1e-5)
    torch.testing.assert_close(net(x).norm(dim=1), x.norm(dim=1), rtol=1e-5, atol=0)


def test_hadamard_has_its_paper_scale_at_powers_of_two() -> None:
    assert init.hadamard_(torch.empty(64, 48)).abs().unique().tolist() == [1 / 8]
    assert torch.equal(init.hadamard_(torch.empty(64, 64)), torch.eye(64))


def test_siren_bounds() -> None:
    for first, bound in ((True, 1 / 256), (False, math.sqrt(6 / 256) / 30)):
        largest = init.siren_(torch.empty(300, 256), first=first).abs().max().item()
        assert 0.99 * bound < largest <= bound * (1 + 1e-6)


# Attention and recurrent biases


@pytest.mark.parametrize("transposed", [False, True])
def test_mimetic_fills_pairs(transposed: bool) -> None:
    weights = [torch.empty(96, 96) for _ in range(4)]
    init.mimetic_(*weights, heads=1, transposed=transposed, generator=seeded())
    query, key, value, out = (weight.T if transposed else weight for weight in weights)
    assert abs((query.T @ key).diagonal().mean().item() - 0.7) <= 5 * 0.7 / 96
    assert abs((out @ value).diagonal().mean().item() + 0.4) <= 5 * 0.4 / 96
    # Two different draws: without its diagonal, one product says nothing of the other.
    first, second = (query.T @ key).fill_diagonal_(0).flatten(), (out @ value).fill_diagonal_(0).flatten()
    assert abs(torch.corrcoef(torch.stack((first, second)))[0, 1].item()) <= 5 / 96


def test_mimetic_fills_fused_weights_by_their_slices() -> None:
    attention = nn.MultiheadAttention(32, 4)
    init.mimetic_(*attention.in_proj_weight.detach().chunk(3), attention.out_proj.weight, heads=4)
    query, key, value = attention.in_proj_weight.detach().chunk(3)
    product = sum(q.T @ k for q, k in zip(query.chunk(4), key.chunk(4), strict=True))
    assert isinstance(product, Tensor)
    assert (product / 4).diagonal().mean().item() > 0.1
    assert (attention.out_proj.weight.detach() @ value).diagonal().mean().item() < -0.2


@pytest.mark.parametrize(
    ("shapes", "heads", "message"),
    [
        (((8, 8), (4, 8), (8, 8), (8, 8)), 2, "query and key of one shape"),
        (((8, 8), (8, 8), (8, 6), (6, 8)), 2, "self-attention"),
        (((8, 8), (8, 8), (8, 8), (8, 9)), 2, r"\(8, 9\)"),
        (((8, 8), (8, 8), (8, 8), (8, 8)), 3, "3 heads do not divide the 8 outputs"),
        (((8, 8, 1), (8, 8), (8, 8), (8, 8)), 2, "are matrices"),
    ],
)
def test_mimetic_says_what_does_not_fit(shapes: tuple[tuple[int, ...], ...], heads: int, message: str) -> None:
    tensors = [torch.zeros(shape) for shape in shapes]
    with pytest.raises(ArgumentError, match=message):
        init.mimetic_(*tensors, heads=heads)
    assert not any(tensor.any() for tensor in tensors)


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3)])
def test_chrono(cell: Any, gates: int) -> None:
    bias = init.chrono_(torch.empty(gates * 500), 100, cell)
    times = bias.chunk(gates)[1].exp()
    assert 1 - 1e-5 <= times.min() < 3
    assert 96 < times.max() <= 99.01


# What all of them have in common


@pytest.mark.parametrize("name", OF_A_WEIGHT)
def test_returns_the_parameter_filled_in_place(name: str) -> None:
    parameter = nn.Parameter(torch.full((24, 16), math.nan))
    assert OF_A_WEIGHT[name](parameter) is parameter
    assert parameter.isfinite().all()
    assert parameter.requires_grad
    assert parameter.grad_fn is None


@pytest.mark.parametrize("name", OF_A_WEIGHT)
def test_a_generator_decides_alone_and_none_means_torchs_own(name: str) -> None:
    function = OF_A_WEIGHT[name]
    state = torch.get_rng_state()
    first = function(torch.empty(24, 16), generator=seeded())
    assert torch.equal(first, function(torch.empty(24, 16), generator=seeded()))
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(0)  # the same stream as a generator of that seed
    assert torch.equal(first, function(torch.empty(24, 16)))
    moved = not torch.equal(function(torch.empty(24, 16)), first)
    assert moved == (name not in DETERMINISTIC)


@pytest.mark.parametrize("shape", [(0, 8), (8, 0), (4, 0, 3), (1, 1), (1, 7, 3), (6, 1, 3, 3), (4, 3, 2, 2, 2)])
@pytest.mark.parametrize("name", OF_A_WEIGHT)
def test_any_shape_dtype_and_device(name: str, shape: tuple[int, ...]) -> None:
    function = OF_A_WEIGHT[name]
    single = function(torch.full(shape, math.nan), generator=seeded())
    assert single.isfinite().all()
    half = function(torch.full(shape, math.nan, dtype=torch.bfloat16), generator=seeded())
    assert torch.equal(half, single.bfloat16())
    meta = torch.empty(shape, device="meta")
    assert function(meta) is meta
    strided = torch.full((*shape, 2), math.nan)[..., 0]
    assert torch.equal(function(strided, generator=seeded()), single)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: init.he_normal_(w, "rellu"), r"activation 'rellu'\. Did you mean 'relu'\?"),
        (lambda w: init.he_normal_(w, "relu", "fan_inn"), r"mode 'fan_inn'\. Did you mean 'fan_in'\?"),
        (lambda w: init.variance_scaling_(w, -1.0), "at least 0; got -1.0"),
        (lambda w: init.variance_scaling_(w, distribution="cauchy"), "distribution 'cauchy'"),
        (lambda w: init.orthogonal_(w, -2), "gain is a number of at least 0; got -2"),
        (lambda w: init.looks_linear_(w, "middle"), r"position 'middle'.*first, hidden, last"),
        (lambda w: init.siren_(w, 0.0), "'omega' of siren_ is a positive frequency; got 0.0"),
        (lambda w: init.he_normal_(w[0]), r"at least two dimensions; got \(8,\)"),
        (lambda w: init.he_normal_(w, groups=4), r"4 groups do not divide the first dimension of \(6, 8\)"),
        (lambda w: init.he_normal_(w.long()), r"torch\.int64"),
        (lambda w: init.chrono_(w[0], 100, "rnn"), "cell 'rnn'"),
        (lambda w: init.chrono_(w[0], 2), "at least 3 steps"),
    ],
)
def test_errors_say_what_was_received_and_what_is_allowed(call: Function, message: str) -> None:
    weight = torch.zeros(6, 8)
    with pytest.raises(ArgumentError, match=message):
        call(weight)
    assert not weight.any()
