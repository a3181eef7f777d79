"""How a study stands: what is done, running, failed and best, read from its storage while it runs or afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ..recipes.names import recipe_titles
from .jobs import LAYERS, trials_of
from .results import Standing, best_in_words, standing
from .spec import Study
from .storage import Store

_SURE = r"\*"
"""A star, as Markdown has it."""


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """How one task stands.

    Attributes:
        task: its name.
        done: trials that ended well; diverged ones are among them.
        failed: trials without a result.
        running: now.
        waiting: planned and not begun.
        total: trials that it will have; None before it is built, and where it cannot be.
        best: key of the recipe that the report calls the best of the probes; "" before one can be compared.
        gain: its mean gain over as_is, in log units of the loss; None before there is one.
        sure: whether that is beyond the noise of its seeds.
        error: why the task as a whole failed, its last line; "" where it did not.
    """

    task: str
    done: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    total: int | None = None
    best: str = ""
    gain: float | None = None
    sure: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class StudyStatus:
    """How a study stands.

    Attributes:
        tasks: each of its tasks, in their order.
        done: trials that ended well.
        failed: trials without a result.
        running: now.
        total: trials of the study; an estimate while tasks are not built yet, None before any is.
        unbuilt: how many those are; the estimate takes them to be like the others, in number and pace.
        left: seconds to the end at this run's pace; None where nothing runs, or nothing tells.
        ago: seconds since a trial of this run ended; None where none has.
    """

    tasks: tuple[TaskStatus, ...]
    done: int
    failed: int
    running: int
    total: int | None
    unbuilt: int
    left: float | None
    ago: float | None


def status_of(store: Store, study: Study) -> StudyStatus:
    """Returns how a study stands.

    Args:
        store: of the study; one that was opened to read will do.
        study: as its file has it; a task that is not begun yet has no trials.
    """
    counts, scores, begun = store.counts(), store.scores("probe"), set(store.tasks())
    tasks = tuple(
        _task_status(store, study, spec.name, counts[spec.name], standing(scores[spec.name]))
        if spec.name in begun
        else TaskStatus(spec.name)
        for spec in study.tasks
    )
    known = [one.total for one in tasks if one.total is not None]
    unbuilt = sum(one.total is None and not one.error for one in tasks)
    total = round(sum(known) + unbuilt * fmean(known)) if known else None
    done, failed, running = (
        sum(states[kind] for states in counts.values()) for kind in ("complete", "fail", "running")
    )
    pace = store.pace()
    left = None
    if running and total is not None and pace.rate is not None:
        left = (total - done - failed) / pace.rate
    return StudyStatus(tasks, done, failed, running, total, unbuilt, left, pace.ago)


def _task_status(store: Store, study: Study, task: str, states: dict[str, int], found: Standing) -> TaskStatus:
    info = store.task_info(task)
    error = str(info.get("error") or "").strip().splitlines()
    gain = None if found.best is None else found.gains[found.best]
    return TaskStatus(
        task,
        done=states["complete"],
        failed=states["fail"],
        running=states["running"],
        waiting=states["waiting"],
        total=_total(study, info, sum(states.values())),
        best=found.best or "",
        gain=gain.mean if gain is not None else None,
        sure=gain is not None and gain.sure,
        error=error[-1] if error else "",
    )


def _total(study: Study, info: dict[str, Any], planned: int) -> int | None:
    """Returns how many trials a task will have had in the end; None where it is not built."""
    if not (described := info.get("described")):
        return None
    ended = LAYERS in info
    return planned if ended else max(planned, trials_of(study, len(described["candidates"])))


def as_note(name: str, found: StudyStatus) -> str:
    """Returns how a study stands as Markdown: what a dashboard shows of the study as a whole, which has no trials.

    Args:
        name: of the study.
        found: how it stands.
    """
    names = recipe_titles(one.best for one in found.tasks if one.best)
    rows = [f"| `{name}/{one.task}` | {one.done} | {one.failed} | {_best(one, names)} |" for one in found.tasks]
    return "\n".join(
        [
            "## A study of autoinit",
            "",
            f"This entry holds the whole together and has no trials of its own: each task is a study, `{name}/…`. "
            "As of the last run of `autoinit study run`:",
            "",
            "| study | trials done | failed | best recipe, by its gain over the own weights |",
            "|---|---:|---:|---|",
            *rows,
            "",
            "The gain is in log units of the loss, the mean over seeds; \\* where it is beyond their noise. "
            "`autoinit study report` writes a page with all of it.",
        ]
    )


def _best(one: TaskStatus, names: dict[str, str]) -> str:
    if one.error or one.gain is None:
        return "failed as a whole" if one.error else ""
    return f"{best_in_words(names[one.best], one.gain)} ({one.gain:+.3f}{_SURE if one.sure else ''})"


def failures(store: Store, task: str) -> list[str]:
    """Returns the reasons of a task's failed trials, each once, the commonest first."""
    reasons: dict[str, int] = {}
    for line in store.lines(task):
        if line["state"] == "failed":
            reasons[line["reason"]] = reasons.get(line["reason"], 0) + 1
    return [f"{count} × {reason}" if count > 1 else reason for reason, count in sorted(reasons.items(), key=_commonest)]


def _commonest(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
