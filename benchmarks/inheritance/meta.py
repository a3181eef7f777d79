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

Voices: nine men who said two vowels, in twelve coefficients over time (Japanese Vowels of the UCI archive, which the
package aeon has: `pip install --no-deps aeon`). Likewise, by a network of one axis: learned from five of the men,
judged on the other four, four ways.

Every start is judged at its best rate of one grid, chosen on the very episodes of the table (of few shots on the first
60), which favours whatever was not learned for a rate. A finished (question, start) is one line in
`results/meta.jsonl`, and is not run again.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit

from ..common import jobs
from ..common.data import japanese_vowels, mnist_images
from ..common.jobs import Row

RESULTS = jobs.RESULTS / "meta.jsonl"
JUDGED = {"sinusoids": 600, "few": 500}
"""Episodes that every start is judged on."""
TRIED = 60
"""The first of those of few shots, on which each start's rate is chosen."""
WAVE_RATES, FEW_RATES = (0.003, 0.01, 0.03, 0.1), (0.03, 0.1, 0.3, 1.0)
WAVE_ROUNDS, WAVE_BATCH, WAVE_RATE = 8_000, 4, 0.003
FEW_ROUNDS, FEW_BATCH = 250, 4
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


# Few shots


@dataclass(frozen=True)
class Few:
    """Classes of which some are learned from, and others judged on, few rows of each at a time.

    Attributes:
        rows: gives inputs and labels.
        network: makes the model, with a head at `head` for as many classes as an episode has.
        head: place of its last layer.
        ways: classes of an episode.
        learned: classes to learn from.
        judged: the others.
        epochs: of the pretrained start, on the classes to learn from.
    """

    rows: Callable[[], tuple[Tensor, Tensor]]
    network: Callable[[int], Model]
    head: int
    ways: int
    learned: range
    judged: range
    epochs: int

    def episodes(self, classes: range, seed: int) -> Any:
        """Returns episodes of some of the classes: five rows of each to adapt to, fifteen to be judged on."""
        x, y = self.rows()
        return autoinit.episodes(x, y, ways=self.ways, shots=5, queries=15, classes=classes, seed=seed)


def digit_network(ways: int) -> Model:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((1, 32), (32, 32), (32, 32)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4, ways))


def digit_rows() -> tuple[Tensor, Tensor]:
    split = mnist_images()
    return torch.cat([split.train_x, split.val_x]), torch.cat([split.train_y, split.val_y])


def voice_network(ways: int) -> Model:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, stride in ((12, 1), (32, 2), (32, 2)):
        layers += [nn.Conv1d(before, 32, 3, stride=stride, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 8, ways))


FEW = {
    "digits": Few(digit_rows, digit_network, 7, 5, range(5), range(5, 10), 10),
    "voices": Few(japanese_vowels, voice_network, 7, 4, range(5), range(5, 9), 40),
}


def learned_on(few: Few, method: str, first: str | None = None) -> Start:
    """Returns a start that is learned from the owner's draw, or from a recipe's."""

    def start(model: Model) -> Model:
        model = drawn(few, first)(model)
        rates: dict[str, Any] = {"inner_lr": 0.1, "outer_lr": 0.3 if method == "reptile" else 0.001}
        learned: Any = autoinit.meta_learn
        tasks, how = few.episodes(few.learned, 1), {"inner_steps": 5, "rounds": FEW_ROUNDS, "meta_batch": FEW_BATCH}
        learned(model, tasks, method=method, **how, **rates).apply_(model)
        return model

    return start


def pretrained_on(few: Few) -> Start:
    def start(model: Model) -> Model:
        x, y = few.rows()
        known = y < few.learned.stop
        x, y, head = x[known], y[known], copy.deepcopy(model[few.head])
        model[few.head] = nn.Linear(head.in_features, few.learned.stop)
        optimizer, orders = torch.optim.Adam(model.parameters(), lr=1e-3), torch.Generator().manual_seed(0)
        for _ in range(few.epochs):
            for rows in torch.randperm(len(x), generator=orders).split(50):
                optimizer.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
        model[few.head] = head
        return model

    return start


def drawn(few: Few, recipe: str | None) -> Start:
    def start(model: Model) -> Model:
        if recipe is not None:
            autoinit.apply_(model, recipe, few.episodes(few.learned, 1).episode(0)[0])
        return model

    return start


def _starts_of(few: Few) -> dict[str, Start]:
    return {
        "maml": learned_on(few, "maml"),
        **{name: drawn(few, recipe) for name, recipe in DRAWN.items()},
        "pretrained": pretrained_on(few),
        **{name: learned_on(few, name) for name in ("reptile", "fomaml", "anil")},
        **{
            f"{name}, from he_normal": learned_on(few, name, "he_normal")
            for name in ("maml", "reptile", "fomaml", "anil")
        },
    }


STARTS: dict[str, dict[str, Start]] = {
    "sinusoids": {
        "maml": learned_on_waves("maml"),
        "pretrained": pretrained_on_waves,
        "torch's default": lambda model: model,
        **{name: learned_on_waves(name) for name in ("fomaml", "reptile", "anil")},
    },
    **{question: _starts_of(few) for question, few in FEW.items()},
}
STEPS = {"sinusoids": (1, 10), **dict.fromkeys(FEW, (5,))}


def run(question: str, name: str) -> Row:
    """Returns the row of one start: its scores after each number of steps, at each rate."""
    begun, few = time.perf_counter(), FEW.get(question)
    model = STARTS[question][name](few.network(few.ways) if few else wave_network())
    learning = time.perf_counter() - begun
    tasks = few.episodes(few.judged, 1000) if few else waves(1000, 5, 100)
    part = str(few.head if few else 4) if name.startswith("anil") else None
    rates = WAVE_RATES
    if few:  # the rate that is best on the first episodes, which are among those of the table
        tried = [_scores(model, tasks, TRIED, _options(5, rate, part)) for rate in FEW_RATES]
        rates = (max(tried, key=lambda one: float(one["mean"]))["rate"],)
    counts = JUDGED["few" if few else question]
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
    for question in FEW:
        if mine := [row for row in rows if row["question"] == question]:
            parts += [
                f"| {question}: start | accuracy, 5 steps | at its best rate | learned in |",
                "|---|---:|---:|---:|",
            ]
            parts += [*map(_few_line, mine), ""]
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


def _few_line(row: Row) -> str:
    found = best(row, STEPS[row["question"]][0])
    accuracy = f"{100 * found['mean']:.1f} ± {100 * found['half']:.1f} %"
    return f"| {row['start']} | {accuracy} | {found['rate']:g} | {row['learning']:.0f} s |"


def _describe(row: Row) -> str:
    found = ", ".join(f"{best(row, steps)['mean']:.3f} after {steps}" for steps in STEPS[row["question"]])
    return f"{row['question']}, {row['start']}: {found}; {row['seconds']:.0f} s"


def main() -> None:
    """Runs what the result file lacks, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", default=",".join(STARTS), help="comma-separated: " + ", ".join(STARTS))
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
