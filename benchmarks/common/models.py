"""The models of the benchmarks, as their owners would write them: torch.nn and its default draws."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studies.networks import CausalBlock


def plain_mlp(activation: Callable[[], nn.Module], depth: int = 16, width: int = 128) -> nn.Module:
    """Returns `depth` linear layers on 784 pixels, no normalization, no skips."""
    sizes = [784, *[width] * (depth - 1)]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def plain_cnn(depth: int = 15, width: int = 12) -> nn.Module:
    """Returns `depth` 3 x 3 convolutions on [n, 1, 14, 14] and a linear head, no normalization, no skips."""
    layers: list[nn.Module] = [nn.Conv2d(1, width, 3, stride=2, padding=1), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 10))


class BasicBlock(nn.Module):
    """The basic block of a ResNet: two convolutions, BatchNorm, an identity skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        branch = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(branch)))


def residual_cnn(blocks: int = 3, width: int = 12) -> nn.Module:
    """Returns a small ResNet on [n, 1, 14, 14]."""
    stem = [nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    body = [BasicBlock(width) for _ in range(blocks)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


class RowTransformer(nn.Module):
    """A Transformer encoder that reads a digit as 28 rows; pre- or post-LN."""

    def __init__(self, norm_first: bool, layers: int, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(28, width)
        self.position = nn.Parameter(torch.zeros(1, 28, width))
        # Not nn.TransformerEncoder: it copies one block, so that all layers would start with one draw.
        self.blocks = nn.Sequential(*[_encoder_block(norm_first, width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width) if norm_first else nn.Identity()
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.embed(x) + self.position)
        return self.head(self.norm(x).mean(1))


def _encoder_block(norm_first: bool, width: int, heads: int) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first
    )


class CharTransformer(nn.Module):
    """A small causal Transformer over characters; logits as [n, vocabulary, length]."""

    def __init__(self, vocabulary: int, length: int, layers: int = 2, width: int = 48, heads: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*[CausalBlock(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, codes: Tensor) -> Tensor:
        places = torch.arange(codes.shape[1], device=codes.device)
        x = self.blocks(self.tokens(codes) + self.positions(places))
        return self.head(self.norm(x)).transpose(1, 2)


class RowLSTM(nn.Module):
    """A two-layer LSTM that reads a digit row by row."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.lstm(x)
        return self.head(outputs[:, -1])


def sigmoid_autoencoder() -> nn.Module:
    """Returns the classical deep sigmoid autoencoder, 64 pixels through a code of 12."""
    sizes = [64, 96, 48, 24, 12, 24, 48, 96, 64]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.Sigmoid()]
    return nn.Sequential(*layers)


class Sine(nn.Module):
    """sin(omega x), SIREN's activation (Sitzmann et al. 2020, arXiv:2006.09661)."""

    def __init__(self, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega * x)


def siren(width: int = 64, hidden: int = 3) -> nn.Module:
    """Returns a SIREN with PyTorch's default draws, not the ones its authors publish with it."""
    layers: list[nn.Module] = [nn.Linear(2, width), Sine()]
    for _ in range(hidden):
        layers += [nn.Linear(width, width), Sine()]
    return nn.Sequential(*layers, nn.Linear(width, 3))


def tabular_mlp(features: int, outputs: int, width: int = 128, hidden: int = 3) -> nn.Module:
    """Returns a ReLU MLP for tables."""
    sizes = [features, *[width] * hidden]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class ResidualMLP(nn.Module):
    """Pre-LN residual blocks of two linear layers on 784 pixels."""

    def __init__(self, blocks: int = 6, width: int = 96) -> None:
        super().__init__()
        self.stem = nn.Linear(784, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x))


def tiny_gpt2(vocabulary: int, length: int, layers: int = 2, width: int = 48, heads: int = 4) -> nn.Module:
    """Returns a small GPT-2 of Hugging Face's with its own initialization."""
    from transformers import GPT2Config, GPT2LMHeadModel

    last = vocabulary - 1
    size = {"n_positions": length, "n_embd": width, "n_layer": layers, "n_head": heads}
    config = GPT2Config(
        vocab_size=vocabulary,
        bos_token_id=last,
        eos_token_id=last,
        loss_type="ForCausalLM",
        use_cache=False,
        **size,
    )
    model = GPT2LMHeadModel(config)
    model.loss_type = "ForCausalLM"  # as its checkpoints have it; without, transformers logs a notice
    return model


class BareResidualCNN(nn.Module):
    """A ResNet without normalization, 12 blocks of two convolutions."""

    def __init__(self, blocks: int = 12, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.first = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for first, second in zip(self.first, self.second, strict=True):
            x = F.relu(x + second(F.relu(first(x))))
        return self.head(x.mean((2, 3)))


class RowReluRNN(nn.Module):
    """A ReLU RNN that reads a digit row by row."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.rnn = nn.RNN(28, width, nonlinearity="relu", batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.rnn(x)
        return self.head(outputs[:, -1])


class SpikingMLP(nn.Module):
    """Four layers of leaky integrate-and-fire neurons on a constant current of pixels; membranes are read out."""

    def __init__(self, width: int = 96, steps: int = 12, beta: float = 0.9) -> None:
        super().__init__()
        import snntorch

        sizes = [784, width, width, width]
        self.steps = steps
        self.weights = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.neurons = nn.ModuleList(snntorch.Leaky(beta=beta) for _ in self.weights)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        membranes = [neuron.init_leaky() for neuron in self.neurons]
        total = x.new_zeros(len(x), 10)
        for _ in range(self.steps):
            signal = x
            for place, (weight, neuron) in enumerate(zip(self.weights, self.neurons, strict=True)):
                signal, membranes[place] = neuron(weight(signal), membranes[place])
            total = total + self.head(signal)
        return total / self.steps
