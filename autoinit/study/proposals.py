"""What a searching study tries next, and what its trials are to Optuna.

Optuna's TPE is asked in batches, so that it proposes the same whether a study was interrupted or not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from ..knowledge.lines import Line
from ..recipes.recipe import OWN, Recipe
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


def parameters_of(study: Study, described: Described) -> dict[str, BaseDistribution]:
    """Returns what the trials of a task differ in, for Optuna's plots and importances.

    A recipe's fields by their names, "lr_step", "seed" and "steps". All of it is known before the first trial, so that
    the ranges never change: Optuna takes no other choices later.

    Args:
        study: its seeds, learning rates and lengths.
        described: the task's candidates and space.
    """
    search = study.mode == "search"
    recipes = [OWN, *described.candidates, *(described.space.opening if search else ())]
    fields = [dataclasses.asdict(one) for one in recipes]
    values = {name: [_told(each[name]) for each in fields] for name in fields[0]}
    values["lr_step"] = [0, *study.lr_steps]
    for one in described.space.dimensions if search else ():
        values[one.name] += one.choices or (one.low, one.high)
    values["steps"] = [study.probe.steps, *([study.long.steps] if study.long is not None else [])]
    ranges = {name: _range(each) for name, each in values.items()}
    ranges["seed"] = CategoricalDistribution(study.seeds) if len(study.seeds) > 1 else None
    return {name: one for name, one in ranges.items() if one is not None}


def params_of(job: StudyJob, parameters: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Returns the parameters of one trial, those of `parameters_of` that it lies within."""
    fields = {**dataclasses.asdict(job.recipe), "lr_step": job.lr_step, "seed": job.seed, "steps": job.steps}
    return {name: _told(fields[name]) for name, one in parameters.items() if _within(one, _told(fields[name]))}


def _told(value: Any) -> Any:
    """Returns a field's value as Optuna can keep it: pairs of role and scheme as a text."""
    return ", ".join(f"{role}: {name}" for role, name in value) if isinstance(value, tuple) else value


def _range(values: Sequence[Any]) -> BaseDistribution | None:
    """Returns the distribution of some values; None where there is one only, which tells nothing."""
    distinct = [*dict.fromkeys(values)]
    if len(distinct) < 2:
        return None
    if any(isinstance(value, str) for value in distinct):
        return CategoricalDistribution(distinct)
    if all(isinstance(value, int) for value in distinct):
        return IntDistribution(min(distinct), max(distinct))
    return FloatDistribution(min(distinct), max(distinct))


def _within(known: BaseDistribution, value: Any) -> bool:
    if isinstance(known, CategoricalDistribution):
        return value in known.choices
    assert isinstance(known, FloatDistribution | IntDistribution)
    return bool(known.low <= value <= known.high)
