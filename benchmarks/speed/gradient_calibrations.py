"""What the calibrations that differentiate gradients cost and reach, beside the package `gradinit`.

    python -m benchmarks.speed.gradient_calibrations            # writes results/gradient_calibrations.md

- cost: milliseconds of one iteration and of one plain training step, medians, all in turns in one run.
- reached: each method's own objective on batches that it did not see, before and after.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import itertools
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from autoinit.calibrations.methods import CALIBRATIONS
from autoinit.calibrations.subject import Subject
from autoinit.task.assign import assign, read
from autoinit.task.batches import halves
from autoinit.task.task import Task, make_task
from autoinit.tracing.tracing import read_graph

from ..common import data, models

RESULT = Path(__file__).parents[1] / "results" / "gradient_calibrations.md"
COMMAND = "python -m benchmarks.speed.gradient_calibrations"
ROUNDS = 3
HELD_BACK = 8


class Setting(NamedTuple):
    """A model, its batches and its optimizer."""

    name: str
    build: Callable[[], nn.Module]
    batches: Callable[[], list[tuple[Tensor, Tensor]]]
    sgd: bool


def _pixels(shape: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    split = data.mnist_rows()
    x = split.train_x.reshape(-1, 1, 28, 28)
    x = {(14, 14): F.avg_pool2d(x, 2), (28, 28): x[:, 0], (784,): x.flatten(1)}[shape]
    return [*zip(x.split(64)[:40], split.train_y.split(64)[:40], strict=True)]


def _prose() -> list[tuple[Tensor, Tensor]]:
    split = data.prose(32)
    return [*zip(split.train_x.split(16)[:40], split.train_y.split(16)[:40], strict=True)]


SETTINGS = (
    Setting("tanh MLP, 16 layers", lambda: models.plain_mlp(nn.Tanh), lambda: _pixels((784,)), True),
    Setting("plain CNN, 15 layers", models.plain_cnn, lambda: _pixels((14, 14)), True),
    Setting("ResNet with BatchNorm", models.residual_cnn, lambda: _pixels((14, 14)), True),
    Setting("LSTM, 2 layers", models.RowLSTM, lambda: _pixels((28, 28)), False),
    Setting(
        "character Transformer",
        lambda: models.CharTransformer(data.VOCABULARY, 32),
        _prose,
        False,
    ),
)


def _loss(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target)


def _optimizer(sgd: bool) -> Callable[[Any], torch.optim.Optimizer]:
    return (lambda p: torch.optim.SGD(p, lr=0.1)) if sgd else (lambda p: torch.optim.Adam(p, lr=1e-3))


class Bench:
    """One setting: the model as drawn, the batches to learn from and those to measure on."""

    def __init__(self, setting: Setting, seed: int) -> None:
        torch.manual_seed(seed)
        self.setting = setting
        self.model = setting.build()
        batches = setting.batches()
        self.train, self.held_back = batches[:-HELD_BACK], batches[-HELD_BACK:]
        self.task: Task = make_task(
            copy.deepcopy(self.model),
            self.train,
            val_data=self.held_back,
            loss=_loss,
            optimizer=_optimizer(setting.sgd),
        )
        with self.task.preserved():
            self.graph = read_graph(self.task.model, lambda: self.task.loss(self.task.train[0]))

    @property
    def bound(self) -> float:
        """Returns the bound on the gradient's norm that both are given: √n for n entries on the 1-norm."""
        return 1.0 if self.setting.sgd else sum(p.numel() for p in self.model.parameters()) ** 0.5

    def ours(self, name: str, iterations: int, **options: Any) -> tuple[nn.Module, list[float]]:
        """Returns a calibrated copy of the model and the seconds of each iteration."""
        ticks = [time.perf_counter()]
        with self.task.preserved():
            subject = Subject(self.task, self.graph, spend=lambda **_: ticks.append(time.perf_counter()))
            found = CALIBRATIONS[name](subject, iterations=iterations, **options)  # type: ignore[call-arg]
        model = copy.deepcopy(self.model)
        for parameter, adjustment in found.items():
            assign(model, parameter, read(model, parameter).detach() * adjustment.factor)
        return model, [b - a for a, b in itertools.pairwise(ticks)][1:]

    def peer(self, iterations: int, gamma: float) -> tuple[nn.Module, list[float]]:
        """The same by the package `gradinit`, used as its README says."""
        from gradinit import GradInitWrapper

        model, seconds = copy.deepcopy(self.model).train(), []
        with GradInitWrapper(model) as wrapped:
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
            for x, y in itertools.islice(self._order(), iterations):
                start = time.perf_counter()
                value = wrapped.grad_loss(_loss(model(x), y), norm=2 if self.setting.sgd else 1, gamma=gamma)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                wrapped.clamp_scales()
                seconds.append(time.perf_counter() - start)
        return model, seconds[1:]

    def steps(self, count: int) -> list[float]:
        """Returns the seconds of plain training steps."""
        model, seconds = copy.deepcopy(self.model).train(), []
        optimizer = _optimizer(self.setting.sgd)(model.parameters())
        for x, y in itertools.islice(self._order(), count):
            start = time.perf_counter()
            optimizer.zero_grad()
            _loss(model(x), y).backward()
            optimizer.step()
            seconds.append(time.perf_counter() - start)
        return seconds[1:]

    def _order(self) -> Iterator[tuple[Tensor, Tensor]]:
        return itertools.cycle(self.train)


