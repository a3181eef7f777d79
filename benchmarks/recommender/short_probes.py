"""What a few short trainings add to the recommender, on tasks that were not learned from: replayed from the records.

    python -m benchmarks.recommender.short_probes                       # the shipped knowledge, a family left out
    python -m benchmarks.recommender.short_probes --knowledge known.jsonl.xz --folds 9

A probe is the first rung of a recorded training (16 or 20 steps) on the first seed, beside as-is's on the same batches.
`recommend(probes=k)` tries k recipes, one after the other, and recommends one of them, or as-is. Its choice meets the
other seeds at their full length. Beside it: the recommender without probes, the same number of recipes each trained to
the end, and the plain choice of whatever leads after the same short probes.

Regret and harm are as in `held_out`, of the loss on held-back rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from autoinit.knowledge.files import read_knowledge, shipped
from autoinit.recommender.evaluation import SPLITS, Ranking, Scored, scored, several_seeds
from autoinit.recommender.examples import Examples, Results, examples_of
from autoinit.recommender.informed import leads_of
from autoinit.recommender.learner import Predicted, folds
from autoinit.recommender.model import Recommender, fit_examples

from .held_out import interval

COUNTS = (1, 2, 3, 5, 8)
Chosen = Callable[[Recommender, Predicted, Results, int], tuple[int, bool]]
"""Chooses a candidate with so many probes; and whether the answer was "unsure"."""


def with_short_probes(model: Recommender, predicted: Predicted, found: Results, count: int) -> tuple[int, bool]:
    """What `recommend(probes=k)` does."""
    began = leads_of(found)
    if began is None or model.informed is None:
        return 0, True
    leads = began[0][:, 0]
    settled = model.informed.tried(
        predicted,
        model.worth(predicted),
        lambda place: float(leads[place]),
        float(began[1][0]),
        own=0,
        count=count,
        allowed=np.flatnonzero(np.isfinite(leads)).tolist(),
    )
    return (settled.best if settled.answer == "try" else 0), settled.answer == "unsure"


def whatever_leads(model: Recommender, predicted: Predicted, found: Results, count: int) -> tuple[int, bool]:
    """The first of the list that leads most after as many short probes."""
    began = leads_of(found)
    if began is None:
        return 0, True
    leads = began[0][:, 0]
    places = [place for place in predicted.first(model.worth(predicted), count + 1) if place != 0][:count]
    best = max(places, key=lambda place: leads[place] if np.isfinite(leads[place]) else -np.inf)
    return (best if leads[best] > 0 else 0), False


def trained_to_the_end(model: Recommender, predicted: Predicted, found: Results, count: int) -> tuple[int, bool]:
    """The best of as-is and the first of the list, each trained to its end on the first seed."""
    places = [place for place in predicted.first(model.worth(predicted), count + 1) if place != 0][:count]
    losses = found.losses[:, 0]
    return min([0, *places], key=lambda place: losses[place]), False


def without(model: Recommender, predicted: Predicted, found: Results, count: int) -> tuple[int, bool]:
    """The recommender's first choice, whatever the number."""
    verdict = model.learner.verdict(predicted, 0, 1)
    return (verdict.likeliest if verdict.answer == "try" else 0), verdict.answer == "unsure"


WAYS: dict[str, Chosen] = {
    "recommender, no probe": without,
    "short probes": with_short_probes,
    "whatever leads after them": whatever_leads,
    "each trained to the end": trained_to_the_end,
}


def replayed(examples: Examples, most_folds: int | None) -> dict[tuple[str, int], list[Scored]]:
    """Returns how each way did on every task with each number of probes, learned from other families only."""
    groups = [SPLITS["family"](found) for found in examples.results]
    done: dict[tuple[str, int], dict[int, Scored]] = {(way, count): {} for way in WAYS for count in COUNTS}
    for part in folds(groups, min(len(set(groups)), most_folds or len(groups))):
        model = fit_examples(examples.of([task for task in range(len(groups)) if task not in set(part)]))
        for task in part:
            found = examples.results[task]
            predicted = model.learner.predict(examples.features[examples.rows(task)])
            for (way, count), of_task in done.items():
                place, unsure = WAYS[way](model, predicted, found, count)
                of_task[task] = scored(found, _only(place, len(found.keys), unsure))
    return {key: [of_task[task] for task in range(len(groups))] for key, of_task in done.items()}


def _only(place: int, count: int, unsure: bool) -> Ranking:
    """Returns a ranking that has one candidate first."""
    worth = np.zeros(count)
    worth[place] = 1.0
    return Ranking(worth, flagged=unsure)


def report(found: dict[tuple[str, int], list[Scored]]) -> str:
    """Returns the table, in Markdown."""
    lines = ["| way | probes | regret | harmed | unsure |", "| --- | ---: | ---: | ---: | ---: |"]
    for (way, count), scores in found.items():
        harmed: Any = np.mean([score.harmed for score in scores])
        unsure: Any = np.mean([score.flagged for score in scores])
        regret = interval([score.regret[0] for score in scores])
        lines.append(f"| {way} | {count} | {regret} | {harmed:.1%} | {unsure:.0%} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--knowledge", help="a .jsonl.xz file; the shipped one if left out")
    parser.add_argument(
        "--folds", type=int, help="in which several families are left out together; one each if left out"
    )
    given = parser.parse_args()
    knowledge = read_knowledge(given.knowledge) if given.knowledge else shipped()
    examples = several_seeds(examples_of(knowledge))
    print(f"{len(examples.results)} tasks; knowledge {knowledge.hash}\n")
    print(report(replayed(examples, given.folds)))


if __name__ == "__main__":
    main()
