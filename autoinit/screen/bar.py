"""Progress: a bar in a terminal, one below a notebook's cell, plain lines for a log, or nothing."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, Protocol

from .columns import shortened
from .notebook import Output, in_notebook

_PAUSE = 0.2
"""Seconds between two updates of a notebook's output: each is a message to the browser, and is kept in the file."""


_BAR = 16
_BESIDE = len(" 100%") + 3
"""Columns of a terminal's line that its bar takes, and the percentage with the spaces between all."""


class Event(Protocol):
    """Where something stands that takes a while."""

    @property
    def stage(self) -> str:
        """What is being done, in a word."""

    @property
    def done(self) -> float:
        """The share that is done, 0 to 1."""

    @property
    def message(self) -> str:
        """More about it, in a few words."""


Show = Callable[[Any], None]


@contextmanager
def progress_shown(wanted: bool | None) -> Iterator[Show]:
    """Gives what to call with each event; what it shows is taken away at the end.

    Args:
        wanted: False shows nothing, and True something wherever it is: plain lines on stderr where there is neither a
            notebook nor a terminal. None shows something in a notebook or a terminal only.
    """
    if wanted is False:
        yield lambda event: None
    elif in_notebook():
        yield from _until_done(NotebookBar())
    elif sys.stderr.isatty():
        yield from _until_done(TerminalBar())
    else:
        yield lines() if wanted else lambda event: None


def _until_done(bar: NotebookBar | TerminalBar) -> Iterator[Show]:
    try:
        yield bar
    finally:
        bar.stop()


class TerminalBar:
    """A bar on stderr, one line of it however narrow the terminal is. It appears with the first event."""

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console

        self._console = Console(stderr=True)
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=_BAR),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[message]}", markup=False),
            console=self._console,
            transient=True,
            redirect_stdout=False,  # else results would be wrapped, and sent to stderr
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=1.0, message="")

    def __call__(self, event: Event) -> None:
        """Shows how far it is."""
        left = self._console.width - len(event.stage) - _BAR - _BESIDE
        message = shortened(event.message, left) if left > 0 else ""  # rich would cut the other columns as well
        self._bar.update(self._task, description=event.stage, completed=event.done, message=message)
        self._bar.start()

    def stop(self) -> None:
        """Takes the bar off the screen, until the next event."""
        self._bar.stop()


class NotebookBar:
    """A bar below the running cell, made of HTML alone: it needs no widget and no extension."""

    def __init__(self) -> None:
        self._output = Output()
        self._stage, self._shown = "", -math.inf

    def __call__(self, event: Event) -> None:
        """Shows how far it is; what comes too soon after the last one is left out."""
        now = time.monotonic()
        if event.stage == self._stage and now - self._shown < _PAUSE:
            return
        self._stage, self._shown = event.stage, now
        bar = f'<progress max="1" value="{event.done:.3f}" style="width:12em;vertical-align:middle"></progress>'
        self._output.show(f"<div>{escape(event.stage)} {bar} {event.done:.0%} {escape(event.message)}</div>")

    def stop(self) -> None:
        """Takes the bar away."""
        self._output.clear()


def lines() -> Show:
    """Returns a callback that prints a line on stderr at each new stage and tenth of the way once something is done."""
    shown: tuple[str, int] | None = None

    def show(event: Event) -> None:
        nonlocal shown
        if not event.done:  # nothing has been tried yet: a log needs no line of that
            return
        here = (event.stage, math.floor(10 * event.done))
        if here != shown:
            shown = here
            print(f"{event.done:4.0%}  {event.stage}  {event.message}".rstrip(), file=sys.stderr, flush=True)

    return show
