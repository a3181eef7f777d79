"""What a command shows: its progress on stderr, its answer as text or as one JSON object on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:  # the libraries below take seconds to load: each command imports what it needs
    from ..recommender.answer import Recommendation
    from ..search.selection import Selection


def reading(quiet: bool, *what: str | None) -> None:
    """Says on a terminal what is being imported, which takes seconds where that is torch."""
    if not quiet and sys.stderr.isatty():
        typer.echo(f"reading {' and '.join(one for one in what if one)} …", err=True)


@contextmanager
def stopped_in_words() -> Iterator[None]:
    """Lets a Ctrl-C that ends the command say what it left undone, in a line."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        typer.echo(f"autoinit: {stopped if stopped.args else 'stopped before anything was done'}", err=True)
        raise typer.Exit(130) from None


def answer(as_json: bool, result: object, data: Callable[[], Any]) -> None:
    """Prints a result as text, or what `data` returns of it as one JSON object."""
    typer.echo(json.dumps(data(), ensure_ascii=False, allow_nan=False) if as_json else str(result))


def data_of(value: Any) -> Any:
    """Returns a dataclass as JSON-ready data; what is not finite becomes null."""
    from ..jsonfile import finite, to_data

    if isinstance(value, tuple):
        return [data_of(item) for item in value]
    return finite(to_data(value))


def after_select(selection: Selection, out: Path | None) -> str:
    """Returns what to do after `autoinit select`, a line each: there is no program that holds the selection.

    Args:
        selection: what was found.
        out: where its plan was saved; None where it was not.
    """
    if out is not None:
        return f"autoinit.apply_(model, {str(out)!r})  # in your code: {out} is saved"
    return "" if selection.kept else "the same with --out init.json saves it, for autoinit.apply_(model, 'init.json')"


def selection_data(selection: Selection) -> dict[str, Any]:
    """Returns what `select --json` prints."""
    from ..jsonfile import finite
    from ..plans.plan import told
    from ..recipes.names import title

    return {
        "kept": selection.kept,
        "interrupted": selection.interrupted,
        "answer": selection.answer,
        "headline": selection.headline,
        "why": selection.why,
        "remedy": selection.remedy,
        "recipe": data_of(selection.recipe),
        "key": selection.recipe.key,
        "name": title(selection.recipe),
        "contender": selection.contender.key if selection.contender else None,
        "gain": data_of(selection.gain) if selection.gain else None,
        "held_back": data_of(selection.held_back) if selection.held_back else None,
        "lr": selection.lr,
        "given_lr": selection.given_lr,
        "lr_searched": selection.lr_searched,
        "cost": data_of(selection.cost),
        "proxy": selection.proxy,
        "on_proxy": selection.on_proxy,
        "payback": data_of(selection.payback) if selection.payback else None,
        "trials": finite(json.loads(selection.trials.to_json(orient="records"))),
        "plan": finite(told(selection.plan)),
    }


def recommendation_data(found: Recommendation) -> dict[str, Any]:
    """Returns what `recommend --json` prints."""
    return {
        "best": found.best.key,
        "fields": json.loads(found.best.to_json()),
        "abstained": found.abstained,
        "unsure": found.unsure,
        "why": found.why,
        "to_try": [recipe.key for recipe in found.recipes],
        "table": json.loads(found.table.to_json(orient="records")),
        "nearest": [list(one) for one in found.nearest],
        "features_for": data_of(found.features_for),
    }
