"""Convolutional networks of real depth as their owners would write them: torch.nn and its default draws.

A study file names one as `convolutional_networks:vgg`, with arguments; `channels`, `outputs` and the like come from the
data entry of the file.
"""

# ruff: noqa: D102  (a forward is described by its class)

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


def vgg(channels: int, outputs: int, widths: Sequence[int] = (32, 64, 128), norm: bool = False) -> nn.Module:
    """Returns a VGG (Simonyan & Zisserman 2014, arXiv:1409.1556): two 3 x 3 convolutions a stage, then pooling.

    Args:
        channels: of the image.
        outputs: classes.
        widths: channels of each stage.
        norm: whether BatchNorm follows every convolution.
    """
    layers: list[nn.Module] = []
    before = channels
    for width in widths:
        for _ in range(2):
            layers += [nn.Conv2d(before, width, 3, padding=1), *([nn.BatchNorm2d(width)] if norm else []), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2))
    hidden = 2 * widths[-1]
    head = [nn.Linear(widths[-1], hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


class StandardizedConv2d(nn.Conv2d):
    """A convolution whose kernels are standardized at each use (Qiao et al. 2019, arXiv:1903.10520).

    Args:
        gained: whether a learned gain for each channel follows, as in NFNets (Brock et al. 2021, arXiv:2102.06171).
    """

    def __init__(self, *args: int, gained: bool = False, **kwargs: int) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1)) if gained else None

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        variance = self.weight.var((1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / torch.sqrt(variance * self.weight[0].numel() + 1e-4)
        if self.gain is not None:
            weight = weight * self.gain
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class NormFreeBlock(nn.Module):
    """A block of an NFNet: scaled standardized convolutions, a skip, a multiplier that starts at zero."""

    def __init__(self, width: int, scale: float, beta: float) -> None:
        super().__init__()
        self.conv1 = StandardizedConv2d(width, width, 3, padding=1, gained=True)
        self.conv2 = StandardizedConv2d(width, width, 3, padding=1, gained=True)
        self.skip_gain = nn.Parameter(torch.zeros(()))
        self.scale, self.beta = scale, beta

    def forward(self, x: Tensor) -> Tensor:
        inner = 1.7 * F.gelu(x / self.beta)
        inner = self.conv2(1.7 * F.gelu(self.conv1(inner)))
        return x + self.scale * self.skip_gain * inner


def norm_free_resnet(channels: int, outputs: int, width: int = 64, blocks: int = 4, scale: float = 0.2) -> nn.Module:
    """Returns a network after Brock et al. 2021 (arXiv:2102.06171): no normalization, variances known beforehand.

    Args:
        channels: of the image.
        outputs: classes.
        width: channels of each block.
        blocks: of two convolutions.
        scale: α, of each branch.
    """
    body = [NormFreeBlock(width, scale, (1 + place * scale**2) ** 0.5) for place in range(blocks)]
    stem = StandardizedConv2d(channels, width, 3, stride=2, padding=1, gained=True)
    return nn.Sequential(stem, *body, nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs))


class DenseLayer(nn.Module):
    """Adds new channels to all that are there (Huang et al. 2016, arXiv:1608.06993)."""

    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(before)
        self.conv = nn.Conv2d(before, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


def densenet(channels: int, outputs: int, growth: int = 24, layers: int = 5) -> nn.Module:
    """Returns a DenseNet of two stages.

    Args:
        channels: of the image.
        outputs: classes.
        growth: channels that a layer adds.
        layers: of each stage.
    """
    width = 2 * growth
    found: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
    for stage in range(2):
        for _ in range(layers):
            found.append(DenseLayer(width, growth))
            width += growth
        if stage == 0:
            found += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1), nn.AvgPool2d(2)]
            width //= 2
    tail = [nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs)]
    return nn.Sequential(*found, *tail)


