"""One table: every draw × every property it must have."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from autoinit.initializers import DRAWS, Geometry

LINEAR = Geometry()
CASES = {
    "linear": ((96, 64), LINEAR),
    "wide": ((40, 100), LINEAR),
    "transposed": ((64, 96), Geometry((1,), (0,))),
    "conv2d": ((24, 10, 3, 3), Geometry((0,), (1, 2, 3))),
    "grouped": ((24, 5, 3), Geometry((0,), (1, 2), groups=4)),
    "conv_transposed": ((12, 20, 3), Geometry((1,), (0, 2), groups=2)),
    "qkv": ((96, 32), Geometry(slices=3)),
    "qkv_transposed": ((32, 96), Geometry((1,), (0,), slices=3)),
    "experts": ((4, 10, 16), Geometry((1,), (2,))),
    "bilinear": ((6, 10, 8), Geometry((0,), (1, 2))),
}
STD = 0.25
RANDOM = ["normal", "uniform", "truncated_normal", "orthogonal"]


def drawn(name: str, case: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    shape, geometry = CASES[case]
    tensor = torch.full(shape, math.nan, dtype=dtype)
    DRAWS[name](tensor, geometry, STD, torch.Generator().manual_seed(seed))
    return tensor


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", RANDOM)
def test_mean_and_std(name: str, case: str) -> None:
    tensor = torch.stack([drawn(name, case, seed) for seed in range(40)]).double()
    tolerance = 5 * STD / math.sqrt(2 * tensor.numel())
    assert abs(tensor.mean().item()) <= 5 * STD / math.sqrt(tensor.numel())
    assert abs(tensor.std().item() - STD) <= tolerance
    # The neighbouring hypothesis, fan_out in the place of fan_in, must lie outside.
    assert abs(tensor.std().item() - STD * math.sqrt(96 / 64)) > tolerance


@pytest.mark.parametrize(("name", "bound"), [("uniform", math.sqrt(3)), ("truncated_normal", 2 / 0.8796256610342398)])
def test_support(name: str, bound: float) -> None:
    largest = max(drawn(name, "linear", seed).abs().max().item() for seed in range(20))
    assert 0.99 * bound * STD < largest <= bound * STD * (1 + 1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orthogonal_matrices_are_orthogonal(case: str, dtype: torch.dtype) -> None:
    _, geometry = CASES[case]
    for block in geometry.blocks(drawn("orthogonal", case, dtype=dtype)):
        q = block / (STD * math.sqrt(max(block.shape)))
        gram = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
        assert (gram - torch.eye(len(gram), dtype=dtype)).abs().max() <= 16 * torch.finfo(dtype).eps


def test_orthogonal_signs_are_haar() -> None:
    # Without the sign correction the diagonal of Q is biased; with it its mean is 0 (std 1/√n each).
    signs = [drawn("orthogonal", "linear", seed)[0, 0].sign().item() for seed in range(400)]
    assert abs(sum(signs)) <= 4 * math.sqrt(400)


@pytest.mark.parametrize("case", CASES)
def test_identity(case: str) -> None:
    _, geometry = CASES[case]
    blocks = geometry.blocks(drawn("identity", case))
    eye = torch.eye(*blocks.shape[1:]) * STD * math.sqrt(max(blocks.shape[1:]))
    assert all(torch.equal(block, eye) for block in blocks)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", DRAWS)
def test_same_seed_same_bits_and_nothing_global(name: str, case: str) -> None:
    before = torch.get_rng_state()
    assert torch.equal(drawn(name, case), drawn(name, case))
    assert torch.equal(before, torch.get_rng_state())
    if name in RANDOM:
        assert not torch.equal(drawn(name, case), drawn(name, case, seed=1))


@pytest.mark.parametrize("case", CASES)
def test_blocks_and_scatter_are_inverse(case: str) -> None:
    shape, geometry = CASES[case]
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
