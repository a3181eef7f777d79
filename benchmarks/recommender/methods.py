"""Ways of choosing a recipe for a task without trying any: the recommender's forest and what it must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autoinit.recommender.evaluation import (
    Method,
    Ranker,
    Ranking,
    as_is,
    in_order,
    learned,
    ranked,
    static_portfolio,
    tried_once,
)
from autoinit.recommender.examples import NAMES, TASK_NAMES, Examples
from autoinit.recommender.learner import fitted_learner
from autoinit.recommender.portfolio import single_best


def with_passes(train: Examples) -> Ranker:
    """The recommender's forests, told loss and gradients of one batch passed through each candidate's weights too."""
    groups = [found.task.family for found in train.results]
    learner = fitted_learner(train, len(NAMES), groups, seed=0)
    return lambda test, task: ranked(learner, test.features[test.rows(task)])


def neighbours(names: Sequence[str], count: int) -> Method:
    """The mean outcome of each recipe on the nearest tasks that had it."""

    def method(train: Examples) -> Ranker:
        rows = np.stack([_of_task(train, task, names) for task in range(len(train.results))])
        spread = _spread(rows)
        table = _table(train)

        def rank(test: Examples, task: int) -> Ranking:
            gap = np.nan_to_num((rows - _of_task(test, task, names)) / spread)
            order = np.argsort((gap**2).sum(1), kind="stable")
            worth = []
            for key in _keys(test, task):
                found = [table[key][near] for near in order if near in table.get(key, {})][:count]
                worth.append(float(np.mean(found)) if found else -1.0)
            return Ranking(np.array(worth))

        return rank

    return method


def the_single_best(train: Examples) -> Ranker:
    """The recipe with the best mean over the training tasks; where it does not fit, as-is."""
    return in_order([single_best(train), "as_is"])


def rule_of_thumb(train: Examples) -> Ranker:
    """He for ReLU and its kin, Xavier for what saturates, LeCun for SELU, orthogonal for recurrent networks."""

    def rank(test: Examples, task: int) -> Ranking:
        features = test.results[task].task.features
        first = "he_normal" if features.get("net_kinked", 0) > 0.3 else "xavier_uniform"
        if abs(features.get("net_gain", 0) - 1) < 0.01 and features.get("net_linear", 1) < 0.5:
            first = "lecun_normal"
        if features.get("net_recurrent", 0) > 0:
            first = "orthogonal"
        return in_order([first, "as_is"])(test, task)

    return rank


def at_random(train: Examples) -> Ranker:
    """Any order."""

    def rank(test: Examples, task: int) -> Ranking:
        seed = int(test.results[task].task.fingerprint, 16) % 2**32
        return Ranking(np.random.default_rng(seed).random(len(_keys(test, task))))

    return rank


METHODS: dict[str, Method] = {
    "recommender": learned,
    "with a first pass of each": with_passes,
    "5 nearest tasks": neighbours(TASK_NAMES, 5),
    "15 nearest tasks": neighbours(TASK_NAMES, 15),
    "nearest in parameters": neighbours(["net_parameters"], 5),
    "portfolio": static_portfolio,
    "single best": the_single_best,
    "rule of thumb": rule_of_thumb,
    "as-is": as_is,
    "random": at_random,
    "every candidate tried once": tried_once,
}


def _keys(examples: Examples, task: int) -> Sequence[str]:
    return examples.results[task].keys


def _of_task(examples: Examples, task: int, names: Sequence[str]) -> np.ndarray[Any, Any]:
    return np.array([examples.results[task].task.features.get(name, np.nan) for name in names])


def _spread(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns the standard deviation of each column over what is known of it; 1 where that does not vary."""
    values = [column[~np.isnan(column)] for column in rows.T]
    spread = np.array([column.std() if len(column) else 0.0 for column in values])
    return np.where(spread > 1e-6, spread, 1.0)


def _table(examples: Examples) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for key, task, outcome in zip(examples.keys, examples.task, examples.outcome, strict=True):
        found.setdefault(key, {})[int(task)] = float(outcome)
    return found
