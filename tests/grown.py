"""Pairs of a small and a large network of each architecture, and what a growth makes of them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit
from autoinit.graph import Graph
from autoinit.growth.growth import growth
from autoinit.inheritance.given import Given

TOKENS = 40
CLASSES = 3


class Pair(NamedTuple):
    """A trained network, one to be filled from it, inputs that both take, and what a step shows of both."""

    source: nn.Module
    model: nn.Module
    inputs: Any
    graph: Graph
    source_graph: Graph


Maker = Callable[[], Pair]


def shaken(model: nn.Module, seed: int, *inputs: Tensor) -> nn.Module:
    """Returns a network that no symmetry of its initialization is left in, with statistics of its own, to evaluate."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn(parameter.shape, generator=generator)
        if inputs:
            model.train()(*inputs)
    return model.eval()


def batch(inputs: Any) -> Any:
    """Returns inputs with labels."""
    if isinstance(inputs, Tensor):
        return inputs, torch.arange(len(inputs)) % CLASSES
    if "input_ids" in inputs:
        return {**inputs, "labels": inputs["input_ids"]}
    return {**inputs, "labels": torch.arange(len(inputs["pixel_values"])) % CLASSES}


def paired(source: nn.Module, model: nn.Module, inputs: Any) -> Pair:
    """Returns a pair, traced."""
    return Pair(source, model, inputs, *(autoinit.trace(one, batch(inputs)) for one in (model, source)))


@functools.cache
def _made(name: str) -> Pair:
    return PAIRS[name]()


def fresh(name: str) -> Pair:
    """Returns a pair whose model nobody has filled yet."""
    made = _made(name)
    return made._replace(model=copy.deepcopy(made.model))


def outputs(model: nn.Module, inputs: Any) -> Tensor:
    """Returns what a network says, in evaluation mode."""
    training = model.training
    model.eval()
    with torch.no_grad():
        found = model(inputs) if isinstance(inputs, Tensor) else model(**inputs).logits
    model.train(training)
    return found


def apart(pair: Pair) -> float:
    """Returns the largest difference of the outputs, relative to how far they differ from row to row."""
    one, other = outputs(pair.source, pair.inputs), outputs(pair.model, pair.inputs)
    spread = (one - one.mean(0)).abs().max()
    assert spread > 1e-3, "the source says the same of everything, so that nothing is compared"
    return float((one - other).abs().max() / spread)


def set_values(model: nn.Module, given: Given) -> None:
    """Sets what was given."""
    state = model.state_dict()
    for name, value in given.values.items():
        assert (value.shape, value.dtype) == (state[name].shape, state[name].dtype), name
        state[name].copy_(value)


def grow(pair: Pair, method: str, **options: Any) -> Given:
    """Fills the model of a pair and returns what it got."""
    given = growth(
        pair.model, pair.source, method, pair.graph, **{"source_graph": pair.source_graph, "seed": 3, **options}
    )
    set_values(pair.model, given)
    return given


def mlp(width: int, activation: type[nn.Module] = nn.ReLU, layers: int = 1) -> nn.Module:
    inner = [part for _ in range(layers) for part in (nn.Linear(width, width), activation())]
    return nn.Sequential(nn.Linear(5, width), activation(), *inner, nn.Linear(width, CLASSES))


def cnn(width: int, layers: int = 0) -> nn.Module:
    """With BatchNorm, a flattened picture and two linear layers; `layers` more convolutions at the first width."""
    inner = [
        part
        for _ in range(layers)
        for part in (nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
    ]
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        *inner,
        *(nn.Conv2d(width, 2 * width, 3, padding=1, stride=2), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(32 * width, 4 * width), nn.BatchNorm1d(4 * width), nn.ReLU(), nn.Linear(4 * width, CLASSES)),
    )


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class ResNet(nn.Module):
    def __init__(self, width: int, blocks: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.layers = nn.ModuleList(Block(width) for _ in range(blocks))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean((2, 3)))


def group_norms(width: int, groups: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3), nn.GroupNorm(groups, width), nn.ReLU()),
        *(nn.Conv2d(width, width, 3), nn.GroupNorm(groups, width), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * width, CLASSES)),
    )


def depthwise(width: int) -> nn.Module:
    """Separable convolutions, one of them with two outputs for each channel."""
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, groups=width)),
        *(nn.Conv2d(width, 2 * width, 1), nn.ReLU(), nn.Conv2d(2 * width, 4 * width, 3, groups=2 * width)),
        *(nn.Flatten(), nn.Linear(16 * width, CLASSES)),
    )


def grouped(width: int, groups: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 3, groups=groups), nn.BatchNorm2d(2 * width), nn.ReLU()),
        *(nn.Conv2d(2 * width, width, 1), nn.Flatten(), nn.Linear(16 * width, CLASSES)),
    )


