"""Learned starts: sinusoids as in the MAML paper, and digits of classes that no start was learned from.

    python -m benchmarks.inheritance.meta                       # both questions, all starts
    python -m benchmarks.inheritance.meta --questions digits
    python -m benchmarks.inheritance.meta --report              # the tables of the runs so far

Sinusoids (Finn et al. 2017): amplitude 0.1 to 5, phase 0 to π, x from −5 to 5, a ReLU network 1-40-40-1; starts are
learned for one step at rate 0.01 on 10 points, Reptile's for ten at 0.02. The pretrained start is trained on the points
of as many sinusoids, all together. Each is judged on 600 other sinusoids, on 100 points after 1 and 10 steps on 5.

Digits: a ReLU network of three convolutions, five ways, five shots, labels permuted in each episode. Starts are
learned from the digits 0 to 4 and judged on 500 episodes of the digits 5 to 9, after five steps. The pretrained one
is trained to classify the digits 0 to 4, and gets a new head. Drawn starts are torch's default and three recipes.

Every start is judged at its best rate of one grid, chosen on the very episodes of the table (of digits on the first
60), which favours whatever was not learned for a rate. A finished (question, start) is one line in
`results/meta.jsonl`, and is not run again.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import autoinit

from ..common import jobs
from ..common.data import mnist_images
from ..common.jobs import Row

RESULTS = jobs.RESULTS / "meta.jsonl"
JUDGED = {"sinusoids": 600, "digits": 500}
"""Episodes that every start is judged on."""
TRIED = 60
"""The first of those on digits, on which each start's rate is chosen."""
WAVE_RATES, DIGIT_RATES = (0.003, 0.01, 0.03, 0.1), (0.03, 0.1, 0.3, 1.0)
WAVE_ROUNDS, WAVE_BATCH, WAVE_RATE = 8_000, 4, 0.003
DIGIT_ROUNDS, DIGIT_BATCH = 250, 4
DRAWN = {"torch's default": None, "he_normal": "he_normal", "orthogonal": "orthogonal", "xavier": "xavier_uniform"}
Model = nn.Sequential
Start = Callable[[Model], Model]


# Sinusoids


def wave_network() -> Model:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))


def waves(seed: int, shots: int, queries: int) -> Callable[[], Iterator[Any]]:
    """Returns what makes sinusoids without an end, the same ones for the same seed."""

    def made() -> Iterator[Any]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            amplitude, phase = torch.rand(2, generator=generator).tolist()
            x = 10 * torch.rand(shots + queries, 1, generator=generator) - 5
            y = (0.1 + 4.9 * amplitude) * torch.sin(x - math.pi * phase)
            yield (x[:shots], y[:shots]), (x[shots:], y[shots:])

    return made


def learned_on_waves(method: str) -> Start:
    options: dict[str, Any] = {"inner_steps": 1, "inner_lr": 0.01, "outer_lr": WAVE_RATE}
    if method == "reptile":
        options = {"inner_steps": 10, "inner_lr": 0.02, "outer_lr": 0.3}

    def start(model: Model) -> Model:
        tasks = waves(1, 10, 10)
        rounds = WAVE_ROUNDS // 4 if method == "reptile" else WAVE_ROUNDS  # ten steps each: about as long
        learned: Any = autoinit.meta_learn
        learned(model, tasks, method=method, rounds=rounds, meta_batch=WAVE_BATCH, **options).apply_(model)
        return model

    return start


def pretrained_on_waves(model: Model) -> Model:
    optimizer, stream = torch.optim.Adam(model.parameters(), lr=WAVE_RATE), waves(1, 10, 10)()
    for _ in range(WAVE_ROUNDS):
        sides = [side for _ in range(WAVE_BATCH) for side in next(stream)]
        x, y = torch.cat([one for one, _ in sides]), torch.cat([one for _, one in sides])
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
    return model


# Digits


def digit_network() -> Model:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((1, 32), (32, 32), (32, 32)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4, 5))


def digits(classes: range, seed: int) -> Any:
    """Returns episodes of some of the digits, of all rows there are."""
    split = mnist_images()
    x, y = torch.cat([split.train_x, split.val_x]), torch.cat([split.train_y, split.val_y])
    return autoinit.episodes(x, y, ways=5, shots=5, queries=15, classes=classes, seed=seed)


def learned_on_digits(method: str) -> Start:
    def start(model: Model) -> Model:
        rates: dict[str, Any] = {"inner_lr": 0.1, "outer_lr": 0.3 if method == "reptile" else 0.001}
        learned: Any = autoinit.meta_learn
        found = learned(
            model,
            digits(range(5), 1),
            method=method,
            inner_steps=5,
            rounds=DIGIT_ROUNDS,
            meta_batch=DIGIT_BATCH,
            **rates,
        )
        found.apply_(model)
        return model

    return start


def pretrained_on_digits(model: Model) -> Model:
    head, optimizer = copy.deepcopy(model[-1]), torch.optim.Adam(model.parameters(), lr=1e-3)
    split = mnist_images()
    x, y = (part[split.train_y < 5] for part in (split.train_x, split.train_y))
    orders = torch.Generator().manual_seed(0)
    for _ in range(10):
        for rows in torch.randperm(len(x), generator=orders).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    model[-1] = head
    return model


def drawn(recipe: str | None) -> Start:
    def start(model: Model) -> Model:
        if recipe is not None:
            x, y = digits(range(5), 1).episode(0)[0]
            autoinit.apply_(model, recipe, (x, y))
        return model

    return start


