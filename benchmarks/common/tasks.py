"""The benchmark's tasks: one table of models, real data, losses and optimizers.

The learning rates suit the models as their owners draw them: of four, a factor of about 3 apart, the one with the
lowest validation loss from as-is weights. The plain deep nets and the SIREN, which learn next to nothing from
as-is weights at any customary rate, have the customary one. `select` has to live with it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import data, models
from .data import Split

Loss = Callable[[Any, Tensor], Tensor]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

LENGTH = 32
"""Characters in one window of the language models."""


@dataclass(frozen=True)
class BenchTask:
    """A model and what it is trained on.

    Attributes:
        name: key of the task in result files.
        family: the architecture, in words.
        plain_deep: 15 layers or more without normalization or skips, trained by SGD.
        build: makes the model with its owner's own draws, from torch's global random state.
        load: returns the rows (cached).
        loss: of output and target; None where the model returns its own.
        optimizer: factory with the task's fixed learning rate.
        steps: length of the long training.
        rows: in a batch.
    """

    name: str
    family: str
    plain_deep: bool
    build: Callable[[], nn.Module]
    load: Callable[[], Split]
    loss: Loss | None
    optimizer: OptimizerFactory
    steps: int
    rows: int = 64

    def make_model(self, seed: int) -> nn.Module:
        """Returns a model as its owner's code draws it under this seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build()

    def batch(self, x: Tensor, y: Tensor) -> Any:
        """Returns a batch in the form that the model's owner feeds it."""
        return {"input_ids": x, "labels": x} if self.loss is None else (x, y)

    def train_batches(self, seed: int) -> list[Any]:
        """Returns one shuffled pass over the training rows, which is what `select` is given."""
        split = self.load()
        order = torch.randperm(len(split.train_x), generator=torch.Generator().manual_seed(seed))
        full = order[: len(order) // self.rows * self.rows].split(self.rows)
        return [self.batch(split.train_x[rows], split.train_y[rows]) for rows in full]

    def loss_of(self, model: nn.Module, batch: Any) -> Tensor:
        """Returns the mean loss of a batch."""
        if self.loss is None:
            return model(**batch).loss
        x, y = batch
        return self.loss(model(x), y)

    def reference(self) -> float:
        """Returns the loss of the best constant predictor on the training rows: entropy or variance."""
        y = self.load().train_y
        if y.is_floating_point():
            return float((y - y.mean(0)).square().mean())
        share = torch.bincount(y.flatten()).double() / y.numel()
        share = share[share > 0]
        return float(-(share * share.log()).sum())


def sgd(lr: float) -> OptimizerFactory:
    """Returns a factory of SGD with momentum."""
    return functools.partial(torch.optim.SGD, lr=lr, momentum=0.9)


def adam(lr: float) -> OptimizerFactory:
    """Returns a factory of Adam."""
    return functools.partial(torch.optim.Adam, lr=lr)


def adamw(lr: float) -> OptimizerFactory:
    """Returns a factory of AdamW."""
    return functools.partial(torch.optim.AdamW, lr=lr)


def _plain(name: str, family: str, activation: Callable[[], nn.Module]) -> BenchTask:
    build = functools.partial(models.plain_mlp, activation)
    return BenchTask(name, family, True, build, data.mnist_rows, F.cross_entropy, sgd(0.01), 500)


def _encoder(name: str, family: str, norm_first: bool, layers: int) -> BenchTask:
    build = functools.partial(models.RowTransformer, norm_first, layers)
    return BenchTask(name, family, False, build, data.mnist_sequences, F.cross_entropy, adamw(3e-3), 400, rows=16)


_CHARACTERS = functools.partial(data.prose, LENGTH)

TASKS: dict[str, BenchTask] = {
    task.name: task
    for task in (
        _plain("mlp_tanh", "plain MLP, 16 layers, tanh", nn.Tanh),
        _plain("mlp_relu", "plain MLP, 16 layers, ReLU", nn.ReLU),
        _plain("mlp_gelu", "plain MLP, 16 layers, GELU", nn.GELU),
        _plain("mlp_sigmoid", "plain MLP, 16 layers, sigmoid", nn.Sigmoid),
        BenchTask(
            "cnn_plain",
            "plain CNN, 15 convolutions, ReLU",
            True,
            models.plain_cnn,
            data.mnist_images,
            F.cross_entropy,
            sgd(0.01),
            400,
        ),
        BenchTask(
            "cnn_residual",
            "ResNet with BatchNorm",
            False,
            models.residual_cnn,
            data.mnist_images,
            F.cross_entropy,
            sgd(0.05),
            400,
        ),
        _encoder("encoder_pre_ln", "Transformer encoder, pre-LN, 3 layers", True, 3),
        _encoder("encoder_post_ln", "Transformer encoder, post-LN, 4 layers", False, 4),
        BenchTask(
            "char_transformer",
            "character model, causal Transformer",
            False,
            functools.partial(models.CharTransformer, data.VOCABULARY, LENGTH),
            _CHARACTERS,
            F.cross_entropy,
            adamw(1e-2),
            500,
            rows=16,
        ),
        BenchTask(
            "gpt2_hf",
            "character model, Hugging Face GPT-2",
            False,
            functools.partial(models.tiny_gpt2, data.VOCABULARY, LENGTH),
            _CHARACTERS,
            None,
            adamw(3e-3),
            400,
            rows=16,
        ),
        BenchTask(
            "lstm_rows",
            "LSTM, 2 layers, digits row by row",
            False,
            models.RowLSTM,
            data.mnist_sequences,
            F.cross_entropy,
            adam(2e-3),
            500,
            rows=32,
        ),
        BenchTask(
            "autoencoder_sigmoid",
            "autoencoder, 8 layers, sigmoid",
            False,
            models.sigmoid_autoencoder,
            data.digits_to_themselves,
            F.mse_loss,
            adam(1e-2),
            1000,
        ),
        BenchTask(
            "siren_photo",
            "SIREN on a photo, PyTorch's draws",
            False,
            models.siren,
            data.photo,
            F.mse_loss,
            adam(1e-3),
            600,
            rows=512,
        ),
        BenchTask(
            "tabular_class",
            "tabular MLP, breast cancer",
            False,
            functools.partial(models.tabular_mlp, 30, 2),
            data.breast_cancer,
            F.cross_entropy,
            adam(3e-4),
            400,
            rows=32,
        ),
        BenchTask(
            "tabular_regression",
            "tabular MLP, diabetes",
            False,
            functools.partial(models.tabular_mlp, 10, 1),
            data.diabetes,
            F.mse_loss,
            adam(3e-4),
            400,
            rows=32,
        ),
        BenchTask(
            "mlp_residual_ln",
            "residual MLP with LayerNorm, 6 blocks",
            False,
            models.ResidualMLP,
            data.mnist_rows,
            F.cross_entropy,
            sgd(0.006),
            400,
        ),
    )
}


SPECIALISTS: dict[str, BenchTask] = {
    task.name: task
    for task in (
        _plain("mlp_selu", "plain MLP, 16 layers, SELU", nn.SELU),
        BenchTask(
            "cnn_residual_bare",
            "ResNet without normalization, 12 blocks",
            False,
            models.BareResidualCNN,
            data.mnist_images,
            F.cross_entropy,
            sgd(0.02),
            300,
        ),
        BenchTask(
            "rnn_relu_rows",
            "ReLU RNN, digits row by row",
            False,
            models.RowReluRNN,
            data.mnist_sequences,
            F.cross_entropy,
            adam(1e-3),
            400,
            rows=32,
        ),
        BenchTask(
            "spiking_digits",
            "spiking MLP, 4 layers, 12 time steps",
            False,
            models.SpikingMLP,
            data.mnist_rows,
            F.cross_entropy,
            adam(1e-3),
            200,
            rows=32,
        ),
    )
}
"""Networks that some methods were made for and that are not among the sixteen."""


def listed(names: str, known: Iterable[str], what: str, groups: Sequence[str] = ()) -> list[str]:
    """Returns the names of a comma-separated list; "all" names all that are known.

    Args:
        names: of the list, with commas between.
        known: every name there is.
        what: they are names of, for the message.
        groups: names that the caller understands itself, for the message.

    Raises:
        SystemExit: for a name that is not known.
    """
    table = list(known)
    wanted = table if names == "all" else names.split(",")
    if unknown := [name for name in wanted if name not in table]:
        raise SystemExit(f"unknown {what} {', '.join(unknown)}; known: {', '.join(['all', *groups, *table])}")
    return wanted


def chosen(names: str) -> list[BenchTask]:
    """Returns the tasks of a comma-separated list; "all" and "plain_deep" name groups.

    Raises:
        SystemExit: for a name that is not in the table.
    """
    if names == "plain_deep":
        return [task for task in TASKS.values() if task.plain_deep]
    return [TASKS[name] for name in listed(names, TASKS, "tasks", groups=("plain_deep",))]


def log_ratio(selected: float, as_is: float) -> float:
    """Returns log(selected/as_is), within ±log 1000 so that a loss of 0 or a divergence stays finite."""
    limit = math.log(1000)
    if not math.isfinite(selected):
        return limit if math.isfinite(as_is) else 0.0
    if not math.isfinite(as_is):
        return -limit
    tiny = 1e-12
    return max(-limit, min(limit, math.log(max(selected, tiny) / max(as_is, tiny))))
