"""What a searching study tries next: Optuna's TPE, asked in batches, the same whether it was interrupted or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState, create_trial

from ..knowledge.lines import Line
from ..recipes.recipe import Recipe
from ..recipes.space import Space
from ..search.sampling import distribution_of, quiet_optuna
from ..seeds import seed_of_use
from .jobs import Described, StudyJob
from .spec import Study


def search_jobs(study: Study, task: str, described: Described, lines: Sequence[Line], count: int) -> list[StudyJob]:
    """Returns the rest of the batch that the next trial of a task belongs to.

    A batch is proposed from the trials of the batches before it, by a sampler of its own: so it is the same in a
    study that was resumed in the middle of it.

    Args:
        study: its batches and seeds.
        task: the name.
        described: the task's space.
        lines: finished probes, in the order of their numbers.
        count: of trials that there are already, finished or not.
    """
    assert study.trials is not None  # the spec demands it of a search
    start = count // study.batch * study.batch
    end = min(start + study.batch, study.trials)
    points = _points(study, task, described, lines[:start], start, end)
    return [
        StudyJob(task, number, "probe", recipe, study.seeds[0], lr_step, study.probe.steps, study.probe.rungs)
        for number, (recipe, lr_step) in enumerate(points, start=start)
        if number >= count
    ]


def _points(
    study: Study, task: str, described: Described, before: Sequence[Line], start: int, end: int
) -> list[tuple[Recipe, int]]:
    space = described.space
    distributions = distributions_of(space)
    sampler = optuna.samplers.TPESampler(seed=seed_of_use(study.seeds[0], f"tpe {task} {start}"))
    with quiet_optuna():
        inner = optuna.create_study(sampler=sampler)
        for line in before:
            point = _point(space, line)
            if line["score"] is not None and point is not None:
                value = line["score"]["total"]
                ended = create_trial(state=TrialState.COMPLETE, params=point, distributions=distributions, value=value)
                inner.add_trial(ended)
        known = dict.fromkeys([*described.candidates, *space.opening])
        opening = [(recipe, 0) for recipe in known][start:end]
        asked: list[dict[str, Any]] = [inner.ask(distributions).params for _ in range(end - start - len(opening))]
    return [*opening, *(space.decode(point) for point in asked)]


def _point(space: Space, line: Line) -> dict[str, Any] | None:
    """Returns where a trial lies in the space; None for a recipe of the study file that lies outside it."""
    recipe = Recipe.from_data(line["fields"])
    point = space.encode(recipe, line["lr_step"])
    for one in space.dimensions:
        value = point[one.name]
        if value not in one.choices if one.choices else not one.low <= value <= one.high:
            return None
    return point if space.decode(point)[0] == recipe else None


def distributions_of(space: Space) -> dict[str, BaseDistribution]:
    """Returns Optuna's distribution of each dimension."""
    return {one.name: distribution_of(one) for one in space.dimensions}
