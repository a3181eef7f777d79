"""Networks put together at random from pieces that people write, and losses that look at them in several ways."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (4, 6, 8)
CLASSES = 3
ROWS = 12

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "none": lambda x: x,
}


class Product(nn.Module):
    """One matrix product, in one of the ways in which it is written."""

    def __init__(self, way: str, inputs: int, outputs: int) -> None:
        super().__init__()
        self.way, self.constant = way, math.sqrt(2 / inputs)
        if way == "module":
            self.inner = nn.Linear(inputs, outputs)
        else:
            shape = (inputs, outputs) if way in ("matmul", "einsum") else (outputs, inputs)
            self.weight = nn.Parameter(torch.randn(shape) / math.sqrt(inputs))

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "module":
            return self.inner(x)
        if self.way == "matmul":
            return x @ self.weight
        if self.way == "einsum":
            return torch.einsum("bi,io->bo", x, self.weight)
        if self.way == "transposed":
            return x.mm(self.weight.t())
        if self.way == "equalized":
            return F.linear(x, self.weight * self.constant)
        return F.linear(x, self.weight)


WAYS = ("module", "functional", "matmul", "einsum", "transposed", "equalized")


class Scale(nn.Module):
    """A factor for each feature, at one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class RootMeanSquare(nn.Module):
    """A normalization written by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.gain


class Block(nn.Module):
    """A product and an activation, in the frame of one kind."""

    def __init__(self, kind: str, way: str, activation: str, width: int) -> None:
        super().__init__()
        self.kind, self.activation = kind, ACTIVATIONS[activation]
        outputs = 2 * width if kind == "glu" else width
        self.first = Product(way, width, outputs)
        if kind in ("residual", "pre_norm", "gate", "scaled_residual"):
            self.second = Product(way, width, width)
        if kind in ("pre_norm", "post_norm"):
            self.norm = nn.LayerNorm(width)
        if kind == "rms":
            self.norm = RootMeanSquare(width)
        if kind == "batch_norm":
            self.norm = nn.BatchNorm1d(width)
        if kind == "scaled_residual":
            self.scale = Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "glu":
            return F.glu(self.first(x))
        if self.kind == "gate":
            return self.first(x) * torch.sigmoid(self.second(x))
        if self.kind == "residual":
            return x + self.second(self.activation(self.first(x)))
        if self.kind == "scaled_residual":
            return x + self.scale(self.second(self.activation(self.first(x))))
        if self.kind == "pre_norm":
            return x + self.second(self.activation(self.first(self.norm(x))))
        if self.kind == "post_norm":
            return self.norm(x + self.activation(self.first(x)))
        if self.kind in ("rms", "batch_norm"):
            return self.activation(self.norm(self.first(x)))
        if self.kind == "dropout":
            return F.dropout(self.activation(self.first(x)), 0.2, self.training)
        return self.activation(self.first(x))


KINDS = (
    "plain",
    "residual",
    "scaled_residual",
    "pre_norm",
    "post_norm",
    "rms",
    "batch_norm",
    "dropout",
    "glu",
    "gate",
)


class Composed(nn.Module):
    """Blocks between a first and a last product."""

    def __init__(self, recipe: Composition) -> None:
        super().__init__()
        self.stem = Product(recipe.blocks[0][1], recipe.width, recipe.width)
        self.blocks = nn.ModuleList(Block(*block, recipe.width) for block in recipe.blocks)
        self.head = nn.Linear(recipe.width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.stem(x))
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)


Step = Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The plain loss, which adds nothing."""
    return F.cross_entropy(model(batch[0]), batch[1])


def with_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A policy's loss with its entropy bonus."""
    policy = torch.distributions.Categorical(logits=model(batch[0]))
    return -policy.log_prob(batch[1]).mean() - 0.01 * policy.entropy().mean()


def with_gradient_penalty(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A critic's penalty on the norm of the gradient at its inputs."""
    x = batch[0].clone().requires_grad_()
    output = model(x)
    (gradient,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    return F.cross_entropy(output, batch[1]) + 0.1 * (gradient.norm(dim=1) - 1).square().mean()


def with_weight_decay(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A penalty on the weights themselves."""
    return cross_entropy(model, batch) + 1e-4 * sum(p.square().sum() for p in model.parameters())


def with_smoothed_margin(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A loss through a sigmoid, a softmax and a mean of the logits."""
    output = model(batch[0])
    margin = torch.sigmoid(output).gather(1, batch[1][:, None]).mean() + output.softmax(1).square().mean()
    return cross_entropy(model, batch) - 0.1 * margin


PENALTIES: dict[str, Step] = {
    "entropy": with_entropy,
    "gradient penalty": with_gradient_penalty,
    "weight decay": with_weight_decay,
    "margin": with_smoothed_margin,
}


@dataclass(frozen=True)
class Composition:
    """What is drawn at random: printed where a property fails, and enough to build the network again.

    Attributes:
        width: of all layers.
        blocks: (kind, way, activation) of each.
        penalty: a loss other than the plain one.
        seed: of the weights and the data.
    """

    width: int
    blocks: tuple[tuple[str, str, str], ...]
    penalty: str
    seed: int

    data: tuple[Tensor, Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        x = torch.randn(ROWS, self.width, generator=generator)
        y = torch.randint(0, CLASSES, (ROWS,), generator=generator)
        object.__setattr__(self, "data", (x, y))

    def build(self) -> Composed:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return Composed(self)


def compositions(deepest: int = 4) -> st.SearchStrategy[Composition]:
    """Returns a strategy of networks of up to so many blocks."""
    block = st.tuples(st.sampled_from(KINDS), st.sampled_from(WAYS), st.sampled_from(tuple(ACTIVATIONS)))
    return st.builds(
        Composition,
        width=st.sampled_from(WIDTHS),
        blocks=st.lists(block, min_size=1, max_size=deepest).map(tuple),
        penalty=st.sampled_from(tuple(PENALTIES)),
        seed=st.integers(0, 2**16),
    )
