"""One table: every draw × every property it must have; then what each structured draw is by its source."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoinit.errors import ArgumentError
from autoinit.initializers import mimetic
from autoinit.initializers.deformed import top_singular_values
from autoinit.initializers.draws import COSTLY, DRAWS, fill_
from autoinit.initializers.geometry import Geometry
from autoinit.initializers.mimetic import ATTENTION, LARGE, MIXING, _drawn_factors, _factors
from autoinit.initializers.orthogonal import _product, haar
from autoinit.initializers.recurrent import chrono_
from autoinit.testing import CASES, EMPTY, PROPERTIES, STD, THIN, Claims

EXACT = Claims(moments="exactly")
FIXED = Claims(random=False, moments="exactly", centred=False)
ORTHOGONAL = Claims(moments="exactly", orthogonal="matrix")
MIMETIC = Claims(moments="none", heads=2, cases=("linear", "wide", "transposed", "fused", "bilinear", *EMPTY))
CLAIMS: dict[str, Claims] = {
    "normal": Claims(),
    "uniform": Claims(support=math.sqrt(3)),
    "truncated_normal": Claims(support=2 / 0.8796256610342398),
    "sparse": Claims(),
    "orthogonal": ORTHOGONAL,
    "identity": FIXED,
    "delta_orthogonal": Claims(moments="exactly", orthogonal="centre"),
    "butterfly_orthogonal": ORTHOGONAL,
    "mirrored": EXACT,
    "mirrored_rows": EXACT,
    "mirrored_columns": EXACT,
    "hadamard": FIXED,
    "mimetic_query": MIMETIC,
    "mimetic_key": MIMETIC,
    "mimetic_value": MIMETIC,
    "mimetic_out": MIMETIC,
    "mimetic_qkv": Claims(moments="none", heads=4, cases=("fused", "fused_transposed")),
}
CONV = Geometry((0,), (1, 2, 3), kernel_axes=(2, 3))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(name: str, shape: tuple[int, ...], geometry: Geometry, std: float = 1.0, seed: int = 0) -> Tensor:
    tensor = torch.full(shape, math.nan)
    fill_(tensor, name, geometry, std, seeded(seed))
    return tensor


@pytest.mark.parametrize("check", PROPERTIES)
@pytest.mark.parametrize("name", DRAWS)
def test_draw_has_property(name: str, check: str) -> None:
    PROPERTIES[check](DRAWS[name], CLAIMS[name])


def test_costly_draws_are_draws() -> None:
    assert DRAWS.keys() == CLAIMS.keys()
    assert DRAWS.keys() > COSTLY


# Geometry


@pytest.mark.parametrize("case", [*CASES, *THIN])
def test_blocks_and_scatter_are_inverse(case: str) -> None:
    shape, geometry = (CASES | THIN)[case]
    tensor = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
    other = torch.zeros(shape)
    geometry.scatter_(other, geometry.blocks(tensor))
    assert torch.equal(tensor, other)


def test_blocks_are_the_matrices_that_the_layers_use() -> None:
    weight = torch.randn(6, 2, 3)
    blocks = Geometry((0,), (1, 2), groups=2).blocks(weight)
    assert torch.equal(blocks[1], weight[3:].reshape(3, 6))
    fused = torch.randn(4, 6)  # [in, 3·out], as in GPT-2
    assert torch.equal(Geometry((1,), (0,), slices=3).blocks(fused)[2], fused[:, 4:].T)


@pytest.mark.parametrize(("kernel", "tap"), [((3, 3), (1, 1)), ((4, 1), (2, 0)), ((2, 5), (1, 2))])
def test_the_centre_tap_is_a_view(kernel: tuple[int, int], tap: tuple[int, int]) -> None:
    weight = torch.randn(6, 4, *kernel)
    centre, channels = CONV.centre(weight)
    assert torch.equal(channels.blocks(centre)[0], weight[:, :, tap[0], tap[1]])
    assert centre.data_ptr() == weight[:, :, tap[0], tap[1]].data_ptr()
    assert CONV.taps(weight) == math.prod(kernel)


# The one entry


def test_unknown_distribution_names_the_known() -> None:
    with pytest.raises(ArgumentError, match=r"'ortogonal'.*Did you mean 'orthogonal'\?.*uniform"):
        drawn("ortogonal", (4, 4), Geometry())


@pytest.mark.parametrize("std", [-1.0, math.nan, math.inf])
def test_std_is_finite_and_not_negative(std: float) -> None:
    with pytest.raises(ArgumentError, match="at least 0"):
        drawn("normal", (4, 4), Geometry(), std)


def test_integers_are_no_weights() -> None:
    with pytest.raises(ArgumentError, match=r"torch\.int64"):
        fill_(torch.zeros(3, 3, dtype=torch.int64), "normal", Geometry(), 1.0, seeded())


def test_independent_complex_entries_fill_both_parts() -> None:
    tensor = torch.zeros(200, 200, dtype=torch.complex64)
    fill_(tensor, "normal", Geometry(), STD, seeded())
    tolerance = 5 * STD / math.sqrt(4 * tensor.numel())  # both parts count
    assert abs(tensor.abs().square().mean().sqrt().item() - STD) <= tolerance
    assert abs(tensor.real.square().mean().sqrt().item() - STD / math.sqrt(2)) <= tolerance


def test_structured_complex_draws_are_real() -> None:
    tensor = torch.zeros(20, 20, dtype=torch.complex128)
    fill_(tensor, "orthogonal", Geometry(), 1 / math.sqrt(20), seeded())
    assert not tensor.imag.any()
    assert (tensor @ tensor.mH - torch.eye(20)).abs().max() <= 16 * torch.finfo(torch.float64).eps


def test_plain_tensors_are_drawn_without_a_copy() -> None:
    tensor, seen = torch.empty(8, 8), list[int]()
    fill_(tensor, lambda plain, *_: seen.append(plain.data_ptr()), Geometry(), 1.0, seeded())
    assert seen == [tensor.data_ptr()]


# Independent entries


@pytest.mark.parametrize(("columns", "expected"), [(64, 15), (15, 15), (10, 10)])
def test_sparse_units_have_fifteen_connections(columns: int, expected: int) -> None:
    tensor = drawn("sparse", (50, columns), Geometry())
    assert ((tensor != 0).sum(1) == expected).all()
    if columns > expected:
        used = (tensor != 0).float().mean(0)  # every input is as likely to be used
        assert (used - expected / columns).abs().max() <= 5 * math.sqrt(0.25 / 50)
        assert not torch.equal(tensor[0] != 0, tensor[1] != 0)


# Orthogonal


def test_orthogonal_signs_are_haar() -> None:
    # Without the sign correction the diagonal of Q is biased; with it its mean is 0 (std 1/√n each).
    signs = [drawn("orthogonal", (96, 64), Geometry(), seed=seed)[0, 0].sign().item() for seed in range(400)]
    assert abs(sum(signs)) <= 4 * math.sqrt(400)


def kurtosis(tensor: Tensor) -> float:
    tensor = tensor.double()
    return (tensor.pow(4).mean() / tensor.square().mean().square()).item()


SIZES = [(256, 256), (1024, 1024), (100, 100), (768, 768), (1000, 1000), (64, 1000), (1025, 100), (33, 33), (10, 3)]


@pytest.mark.parametrize("shape", SIZES)
def test_butterfly_entries_look_haar(shape: tuple[int, int]) -> None:
    # A row of a Haar matrix is uniform on a sphere in n dimensions, whose coordinates have kurtosis 3n/(n + 2).
    entries = math.prod(shape)
    pooled = [drawn("butterfly_orthogonal", shape, Geometry(), seed=seed) for seed in range(1 + 300_000 // entries)]
    haar = 3 * max(shape) / (max(shape) + 2)
    assert abs(kurtosis(torch.stack(pooled)) - haar) <= 0.1
    if min(shape) >= 256:
        assert abs(kurtosis(torch.stack(pooled)) - 3) <= 0.1


@pytest.mark.parametrize("shape", [*SIZES, (2048, 1500)])
def test_butterfly_is_exactly_orthogonal(shape: tuple[int, int]) -> None:
    w = drawn("butterfly_orthogonal", shape, Geometry(), 1 / math.sqrt(max(shape))).double()
    w = w if shape[0] <= shape[1] else w.T
    assert (w @ w.T - torch.eye(len(w))).abs().max() <= 16 * torch.finfo(torch.float32).eps


def test_one_butterfly_would_not_look_haar(monkeypatch: pytest.MonkeyPatch) -> None:
    from autoinit.initializers import butterfly

    whole = butterfly._circuit
    monkeypatch.setattr(butterfly, "_circuit", lambda *arguments: whole(*arguments)[:2])
    assert kurtosis(drawn("butterfly_orthogonal", (1024, 1024), Geometry())) > 3.1


def traces(name: str, size: int, power: int) -> Tensor:
    std = 1 / math.sqrt(size)
    matrices = torch.stack([drawn(name, (size, size), Geometry(), std, seed) for seed in range(400)]).double()
    return torch.linalg.matrix_power(matrices, power).diagonal(dim1=1, dim2=2).sum(1)


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("name", ["orthogonal", "butterfly_orthogonal"])
def test_traces_of_powers_are_those_of_haar(name: str, power: int) -> None:
    # Diaconis & Shahshahani 1994: tr(Wʲ) of a Haar orthogonal W is N(1 for even j else 0, j), almost exactly.
    found = traces(name, 100, power)
    assert abs(found.mean().item() - (power % 2 == 0)) <= 5 * math.sqrt(power / 400)
    assert abs(found.var().item() / power - 1) <= 5 * math.sqrt(2 / 400)


def test_delta_orthogonal_is_zero_beside_the_centre() -> None:
    weight = drawn("delta_orthogonal", (24, 10, 3, 3), CONV)
    centre = weight[:, :, 1, 1].clone()
    weight[:, :, 1, 1] = 0
    assert not weight.any()
    assert torch.linalg.matrix_rank(centre) == 10


# Identities


@pytest.mark.parametrize(
    ("shape", "groups"), [((8, 8, 3), 1), ((3, 16, 5, 5), 1), ((16, 3, 4, 2), 1), ((12, 2, 3, 2, 3), 3)]
)
def test_identity_of_a_convolution_is_dirac(shape: tuple[int, ...], groups: int) -> None:
    kernel = tuple(range(2, len(shape)))
    geometry = Geometry((0,), (1, *kernel), groups, kernel_axes=kernel)
    std = 1 / math.sqrt(max(shape[0] // groups, shape[1]) * math.prod(shape[2:]))
    expected = nn.init.dirac_(torch.empty(shape), groups)
    torch.testing.assert_close(drawn("identity", shape, geometry, std), expected, rtol=1e-6, atol=0)


def test_hadamard_is_zero_initialization() -> None:
    eye = drawn("hadamard", (4, 6), Geometry(), 1 / math.sqrt(6))
    torch.testing.assert_close(eye, torch.eye(4, 6), rtol=1e-6, atol=0)
    square = drawn("hadamard", (64, 40), Geometry(), 1 / 8)
    assert (square.T @ square - torch.eye(40)).abs().max() <= 16 * torch.finfo(torch.float32).eps
    from scipy.linalg import hadamard  # an independent construction

    assert torch.equal(drawn("hadamard", (40, 20), Geometry()), torch.tensor(hadamard(64)[:40, :20]).float())


# Looks-linear


def layer(name: str, rows: int, columns: int, seed: int) -> Tensor:
    height = rows if name == "mirrored_columns" else -(-rows // 2)
    width = columns if name == "mirrored_rows" else -(-columns // 2)
    return drawn(name, (rows, columns), Geometry(), 1 / math.sqrt(max(height, width)), seed)


def test_a_mirrored_network_of_relus_is_linear_and_keeps_lengths() -> None:
    x = torch.randn(50, 32)
    h = torch.relu(x @ layer("mirrored_rows", 64, 32, 0).T)
    for depth in range(20):
        h = torch.relu(h @ layer("mirrored", 64, 64, depth).T)
    y = h @ layer("mirrored_columns", 32, 64, 99).T
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1), rtol=1e-4, atol=0)

    def network(x: Tensor) -> Tensor:
        h = torch.relu(x @ layer("mirrored_rows", 64, 32, 0).T)
        return torch.relu(h @ layer("mirrored", 64, 64, 1).T) @ layer("mirrored_columns", 32, 64, 2).T

    torch.testing.assert_close(network(x[:25] - 2 * x[25:]), network(x[:25]) - 2 * network(x[25:]), atol=1e-4, rtol=0)


def test_odd_sizes_lose_the_last_mirrored_unit() -> None:
    weight = layer("mirrored", 7, 9, 0)
    assert torch.equal(weight[:4, :4], -weight[:4, 5:])
    assert torch.equal(weight[:3, :5], -weight[4:, :5])


def test_convolutions_are_mirrored_along_channels_at_the_centre() -> None:
    weight = drawn("mirrored", (8, 6, 3, 3), CONV)
    centre = weight[:, :, 1, 1].clone()
    assert torch.equal(centre[:4, :3], -centre[4:, :3])
    assert torch.equal(centre[:4, :3], -centre[:4, 3:])
    weight[:, :, 1, 1] = 0
    assert not weight.any()


# Mimetic attention

WIDTH, HEADS = 96, 4


def near_identity(product: Tensor) -> tuple[float, float]:
    """The mean of a product's diagonal and the std of its other entries, times √width."""
    off = product[~torch.eye(len(product), dtype=torch.bool)]
    return product.diagonal().mean().item(), off.std().item() * math.sqrt(len(product))


