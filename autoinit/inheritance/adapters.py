"""How the pair of matrices of a low-rank adapter starts, where no formula of one matrix alone gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..recipes.adapters import ADAPTER_ROWS, Adapter
from ..seeds import seed_of_use
from ..task.task import Task
from .given import Given
from .pairs import Pair, why_not_lent
from .watching import Moments, Spend, seen_gradients, seen_inputs

SPREAD = 10.0
"""What peft divides the two matrices of an orthogonal pair by."""
GAMMA = 16.0
"""LoRA-GA's γ, of its stable scale (Wang et al. 2024, arXiv:2407.05000), as in its code and in peft."""
DAMPING, INVERSE_ERROR = 0.01, 0.05
"""CorDA adds this share of their mean to the diagonal of the second moments, twice as much until the inverse errs less
than that in Frobenius norm (its code; arXiv:2406.05223, section 3.2)."""

Factors = tuple[Tensor, Tensor]
"""A, [r, in], and B, [out, r]."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What the start of one adapter is made from.

    Attributes:
        weight: W as [out, in], in float32.
        rank: r.
        scale: s.
        generator: on the CPU, the adapter's own.
        moments: of the weight's inputs, where they were asked for.
        gradient: of the weight, [out, in], where it was asked for.
    """

    weight: Tensor
    rank: int
    scale: float
    generator: torch.Generator
    moments: Moments | None = None
    gradient: Tensor | None = None


