"""What a search has after so many candidates, begun by well-known recipes, by recommended ones, and by both in turns.

Replayed from the dense records: a search tries candidates in an order, takes the one with the lowest held-back loss on
the first seed, as-is among them, and is scored on the other seeds. It looks after a few steps (16 to 20), as short
searches do, or at the end. The orders: *well-known*, `select`'s own opening on that architecture; *recommended*, the
recommender's list, fitted without the families of the task; *by turns*, one of each, as `select` begins; *random*.
No training is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoinit.recipes.space import space_of
from autoinit.recommender.evaluation import SPLITS
from autoinit.recommender.examples import SMALLEST_SCALE, Examples, Results
from autoinit.recommender.informed import leads_of
from autoinit.recommender.learner import Learner, folds
from autoinit.recommender.model import fit_examples
from autoinit.recommender.warm import by_turns
from autoinit.study.toml_file import read_study
from autoinit.study.workbench import Workbench

COUNTS = (1, 2, 4, 6, 8, 12, 16)
"""Candidates besides as-is at which searches are looked at."""
FEW, ALL = "after a few steps", "at the end"
"""When the choice is made."""

Regrets = dict[tuple[str, str], list[list[float]]]
"""By the choice's time and the order: for each task, the regret with each of `COUNTS`."""


def replayed(found: Results, order: Sequence[int], seen: np.ndarray[Any, Any]) -> list[float]:
    """Returns the regret of a search that tries candidates in an order, with each of `COUNTS`.

    Args:
        found: of the task.
        order: places of candidates; as-is is always at hand.
        seen: [candidates], what the choice is made by, lower is better.
    """
    final = found.mean(found.seeds[1:])
    scale = max(float(final[0] - final.min()), 2 * found.noise, SMALLEST_SCALE)
    chosen = (min([0, *order[:count]], key=lambda place: seen[place]) for count in COUNTS)
    return [float(final[place] - final.min()) / scale for place in chosen]


def openings(examples: Examples, studies: Sequence[Path]) -> list[list[str]]:
    """Returns for each task the keys of the recipes that `select` begins with on its architecture.

    Args:
        examples: of the tasks.
        studies: files that have them.
    """
    specs = [(read_study(study), study.parent) for study in studies]
    tasks = {task.name: (task, spec.seeds[0], folder) for spec, folder in specs for task in spec.tasks}
    found = []
    for result in examples.results:
        task, seed, folder = tasks[result.task.name]
        at = Workbench(task, seed, [folder])
        try:
            found.append([recipe.key for recipe in space_of(at.graph, lr_searched=False).opening])
        finally:
            at.close()
    return found


def searches(examples: Examples, opening: Sequence[Sequence[str]], most_folds: int | None = None) -> Regrets:
    """Returns the regrets of each kind of search on every task, learned from other families only."""
    groups = [SPLITS["family"](found) for found in examples.results]
    done: dict[tuple[str, str], dict[int, list[float]]] = {}
    for part in folds(groups, min(len(set(groups)), most_folds or len(groups))):
        model = fit_examples(examples.of([task for task in range(len(groups)) if task not in set(part)]))
        for task in part:
            found = examples.results[task]
            begun = leads_of(found)
            seen = {ALL: found.mean(found.seeds[:1])}
            if begun is not None and np.isfinite(begun[0][:, 0]).all():
                seen[FEW] = -begun[0][:, 0]
            for name, order in _orders(found, opening[task], model.learner, examples.features[examples.rows(task)]):
                for when, losses in seen.items():
                    done.setdefault((when, name), {})[task] = replayed(found, order, losses)
    return {key: [of_task[task] for task in sorted(of_task)] for key, of_task in done.items()}


def _orders(
    found: Results, opening: Sequence[str], learner: Learner, rows: np.ndarray[Any, Any]
) -> list[tuple[str, list[int]]]:
    known = [found.keys.index(key) for key in opening if key in found.keys]
    predicted = learner.predict(rows)
    recommended = [place for place in predicted.first(predicted.place, len(rows)) if place != 0]
    drawn = np.random.default_rng(int(found.task.fingerprint, 16) % 2**32).permutation(np.arange(1, len(found.keys)))
    return [
        ("well-known", known),
        ("recommended", recommended),
        ("by turns", by_turns(recommended, known)),
        ("random", drawn.tolist()),
    ]


def report(found: Regrets) -> str:
    """Returns the mean regret by number of candidates, in Markdown."""
    lines = [
        f"| the choice is made | candidates | {' | '.join(map(str, COUNTS))} | tasks |",
        "| --- | --- |" + " ---: |" * (len(COUNTS) + 1),
    ]
    for (when, name), tasks in sorted(found.items(), key=lambda item: item[0][0]):
        means = " | ".join(f"{mean:.2f}" for mean in np.mean(tasks, axis=0))
        lines.append(f"| {when} | {name} | {means} | {len(tasks)} |")
    return "\n".join(lines)
