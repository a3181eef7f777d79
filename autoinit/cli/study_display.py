"""What `autoinit study` shows: how far a run is, and how a study stands as seen from outside."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from .. import text

if TYPE_CHECKING:  # the libraries below take seconds to load: each command imports what it needs
    from ..study.coordinator import StudyProgress
    from ..study.spec import Study
    from ..study.status import StudyStatus, TaskStatus
    from ..study.storage import Store

PLAIN_EVERY = 30.0
"""Seconds between lines of progress, where there is no terminal."""
WATCH_SECONDS = 3.0
"""Seconds between two looks at a study that is watched."""
BEST = 72
"""Characters of a recipe's name where there is no terminal to be as wide as; the report and --json have the whole."""


class Silent:
    """What shows nothing, and what those that show something begin with."""

    def show(self, progress: StudyProgress) -> None:
        """Shows how far a run is."""

    def close(self) -> None:
        """Ends what is shown."""


class Lines(Silent):
    """Plain lines, where nobody watches: news at once, how far it is twice a minute."""

    def __init__(self) -> None:
        self._last = -PLAIN_EVERY

    def show(self, progress: StudyProgress) -> None:
        """Writes what is new, and now and then how far a run is."""
        if progress.news:
            typer.echo(progress.news, err=True)
        if progress.seconds - self._last >= PLAIN_EVERY:
            self._last = progress.seconds
            typer.echo(_told(progress), err=True)


class Bar(Silent):
    """A bar on a terminal; news stand above it."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn(name), BarColumn(bar_width=None), TextColumn("{task.description}"), console=Console(stderr=True)
        )
        self._bar = self._bars.add_task("")
        self._bars.start()

    def show(self, progress: StudyProgress) -> None:
        """Moves the bar, and writes what is new above it."""
        if progress.news:
            self._bars.console.print(progress.news, markup=False, highlight=False)
        self._bars.update(self._bar, total=max(1, progress.total), completed=progress.done, description=_told(progress))

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bars.stop()


def _told(progress: StudyProgress) -> str:
    about = "about " if progress.unbuilt else ""
    failed = f", {progress.failed} failed" if progress.failed else ""
    return f"{progress.done} of {about}{progress.total} trials{failed}{_left(progress.left, progress.unbuilt)}"


def _left(seconds: float | None, unbuilt: int) -> str:
    """Returns the time that is left, and what it takes for granted; nothing where nobody knows."""
    if seconds is None:
        return ""
    if not unbuilt:
        return f", {text.seconds(seconds)} left"
    return f", about {text.seconds(seconds)} left ({unbuilt} {'task' if unbuilt == 1 else 'tasks'} not begun)"


_GAIN = "gain: over as_is, in log units of the loss, the mean over seeds; * where it is beyond their noise"


def status_text(study: Study, store: Store, most: int | None = None, *, keys: bool = False) -> str:
    """Returns how a study stands, as text.

    Args:
        study: as its file has it.
        store: its storage.
        most: lines that there is room for, those that tell most; None for all.
        keys: whether recipes are named as code takes them, and not in short.
    """
    from ..recipes.names import glossary, recipe_titles
    from ..screen.columns import wrapped
    from ..study.status import status_of

    found = status_of(store, study)
    best = [one.best for one in found.tasks if one.best]
    names = {key: key for key in best} if keys else recipe_titles(best)
    words = [] if keys else [f"{word}: {meaning}" for word, meaning in glossary(best)]
    after = ["", *(wrapped(said, "  ") for said in (_GAIN, *_reasons(store, found.tasks), *words))]
    before = [_headline(study, found), *([_pace(found)] if found.done + found.failed != found.total else []), ""]
    if most is not None:
        after = after[: max(2, most // 3)]
    room = None if most is None else max(1, most - len(before) - len(after) - 3)
    shown = list(found.tasks) if room is None or len(found.tasks) <= room else _telling(found.tasks)[:room]
    hidden = len(found.tasks) - len(shown)
    more = [f"and {hidden} more tasks: autoinit study status without --watch shows them"] if hidden else []
    return "\n".join([*before, _table(shown, names), *more, *after])


def _headline(study: Study, found: StudyStatus) -> str:
    about = "about " if found.unbuilt else ""
    total = "" if found.total is None else f" of {about}{found.total}"
    return f"{study.name}: {found.done + found.failed}{total} trials ended, {found.failed} of them failed"


def _pace(found: StudyStatus) -> str:
    """Returns whether a study goes on, and how long it will: a coordinator that was killed leaves trials running."""
    last = "none has ended in this run" if found.ago is None else f"the last one ended {text.seconds(found.ago)} ago"
    running = f"{found.running} running" if found.running else "nothing runs now"
    return f"{running}; {last}{_left(found.left, found.unbuilt)}"


def _table(tasks: Sequence[TaskStatus], names: Mapping[str, str]) -> str:
    """Returns how some tasks stand, as a table that fits the terminal; their names stay whole."""
    from ..screen.columns import Column, shortened, table, width

    columns = [
        Column("task"),
        Column("done", ">"),
        Column("failed", ">", rank=1),
        Column("running", ">", rank=2),
        Column("waiting", ">", rank=3),
        Column("gain", ">"),
        Column("best so far", least=24),
    ]
    rows = [_cells(one, names) for one in tasks]
    if width() is None:
        rows = [[*cells, shortened(best, BEST)] for *cells, best in rows]
    return table(columns, rows)


def _cells(one: TaskStatus, names: Mapping[str, str]) -> list[str]:
    from ..study.results import best_in_words

    best = "" if one.gain is None else best_in_words(names[one.best], one.gain)
    gain = "" if one.gain is None else f"{one.gain:+.3f}{'*' if one.sure else ' '}"
    counts = map(str, (one.done, one.failed, one.running, one.waiting))
    return [one.task, *counts, gain, "failed as a whole" if one.error else best]


def _telling(tasks: Sequence[TaskStatus]) -> list[TaskStatus]:
    """Returns the tasks that are at work first, then those in trouble, then those that have ended last."""

    def rank(one: TaskStatus) -> int:
        return 0 if one.running else 1 if one.failed or one.error else 2 if one.done else 3

    return sorted(tasks, key=rank)


def _reasons(store: Store, tasks: Sequence[TaskStatus]) -> list[str]:
    """Returns why tasks and trials failed, a line for each reason."""
    from ..study.status import failures

    broken = [f"{one.task} failed as a whole: {one.error}" for one in tasks if one.error]
    return [*broken, *(f"{one.task}: {why}" for one in tasks if one.failed for why in failures(store, one.task))]


def watch_status(study: Study, store: Store, *, keys: bool) -> None:
    """Shows a study anew every few seconds, in place on a terminal, until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            told = status_text(study, store, console.height - 1 if console.is_terminal else None, keys=keys)
            live.update(Text(told, no_wrap=True, overflow="ellipsis"), refresh=True)
            time.sleep(WATCH_SECONDS)
