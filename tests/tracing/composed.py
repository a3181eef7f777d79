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
EXPERTS = 2

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
    """One matrix product, in one of the ways in which it is written.

    Attributes:
        fan_in: of its weight.
    """

    def __init__(self, way: str, inputs: int, outputs: int) -> None:
        super().__init__()
        self.way, self.constant, self.fan_in = way, math.sqrt(2 / inputs), inputs
        if way == "module":
            self.inner = nn.Linear(inputs, outputs)
        else:
            shape = (inputs, outputs) if way in ("matmul", "einsum", "experts") else (outputs, inputs)
            shape = {"experts": (EXPERTS, *shape), "conv": (*shape, 1)}.get(way, shape)
            self.weight = nn.Parameter(torch.randn(shape) / math.sqrt(inputs))

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "module":
            return self.inner(x)
        if self.way == "matmul":
            return x @ self.weight
        if self.way == "einsum":
            return torch.einsum("bi,io->bo", x, self.weight)
        if self.way == "experts":  # each takes its share of the rows
            return torch.einsum("ebi,eio->ebo", x.unflatten(0, (EXPERTS, -1)), self.weight).flatten(0, 1)
        if self.way == "conv":
            return F.conv1d(x[:, :, None], self.weight)[:, :, 0]
        if self.way == "transposed":
            return x.mm(self.weight.t())
        if self.way == "equalized":
            return F.linear(x, self.weight * self.constant)
        return F.linear(x, self.weight)


WAYS = ("module", "functional", "matmul", "einsum", "experts", "conv", "transposed", "equalized")