STARTS: dict[str, dict[str, Start]] = {
    "sinusoids": {
        "maml": learned_on_waves("maml"),
        "pretrained": pretrained_on_waves,
        "torch's default": lambda model: model,
        **{name: learned_on_waves(name) for name in ("fomaml", "reptile", "anil")},
    },
    "digits": {
        "maml": learned_on_digits("maml"),
        **{name: drawn(recipe) for name, recipe in DRAWN.items()},
        "pretrained": pretrained_on_digits,
        **{name: learned_on_digits(name) for name in ("reptile", "fomaml", "anil")},
    },
}
STEPS = {"sinusoids": (1, 10), "digits": (5,)}


def run(question: str, name: str) -> Row:
    """Returns the row of one start: its scores after each number of steps, at each rate."""
    begun = time.perf_counter()
    waving = question == "sinusoids"
    model = STARTS[question][name](wave_network() if waving else digit_network())
    learning = time.perf_counter() - begun
    tasks = waves(1000, 5, 100) if waving else digits(range(5, 10), 1000)
    head = "4" if waving else "7"
    part = head if name == "anil" else None
    counts, rates = JUDGED[question], WAVE_RATES
    if not waving:  # the rate that is best on the first episodes, which are among those of the table
        tried = [_scores(model, tasks, TRIED, _options(5, rate, part)) for rate in DIGIT_RATES]
        rates = (max(tried, key=lambda one: float(one["mean"]))["rate"],)
    scores = [_scores(model, tasks, counts, _options(steps, rate, part)) for steps in STEPS[question] for rate in rates]
    seconds = time.perf_counter() - begun
    return {
        "question": question,
        "start": name,
        "scores": scores,
        "learning": learning,
        "seconds": seconds,
        **jobs.provenance(),
    }


def _options(steps: int, rate: float, head: str | None) -> dict[str, Any]:
    return {"inner_steps": steps, "inner_lr": rate, "head": head}


def _scores(model: Model, tasks: Any, episodes: int, options: dict[str, Any]) -> Row:
    found = autoinit.evaluate_episodes(model, tasks, episodes=episodes, **options)
    judged = found.accuracy or found.loss
    return {"steps": found.inner_steps, "rate": found.inner_lr, "mean": judged.mean, "half": judged.high - judged.mean}


# The tables


def best(row: Row, steps: int) -> Row:
    """Returns the scores of a start at the rate that is best for it: the lowest loss, the highest accuracy."""
    mine = [one for one in row["scores"] if one["steps"] == steps and math.isfinite(one["mean"])]
    found: Row = (min if row["question"] == "sinusoids" else max)(mine, key=lambda one: one["mean"])
    return found


def report() -> str:
    """Returns the tables of the runs so far."""
    rows = jobs.read_rows(RESULTS)
    if not rows:
        return "There is no result yet."
    parts = []
    if waving := [row for row in rows if row["question"] == "sinusoids"]:
        parts += [
            "| sinusoids: start | 1 step at 0.01 | at its best rate | 10 steps at 0.01 | at its best | learned in |"
        ]
        parts += ["|---|---:|---:|---:|---:|---:|", *map(_waving_line, waving), ""]
    if digital := [row for row in rows if row["question"] == "digits"]:
        parts += ["| digits: start | accuracy, 5 steps | at its best rate | learned in |", "|---|---:|---:|---:|"]
        parts += [*map(_digital_line, digital), ""]
    dates, commits = sorted({row["date"] for row in rows}), sorted({row["commit"] for row in rows})
    minutes = sum(row["seconds"] for row in rows) / 60
    counts = " and ".join(map(str, JUDGED.values()))
    end = f"Means and 95 % intervals of {counts} episodes; {minutes:.0f} minutes of one thread; "
    return "\n".join([*parts, f"{end}{', '.join(dates)}, commit {', '.join(commits)}."])


def _waving_line(row: Row) -> str:
    cells = []
    for steps in STEPS["sinusoids"]:
        (plain,) = (one for one in row["scores"] if (one["steps"], one["rate"]) == (steps, 0.01))
        found = best(row, steps)
        cells += [f"{plain['mean']:.2f} ± {plain['half']:.2f}"]
        cells += [f"{found['mean']:.2f} ± {found['half']:.2f} ({found['rate']:g})"]
    return f"| {row['start']} | {' | '.join(cells)} | {row['learning']:.0f} s |"


def _digital_line(row: Row) -> str:
    found = best(row, STEPS["digits"][0])
    accuracy = f"{100 * found['mean']:.1f} ± {100 * found['half']:.1f} %"
    return f"| {row['start']} | {accuracy} | {found['rate']:g} | {row['learning']:.0f} s |"


def _describe(row: Row) -> str:
    found = ", ".join(f"{best(row, steps)['mean']:.3f} after {steps}" for steps in STEPS[row["question"]])
    return f"{row['question']}, {row['start']}: {found}; {row['seconds']:.0f} s"


def main() -> None:
    """Runs what the result file lacks, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", default="sinusoids,digits", help="comma-separated: sinusoids, digits")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only print the tables of the runs so far")
    arguments = parser.parse_args()
    if not arguments.report:
        known = {(row["question"], row["start"]) for row in jobs.read_rows(RESULTS)}
        wanted = arguments.questions.split(",")
        pending = [(one, name) for one in STARTS if one in wanted for name in STARTS[one] if (one, name) not in known]
        jobs.run_all(run, pending, RESULTS, arguments.workers, _describe)
    print(report())


if __name__ == "__main__":
    main()
