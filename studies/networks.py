"""The networks of the studies, as their owners would write them: torch.nn and its default draws.

A study file names one as `networks:mlp`, with arguments. What a network has to know of its data (`features`,
`outputs` and the like) comes from the data entry of the file. Dropout is off everywhere.
"""

# ruff: noqa: D102  (a forward is described by its class)

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "selu": nn.SELU,
    "silu": nn.SiLU,
}
"""Activations by name."""

NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
"""Normalizations of rows by name."""

IMAGE_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda width: nn.GroupNorm(4, width),
}
"""Normalizations of images by name."""


def mlp(
    features: int, outputs: int, depth: int = 4, width: int = 64, activation: str = "relu", norm: str = "none"
) -> nn.Module:
    """Returns `depth` linear layers without skips.

    Args:
        features: columns of the input.
        outputs: of the last layer.
        depth: linear layers, the last among them.
        width: of hidden layers.
        activation: a key of `ACTIVATIONS`.
        norm: "none", or a key of `NORMS`; it stands before every activation.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([features, *[width] * (depth - 1)]):
        normed = [] if norm == "none" else [NORMS[norm](fan_out)]
        layers += [nn.Linear(fan_in, fan_out), *normed, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class ResidualMLP(nn.Module):
    """Residual blocks of two linear layers; pre-LN, or without normalization."""

    def __init__(self, features: int, outputs: int, blocks: int = 4, width: int = 48, norm: bool = True) -> None:
        super().__init__()
        self.stem = nn.Linear(features, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *([nn.LayerNorm(width)] if norm else []),
                nn.Linear(width, 2 * width),
                nn.GELU(),
                nn.Linear(2 * width, width),
            )
            for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x))


def cnn(
    channels: int, outputs: int, depth: int = 6, width: int = 12, activation: str = "relu", norm: str = "none"
) -> nn.Module:
    """Returns `depth` 3 x 3 convolutions and a linear head, without skips.

    Args:
        channels: of the image.
        outputs: of the head.
        depth: convolutions; the first halves the image.
        width: channels of each.
        activation: a key of `ACTIVATIONS`.
        norm: "none", or a key of `IMAGE_NORMS`; it stands before every activation.
    """
    layers: list[nn.Module] = []
    for place in range(depth):
        convolution = nn.Conv2d(width if place else channels, width, 3, stride=1 if place else 2, padding=1)
        normed = [] if norm == "none" else [IMAGE_NORMS[norm](width)]
        layers += [convolution, *normed, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, outputs))


class ResidualBlock(nn.Module):
    """The basic block of a ResNet: two convolutions and an identity skip; with BatchNorm or without."""

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=not norm)
        self.norm1 = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=not norm)
        self.norm2 = nn.BatchNorm2d(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(branch)))


def resnet(channels: int, outputs: int, blocks: int = 3, width: int = 12, norm: bool = True) -> nn.Module:
    """Returns a small ResNet.

    Args:
        channels: of the image.
        outputs: of the head.
        blocks: of two convolutions each.
        width: channels of each.
        norm: whether BatchNorm follows every convolution.
    """
    normed = [nn.BatchNorm2d(width)] if norm else []
    stem = [nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=not norm), *normed, nn.ReLU()]
    body = [ResidualBlock(width, norm) for _ in range(blocks)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs))


class SeriesCNN(nn.Module):
    """1-D convolutions along a series [n, steps, features]; with BatchNorm or without."""

    def __init__(self, features: int, outputs: int, depth: int = 4, width: int = 16, norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for place in range(depth):
            layers.append(nn.Conv1d(width if place else features, width, 5, stride=1 if place else 2, padding=2))
            layers += [nn.BatchNorm1d(width), nn.ReLU()] if norm else [nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.transpose(1, 2)).mean(2))


def _recurrent(cell: str, features: int, width: int, layers: int) -> nn.Module:
    if cell == "lstm":
        return nn.LSTM(features, width, num_layers=layers, batch_first=True)
    if cell == "gru":
        return nn.GRU(features, width, num_layers=layers, batch_first=True)
    return nn.RNN(features, width, num_layers=layers, nonlinearity=cell.removeprefix("rnn_"), batch_first=True)


class SeriesRNN(nn.Module):
    """A recurrent network that reads a series [n, steps, features] and answers at its end.

    The cell is "rnn_tanh", "rnn_relu", "gru" or "lstm".
    """

    def __init__(self, features: int, outputs: int, cell: str = "lstm", width: int = 32, layers: int = 1) -> None:
        super().__init__()
        self.cells = _recurrent(cell, features, width, layers)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cells(x)
        return self.head(states[:, -1])


class SeriesTransformer(nn.Module):
    """A Transformer encoder over a series [n, steps, features]; pre- or post-LN."""

    def __init__(
        self,
        features: int,
        outputs: int,
        steps: int,
        norm_first: bool = True,
        layers: int = 2,
        width: int = 24,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.position = nn.Parameter(torch.zeros(1, steps, width))
        # Not nn.TransformerEncoder: it copies one block, so that all layers would start with one draw.
        self.blocks = nn.Sequential(
            *[
                nn.TransformerEncoderLayer(
                    width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first
                )
                for _ in range(layers)
            ]
        )
        self.norm = nn.LayerNorm(width) if norm_first else nn.Identity()
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.embed(x) + self.position)
        return self.head(self.norm(x).mean(1))


class CausalBlock(nn.Module):
    """A pre-LN block with fused query, key and value, as in minGPT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(rows, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).reshape(rows, length, width))
        return x + self.mlp(self.norm2(x))


