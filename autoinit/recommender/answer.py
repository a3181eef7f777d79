"""The answer of `recommend`: what is predicted, and what a few short trainings showed, as data, text and a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .. import text
from ..knowledge.features import FEATURES, Features
from ..recipes.catalogue import entry_of
from ..recipes.names import title
from ..recipes.recipe import OWN, Recipe
from ..screen import chart, markup
from ..screen.columns import Column, table, wrapped
from .examples import NAMES, TASK_NAMES, matrix
from .informed import STEPS, Settled
from .learner import NEVER, PROMISED, Answer, Predicted
from .model import NEAREST, Recommender

REASONS = 3
"""Features that are named at most."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A feature of the task that spoke for a recipe.

    Attributes:
        feature: its name in `autoinit.knowledge.features.FEATURES`.
        meaning: what it says, from there.
        value: of this task.
        usual: mean of the studied tasks.
        change: how much it matters: by how much less the recipe would be worth at the usual value.
    """

    feature: str
    meaning: str
    value: float
    usual: float
    change: float

    def __str__(self) -> str:
        return f"{self.meaning}: {text.number(self.value)}, usually {text.number(self.usual)}"


@dataclass(frozen=True, eq=False, repr=False)
class Recommendation:
    """The answer of `recommend`.

    It ranks recipes by what studies have found on other models, and by what a few short trainings showed where these
    were asked for. Print it for the choice, what it promises, the reasons and the table. `autoinit.apply_(model,
    found.best, data)` draws the best one, which leaves the weights as they are where `abstained` is true; `recipes` are
    what is worth trying, for example by `autoinit.select(model, data, recipes=found.recipes)`.

    Attributes:
        best: the recipe to use; `as_is` where nothing can be recommended.
        abstained: whether nothing is recommended, so that `best` is as-is.
        unsure: whether that is because the risk of the likeliest recipe is too high, and not because none is expected
            to be better: a few short trainings of `recipes` would decide.
        why: the reason, in words.
        recipes: what to try if there is time for it, best first: those of the table without as-is, or, where the task
            lies outside of what was studied, those that did well on all of that together.
        table: the best recipes and as-is, a row each: recipe (as code takes it), name (in short), gain, low, high,
            place, harm, worth. The gain is by how many nats the logarithm of the loss is lower than from the model's
            own weights, with its interval; the place the share of the candidates that it beats; the harm the chance
            that the loss is more than 5 % higher; the worth, by which they are ranked, the place less what that risk
            costs. All are of the loss on held-back rows. Where recipes were tried, the column lead has by how many
            nats the loss of each was lower than that of the model's own weights after as many steps; NaN of the others.
        nearest: names of the nearest studied tasks, with their distances.
        features_for: what spoke for the best one; where nothing is recommended, for the likeliest.
        unlike: in what the task is least like the studied ones; the change is in their standard deviations.
        known: how many features of the task are known, of how many.
        starts: what is said of each learned start that was given and fits, which nothing was measured of.
        steps: how many steps of training were taken for it, in all; 0 where nothing was tried.
    """

    best: Recipe
    abstained: bool
    unsure: bool
    why: str
    recipes: tuple[Recipe, ...]
    table: pd.DataFrame
    nearest: tuple[tuple[str, float], ...]
    features_for: tuple[Reason, ...]
    unlike: tuple[Reason, ...]
    known: tuple[int, int]
    steps: int = 0
    starts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _render(self)

    def __repr__(self) -> str:
        return f"<Recommendation: {_head(self)}>"

    def _repr_html_(self) -> str:
        return _page(self)


def recommended(
    learned: Recommender,
    task: Features,
    candidates: Mapping[Recipe, Features],
    predicted: Predicted,
    k: int,
    tried: Settled | None = None,
) -> Recommendation:
    """Returns the answer.

    Args:
        learned: the recommender.
        task: the features of the task.
        candidates: the features of each recipe on it, as-is among them.
        predicted: what is expected of these.
        k: at most so many recipes are listed.
        tried: what some of them showed; None where none was tried.
    """
    recipes = list(candidates)
    own = recipes.index(OWN)
    rows = _predictions(learned, recipes, predicted, tried)
    distance = learned.distance(task)
    far = distance > learned.far
    verdict = learned.learner.verdict(predicted, own, k + 1, far)
    answer, likeliest, order = verdict.answer, verdict.likeliest, list(verdict.order)
    outside = f"it lies {text.number(distance)} from the nearest, which none of those does" if far else ""
    if tried is None:
        doubts = float(predicted.doubts(own)[likeliest]), learned.learner.doubt
        why = _why(answer, rows.iloc[likeliest], len(recipes) - 1, doubts, outside)
    else:
        answer, likeliest = tried.answer, tried.best
        why = _why_tried(answer, rows.iloc[likeliest], tried, learned)
        shown = sorted(tried.leads, key=lambda place: -float(rows["gain"][place]))
        order = [likeliest, *(place for place in [*shown, *order] if place != likeliest)]
    listed = list(dict.fromkeys(place for place in order if place != own))[:k]
    portfolio = tuple(one for one in learned.portfolio if one in candidates)[:k]
    outlying = far and tried is None and portfolio
    return Recommendation(
        best=recipes[likeliest] if answer == "try" else OWN,
        abstained=answer != "try",
        unsure=answer == "unsure",
        why=why,
        recipes=(portfolio if outlying else tuple(recipes[place] for place in listed)),
        table=rows.iloc[[*listed, own]].reset_index(drop=True),
        nearest=tuple(learned.nearest(task)),
        features_for=_reasons(learned, task, candidates[recipes[likeliest]]),
        unlike=_unlike(learned, task),
        known=(sum(name in task for name in TASK_NAMES), len(TASK_NAMES)),
        steps=0 if tried is None else STEPS * (1 + len(tried.leads)),
    )


def _predictions(
    learned: Recommender, recipes: Sequence[Recipe], predicted: Predicted, tried: Settled | None
) -> pd.DataFrame:
    """Returns what is expected of each recipe, a row each; of those that were tried what is expected since then."""
    rows = pd.DataFrame(
        {
            "recipe": [one.key for one in recipes],
            "name": [title(one) for one in recipes],
            "gain": predicted.gain,
            "low": predicted.low,
            "high": predicted.high,
            "place": predicted.place,
            "harm": predicted.harm,
            "worth": learned.worth(predicted),
        }
    )
    if tried is not None:
        rows["lead"] = [tried.leads.get(place, math.nan) for place in range(len(recipes))]
        for place, gain in tried.gain.items():
            reach = tried.reach[place]
            rows.loc[place, ["gain", "low", "high"]] = gain, gain - reach, gain + reach
            rows.loc[place, "harm"] = tried.harm[place]
    return rows


def _why(answer: Answer, likeliest: Any, others: int, doubts: tuple[float, float], outside: str) -> str:
    """Returns the reason of an answer, in words.

    Args:
        answer: in one.
        likeliest: the row of the likeliest recipe.
        others: how many there are besides as-is.
        doubts: share of the trees that put it no higher than as-is, and up to which a recipe is recommended.
        outside: how far the task lies outside of what was studied; empty where it does not.
    """
    if answer == "try":
        return f"of {others} recipes the likeliest to do well, at little risk, on tasks like this one"
    if answer == "keep":
        return f"none of {others} recipes is expected to be better; the likeliest, {_promise(likeliest)}"
    if outside:
        return f"this task is unlike the studied ones: {outside}; the likeliest recipe, {_promise(likeliest)}"
    doubt, most = doubts
    trees = f"is put no higher than your own weights by {doubt:.0%} of the trees"
    return f"the likeliest of {others} recipes, {_promise(likeliest)}, {trees}. {_limit(most)}"


def _why_tried(answer: Answer, best: Any, tried: Settled, learned: Recommender) -> str:
    """Returns the reason of an answer that recipes were tried for, in words."""
    count = len(tried.leads)
    if not count:
        return "there is no recipe to try"
    among = f"of the {count} recipes that were tried for {STEPS} steps" if count > 1 else f"after {STEPS} steps"
    came = f"came to × {math.exp(-best['lead']):.2f} of the loss of your own weights"
    if answer == "try":
        return f"{among} it is the likeliest to end well, at little risk; there it {came}"
    if answer == "keep":
        none = "none is expected to end better" if count > 1 else f"{best['name']} is not expected to end better"
        which = f"the likeliest, {best['name']}," if count > 1 else "it"
        return f"{among} {none} than your own weights; {which} {came}"
    limit = _limit(learned.informed.risk if learned.informed else NEVER)
    risk = f"at a chance of {best['harm']:.0%} that it does harm"
    return f"{among} {best['name']} is the likeliest to end well, {risk}; there it {came}. {limit}"


def _limit(risk: float) -> str:
    if risk <= NEVER:
        return f"Too few tasks were studied to promise that {PROMISED:.0%} of the choices do harm at most"
    return f"Up to {risk:.0%}, {PROMISED:.0%} of the choices for unseen kinds of networks do harm at most"


def _reasons(learned: Recommender, task: Features, recipe: Features) -> tuple[Reason, ...]:
    """Returns the features of the task without which the recipe would be worth less, the weightiest first."""
    usual = dict(zip(TASK_NAMES, map(float, learned.centre), strict=True))
    known = [name for name in TASK_NAMES if name in task]
    rows = np.repeat(matrix(task, [recipe]), len(known) + 1, axis=0)
    for place, name in enumerate(known):
        rows[place, NAMES.index(name)] = usual[name]
    worth = learned.worth(learned.learner.predict(rows))
    changes = [(float(worth[-1] - value), name) for value, name in zip(worth, known, strict=False)]
    found = sorted((one for one in changes if one[0] > 0), reverse=True)[:REASONS]
    return tuple(Reason(name, FEATURES[name], task[name], usual[name], change) for change, name in found)


def _unlike(learned: Recommender, task: Features) -> tuple[Reason, ...]:
    """Returns the features in which the task is farthest from the studied ones' mean, the farthest first."""
    rows = zip(TASK_NAMES, map(float, learned.centre), map(float, learned.spread), strict=True)
    gaps = [((task[name] - usual) / spread, name, usual) for name, usual, spread in rows if name in task]
    farthest = sorted(gaps, key=lambda gap: -abs(gap[0]))[:REASONS]
    return tuple(Reason(name, FEATURES[name], task[name], usual, gap) for gap, name, usual in farthest)


