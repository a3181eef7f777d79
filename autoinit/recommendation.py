"""`recommend`: which recipe suits a model, by what studies have found on others; at most a few short trainings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .episodic.learned import LearnedStart, differences
from .errors import USER_ERRORS, ArgumentError, RecipeError
from .graph import Globs, Graph
from .inheritance.checkpoints import Source as Weights
from .knowledge.features import Features, architecture_features, own_features, ratio_features, recipe_features
from .plans.rules import resolve
from .probing.beside import beside
from .probing.first_pass import pass_features
from .recipes.catalogue import check_fits
from .recipes.recipe import OWN, Recipe
from .recipes.space import space_of
from .recommender.answer import Recommendation, recommended
from .recommender.informed import STEPS
from .recommender.source import Source, recommender_from
from .task.checks import unwrap
from .task.features import own_scales, training_features
from .task.optimizers import OptimizerBuilder
from .task.snapshot import preserved_random
from .task.task import Task, example_task, make_task
from .tracing.choices import Parts, keep_untrained
from .tracing.glimpse import glimpse
from .tracing.tracing import trace_task


def recommend(
    model: nn.Module,
    data: Any = None,
    *,
    k: int = 5,
    probes: int = 0,
    loss: Callable[[Any, Any], Tensor] | None = None,
    step: Callable[[nn.Module, Any], Tensor] | None = None,
    optimizer: Any = None,
    lr: float | str | None = None,
    recipes: str | Recipe | Sequence[str | Recipe] | None = None,
    only: Globs = None,
    exclude: Globs = None,
    checkpoint: Weights | None = None,
    starts: Sequence[LearnedStart] = (),
    recommender: Source = None,
) -> Recommendation:
    """Returns which recipes suit a model, by what studies have found on others. The model is left as it was.

    The model and its data are described by some seventy numbers: depth, activations, normalization, the scale of your
    own weights and of the inputs, the optimizer, and where there are data what a pass of your weights tells. A model
    that was fitted to the trainings of earlier studies says of each recipe how likely it does well on such a task, by
    how much, and at what risk. It is an estimate where `select` measures.

    It takes a second, and where there are data a few passes of one batch through your weights, after which the model is
    exactly as it was; what cannot be measured so stays unknown. What is predicted is the loss on held-back rows. Where
    no recipe is expected to be better than your own weights, or too many trees put it no higher than those for the harm
    of all first choices to stay below 2 %, it abstains and recommends your own weights; in the second case it says that
    it is unsure, and which few recipes to try.

    With `probes`, so many recipes are trained for 16 steps each beside your own weights, on the same batches, one
    chosen after the other by what is known by then; and one of these is recommended, or your own weights. It is between
    no search and `select`, which trains longer, and decides by a test.

    Args:
        model: The recipes are for this module. It may be on any device, the meta device included, where your own draw
            is not known.
        data: This is what the model will be trained on, of the kinds that `select` takes: batches, or (X, y) with X of
            shape (rows, …) and y of shape (rows,) or (rows, …). About a thousand rows are looked at. None means that
            nothing is known of the data, and the answer is less sure.
        k: At most so many recipes are listed.
        probes: So many recipes are tried for 16 steps each, and your own weights once. It needs data and a model with
            weights; 0 tries none.
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
        checkpoint: The model holds trained weights of this, of the kinds that `select` takes: what it has stays, and
            what it lacks is new. None means that none is known.
        starts: These learned starts are named in the answer where they are of the model's architecture: nothing is
            known of how they do, which `select(recipes=[…])` measures.
        recommender: This one is asked: a `Recommender`, or the path of a fitted one (.npz), of knowledge (.jsonl.xz) or
            of records of studies, which are added to the shipped ones. None or "default" means the one that is fitted
            to what ships.

    Returns:
        A `Recommendation`. Print it for the ranked table and the reasons; `apply_(model, found.best, data)` draws the
        best one, which is `as_is` where `abstained` is true.

    Raises:
        ArgumentError: The number k is below 1; probes is below 0, asked for without data or of a model on the meta
            device, or nothing is known of how trainings begin; or the recommender is of another kind.
        KnowledgeError: A recommender's file cannot be used.
        RecipeError: A recipe is unknown, or for other networks than this one.
        DataError: The data are of no kind that is taken, hold NaN or infinity, or the model cannot take them.
        ModelError: Nothing is trainable, no gradient arrives, or a glob matches nothing.
        StepError: The loss or the step cannot be called, or returns no scalar.
        OptimizerError: The optimizer is none and makes none, or the learning rate is no positive number.
        SourceError: The checkpoint cannot be read, or is of another architecture.

    Reference:
        The forests are those of Geurts, Ernst & Wehenkel 2006, "Extremely randomized trees"; the bound on harm is that
        of Angelopoulos et al. 2022, arXiv:2208.02814; what is tried next follows Jones, Schonlau & Welch 1998,
        "Efficient global optimization of expensive black-box functions".

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
        Try lsuv
          why      of ... recipes the likeliest to do well, at little risk, on tasks like this one
          promise  loss × 0... after a short training, against your own weights
        ...
        >>> found.abstained, len(found.recipes)
        (False, 5)
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ArgumentError(f"k must be a whole number from 1: how many recipes to list. Got {k!r}.")
    model = unwrap(model)
    _check_probes(probes, model, data)
    with preserved_random():  # what is loaded for it on first use draws from Python's generator
        learned = recommender_from(recommender)
    if probes and learned.informed is None:
        raise ArgumentError(
            f"probes={probes}, but what this recommender learned from does not tell how trainings began (rungs of 8 to "
            "32 steps in its studies). Leave probes out, or use select."
        )
    seen = glimpse(model, data, loss=loss, step=step)
    builder = None
    if data is not None or optimizer is not None or lr is not None:
        with torch.inference_mode(False), preserved_random():
            builder = OptimizerBuilder(model, optimizer, lr)
    untrained = builder.untrained if builder else ()
    parts = Parts(only, exclude, checkpoint)
    graph = parts.free(model, keep_untrained(seen.graph, untrained))
    own = own_scales(model, graph)
    described = {**architecture_features(graph), **own_features(graph, own), **seen.data}
    described |= ratio_features(described) | (_training(builder) if builder else {})
    if seen.batch is not None:
        described |= _first_pass(lambda: example_task(model, [seen.batch], loss=loss, step=step), seen.graph, described)
    candidates = _candidates(graph, recipes, learned.portfolio, measured=data is not None)
    numbers = {one: recipe_features(resolve(one, graph), graph, own) for one in candidates}
    predicted = learned.predict(described, list(numbers.values()))
    tried = None
    if probes and learned.informed is not None:
        task = make_task(model, data, loss=loss, step=step, optimizer=optimizer, lr=lr)
        traced = parts.free(task.model, trace_task(task))
        with beside(task, traced, steps=STEPS) as trainings:
            level = trainings.own - described.get("data_reference", math.nan)
            tried = learned.informed.tried(
                predicted,
                learned.worth(predicted),
                lambda place: trainings.lead(candidates[place]),
                level,
                candidates.index(OWN),
                probes,
            )
    found = recommended(learned, described, numbers, predicted, k, tried)
    return dataclasses.replace(found, starts=_fitting(model, starts))


