"""Lottery tickets on LeNet-300-100: five ways to choose masks, beside the dense network and random masks.

    python -m benchmarks.inheritance.tickets                # five seeds at two sparsities
    python -m benchmarks.inheritance.tickets --seeds 1
    python -m benchmarks.inheritance.tickets --report       # the table of the runs so far

A ReLU network 784-300-100-10 of PyTorch's own draw is trained by Adam (1.2e-3, batches of 60, as in the paper) on 4,000
MNIST digits. Each method chooses masks at 80 and at 95 %; every ticket is then trained for as many steps, on the same
batches in the same order, as the dense network. "Re-drawn" are the masks of the magnitude ticket on fresh weights,
"random, its densities" as many entries of each layer at random, on the ticket's own weights. Magnitude prunes all
layers together, in as many rounds as remove a fifth each, each of as many steps. Nothing was tuned.

The outcome is the accuracy on 1,000 held-back digits at the end. A finished (method, sparsity, seed) is one line in
`results/tickets.jsonl`, and is not run again; `choosing` are the seconds that its choice took. What needs the masks of
the magnitude ticket is made by the job of that ticket.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

import autoinit

from ..common import jobs
from ..common.data import mnist_rows
from ..common.jobs import Row
from ..common.statistics import paired_interval

RESULTS = jobs.RESULTS / "tickets.jsonl"
RATE, BATCH, STEPS = 1.2e-3, 60, 600
SPARSITIES = (0.8, 0.95)
DENSE, MAGNITUDE, REDRAWN, RANDOM = "dense", "magnitude", "magnitude, re-drawn", "random, its densities"
METHODS = (MAGNITUDE, "snip", "grasp", "synflow")
"""Those that are a job of their own; `RELATED` comes with the first."""
RELATED = (REDRAWN, RANDOM)


def network(seed: int) -> nn.Sequential:
    """Returns LeNet-300-100 in PyTorch's own draw."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


def run(method: str, sparsity: float, seed: int) -> Row:
    """Returns the row of one method, with the accuracies of all that it is the basis of."""
    start, model = time.perf_counter(), network(seed)
    if method == DENSE:
        found = {DENSE: trained(model, seed)}
        chosen, densities = 0.0, {}
    else:
        ticket = choose(model, method, sparsity, seed)
        chosen, densities = time.perf_counter() - start, ticket.densities
        found = {method: worn(ticket, model, seed)}
    if method == MAGNITUDE:
        data = _data()
        other = autoinit.ticket(model, data, sparsity, method="random", densities=ticket, seed=seed)
        found[REDRAWN] = worn(ticket, network(1000 + seed), seed, weights=False)
        found[RANDOM] = worn(other, model, seed)
    return {
        "method": method,
        "sparsity": sparsity,
        "seed": seed,
        "accuracy": found,
        "densities": densities,
        "choosing": chosen,
        "seconds": time.perf_counter() - start,
        **jobs.provenance(),
    }


def choose(model: nn.Module, method: str, sparsity: float, seed: int) -> autoinit.Ticket:
    """Returns the ticket of a method."""
    if method != MAGNITUDE:
        return autoinit.ticket(model, _data(), sparsity, method=method, seed=seed)
    return autoinit.ticket(model, _data(), sparsity, steps=STEPS, optimizer=_adam, seed=seed)


def worn(ticket: autoinit.Ticket, model: nn.Module, seed: int, *, weights: bool = True) -> float:
    """Returns the accuracy of a copy of a model that has been trained with a ticket."""
    model = copy.deepcopy(model)
    ticket.apply_(model, weights=weights)
    return trained(model, seed)


