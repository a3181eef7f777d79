"""How well recipes are chosen without trying any, on tasks that were not learned from: replayed by look-up.

    python -m benchmarks.recommender                                 # the shipped knowledge, all splits
    python -m benchmarks.recommender --knowledge known.jsonl.xz --split family --methods forest,portfolio

Every method learns from the training tasks of a split only. Its ranking of a held-out task is scored so:

- regret@k: of its first k candidates the one with the lowest loss on the first seed is taken; its mean loss on the
  other seeds, less that of the best candidate there, over as-is less the best there (or two standard deviations of a
  seed, where that is more). The same in nats beside it.
- harmed: the first choice's loss on the other seeds is more than 5 % above as-is's; the worst one beside it.
- gap closed: of the mean distance from the single best recipe to the best candidate, on the first choices.
- tau: Kendall's, of the ranking with the losses.
- covered: share of candidates whose gain lies in its interval, where 80 % are asked for.
- flagged: tasks said to be unlike those studied.

Intervals are 90 % bootstrap ones over tasks. Diverged trainings are counted apart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autoinit.knowledge.files import read_knowledge, shipped
from autoinit.recommender.evaluation import TOPS, Scored, evaluated
from autoinit.recommender.examples import Examples, examples_of

from .recommender_methods import METHODS

COLUMNS = ("method", *(f"regret@{top}" for top in TOPS), "nats@1", "harmed", "worst", "diverged", "gap closed", "tau",
           "covered", "flagged")  # fmt: skip


def interval(values: Sequence[float], statistic: Callable[[Any], Any] = np.mean) -> str:
    """Returns "0.21 [0.18, 0.25]": a statistic over tasks with its 90 % bootstrap interval."""
    array = np.asarray(values, dtype=float)
    generator = np.random.default_rng(0)
    draws = [statistic(array[generator.integers(len(array), size=len(array))]) for _ in range(1000)]
    low, high = np.quantile(draws, [0.05, 0.95])
    return f"{statistic(array):.2f} [{low:.2f}, {high:.2f}]"


def table(examples: Examples, split: str, methods: Sequence[str]) -> str:
    """Returns the table of one split, in Markdown."""
    rows = []
    found = {}
    for method in methods:
        start = time.perf_counter()
        found[method] = evaluated(examples, split, METHODS[method])
        seconds = time.perf_counter() - start
        rows.append((method, found[method], seconds))
    single = found.get("single best")
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "| --- |" + " ---: |" * (len(COLUMNS) - 1),
    ]
    for method, scores, _ in rows:
        harmed = [score for score in scores if score.harmed]
        unflagged = [score for score in harmed if not score.flagged]
        worst = min(scores, key=lambda score: score.gain)
        closed = "" if single is None else f"{_closed(scores, single):.0%}"
        covers = [score.covered for score in scores if score.covered is not None]
        lines.append(
            f"| {method} | {' | '.join(interval([score.regret[top] for score in scores]) for top in range(len(TOPS)))} "
            f"| {interval([score.nats[0] for score in scores])} "
            f"| {len(harmed) / len(scores):.1%} ({len(unflagged)} not flagged) "
            f"| {np.expm1(max(0.0, -worst.gain)):.0%} ({worst.task}) "
            f"| {sum(score.diverged for score in scores)} "
            f"| {closed} | {interval([score.agreement for score in scores])} "
            f"| {f'{np.mean(covers):.0%}' if covers else ''} "
            f"| {np.mean([score.flagged for score in scores]):.0%} |"
        )
    return "\n".join(lines)


def _closed(scores: Sequence[Scored], single: Sequence[Scored]) -> float:
    gap = np.mean([score.regret[0] for score in single])
    return float(1 - np.mean([score.regret[0] for score in scores]) / gap) if gap > 0 else 0.0


def main() -> None:
    """Prints a table for each split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--knowledge", help="a .jsonl.xz file; the shipped one if left out")
    parser.add_argument("--split", default="task,dataset,family")
    parser.add_argument("--methods", default=",".join(METHODS).replace("forest, no caution", "forest; no caution"))
    given = parser.parse_args()
    knowledge = read_knowledge(given.knowledge) if given.knowledge else shipped()
    examples = examples_of(knowledge)
    several = [place for place, found in enumerate(examples.results) if len(found.seeds) > 1]
    examples = examples.of(several)
    print(
        f"{len(examples.results)} tasks, {len(examples.task)} candidates on them; knowledge {knowledge.hash}; "
        f"noise of a seed {np.median([found.noise for found in examples.results]):.3f} nats"
    )
    methods = [name.strip().replace(";", ",") for name in given.methods.split(",")]
    for split in given.split.split(","):
        print(f"\n## Leave one {split} out\n\n{table(examples, split, methods)}")


if __name__ == "__main__":
    main()
