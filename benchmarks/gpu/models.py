"""The models that the device trains: nine small ones of as many kinds, and two large ones, with data and optimizer."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studies.networks import SeriesRNN
from studies.real_data import VOCABULARY, digits_images, digits_rows, digits_sequences, digits_to_themselves, prose

from ..common.models import BasicBlock, plain_cnn, sigmoid_autoencoder
from ..common.tasks import adam, adamw, sgd

Size = dict[str, Any]
Rows = tuple[Tensor, Tensor]
OptimizerFactory = Callable[[Any], torch.optim.Optimizer]


def tanh_mlp(depth: int, width: int) -> nn.Module:
    """Returns a plain tanh MLP on 64 pixels."""
    layers: list[nn.Module] = [nn.Linear(64, width), nn.Tanh()]
    for _ in range(depth - 2):
        layers += [nn.Linear(width, width), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


class ViT(nn.Module):
    """A Vision Transformer on [n, 1, 16, 16], with dropout."""

    def __init__(self, layers: int, width: int, heads: int = 4, patch: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, stride=patch)
        self.places = nn.Parameter(0.02 * torch.randn(1, (16 // patch) ** 2, width))
        # Not nn.TransformerEncoder: it copies one block, so that all layers would start with one draw.
        self.blocks = nn.Sequential(
            *[
                nn.TransformerEncoderLayer(
                    width, heads, 4 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
                )
                for _ in range(layers)
            ]
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(x)).mean(1))


def resnet(blocks: int, width: int) -> nn.Module:
    """Returns a small ResNet with BatchNorm on [n, 1, 16, 16]."""
    stem = [nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    body = [BasicBlock(width) for _ in range(blocks)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


class ConvNeXtBlock(nn.Module):
    """A 7 × 7 depthwise convolution, LayerNorm, two pointwise layers, a small learned scale (Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


def convnext(depths: tuple[int, ...], width: int) -> nn.Module:
    """Returns a ConvNeXt on [n, 1, 16, 16]: stages of blocks, each twice as wide as the one before."""
    parts: list[nn.Module] = [nn.Conv2d(1, width, 2, stride=2)]
    for stage, depth in enumerate(depths):
        wide = width * 2**stage
        parts += [nn.Conv2d(wide // 2, wide, 2, stride=2)] if stage else []
        parts += [ConvNeXtBlock(wide) for _ in range(depth)]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(wide), nn.Linear(wide, 10))


def gpt2(layers: int, width: int, heads: int, length: int) -> nn.Module:
    """Returns transformers' GPT-2 over the prose's characters, with its own initialization, without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    size = {"n_positions": length, "n_embd": width, "n_layer": layers, "n_head": heads}
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": False}
    last = {"bos_token_id": VOCABULARY - 1, "eos_token_id": VOCABULARY - 1}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, loss_type="ForCausalLM", **size, **still, **last))
    model.loss_type = "ForCausalLM"  # as its checkpoints have it; without, transformers logs a notice
    return model


class Bottleneck(nn.Module):
    """The block of ResNet-50 (He et al. 2016): 1 × 1, 3 × 3, 1 × 1, a skip that is projected where shapes differ."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.branch = nn.Sequential(
            nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, after, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.skip = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.skip(x) + self.branch(x))


def resnet50(depths: tuple[int, ...], width: int) -> nn.Module:
    """Returns a ResNet of bottlenecks for ten classes: with (3, 4, 6, 3) and 64 it is ResNet-50."""
    parts: list[nn.Module] = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    parts.append(nn.MaxPool2d(3, 2, 1))
    before = width
    for stage, depth in enumerate(depths):
        inner = width * 2**stage
        for place in range(depth):
            parts.append(Bottleneck(before, inner, 2 if stage and not place else 1))
            before = 4 * inner
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def images(side: int, channels: int = 1) -> Rows:
    """Returns the digits as [n, channels, side, side]."""
    split = digits_images()
    x = F.interpolate(split.train_x, size=(side, side), mode="bilinear", align_corners=False)
    return x.expand(-1, channels, -1, -1).contiguous(), split.train_y


def pixels() -> Rows:
    """Returns the digits as [n, 64]."""
    split = digits_rows()
    return split.train_x, split.train_y


def series() -> Rows:
    """Returns the digits as 8 steps of 8 pixels."""
    split = digits_sequences()
    return split.train_x, split.train_y


def themselves() -> Rows:
    """Returns the digits as [n, 64], each its own target."""
    split = digits_to_themselves()
    return split.train_x, split.train_y


def characters(length: int) -> Rows:
    """Returns windows of the prose, [n, length], each its own label: a language model shifts them itself."""
    x = prose(length).train_x
    return x, x


def clipped(model: nn.Module, batch: Rows) -> Tensor:
    """Calls backward, and clips the gradients' norm, as many training loops do."""
    loss = F.cross_entropy(model(batch[0]), batch[1])
    if torch.is_grad_enabled():
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return loss.detach()


@dataclass(frozen=True)
class Spec:
    """Something to train.

    Attributes:
        name: for the tables.
        build: makes the model of a size.
        size: of it.
        small: the size for a look at whether everything runs.
        load: gives inputs and targets, or inputs twice for a language model.
        optimizer: makes the optimizer.
        rows: of a batch.
        loss: of output and target; None for a language model, which has its own.
        step: in the place of the loss, where it calls backward itself.
        options: further arguments of `select`.
    """

    name: str
    build: Callable[..., nn.Module]
    size: Size
    small: Size
    load: Callable[[], Rows]
    optimizer: OptimizerFactory
    rows: int = 64
    loss: Callable[[Any, Any], Tensor] | None = F.cross_entropy
    step: Callable[[nn.Module, Any], Tensor] | None = None
    options: dict[str, Any] = field(default_factory=dict)


rmsprop = functools.partial(torch.optim.RMSprop, lr=1e-3)

SMALL = (
    Spec(
        "MLP, 30 tanh layers, SGD", tanh_mlp, {"depth": 30, "width": 128}, {"depth": 4, "width": 16}, pixels, sgd(0.01)
    ),
    Spec(
        "CNN, 12 convolutions, SGD", plain_cnn, {"depth": 12, "width": 32}, {"depth": 3, "width": 4},
        functools.partial(images, 16), sgd(0.01),
    ),
    Spec(
        "ViT, 6 blocks, dropout, AdamW", ViT, {"layers": 6, "width": 96}, {"layers": 1, "width": 16},
        functools.partial(images, 16), adamw(1e-3),
    ),
    Spec(
        "ResNet, BatchNorm, SGD", resnet, {"blocks": 6, "width": 32}, {"blocks": 1, "width": 4},
        functools.partial(images, 16), sgd(0.05),
    ),
    Spec(
        "LSTM, 2 layers, AdamW", SeriesRNN, {"features": 8, "outputs": 10, "width": 64, "layers": 2},
        {"features": 8, "outputs": 10, "width": 8}, series, adamw(3e-3),
    ),
    Spec(
        "GPT-2, 6 layers, AdamW", gpt2, {"layers": 6, "width": 96, "heads": 4, "length": 64},
        {"layers": 1, "width": 16, "heads": 2, "length": 16}, functools.partial(characters, 64), adamw(1e-3), 16, None,
    ),
    Spec(
        "ConvNeXt, 12 blocks, AdamW", convnext, {"depths": (3, 6, 3), "width": 32}, {"depths": (1, 1), "width": 4},
        functools.partial(images, 16), adamw(1e-3),
    ),
    Spec("autoencoder, sigmoid, RMSprop", sigmoid_autoencoder, {}, {}, themselves, rmsprop, loss=F.mse_loss),
    Spec(
        "ResNet, clipped gradients, Adam", resnet, {"blocks": 3, "width": 16}, {"blocks": 1, "width": 4},
        functools.partial(images, 16), adam(1e-3), loss=None, step=clipped,
    ),
)  # fmt: skip

GPT2 = Spec(
    "GPT-2, bf16", gpt2, {"layers": 12, "width": 768, "heads": 12, "length": 512},
    {"layers": 1, "width": 16, "heads": 2, "length": 16}, functools.partial(characters, 512), adamw(3e-4), 16, None,
    options={"autocast": torch.bfloat16},
)  # fmt: skip
RESNET50 = Spec(
    "ResNet-50, SGD", resnet50, {"depths": (3, 4, 6, 3), "width": 64}, {"depths": (1, 1), "width": 4},
    functools.partial(images, 96, 3), sgd(0.05),
)  # fmt: skip


SMALL_ROWS, SMALL_BATCHES = 8, 40
"""Where only whether everything runs is asked."""


class Subject:
    """What is trained, on its device: the model as its owner's code draws it, and one pass of batches.

    Attributes:
        spec: what it is made from.
        model: on the device.
        batches: there too.
    """

    def __init__(self, spec: Spec, device: torch.device, *, small: bool) -> None:
        self.spec = spec
        size = spec.small if small else spec.size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = spec.build(**size).to(device)
        x, y = (part.to(device) for part in _shortened(spec.load(), size))
        rows = SMALL_ROWS if small else spec.rows
        most = SMALL_BATCHES if small else None
        pairs = zip(x.split(rows)[:-1][:most], y.split(rows)[:-1][:most], strict=True)
        self.batches: list[Any] = [{"input_ids": x, "labels": x} if self.own_loss else (x, y) for x, y in pairs]

    @property
    def own_loss(self) -> bool:
        """Whether the model returns its loss itself."""
        return self.spec.loss is None and self.spec.step is None

    @property
    def options(self) -> dict[str, Any]:
        """The arguments by which the library is told how this is trained."""
        given = {"loss": self.spec.loss, "step": self.spec.step, **self.spec.options}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def weights(self) -> int:
        """The number of them."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def copied(self) -> nn.Module:
        """Returns another instance of the model, with the same weights."""
        made = copy.deepcopy(self.model)
        for module in made.modules():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()  # copies lie apart, and cuDNN would gather them at every step
        return made

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Returns what computes in the precision that this is trained in."""
        dtype = self.spec.options.get("autocast")
        kind = next(self.model.parameters()).device.type
        return torch.autocast(kind, dtype=dtype) if dtype else contextlib.nullcontext()

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Returns the loss of a batch, without a backward pass."""
        with self.precision():
            if self.own_loss:
                return model(**batch).loss
            x, y = batch
            return (self.spec.loss or F.cross_entropy)(model(x), y)

    def train(self, model: nn.Module, steps: int) -> None:
        """Trains in a loop as anyone writes it, without reading a loss."""
        optimizer = self.spec.optimizer(model.parameters())
        for step in range(steps):
            batch = self.batches[step % len(self.batches)]
            optimizer.zero_grad()
            if self.spec.step is not None:
                self.spec.step(model, batch)
            else:
                self.loss(model, batch).backward()
            optimizer.step()

    @contextlib.contextmanager
    def bench(self) -> Iterator[Any]:
        """Yields the library's bench of this training; the model is put back."""
        from autoinit.probing.bench import Bench
        from autoinit.task.task import make_task
        from autoinit.tracing.tracing import trace_task

        task = make_task(self.model, self.batches, optimizer=self.spec.optimizer, **self.options)
        graph = trace_task(task)
        with task.preserved() as snapshot:
            yield Bench(task, graph, snapshot, 0)


def _shortened(rows: Rows, size: Size) -> Rows:
    """Returns rows as long as a language model of a size takes them."""
    if "length" not in size:
        return rows
    return rows[0][:, : size["length"]].contiguous(), rows[1][:, : size["length"]].contiguous()
