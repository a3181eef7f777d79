"""`recommend`: which recipe suits a model, by what studies have found on others; nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import text
from .errors import USER_ERRORS, ArgumentError, RecipeError
from .graph import Globs, Graph
from .knowledge.features import (
    FEATURES,
    Features,
    architecture_features,
    own_features,
    ratio_features,
    recipe_features,
)
from .plans.rules import resolve
from .probing.first_pass import pass_features
from .recipes.catalogue import check_fits, entry_of
from .recipes.names import title
from .recipes.recipe import OWN, Recipe
from .recipes.space import space_of
from .recommender.examples import NAMES, TASK_NAMES, matrix
from .recommender.learner import NEVER, PROMISED, Verdict
from .recommender.model import NEAREST, Recommender
from .recommender.source import Source, recommender_from
from .screen import chart, markup
from .screen.columns import Column, table, wrapped
from .task.checks import unwrap
from .task.features import own_scales, training_features
from .task.optimizers import OptimizerBuilder
from .task.snapshot import preserved_random
from .task.task import Task, example_task
from .tracing.choices import keep_choices, keep_untrained
from .tracing.glimpse import glimpse

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

    It ranks recipes by what studies have found on other models; nothing was trained for it. Print it for the choice,
    what it promises, the reasons and the table. `autoinit.apply_(model, found.best, data)` draws the best one, which
    leaves the weights as they are where `abstained` is true; `recipes` are what is worth trying, for example by
    `autoinit.select(model, data, recipes=found.recipes)`.

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
            costs. All are of the loss on held-back rows.
        nearest: names of the nearest studied tasks, with their distances.
        features_for: what spoke for the best one; where nothing is recommended, for the likeliest.
        unlike: in what the task is least like the studied ones; the change is in their standard deviations.
        known: how many features of the task are known, of how many.
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

    def __str__(self) -> str:
        return _render(self)

    def __repr__(self) -> str:
        return f"<Recommendation: {_head(self)}>"

    def _repr_html_(self) -> str:
        return _page(self)


def recommend(
    model: nn.Module,
    data: Any = None,
    *,
    k: int = 5,
    loss: Callable[[Any, Any], Tensor] | None = None,
    step: Callable[[nn.Module, Any], Tensor] | None = None,
    optimizer: Any = None,
    lr: float | str | None = None,
    recipes: str | Recipe | Sequence[str | Recipe] | None = None,
    only: Globs = None,
    exclude: Globs = None,
    recommender: Source = None,
) -> Recommendation:
    """Returns which recipes suit a model, by what studies have found on others. Nothing is trained or changed.

    The model and its data are described by some seventy numbers: depth, activations, normalization, the scale of your
    own weights and of the inputs, the optimizer, and where there are data what a pass of your weights tells. A model
    that was fitted to the trainings of earlier studies says of each recipe how likely it does well on such a task, by
    how much, and at what risk. It is an estimate where `select` measures.

    It takes a second, and where there are data a few passes of one batch through your weights, after which the model is
    exactly as it was; what cannot be measured so stays unknown. The first call on a
    machine fits the recommender, which takes up to half a minute, and keeps it in the cache folder ($AUTOINIT_CACHE or
    the platform's own). What is predicted is the loss on held-back rows. Where no recipe is expected to be better than
    your own weights, or the risk is higher than what keeps the harm of all first choices below 2 %, it abstains and
    recommends your own weights; in the second case it says that it is unsure, and which few recipes to try.

    Args:
        model: The recipes are for this module. It may be on any device, the meta device included, where your own draw
            is not known.
        data: This is what the model will be trained on, of the kinds that `select` takes: batches, or (X, y) with X of
            shape (rows, …) and y of shape (rows,) or (rows, …). About a thousand rows are looked at. None means that
            nothing is known of the data, and the answer is less sure.
        k: At most so many recipes are listed.
        loss: This callable (output, target) -> scalar tensor is the loss. None means that it is inferred, as in
            `select`.
        step: This callable (model, batch) -> scalar takes the place of `loss`, for whatever else trains by one loss.
        optimizer: The model will be trained with this: a callable (params) -> Optimizer, or an existing one. None means
            AdamW where there are data, and that it is not known where there are none. Parameters that it does not hold
            stay as they are.
        lr: This is the learning rate, a number, where it is not the optimizer's own.
        recipes: These are the only candidates, by name or as `Recipe`, one or several. None means what a search on this
            architecture begins with, and what did well on all studied tasks.
        only: Only parameters whose names match these globs may change; one text or several. None means all.
        exclude: Parameters whose names match these globs stay as they are; one text or several. None means that none
            has to.
        recommender: This one is asked: a `Recommender`, or the path of a fitted one (.npz), of knowledge (.jsonl.xz) or
            of records of studies, which are added to the shipped ones. None or "default" means the one that is fitted
            to what ships.

    Returns:
        A `Recommendation`. Print it for the ranked table and the reasons; `apply_(model, found.best, data)` draws the
        best one, which is `as_is` where `abstained` is true.

    Raises:
        ArgumentError: The number k is below 1, or the recommender is of another kind.
        KnowledgeError: A recommender's file cannot be used.
        RecipeError: A recipe is unknown, or for other networks than this one.
        DataError: The data are of no kind that is taken, hold NaN or infinity, or the model cannot take them.
        ModelError: Nothing is trainable, no gradient arrives, or a glob matches nothing.
        StepError: The loss or the step cannot be called, or returns no scalar.
        OptimizerError: The optimizer is none and makes none, or the learning rate is no positive number.

    Reference:
        The forests are those of Geurts, Ernst & Wehenkel 2006, "Extremely randomized trees".

    Example:
        >>> import autoinit, torch
        >>> from sklearn.datasets import load_digits
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> pixels, labels = load_digits(return_X_y=True)
        >>> hidden = [nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(14)]
        >>> model = nn.Sequential(*hidden, nn.Linear(64, 10))
        >>> def sgd(parameters):
        ...     return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)
        >>> found = autoinit.recommend(model, (pixels / 16, labels), optimizer=sgd)
        >>> print(found)
        Try orthogonal...
          why      of ... recipes the likeliest to do well, at little risk, on tasks like this one
          promise  loss × 0... after a short training, against your own weights
        ...
        >>> found.abstained, len(found.recipes)
        (False, 5)
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ArgumentError(f"k must be a whole number from 1: how many recipes to list. Got {k!r}.")
    with preserved_random():  # what is loaded for it on first use draws from Python's generator
        learned = recommender_from(recommender)
    model = unwrap(model)
    seen = glimpse(model, data, loss=loss, step=step)
    builder = None
    if data is not None or optimizer is not None or lr is not None:
        with torch.inference_mode(False), preserved_random():
            builder = OptimizerBuilder(model, optimizer, lr)
    untrained = builder.untrained if builder else ()
    graph = keep_choices(model, keep_untrained(seen.graph, untrained)).restricted(only, exclude)
    own = own_scales(model, graph)
    described = {**architecture_features(graph), **own_features(graph, own), **seen.data}
    described |= ratio_features(described) | (_training(builder) if builder else {})
    if seen.batch is not None:
        described |= _first_pass(lambda: example_task(model, [seen.batch], loss=loss, step=step), seen.graph, described)
    candidates = _candidates(graph, recipes, learned.portfolio, measured=data is not None)
    numbers = {one: recipe_features(resolve(one, graph), graph, own) for one in candidates}
    return _recommendation(learned, described, numbers, k)


