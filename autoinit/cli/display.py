"""What a command shows: its progress on stderr, its answer as text or as one JSON object on stdout."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:  # the libraries below take seconds to load: each command imports what it needs
    from ..recommendation import Recommendation
    from ..search.campaign import Progress, ProgressEvent
    from ..search.selection import Selection


@contextmanager
def progress_shown(quiet: bool) -> Iterator[Progress | Literal[False]]:
    """Gives a progress callback: a bar where stderr is a terminal, plain lines elsewhere, False if quiet."""
    if quiet:
        yield False
    elif sys.stderr.isatty():
        bar = Bar()
        try:
            yield bar
        finally:
            bar.stop()
    else:
        yield lines()


class Bar:
    """A progress bar on stderr. It appears with the first event and leaves stdout alone."""

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[message]}", markup=False),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,  # else results would be wrapped, and sent to stderr
        )
        self._task = self._bar.add_task("", total=1.0, message="")

    def __call__(self, event: ProgressEvent) -> None:
        """Shows how far the search is."""
        self._bar.start()
        self._bar.update(self._task, description=event.stage, completed=event.done, message=event.message)

    def stop(self) -> None:
        """Takes the bar off the screen, until the next event."""
        self._bar.stop()


def lines() -> Progress:
    """Returns a callback that prints a line at every new stage and every tenth of the way."""
    shown: tuple[str, int] | None = None

    def show(event: ProgressEvent) -> None:
        nonlocal shown
        here = (event.stage, math.floor(10 * event.done))
        if here != shown:
            shown = here
            typer.echo(f"{event.done:4.0%}  {event.stage}  {event.message}".rstrip(), err=True)

    return show


def answer(as_json: bool, result: object, data: Callable[[], Any]) -> None:
    """Prints a result as text, or what `data` returns of it as one JSON object."""
    typer.echo(json.dumps(data(), ensure_ascii=False, allow_nan=False) if as_json else str(result))


def data_of(value: Any) -> Any:
    """Returns a dataclass as JSON-ready data; what is not finite becomes null."""
    from ..jsonfile import finite, to_data

    if isinstance(value, tuple):
        return [data_of(item) for item in value]
    return finite(to_data(value))


def selection_data(selection: Selection) -> dict[str, Any]:
    """Returns what `select --json` prints."""
    from ..jsonfile import finite

    return {
        "kept": selection.kept,
        "interrupted": selection.interrupted,
        "answer": selection.answer,
        "headline": selection.headline,
        "why": selection.why,
        "remedy": selection.remedy,
        "recipe": data_of(selection.recipe),
        "key": selection.recipe.key,
        "contender": selection.contender.key if selection.contender else None,
        "gain": data_of(selection.gain) if selection.gain else None,
        "held_back": data_of(selection.held_back) if selection.held_back else None,
        "lr": selection.lr,
        "cost": data_of(selection.cost),
        "trials": finite(json.loads(selection.trials.to_json(orient="records"))),
        "plan": data_of(selection.plan),
    }


def recommendation_data(found: Recommendation) -> dict[str, Any]:
    """Returns what `recommend --json` prints."""
    return {
        "best": found.best.key,
        "fields": json.loads(found.best.to_json()),
        "abstained": found.abstained,
        "why": found.why,
        "to_try": [recipe.key for recipe in found.recipes],
        "table": json.loads(found.table.to_json(orient="records")),
        "nearest": [list(one) for one in found.nearest],
        "features_for": data_of(found.features_for),
    }