# In words


def _promise(row: Any) -> str:
    return f"{row['name']}, might have the loss {_ratio(row)}"


def _ratio(row: Any) -> str:
    """Returns a gain as a factor on the loss, with its interval."""
    middle, low, high = (math.exp(-float(row[name])) for name in ("gain", "high", "low"))
    return f"× {middle:.2f} ({low:.2f} … {high:.2f})"


def _head(found: Recommendation) -> str:
    if found.unsure:
        return "Unsure: keep your own weights, or try a few recipes"
    return "Nothing is recommended: keep your own weights" if found.abstained else f"Try {title(found.best)}"


def _facts(found: Recommendation) -> list[tuple[str, str]]:
    facts = [("why", found.why)]
    if not found.abstained:
        best = next(row for row in found.table.to_dict("records") if row["recipe"] == found.best.key)
        facts.append(("promise", f"loss {_ratio(best)} after a short training, against your own weights"))
        facts.append(("next", f"autoinit.apply_(model, {_code(found.best)}, data)"))
    known, every = found.known
    facts.append(
        ("nearest", ", ".join(f"{name} ({text.number(distance, 2)})" for name, distance in found.nearest[:NEAREST]))
    )
    word, reasons = ("unlike", found.unlike) if found.abstained else ("because", found.features_for)
    facts += [(word if place == 0 else "", str(reason)) for place, reason in enumerate(reasons)]
    if known < every:
        facts.append(("known", f"{known} of {every} features of the task"))
    facts += [("start" if place == 0 else "", said) for place, said in enumerate(found.starts)]
    if found.steps:
        facts.append(("cost", f"{found.steps} steps of training: {found.steps // STEPS} trainings of {STEPS}"))
    if found.abstained:
        facts.append(("to try", "; ".join(title(one) for one in found.recipes)))
    if found.unsure:
        facts.append(("decide", _few_trainings(len(found.recipes))))
    return facts


