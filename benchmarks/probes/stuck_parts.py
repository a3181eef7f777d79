"""What the nets of the benchmark of stuck ones are made of: draws, and shapes that no study has."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

from torch import nn

from studies import networks

SMALL = 0.02
"""GPT-2's standard deviation, which plain networks are often given, too."""

Build = Callable[[], nn.Module]


def as_made(model: nn.Module) -> None:
    """Leaves what the model's own code draws: mostly PyTorch's defaults."""


def _weights(model: nn.Module) -> Iterator[nn.Parameter]:
    """Sets all biases of products to zero and yields the weights of linear layers and convolutions."""
    for part in model.modules():
        if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            if part.bias is not None:
                nn.init.zeros_(part.bias)
            yield part.weight


def he(model: nn.Module) -> None:
    """Draws as He et al. (2015) have it, biases zero."""
    for weight in _weights(model):
        nn.init.kaiming_normal_(weight, nonlinearity="relu")


def he_large(model: nn.Module) -> None:
    """Draws twice as wide as He et al., biases zero."""
    for weight in _weights(model):
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
        weight.data.mul_(2)


def lecun(model: nn.Module) -> None:
    """Draws with variance 1 / fan_in, biases zero."""
    for weight in _weights(model):
        nn.init.kaiming_normal_(weight, nonlinearity="linear")


def xavier(model: nn.Module) -> None:
    """Draws as Glorot & Bengio (2010) have it, biases zero."""
    for weight in _weights(model):
        nn.init.xavier_uniform_(weight)


def xavier_sigmoid(model: nn.Module) -> None:
    """Draws four times as wide as Glorot & Bengio, as they have it for the logistic function."""
    for weight in _weights(model):
        nn.init.xavier_uniform_(weight, gain=4)


def orthogonal(model: nn.Module) -> None:
    """Draws orthogonal matrices, with √2 for ReLU and its like, biases zero."""
    like_relu = any(isinstance(part, (nn.ReLU, nn.GELU, nn.SiLU, nn.LeakyReLU)) for part in model.modules())
    for weight in _weights(model):
        nn.init.orthogonal_(weight, gain=math.sqrt(2) if like_relu else 1.0)


def normal_002(model: nn.Module) -> None:
    """Draws with a standard deviation of 0.02, biases zero."""
    for weight in _weights(model):
        nn.init.normal_(weight, std=SMALL)


def half(model: nn.Module) -> None:
    """Halves the matrices of whatever the model's own code draws."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(0.5)


def tenth(model: nn.Module) -> None:
    """Divides the matrices of whatever the model's own code draws by ten."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(0.1)


def mlp(
    features: int, outputs: int, depth: int, activation: str = "relu", width: int = 64, norm: str = "none"
) -> Build:
    """Returns what makes a plain MLP of so many linear layers."""
    if activation in _MORE:
        return functools.partial(_more_mlp, features, outputs, depth, activation, width)
    return functools.partial(networks.mlp, features, outputs, depth, width, activation, norm)


_MORE: dict[str, Callable[[], nn.Module]] = {
    "leaky": nn.LeakyReLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "mish": nn.Mish,
}


def _more_mlp(features: int, outputs: int, depth: int, activation: str, width: int) -> nn.Module:
    layers: list[nn.Module] = []
    for place in range(depth - 1):
        layers += [nn.Linear(width if place else features, width), _MORE[activation]()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def cnn(depth: int, activation: str = "relu", norm: str = "none", width: int = 12) -> Build:
    """Returns what makes a plain CNN of so many convolutions and a linear head."""
    return functools.partial(networks.cnn, 1, 10, depth, width, activation, norm)


def pooled(activation: Callable[[], nn.Module], blocks: int, size: int = 14, width: int = 12) -> nn.Module:
    """Returns pairs of convolutions, each followed by max pooling, and two linear layers: VGG's pattern."""
    layers: list[nn.Module] = []
    channels = 1
    for block in range(blocks):
        layers += [nn.Conv2d(channels, width, 3, padding=1), activation(), nn.Conv2d(width, width, 3, padding=1)]
        layers += [activation(), nn.MaxPool2d(2)] if block < 2 else [activation()]
        channels = width
    side = size // 2 ** min(blocks, 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side**2, 64), activation(), nn.Linear(64, 10))


def lenet(activation: Callable[[], nn.Module]) -> nn.Module:
    """Returns LeCun's LeNet-5 with average pooling, on [n, 1, 14, 14]."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), activation(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 3), activation(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(64, 120), activation(), nn.Linear(120, 84), activation(), nn.Linear(84, 10),
    )  # fmt: skip
