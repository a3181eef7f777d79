"""How well recipes are chosen without a probe on tasks that were not learned from, replayed from what was recorded.

The choice is made on a task's first seed and scored on the others. *Regret* is the loss of the choice less that of the
best candidate, over as-is less the best (or two standard deviations of a seed, where that is more); *harm* is a loss
more than 5 % above as-is's. Both are of the held-back loss; the regret in training loss is told beside them. Where the
recommender abstains, as-is is what it chooses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..activations import Array
from ..errors import KnowledgeError
from ..recipes.recipe import OWN
from .examples import HARM, MOST_GAIN, SMALLEST_SCALE, Examples, Results, noise_of
from .learner import Learner, folds
from .model import fit_examples
from .portfolio import portfolio

TOPS = (1, 3, 5)
"""How many first choices are looked at."""
SPLITS: dict[str, Callable[[Results], str]] = {
    "task": lambda found: found.task.fingerprint,
    "dataset": lambda found: found.task.dataset or found.task.fingerprint,
    "family": lambda found: found.task.family or found.task.fingerprint,
}
"""What is held out together."""
TASK_FOLDS = 20
"""Tasks are held out in so many folds: a fit for each of hundreds tells no more."""


@dataclass(frozen=True)
class Ranking:
    """What a method says of one task.

    Attributes:
        worth: of each candidate, higher first.
        low, high: ends of the predicted gain's interval in nats; None where none is given.
        flagged: whether it is said that this is not sure, so that as-is comes first.
        first: the candidates to try first, in order; None: those of the highest worth.
    """

    worth: Array
    low: Array | None = None
    high: Array | None = None
    flagged: bool = False
    first: tuple[int, ...] | None = None

    def top(self, count: int) -> NDArray[np.int64]:
        """Returns the candidates to try where so many can be tried."""
        if self.first is not None:
            return np.array(self.first[:count])
        return np.argsort(-self.worth, kind="stable")[:count]


Ranker = Callable[[Examples, int], Ranking]
"""Ranks the candidates of one task, by its place."""
Method = Callable[[Examples], Ranker]
"""Learns from the training tasks."""


@dataclass(frozen=True)
class Scored:
    """How a method did on one task; losses are held-back ones, of the fresh seeds.

    Attributes:
        task: its name.
        regret: for each of `TOPS`, normalized.
        nats: the same, as it is.
        training: regret of the same choices in training loss, normalized.
        gain: nats by which the first choice is better than as-is.
        noise: two standard errors of that gain.
        agreement: correlation of ranks of the ranking and the losses.
        covered: share of the candidates whose gain lies in its interval; None without intervals.
        flagged: whether it was said that this is not sure.
        diverged: whether a training of the first choice did.
    """

    task: str
    regret: tuple[float, ...]
    nats: tuple[float, ...]
    training: tuple[float, ...]
    gain: float
    noise: float
    agreement: float
    covered: float | None
    flagged: bool
    diverged: bool

    @property
    def harmed(self) -> bool:
        """Whether the first choice is worse than as-is by more than 5 %."""
        return self.gain < -HARM

    @property
    def surely_harmed(self) -> bool:
        """Whether it is so beyond the noise of the fresh seeds."""
        return self.gain < -HARM - self.noise


def learned(train: Examples) -> Ranker:
    """Returns the recommender's ranking."""
    model = fit_examples(train, probes=False)  # nothing is tried here before it is chosen

    def rank(test: Examples, task: int) -> Ranking:
        far = model.distance(test.results[task].task.features) > model.far
        return ranked(model.learner, test.features[test.rows(task)], far)

    return rank


def ranked(learner: Learner, rows: Array, far: bool = False) -> Ranking:
    """Returns a learner's ranking of the candidates of one task, as-is the first of them."""
    predicted = learner.predict(rows)
    verdict = learner.verdict(predicted, 0, max(TOPS), far)
    return Ranking(learner.worth(predicted), predicted.low, predicted.high, verdict.answer == "unsure", verdict.order)


def tried_once(train: Examples) -> Ranker:
    """Returns no recommendation at all: every candidate is tried on the first seed, which no choice can do without."""
    return lambda test, task: Ranking(-test.results[task].losses[:, 0])


def static_portfolio(train: Examples) -> Ranker:
    """Returns the same order for every task: recipes that together do well on the training tasks, then as-is."""
    return in_order([*portfolio(train, 8), OWN.key])


def as_is(train: Examples) -> Ranker:
    """Returns the owner's weights first."""
    return in_order([OWN.key])


