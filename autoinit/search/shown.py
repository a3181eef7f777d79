"""A selection for a person: the answer in a sentence, what to do next, and the table of what was tried."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from .. import text
from ..judging.gate import Gain
from ..judging.payback import Payback
from ..plans.plan import Plan
from ..plans.table import coverage
from ..recipes.names import glossary, title, told_apart
from ..recipes.recipe import OWN, Recipe
from ..screen import markup
from ..screen.chart import Interval, intervals
from ..screen.columns import Column, table, wrapped
from .costs import Cost
from .reasons import OWN_TRAINING, Answer

_SHOWN = 8
_LABEL = "  {:7}"
_INDENT = " " * 9
_SCORE = "score: log of the loss against a constant guess, plus gradient range; lower is better"
_OWN_SCORE = "score: log of the value against your own weights' first, plus gradient range; lower is better"
_DIFFERENCE = "score: value less your own weights' first, in units of its size, plus gradient range; lower is better"


class Shown:
    """What an answer of a search shows of itself; its fields are those of `autoinit.search.selection.Selection`."""

    recipe: Recipe
    plan: Plan
    kept: bool
    gain: Gain | None
    held_back: Gain | None
    lr: float | None
    why: str
    trials: pd.DataFrame
    cost: Cost
    task: str
    lr_searched: bool
    answer: Answer
    remedy: str
    alike: tuple[tuple[Recipe, Recipe], ...]
    given_lr: float | None
    lr_given: bool
    applied: bool
    payback: Payback | None
    proxy: str
    on_proxy: bool
    sparse: str

    @property
    def headline(self) -> str:
        """The answer in a sentence, the first line of what is printed."""
        return headline(self)

    def to_text(self, *, keys: bool = False, width: int | None = None) -> str:
        """Returns what `print` shows.

        Args:
            keys: Whether recipes are named as code takes them, "orthogonal log2_gain=-0.454", and not in short.
            width: Characters in a line. None means the screen's, and all that there is where nothing is printed on one.
        """
        return as_text(self, keys=keys, most=width)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return line(self)

    def _repr_html_(self) -> str:
        return as_html(self)


def headline(selection: Shown) -> str:
    """Returns the answer in a sentence."""
    if selection.answer == "better":
        why = _spoken(selection.why)
        return f"{why[:1].upper()}{why[1:]} (sure{', of the proxy' if selection.on_proxy else ''})."
    if selection.answer == "no better" and not len(selection.trials):
        return "Your own weights are kept: there are no others to choose."
    if selection.answer == "no better":
        return "Your own weights are kept: nothing better was found."
    return f"Your own weights are kept: cannot tell{f'; {selection.remedy}' if selection.remedy else ''}."


def rate(selection: Shown) -> str:
    """Returns with which learning rate to train, where it was searched or is another one; else nothing."""
    if selection.lr is None or not selection.lr_searched:
        return ""
    lr, given = text.number(selection.lr), selection.given_lr
    whose = "yours" if selection.lr_given else "the default"
    if given is None or math.isclose(selection.lr, given):
        return f"Train with lr {lr}: others were tried, and {whose} did best."
    return f"Train with lr {lr}: it was searched, {whose} was {text.number(given)}."


def next_steps(selection: Shown) -> str:
    """Returns what to do now: code, a line each; empty where nothing is left to do."""
    if selection.kept:
        return ""
    if selection.applied:
        return 'selection.save("init.json")\nautoinit.apply_(model, "init.json")  # the same elsewhere'
    return 'autoinit.apply_(model, selection)\nselection.save("init.json")'


def line(selection: Shown) -> str:
    """Returns the selection in one line, for `repr`."""
    gain = "" if selection.gain is None or selection.kept else f", {selection.gain.words}"
    cost = f"{_tried(selection.cost)} in {text.seconds(selection.cost.seconds)}"
    return f"<Selection: {selection.answer}, {title(selection.recipe)}{gain}; {cost}>"


def as_text(selection: Shown, *, keys: bool = False, most: int | None = None, after: str | None = None) -> str:
    """Returns all of it for a screen.

    Args:
        selection: the answer.
        keys: whether recipes are named as code takes them, and not in short.
        most: characters in a line; None for the screen's.
        after: what to do next, a line each; None for what a program does that holds the selection.
    """
    said = f"{headline(selection)} {rate(selection)}".strip()
    lines = [wrapped(said, most=most)]
    for place, step in enumerate((next_steps(selection) if after is None else after).splitlines()):
        lines.append(f"{_LABEL.format('' if place else 'next')}{step}")
    for name, value in _facts(selection, keys):
        lines.append(wrapped(f"{_LABEL.format(name)}{value}", _INDENT, most))
    if len(selection.trials):
        lines += ["", _leaderboard(selection, keys, most)]
        lines += _legend(selection, keys, most, "\n".join(lines))
    if selection.alike:
        doubles = _doubles(selection.alike, keys)
        lines.append(wrapped(f"not tried, as they give the same weights: {doubles}", "  ", most))
    return "\n".join(lines)


def as_html(selection: Shown) -> str:
    """Returns it for a notebook: the sentence, a chart of the gains, what to do next, and the rest folded."""
    best = _best(selection.trials, selection.recipe.key)
    own = next((row["score"] for row in best if row["recipe"] == OWN.key), math.nan)
    gains = [Interval(row["name"], *[row["score"] - own] * 3) for row in best if row["recipe"] != OWN.key]
    rows = [[_marked(row, selection, "name"), *_cells(row)] for row in best]
    tried = markup.table(_columns(selection), rows) + markup.facts([("", said) for said in _explained(selection)])
    return markup.page(
        f"{headline(selection)} {rate(selection)}".strip(),
        markup.facts(list(_facts(selection, keys=False))[:3]),
        intervals(gains, "score in the search, against your own weights: lower is better"),
        markup.code(next_steps(selection)) if not selection.kept else "",
        markup.folded(f"What was tried ({_tried(selection.cost)})", tried) if rows else "",
        markup.folded("The rest", markup.facts(list(_facts(selection, keys=False))[3:])),
    )


def _spoken(why: str) -> str:
    """Returns a reason as said to the model's owner."""
    return why.replace("the model's own weights", "your own weights").replace("the model's own", "your own")


