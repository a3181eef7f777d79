"""How well recipes are chosen without trying any, on tasks that were not learned from: replayed by look-up.

    python -m benchmarks.recommender.held_out                        # the shipped knowledge, all splits
    python -m benchmarks.recommender.held_out --split "" --probes    # searches that begin in other orders
    # learned from the networks with fewer parameters, chosen for the others; or for tasks of ten times the size
    python -m benchmarks.recommender.held_out --split size
    python -m benchmarks.recommender.held_out --split size --sizes 1e5,1e6 --knowledge all.jsonl.xz
    python -m benchmarks.recommender.held_out --split "" --large benchmarks/results/scale.jsonl.xz
    python -m benchmarks.recommender.held_out --split real --knowledge all.jsonl.xz  # ten families together
    python -m benchmarks.recommender.held_out --knowledge known.jsonl.xz --split family --methods recommender,portfolio

Every method learns from the training tasks of a split only. Its ranking of a held-out task is scored so:

- regret@k: of its first k candidates the one with the lowest held-back loss on the first seed is taken; its mean
  held-back loss on the other seeds, less that of the best candidate there, over as-is less the best there (or two
  standard deviations of a seed, where that is more). The same in nats beside it, and the regret in training loss.
- harmed: the first choice's held-back loss on the other seeds is more than 5 % above as-is's; in brackets how many are
  so by more than two standard errors; the worst one beside it.
- gap closed: of the mean distance from the single best recipe to the best candidate, on the first choices.
- tau: Kendall's, of the ranking with the losses.
- covered: share of candidates whose gain lies in its interval, where 80 % are asked for.
- flagged: tasks of which it says that it is not sure, so that as-is comes first.
- tries: tasks of which the first choice is another one than as-is.

Intervals are 90 % bootstrap ones over tasks. Diverged trainings are counted apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoinit.knowledge.files import read_knowledge, shipped
from autoinit.recommender.evaluation import TOPS, Scored, by_size, evaluations_of, scored, several_seeds
from autoinit.recommender.examples import Examples, examples_of

from .methods import METHODS
from .warm_searches import openings, report, searches

COLUMNS = ("method", *(f"regret@{top}" for top in TOPS), "nats@1", "training@1", "harmed", "worst", "diverged",
           "gap closed", "tau", "covered", "flagged", "tries")  # fmt: skip

REAL = (
    "gpt",
    "llama",
    "bert",
    "vit",
    "swin",
    "convnext",
    "resnet",
    "weight_standardized",
    "ft_transformer",
    "wav2vec2",
)
"""Families of real architectures that are left out together. They were named before their tasks were studied."""


def interval(values: Sequence[float], statistic: Callable[[Any], Any] = np.mean) -> str:
    """Returns "0.21 [0.18, 0.25]": a statistic over tasks with its 90 % bootstrap interval."""
    array = np.asarray(values, dtype=float)
    generator = np.random.default_rng(0)
    draws = [statistic(array[generator.integers(len(array), size=len(array))]) for _ in range(1000)]
    low, high = np.quantile(draws, [0.05, 0.95])
    return f"{statistic(array):.2f} [{low:.2f}, {high:.2f}]"


def table(examples: Examples, split: str, methods: Sequence[str], most_folds: int | None = None) -> str:
    """Returns the table of one split, in Markdown; where folds are few, several groups are held out together."""
    found = {name: evaluations_of(examples, split, METHODS[name], most_folds=most_folds) for name in methods}
    return _table(found)


def _table(found: Mapping[str, Sequence[Scored]]) -> str:
    single = found.get("single best")
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "| --- |" + " ---: |" * (len(COLUMNS) - 1),
    ]
    for method, scores in found.items():
        harmed = [score for score in scores if score.harmed]
        surely = sum(score.surely_harmed for score in scores)
        worst = min(scores, key=lambda score: score.gain)
        closed = "" if single is None else f"{_closed(scores, single):.0%}"
        covers = [score.covered for score in scores if score.covered is not None]
        lines.append(
            f"| {method} | {' | '.join(interval([score.regret[top] for score in scores]) for top in range(len(TOPS)))} "
            f"| {interval([score.nats[0] for score in scores])} "
            f"| {interval([score.training[0] for score in scores])} "
            f"| {len(harmed) / len(scores):.1%} ({surely} surely) "
            f"| {np.expm1(max(0.0, -worst.gain)):.0%} ({worst.task}) "
            f"| {sum(score.diverged for score in scores)} "
            f"| {closed} | {interval([score.agreement for score in scores])} "
            f"| {f'{np.mean(covers):.0%}' if covers else ''} "
            f"| {np.mean([score.flagged for score in scores]):.0%} "
            f"| {np.mean([score.gain != 0 for score in scores]):.0%} |"
        )
    return "\n".join(lines)


def _closed(scores: Sequence[Scored], single: Sequence[Scored]) -> float:
    gap = np.mean([score.regret[0] for score in single])
    return float(1 - np.mean([score.regret[0] for score in scores]) / gap) if gap > 0 else 0.0


def large(examples: Examples, tests: Examples, methods: Sequence[str]) -> str:
    """Returns the table of tasks of another size, all of which are chosen for by what the examples tell."""
    found = {}
    for method in methods:
        rank = METHODS[method](examples)
        found[method] = [scored(result, rank(tests, place)) for place, result in enumerate(tests.results)]
    return _table(found)


def real(examples: Examples, methods: Sequence[str]) -> str:
    """Returns the table of ten families of real architectures, learned from all the others."""
    named = [found.task.family in REAL for found in examples.results]
    rest, tests = (examples.of([place for place, one in enumerate(named) if one == side]) for side in (False, True))
    return large(rest, tests, methods)


def main() -> None:
    """Prints a table for each split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--knowledge", help="a .jsonl.xz file; the shipped one if left out")
    parser.add_argument("--split", default="task,dataset,family,size", help="empty for none")
    parser.add_argument(
        "--sizes", default="", help="parameters below which is learned, and from which on is chosen for"
    )
    parser.add_argument("--folds", type=int, help="hold several groups out together, in so many folds: quicker")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--probes", action="store_true", help="also replay how searches begin")
    parser.add_argument(
        "--studies",
        type=Path,
        nargs="+",
        default=[Path("studies/overnight.toml"), Path("studies/architectures.toml")],
        help="of the knowledge's tasks",
    )
    parser.add_argument("--large", type=Path, help="knowledge of larger tasks to test on, never learned from")
    given = parser.parse_args()
    knowledge = read_knowledge(given.knowledge) if given.knowledge else shipped()
    examples = several_seeds(examples_of(knowledge))
    print(
        f"{len(examples.results)} tasks, {len(examples.task)} candidates on them; knowledge {knowledge.hash}; "
        f"noise of a seed {np.median([found.noise for found in examples.results]):.3f} nats",
        flush=True,
    )
    methods = [name.strip() for name in given.methods.split(",")]
    for split in filter(None, given.split.split(",")):
        if split == "size":
            small, rest = by_size(examples, *(float(size) for size in given.sizes.split(",") if size))
            title = f"{len(small.results)} tasks on small networks learned from, {len(rest.results)} on large ones"
            print(f"\n## {title}\n\n{large(small, rest, methods)}", flush=True)
        elif split == "real":
            print(f"\n## Ten families left out together\n\n{real(examples, methods)}", flush=True)
        else:
            print(f"\n## Leave one {split} out\n\n{table(examples, split, methods, given.folds)}", flush=True)
    if given.probes:
        found = searches(examples, openings(examples, given.studies), given.folds)
        print(f"\n## Regret by number of candidates, leave one family out\n\n{report(found)}", flush=True)
    if given.large:
        tests = several_seeds(examples_of(read_knowledge(given.large)))
        print(f"\n## {len(tests.results)} tasks of ten times the size\n\n{large(examples, tests, methods)}", flush=True)


if __name__ == "__main__":
    main()