class Added(nn.Module):
    """x + f(x)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def convmixer(
    channels: int, outputs: int, width: int = 128, depth: int = 6, kernel: int = 5, patch: int = 2
) -> nn.Module:
    """Returns a ConvMixer (Trockman & Kolter 2022, arXiv:2201.09792).

    Args:
        channels: of the image.
        outputs: classes.
        width: channels of each layer.
        depth: layers.
        kernel: of the depthwise convolutions.
        patch: pixels on a side of a patch.
    """

    def normed(convolution: nn.Module) -> nn.Module:
        return nn.Sequential(convolution, nn.GELU(), nn.BatchNorm2d(width))

    def layer() -> nn.Module:
        depthwise = nn.Conv2d(width, width, kernel, groups=width, padding="same")
        return nn.Sequential(Added(normed(depthwise)), normed(nn.Conv2d(width, width, 1)))

    stem = normed(nn.Conv2d(channels, width, patch, stride=patch))
    body = [layer() for _ in range(depth)]
    return nn.Sequential(stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs))


class TwoConvolutions(nn.Module):
    """What a U-Net does on each level: two 3 x 3 convolutions, each normalized and activated."""

    def __init__(self, before: int, width: int, norm: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (before, width):
            normed = {"group": lambda: nn.GroupNorm(8, width), "batch": lambda: nn.BatchNorm2d(width)}.get(norm)
            layers += [nn.Conv2d(inputs, width, 3, padding=1), *([normed()] if normed else []), nn.SiLU()]
        self.inner = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class UNet(nn.Module):
    """A U-Net of three levels (Ronneberger et al. 2015, arXiv:1505.04597), image to image, as diffusion models have it.

    Normalization is "group", "batch" or "none".
    """

    def __init__(self, channels: int, outputs: int, width: int = 24, norm: str = "group") -> None:
        super().__init__()
        self.down1 = TwoConvolutions(channels, width, norm)
        self.down2 = TwoConvolutions(width, 2 * width, norm)
        self.middle = TwoConvolutions(2 * width, 4 * width, norm)
        self.open2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.up2 = TwoConvolutions(4 * width, 2 * width, norm)
        self.open1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.up1 = TwoConvolutions(2 * width, width, norm)
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        inner = self.middle(F.max_pool2d(second, 2))
        second = self.up2(torch.cat([self.open2(inner), second], 1))
        return self.head(self.up1(torch.cat([self.open1(second), first], 1)))


class TemporalBlock(nn.Module):
    """Two causal dilated convolutions with weight normalization and a skip (Bai et al. 2018, arXiv:1803.01271)."""

    def __init__(self, before: int, width: int, dilation: int, kernel: int = 3) -> None:
        super().__init__()
        self.pad = (kernel - 1) * dilation
        self.conv1 = weight_norm(nn.Conv1d(before, width, kernel, dilation=dilation))
        self.conv2 = weight_norm(nn.Conv1d(width, width, kernel, dilation=dilation))
        self.skip = nn.Conv1d(before, width, 1) if before != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.conv1(F.pad(x, (self.pad, 0))))
        inner = F.relu(self.conv2(F.pad(inner, (self.pad, 0))))
        return F.relu(inner + self.skip(x))


class TemporalNetwork(nn.Module):
    """A temporal convolutional network that reads a series [n, steps, features] and answers at its end."""

    def __init__(self, features: int, outputs: int, width: int = 64, blocks: int = 4) -> None:
        super().__init__()
        sizes = [features, *[width] * blocks]
        self.body = nn.Sequential(*[TemporalBlock(sizes[n], sizes[n + 1], 2**n) for n in range(blocks)])
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.transpose(1, 2))[:, :, -1])


class GatedCausalLayer(nn.Module):
    """A layer of a WaveNet: a gated dilated convolution, of which one part is added and one goes to the output."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.pad = dilation
        self.dilated = nn.Conv1d(width, 2 * width, 2, dilation=dilation)
        self.added = nn.Conv1d(width, width, 1)
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        signal, gate = self.dilated(F.pad(x, (self.pad, 0))).chunk(2, 1)
        inner = torch.tanh(signal) * torch.sigmoid(gate)
        return x + self.added(inner), self.out(inner)


class WaveNet(nn.Module):
    """A WaveNet (van den Oord et al. 2016, arXiv:1609.03499) over characters; logits as [n, length, vocabulary]."""

    def __init__(self, vocabulary: int, length: int, width: int = 96, layers: int = 5) -> None:
        super().__init__()
        self.length = length
        self.tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(GatedCausalLayer(width, 2**place) for place in range(layers))
        self.out = nn.Conv1d(width, width, 1)
        self.head = nn.Conv1d(width, vocabulary, 1)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.tokens(codes).transpose(1, 2)
        total: Tensor | float = 0.0
        for layer in self.layers:
            x, out = layer(x)
            total = total + out
        return self.head(F.relu(self.out(F.relu(total)))).transpose(1, 2)


class SeriesResNet(nn.Module):
    """The ResNet for series of Wang et al. 2016 (arXiv:1611.06455): three blocks of three convolutions, BatchNorm."""

    def __init__(self, features: int, outputs: int, width: int = 64) -> None:
        super().__init__()
        sizes = [features, width, 2 * width, 2 * width]
        self.blocks = nn.ModuleList(_series_block(sizes[n], sizes[n + 1]) for n in range(3))
        self.skips = nn.ModuleList(
            nn.Sequential(nn.Conv1d(sizes[n], sizes[n + 1], 1), nn.BatchNorm1d(sizes[n + 1])) for n in range(3)
        )
        self.head = nn.Linear(2 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        for block, skip in zip(self.blocks, self.skips, strict=True):
            x = F.relu(block(x) + skip(x))
        return self.head(x.mean(2))


def _series_block(before: int, width: int) -> nn.Module:
    layers: list[nn.Module] = []
    for place, kernel in enumerate((7, 5, 3)):
        layers += [nn.Conv1d(width if place else before, width, kernel, padding="same"), nn.BatchNorm1d(width)]
        layers += [nn.ReLU()] if place < 2 else []
    return nn.Sequential(*layers)


def image_autoencoder(channels: int, width: int = 32, code: int = 64, size: int = 28) -> nn.Module:
    """Returns a convolutional autoencoder without normalization: two halvings, a code, two doublings.

    Args:
        channels: of the image.
        width: channels of the first convolution.
        code: numbers between the two halves.
        size: pixels on a side, a multiple of four.
    """
    inner = 2 * width * (size // 4) ** 2
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(inner, code), nn.ReLU(), nn.Linear(code, inner), nn.ReLU(),
        nn.Unflatten(1, (2 * width, size // 4, size // 4)),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
    )  # fmt: skip
