"""How a study stands: what is done, running, failed and best, read from its storage while it runs or afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from .storage import Store

_NONE = {"complete": 0, "fail": 0, "running": 0, "waiting": 0}


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """How one task stands.

    Attributes:
        task: its name.
        done: trials that ended well; diverged ones are among them.
        failed: trials without a result.
        running: now.
        waiting: planned and not begun.
        best: the recipe with the lowest score; "" before there is one.
        score: its score, in log units relative to a constant guess; None before there is one.
        error: why the task as a whole failed, its last line; "" where it did not.
    """

    task: str
    done: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    best: str = ""
    score: float | None = None
    error: str = ""


def status_of(store: Store, tasks: tuple[str, ...]) -> list[TaskStatus]:
    """Returns how each task stands, in their order.

    Args:
        store: of the study; one that was opened to read will do.
        tasks: their names; one that is not begun yet has no trials.
    """
    counts, best, begun = store.counts(), store.best(), set(store.tasks())
    found = []
    for task in tasks:
        states = counts.get(task, _NONE)
        score, number = best.get(task, (None, None))
        recipe = "" if number is None else str(store.line(task, number)["recipe"])
        error = str(store.task_info(task).get("error") or "").strip().splitlines() if task in begun else []
        found.append(
            TaskStatus(
                task,
                done=states["complete"],
                failed=states["fail"],
                running=states["running"],
                waiting=states["waiting"],
                best=recipe,
                score=score,
                error=error[-1] if error else "",
            )
        )
    return found


def failures(store: Store, task: str) -> list[str]:
    """Returns the reasons of a task's failed trials, each once, the commonest first."""
    reasons: dict[str, int] = {}
    for line in store.lines(task):
        if line["state"] == "failed":
            reasons[line["reason"]] = reasons.get(line["reason"], 0) + 1
    return [f"{count} × {reason}" if count > 1 else reason for reason, count in sorted(reasons.items(), key=_commonest)]


def _commonest(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
