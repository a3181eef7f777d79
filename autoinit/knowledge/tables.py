"""Records, condensed to what a recommender learns from: tasks, what was tried on each, and what came of it."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..recipes.recipe import OWN, Recipe
from .features import FEATURES, Features
from .lines import Line


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What came of one probe.

    Attributes:
        seed: of the draw and the batch order.
        lr_step: place on the learning-rate grid.
        steps: of the training.
        state: "complete", "diverged" or "failed".
        total: its score, lower is better; None of a failed one.
        training: mean log-ratio of the last quarter's losses to the reference.
        held_back: log-ratio of the last held-back loss to the reference.
        rungs: (steps, held-back loss) on the way.
        zero: loss, gradient norm and log10 range of gradient norms before the first step; None where unknown.
        seconds: of the training.
    """

    seed: int
    lr_step: int
    steps: int
    state: str
    total: float | None = None
    training: float | None = None
    held_back: float | None = None
    rungs: tuple[tuple[int, float], ...] = ()
    zero: tuple[float | None, float | None, float | None] = (None, None, None)
    seconds: float = 0.0

    @property
    def loss(self) -> float | None:
        """Log-ratio of the held-back loss to the reference, in nats: what a training is for.

        Of a diverged one it is its score, which is above them all; where no rows were held back, the training's.
        """
        return self.trained if self.held_back is None or self.state != "complete" else self.held_back

    @property
    def trained(self) -> float | None:
        """The same of the loss on the rows that it was trained on."""
        return self.total if self.training is None or self.state != "complete" else self.training


@dataclass(frozen=True, slots=True)
class Tried:
    """A recipe on a task.

    Attributes:
        recipe: what was tried.
        features: what it is there, in numbers; empty where nobody wrote them down.
        outcomes: of its probes.
    """

    recipe: Recipe
    features: Features = field(default_factory=dict)
    outcomes: tuple[ProbeResult, ...] = ()


@dataclass(frozen=True, slots=True)
class StudiedTask:
    """A task, and what was tried on it.

    Attributes:
        fingerprint: of architecture, data, loss and optimizer.
        name: its study's name for it.
        family: of its architecture; empty where nobody named it.
        dataset: likewise.
        features: what it is, in numbers.
        tried: as-is first.
    """

    fingerprint: str
    name: str
    family: str
    dataset: str
    features: Features
    tried: tuple[Tried, ...]


@dataclass(frozen=True)
class Knowledge:
    """All that studies have found.

    Attributes:
        tasks: in the order in which they were first met.
        made: how it was made, in words and numbers.
    """

    tasks: tuple[StudiedTask, ...]
    made: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def hash(self) -> str:
        """A fingerprint of all that is known; of megabytes it takes seconds, so it is taken once."""
        hashed = hashlib.blake2b(digest_size=8)
        for row in rows_of(self):
            hashed.update(json.dumps(row, sort_keys=True).encode())
        return hashed.hexdigest()

    @property
    def probes(self) -> int:
        """Number of probes."""
        return sum(len(tried.outcomes) for task in self.tasks for tried in task.tried)


def knowledge_of(lines: Iterable[Line], made: Mapping[str, Any] | None = None) -> Knowledge:
    """Returns what record lines tell; a trial that is there twice counts once, and long trainings are left out.

    Args:
        lines: as `autoinit.knowledge.lines.read_lines` reads them.
        made: how they were made.
    """
    tasks: dict[str, Line] = {}
    tried: dict[str, dict[str, Tried]] = {}
    seen: set[str] = set()
    for line in lines:
        if line["stage"] != "probe" or line["id"] in seen:
            continue
        seen.add(line["id"])
        tasks.setdefault(line["fingerprint"], line)
        of_task = tried.setdefault(line["fingerprint"], {})
        one = of_task.get(line["recipe"]) or Tried(Recipe.from_data(line["fields"]))
        of_task[line["recipe"]] = Tried(
            one.recipe, one.features or known_features(line["recipe_features"]), (*one.outcomes, _outcome(line))
        )
    return Knowledge(tuple(_task(line, tried[key]) for key, line in tasks.items()), dict(made or {}))