def test_query_and_key_are_the_best_of_their_rank() -> None:
    geometry = Geometry(heads=HEADS)
    query = drawn("mimetic_query", (WIDTH, WIDTH), geometry).view(HEADS, -1, WIDTH)
    key = drawn("mimetic_key", (WIDTH, WIDTH), geometry).view(HEADS, -1, WIDTH)
    generator = seeded()
    for q, k in zip(query, key, strict=True):
        z = torch.empty(WIDTH, WIDTH).normal_(0, 1 / math.sqrt(WIDTH), generator=generator)
        target = 0.7 * z + 0.7 * torch.eye(WIDTH)
        lost = torch.linalg.svdvals(target)[WIDTH // HEADS :].square().sum().sqrt()  # Eckart–Young
        torch.testing.assert_close((q.T @ k - target).norm(), lost, rtol=1e-3, atol=0)
        assert torch.linalg.matrix_rank(q.T @ k) == WIDTH // HEADS


def test_one_head_gives_the_whole_product() -> None:
    query, key = (drawn(f"mimetic_{name}", (WIDTH, WIDTH), Geometry()) for name in ("query", "key"))
    diagonal, spread = near_identity(query.T @ key)
    error = 0.7 / WIDTH  # of the mean of as many entries of std 0.7/√width
    assert abs(diagonal - 0.7) <= 5 * error < 0.7
    assert abs(spread - 0.7) <= 5 * 0.7 / math.sqrt(2) / WIDTH


def test_value_and_out_mix_by_minus_the_identity() -> None:
    value, out = (drawn(f"mimetic_{name}", (WIDTH, WIDTH), Geometry(heads=HEADS)) for name in ("value", "out"))
    diagonal, spread = near_identity(out @ value)
    assert abs(diagonal + 0.4) <= 5 * 0.4 / WIDTH
    assert abs(spread - 0.4) <= 5 * 0.4 / math.sqrt(2) / WIDTH


def test_fused_weights_hold_pairs_and_pair_with_out() -> None:
    fused = drawn("mimetic_qkv", (3 * WIDTH, WIDTH), Geometry(slices=3, heads=1))
    query, key, value = fused.chunk(3)
    out = drawn("mimetic_out", (WIDTH, WIDTH), Geometry(heads=1))
    assert abs(near_identity(query.T @ key)[0] - 0.7) <= 5 * 0.7 / WIDTH
    assert abs(near_identity(out @ value)[0] + 0.4) <= 5 * 0.4 / WIDTH


@pytest.mark.parametrize("inner", [40, 200])
def test_values_of_another_inner_width_pair_as_far_as_rank_allows(inner: int) -> None:
    value = drawn("mimetic_value", (inner, WIDTH), Geometry())
    out = drawn("mimetic_out", (WIDTH, inner), Geometry())
    assert torch.linalg.matrix_rank(out @ value) == min(inner, WIDTH)
    assert near_identity(out @ value)[0] < -0.1


def test_key_of_another_input_width_is_filled_all_the_same() -> None:
    key = drawn("mimetic_key", (WIDTH, 40), Geometry(heads=HEADS))
    assert key.isfinite().all()
    assert torch.linalg.matrix_rank(key[: WIDTH // HEADS]) == WIDTH // HEADS


@pytest.mark.parametrize(
    ("name", "geometry", "message"),
    [("mimetic_query", Geometry(heads=5), "5 heads"), ("mimetic_qkv", Geometry(slices=2), "3 slices; got 2")],
)
def test_mimetic_says_what_does_not_fit(name: str, geometry: Geometry, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        drawn(name, (WIDTH, WIDTH), geometry)


@pytest.mark.parametrize(("width", "rank"), [(256, 64), (512, 64), (400, 40)])
@pytest.mark.parametrize("scales", [ATTENTION, MIXING])
def test_the_limit_law_tells_the_singular_vectors_of_large_matrices(
    width: int, rank: int, scales: tuple[float, float]
) -> None:
    random, identity = scales
    values, along = map(torch.tensor, top_singular_values(width, rank, *scales))
    product = torch.empty(width, width).normal_(0, random / math.sqrt(width), generator=seeded())
    left, found, right = torch.linalg.svd(product.diagonal_scatter(product.diagonal() + identity))
    torch.testing.assert_close(found[:rank], values, rtol=0.03, atol=0)
    agreement = (left[:, :rank] * right[:rank].T).sum(0)
    error = 3 / math.sqrt(width * rank)  # of the mean of as many overlaps, each of a std of about 1/√width
    assert abs(agreement.mean() - along.mean()) <= error < 0.05


def test_factors_drawn_from_the_law_correlate_as_computed_ones_do() -> None:
    """Of products of queries and keys: diagonal, spread beside it, symmetry, and the singular values of each factor."""
    width, rank, heads = 256, 32, 8
    drawn_left, drawn_right = _drawn_factors(heads, width, rank, ATTENTION, torch.float32, seeded())
    pairs = [_factors(width, rank, ATTENTION, torch.float32, seeded(head)) for head in range(heads)]
    left, right = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    ours, theirs = drawn_left @ drawn_right, left @ right
    for measure in (
        lambda one: one.diagonal(dim1=1, dim2=2).mean(),
        lambda one: (one - one.diagonal(dim1=1, dim2=2).diag_embed()).square().mean().sqrt(),
        lambda one: (one * one.mT).sum() / one.square().sum(),
        lambda one: torch.linalg.svdvals(one)[:, :rank].mean(),
    ):
        torch.testing.assert_close(measure(ours), measure(theirs), rtol=0.06, atol=0)
    for mine, other in ((drawn_left, left), (drawn_right, right)):
        spectrum, expected = torch.linalg.svdvals(mine).mean(0), torch.linalg.svdvals(other).mean(0)
        torch.testing.assert_close(spectrum, expected, rtol=0.02, atol=0)


def test_heads_of_wide_attention_are_drawn_without_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mimetic, "_factors", None)
    query, key = (drawn(f"mimetic_{name}", (LARGE, LARGE), Geometry(heads=4)) for name in ("query", "key"))
    for q, k in zip(query.view(4, -1, LARGE), key.view(4, -1, LARGE), strict=True):
        assert near_identity(q.T @ k)[0] > 0.2
    with pytest.raises(TypeError):
        drawn("mimetic_query", (LARGE, LARGE), Geometry(heads=2))


# Where draws are made


class Elsewhere(torch.Generator):
    """A generator that says it is on the meta device, which mixes with no other."""

    @property
    def device(self) -> torch.device:
        return torch.device("meta")


class OnTheCpu(TorchDispatchMode):
    """Notes the operations that make a tensor on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) and not leaf.is_meta for leaf in tree_leaves(result)):
            self.found.append(str(func))
        return result


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_stays_on_its_generator_s_device(name: str) -> None:
    for shape in ((3 * 128, 128), (3 * 40, 96), (3 * 96, 64)):
        tensor = torch.empty(shape, device="meta")
        with OnTheCpu() as watch:
            DRAWS[name](tensor, Geometry(slices=3, heads=4), 1.0, Elsewhere())
        assert tensor.is_meta
        assert set(watch.found) <= {"aten.lift_fresh.default"}  # of a list of numbers, then copied


@pytest.mark.parametrize("shape", [(5, 32, 32), (2, 96, 40), (3, 1, 1)])
def test_reflections_are_multiplied_alike_one_by_one_and_in_a_batch(shape: tuple[int, int, int]) -> None:
    vectors = torch.empty(shape, dtype=torch.float64).normal_(generator=seeded()).tril_()
    vectors.diagonal(dim1=1, dim2=2).fill_(1.0)
    turns = 2 / vectors.square().sum(1)
    torch.testing.assert_close(_product(vectors, turns), torch.linalg.householder_product(vectors, turns))


def test_a_vector_of_zeros_is_no_end_of_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "normal_", lambda tensor, *_, **__: tensor.zero_())
    matrix = haar(1, 6, 6, seeded())[0]
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(6))


# Chrono


def test_chrono_lstm_remembers_for_times_uniform_up_to_the_length() -> None:
    bias = torch.full((40_000,), math.nan)
    chrono_(bias, Geometry((0,), (), slices=4), 100, seeded())
    into, forget, cell, out = bias.chunk(4)
    times = forget.exp()
    assert torch.equal(into, -forget)
    assert not torch.cat((cell, out)).any()
    assert 1 - 1e-5 <= times.min() < 1.1
    assert 98.9 < times.max() <= 99 * (1 + 1e-5)
    assert abs(times.mean().item() - 50) <= 5 * 98 / math.sqrt(12 * 10_000)


def test_chrono_gru_keeps_its_state_for_long() -> None:
    cell = nn.GRUCell(4, 2000)
    for parameter in cell.parameters():
        nn.init.zeros_(parameter)
    chrono_(cell.bias_ih, Geometry((0,), (), slices=3), 50, seeded())
    state = torch.ones(1, 2000)
    kept = cell(torch.zeros(1, 4), state).detach()[0]
    # The state decays to z = σ(log T) = T/(1 + T) of itself in a step: times T between 1 and 49.
    times = kept / (1 - kept)
    assert 1 - 1e-3 <= times.min() < 1.5
    assert 48 < times.max() <= 49.01
    reset, _, new = cell.bias_ih.detach().chunk(3)
    assert not torch.cat((reset, new)).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_chrono_fills_other_dtypes_meta_and_empty(dtype: torch.dtype) -> None:
    geometry = Geometry((0,), (), slices=4)
    bias = torch.full((400,), math.nan, dtype=dtype)
    chrono_(bias, geometry, 10, seeded())
    assert bias.isfinite().all()
    chrono_(torch.empty(8, device="meta"), geometry, 10, seeded())
    chrono_(torch.empty(0), geometry, 10, seeded())


@pytest.mark.parametrize(
    ("bias", "slices", "steps", "message"),
    [
        (torch.zeros(8), 4, 2, "at least 3 steps; got 2"),
        (torch.zeros(8), 1, 10, "got 1"),
        (torch.zeros(8), 3, 10, r"got the shape \(8,\)"),
        (torch.zeros(8, 4), 4, 10, r"got the shape \(8, 4\)"),
    ],
)
def test_chrono_says_what_does_not_fit(bias: Tensor, slices: int, steps: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        chrono_(bias, Geometry((0,), (), slices=slices), steps, seeded())
