"""Orthogonal matrices, uniform over all of them: of a whole weight, or of a convolution's centre tap."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .geometry import Geometry


def haar(count: int, rows: int, columns: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns `count` Haar-distributed matrices [count, rows, columns] with orthonormal rows or columns.

    Whichever are fewer are orthonormal. The factor Q of a Gaussian matrix whose R has a positive diagonal is Haar
    (Mezzadri 2007, math-ph/0609050), and the reflections that make such a Q are independent of each other: the k-th
    one turns a fresh Gaussian vector of the coordinates from k on (Stewart 1980, "The efficient generation of random
    orthogonal matrices with an application to condition estimators"). So they are drawn, not computed by a
    factorization, which would cost as much again as their product.

    The matrices lie on the generator's device.
    """
    # A vector in a row of memory: its length is summed more exactly than over strides, and LAPACK wants it so.
    shape = (count, min(rows, columns), max(rows, columns))
    vectors = torch.empty(shape, dtype=dtype, device=generator.device).normal_(generator=generator).triu_().mT
    first = vectors.diagonal(dim1=-2, dim2=-1)
    first.masked_fill_(first == 0, 1.0)  # once in many millions; a vector of zeros would have no direction
    lengths = vectors.norm(dim=-2).copysign(-first)  # each vector is reflected to the far side: nothing cancels
    turns = (lengths - first) / lengths
    vectors /= (first - lengths).unsqueeze(-2)
    vectors.diagonal(dim1=-2, dim2=-1).fill_(1.0)  # as LAPACK has reflections: the first coordinate is one
    product = torch.linalg.householder_product if generator.device.type == "cpu" else _product
    q: Tensor = product(vectors, turns)
    q *= lengths.sign().unsqueeze(-2)
    return q if rows >= columns else q.mT


def _product(vectors: Tensor, turns: Tensor) -> Tensor:
    """Returns the first columns of the product of reflections 1 − τ·v·vᵀ, as `torch.linalg.householder_product` does.

    In the form 1 − V·T·Vᵀ, where T is upper triangular and T⁻¹ + T⁻ᵀ = VᵀV (Puglisi 1992, "Modification of the
    Householder method based on the compact WY representation"): three times the operations, yet products of matrices,
    in which a GPU computes all matrices of a batch together. There LAPACK's way takes them one after the other.
    """
    size = vectors.shape[-1]
    inverse = (vectors.mT @ vectors).triu_(1)
    inverse.diagonal(dim1=-2, dim2=-1).copy_(turns.reciprocal())
    half = torch.linalg.solve_triangular(inverse, vectors[..., :size, :].mT, upper=True)
    eye = torch.eye(vectors.shape[-2], size, dtype=vectors.dtype, device=vectors.device)
    product: Tensor = torch.baddbmm(eye.expand_as(vectors), vectors, half, alpha=-1)
    return product


def orthogonal_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills each matrix with orthonormal rows or columns (whichever are fewer), times √max(rows, columns)·std.

    Saxe et al. 2014, arXiv:1312.6120.
    """
    count, rows, columns = geometry.blocks(tensor).shape
    q = haar(count, rows, columns, generator, tensor.dtype)
    geometry.scatter_(tensor, q.mul_(std * math.sqrt(max(rows, columns))))


def delta_orthogonal_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills the centre tap of each kernel with an orthogonal matrix over the channels, the other taps with zeros.

    The matrix is scaled by √(max(rows, channels)·taps)·std, so that the root mean square of all entries is `std`.
    Without kernel axes this is `orthogonal_`. Xiao et al. 2018, arXiv:1806.05393.
    """
    tensor.zero_()
    orthogonal_(*geometry.centre(tensor), std * math.sqrt(geometry.taps(tensor)), generator)