class Kernel(nn.Module):
    """A convolution over the features, taken as two channels, with as many of each after it.

    Attributes:
        fan_in: of its weight.
    """

    def __init__(self, way: str, outputs: int = 2, groups: int = 1) -> None:
        super().__init__()
        self.inner = nn.Conv1d(2, outputs, 3, padding=1, groups=groups) if way == "module" else None
        self.groups, self.fan_in = groups, 6 // groups
        if self.inner is None:
            self.weight = nn.Parameter(torch.randn(outputs, 2 // groups, 3) / math.sqrt(self.fan_in))

    def forward(self, x: Tensor) -> Tensor:
        if self.inner is not None:
            return self.inner(x)
        return F.conv1d(x, self.weight, padding=1, groups=self.groups)


class Mixture(nn.Module):
    """Experts whose outputs a router weighs.

    Attributes:
        fan_in: of each expert's weights.
    """

    def __init__(self, way: str, activation: Activation, width: int) -> None:
        super().__init__()
        self.way, self.activation, self.fan_in = way, activation, width
        self.router = nn.Linear(width, EXPERTS, bias=False)
        self.up = nn.Parameter(torch.randn(EXPERTS, width, width) / math.sqrt(width))
        self.down = nn.Parameter(torch.randn(EXPERTS, width, width) / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        shares = self.router(x).softmax(-1)
        hidden = self.activation(torch.einsum("bd,edh->beh", x, self.up))
        outputs = torch.einsum("beh,ehd->bed", hidden, self.down)
        if self.way == "einsum":
            return torch.einsum("be,bed->bd", shares, outputs)
        return (shares[:, :, None] * outputs).sum(1)


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
        self.kind, self.width, self.activation = kind, width, ACTIVATIONS[activation]
        if kind == "mixture":
            self.mixture = Mixture(way, self.activation, width)
            return
        if kind == "tied_transposed":
            self.weight = nn.Parameter(torch.randn(width, width) / math.sqrt(width))
            return
        if kind in CONVOLUTIONS:
            groups = 2 if kind == "depthwise" else 1
            self.kernel = Kernel(way, 4 if kind == "conv_glu" else 2, groups)
            return
        self.first = Product(way, width, 2 * width if kind in CUT else width)
        if kind in TWO:
            self.second = Product(way, width, width)
        if kind in ("pre_norm", "post_norm"):
            self.norm = nn.LayerNorm(width)
        if kind == "rms":
            self.norm = RootMeanSquare(width)
        if kind == "batch_norm":
            self.norm = nn.BatchNorm1d(width)
        if kind == "scaled_residual":
            self.scale = Scale(width)
        if kind == "scalar_residual":
            self.scale = Scale(1)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "mixture":
            return self.mixture(x)
        if self.kind == "tied_transposed":  # an autoencoder's
            return F.linear(self.activation(F.linear(x, self.weight)), self.weight.t())
        if self.kind in CONVOLUTIONS:
            return self.convolved(x)
        if self.kind in CUT or self.kind.startswith("gate"):
            return self.gated(x)
        if self.kind.endswith("residual"):
            return x + self.scaled(self.second(self.activation(self.first(x))))
        if self.kind == "drop_layer":  # left out as a whole, at random
            left_out = self.training and torch.rand(()).item() < 0.3
            return x if left_out else x + self.second(self.activation(self.first(x)))
        if self.kind == "drop_path":  # of some rows the branch is left out
            branch = self.second(self.activation(self.first(x)))
            taken = torch.rand(len(x), 1) < 0.8 if self.training else torch.ones(len(x), 1)
            return x + branch * taken / 0.8 if self.training else x + branch
        if self.kind == "pre_norm":
            return x + self.second(self.activation(self.first(self.norm(x))))
        if self.kind == "post_norm":
            return self.norm(x + self.activation(self.first(x)))
        if self.kind in ("rms", "batch_norm"):
            return self.activation(self.norm(self.first(x)))
        if self.kind == "dropout":
            return F.dropout(self.activation(self.first(x)), 0.2, self.training)
        if self.kind == "multiplied":
            return self.activation(0.5 * self.first(x))
        if self.kind == "tied":  # two layers with one weight
            return self.activation(self.first(self.activation(self.first(x))))
        return self.activation(self.first(x))

    def convolved(self, x: Tensor) -> Tensor:
        channels = x.unflatten(1, (2, -1))
        if self.kind == "conv_glu":
            return F.glu(self.kernel(channels), 1).flatten(1)
        hidden = self.activation(self.kernel(channels)).flatten(1)
        return x + hidden if self.kind == "conv_skip" else hidden

    def gated(self, x: Tensor) -> Tensor:
        first = self.first(x)
        if self.kind == "glu":
            return F.glu(first)
        if self.kind == "glu_chunk":
            value, gate = first.chunk(2, -1)
            return value * F.silu(gate)
        if self.kind == "glu_slices":
            width = first.shape[1] // 2
            return first[:, :width] * torch.sigmoid(first[:, width:])
        if self.kind == "glu_interleaved":
            return first[:, ::2] * torch.sigmoid(first[:, 1::2])
        second = self.second(x)
        return first * (F.silu(second) if self.kind == "gate_silu" else torch.sigmoid(second))

    def scaled(self, branch: Tensor) -> Tensor:
        if self.kind == "halved_residual":
            return 0.5 * branch
        return self.scale(branch) if self.kind in ("scaled_residual", "scalar_residual") else branch


CUT = ("glu", "glu_chunk", "glu_slices", "glu_interleaved")
"""Kinds whose one product makes values and gates."""

CONVOLUTIONS = ("conv", "conv_skip", "conv_glu", "depthwise")
RESIDUALS = ("residual", "scaled_residual", "scalar_residual", "halved_residual")
TWO = (*RESIDUALS, "pre_norm", "gate", "gate_silu", "drop_layer", "drop_path")
"""Kinds of two products."""

KINDS = (
    "plain",
    "post_norm",
    "rms",
    "batch_norm",
    "dropout",
    "multiplied",
    "tied",
    "tied_transposed",
    "mixture",
    *CUT,
    *TWO,
    *CONVOLUTIONS,
)


class Composed(nn.Module):
    """Blocks between a first and a last product."""

    def __init__(self, recipe: Composition) -> None:
        super().__init__()
        self.stem = Product(recipe.blocks[0][1], recipe.width, recipe.width)
        blocks = [Block(*block, recipe.width) for block in recipe.blocks]
        self.blocks = nn.ModuleList([*blocks, blocks[0]] if recipe.again else blocks)
        self.head = nn.Linear(recipe.width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.stem(x))
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)

    def fans_in(self) -> dict[str, int]:
        """Returns the fan-in of each weight."""
        found = {}
        for path, module in self.named_modules():
            if isinstance(module, (Product, Kernel, Mixture)):
                found |= {f"{path}.{name}": module.fan_in for name, p in module.named_parameters() if p.ndim > 1}
            if isinstance(module, Block) and module.kind == "tied_transposed":
                found[f"{path}.weight"] = module.width
        return found | {"head.weight": self.head.in_features}

    def expected(self) -> dict[str, dict[str, object]]:
        """Returns what else the graph says of some weights, by name."""
        found: dict[str, dict[str, object]] = {"head.weight": {"role": "output", "slices": 1}}
        for path, block in self.named_modules():
            if not isinstance(block, Block):
                continue
            if block.kind == "mixture":
                found[f"{path}.mixture.router.weight"] = {"role": "router"}
                for name in ("up", "down"):
                    found[f"{path}.mixture.{name}"] = {"fan_out": block.width, "out_axes": (2,), "in_axes": (1,)}
            weights = {name: p for name, p in block.named_parameters() if p.ndim > 1}
            for name in weights:
                if block.kind in CUT and name.startswith("first"):
                    found[f"{path}.{name}"] = {
                        "slices": 2,
                        "fan_out": block.width,
                        "interleaved": block.kind == "glu_interleaved",
                    }
                if block.kind in ("gate", "gate_silu") and name.startswith("second"):
                    found[f"{path}.{name}"] = {"role": "gate"}
                if block.kind in TWO and not block.kind.startswith("gate") and name.startswith("second"):
                    found[f"{path}.{name}"] = {"role": "residual_out", "branch_weights": 2}
        return found


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


def with_interpolated_penalty(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The same between rows, in a pass of its own (WGAN-GP)."""
    mixed = batch[0].lerp(batch[0].flip(0), 0.3).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model(mixed).sum(), mixed, create_graph=True)
    return cross_entropy(model, batch) + 0.1 * (gradient.norm(dim=1) - 1).square().mean()


def with_flatness(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A penalty on the gradient at the weights."""
    loss = cross_entropy(model, batch)
    gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True, allow_unused=True)
    return loss + 0.01 * sum(gradient.square().sum() for gradient in gradients if gradient is not None)


def with_curvature(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A penalty on a product of the Hessian at the inputs with a vector: a gradient of a gradient."""
    x = batch[0].clone().requires_grad_()
    loss = F.cross_entropy(model(x), batch[1])
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    (product,) = torch.autograd.grad((gradient * batch[0].sign()).sum(), x, create_graph=True)
    return loss + 0.1 * product.square().sum()


def on_adversaries(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The loss of inputs that were moved along its own gradient."""
    x = batch[0].detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), batch[1]), x)
    return F.cross_entropy(model(batch[0] + 0.01 * gradient.sign()), batch[1])


