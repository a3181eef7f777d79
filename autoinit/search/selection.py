"""The answer of a search as data, as a file and as text: `Selection`."""

from __future__ import annotations

import dataclasses
import math
import os
import time
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from ..errors import PlanFileError
from ..graph import Graph
from ..judging.curves import LossCurve
from ..judging.gate import Gain
from ..judging.payback import Payback
from ..judging.trials import Trial
from ..plans.plan import Plan
from ..probing.signals import LayerSignal
from ..recipes.names import title
from ..recipes.recipe import Recipe
from ..recipes.space import LR_RATIO
from .costs import Cost
from .reasons import Answer
from .saved import PLACE, as_saved, read_saved
from .shown import Shown


@dataclass(frozen=True, eq=False, repr=False)
class Selection(Shown):
    """The answer of `select`.

    It says which initial weights were chosen, by how much they are better than your own, and what everything that was
    tried came to. Print it for all of that on a screen; where `kept` is true the model's own weights stay, because
    nothing beat them beyond noise. Train with `lr`, `save` the plan for other instances (`autoinit.apply_(model,
    path)`), or give it to `autoinit.report` for a page of figures.

    Attributes:
        recipe: what was chosen; `as_is` where the model's own weights were kept.
        plan: the same, parameter by parameter, with the very draw that won.
        kept: whether the model's own weights stay.
        gain: log of the ratio of the training loss to that from the model's own weights, from the gate's runs only,
            with its interval; negative is better, and `gain.factor` is the ratio itself. None where there were no such
            runs.
        held_back: the same on rows that the search never saw.
        lr: learning rate that goes with the choice; None where the optimizer has none to read.
        why: the reason for the choice, in words.
        answer: "better" where other weights were chosen, which is sure beyond noise; "no better" where your own stay
            because nothing makes a difference that matters; "unsure" where they stay because the search cannot tell.
        remedy: what would tell where it is unsure, as 'budget="91s" would'; empty where nothing is known to.
        contender: the recipe that met the model's own weights in the gate, of whose runs `gain` and `held_back` are;
            None where none came so far.
        alike: the recipes that were not tried, because on this model they give the same weights as another → that one.
        given_lr: learning rate in the middle of those that were tried; None where the optimizer has none to read.
        lr_given: whether it is the owner's, and not a default.
        applied: whether the model carries the chosen weights; also true where they are its own.
        trials: a pandas.DataFrame with a row per trial, in order: its stage, recipe (as code takes it), name (in
            short), lr, state, steps, score, losses and the reason why it ended.
        cost: what it took: seconds, training steps, trials, and how they were run; `cost.share` of the training, where
            its length is known.
        proxy: how small the proxy is that was searched on, in words; empty where it was the model itself.
        on_proxy: whether gain, learning rate, steps and curves are a proxy's too, as the model is on the meta device.
        payback: the steps of training that the chosen weights save, seen in the gate's runs; None where your own stay.
        sparse: how a ticket that met your own weights in the gate did against them, at equal steps and at equal
            multiply-adds, and how its masks are kept; empty elsewhere.
        graph: the architecture as it was read.
        interrupted: whether Ctrl-C ended the search early.
        task: what was trained, in words: the loss and the optimizer.
        lr_searched: whether `lr` was chosen along.
        curves: the losses over the trainings that tell the most (`LossCurve`): all runs of the gate, then your own
            weights', the contender's and the leaders', 64 at the most, each thinned to 100 points at the most.
        before: what the layers of your own weights carry, measured in one pass before any training (`LayerSignal`); of
            the proxy where one was searched.
        after: the same from the contender's weights; empty where there is none.
    """

    recipe: Recipe
    plan: Plan
    kept: bool
    gain: Gain | None
    held_back: Gain | None
    lr: float | None
    why: str
    trials: pd.DataFrame
    cost: Cost
    graph: Graph
    interrupted: bool = False
    task: str = ""
    lr_searched: bool = False
    answer: Answer = "unsure"
    remedy: str = ""
    contender: Recipe | None = None
    alike: tuple[tuple[Recipe, Recipe], ...] = ()
    given_lr: float | None = None
    lr_given: bool = False
    applied: bool = False
    curves: tuple[LossCurve, ...] = ()
    before: tuple[LayerSignal, ...] = ()
    after: tuple[LayerSignal, ...] = ()
    payback: Payback | None = None
    proxy: str = ""
    on_proxy: bool = False
    sparse: str = ""

    def save(self, path: str | os.PathLike[str], *, full: bool = False) -> None:
        """Writes the plan with its provenance as JSON, for `autoinit.apply_(model, path)`.

        Args:
            path: The file has this path; an older one is replaced, whole or not at all.
            full: Whether trials, curves and all else are written too, so that `Selection.load` and `autoinit.report`
                can read the selection back.
        """
        whole = {PLACE: as_saved(vars(self))} if full else {}
        self.plan.save(path, provenance={**_provenance(self), **whole})

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Selection:
        """Returns the selection that `save(path, full=True)` wrote.

        Raises:
            PlanFileError: The file is missing or damaged, or holds a plan only.
        """
        plan = Plan.load(path)
        fields = read_saved(path, typing.get_type_hints(Selection), _COLUMNS)
        if missing := [name for name in _NEEDED if name not in fields]:
            raise PlanFileError(f"File {os.fspath(path)!r} is damaged: its selection lacks {', '.join(missing)}.")
        return Selection(plan=plan, **fields)