def orthogonal(beside: Beside) -> Factors:
    """Returns a pair whose product is zero, though neither is: by odd and even rows of one orthogonal matrix."""
    rank, (out, inside) = beside.rank, beside.weight.shape
    if rank % 2:
        raise RecipeError(
            f"lora_orthogonal halves the rank, which has to be even. Got {rank}. Use lora_default or eva."
        )
    turned, _ = torch.linalg.qr(torch.randn(rank, rank, generator=beside.generator))
    down = torch.randn(inside, rank // 2, generator=beside.generator) @ turned[0::2]
    up = torch.randn(out, rank // 2, generator=beside.generator) @ turned[1::2]
    return down.T / SPREAD, up / SPREAD


def pissa(beside: Beside) -> Factors:
    """Returns the principal part of the weight: B·A·s is its best approximation of that rank."""
    left, sizes, right = torch.linalg.svd(beside.weight, full_matrices=False)
    return _halved(left, sizes, right, beside)


def _halved(left: Tensor, sizes: Tensor, right: Tensor, beside: Beside) -> Factors:
    """Returns a product of rank r of which each factor has the root of the singular values, ÷ s together."""
    root = (sizes[: beside.rank] / beside.scale).clamp_min(0).sqrt()
    return root[:, None] * right[: beside.rank], left[:, : beside.rank] * root


def olora(beside: Beside) -> Factors:
    """Returns the first columns of Q and the first rows of R, where W = Q·R."""
    basis, rest = torch.linalg.qr(beside.weight)
    return rest[: beside.rank].clone(), basis[:, : beside.rank].clone()


def eva(beside: Beside) -> Factors:
    """Returns the principal directions of the weight's inputs, beside zero."""
    out = beside.weight.shape[0]
    vectors = torch.linalg.eigh(_told(beside.moments).covariance).eigenvectors  # the largest come last
    directions = vectors[:, -beside.rank :].flip(1).T
    return directions.to(beside.weight), beside.weight.new_zeros(out, beside.rank)


def lora_ga(beside: Beside) -> Factors:
    """Returns singular vectors of the gradient: the first r for the inputs, the next r for the outputs."""
    gradient, rank = beside.gradient, beside.rank
    if gradient is None or 2 * rank > min(gradient.shape):
        shape = "×".join(map(str, beside.weight.shape))
        raise RecipeError(
            f"lora_ga takes 2·rank singular vectors of a gradient, {2 * rank} here, and a weight of {shape} has fewer. "
            "Use a smaller rank, pissa or lora_default."
        )
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    size = gradient.shape[0] ** 0.25 / GAMMA**0.5
    return right[:rank] * size, left[:, rank : 2 * rank] * size


def corda(beside: Beside) -> Factors:
    """Returns the principal part of the weight as the data see it: that of W·C, C the second moments of its inputs."""
    second, inverse = _inverted(_told(beside.moments).second)
    left, sizes, right = torch.linalg.svd(beside.weight.to(second) @ second, full_matrices=False)
    down, up = _halved(left, sizes, right @ inverse, beside)
    return down.to(beside.weight), up.to(beside.weight)


def _inverted(second: Tensor) -> tuple[Tensor, Tensor]:
    """Returns second moments with so much on their diagonal that they can be inverted, and their inverse."""
    size, identity = second.diagonal().mean(), torch.eye(len(second), dtype=second.dtype, device=second.device)
    damping = DAMPING
    while True:
        damped = second + identity * (size * damping)
        inverse = torch.linalg.inv(damped)
        if float((damped @ inverse - identity).norm()) < INVERSE_ERROR or damping > 1:
            return damped, inverse
        damping *= 2


def _told(moments: Moments | None) -> Moments:
    if moments is None:
        raise RecipeError("This start of an adapter is measured on batches. Pass data=, batches or one example input.")
    return moments


STARTS: dict[str, Callable[[Beside], Factors]] = {
    "orthogonal": orthogonal,
    "pissa": pissa,
    "olora": olora,
    "eva": eva,
    "lora_ga": lora_ga,
    "corda": corda,
}
"""Name of a row of `ADAPTER_ROWS` that no formula gives → what does."""


@torch.no_grad()
def started(model: nn.Module, pairs: Sequence[Pair], name: str, seed: int, seen: Watched | None = None) -> Given:
    """Returns the values of adapters under a start that no formula gives.

    Decompositions run in float32 on the weight's own device. The weights beside are read, and not changed here.

    Args:
        model: with its trained weights.
        pairs: those that start.
        name: key of `STARTS`.
        seed: of what is drawn.
        seen: what the start measures on batches; None where it measures nothing.

    Raises:
        RecipeError: the start is for other ranks or shapes, for weights that are not quantized, or asks for data.
        CalibrationError: a weight was not used by the data.
    """
    row, values, why = ADAPTER_ROWS[name], dict[str, Tensor](), dict[str, str]()
    for pair in pairs:
        _check(model, pair, row)
    for pair, told in _told_of(pairs, row, seen):
        down, up = STARTS[name](_beside(model, pair, seed, told))
        for place, value, words in ((pair.down, down, row.down), (pair.up, up, row.up)):
            values[place], why[place] = _as_held(value, model.get_parameter(place)), words
    return Given(values, why)


def _as_held(value: Tensor, parameter: Tensor) -> Tensor:
    return value.to(parameter.device, parameter.dtype).reshape(parameter.shape).contiguous()


def _check(model: nn.Module, pair: Pair, row: Adapter) -> None:
    """Raises RecipeError where a start does not suit what a pair is beside."""
    name = row.name if row.name.startswith("lora") else f"{row.about.title}"
    if pair.kind != "linear":
        raise RecipeError(
            f"{name} is for adapters beside linear layers, and {pair.base} is an {pair.kind}'s. Use lora_default."
        )
    if row.takes and (why := why_not_lent(model, pair.base)):
        held = model.get_parameter(pair.base)
        raise RecipeError(
            f"{name} takes from the weight beside the adapter, and {pair.base} ({held.dtype}) is {why}. "
            "Use lora_default, lora_gaussian, lora_orthogonal or eva, which leave it as it is."
        )


@dataclass(frozen=True, slots=True)
class Watched:
    """What is needed to look at batches: a task, the seed of their order, and who is told what it costs."""

    task: Task
    seed: int
    spend: Spend


def _told_of(
    pairs: Sequence[Pair], row: Adapter, seen: Watched | None
) -> Iterator[tuple[Pair, Moments | Tensor | None]]:
    """Yields each pair with what its start is told of the data."""
    if not row.watches or seen is None:
        yield from ((pair, None) for pair in pairs)
    elif row.watches == "inputs":
        yield from seen_inputs(seen.task, pairs, seen.seed, seen.spend)
    else:
        yield from seen_gradients(seen.task, pairs, seen.seed, seen.spend)


def _beside(model: nn.Module, pair: Pair, seed: int, told: Moments | Tensor | None) -> Beside:
    generator = torch.Generator().manual_seed(seed_of_use(seed, f"adapter {pair.down}"))
    weight = _upright(model.get_parameter(pair.base), pair).float()
    moments = told if isinstance(told, Moments) else None
    gradient = _upright(told, pair).float() if isinstance(told, Tensor) else None
    return Beside(weight, model.get_parameter(pair.down).shape[0], pair.scale, generator, moments, gradient)


def _upright(matrix: Tensor, pair: Pair) -> Tensor:
    """Returns a weight, or its gradient, as [out, in]."""
    flat = matrix.detach().flatten(1)
    return flat.T if pair.transposed else flat