def with_consistency(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """What two passes answer has to agree (R-Drop)."""
    one, other = model(batch[0]).log_softmax(1), model(batch[0]).log_softmax(1)
    apart = ((one - other) * (one.exp() - other.exp())).sum(1).mean()
    return F.nll_loss(one, batch[1]) + F.nll_loss(other, batch[1]) + 0.5 * apart


def with_weight_decay(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A penalty on the weights themselves."""
    return cross_entropy(model, batch) + 1e-4 * sum(p.square().sum() for p in model.parameters())


def with_steady_activations(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A penalty on how far noise moves what the first layers give: they are run by themselves, first and last."""
    stem, block = model.get_submodule("stem"), model.get_submodule("blocks.0")
    hidden = block(torch.relu(stem(batch[0])))
    loss = cross_entropy(model, batch)
    moved = block(torch.relu(stem(batch[0] + 0.1)))
    return loss + 0.01 * (moved - hidden).square().mean()


def with_replayed_codes(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A loss of what all but the first layer makes of codes without a gradient, as of a store of earlier ones."""
    hidden = torch.relu(model.get_submodule("stem")(batch[0])).detach()
    for block in model.get_submodule("blocks").children():
        hidden = block(hidden)
    replayed = F.cross_entropy(model.get_submodule("head")(hidden), batch[1])
    return replayed + cross_entropy(model, batch)


def with_smoothed_margin(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A loss through a sigmoid, a softmax and a mean of the logits."""
    output = model(batch[0])
    margin = torch.sigmoid(output).gather(1, batch[1][:, None]).mean() + output.softmax(1).square().mean()
    return cross_entropy(model, batch) - 0.1 * margin


PENALTIES: dict[str, Step] = {
    "entropy": with_entropy,
    "gradient penalty": with_gradient_penalty,
    "interpolated penalty": with_interpolated_penalty,
    "flatness": with_flatness,
    "curvature": with_curvature,
    "adversaries": on_adversaries,
    "consistency": with_consistency,
    "weight decay": with_weight_decay,
    "steady activations": with_steady_activations,
    "replayed codes": with_replayed_codes,
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
        again: the first block comes once more after the last, with the same weights.
    """

    width: int
    blocks: tuple[tuple[str, str, str], ...]
    penalty: str
    seed: int
    again: bool = False

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
        again=st.booleans(),
    )