def in_order(keys: Sequence[str]) -> Ranker:
    """Returns a ranking that is an order of recipes; those that are not named come last."""
    place = {key: number for number, key in enumerate(keys)}

    def rank(test: Examples, task: int) -> Ranking:
        return Ranking(np.array([-float(place.get(key, len(keys))) for key in test.results[task].keys]))

    return rank


def by_size(examples: Examples, below: float | None = None, above: float | None = None) -> tuple[Examples, Examples]:
    """Returns the tasks on small networks, to learn from, and those on large ones, to choose for.

    Args:
        examples: of all tasks.
        below: fewest parameters that are too many to be learned from; None: those of the median task.
        above: fewest parameters of a large network; None: as many as are too many to be learned from.

    Raises:
        KnowledgeError: there are none of one kind.
    """
    sizes = np.array([10 ** found.task.features.get("net_parameters", math.nan) for found in examples.results])
    least = float(np.nanmedian(sizes)) if below is None else below
    most = least if above is None else above
    small, large = np.flatnonzero(sizes < least), np.flatnonzero(sizes >= most)
    if not len(small) or not len(large):
        raise KnowledgeError(
            f"{len(small)} tasks below {least:g} parameters and {len(large)} from {most:g} on: of each there must be "
            "some. Give other sizes, or add records of others."
        )
    return examples.of(small.tolist()), examples.of(large.tolist())


def several_seeds(examples: Examples) -> Examples:
    """Returns the tasks on which a choice can be scored on seeds that it was not made on."""
    return examples.of([place for place, found in enumerate(examples.results) if len(found.seeds) > 1])


def evaluations_of(examples: Examples, split: str, method: Method, *, most_folds: int | None = None) -> list[Scored]:
    """Returns how a method did on every task that has two seeds, learning from the other groups only.

    Args:
        examples: of all tasks.
        split: what is held out together, of `SPLITS`.
        method: what is evaluated.
        most_folds: in which several groups are held out together, where time matters; None for a group at a time.

    Raises:
        KnowledgeError: no task has two seeds, or all are of one group.
    """
    some = several_seeds(examples)
    groups = [SPLITS[split](found) for found in some.results]
    kinds = len(set(groups))
    if kinds < 2:
        raise KnowledgeError(
            f"{len(some.results)} tasks with two seeds, of {kinds} {split}: nothing can be held out. "
            "Add records of others."
        )
    done: dict[int, Scored] = {}
    for part in folds(groups, min(kinds, most_folds or (TASK_FOLDS if split == "task" else kinds))):
        held = set(part)
        rank = method(some.of([task for task in range(len(groups)) if task not in held]))
        for task in part:
            done[task] = scored(some.results[task], rank(some, task))
    return [done[task] for task in range(len(groups))]


def scored(found: Results, ranking: Ranking) -> Scored:
    """Returns how a ranking of a task's candidates did."""
    choice, final = found.losses[:, 0], found.losses[:, 1:].mean(1)
    tops = [ranking.top(count) for count in TOPS]
    picks = [int(top[np.argmin(choice[top])]) for top in tops]
    lost, scale = _regrets(final, picks, found.noise)
    trained, its_scale = _regrets(found.training[:, 1:].mean(1), picks, noise_of(found.training, found.diverged))
    return Scored(
        task=found.task.name,
        regret=tuple(value / scale for value in lost),
        nats=tuple(lost),
        training=tuple(value / its_scale for value in trained),
        gain=float(final[0] - final[picks[0]]),
        noise=2 * found.noise * math.sqrt(2 / (len(found.seeds) - 1)),
        agreement=_agreement(ranking.worth, -final),
        covered=_covered(ranking, final[0] - final),
        flagged=ranking.flagged,
        diverged=bool(found.diverged[picks[0], 1:].any()),
    )


def _regrets(final: Array, picks: Sequence[int], noise: float) -> tuple[list[float], float]:
    """Returns by how many nats each pick is worse than the best candidate, and what is to be won."""
    best = float(final.min())
    scale = max(float(final[0]) - best, 2 * noise, SMALLEST_SCALE)
    return [float(final[pick]) - best for pick in picks], scale


def _agreement(one: Array, other: Array) -> float:
    """Returns Kendall's τ-b; 0 where one side is all alike."""
    from scipy.stats import kendalltau

    found = float(kendalltau(one, other).statistic)
    return 0.0 if math.isnan(found) else found


def _covered(ranking: Ranking, gains: Array) -> float | None:
    if ranking.low is None or ranking.high is None:
        return None
    held = np.clip(gains, -MOST_GAIN, MOST_GAIN)[1:]  # as-is is known
    return float(np.mean((ranking.low[1:] <= held) & (held <= ranking.high[1:])))