# What there is to choose from


def _candidates(
    graph: Graph,
    recipes: str | Recipe | Sequence[str | Recipe] | None,
    portfolio: Sequence[Recipe],
    *,
    measured: bool,
) -> list[Recipe]:
    """Returns the candidates, as-is first.

    Args:
        graph: the architecture.
        recipes: the only ones; None for the library's own.
        portfolio: what did well on all studied tasks.
        measured: whether there are data to calibrate on.
    """
    space = space_of(graph, lr_searched=False, recipes=recipes)
    if recipes is not None:
        return list(space.listed)
    found = dict.fromkeys([OWN, *space.opening, *(one for one in portfolio if _fits(one, graph))])
    return [one for one in found if measured or one.calibration == "none"]


def _fits(recipe: Recipe, graph: Graph) -> bool:
    try:
        check_fits(recipe, graph)
    except RecipeError:
        return False
    return True


def _first_pass(task: Callable[[], Task], graph: Graph, told: Features) -> Features:
    """Returns what a pass of the owner's weights tells; nothing where there is no task to be made of them."""
    try:
        made = task()
    except USER_ERRORS:
        return {}
    return pass_features(made, graph, told)


def _training(builder: OptimizerBuilder) -> Features:
    with torch.inference_mode(False), preserved_random():
        return training_features(builder()[0], builder.lr)


