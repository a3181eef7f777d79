"""What a person's own searches found, kept as record lines for a recommender of their own. Off unless asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from .. import jsonfile
from ..errors import ArgumentError
from ..graph import Graph
from ..judging.trials import Trial
from ..knowledge.features import Features, recipe_features
from ..knowledge.lines import Line, curve_data, rounded, score_data, signals_data, stamped, write_lines
from ..plans.rules import resolve
from ..recipes.space import LR_RATIO
from ..task.features import task_fingerprint
from ..task.task import Task

FILE = "records.jsonl"


def records_path() -> Path:
    """Returns the file that keeps them: in $AUTOINIT_DATA, or else in the user's data folder."""
    if folder := os.environ.get("AUTOINIT_DATA"):
        return Path(folder) / FILE
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "autoinit" / FILE


def keep_records(
    trials: Sequence[Trial], task: Task, graph: Graph, features: Features, own: dict[str, float], seed: int
) -> int:
    """Appends what a search found to the person's own records, and returns how many are new.

    Kept are the probes that went the whole way, and those that were begun and diverged or failed. A folder that cannot
    be written costs a warning and nothing else.

    Args:
        trials: of the search.
        task: what was trained.
        graph: its architecture.
        features: of the task, in numbers.
        own: root mean square of each weight as its owner drew it, by name.
        seed: of the search.
    """
    told = task_fingerprint(task, graph, {"loss": task.loss_name, "optimizer": task.optimizer_name, "lr": task.lr})
    kept = [one for one in trials if one.stage == "search" and one.state in _STATES and one.spent > 0]
    lines = [_line(trial, task, graph, features, own, seed, told) for trial in kept]
    path = records_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_lines(path, lines)
    except (OSError, ArgumentError) as problem:
        warnings.warn(
            f"The search's records are not kept: {problem} Set AUTOINIT_DATA to a folder that can be written, or leave "
            "record=True out.",
            stacklevel=3,
        )
        return 0


_STATES = {"complete": "complete", "diverged": "diverged", "failed": "failed"}


def _line(
    trial: Trial, task: Task, graph: Graph, features: Features, own: dict[str, float], seed: int, told: str
) -> Line:
    recipe, curve = trial.candidate.recipe, trial.curve
    rate = None if task.lr is None else rounded(float(task.lr * LR_RATIO**trial.candidate.lr_step))
    return stamped(
        {
            "study": "select",
            "task": type(task.model).__name__,
            "family": "",
            "dataset": "",
            "fingerprint": told,
            "features": rounded(features),
            "recipe": recipe.key,
            "fields": jsonfile.parse(recipe.to_json(), ArgumentError, "The recipe"),
            "recipe_features": rounded(recipe_features(resolve(recipe, graph), graph, own)),
            "stage": "probe",
            "seed": seed,
            "lr_step": trial.candidate.lr_step,
            "lr": rate,
            "steps": len(curve.losses) if curve is not None else 0,
            "curve": None if curve is None else curve_data(curve),
            "signals": None if curve is None else signals_data(curve),
            "score": None if trial.score is None else score_data(trial.score),
            "state": _STATES[trial.state],
            "reason": trial.reason,
            "spent": rounded(float(trial.spent)),
            "seconds": rounded(curve.seconds) if curve is not None else 0.0,
            "device": str(task.device),
            "threads": torch.get_num_threads(),
        },
        torch=str(torch.__version__),
    )