class CharGPT(nn.Module):
    """A small causal Transformer over characters; logits as [n, length, vocabulary]."""

    def __init__(self, vocabulary: int, length: int, layers: int = 2, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*[CausalBlock(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, codes: Tensor) -> Tensor:
        places = torch.arange(codes.shape[1], device=codes.device)
        return self.head(self.norm(self.blocks(self.tokens(codes) + self.positions(places))))


class CharRNN(nn.Module):
    """A recurrent character model; logits as [n, length, vocabulary]. The cells are those of `SeriesRNN`."""

    def __init__(self, vocabulary: int, length: int, cell: str = "lstm", width: int = 32, layers: int = 1) -> None:
        super().__init__()
        self.length = length
        self.tokens = nn.Embedding(vocabulary, width)
        self.cells = _recurrent(cell, width, width, layers)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, codes: Tensor) -> Tensor:
        states, _ = self.cells(self.tokens(codes))
        return self.head(states)


def gpt2(vocabulary: int, length: int, layers: int = 2, width: int = 32, heads: int = 4) -> nn.Module:
    """Returns Hugging Face's GPT-2, small, with its own initialization.

    Args:
        vocabulary: tokens.
        length: of a window.
        layers: blocks.
        width: of a token's vector.
        heads: of each attention.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    last = vocabulary - 1
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=length,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        bos_token_id=last,
        eos_token_id=last,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    return GPT2LMHeadModel(config)


def bert(vocabulary: int, length: int, layers: int = 2, width: int = 32, heads: int = 4) -> nn.Module:
    """Returns Hugging Face's BERT (post-LN) as a decoder, small, with its own initialization.

    Args:
        vocabulary: tokens.
        length: of a window.
        layers: blocks.
        width: of a token's vector.
        heads: of each attention.
    """
    from transformers import BertConfig, BertLMHeadModel

    config = BertConfig(
        vocab_size=vocabulary,
        max_position_embeddings=length,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        is_decoder=True,
        use_cache=False,
    )
    return BertLMHeadModel(config)


def vit(channels: int, outputs: int, size: int, patch: int = 2, layers: int = 2, width: int = 24) -> nn.Module:
    """Returns Hugging Face's ViT, small, with its own initialization.

    Args:
        channels: of the image.
        outputs: classes.
        size: pixels on a side.
        patch: pixels on a side of a patch.
        layers: blocks.
        width: of a patch's vector.
    """
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=size,
        patch_size=patch,
        num_channels=channels,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=outputs,
    )
    return ViTForImageClassification(config)


def x_transformer(
    vocabulary: int, length: int, layers: int = 2, width: int = 32, heads: int = 4, **options: bool
) -> nn.Module:
    """Returns a causal Transformer of x-transformers with rotary positions and RMSNorm.

    Args:
        vocabulary: tokens.
        length: of a window.
        layers: blocks.
        width: of a token's vector.
        heads: of each attention.
        **options: of its decoder, such as `ff_glu`, `sandwich_norm` or `pre_norm`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is loaded with torch.jit.script
        from x_transformers import Decoder, TransformerWrapper

    size = {"dim": width, "depth": layers, "heads": heads, "attn_dim_head": width // heads}
    body = Decoder(**size, rotary_pos_emb=True, use_rmsnorm=True, **options)
    return TransformerWrapper(num_tokens=vocabulary, max_seq_len=length, attn_layers=body)


class MixerBlock(nn.Module):
    """Mixes patches, then channels, each by two linear layers after LayerNorm."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.patches = nn.Sequential(nn.Linear(patches, 2 * width), nn.GELU(), nn.Linear(2 * width, patches))
        self.channels = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.patches(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """An MLP-Mixer on square patches (Tolstikhin et al. 2021, arXiv:2105.01601)."""

    def __init__(
        self, channels: int, outputs: int, size: int, patch: int = 2, layers: int = 2, width: int = 24
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.blocks = nn.Sequential(*[MixerBlock((size // patch) ** 2, width) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.embed(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(1))


def autoencoder(
    features: int, code: int = 12, activation: str = "relu", norm: str = "none", wider: int = 1
) -> nn.Module:
    """Returns an autoencoder of eight linear layers through a small code.

    Args:
        features: columns that are to be given back.
        code: width of the narrowest layer.
        activation: a key of `ACTIVATIONS`; none follows the last layer.
        norm: "none", or a key of `NORMS`.
        wider: so many times as wide between the input and the code.
    """
    layers: list[nn.Module] = []
    sizes = [features, 96 * wider, 48 * wider, 24 * wider, code, 24 * wider, 48 * wider, 96 * wider]
    for fan_in, fan_out in pairwise(sizes):
        normed = [] if norm == "none" else [NORMS[norm](fan_out)]
        layers += [nn.Linear(fan_in, fan_out), *normed, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], features))


class Sine(nn.Module):
    """sin(omega x), SIREN's activation (Sitzmann et al. 2020, arXiv:2006.09661)."""

    def __init__(self, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega * x)


def siren(features: int, outputs: int, depth: int = 5, width: int = 64, omega: float = 30.0) -> nn.Module:
    """Returns a SIREN with PyTorch's default draws, not the ones its authors publish with it.

    Args:
        features: coordinates.
        outputs: values at a place.
        depth: linear layers, the last among them.
        width: of hidden layers.
        omega: frequency of the sines.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([features, *[width] * (depth - 1)]):
        layers += [nn.Linear(fan_in, fan_out), Sine(omega)]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class SpikingMLP(nn.Module):
    """Leaky integrate-and-fire neurons on a constant current of features; membranes are read out."""

    def __init__(
        self, features: int, outputs: int, depth: int = 3, width: int = 48, steps: int = 8, beta: float = 0.9
    ) -> None:
        super().__init__()
        import snntorch

        sizes = [features, *[width] * (depth - 1)]
        self.outputs = outputs
        self.steps = steps
        self.weights = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.neurons = nn.ModuleList(snntorch.Leaky(beta=beta) for _ in self.weights)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        membranes = [neuron.init_leaky() for neuron in self.neurons]
        total = x.new_zeros(len(x), self.outputs)
        for _ in range(self.steps):
            signal = x
            for place, (weight, neuron) in enumerate(zip(self.weights, self.neurons, strict=True)):
                signal, membranes[place] = neuron(weight(signal), membranes[place])
            total = total + self.head(signal)
        return total / self.steps
