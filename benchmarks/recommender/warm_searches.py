"""What a search reaches with so many probes, begun by the recommender (warm) and by the library's opening (cold).

Replayed from the dense records: a search tries candidates in an order, takes the one with the lowest loss on the first
seed, and is scored on the other seeds. Cold is `select`'s own opening on that architecture, then the other candidates
in an order drawn for each task; warm is the recommender's, fitted without the families of the task. No probe is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoinit.recipes.space import space_of
from autoinit.recommender.evaluation import SPLITS
from autoinit.recommender.examples import SMALLEST_SCALE, Examples, Results
from autoinit.recommender.learner import Learner, folds
from autoinit.recommender.model import fit_examples
from autoinit.study.toml_file import read_study
from autoinit.study.workbench import Workbench

COUNTS = (1, 2, 3, 5, 8, 12, 16, 24)
"""Probes at which searches are looked at."""
FULL = 24
"""Probes of a whole search: what a minute's budget tries."""


@dataclass(frozen=True)
class Searched:
    """A search of one task, replayed.

    Attributes:
        regret: after each number of probes from 1 on; of the choice, on the fresh seeds.
        loss: of the same choice there.
        noise: standard deviation of a loss over the seeds, of the median candidate.
    """

    regret: np.ndarray[Any, Any]
    loss: np.ndarray[Any, Any]
    noise: float


def replayed(found: Results, order: Sequence[int]) -> Searched:
    """Returns what a search that tries candidates in an order has after each probe; as-is is always at hand."""
    choice, final = found.mean(found.seeds[:1]), found.mean(found.seeds[1:])
    scale = max(float(final[0] - final.min()), 2 * found.noise, SMALLEST_SCALE)
    best, losses = 0, []
    for place in order:
        best = place if choice[place] < choice[best] else best
        losses.append(float(final[best]))
    loss = np.array(losses)
    return Searched((loss - final.min()) / scale, loss, found.noise)


def probes_to(reached: Searched, goal: float) -> float:
    """Returns the probes after which a search is first at a loss, or within half of the noise of it; inf if never."""
    there = np.flatnonzero(reached.loss <= goal + reached.noise / 2)
    return float(there[0] + 1) if len(there) else float("inf")


def openings(examples: Examples, study: Path) -> list[list[str]]:
    """Returns for each task the keys of the recipes that `select` begins with on its architecture."""
    spec = read_study(study)
    tasks = {task.name: task for task in spec.tasks}
    found = []
    for result in examples.results:
        at = Workbench(tasks[result.task.name], spec.seeds[0], [study.parent])
        try:
            found.append([recipe.key for recipe in space_of(at.graph, lr_searched=False).opening])
        finally:
            at.close()
    return found


def searches(examples: Examples, opening: Sequence[Sequence[str]]) -> dict[str, list[Searched]]:
    """Returns each kind of search on every task, learned from the other families only."""
    groups = [SPLITS["family"](found) for found in examples.results]
    done: dict[str, dict[int, Searched]] = {name: {} for name in ("cold", "warm")}
    for part in folds(groups, len(set(groups))):
        model = fit_examples(examples.of([task for task in range(len(groups)) if task not in set(part)]))
        for task in part:
            found = examples.results[task]
            done["cold"][task] = replayed(found, _cold(found, opening[task]))
            done["warm"][task] = replayed(found, _warm(model.learner, examples.features[examples.rows(task)]))
    return {name: [of_task[task] for task in range(len(groups))] for name, of_task in done.items()}


def _cold(found: Results, opening: Sequence[str]) -> list[int]:
    known = [found.keys.index(key) for key in opening if key in found.keys]
    seed = int(found.task.fingerprint, 16) % 2**32
    rest = [place for place in np.random.default_rng(seed).permutation(len(found.keys)) if place not in {0, *known}]
    return [*known, *map(int, rest)]


def _warm(learner: Learner, rows: np.ndarray[Any, Any]) -> list[int]:
    predicted = learner.predict(rows)
    return [place for place in predicted.first(predicted.place, len(rows)) if place != 0]


def report(found: dict[str, list[Searched]]) -> str:
    """Returns regret by number of probes, and the probes to the end of a cold search, in Markdown."""
    lines = [
        f"| search | {' | '.join(f'{count} probes' for count in COUNTS)} | probes to cold's end (median) | never |",
        "| --- |" + " ---: |" * (len(COUNTS) + 2),
    ]
    goals = [one.loss[min(FULL, len(one.loss)) - 1] for one in found["cold"]]
    for name, tasks in found.items():
        needed = [probes_to(one, goal) for one, goal in zip(tasks, goals, strict=True)]
        regrets = [f"{np.mean([one.regret[min(count, len(one.regret)) - 1] for one in tasks]):.3f}" for count in COUNTS]
        never = np.mean(np.isinf(needed))
        lines.append(f"| {name} | {' | '.join(regrets)} | {np.median(needed):.0f} of {FULL} | {never:.0%} |")
    return "\n".join(lines)