class Joined(nn.Module):
    """Two streams of different widths, one behind the other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 2 * width, 3, padding=1)
        self.both, self.head = nn.Conv2d(3 * width, width, 3), nn.Linear(36 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        one = F.relu(self.one(x))
        return self.head(F.relu(self.both(torch.cat([one, F.relu(self.two(one))], 1))).flatten(1))


class Encoder(nn.Module):
    def __init__(self, width: int, heads: int, layers: int = 2, *, norm_first: bool = True, flat: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, batch_first=True, norm_first=norm_first, dropout=0.0
        )
        self.first, self.flat = nn.Linear(5, width), flat
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(6 * width if flat else width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(self.first(x))
        return self.head(x.flatten(1) if self.flat else x.mean(1))


class Recurrent(nn.Module):
    def __init__(self, width: int, kind: type[nn.RNNBase] = nn.LSTM, layers: int = 2, *, both: bool = False) -> None:
        super().__init__()
        self.cell = kind(5, width, layers, batch_first=True, bidirectional=both)
        self.head = nn.Linear(2 * width if both else width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


_ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def gpt2(width: int, heads: int, layers: int = 2) -> nn.Module:
    sizes = {"n_embd": width, "n_head": heads, "n_layer": layers, "n_positions": 16}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=TOKENS, **sizes, **_ENDS))


def _sizes(width: int, heads: int, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": TOKENS,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


def llama(width: int, heads: int, shared: int, layers: int = 2, **options: Any) -> nn.Module:
    config = transformers.LlamaConfig(**_sizes(width, heads, layers), num_key_value_heads=shared, **options)
    return transformers.LlamaForCausalLM(config)


def qwen3(width: int, heads: int, shared: int, layers: int = 2) -> nn.Module:
    options = {"num_key_value_heads": shared, "head_dim": 4}
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**_sizes(width, heads, layers), **options))


def phi3(width: int, heads: int, shared: int, layers: int = 2) -> nn.Module:
    sizes = _sizes(width, heads, layers)
    return transformers.Phi3ForCausalLM(transformers.Phi3Config(**sizes, num_key_value_heads=shared, **_ENDS))


def neox(width: int, heads: int, layers: int = 2) -> nn.Module:
    return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**_sizes(width, heads, layers), **_ENDS))


def gemma2(width: int, heads: int, shared: int, layers: int = 2) -> nn.Module:
    options = {"num_key_value_heads": shared, "head_dim": 4, "query_pre_attn_scalar": 4}
    config = transformers.Gemma2Config(**_sizes(width, heads, layers), **options, **_ENDS)
    return transformers.Gemma2ForCausalLM(config)


def bert(width: int, heads: int, layers: int = 2) -> nn.Module:
    config = transformers.BertConfig(**_sizes(width, heads, layers), max_position_embeddings=16)
    return transformers.BertForMaskedLM(config)


def vit(width: int, heads: int, layers: int = 2) -> nn.Module:
    sizes = {key: value for key, value in _sizes(width, heads, layers).items() if key != "vocab_size"}
    config = transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_channels=1, num_labels=CLASSES)
    return transformers.ViTForImageClassification(config)


def swin(width: int, heads: int) -> nn.Module:
    config = transformers.SwinConfig(
        image_size=16, patch_size=2, num_channels=1, embed_dim=width, depths=[1, 1], num_heads=[heads, 2 * heads],
        window_size=4, num_labels=CLASSES,
    )  # fmt: skip
    return transformers.SwinForImageClassification(config)


def mamba(width: int, layers: int = 2) -> nn.Module:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "state_size": 4, "time_step_rank": 4}
    return transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=TOKENS, **sizes, **_ENDS))


def _drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def _of(small: Callable[[], nn.Module], large: Callable[[], nn.Module], inputs: Any) -> Maker:
    """Returns what makes a pair whose source is shaken, and whose model has other weights and other statistics."""

    def make() -> Pair:
        plain = (inputs,) if isinstance(inputs, Tensor) else ()
        return paired(shaken(small(), 1, *plain), shaken(large(), 2, *plain), inputs)

    return make


ROWS, PICTURES, SERIES = _drawn(6, 5), _drawn(6, 1, 8, 8), _drawn(6, 6, 5)
WORDS = {"input_ids": torch.randint(1, TOKENS, (3, 8), generator=torch.Generator().manual_seed(5))}
SMALL_PIXELS, PIXELS = {"pixel_values": PICTURES}, {"pixel_values": _drawn(4, 1, 16, 16)}

PAIRS: dict[str, Maker] = {
    "mlp, relu": _of(lambda: mlp(8), lambda: mlp(16), ROWS),
    "mlp, gelu": _of(lambda: mlp(8, nn.GELU), lambda: mlp(24, nn.GELU), ROWS),
    "mlp, no multiple": _of(lambda: mlp(8), lambda: mlp(20), ROWS),
    "mlp, deeper": _of(lambda: mlp(8), lambda: mlp(16, layers=3), ROWS),
    "cnn": _of(lambda: cnn(4), lambda: cnn(8), PICTURES),
    "cnn, deeper": _of(lambda: cnn(4, 1), lambda: cnn(8, 3), PICTURES),
    "resnet": _of(lambda: ResNet(6), lambda: ResNet(12), PICTURES),
    "resnet, deeper": _of(lambda: ResNet(6), lambda: ResNet(12, 4), PICTURES),
    "group norm, larger groups": _of(lambda: group_norms(4, 2), lambda: group_norms(8, 2), PICTURES),
    "group norm, more groups": _of(lambda: group_norms(4, 2), lambda: group_norms(8, 4), PICTURES),
    "depthwise": _of(lambda: depthwise(4), lambda: depthwise(8), PICTURES),
    "larger groups": _of(lambda: grouped(4, 2), lambda: grouped(8, 2), PICTURES),
    "more groups": _of(lambda: grouped(4, 2), lambda: grouped(8, 4), PICTURES),
    "joined": _of(lambda: Joined(4), lambda: Joined(8), PICTURES),
    "gpt2": _of(lambda: gpt2(16, 2), lambda: gpt2(32, 4), WORDS),
    "gpt2, larger heads": _of(lambda: gpt2(16, 2), lambda: gpt2(32, 2), WORDS),
    "gpt2, deeper": _of(lambda: gpt2(16, 2), lambda: gpt2(32, 4, 4), WORDS),
    "gpt2, no multiple": _of(lambda: gpt2(16, 2), lambda: gpt2(24, 3), WORDS),
    "llama": _of(lambda: llama(16, 4, 2), lambda: llama(32, 8, 4), WORDS),
    "llama, more queries": _of(lambda: llama(16, 4, 2), lambda: llama(32, 8, 2), WORDS),
    "llama, keys for each query": _of(lambda: llama(16, 4, 2), lambda: llama(32, 8, 8), WORDS),
    "llama, larger heads": _of(lambda: llama(16, 4, 2), lambda: llama(32, 4, 2), WORDS),
    "llama, deeper": _of(lambda: llama(16, 4, 2), lambda: llama(32, 8, 4, 4), WORDS),
    "llama, tied": _of(
        lambda: llama(16, 4, 2, tie_word_embeddings=True), lambda: llama(32, 8, 4, 3, tie_word_embeddings=True), WORDS
    ),
    "qwen3": _of(lambda: qwen3(16, 4, 2), lambda: qwen3(32, 8, 4), WORDS),
    "phi3": _of(lambda: phi3(16, 4, 2), lambda: phi3(32, 8, 4), WORDS),
    "neox": _of(lambda: neox(16, 2), lambda: neox(32, 4), WORDS),
    "gemma2": _of(lambda: gemma2(16, 4, 2), lambda: gemma2(32, 8, 4, 4), WORDS),
    "bert": _of(lambda: bert(16, 2), lambda: bert(32, 4), WORDS),
    "bert, deeper": _of(lambda: bert(16, 2), lambda: bert(32, 4, 3), WORDS),
    "vit": _of(lambda: vit(16, 2), lambda: vit(32, 4), SMALL_PIXELS),
    "vit, deeper": _of(lambda: vit(16, 2), lambda: vit(32, 4, 4), SMALL_PIXELS),
    "swin": _of(lambda: swin(8, 2), lambda: swin(16, 4), PIXELS),
    "mamba": _of(lambda: mamba(16), lambda: mamba(32, 4), WORDS),
    "encoder, pre-norm": _of(lambda: Encoder(16, 2), lambda: Encoder(32, 4, 4), SERIES),
    "encoder, post-norm": _of(
        lambda: Encoder(16, 2, norm_first=False), lambda: Encoder(32, 4, norm_first=False), SERIES
    ),
    "encoder, larger heads": _of(lambda: Encoder(16, 2), lambda: Encoder(32, 2), SERIES),
    "encoder, flattened": _of(lambda: Encoder(16, 2, flat=True), lambda: Encoder(32, 4, flat=True), SERIES),
    "lstm": _of(lambda: Recurrent(8), lambda: Recurrent(16), SERIES),
    "lstm, both ways": _of(lambda: Recurrent(8, both=True), lambda: Recurrent(16, both=True), SERIES),
    "lstm, deeper": _of(lambda: Recurrent(8), lambda: Recurrent(16, layers=3), SERIES),
    "gru": _of(lambda: Recurrent(8, nn.GRU), lambda: Recurrent(16, nn.GRU), SERIES),
}  # fmt: skip
"""What makes a fresh pair, by its name."""
