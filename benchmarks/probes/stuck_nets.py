"""The nets of the benchmark of stuck ones: usual shapes under usual draws, each with the optimizer it is trained by.

Two tables: thresholds are chosen from the nets of the first, and judged on those of the second. No family is in both:
plain MLPs have other activations, plain CNNs another pattern, and cells and kinds of block differ; ReLU itself and some
data sets are on both sides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn

from studies import networks, real_data

from ..common.tasks import BenchTask, OptimizerFactory, adam, adamw, sgd
from .stuck_parts import (
    Build,
    as_made,
    cnn,
    half,
    he,
    he_large,
    lecun,
    lenet,
    mlp,
    normal_002,
    orthogonal,
    pooled,
    tenth,
    xavier,
    xavier_sigmoid,
)

STEPS = 200


@dataclass(frozen=True)
class Kind:
    """Nets of one family on one data set.

    Attributes:
        name: of the family and the data, the first word of its nets' names.
        load: returns the rows.
        loss: of output and target; None where the model returns its own.
        nets: (shape in words, what makes it, draw, optimizer, its name).
    """

    name: str
    load: Callable[[], real_data.Split]
    loss: Callable[..., object] | None
    nets: tuple[tuple[str, Build, Callable[[nn.Module], None], str], ...]


OPTIMIZERS: dict[str, OptimizerFactory] = {
    "SGD 0.01": sgd(0.01),
    "SGD 0.05": sgd(0.05),
    "Adam 0.001": adam(1e-3),
    "AdamW 0.0003": adamw(3e-4),
    "AdamW 0.001": adamw(1e-3),
}
"""By name; SGD has momentum 0.9."""
SGD_1, SGD_5, ADAM, ADAMW_3, ADAMW = OPTIMIZERS


def _classes(
    load: Callable[[], real_data.Split], name: str, *nets: tuple[str, Build, Callable[[nn.Module], None], str]
) -> Kind:
    return Kind(name, load, F.cross_entropy, nets)


def _characters(logits, target):  # type: ignore[no-untyped-def]
    return F.cross_entropy(logits.flatten(0, -2), target.flatten())


prose = functools.partial(real_data.prose, real_data.LENGTH)
source_code = functools.partial(real_data.source_code, real_data.LENGTH)
V, L = real_data.VOCABULARY, real_data.LENGTH

P = functools.partial

CHOSEN_ON: tuple[Kind, ...] = (
    _classes(
        real_data.small_mnist_rows,
        "relu mlp",
        ("3", mlp(196, 10, 3), as_made, SGD_5),
        ("6", mlp(196, 10, 6), as_made, SGD_5),
        ("8", mlp(196, 10, 8), as_made, SGD_5),
        ("10", mlp(196, 10, 10), as_made, SGD_5),
        ("7", mlp(196, 10, 7), as_made, SGD_5),
        ("9", mlp(196, 10, 9), as_made, SGD_5),
        ("16", mlp(196, 10, 16), as_made, SGD_5),
        ("6 wide 256", mlp(196, 10, 6, width=256), as_made, SGD_5),
        ("10 wide 256", mlp(196, 10, 10, width=256), as_made, SGD_5),
        ("3", mlp(196, 10, 3), normal_002, SGD_5),
        ("4", mlp(196, 10, 4), normal_002, SGD_5),
        ("5", mlp(196, 10, 5), normal_002, SGD_5),
        ("6", mlp(196, 10, 6), normal_002, SGD_5),
        ("10", mlp(196, 10, 10), normal_002, ADAM),
        ("4", mlp(196, 10, 4), half, SGD_5),
        ("5", mlp(196, 10, 5), half, SGD_5),
        ("10", mlp(196, 10, 10), he, SGD_5),
        ("20", mlp(196, 10, 20), he, SGD_1),
        ("6", mlp(196, 10, 6), he_large, SGD_1),
        ("10", mlp(196, 10, 10), lecun, SGD_5),
        ("10", mlp(196, 10, 10), orthogonal, SGD_5),
        ("6", mlp(196, 10, 6), as_made, ADAM),
        ("10", mlp(196, 10, 10), as_made, ADAM),
        ("16", mlp(196, 10, 16), as_made, ADAM),
        ("22", mlp(196, 10, 22), as_made, ADAM),
        ("30", mlp(196, 10, 30), as_made, ADAM),
        ("5", mlp(196, 10, 5), normal_002, ADAM),
        ("8", mlp(196, 10, 8), tenth, ADAM),
        ("16", mlp(196, 10, 16), he, ADAM),
        ("10 LayerNorm", mlp(196, 10, 10, norm="layer"), as_made, SGD_5),
        ("10 BatchNorm", mlp(196, 10, 10, norm="batch"), as_made, SGD_5),
    ),
    _classes(
        real_data.digits_rows,
        "tanh mlp",
        ("4", mlp(64, 10, 4, "tanh"), as_made, SGD_5),
        ("8", mlp(64, 10, 8, "tanh"), as_made, SGD_5),
        ("12", mlp(64, 10, 12, "tanh"), as_made, SGD_5),
        ("14", mlp(64, 10, 14, "tanh"), as_made, SGD_5),
        ("20", mlp(64, 10, 20, "tanh"), as_made, SGD_5),
        ("16", mlp(64, 10, 16, "tanh"), orthogonal, SGD_5),
        ("16", mlp(64, 10, 16, "tanh"), xavier, SGD_5),
        ("6", mlp(64, 10, 6, "tanh"), normal_002, SGD_5),
        ("5", mlp(64, 10, 5, "tanh"), tenth, SGD_5),
        ("16", mlp(64, 10, 16, "tanh"), as_made, ADAM),
        ("40", mlp(64, 10, 40, "tanh"), as_made, ADAM),
    ),
    _classes(
        real_data.mnist_images,
        "relu cnn",
        ("3", cnn(3), as_made, SGD_5),
        ("4", cnn(4), as_made, SGD_5),
        ("5", cnn(5), as_made, SGD_5),
        ("6", cnn(6), as_made, SGD_5),
        ("8", cnn(8), as_made, SGD_5),
        ("6", cnn(6), he, SGD_5),
        ("10", cnn(10), he, SGD_5),
        ("6 BatchNorm", cnn(6, norm="batch"), as_made, SGD_5),
        ("10 GroupNorm", cnn(10, norm="group"), as_made, SGD_5),
        ("6", cnn(6), as_made, ADAM),
        ("10", cnn(10), as_made, ADAM),
        ("4", cnn(4), normal_002, SGD_5),
        ("6", cnn(6), orthogonal, SGD_5),
    ),
    _classes(
        real_data.mnist_images,
        "resnet",
        ("3 blocks", P(networks.resnet, 1, 10, 3), as_made, SGD_5),
        ("3 blocks, no norm", P(networks.resnet, 1, 10, 3, norm=False), as_made, SGD_5),
        ("8 blocks, no norm", P(networks.resnet, 1, 10, 8, norm=False), as_made, SGD_5),
    ),
    _classes(
        real_data.small_mnist_sequences,
        "lstm",
        ("1 layer", P(networks.SeriesRNN, 14, 10, "lstm", 32, 1), as_made, ADAM),
        ("2 layers", P(networks.SeriesRNN, 14, 10, "lstm", 32, 2), as_made, ADAM),
        ("2 layers", P(networks.SeriesRNN, 14, 10, "lstm", 32, 2), as_made, SGD_5),
        ("3 layers", P(networks.SeriesRNN, 14, 10, "lstm", 32, 3), tenth, SGD_5),
        ("2 layers", P(networks.SeriesRNN, 14, 10, "lstm", 32, 2), tenth, ADAM),
    ),
    Kind(
        "sigmoid autoencoder",
        real_data.digits_to_themselves,
        F.mse_loss,
        (
            ("8", P(networks.autoencoder, 64, 12, "sigmoid"), as_made, SGD_5),
            ("8", P(networks.autoencoder, 64, 12, "sigmoid"), as_made, ADAM),
            ("8", P(networks.autoencoder, 64, 12, "sigmoid"), xavier_sigmoid, ADAM),
        ),
    ),
    Kind(
        "relu autoencoder",
        real_data.digits_to_themselves,
        F.mse_loss,
        (
            ("8", P(networks.autoencoder, 64), as_made, SGD_5),
            ("8", P(networks.autoencoder, 64), he, SGD_5),
            ("8", P(networks.autoencoder, 64), as_made, ADAM),
        ),
    ),
    Kind(
        "pre-norm gpt",
        prose,
        _characters,
        (
            ("2 blocks", P(networks.CharGPT, V, L), as_made, ADAMW),
            ("4 blocks", P(networks.CharGPT, V, L, 4), as_made, ADAMW),
            ("2 blocks", P(networks.CharGPT, V, L), normal_002, ADAMW),
        ),
    ),
    _classes(
        real_data.wine,
        "relu mlp on wine",
        ("3", mlp(13, 3, 3), as_made, SGD_5),
        ("8", mlp(13, 3, 8), as_made, SGD_1),
        ("6", mlp(13, 3, 6), as_made, SGD_5),
        ("4", mlp(13, 3, 4), normal_002, SGD_5),
        ("3", mlp(13, 3, 3), as_made, ADAM),
    ),
)
"""Thresholds are chosen on these."""

HELD_OUT: tuple[Kind, ...] = (
    _classes(
        real_data.small_mnist_rows,
        "sigmoid mlp",
        ("2", mlp(196, 10, 2, "sigmoid"), as_made, SGD_5),
        ("3", mlp(196, 10, 3, "sigmoid"), as_made, SGD_5),
        ("4", mlp(196, 10, 4, "sigmoid"), as_made, SGD_5),
        ("6", mlp(196, 10, 6, "sigmoid"), as_made, SGD_5),
        ("4", mlp(196, 10, 4, "sigmoid"), as_made, ADAM),
        ("8", mlp(196, 10, 8, "sigmoid"), as_made, ADAM),
        ("4", mlp(196, 10, 4, "sigmoid"), xavier_sigmoid, SGD_5),
    ),
    _classes(
        real_data.digits_rows,
        "gelu mlp",
        ("3", mlp(64, 10, 3, "gelu"), as_made, SGD_5),
        ("5", mlp(64, 10, 5, "gelu"), as_made, SGD_5),
        ("7", mlp(64, 10, 7, "gelu"), as_made, SGD_5),
        ("12", mlp(64, 10, 12, "gelu"), as_made, SGD_5),
        ("12", mlp(64, 10, 12, "gelu"), as_made, ADAM),
        ("8", mlp(64, 10, 8, "gelu"), he, SGD_5),
        ("12", mlp(64, 10, 12, "gelu"), he, ADAM),
        ("5", mlp(64, 10, 5, "gelu"), normal_002, SGD_5),
    ),
    _classes(
        real_data.digits_rows,
        "silu mlp",
        ("4", mlp(64, 10, 4, "silu"), as_made, SGD_5),
        ("8", mlp(64, 10, 8, "silu"), as_made, SGD_5),
        ("8", mlp(64, 10, 8, "silu"), he, SGD_5),
        ("8 BatchNorm", mlp(64, 10, 8, "silu", norm="batch"), as_made, SGD_5),
    ),
    _classes(
        real_data.small_mnist_rows,
        "selu mlp",
        ("6", mlp(196, 10, 6, "selu"), as_made, SGD_1),
        ("16", mlp(196, 10, 16, "selu"), as_made, SGD_1),
        ("16", mlp(196, 10, 16, "selu"), lecun, SGD_1),
        ("8", mlp(196, 10, 8, "selu"), normal_002, SGD_1),
    ),
    _classes(
        real_data.small_mnist_rows,
        "leaky relu mlp",
        ("4 wide 128", mlp(196, 10, 4, "leaky", 128), as_made, SGD_5),
        ("7 wide 128", mlp(196, 10, 7, "leaky", 128), as_made, SGD_5),
        ("12 wide 128", mlp(196, 10, 12, "leaky", 128), as_made, SGD_5),
        ("12 wide 128", mlp(196, 10, 12, "leaky", 128), he, SGD_5),
        ("5 wide 128", mlp(196, 10, 5, "leaky", 128), half, SGD_5),
    ),
    _classes(
        real_data.mnist_images,
        "pooled cnn",
        ("relu, 2 blocks", P(pooled, nn.ReLU, 2), as_made, SGD_5),
        ("relu, 2 blocks", P(pooled, nn.ReLU, 2), normal_002, SGD_5),
        ("relu, 4 blocks", P(pooled, nn.ReLU, 4), as_made, SGD_5),
        ("relu, 4 blocks", P(pooled, nn.ReLU, 4), as_made, ADAM),
        ("leaky relu, 4 blocks", P(pooled, nn.LeakyReLU, 4), he, SGD_5),
        ("leaky relu, 3 blocks", P(pooled, nn.LeakyReLU, 3), half, SGD_5),
        ("elu, 3 blocks", P(pooled, nn.ELU, 3), as_made, SGD_5),
    ),
    _classes(
        real_data.mnist_images,
        "lenet",
        ("sigmoid", P(lenet, nn.Sigmoid), as_made, SGD_5),
        ("sigmoid", P(lenet, nn.Sigmoid), as_made, ADAM),
        ("tanh", P(lenet, nn.Tanh), as_made, SGD_5),
        ("tanh", P(lenet, nn.Tanh), xavier, ADAM),
    ),
    _classes(
        real_data.small_mnist_sequences,
        "gru and rnn",
        ("gru, 1 layer", P(networks.SeriesRNN, 14, 10, "gru", 32, 1), as_made, ADAM),
        ("gru, 2 layers", P(networks.SeriesRNN, 14, 10, "gru", 32, 2), tenth, SGD_5),
        ("rnn, 1 layer", P(networks.SeriesRNN, 14, 10, "rnn_tanh", 32, 1), as_made, ADAM),
        ("relu rnn, 2 layers", P(networks.SeriesRNN, 14, 10, "rnn_relu", 32, 2), tenth, SGD_1),
    ),
    _classes(
        real_data.small_mnist_sequences,
        "post-norm transformer",
        ("2 blocks", P(networks.SeriesTransformer, 14, 10, 14, False, 2), as_made, ADAMW),
        ("6 blocks", P(networks.SeriesTransformer, 14, 10, 14, False, 6), as_made, ADAMW),
        ("12 blocks", P(networks.SeriesTransformer, 14, 10, 14, False, 12), as_made, SGD_5),
    ),
    Kind(
        "third-party language models",
        source_code,
        None,
        (
            ("transformers' GPT-2", P(networks.gpt2, V, L), as_made, ADAMW),
            ("transformers' BERT", P(networks.bert, V, L), as_made, ADAMW),
        ),
    ),
    Kind("x-transformers", source_code, _characters, (("2 blocks", P(networks.x_transformer, V, L), as_made, ADAMW),)),
    _classes(
        real_data.mnist_images,
        "images in patches",
        ("mixer", P(networks.Mixer, 1, 10, 14), as_made, ADAMW),
    ),
    _classes(
        real_data.small_mnist_rows,
        "spiking mlp",
        ("3", P(networks.SpikingMLP, 196, 10, 3), as_made, ADAM),
        ("5", P(networks.SpikingMLP, 196, 10, 5), as_made, ADAM),
    ),
    Kind(
        "regressions",
        real_data.cars,
        F.mse_loss,
        (
            ("3", mlp(7, 1, 3, "elu"), as_made, SGD_1),
            ("10 softplus", mlp(7, 1, 10, "softplus"), as_made, SGD_1),
            ("8 mish", mlp(7, 1, 8, "mish"), as_made, SGD_1),
            ("12 mish", mlp(7, 1, 12, "mish"), normal_002, SGD_1),
            ("6 mish", mlp(7, 1, 6, "mish"), he, SGD_1),
            ("4 mish", mlp(7, 1, 4, "mish"), normal_002, SGD_5),
        ),
    ),
    Kind(
        "siren",
        real_data.photo,
        F.mse_loss,
        (("5", P(networks.siren, 2, 3), as_made, ADAM), ("5", P(networks.siren, 2, 3), tenth, ADAM)),
    ),
    _classes(
        real_data.mnist1d,
        "cnn of series",
        ("4", P(networks.SeriesCNN, 1, 10, 4), as_made, SGD_5),
        ("8", P(networks.SeriesCNN, 1, 10, 8), as_made, SGD_5),
        ("8", P(networks.SeriesCNN, 1, 10, 8), he, SGD_5),
        ("4 BatchNorm", P(networks.SeriesCNN, 1, 10, 4, norm=True), as_made, SGD_5),
    ),
    _classes(
        real_data.breast_cancer,
        "residual mlp",
        ("4 blocks", P(networks.ResidualMLP, 30, 2), as_made, ADAMW_3),
        ("12 blocks, no norm", P(networks.ResidualMLP, 30, 2, 12, norm=False), as_made, SGD_1),
    ),
)
"""Thresholds are judged on these."""


def _made(build: Build, draw: Callable[[nn.Module], None]) -> nn.Module:
    model = build()
    draw(model)
    return model


def _tasks(kinds: tuple[Kind, ...]) -> dict[str, BenchTask]:
    found = {}
    for kind in kinds:
        for shape, build, draw, optimizer in kind.nets:
            name = f"{kind.name}, {shape}, {draw.__name__}, {optimizer}"
            found[name] = BenchTask(
                name, kind.name, False, P(_made, build, draw), kind.load, kind.loss, OPTIMIZERS[optimizer], STEPS
            )
    return found


NETS: dict[str, BenchTask] = {**_tasks(CHOSEN_ON), **_tasks(HELD_OUT)}
CHOOSING = frozenset(_tasks(CHOSEN_ON))