def _fitting(model: nn.Module, starts: Sequence[LearnedStart]) -> tuple[str, ...]:
    """Returns what is said of each learned start that has a model's own names and shapes."""
    if wrong := [type(one).__name__ for one in starts if not isinstance(one, LearnedStart)]:
        raise ArgumentError(f"starts are learned starts, as autoinit.meta_learn returns. Got a {wrong[0]}.")
    return tuple(
        f"a start learned by {one.method} from {one.episodes:,} episodes fits this architecture; how it does is not "
        "known: select(recipes=[…]) measures it"
        for one in starts
        if not differences(model, {**one.parameters, **one.buffers})
    )


def _check_probes(probes: object, model: nn.Module, data: object) -> None:
    if isinstance(probes, bool) or not isinstance(probes, int) or probes < 0:
        raise ArgumentError(f"probes must be a whole number from 0: how many recipes to try. Got {probes!r}.")
    if probes and data is None:
        raise ArgumentError(f"probes={probes}, but there are no data to train on. Give data, or leave probes out.")
    if probes and any(parameter.is_meta for parameter in model.parameters()):
        raise ArgumentError(
            f"probes={probes}, but the model is on the meta device and has no weights to train. Put it on a device "
            "first (model.to_empty, and its own initialization), or leave probes out."
        )


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
    # No study was of what trained weights give: nothing is known of such starts.
    opening = [one for one in space.opening if not one.inherited]
    found = dict.fromkeys([OWN, *opening, *(one for one in portfolio if _fits(one, graph))])
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
