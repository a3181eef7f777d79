"""Stale weights: what shrink and perturb, renewed dormant units and L2 do for a network trained on task after task.

    python -m benchmarks.inheritance.continual --workers 2          # five sequences, eight methods
    python -m benchmarks.inheritance.continual --sequences "random labels" --seeds 1
    python -m benchmarks.inheritance.continual --report             # the table of the runs so far

A ReLU network 784-256-256 is trained by Adam on one task after the other: MNIST digits (5,000) with their pixels in
another order each time, pairs of digits with a new head each time, the same 800 digits with random labels each time
(25 tasks each), and half of the digits before all of them. A small convolutional ReLU network learns half of 2,000
warped digits by heart, then all of them. What a method does, it does before each task but the first, or every 40 steps;
nothing of it was tuned. "As it is, Adam anew" shows how much of a method comes from the optimizer's
state, which shrink and perturb and a fresh start begin anew.

Outcomes, over the last ten tasks (where half of the digits come first: the last one): accuracy on the newest task at
its end, on held-back rows (of random labels: on those of training); accuracy at the very end on up to ten tasks before
the last one; share of dormant units (scores up to 0.025) at each task's end. A row's `learned` is the accuracy on the
rows of training at each task's end. A finished (sequence, method, seed) is one line in `results/continual.jsonl`, and
is not run again.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit
from autoinit.graph import Graph
from autoinit.renewal.dormant import find_dormant, renew_dormant
from autoinit.renewal.renewal import shrink_and_perturb

from ..common import jobs
from ..common.jobs import Row
from ..common.statistics import paired_interval
from .sequences import SEQUENCES, Course, Network, Part

RESULTS = jobs.RESULTS / "continual.jsonl"
RATE, BATCH = 1e-3, 50
THRESHOLD, PROBE = 0.025, 500
"""Score up to which a unit is dormant (Sokar et al. 2023), and rows on which scores are taken."""
LAST = 10
"""Tasks at the end of a sequence over which outcomes are averaged."""


@dataclass(frozen=True)
class Method:
    """What is done against stale weights.

    Attributes:
        fresh: start anew for each task.
        shares: of shrink and perturb before each task; empty for none.
        every: steps after which dormant units are renewed; 0 for never.
        clears: whether the optimizer's state of renewed units is cleared.
        anew: whether the optimizer starts anew with each task.
        decay: weight of the squared weights in the loss.
    """

    fresh: bool = False
    shares: tuple[float, ...] = ()
    every: int = 0
    clears: bool = False
    anew: bool = False
    decay: float = 0.0


METHODS = {
    "as it is": Method(),
    "as it is, Adam anew": Method(anew=True),
    "fresh start": Method(fresh=True, anew=True),
    "shrink 0.8, perturb 0.1": Method(shares=(0.8, 0.1), anew=True),
    "shrink 0.4, perturb 0.4": Method(shares=(0.4, 0.4), anew=True),
    "ReDo": Method(every=40, clears=True),
    "ReDo, state kept": Method(every=40),
    "L2": Method(decay=1e-3),
}


def run(sequence: str, name: str, seed: int) -> Row:
    """Returns the row of one sequence, method and seed."""
    method, course, start = METHODS[name], SEQUENCES[sequence], time.perf_counter()
    parts = course.parts(seed)
    model = course.network(parts[0].classes, seed)
    graph = autoinit.trace(model, tuple(one[:BATCH] for one in parts[0].train))
    optimizer = _adam(model, method)
    orders = torch.Generator().manual_seed(seed)
    newest, learned, dormant, heads, renewed = [], [], [], [], 0
    for number, part in enumerate(parts):
        if number:
            fresh = course.network(part.classes, 1000 * (seed + 1) + number)
            model, optimizer = _prepared(model, optimizer, graph, method, fresh, heads_differ=course.heads_differ)
        renewed += _train(model, optimizer, graph, method, part, orders, network=course.network)
        newest.append(_accuracy(model, part.held_back))
        learned.append(_accuracy(model, part.train))
        dormant.append(find_dormant(model, graph, [part.held_back[0][:PROBE]], threshold=THRESHOLD).share)
        heads.append(copy.deepcopy(model[-1]))
    shared = [_accuracy(_with_head(model, heads[at], course), parts[at].held_back) for at in range(len(parts) - 1)]
    return {
        "sequence": sequence,
        "method": name,
        "seed": seed,
        "newest": newest,
        "learned": learned,
        "old": shared,
        "dormant": dormant,
        "renewed": renewed,
        "seconds": time.perf_counter() - start,
        **jobs.provenance(),
    }


def _adam(model: nn.Module, method: Method) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=RATE, weight_decay=method.decay)


def _prepared(
    model: nn.Sequential,
    optimizer: torch.optim.Adam,
    graph: Graph,
    method: Method,
    fresh: nn.Sequential,
    *,
    heads_differ: bool,
) -> tuple[nn.Sequential, torch.optim.Adam]:
    """Returns model and optimizer as they go into a new task; of pairs of digits every method has a new head."""
    if method.fresh:
        return fresh, _adam(fresh, method)
    if method.shares:
        draw = dict(fresh.named_parameters())
        shrink, perturb = method.shares
        _set(model, shrink_and_perturb(model, draw, graph, shrink=shrink, perturb=perturb).values)
    if heads_differ:
        _set(model, {f"{len(model) - 1}.{name}": value for name, value in fresh[-1].named_parameters()})
        for parameter in model[-1].parameters():
            optimizer.state.pop(parameter, None)
    return model, _adam(model, method) if method.anew else optimizer


def _train(
    model: nn.Sequential,
    optimizer: torch.optim.Adam,
    graph: Graph,
    method: Method,
    part: Part,
    orders: torch.Generator,
    *,
    network: Network,
) -> int:
    """Trains one task and returns how many units were renewed, from fresh draws of the network."""
    x, y = part.train
    renewed = 0
    order = torch.empty(0, dtype=torch.long)
    for step in range(part.steps):
        if len(order) < BATCH:
            order = torch.randperm(len(x), generator=orders)
        rows, order = order[:BATCH], order[BATCH:]
        if method.every and step and step % method.every == 0:
            renewed += _renew(model, optimizer, graph, method, x[:PROBE], orders, network=network)
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return renewed


def _renew(
    model: nn.Sequential,
    optimizer: torch.optim.Adam,
    graph: Graph,
    method: Method,
    x: Tensor,
    orders: torch.Generator,
    *,
    network: Network,
) -> int:
    """Renews the dormant units and returns how many there were."""
    found = find_dormant(model, graph, [x], threshold=THRESHOLD)
    if found.dormant:
        seed = int(torch.randint(0, 2**31, (), generator=orders))
        draw = dict(network(model[-1].out_features, seed).named_parameters())
        renewal = renew_dormant(model, graph, found, draw)
        _set(model, renewal.given.values)
        if method.clears:
            renewal.clear_state(optimizer)
    return sum(map(len, found.dormant.values()))


def _set(model: nn.Module, values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            model.get_parameter(name).copy_(value)


def _with_head(model: nn.Sequential, head: nn.Module, course: Course) -> nn.Sequential:
    """Returns the network that judges an old task: of pairs of digits with the head that it had."""
    return nn.Sequential(*model[:-1], head) if course.heads_differ else model


def _accuracy(model: nn.Module, rows: tuple[Tensor, Tensor]) -> float:
    x, y = rows
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


# The table


def outcomes(row: Row) -> tuple[float, float, float]:
    """Returns the outcomes of one run: accuracy on the newest task, on old ones, share of dormant units."""
    last = LAST if len(row["newest"]) > LAST else 1
    return mean(row["newest"][-last:]), mean(row["old"][-LAST:]), mean(row["dormant"][-last:])


def report() -> str:
    """Returns the table of the runs so far."""
    rows = jobs.read_rows(RESULTS)
    if not rows:
        return "There is no result yet."
    lines = [
        "| sequence | method | newest task, % | beside as it is | old tasks, % | dormant units, % |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for sequence in SEQUENCES:
        own = {row["seed"]: outcomes(row) for row in rows if (row["sequence"], row["method"]) == (sequence, "as it is")}
        for method in METHODS:
            mine = {
                row["seed"]: outcomes(row) for row in rows if (row["sequence"], row["method"]) == (sequence, method)
            }
            if mine:
                lines.append(f"| {sequence} | {method} | {_cells(mine, own)} |")
    dates, commits = sorted({row["date"] for row in rows}), sorted({row["commit"] for row in rows})
    minutes, counts = sum(row["seconds"] for row in rows) / 60, _seeds(rows)
    head = f"Mean and 95 % interval of {counts} seeds; {minutes:.0f} minutes of one thread; {', '.join(dates)}, commit "
    return "\n".join([f"{head}{', '.join(commits)}.", "", *lines])


def _seeds(rows: Sequence[Row]) -> str:
    """Returns "3", or "3 to 5" where sequences have been run with different numbers of seeds."""
    counts = sorted({len({row["seed"] for row in rows if row["sequence"] == name}) for name in SEQUENCES} - {0})
    return " to ".join(map(str, sorted({counts[0], counts[-1]})))


def _cells(mine: dict[int, tuple[float, float, float]], own: dict[int, tuple[float, float, float]]) -> str:
    newest, old, dormant = ([one[at] for one in mine.values()] for at in range(3))
    gaps = [one[0] - own[seed][0] for seed, one in mine.items() if seed in own]
    other = any(abs(one - two) > 1e-12 for one, two in zip(newest, old, strict=True))  # else both have the same rows
    return " | ".join((_percent(newest), _percent(gaps, sign="+"), _percent(old if other else []), _percent(dormant)))


def _percent(values: Sequence[float], sign: str = "") -> str:
    """Returns "91.2 ± 0.4", a mean with half of its interval, in percent."""
    if not values:
        return "–"
    found = paired_interval(values, 0.95)
    return f"{100 * found.estimate:{sign}.1f} ± {100 * (found.high - found.estimate):.1f}"


def _describe(row: Row) -> str:
    newest, old, dormant = outcomes(row)
    return (
        f"{row['sequence']}, {row['method']}, seed {row['seed']}: newest {100 * newest:.1f} %, old {100 * old:.1f} %, "
        f"dormant {100 * dormant:.1f} %, renewed {row['renewed']}, {row['seconds']:.0f} s"
    )


def main() -> None:
    """Runs what the result file lacks, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sequences", default="all", help="comma-separated beginnings of names, such as half,warped, or all"
    )
    parser.add_argument("--seeds", type=int, help="of each sequence; left out: as many as it has in the documents")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only print the table of the runs so far")
    arguments = parser.parse_args()
    if not arguments.report:
        known = {(row["sequence"], row["method"], row["seed"]) for row in jobs.read_rows(RESULTS)}
        wanted = arguments.sequences.split(",")
        names = [name for name in SEQUENCES if arguments.sequences == "all" or any(map(name.startswith, wanted))]
        seeds = {name: SEQUENCES[name].seeds if arguments.seeds is None else arguments.seeds for name in names}
        # Seeds outermost: an interrupted run has whole seeds of all sequences.
        pending = [
            (name, method, seed)
            for seed in range(max(seeds.values(), default=0))
            for name in names
            for method in METHODS
            if seed < seeds[name] and (name, method, seed) not in known
        ]
        jobs.run_all(run, pending, RESULTS, arguments.workers, _describe)
    print(report())


if __name__ == "__main__":
    main()
