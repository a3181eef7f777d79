"""The answer of a search as data, as a file and as text: `Selection`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch

from .. import text
from ..graph import Graph
from ..judging.gate import Gain
from ..judging.trials import Trial
from ..plans.plan import Plan
from ..plans.table import coverage
from ..recipes.recipe import OWN, Recipe
from ..recipes.space import LR_RATIO
from .reasons import Answer


@dataclass(frozen=True, slots=True)
class Cost:
    """What a selection cost.

    Attributes:
        seconds: wall time of the whole call.
        steps: training steps, evaluations and calibrations counted as their share of one.
        trials: probes run in the search and the finals.
        executor: how they were run, in words; empty where none was.
        memory: the most bytes of tensors at a time on the device; None on a CPU, which does not count them.
    """

    seconds: float
    steps: float
    trials: int
    executor: str = ""
    memory: int | None = None


@dataclass(frozen=True, eq=False)
class Selection:
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
        trials: a pandas.DataFrame with a row per trial, in order: its stage, recipe, lr, state, steps, score, losses
            and the reason why it ended.
        cost: what it took: seconds, training steps, trials, and how they were run.
        graph: the architecture as it was read.
        interrupted: whether Ctrl-C ended the search early.
        task: what was trained, in words: the loss and the optimizer.
        lr_searched: whether `lr` was chosen along.
    """

    recipe: Recipe
    plan: Plan
    kept: bool
    gain: Gain | None
    held_back: Gain | None
    lr: float | None
    why: str
    trials: pd.DataFrame = field(repr=False)
    cost: Cost
    graph: Graph = field(repr=False)
    interrupted: bool = False
    task: str = ""
    lr_searched: bool = False
    answer: Answer = "unsure"
    remedy: str = ""
    contender: Recipe | None = None
    alike: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def headline(self) -> str:
        """The answer in a sentence, the first line of what is printed."""
        if self.answer == "better":
            return f"{self.why[:1].upper()}{self.why[1:]}. Sure."
        if self.answer == "no better" and not len(self.trials):
            return "Your own weights are kept: there are no others to choose."
        if self.answer == "no better":
            return "Your own weights are kept: no difference that matters."
        return f"Your own weights are kept: cannot tell{f'; {self.remedy}' if self.remedy else ''}."

    def __str__(self) -> str:
        return _render(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the plan with its provenance as JSON, for `autoinit.apply_(model, path)`."""
        self.plan.save(path, provenance=_provenance(self))


def trial_table(trials: Sequence[Trial], lr: float | None) -> pd.DataFrame:
    """Returns a row per trial, in order.

    Args:
        trials: of a search.
        lr: learning rate in the middle of the grid; None where the optimizer has none to read.
    """
    return pd.DataFrame([_row(trial, lr) for trial in trials], columns=list(_COLUMNS))


_COLUMNS = (
    "number",
    "stage",
    "recipe",
    "lr",
    "state",
    "steps",
    "spent",
    "score",
    "training",
    "held_back",
    "stability",
    "first_loss",
    "last_loss",
    "seconds",
    "reason",
)


def _row(trial: Trial, base_lr: float | None) -> dict[str, Any]:
    curve, scored = trial.curve, trial.score
    losses = curve.losses if curve is not None and curve.losses else (math.nan,)
    return {
        "number": trial.number,
        "stage": trial.stage,
        "recipe": trial.candidate.recipe.key,
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
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "torch": torch.__version__,
    }


_SHOWN = 8
_LOSSES = ("score", "first_loss", "last_loss")


def _render(selection: Selection) -> str:
    lines = [selection.headline]
    lines.append(f"  why    {selection.why}" if selection.kept else f"  chose  {selection.recipe.key}")
    pairs = (("training", selection.gain), ("held-back", selection.held_back))
    seen = [f"{name} {gain}" for name, gain in pairs if gain is not None]
    labels = [f"  {'seen' if selection.kept else 'gain'}   ", *["         "] * len(seen)]
    lines += [f"{label}{gain}" for label, gain in zip(labels, seen, strict=False)]
    if selection.task:
        lines.append(f"  task   {selection.task}")
    if selection.lr is not None:
        lines.append(f"  lr     {text.number(selection.lr)}{'' if selection.lr_searched else ' (not searched)'}")
    cost = selection.cost
    memory = "" if cost.memory is None else f", {cost.memory / 2**20:,.0f} MiB at most"
    lines.append(
        f"  cost   {text.seconds(cost.seconds)}, {cost.steps:.0f} training steps, {cost.trials} trials{memory}"
    )
    if cost.executor:
        lines.append(f"  run    {cost.executor}")
    if not selection.kept:
        lines.append(f"  plan   {coverage(selection.plan.fills)}")
    if len(selection.trials):
        lines += ["", _leaderboard(selection.trials, selection.recipe.key)]
    if selection.alike:
        lines.append(f"not tried, as they give the same weights: {_doubles(selection.alike)}")
    return "\n".join(lines)


def _doubles(alike: Mapping[str, str]) -> str:
    """Returns recipes that were not tried, behind the one that stands for them: "as_is (lsuv, he_normal)"."""
    groups: dict[str, list[str]] = {}
    for recipe, other in alike.items():
        groups.setdefault(other, []).append(recipe)
    return "; ".join(f"{other} ({', '.join(recipes)})" for other, recipes in groups.items())


def _leaderboard(trials: pd.DataFrame, chosen: str) -> str:
    """Returns the best fully probed recipes of the search and the model's own, each at its best learning rate."""
    done = trials[(trials.stage == "search") & (trials.state == "complete")]
    best = done.sort_values("score").drop_duplicates("recipe")
    shown = best.head(_SHOWN)
    for must in (OWN.key, chosen):
        if must not in set(shown.recipe):
            shown = pd.concat([shown.head(_SHOWN - 1), best[best.recipe == must]])

    def mark(recipe: str) -> str:
        return f"→ {recipe}" if recipe == chosen else f"  {recipe}"

    rows = [
        (
            mark(row["recipe"]),
            text.number(row["lr"]),
            str(row["steps"]),
            *(f"{row[name]:.3f}" for name in _LOSSES),
        )
        for row in shown.to_dict("records")
    ]
    states = trials[trials.stage == "search"].state.value_counts().to_dict()
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    header = ("recipe", "lr", "steps", "score", "first loss", "last loss")
    legend = "score: log of the loss against a constant guess, plus gradient range; lower is better. → the choice."
    return f"{text.table(header, rows, '<>>>>>')}\nsearched: {counts}\n{legend}"
