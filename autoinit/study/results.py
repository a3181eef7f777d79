"""What came of a study: its data for a report, and the one rule by which a task's best recipe is named."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..knowledge.lines import Line

if TYPE_CHECKING:  # a report is drawn without a storage
    from .spec import Study
    from .storage import Store


AS_IS = "as_is"
"""Key of the recipe that leaves the model's own weights."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        low, high: two-sided 95 % t interval; None for a single value, which has none.
        count: of values.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def sure(self) -> bool:
        """Whether a gain is beyond the noise of its seeds: the whole interval lies above zero."""
        return self.low is not None and self.low > 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How the recipes of a task compare with the model's own weights in one stage.

    Attributes:
        gains: recipe → gain over as_is at the task's own learning rate, paired by seed; as_is is not among them.
        unfinished: recipe → runs at that learning rate that diverged or failed.
        best: the recipe of the largest mean gain among those with the most pairs and no unfinished run; None for none.
    """

    gains: dict[str, Mean]
    unfinished: dict[str, int]
    best: str | None


@dataclass(frozen=True)
class StudyResults:
    """A study and what came of it, as plain data.

    Attributes:
        study: the study's specification, as JSON values.
        tasks: task → what is known of it: "family", "dataset", "optimizer", "parameters", "error" (a traceback; None
            where the task could be built) and "layers": None, or the layers' signals under "as_is" and "best", with the
            recipe of the latter as "best_recipe". A layer has "name", "role", "forward_std" and "grad_norm".
        lines: the finished trials' record lines, in any order.
        skipped: damaged lines, each in words.
    """

    study: dict[str, Any]
    tasks: dict[str, dict[str, Any]] = field(repr=False)
    lines: list[dict[str, Any]] = field(repr=False)
    skipped: list[str] = field(default_factory=list)


def results_of(store: Store, study: Study) -> StudyResults:
    """Returns all that a report shows of a study, finished or not.

    Args:
        store: of the study; one that was opened to read will do.
        study: as its file has it now.
    """
    begun = set(store.tasks())
    tasks: dict[str, dict[str, Any]] = {}
    for spec in study.tasks:
        info = store.task_info(spec.name) if spec.name in begun else {}
        features = (info.get("described") or {}).get("features", {})
        tasks[spec.name] = {
            "family": spec.family,
            "dataset": spec.dataset,
            "optimizer": spec.optimizer.rpartition(":")[2] if spec.train is None else "its own",
            "parameters": features.get("parameters"),
            "error": info.get("error"),
            "layers": info.get("layers"),
        }
    return StudyResults(study.model_dump(mode="json"), tasks, list(store.lines()), [])


def mean(values: Sequence[float]) -> Mean:
    """Returns the mean of some values with its 95 % t interval."""
    from scipy.special import stdtrit  # takes longer to load than all else that tells how a study stands

    count = len(values)
    middle = math.fsum(values) / count
    if count < 2:
        return Mean(middle, None, None, count)
    deviation = math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (count - 1))
    reach = float(stdtrit(count - 1, 0.975)) * deviation / math.sqrt(count)
    return Mean(middle, middle - reach, middle + reach, count)


def total(line: Mapping[str, Any]) -> float | None:
    """Returns a complete trial's score, None of any other."""
    score = line["score"]
    return score["total"] if line["state"] == "complete" and score is not None else None


def best_in_words(recipe: str, gain: float) -> str:
    """Returns a task's best recipe, by whatever name, in words: it may be behind the model's own weights."""
    return recipe if gain > 0 else f"own weights stay ahead; next: {recipe}"


def standing(lines: Iterable[Line]) -> Standing:
    """Returns how the recipes of one task stand in one stage.

    Args:
        lines: record lines, of which "recipe", "seed", "lr_step", "state" and the score's "total" are read.
    """
    central: dict[str, list[Line]] = {}
    for line in lines:
        if line["lr_step"] == 0:
            central.setdefault(line["recipe"], []).append(line)
    own = _totals(central.get(AS_IS, ()))
    gains, unfinished = {}, {}
    for recipe, runs in central.items():
        unfinished[recipe] = sum(total(line) is None for line in runs)
        theirs = _totals(runs)
        pairs = [own[seed] - theirs[seed] for seed in own if seed in theirs]
        if pairs and recipe != AS_IS:
            gains[recipe] = mean(pairs)
    sound = {recipe: gain for recipe, gain in gains.items() if not unfinished[recipe]} or gains
    most = max((gain.count for gain in sound.values()), default=0)
    full = {recipe: gain for recipe, gain in sound.items() if gain.count == most}
    return Standing(gains, unfinished, max(full, key=lambda recipe: full[recipe].mean, default=None))


def _totals(lines: Iterable[Line]) -> dict[int, float]:
    found = ((line["seed"], total(line)) for line in lines)
    return {seed: value for seed, value in found if value is not None}
