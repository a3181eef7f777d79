"""What every draw must do, as a suite that runs on one's own: moments, support, orthogonality, determinism, layouts.

A draw is a function of a tensor, its geometry, a std and a generator, like those in
`autoinit.initializers.draws.DRAWS`. `check_draw` runs every property; `PROPERTIES` has them by name, for a
parametrized test:

    >>> def laplace_(tensor, geometry, std, generator):
    ...     signs = torch.empty_like(tensor).bernoulli_(0.5, generator=generator).mul_(2.0).sub_(1.0)
    ...     tensor.exponential_(generator=generator).mul_(signs).mul_(std / math.sqrt(2.0))
    >>> check_draw(laplace_)

    @pytest.mark.parametrize("name", PROPERTIES)
    def test_laplace(name):
        PROPERTIES[name](laplace_, Claims())

A property that fails raises AssertionError, which says for which tensor, what was found and what was expected. The
functions look at tensors only, so they serve any test runner.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .errors import ArgumentError, did_you_mean
from .initializers.draws import Draw, fill_
from .initializers.geometry import Geometry

STD = 0.25
"""What the draws are asked for."""

DRAWN = 40
"""Tensors over which moments are pooled."""

NEIGHBOURS = (math.sqrt(2.0), math.sqrt(0.5), 0.8796)
"""Ratios of std that are easily mistaken for 1: a gain, a fan twice as large, a truncation that was not corrected."""

SIGMAS = 5.0
"""Standard errors that a moment may be off: one run in two million of a right draw is refused."""

Case = tuple[tuple[int, ...], Geometry]
"""A shape and the matrices in it."""

CASES: dict[str, Case] = {
    "vector": ((96,), Geometry((0,), ())),
    "linear": ((96, 64), Geometry()),
    "wide": ((40, 100), Geometry()),
    "transposed": ((64, 96), Geometry((1,), (0,))),
    "conv1d": ((24, 10, 3), Geometry((0,), (1, 2), kernel_axes=(2,))),
    "conv2d": ((24, 10, 3, 3), Geometry((0,), (1, 2, 3), kernel_axes=(2, 3))),
    "conv3d": ((12, 6, 3, 2, 3), Geometry((0,), (1, 2, 3, 4), kernel_axes=(2, 3, 4))),
    "grouped": ((24, 6, 3), Geometry((0,), (1, 2), groups=4, kernel_axes=(2,))),
    "conv_transposed": ((12, 20, 3), Geometry((1,), (0, 2), groups=2, kernel_axes=(2,))),
    "fused": ((96, 32), Geometry(slices=3)),
    "fused_transposed": ((32, 96), Geometry((1,), (0,), slices=3)),
    "interleaved": ((96, 32), Geometry(slices=3, interleaved=True)),
    "experts": ((4, 10, 16), Geometry((1,), (2,))),
    "bilinear": ((6, 10, 8), Geometry((0,), (1, 2))),
}
"""Tensors of one to five dimensions, as the layers of torch and of others have them."""

THIN: dict[str, Case] = {
    "one row": ((1, 30), Geometry()),
    "one column": ((30, 1), Geometry()),
    "one entry": ((1, 1), Geometry()),
    "depthwise": ((12, 1, 3, 3), Geometry((0,), (1, 2, 3), groups=12, kernel_axes=(2, 3))),
}
EMPTY: dict[str, Case] = {
    "no rows": ((0, 30), Geometry()),
    "no columns": ((30, 0), Geometry()),
    "no channels": ((8, 0, 3, 3), Geometry((0,), (1, 2, 3), kernel_axes=(2, 3))),
}


@dataclass(frozen=True, slots=True)
class Claims:
    """What a draw claims to do.

    Attributes:
        random: it depends on the generator.
        moments: the root mean square of the entries is the std "exactly" in every tensor whose matrices have an
            even number of rows and columns, or "on average"; "none" where the std means something else.
        centred: the mean of the entries is zero.
        support: the largest entry in units of the std, which large tensors come near to; None: unbounded.
        orthogonal: each matrix has orthonormal rows or columns, whichever are fewer, times a number: over all taps
            of a kernel ("matrix") or of its centre tap alone ("centre").
        cases: the tensors it can fill; names of `CASES`, `THIN` and `EMPTY`; all of them when empty.
        heads: number of heads of the attention that the cases then have.
    """

    random: bool = True
    moments: Literal["exactly", "on average", "none"] = "on average"
    centred: bool = True
    support: float | None = None
    orthogonal: Literal["no", "matrix", "centre"] = "no"
    cases: tuple[str, ...] = ()
    heads: int = 1

    def __post_init__(self) -> None:
        known = (*CASES, *THIN, *EMPTY)
        for name in self.cases:
            if name not in known:
                raise ArgumentError(f"No case is called {name!r}. {did_you_mean(name, known)}")
        for field, value, allowed in (
            ("moments", self.moments, ("exactly", "on average", "none")),
            ("orthogonal", self.orthogonal, ("no", "matrix", "centre")),
        ):
            if value not in allowed:
                raise ArgumentError(f"The claim {field!r} is one of {', '.join(allowed)}. Got {value!r}.")

    def of(self, cases: dict[str, Case]) -> Iterator[tuple[str, tuple[int, ...], Geometry]]:
        """Yields name, shape and geometry of those of the cases that are claimed."""
        for name, (shape, geometry) in cases.items():
            if not self.cases or name in self.cases:
                yield f"{name} {shape}", shape, replace(geometry, heads=self.heads)


Property = Callable[[Draw, Claims], None]


def check_draw(draw: Draw, claims: Claims | None = None) -> None:
    """Runs every property of `PROPERTIES` on a draw, and returns where all of them hold.

    The draw fills many small tensors, of every layout that layers have, from generators of its own; what is looked at
    is moments, support, orthogonality, determinism, and that nothing outside the tensor is touched. It takes a
    fraction of a second. The module's docstring has an example, and a parametrized test of one property at a time.

    Args:
        draw: This callable (tensor, geometry, std, generator) fills a contiguous float32 or float64 tensor on the CPU
            in place, with entries of that std from that generator.
        claims: The properties are checked as far as they are claimed here. None means independent random entries,
            centred, of the given std, for tensors of every layout.

    Raises:
        AssertionError: A property does not hold; the message names it, the tensor, what was found and what was
            expected.
    """
    for name, check in PROPERTIES.items():
        try:
            check(draw, claims or Claims())
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


def moments(draw: Draw, claims: Claims) -> None:
    """Mean and root mean square are as claimed within five standard errors, and their neighbours lie outside."""
    if claims.moments == "none":
        return
    for case, shape, geometry in claims.of(CASES):
        seeds = range(DRAWN if claims.random else 1)
        tensor = torch.stack([_drawn(draw, shape, geometry, seed) for seed in seeds]).double()
        found = tensor.square().mean().sqrt().item()
        tolerance = STD * (1e-5 if claims.moments == "exactly" else SIGMAS * _error(tensor))
        _require(abs(found - STD) <= tolerance, f"{case}: root mean square {found:.5f}, not {STD} ± {tolerance:.2g}")
        for ratio in NEIGHBOURS:
            _require(
                abs(found - STD * ratio) > tolerance,
                f"{case}: a root mean square of {STD} cannot be told from {STD * ratio:.4f}; draw more entries",
            )
        if claims.centred:
            mean, bound = tensor.mean().item(), SIGMAS * STD / math.sqrt(tensor.numel())
            _require(abs(mean) <= bound, f"{case}: mean {mean:.5f}, not 0 ± {bound:.2g}")


def support(draw: Draw, claims: Claims) -> None:
    """No entry lies beyond the claimed bound, and some come within one percent of it."""
    if claims.support is None:
        return
    for case, shape, geometry in claims.of({"linear": CASES["linear"]}):
        largest = max(_drawn(draw, shape, geometry, seed).abs().max().item() for seed in range(DRAWN)) / STD
        _require(largest <= claims.support * (1 + 1e-6), f"{case}: an entry of {largest} std, beyond {claims.support}")
        _require(largest > 0.99 * claims.support, f"{case}: entries end at {largest} std, not at {claims.support}")


def orthogonality(draw: Draw, claims: Claims) -> None:
    """WᵀW or WWᵀ is a multiple of the identity, within 16·eps of the dtype that the draw is cast to."""
    if claims.orthogonal == "no":
        return
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for case, shape, geometry in (*claims.of(CASES), *claims.of(THIN)):
            tensor = _filled(draw, shape, geometry, dtype=dtype)
            taps = 1
            if claims.orthogonal == "centre":
                taps = geometry.taps(tensor)
                tensor, geometry = geometry.centre(tensor)
            for block in geometry.blocks(tensor).double():
                rows, columns = block.shape
                w = (block if rows <= columns else block.T) / (STD * math.sqrt(max(rows, columns) * taps))
                error = (w @ w.T - torch.eye(len(w))).abs().max().item()
                limit = 16 * torch.finfo(dtype).eps
                _require(error <= limit, f"{case}, {dtype}: max|WᵀW − I| = {error:.2g}, above 16·eps = {limit:.2g}")


def determinism(draw: Draw, claims: Claims) -> None:
    """The same generator gives the same bits, another gives others, and no global generator is used."""
    for case, shape, geometry in claims.of(CASES):
        before = _global_states()
        first = _drawn(draw, shape, geometry)
        _require(torch.equal(first, _drawn(draw, shape, geometry)), f"{case}: the same seed gave two results")
        _require(before == _global_states(), f"{case}: a global random generator was used")
        if claims.random and first.any():
            other = _drawn(draw, shape, geometry, seed=1)
            _require(not torch.equal(first, other), f"{case}: another seed gave the same result")


def every_entry(draw: Draw, claims: Claims) -> None:
    """Every entry is written, whatever was there, and is finite; so also for one row, one column, one channel."""
    for case, shape, geometry in (*claims.of(CASES), *claims.of(THIN)):
        _require(bool(_drawn(draw, shape, geometry).isfinite().all()), f"{case}: an entry is not written or not finite")


def scale(draw: Draw, claims: Claims) -> None:
    """The entries are proportional to the std, and zero where it is zero."""
    for case, shape, geometry in claims.of(CASES):
        single, double = _drawn(draw, shape, geometry), _drawn(draw, shape, geometry, std=2 * STD)
        near = torch.allclose(double, 2 * single, rtol=1e-5, atol=1e-6 * STD)
        _require(near, f"{case}: twice the std does not give twice the entries")
        _require(not _drawn(draw, shape, geometry, std=0.0).any(), f"{case}: with a std of zero an entry is not zero")


def dtypes(draw: Draw, claims: Claims) -> None:
    """bfloat16 and float16 are the float32 draw, cast; float64 has more digits than float32."""
    for case, shape, geometry in claims.of(CASES):
        single = _drawn(draw, shape, geometry)
        for dtype in (torch.bfloat16, torch.float16):
            cast = _filled(draw, shape, geometry, dtype=dtype)
            _require(torch.equal(cast, single.to(dtype)), f"{case}: {dtype} is not the float32 draw, cast")
        double = _drawn(draw, shape, geometry, dtype=torch.float64)
        _require(bool(double.isfinite().all()), f"{case}: an entry in float64 is not finite")
        if claims.random and double.any():
            _require(not torch.equal(double, double.float().double()), f"{case}: float64 was drawn in float32")


def meta(draw: Draw, claims: Claims) -> None:
    """A tensor on the meta device is left alone, and its draw takes no random numbers."""
    for case, shape, geometry in claims.of(CASES):
        generator = torch.Generator().manual_seed(0)
        state = generator.get_state()
        tensor = torch.empty(shape, device="meta")
        fill_(tensor, draw, geometry, STD, generator)
        _require(tensor.is_meta and tensor.shape == shape, f"{case}: the meta tensor changed")
        _require(torch.equal(state, generator.get_state()), f"{case}: random numbers were taken for a meta tensor")


def devices(draw: Draw, claims: Claims) -> None:
    """An accelerator that this machine has gets the bits that the CPU gets."""
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return
    for case, shape, geometry in claims.of(CASES):
        tensor = torch.full(shape, math.nan, device=device)
        fill_(tensor, draw, geometry, STD, torch.Generator().manual_seed(0))
        _require(torch.equal(tensor.cpu(), _drawn(draw, shape, geometry)), f"{case}: another draw on {device}")


def empty(draw: Draw, claims: Claims) -> None:
    """A tensor without entries is left alone."""
    for case, shape, geometry in claims.of(EMPTY):
        tensor = torch.empty(shape)
        fill_(tensor, draw, geometry, STD, torch.Generator().manual_seed(0))
        _require(tensor.shape == shape, f"{case}: the shape changed")


def layouts(draw: Draw, claims: Claims) -> None:
    """A tensor that is not contiguous gets the bits of one that is, and the memory between its entries stays."""
    for case, shape, geometry in claims.of(CASES):
        expected = _drawn(draw, shape, geometry)
        memory = torch.full((*shape, 2), math.nan)
        fill_(memory[..., 0], draw, geometry, STD, torch.Generator().manual_seed(0))
        _require(torch.equal(memory[..., 0], expected), f"{case}: the layout in memory changes the draw")
        _require(bool(memory[..., 1].isnan().all()), f"{case}: memory outside the tensor was written")


def parameters(draw: Draw, claims: Claims) -> None:
    """A parameter is filled in place, without gradient, and still wants one afterwards."""
    for case, shape, geometry in claims.of(CASES):
        parameter = torch.nn.Parameter(torch.full(shape, math.nan))
        place = parameter.data_ptr()
        fill_(parameter, draw, geometry, STD, torch.Generator().manual_seed(0))
        _require(torch.equal(parameter.data, _drawn(draw, shape, geometry)), f"{case}: a parameter gets another draw")
        kept = parameter.data_ptr() == place and parameter.requires_grad and parameter.is_leaf
        _require(kept and parameter.grad is None, f"{case}: the parameter was replaced, or recorded by autograd")


PROPERTIES: dict[str, Property] = {
    "moments": moments,
    "support": support,
    "orthogonality": orthogonality,
    "determinism": determinism,
    "every entry": every_entry,
    "scale": scale,
    "dtypes": dtypes,
    "meta": meta,
    "devices": devices,
    "empty": empty,
    "layouts": layouts,
    "parameters": parameters,
}
"""Property → a function of a draw and its claims that raises AssertionError where it does not hold."""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _drawn(
    draw: Draw,
    shape: tuple[int, ...],
    geometry: Geometry,
    seed: int = 0,
    std: float = STD,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Returns what the draw itself makes of a plain tensor."""
    tensor = torch.full(shape, math.nan, dtype=dtype)
    draw(tensor, geometry, std, torch.Generator().manual_seed(seed))
    return tensor


def _filled(draw: Draw, shape: tuple[int, ...], geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """Returns a tensor of any dtype that `fill_` filled."""
    tensor = torch.full(shape, math.nan, dtype=dtype)
    fill_(tensor, draw, geometry, STD, torch.Generator().manual_seed(0))
    return tensor


def _error(tensor: Tensor) -> float:
    """Returns the standard error of the root mean square, relative to it: √((kurtosis − 1)/4n), 1/√(2n) if normal."""
    squares = tensor.square()
    return math.sqrt(squares.var().item() / tensor.numel()) / (2 * squares.mean().item())


def _global_states() -> tuple[bytes, str, str]:
    return torch.get_rng_state().numpy().tobytes(), repr(random.getstate()), repr(np.random.get_state())