def _few_trainings(count: int) -> str:
    """Returns what would settle it."""
    what = f"a short training of each of these {count}" if count > 1 else "a short training of it"
    return f"{what} and of your own weights would tell: autoinit.select(model, data, recipes=found.recipes)"


def _code(recipe: Recipe) -> str:
    """Returns how a recipe is written in code: its name, or its fields."""
    if entry := entry_of(recipe):
        return repr(entry.name)
    return f"autoinit.Recipe.from_json({recipe.to_json()!r})"


_COLUMNS = (
    Column("recipe", least=20),
    Column("loss (80 % interval)", ">"),
    Column("beats", ">", rank=2),
    Column("harm", ">", rank=1),
)
_TRIED = Column(f"after {STEPS}", ">")
_MEANS = "beats: share of the candidates. harm: chance of a loss more than 5 % above that of your own weights."


def _rows(found: Recommendation) -> list[tuple[str, ...]]:
    return [
        (
            f"{'→' if row['recipe'] == found.best.key else ' '} {row['name']}",
            _ratio(row) if row["recipe"] != OWN.key else "× 1",
            f"{row['place']:.0%}",
            f"{row['harm']:.0%}",
            *([_after(row)] if found.steps else []),
        )
        for row in found.table.to_dict("records")
    ]


def _after(row: Any) -> str:
    """Returns what a recipe came to when it was tried, as a factor on the loss of the owner's weights."""
    if row["recipe"] == OWN.key:
        return "× 1"
    return "" if math.isnan(row["lead"]) else f"× {math.exp(-row['lead']):.2f}"


def _columns(found: Recommendation) -> tuple[Column, ...]:
    return (*_COLUMNS, _TRIED) if found.steps else _COLUMNS


def _means(found: Recommendation) -> str:
    after = f" after {STEPS}: the loss of those that were tried, after {STEPS} steps." if found.steps else ""
    return _MEANS + after


def _render(found: Recommendation) -> str:
    lines = [_head(found), *(wrapped(f"  {name:7}  {value}", " " * 11) for name, value in _facts(found))]
    return "\n".join([*lines, "", table(_columns(found), _rows(found)), wrapped(_means(found), "  ")])


def _page(found: Recommendation) -> str:
    """Returns the same for a notebook."""
    gains = [
        chart.Interval(row["name"], -row["gain"], -row["high"], -row["low"])
        for row in found.table.to_dict("records")
        if row["recipe"] != OWN.key
    ]
    facts = _facts(found)
    return markup.page(
        _head(found),
        markup.facts(facts[:3]),
        chart.intervals(gains, "log of the loss, against your own weights: lower is better"),
        markup.folded(
            "What is worth trying", markup.table(_columns(found), _rows(found)), markup.facts([("", _means(found))])
        ),
        markup.folded("Why", markup.facts(facts[3:])),
    )
