"""The tasks of the side-by-side benchmark: the sixteen of the table, and four more with normalization.

Of the sixteen six have normalization or skip connections. Where they are, initialization matters less, and a picture
without them would flatter every method here; so four small ones stand beside, and half of the twenty have them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ..common import data
from ..common.tasks import TASKS, BenchTask, adam, listed, sgd


def tabular_batchnorm(features: int = 30, outputs: int = 2, width: int = 64, hidden: int = 3) -> nn.Module:
    """Returns a ReLU MLP for tables, with BatchNorm after every hidden layer."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([features, *[width] * hidden]):
        layers += [nn.Linear(fan_in, fan_out), nn.BatchNorm1d(fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class TabularResidual(nn.Module):
    """Pre-LN residual blocks on the columns of a table."""

    def __init__(self, features: int = 10, outputs: int = 1, width: int = 64, blocks: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(features, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def layernorm_autoencoder() -> nn.Module:
    """Returns an autoencoder of 64 pixels through a code of 12, with LayerNorm before every activation."""
    sizes = [64, 96, 48, 24, 12, 24, 48, 96]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.LayerNorm(fan_out), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 64))


def groupnorm_cnn(depth: int = 6, width: int = 12) -> nn.Module:
    """Returns `depth` 3 x 3 convolutions with GroupNorm on [n, 1, 14, 14], no skips."""
    layers: list[nn.Module] = []
    for place in range(depth):
        conv = nn.Conv2d(width if place else 1, width, 3, stride=1 if place else 2, padding=1)
        layers += [conv, nn.GroupNorm(4, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 10))


Build = Callable[[], nn.Module]
Load = Callable[[], data.Split]


# As in the table, each rate is the best of 4, about a factor of 3 apart, for as-is weights by validation loss.
ADDED: dict[str, BenchTask] = {
    task.name: task
    for task in (
        BenchTask(
            "tabular_batchnorm",
            "tabular MLP with BatchNorm, breast cancer",
            False,
            tabular_batchnorm,
            data.breast_cancer,
            F.cross_entropy,
            adam(3e-4),
            400,
            rows=32,
        ),
        BenchTask(
            "tabular_residual",
            "residual tabular MLP with LayerNorm, diabetes",
            False,
            TabularResidual,
            data.diabetes,
            F.mse_loss,
            adam(1e-4),
            400,
            rows=32,
        ),
        BenchTask(
            "autoencoder_layernorm",
            "autoencoder with LayerNorm, 8 layers, GELU",
            False,
            layernorm_autoencoder,
            data.digits_to_themselves,
            F.mse_loss,
            adam(3e-3),
            600,
        ),
        BenchTask(
            "cnn_groupnorm",
            "CNN with GroupNorm, 6 convolutions, ReLU",
            False,
            groupnorm_cnn,
            data.mnist_images,
            F.cross_entropy,
            sgd(0.03),
            400,
        ),
    )
}

VERSUS: dict[str, BenchTask] = {**TASKS, **ADDED}
"""All twenty."""

NORMALIZED = frozenset(
    {
        "cnn_residual",
        "encoder_pre_ln",
        "encoder_post_ln",
        "char_transformer",
        "gpt2_hf",
        "mlp_residual_ln",
        *ADDED,
    }
)
"""Those with normalization or skip connections; the others have neither."""

_PLAIN = frozenset({"mlp", "mlp_deep", "mlp_regression", "places"})
_CHARACTERS = frozenset({"gpt", "x_transformer", "parallel_blocks", "alibi", "sandwich_norm", "gpt_post_norm"})
_RESIDUAL = frozenset({"mlp_residual", "table_resnet"})
_ENCODERS = frozenset({"transformer_pre_ln", "vit", "encoder_pre_norm", "vit_layer_scale", "whisper", "qk_norm"})

FAMILIES: dict[str, frozenset[str]] = {
    **dict.fromkeys(("mlp_tanh", "mlp_relu", "mlp_gelu", "mlp_sigmoid", "tabular_class", "tabular_regression"), _PLAIN),
    "cnn_plain": frozenset({"cnn", "cnn_1d", "vgg"}),
    "cnn_residual": frozenset({"resnet", "regnet", "mobilenet", "densenet", "series_resnet"}),
    "encoder_pre_ln": _ENCODERS,
    "encoder_post_ln": frozenset({"transformer_post_ln", "bert", "convbert", "albert"}),
    "char_transformer": _CHARACTERS,
    "gpt2_hf": _CHARACTERS,
    "lstm_rows": frozenset({"lstm"}),
    "autoencoder_sigmoid": frozenset({"autoencoder", "image_autoencoder"}),
    "siren_photo": frozenset({"siren", "places"}),
    "mlp_residual_ln": _RESIDUAL,
    "tabular_batchnorm": frozenset({"mlp_batchnorm"}),
    "tabular_residual": _RESIDUAL,
    "autoencoder_layernorm": frozenset({"autoencoder_layernorm"}),
    "cnn_groupnorm": frozenset({"cnn_groupnorm"}),
}
"""By task, the families of `studies/overnight.toml` and `studies/architectures.toml` with its kind of network.

That is the same kind of layers, normalization and skips, at whatever depth and width, with whatever activation, on
whatever data. No task was studied itself, but some are near twins of studied ones (the ResNet on the same digits,
GPT-2 on the same prose), and most share their data with studied networks of other kinds. So what the library knows of
a task's families is taken from it before it is asked about the task; what it knows of the data by others stays.
"""


def chosen(names: str) -> list[BenchTask]:
    """Returns the tasks of a comma-separated list, a normalized and a plain one in turns; "all" names all.

    Raises:
        SystemExit: for a name that is not in the table.
    """
    wanted = listed(names, VERSUS, "tasks")
    halves = [[name for name in wanted if (name in NORMALIZED) == side] for side in (True, False)]
    longest = max(len(half) for half in halves)
    pairs = zip(*([*half, *[""] * (longest - len(half))] for half in halves), strict=True)
    return [VERSUS[name] for name in chain.from_iterable(pairs) if name]