def _facts(selection: Shown, keys: bool) -> Iterator[tuple[str, str]]:
    if selection.kept:
        yield "why", _spoken(selection.why)
    else:
        yield "chose", _name(selection.recipe, keys)
    pairs = (("training", selection.gain), ("held-back", selection.held_back))
    for place, (name, gain) in enumerate((name, gain) for name, gain in pairs if gain is not None):
        yield "" if place else ("seen" if selection.kept else "gain"), f"{name} {gain}"
    if selection.proxy:
        yield "proxy", selection.proxy
    if selection.task:
        yield "task", selection.task
    if selection.lr is not None and not selection.lr_searched:
        yield "lr", f"{text.number(selection.lr)} (not searched)"
    cost = selection.cost
    memory = "" if cost.memory is None else f", {cost.memory / 2**20:,.0f} MiB at most"
    steps = f"{cost.steps:.0f} training steps{share_of(cost)}"
    yield "cost", f"{text.seconds(cost.seconds)}, {steps}, {_tried(cost)}{memory}"
    if cost.budget:
        yield "", f"budget: {cost.budget}"
    if cost.early:
        yield "", cost.early
    if selection.payback is not None:
        yield "saves", saves(selection)
    if cost.executor:
        yield "run", cost.executor
    if selection.sparse:
        yield "ticket", selection.sparse
    if not selection.kept:
        yield "plan", coverage(selection.plan.fills)


def share_of(cost: Cost) -> str:
    """Returns what a search took as a share of the training, in brackets; nothing where its length is not known."""
    return "" if cost.share is None else f" ({text.percent(cost.share)} of the training's {cost.training_steps:,.0f})"


def saves(selection: Shown) -> str:
    """Returns the steps of training that a choice saves, against those that the search took; nothing where none."""
    if selection.payback is None:
        return ""
    whose = " of the proxy" if selection.on_proxy else ""
    took = f"the search took {selection.cost.steps:.0f}"
    return f"{selection.payback}{whose} to the loss that your own weights end at; {took}"


