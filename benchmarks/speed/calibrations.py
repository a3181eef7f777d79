"""What calibrations that only run forward cost, in plain forward passes.

    python -m benchmarks.speed.calibrations                            # a minute; writes results/calibrations.md
    python -m benchmarks.speed.calibrations --device cuda --width 768  # GPT-2 with 86 million weights, on a GPU

Of each model and calibration, all in turns in one run, medians:

- passes: forward passes that it makes.
- looks: how often the host reads what was measured, which on a GPU is a wait for the device.
- time: of the calibration, beside one plain forward pass of the same batch in the same mode, without gradients.
- all: of what a calibrated candidate takes beyond setting its weights once: the calibration, putting back what it has
  trodden on, and setting the weights anew with their factors.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from autoinit.apply import set_calibrated
from autoinit.calibrations import admin, standardize, units
from autoinit.calibrations.fetching import fetched
from autoinit.calibrations.methods import CALIBRATIONS
from autoinit.calibrations.subject import Subject
from autoinit.drawing.weights import set_weights
from autoinit.graph import Graph
from autoinit.plans.plan import Plan
from autoinit.plans.rules import resolve
from autoinit.recipes.catalogue import NAMED
from autoinit.task.task import Task, example_task
from autoinit.tracing.tracing import trace_task

from ..common import data, models

RESULT = Path(__file__).parents[1] / "results" / "calibrations.md"
COMMAND = "python -m benchmarks.speed.calibrations"
WANTED = 12
"""Forward passes whose time a calibration may take at most."""
LENGTH = 64
READERS = (admin, standardize, units)
"""Modules that bring what was measured to the host."""


@dataclass(frozen=True)
class Setting:
    """A model, its batch, and the calibrations that are for it."""

    name: str
    build: Callable[[int], nn.Module]
    batch: Callable[[], tuple[Tensor, Tensor]]
    calibrations: tuple[str, ...] = ("lsuv", "lsuv_centred", "within_layer")


def _prose() -> tuple[Tensor, Tensor]:
    split = data.prose(LENGTH)
    return split.train_x[:16], split.train_y[:16]


def _images() -> tuple[Tensor, Tensor]:
    split = data.mnist_images()
    return split.train_x[:64], split.train_y[:64]


def _rows() -> tuple[Tensor, Tensor]:
    split = data.mnist_sequences()
    return split.train_x[:32], split.train_y[:32]


def _gpt2(width: int) -> nn.Module:
    return models.tiny_gpt2(data.VOCABULARY, LENGTH, layers=12, width=width, heads=max(1, width // 64))


SETTINGS = (
    Setting("GPT-2, 12 layers", _gpt2, _prose),
    Setting("plain CNN, 20 layers", lambda width: models.plain_cnn(19, width // 8), _images),
    Setting("ResNet with BatchNorm", lambda width: models.residual_cnn(9, width // 8), _images),
    Setting(
        "post-LN encoder, 12 layers",
        lambda width: models.RowTransformer(False, 12, width // 2),
        _rows,
        ("lsuv", "lsuv_centred", "within_layer", "admin"),
    ),
)


@dataclass(frozen=True)
class Cost:
    """What one calibration takes on one model.

    Attributes:
        model, calibration: which.
        forward: seconds of a plain forward pass.
        passes: that it makes.
        looks: of the host.
        time: of the calibration, in plain passes.
        whole: of what a candidate takes beyond setting its weights once, in plain passes.
    """

    model: str
    calibration: str
    forward: float
    passes: int
    looks: int
    time: float
    whole: float


class Case:
    """One model with its task, and the plan of each calibration."""

    def __init__(self, setting: Setting, width: int, device: torch.device) -> None:
        torch.manual_seed(0)
        model = setting.build(width).to(device)
        batch = tuple(part.to(device) for part in setting.batch())
        self.setting, self.device = setting, device
        self.task: Task = example_task(model, [batch], loss=_loss, whole=True)
        self.graph: Graph = trace_task(self.task)

    def cost(self, calibration: str, rounds: int) -> Cost:
        """Returns what a calibration takes: its times, in turns with a plain pass, and what it counts."""
        plan = resolve(NAMED[calibration], self.graph, seed=0)
        targets = {fill.name: fill.scale for fill in plan.fills}
        with self.task.preserved() as snapshot:
            passes, looks = self._counted(calibration, plan, targets)
            subject = Subject(self.task, self.graph, targets=targets)
            times: list[list[float]] = []
            for _ in range(rounds + 1):
                set_weights(self.task.model, plan)
                turns: Sequence[Callable[[], Any]] = (
                    subject.forward,
                    lambda: CALIBRATIONS[calibration](subject),
                    lambda: set_weights(self.task.model, plan),
                    lambda: set_calibrated(subject, plan, snapshot.rewind),
                )
                times.append([self._seconds(turn) for turn in turns])
        forward, alone, drawn, whole = (statistics.median(column) for column in zip(*times[1:], strict=True))
        return Cost(
            self.setting.name, calibration, forward, passes, looks, alone / forward, max(0.0, whole - drawn) / forward
        )

    def _counted(self, calibration: str, plan: Plan, targets: dict[str, float]) -> tuple[int, int]:
        spent: list[float] = []
        subject = Subject(self.task, self.graph, targets=targets, spend=lambda **cost: spent.append(cost["forwards"]))
        set_weights(self.task.model, plan)
        with _looks() as looks:
            CALIBRATIONS[calibration](subject)
        return round(sum(spent)), len(looks)

    def _seconds(self, action: Callable[[], Any]) -> float:
        self._wait()
        start = time.perf_counter()
        action()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _loss(output: Any, target: Tensor) -> Tensor:
    logits = output.logits.flatten(0, 1) if hasattr(output, "logits") else output
    return nn.functional.cross_entropy(logits, target.flatten())


@contextlib.contextmanager
def _looks() -> Iterator[list[int]]:
    """Yields a list that grows by each look of the host: how many tensors it reads."""
    found: list[int] = []

    def counted(tensors: Sequence[Tensor]) -> list[Tensor]:
        found.extend([len(tensors)] * bool(tensors))
        return fetched(tensors)

    with contextlib.ExitStack() as stack:
        for module in READERS:
            stack.enter_context(mock.patch.object(module, "fetched", counted))
        yield found


def costs(settings: Sequence[Setting], *, rounds: int, width: int, device: str) -> list[Cost]:
    """Returns what each calibration takes on each model that it is for."""
    found: list[Cost] = []
    for setting in settings:
        case = Case(setting, width, torch.device(device))
        found += [case.cost(calibration, rounds) for calibration in setting.calibrations]
        print("\n".join(map(_line, found[-len(setting.calibrations) :])), flush=True)
    return found


def _line(cost: Cost) -> str:
    cells = (f"{1e3 * cost.forward:.2f}", f"{cost.passes}", f"{cost.looks}", f"{cost.time:.1f}", f"{cost.whole:.1f}")
    return "| " + " | ".join((cost.model, cost.calibration, *cells)) + " |"


def report(found: Sequence[Cost], device: str, rounds: int) -> str:
    """Returns the table as Markdown."""
    where = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, one thread"
    header = ["model", "calibration", "forward pass (ms)", "passes", "looks", "time, in passes", "all, in passes"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *map(_line, found)]
    table = "\n".join(lines)
    return f"""# Calibrations that only run forward

{datetime.date.today()}, `{COMMAND}`, torch {torch.__version__}, {where}.
Medians of {rounds} rounds, all in turns in one run.

{table}

At most {WANTED} passes' time is wanted of a calibration. "looks" counts how often the host reads what was measured: on
a GPU it waits for the device as often. "all" is what a calibrated candidate takes beyond setting its weights once: the
calibration, putting back what it has trodden on, and setting the weights anew with their factors, on a CPU by drawing
the larger ones again.
"""


def main() -> None:
    """Prints the table and writes it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=128, help="of GPT-2; the other models follow it")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = costs(SETTINGS, rounds=arguments.rounds, width=arguments.width, device=arguments.device)
    text = report(found, arguments.device, arguments.rounds)
    print(text)
    if arguments.device == "cpu":
        RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