def merged(*parts: Knowledge) -> Knowledge:
    """Returns what several know together; a probe that two of them have counts once, features come from the first."""
    tasks: dict[str, StudiedTask] = {}
    for task in (task for part in parts for task in part.tasks):
        there = tasks.get(task.fingerprint)
        tasks[task.fingerprint] = task if there is None else _joined(there, task)
    return Knowledge(tuple(tasks.values()), next((part.made for part in parts if part.made), {}))


def known_features(found: Mapping[str, Any]) -> Features:
    """Returns those that have a name in the table and a number."""
    return {
        name: float(value)
        for name, value in found.items()
        if name in FEATURES and isinstance(value, (int, float)) and value == value
    }


def _outcome(line: Line) -> ProbeResult:
    score, signals, curve = line["score"] or {}, line["signals"] or {}, line["curve"] or {}
    return ProbeResult(
        line["seed"],
        line["lr_step"],
        line["steps"],
        line["state"],
        score.get("total"),
        score.get("training"),
        score.get("held_back"),
        tuple((steps, value) for steps, value in curve.get("held_back", ()) if value is not None),
        (signals.get("loss"), signals.get("gradient_norm"), signals.get("gradient_range")),
        line["seconds"],
    )


def _task(line: Line, tried: Mapping[str, Tried]) -> StudiedTask:
    ordered = sorted(tried.values(), key=lambda one: one.recipe != OWN)
    features = known_features(line["features"])
    return StudiedTask(line["fingerprint"], line["task"], line["family"], line["dataset"], features, tuple(ordered))


def _joined(first: StudiedTask, second: StudiedTask) -> StudiedTask:
    tried = {one.recipe.key: one for one in first.tried}
    for other in second.tried:
        one = tried.get(other.recipe.key, replace(other, outcomes=()))
        held = {(outcome.seed, outcome.lr_step, outcome.steps) for outcome in one.outcomes}
        new = [outcome for outcome in other.outcomes if (outcome.seed, outcome.lr_step, outcome.steps) not in held]
        tried[other.recipe.key] = Tried(one.recipe, one.features or other.features, (*one.outcomes, *new))
    ordered = sorted(tried.values(), key=lambda one: one.recipe != OWN)
    return replace(first, features=first.features or second.features, tried=tuple(ordered))


# As rows of JSON, one for each task


def rows_of(knowledge: Knowledge) -> Iterator[dict[str, Any]]:
    """Yields each task as JSON-ready data; numbers at five significant digits."""
    for task in knowledge.tasks:
        yield {
            "fingerprint": task.fingerprint,
            "name": task.name,
            "family": task.family,
            "dataset": task.dataset,
            "features": _short(task.features),
            "recipes": [json.loads(one.recipe.to_json()) for one in task.tried],
            "recipe_features": [_short(one.features) for one in task.tried],
            "outcomes": [
                _short([place, one.seed, one.lr_step, one.steps, one.state, one.total, one.training, one.held_back,
                        [list(rung) for rung in one.rungs], list(one.zero), one.seconds])
                for place, tried in enumerate(task.tried) for one in tried.outcomes
            ],
        }  # fmt: skip


def task_of(row: Mapping[str, Any]) -> StudiedTask:
    """Returns the task that `rows_of` wrote."""
    outcomes: dict[int, list[ProbeResult]] = {}
    for place, seed, lr_step, steps, state, total, training, held_back, rungs, zero, seconds in row["outcomes"]:
        pairs = tuple((at, value) for at, value in rungs)
        one = ProbeResult(seed, lr_step, steps, state, total, training, held_back, pairs, tuple(zero), seconds)
        outcomes.setdefault(place, []).append(one)
    tried = tuple(
        Tried(Recipe.from_data(fields), dict(features), tuple(outcomes.get(place, ())))
        for place, (fields, features) in enumerate(zip(row["recipes"], row["recipe_features"], strict=True))
    )
    named = (row["fingerprint"], row["name"], row["family"], row["dataset"])
    return StudiedTask(*named, dict(row["features"]), tried)


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _short(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
