"""Models as libraries and their owners draw them, each with data that can be learned."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from studies import networks

VOCABULARY = 96
Fresh = tuple[nn.Module, Any]


def rows(count: int = 512, features: int = 16, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Rows whose class is the largest of their first features."""
    x = torch.randn(count, features)
    return x, x[:, :classes].argmax(1)


def images(count: int = 256, classes: int = 5, size: int = 16) -> tuple[Tensor, Tensor]:
    """Noise around one image per class."""
    labels = torch.randint(0, classes, (count,))
    return torch.randn(count, 3, size, size) + torch.randn(classes, 3, size, size)[labels], labels


def tokens(count: int = 64, length: int = 16) -> list[dict[str, Tensor]]:
    """Batches of a language model that computes its own loss."""
    codes = torch.randint(3, VOCABULARY, (count, length))
    return [{"input_ids": part, "labels": part} for part in codes.split(8)]


def gpt2() -> Fresh:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "n_positions": 16, "n_embd": 64, "n_layer": 4, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=1)), tokens()


def llama(layers: int = 3) -> Fresh:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64}
    config = LlamaConfig(**sizes, num_hidden_layers=layers, num_attention_heads=4, pad_token_id=0)
    return LlamaForCausalLM(config), tokens()


def bert(layers: int = 4) -> Fresh:
    from transformers import BertConfig, BertForMaskedLM

    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128}
    config = BertConfig(**sizes, num_hidden_layers=layers, num_attention_heads=4, max_position_embeddings=16)
    return BertForMaskedLM(config), tokens()


def vit() -> Fresh:
    from transformers import ViTConfig, ViTForImageClassification

    sizes: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = ViTConfig(**sizes, intermediate_size=128, image_size=16, patch_size=4, num_labels=5)
    x, y = images()
    batches = [{"pixel_values": a, "labels": b} for a, b in zip(x.split(32), y.split(32), strict=True)]
    return ViTForImageClassification(config), batches


class Translator(nn.Module):
    """torch.nn.Transformer between an embedding, whose first row is padding, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 32, padding_idx=0)
        self.body = nn.Transformer(32, 4, 3, 3, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(32, VOCABULARY)

    def forward(self, codes: Tensor) -> Tensor:
        return self.head(self.body(self.embed(codes), self.embed(codes)))


def transformer() -> Fresh:
    codes = torch.randint(1, VOCABULARY, (64, 12))
    return Translator(), (codes, codes)


class BasicBlock(nn.Module):
    """The block of a ResNet-18."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        stride = 1 if inner == outer else 2
        self.conv1, self.norm1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
        self.conv2, self.norm2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
        skip = [nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)]
        self.skip = nn.Identity() if inner == outer else nn.Sequential(*skip)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.skip(x) + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


def resnet() -> Fresh:
    widths = [16, 16, 16, 32, 32, 64]
    blocks = [BasicBlock(a, b) for a, b in itertools.pairwise(widths)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    model = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5))
    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    return model, images()


def char_gpt() -> Fresh:
    codes = torch.randint(0, VOCABULARY, (64, 16))
    return networks.CharGPT(VOCABULARY, 16, layers=4), (codes, codes)


class Modulated(nn.Module):
    """A block of a diffusion transformer: a layer of zeros makes the shift, scale and gate of its branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.modulation = zero(nn.Linear(width, 3 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(F.silu(condition)).chunk(3, -1)
        return x + gate * self.down(F.gelu(self.up(self.norm(x) * (1 + scale) + shift)))


class Diffusion(nn.Module):
    """Modulated blocks behind a head of zeros, as in every DiT."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem, self.time = nn.Linear(8, width), nn.Linear(1, width)
        self.blocks = nn.ModuleList(Modulated(width) for _ in range(3))
        self.head = zero(nn.Linear(width, 8))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x, condition = self.stem(x), self.time(time)
        for block in self.blocks:
            x = block(x, condition)
        return self.head(x)


def diffusion() -> Fresh:
    return Diffusion(), [(torch.randn(32, 8), torch.rand(32, 1), torch.randn(32, 8)) for _ in range(4)]


class Coupled(nn.Module):
    """Two coupling layers of a normalizing flow, whose last layers are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), zero(nn.Linear(32, 8)))
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        volume = x.new_zeros(len(x))
        for net in self.nets:
            left, right = x.chunk(2, 1)
            scale, shift = net(left).chunk(2, 1)
            x = torch.cat([right * scale.tanh().exp() + shift, left], 1)
            volume = volume + scale.tanh().sum(1)
        return (x.square().sum(1) / 2 - volume).mean()


def coupled() -> Fresh:
    return Coupled(), torch.randn(256, 8) * 2 + 1


def zero(layer: nn.Linear) -> nn.Linear:
    """Returns the layer with zeros in weight and bias."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


FRESH: dict[str, Callable[[], Fresh]] = {
    "gpt2": gpt2,
    "llama": llama,
    "llama, 12 layers": lambda: llama(12),
    "bert": bert,
    "bert, 2 layers": lambda: bert(2),
    "vit": vit,
    "nn.Transformer": transformer,
    "resnet": resnet,
    "char gpt": char_gpt,
    "mlp": lambda: (networks.mlp(16, 5), rows()),
    "mlp with norms": lambda: (networks.mlp(16, 5, norm="layer"), rows()),
    "residual mlp": lambda: (networks.ResidualMLP(16, 5), rows()),
    "cnn": lambda: (networks.cnn(3, 5, depth=4, norm="batch"), images()),
    "mixer": lambda: (networks.Mixer(3, 5, 16), images()),
}
"""Nothing is wrong with these."""

ZEROED: dict[str, Callable[[], Fresh]] = {"diffusion": diffusion, "coupling": coupled}
"""Nor with these, in which layers of zeros let no gradient pass in the first step."""