_NEEDED = [
    one.name
    for one in dataclasses.fields(Selection)
    if one.name != "plan" and one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
]


def trial_table(trials: Sequence[Trial], lr: float | None) -> pd.DataFrame:
    """Returns a row per trial, in order.

    Args:
        trials: of a search.
        lr: learning rate in the middle of the grid; None where the optimizer has none to read.
    """
    return pd.DataFrame([_row(trial, lr) for trial in trials], columns=list(_COLUMNS))


_COLUMNS = {
    "number": "int64",
    "stage": "str",
    "recipe": "str",
    "name": "str",
    "lr": "float64",
    "state": "str",
    "steps": "int64",
    "spent": "float64",
    "score": "float64",
    "training": "float64",
    "held_back": "float64",
    "stability": "float64",
    "first_loss": "float64",
    "last_loss": "float64",
    "seconds": "float64",
    "reason": "str",
}
"""Column of the trials → the type of its values."""


def _row(trial: Trial, base_lr: float | None) -> dict[str, Any]:
    curve, scored = trial.curve, trial.score
    losses = curve.losses if curve is not None and curve.losses else (math.nan,)
    return {
        "number": trial.number,
        "stage": trial.stage,
        "recipe": trial.candidate.recipe.key,
        "name": title(trial.candidate.recipe),
        "lr": math.nan if base_lr is None else base_lr * LR_RATIO**trial.candidate.lr_step,
        "state": trial.state,
        "steps": curve.steps if curve is not None else 0,
        "spent": trial.spent,
        "score": scored.total if scored is not None else math.nan,
        "training": scored.training if scored is not None else math.nan,
        "held_back": scored.held_back if scored is not None else math.nan,
        "stability": scored.stability if scored is not None else math.nan,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "seconds": curve.seconds if curve is not None else math.nan,
        "reason": trial.reason,
    }


def _provenance(selection: Selection) -> dict[str, Any]:
    gain = selection.gain
    return {
        "kept": selection.kept,
        "answer": selection.answer,
        "why": selection.why,
        "gain": None if gain is None else {"estimate": gain.estimate, "low": gain.low, "high": gain.high},
        "lr": selection.lr,
        "seconds": round(selection.cost.seconds, 3),
        "steps": round(selection.cost.steps, 1),
        "training_steps": selection.cost.training_steps,
        "payback": None if selection.payback is None else dataclasses.asdict(selection.payback),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "torch": torch.__version__,
    }