def measure(bench: Bench, model: nn.Module) -> dict[str, float]:
    """Returns what the methods aim at, by plain autograd on the held-back batches, on a copy of a model."""
    rows = [_measure(copy.deepcopy(model).train(), batch, bench.setting.sgd) for batch in bench.held_back]
    return {key: statistics.mean(row[key] for row in rows) for key in rows[0]}


def _gradients(model: nn.Module, batch: Any) -> list[Tensor]:
    return list(torch.autograd.grad(_loss(model(batch[0]), batch[1]), list(model.parameters())))


def _measure(model: nn.Module, batch: Any, sgd: bool) -> dict[str, float]:
    halved = halves(batch)
    assert halved is not None
    one, other = (torch.cat([g.flatten() for g in _gradients(model, part)]) for part in halved)
    quotient = _quotient(model, batch)
    gradients = _gradients(model, batch)
    length = torch.cat([g.flatten() for g in gradients]).norm(p=2 if sgd else 1).item()
    with torch.no_grad():
        for parameter, g in zip(model.parameters(), gradients, strict=True):
            parameter -= 0.1 * g / length if sgd else 1e-3 * g.sign()
        after = _loss(model(batch[0]), batch[1]).item()
    cosine = F.cosine_similarity(one, other, dim=0).item()
    return {"loss after a step": after, "gradient norm": length, "gradient quotient": quotient, "cosine": cosine}


def _quotient(model: nn.Module, batch: Any) -> float:
    parameters = list(model.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        g = torch.autograd.grad(_loss(model(batch[0]), batch[1]), parameters, create_graph=True)
        h = torch.autograd.grad(sum(x.square().sum() for x in g) / 2, parameters)
    flat, product = torch.cat([x.flatten() for x in g]), torch.cat([x.flatten() for x in h])
    sign = torch.where(flat >= 0, 1.0, -1.0)
    return ((flat - product) / (flat + 1e-5 * sign) - 1).abs().mean().item()


METHODS: dict[str, Callable[[Bench, int], tuple[nn.Module, list[float]]]] = {
    "GradInit, on the bound": lambda bench, n: bench.ours("gradinit", n, gamma=0.0),
    "package gradinit, on the bound": lambda bench, n: bench.peer(n, 0.0),
    "GradInit, as used": lambda bench, n: bench.ours("gradinit", n),
    "package gradinit, with that bound": lambda bench, n: bench.peer(n, bench.bound),
    "MetaInit": lambda bench, n: bench.ours("metainit", n),
    "NIO": lambda bench, n: bench.ours("nio", n),
}


def costs(bench: Bench) -> dict[str, float]:
    """Returns the median iteration of each method in plain training steps; −1 where it fails."""
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    steps: list[float] = []
    for _ in range(ROUNDS):  # in turns, so that a busy machine slows all alike
        steps += bench.steps(20)
        for name, method in METHODS.items():
            try:
                seconds[name] += method(bench, 8)[1]
            except RuntimeError:  # fused attention has no second derivative
                continue
    step = statistics.median(steps)
    found = {name: statistics.median(taken) / step if taken else -1.0 for name, taken in seconds.items()}
    return {"step (ms)": 1e3 * step, **found}


REACHED = {
    "as drawn": lambda bench: bench.model,
    "GradInit": lambda bench: bench.ours("gradinit", 60)[0],
    "package gradinit": lambda bench: bench.peer(60, bench.bound)[0],
    "MetaInit": lambda bench: bench.ours("metainit", 50)[0],
    "NIO": lambda bench: bench.ours("nio", 60)[0],
}


def reached(setting: Setting, seeds: int) -> list[list[str]]:
    """Returns rows of (setting, method, mean of each objective over the seeds)."""
    rows = []
    for name, method in REACHED.items():
        found = []
        for seed in range(seeds):
            bench = Bench(setting, seed)
            try:
                found.append(measure(bench, method(bench)))
            except RuntimeError as error:
                if name != "package gradinit":
                    raise
                print(f"{setting.name}: {name} fails: {str(error).splitlines()[0]}")
                break
        keys = ("loss after a step", "gradient norm", "gradient quotient", "cosine")
        values = [f"{statistics.mean(row[key] for row in found):.4g}" if found else "fails" for key in keys]
        rows.append([setting.name, name, *values])
    return rows


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(seeds: int) -> str:
    """Returns both tables as Markdown."""
    cost_rows = []
    for setting in SETTINGS:
        found = costs(Bench(setting, 0))
        shown = [f"{value:.1f}" if value >= 0 else "fails" for value in found.values()]
        cost_rows.append([setting.name, *shown])
        print(cost_rows[-1], flush=True)
    rows = [row for setting in SETTINGS for row in reached(setting, seeds)]
    return f"""# Calibrations that differentiate gradients

{datetime.date.today()}, `{COMMAND}`, torch {torch.__version__}, one thread, {platform.machine()}.

## Cost of one iteration, in plain training steps (medians, all in turns in one run)

{_table(["model", "step (ms)", *METHODS], cost_rows)}

## Reached, on {HELD_BACK} batches that were not learned from (means over {seeds} draws)

GradInit aims at the loss after a step, with the gradient norm (2-norm under SGD, 1-norm under Adam) bounded by 1
(√n under Adam); MetaInit at a small gradient quotient; NIO at a large cosine, with the 2-norm bounded by 5. The package
lowers the gradient norm above its bound, and the plain loss below; it is given the same bound and the same 60 batches.

{_table(["model", "scales by", "loss after a step", "gradient norm", "gradient quotient", "cosine"], rows)}
"""


def main() -> None:
    """Prints the tables and writes them down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = report(arguments.seeds)
    print(found)
    RESULT.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main()