def trained(model: nn.Module, seed: int) -> float:
    """Trains a model in place and returns its accuracy on held-back digits."""
    split, orders = mnist_rows(), torch.Generator().manual_seed(seed)
    optimizer, order = _adam(list(model.parameters())), torch.empty(0, dtype=torch.long)
    for _ in range(STEPS):
        if len(order) < BATCH:
            order = torch.randperm(len(split.train_x), generator=orders)
        rows, order = order[:BATCH], order[BATCH:]
        optimizer.zero_grad()
        F.cross_entropy(model(split.train_x[rows]), split.train_y[rows]).backward()
        optimizer.step()
    for module in model.modules():
        if prune.is_pruned(module) and isinstance(module, nn.Linear):
            prune.remove(module, "weight")
    with torch.no_grad():
        return float((model(split.val_x).argmax(1) == split.val_y).double().mean())


def _adam(parameters: Sequence[nn.Parameter]) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=RATE)


def _data() -> list[tuple[Tensor, Tensor]]:
    split = mnist_rows()
    return list(zip(split.train_x.split(BATCH), split.train_y.split(BATCH), strict=True))


# The table


def report() -> str:
    """Returns the table of the runs so far."""
    rows = jobs.read_rows(RESULTS)
    if not rows:
        return "There is no result yet."
    lines = [
        "| sparsity | masks | held-back accuracy, % | beside dense | beside magnitude | choosing, s |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    dense = _accuracies(rows, DENSE, 0.0)
    if dense:
        lines.append(f"| 0 % | dense | {_percent(list(dense.values()))} | | | |")
    for sparsity in SPARSITIES:
        own = _accuracies(rows, MAGNITUDE, sparsity)
        for method in (MAGNITUDE, *RELATED, *METHODS[1:]):
            mine = _accuracies(rows, method, sparsity)
            if mine:
                cost = [one["choosing"] for one in rows if (one["method"], one["sparsity"]) == (method, sparsity)]
                lines.append(
                    f"| {100 * sparsity:.0f} % | {method} | {_percent(list(mine.values()))} | {_gap(mine, dense)} | "
                    f"{_gap(mine, own) if method != MAGNITUDE else ''} | {_seconds(cost)} |"
                )
    dates, commits = sorted({row["date"] for row in rows}), sorted({row["commit"] for row in rows})
    counts, minutes = len({row["seed"] for row in rows}), sum(row["seconds"] for row in rows) / 60
    head = f"Mean and 95 % interval of {counts} seeds; {minutes:.0f} minutes of one thread; {', '.join(dates)}, commit "
    return "\n".join([f"{head}{', '.join(commits)}.", "", *lines])


def _accuracies(rows: Sequence[Row], method: str, sparsity: float) -> dict[int, float]:
    return {
        row["seed"]: row["accuracy"][method]
        for row in rows
        if row["sparsity"] == sparsity and method in row["accuracy"]
    }


def _gap(mine: dict[int, float], other: dict[int, float]) -> str:
    return _percent([value - other[seed] for seed, value in mine.items() if seed in other], sign="+")


def _percent(values: Sequence[float], sign: str = "") -> str:
    """Returns "91.2 ± 0.4", a mean with half of its interval, in percent."""
    if not values:
        return "–"
    found = paired_interval(values, 0.95)
    return f"{100 * found.estimate:{sign}.1f} ± {100 * (found.high - found.estimate):.1f}"


def _seconds(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.2g}" if values else ""


def _describe(row: Row) -> str:
    found = ", ".join(f"{name} {100 * value:.1f} %" for name, value in row["accuracy"].items())
    return f"{row['method']}, {row['sparsity']:g}, seed {row['seed']}: {found}, {row['seconds']:.0f} s"


def main() -> None:
    """Runs what the result file lacks, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only print the table of the runs so far")
    arguments = parser.parse_args()
    if not arguments.report:
        known = {(row["method"], row["sparsity"], row["seed"]) for row in jobs.read_rows(RESULTS)}
        wanted = [
            job
            for seed in range(arguments.seeds)  # outermost: an interrupted run has whole seeds
            for job in [(DENSE, 0.0, seed), *((method, at, seed) for at in SPARSITIES for method in METHODS)]
        ]
        jobs.run_all(run, [job for job in wanted if job not in known], RESULTS, arguments.workers, _describe)
    print(report())


if __name__ == "__main__":
    main()
