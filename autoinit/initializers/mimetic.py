"""Mimetic attention: projections whose products look like those of trained Transformers."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ArgumentError
from .deformed import apart, top_singular_values
from .geometry import Geometry
from .orthogonal import haar

ATTENTION = (0.7, 0.7)
"""α₁ of the random part and β₁ of the identity in W_qᵀW_k."""

MIXING = (0.4, -0.4)
"""α₂ of the random part and −β₂ of the identity in W_out·W_v."""

LARGE, SMALL_SHARE = 128, 1 / 4
"""From this width on, and up to this share of it, a head's factors are drawn from the limit law of large matrices."""


def mimetic_query_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills query weights, the left factors of W_qᵀW_k ≈ α₁Z₁ + β₁I for each head; `std` is a plain factor.

    Z₁ has entries N(0, 1/width); the factors are the best of a head's rank. They are drawn without the product, from
    the law that its largest singular values and their vectors have, where the width is at least 128 and a head at most
    a quarter of it, and computed from a product else. Query and key weights whose generators are in the same state
    make a pair: each draws the same and takes its own factor. Where their inputs differ in width (cross-attention) or
    keys have fewer heads than queries, each still has the singular values of such a product, but the product is no
    longer near the identity.
    Trockman & Kolter 2023, arXiv:2305.09828.

    Raises:
        ArgumentError: the heads do not divide the outputs.
    """
    pairs = [_attention(block, geometry.heads, generator) for block in _channels(tensor, geometry)]
    _fill(tensor, geometry, std, [query for query, _ in pairs])


def mimetic_key_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills key weights, the right factors of the product that `mimetic_query_` describes.

    Raises:
        ArgumentError: the heads do not divide the outputs.
    """
    pairs = [_attention(block, geometry.heads, generator) for block in _channels(tensor, geometry)]
    _fill(tensor, geometry, std, [key for _, key in pairs])


def mimetic_value_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills value weights, the right factor of W_out·W_v ≈ α₂Z₂ − β₂I over all heads; `std` is a plain factor.

    Z₂ has entries N(0, 1/width). Value and output weights whose generators are in the same state make a pair,
    as in `mimetic_query_`; where the values' input has another width than the model, they do not.
    Trockman & Kolter 2023, arXiv:2305.09828.
    """
    _fill(tensor, geometry, std, [_mixing(block, generator)[1] for block in _channels(tensor, geometry)])


def mimetic_out_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills attention's output weights, the left factor of the product that `mimetic_value_` describes."""
    _fill(tensor, geometry, std, [_mixing(block.T, generator)[0] for block in _channels(tensor, geometry)])


def mimetic_qkv_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills fused weights of three slices, query, key and value, with what each has by itself.

    Z₂ is drawn before Z₁, so that output weights whose generator is in the same state make a pair with the values.

    Raises:
        ArgumentError: the geometry has not three slices, or the heads do not divide the outputs of one.
    """
    if geometry.slices != 3:
        raise ArgumentError(
            f"mimetic_qkv fills fused weights of query, key and value, which have 3 slices; got {geometry.slices}. "
            "Use mimetic_query, mimetic_key and mimetic_value where each has a weight of its own."
        )
    blocks = _channels(tensor, geometry)
    values = [_mixing(block, generator)[1] for block in blocks[2::3]]
    pairs = [_attention(block, geometry.heads, generator) for block in blocks[::3]]
    _fill(tensor, geometry, std, [part for pair, value in zip(pairs, values, strict=True) for part in (*pair, value)])


def _channels(tensor: Tensor, geometry: Geometry) -> Tensor:
    """Returns the matrices [blocks, outputs, inputs] of a projection, or of a convolution's centre tap."""
    centre, channels = geometry.centre(tensor)
    return channels.blocks(centre)


def _fill(tensor: Tensor, geometry: Geometry, std: float, blocks: list[Tensor]) -> None:
    tensor.zero_()
    centre, channels = geometry.centre(tensor)
    channels.scatter_(centre, torch.stack(blocks).mul_(std))


def _attention(block: Tensor, heads: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns query and key weights [outputs, width] of the shape and dtype of a block."""
    outputs, width = block.shape
    if heads < 1 or outputs % heads:
        raise ArgumentError(f"{outputs} outputs cannot be cut into {heads} heads. Pass a number that divides them.")
    rank = outputs // heads
    if width >= LARGE and rank <= SMALL_SHARE * width:
        left, right = _drawn_factors(heads, width, rank, ATTENTION, block.dtype, generator)
    else:
        pairs = [_factors(width, rank, ATTENTION, block.dtype, generator) for _ in range(heads)]
        left, right = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    return left.mT.reshape(outputs, width), right.reshape(outputs, width)


def _mixing(block: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns output weights [width, inner] and value weights [inner, width] for a block [inner, width]."""
    inner, width = block.shape
    return _factors(width, inner, MIXING, block.dtype, generator)


def _drawn_factors(
    count: int, width: int, rank: int, scales: tuple[float, float], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns `count` pairs as `_factors` computes them, drawn by what is known of the singular vectors of αZ + βI.

    Turning both sides by one rotation changes neither the identity nor the law of Z, so the right singular vectors are
    Haar. The left one of each pair has a known part along its right one; its rest points anywhere else.
    """
    values, along = top_singular_values(width, rank, *scales)
    frame = haar(count, width, 2 * rank, generator, dtype)
    right, rest = frame[..., :rank], frame[..., rank:]
    roots, along_, across = (frame.new_tensor(numbers) for numbers in (values, along, apart(along)))
    roots.sqrt_()
    return (right * along_ + rest * across) * roots, (right * roots).mT


def _factors(
    width: int, rank: int, scales: tuple[float, float], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns L [width, rank] and R [rank, width], L·R the best approximation of M = αZ + βI by that rank.

    Singular values σ are shared equally; a rank above the width is filled up with zeros. MᵀM tells the right singular
    vectors V and σ²: R = √σVᵀ, and L = M·V/√σ, so that L·R is M on their span, whatever rounding did to V.
    """
    random, identity = scales
    product = torch.empty(width, width, dtype=dtype, device=generator.device)
    product.normal_(0.0, random / math.sqrt(width), generator=generator).diagonal().add_(identity)
    squares, vectors = torch.linalg.eigh(product.mT @ product)
    squares, vectors = squares.flip(0)[:rank], vectors.flip(1)[:, :rank]
    roots = squares.clamp_min(torch.finfo(dtype).eps ** 2).pow(0.25)
    spare = (0, rank - len(roots))
    return functional.pad(product @ vectors / roots, spare), functional.pad(vectors * roots, spare).mT