def _tried(cost: Cost) -> str:
    return f"{cost.trials} {'trial' if cost.trials == 1 else 'trials'}"


def _name(recipe: Recipe, keys: bool) -> str:
    return recipe.key if keys else title(recipe)


def _best(trials: pd.DataFrame, chosen: str) -> list[dict[str, Any]]:
    """Returns the best fully probed recipes of the search and the model's own, each at its best learning rate."""
    done = trials[(trials.stage == "search") & (trials.state == "complete")]
    best = done.sort_values("score").drop_duplicates("recipe")
    shown = best.head(_SHOWN)
    for must in (OWN.key, chosen):
        if must not in set(shown.recipe):
            shown = pd.concat([shown.head(_SHOWN - 1), best[best.recipe == must]])
    names = told_apart(dict(zip(shown["recipe"], shown["name"], strict=True)))
    rows = ({str(name): value for name, value in row.items()} for row in shown.to_dict("records"))
    return [{**row, "name": names[row["recipe"]]} for row in rows]


def _marked(row: Mapping[str, Any], selection: Shown, column: str) -> str:
    return f"{'→' if row['recipe'] == selection.recipe.key else ' '} {row[column]}"


def _cells(row: Mapping[str, Any]) -> list[str]:
    losses = (f"{row[name]:.3f}" for name in ("score", "first_loss", "last_loss"))
    rate = [] if math.isnan(row["lr"]) else [text.number(row["lr"])]
    return [*rate, str(row["steps"]), *losses]


def _columns(selection: Shown) -> list[Column]:
    rate = Column("lr", ">", rank=1 if selection.lr_searched else 4)
    return [
        Column("recipe", least=36),
        *([] if selection.given_lr is None else [rate]),
        Column("steps", ">", rank=3),
        Column("score", ">", rank=2),
        Column("first loss", ">", rank=3),
        Column("last loss", ">"),
    ]


def _leaderboard(selection: Shown, keys: bool, most: int | None) -> str:
    best = _best(selection.trials, selection.recipe.key)
    rows = [[_marked(row, selection, "recipe" if keys else "name"), *_cells(row)] for row in best]
    return table(_columns(selection), rows, most)


def _legend(selection: Shown, keys: bool, most: int | None, above: str) -> Iterator[str]:
    for said in _explained(selection, keys=keys, above=above):
        yield wrapped(said, "  ", most)


def _explained(selection: Shown, *, keys: bool = False, above: str | None = None) -> Iterator[str]:
    """Yields what is said below the table: how many were tried, what a score is, and what the words mean.

    Args:
        selection: the answer.
        keys: whether recipes are named by them: no word of a name is to be explained then.
        above: what is printed, where names may be shortened: what they have lost needs no explanation.
    """
    trials = selection.trials
    states = trials[trials.stage == "search"].state.value_counts().to_dict()
    where = " on the proxy" if selection.proxy else ""
    yield f"searched{where}: {', '.join(f'{count} {state}' for state, count in states.items())}"
    said = _OWN_SCORE if selection.task.startswith(OWN_TRAINING) else _SCORE
    if selection.gain is not None and selection.gain.unit is not None:
        said = _DIFFERENCE
    yield f"{said}. → the choice."
    if not keys:
        for word, meaning in glossary(row["recipe"] for row in _best(trials, selection.recipe.key)):
            if above is None or word in above:
                above = None if above is None else f"{above}\n{meaning}"
                yield f"{word}: {meaning}"


def _doubles(alike: Sequence[tuple[Recipe, Recipe]], keys: bool) -> str:
    """Returns recipes that were not tried, behind the one that stands for them: "own weights (lsuv, he_normal)"."""
    groups: dict[str, list[str]] = {}
    for recipe, other in alike:
        groups.setdefault(_name(other, keys), []).append(_name(recipe, keys))
    return "; ".join(f"{other} ({', '.join(recipes)})" for other, recipes in groups.items())