# What is said of it


def _recommendation(
    learned: Recommender, task: Features, candidates: Mapping[Recipe, Features], k: int
) -> Recommendation:
    recipes = list(candidates)
    predicted = learned.predict(task, list(candidates.values()))
    worth = learned.worth(predicted)
    rows = pd.DataFrame(
        {
            "recipe": [one.key for one in recipes],
            "name": [title(one) for one in recipes],
            "gain": predicted.gain,
            "low": predicted.low,
            "high": predicted.high,
            "place": predicted.place,
            "harm": predicted.harm,
            "worth": worth,
        }
    )
    own = recipes.index(OWN)
    distance = learned.distance(task)
    far = distance > learned.far
    verdict = learned.learner.verdict(predicted, own, k + 1, far)
    listed = [place for place in verdict.order if place != own][:k]
    portfolio = tuple(one for one in learned.portfolio if one in candidates)[:k]
    outside = f"it lies {text.number(distance)} from the nearest, which none of those does" if far else ""
    return Recommendation(
        best=recipes[verdict.likeliest] if verdict.answer == "try" else OWN,
        abstained=verdict.answer != "try",
        unsure=verdict.answer == "unsure",
        why=_why(verdict, rows, learned.learner.risk, outside),
        recipes=(portfolio if far and portfolio else tuple(recipes[place] for place in listed)),
        table=rows.iloc[[*listed, own]].reset_index(drop=True),
        nearest=tuple(learned.nearest(task)),
        features_for=_reasons(learned, task, candidates[recipes[verdict.likeliest]]),
        unlike=_unlike(learned, task),
        known=(sum(name in task for name in TASK_NAMES), len(TASK_NAMES)),
    )


def _why(verdict: Verdict, rows: pd.DataFrame, risk: float, outside: str) -> str:
    """Returns the reason of an answer, in words.

    Args:
        verdict: the answer.
        rows: the table of all candidates.
        risk: chance of harm up to which a recipe is recommended.
        outside: how far the task lies outside of what was studied; empty where it does not.
    """
    others, likeliest = len(rows) - 1, rows.iloc[verdict.likeliest]
    if verdict.answer == "try":
        return f"of {others} recipes the likeliest to do well, at little risk, on tasks like this one"
    if verdict.answer == "keep":
        return f"none of {others} recipes is expected to be better; the likeliest, {_promise(likeliest)}"
    if outside:
        return f"this task is unlike the studied ones: {outside}; the likeliest recipe, {_promise(likeliest)}"
    chance = f"at a chance of {likeliest['harm']:.0%} that it does harm"
    return f"the likeliest of {others} recipes, {_promise(likeliest)}, {chance}. {_limit(risk)}"


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
_MEANS = "beats: share of the candidates. harm: chance of a loss more than 5 % above that of your own weights."


def _rows(found: Recommendation) -> list[tuple[str, ...]]:
    return [
        (
            f"{'→' if row['recipe'] == found.best.key else ' '} {row['name']}",
            _ratio(row) if row["recipe"] != OWN.key else "× 1",
            f"{row['place']:.0%}",
            f"{row['harm']:.0%}",
        )
        for row in found.table.to_dict("records")
    ]


def _render(found: Recommendation) -> str:
    lines = [_head(found), *(wrapped(f"  {name:7}  {value}", " " * 11) for name, value in _facts(found))]
    return "\n".join([*lines, "", table(_COLUMNS, _rows(found)), wrapped(_MEANS, "  ")])


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
        markup.folded("What is worth trying", markup.table(_COLUMNS, _rows(found)), markup.facts([("", _MEANS)])),
        markup.folded("Why", markup.facts(facts[3:])),
    )
