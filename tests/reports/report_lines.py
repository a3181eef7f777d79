"""Record lines of real probes: small networks on scikit-learn's digits."""

from __future__ import annotations

import platform
import time
import traceback
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

import autoinit
from autoinit.jsonfile import finite, to_data
from autoinit.judging.score import Curve, Reference, score
from autoinit.probing.probe import probe
from autoinit.probing.signals import measure
from autoinit.recipes.recipe import Recipe
from autoinit.recipes.space import LR_RATIO
from autoinit.study.results import StudyResults
from autoinit.task.task import Task, make_task
from autoinit.tracing.tracing import trace_task

RECIPES = (
    Recipe(),
    Recipe(base="he_normal"),
    Recipe(base="xavier_normal"),
    Recipe(base="orthogonal", log2_gain=1.0),
    Recipe(base="xavier_normal", head="zero"),
    Recipe(base="he_normal", head="zero", log2_gain=-1.0),
)
WILD = Recipe(base="he_normal", log2_gain=30.0)
"""Float32 overflows in the first forward pass: a real divergence."""

STEPS = 30


def tanh_net() -> nn.Module:
    layers = [layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def relu_net() -> nn.Module:
    hidden = [layer for _ in range(4) for layer in (nn.Linear(32, 32), nn.ReLU())]
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), *hidden, nn.Linear(32, 10))


def broken_net() -> nn.Module:
    return nn.Sequential(nn.Linear(64, "32"))  # type: ignore[arg-type]


MODELS: dict[str, Callable[[], nn.Module]] = {"tanh.digits.sgd": tanh_net, "relu.digits.sgd": relu_net}


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor((images - 4.9) / 6.0, dtype=torch.float32)[:512], torch.tensor(labels)[:512]


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def started(name: str, recipe: Recipe) -> Task:
    torch.manual_seed(0)
    model = MODELS[name]()
    if recipe != Recipe():
        autoinit.apply_(model, recipe, digits())
    return make_task(model, digits(), optimizer=sgd, finite=False)


def layers(name: str, recipe: Recipe) -> list[dict[str, Any]]:
    task = started(name, recipe)
    return [
        {"name": s.name, "role": s.role, "forward_std": s.forward_std, "grad_norm": s.grad_norm}
        for s in measure(task, trace_task(task)).layers
    ]


def line(name: str, recipe: Recipe, seed: int, lr_step: int = 0, stage: str = "probe", steps: int = STEPS) -> Any:
    task = started(name, recipe)
    with task.preserved():
        curve = probe(task, steps=steps, seed=seed, lr_factor=LR_RATIO**lr_step, held_back=task.probe_eval, rungs=(10,))
    scored = score(curve, Reference.of(task.reference, curve.losses), steps)
    state, reason = "complete", ""
    if curve.diverged_at is not None:
        state, reason = "diverged", f"the loss was not finite at step {curve.diverged_at}"
    return finite(
        {
            "schema": 2,
            "id": f"{name}/{recipe.key}/{seed}/{lr_step}/{stage}",
            "study": "digits",
            "task": name,
            "family": name.partition(".")[0],
            "dataset": "digits",
            "fingerprint": "",
            "features": {},
            "recipe": recipe.key,
            "fields": {key: value for key, value in to_data(recipe).items() if to_data(Recipe())[key] != value},
            "stage": stage,
            "seed": seed,
            "lr_step": lr_step,
            "lr": 0.05 * LR_RATIO**lr_step,
            "steps": steps,
            "curve": curve_data(curve),
            "signals": None,
            "score": {key: value for key, value in to_data(scored).items() if key not in ("steps", "diverged")},
            "state": state,
            "reason": reason,
            "attempts": 1,
            "spent": curve.steps,
            "seconds": curve.seconds,
            "device": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "autoinit": autoinit.__version__,
            "torch": torch.__version__,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
    )


def curve_data(curve: Curve) -> dict[str, Any]:
    held_back = [list(point) for point in curve.held_back]
    return {"losses": list(curve.losses), "held_back": held_back, "diverged_at": curve.diverged_at}


def error_of(factory: Callable[[], nn.Module]) -> str:
    try:
        factory()
    except Exception:
        return traceback.format_exc()
    raise AssertionError("the factory was to fail")


@cache
def study_results(seeds: tuple[int, ...] = (0, 1, 2)) -> StudyResults:
    """Returns what a small study found: every number in it was measured a moment ago."""
    lines = [line(task, recipe, seed) for task in MODELS for recipe in (*RECIPES, WILD) for seed in seeds]
    lines += [line(task, recipe, seeds[0], step) for task in MODELS for recipe in RECIPES for step in (-1, 1)]
    lines += [
        line(task, recipe, seed, stage="long", steps=90) for task in MODELS for recipe in RECIPES[:3] for seed in seeds
    ]
    best = RECIPES[3]
    tasks: dict[str, dict[str, Any]] = {
        task: {
            "family": task.partition(".")[0],
            "dataset": "digits",
            "optimizer": "SGD",
            "parameters": sum(p.numel() for p in MODELS[task]().parameters()),
            "error": None,
            "layers": {"as_is": layers(task, Recipe()), "best": layers(task, best), "best_recipe": best.key},
        }
        for task in MODELS
    }
    tasks["broken.digits.sgd"] = {
        "family": "broken",
        "dataset": "digits",
        "optimizer": "SGD",
        "parameters": None,
        "error": error_of(broken_net),
        "layers": None,
    }
    study = {"name": "digits", "description": "Two small networks </script> on 512 digits", "seeds": list(seeds)}
    return StudyResults(study, tasks, lines, ["records.jsonl:7: not JSON at column 12"])
