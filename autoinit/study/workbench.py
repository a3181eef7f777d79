"""A task of a study, built and ready to train: its model of one seed, its data, its architecture."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from .. import jsonfile
from ..drawing.starting import load_start, start_of, with_starts
from ..errors import ArgumentError, ModelError
from ..executors import stacked
from ..factories import called, named
from ..graph import Graph
from ..growth.sources import with_source
from ..inheritance.checkpoints import tensors_of
from ..inheritance.trained import load_trained
from ..judging.score import Reference
from ..knowledge.features import recipe_features
from ..knowledge.lines import rounded
from ..own.task import own_task
from ..plans.rules import resolve
from ..probing.bench import Bench
from ..probing.first_pass import pass_features
from ..probing.probe import probe
from ..recipes.recipe import Recipe
from ..seeds import seed_of_use
from ..task.features import own_scales, task_features, task_fingerprint
from ..task.machine import ordered_sums
from ..task.snapshot import preserved_random, seed_generators
from ..task.task import Start, Task, Trained, make_task
from ..tracing.choices import keep_choices
from ..tracing.tracing import trace_task
from .candidates import allowed_space, candidates_of
from .jobs import Described
from .spec import Study, TaskSpec

LOSSES: dict[str, Callable[[Any, Any], Tensor]] = {"cross_entropy": F.cross_entropy, "mse": F.mse_loss}
"""By the names that a study file may use."""

REFERENCE_STEPS = 20
"""Of the owner's own training, whose losses are the reference where no constant predictor's loss is known."""


class Workbench:
    """A task with the model of one seed; inside `with`, jobs may change the model as they like.

    Attributes:
        bench: where a job is run.
        reference: what losses are measured against; the same for all seeds where a constant predictor's is known.

    Args:
        spec: of the task.
        seed: of the owner's draw and of every recipe's.
        folders: where modules are looked up besides the current folder.
        device: where to train; None for where the model is.
    """

    def __init__(self, spec: TaskSpec, seed: int, folders: Sequence[Path], device: str | None = None) -> None:
        self.spec, self.seed = spec, seed
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(preserved_random())
        self._stack.enter_context(ordered_sums())  # a trial that is run again gives the same
        try:
            task = _task(spec, seed, folders, device)
            checkpoint = None if spec.checkpoint is None else _place(spec.checkpoint, folders)
            self.graph = keep_choices(task.model, trace_task(task), checkpoint)
            if spec.source is not None:
                self.graph = with_source(task, self.graph, Trained(tensors_of(_place(spec.source, folders))))
            self.graph = with_starts(task, self.graph, _starts(spec, folders))
            snapshot = self._stack.enter_context(task.preserved())
            self.bench = Bench(task, self.graph, snapshot, seed_of_use(seed, "study"))
            self.reference = self._reference()
            self._own = own_scales(task.model, self.graph)
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Puts the model and the random states back."""
        self._stack.close()

    def _reference(self) -> Reference:
        task = self.bench.task
        if task.reference is not None:
            return Reference.of(task.reference, [1.0])
        curve = probe(task, steps=REFERENCE_STEPS, seed=seed_of_use(0, "reference"))
        self.bench.snapshot.rewind()
        return Reference.of(None, curve.losses)

    @functools.cached_property
    def stackable(self) -> bool:
        """Whether its candidates can be trained in lockstep: two are tried, for two steps."""
        return not stacked.why_not(self.bench)

    def recipe_features(self, recipe: Recipe) -> dict[str, float]:
        """Returns what a recipe is on this architecture, in numbers."""
        found: dict[str, float] = rounded(recipe_features(resolve(recipe, self.graph), self.graph, self._own))
        return found

    def described(self, study: Study) -> Described:
        """Returns what the task is found to be, and the study's candidates for it."""
        task, rated = self.bench.task, study.mode == "search" and bool(study.lr_steps)
        space = allowed_space(study.space, self.graph, lr_searched=rated, measured=task.measured)
        drawn = seed_of_use(study.seeds[0], f"candidates {self.spec.name}")
        found, left_out = candidates_of(study.space, self.graph, space, seed=drawn, measured=task.measured)
        told = spec_fingerprint(self.spec, task, self.graph)
        return Described(told, features(task, self.graph), found, space, left_out, task.lr)


def _task(spec: TaskSpec, seed: int, folders: Sequence[Path], device: str | None) -> Task:
    seed_generators(seed, torch.device("cpu"))
    model = called(spec.model, f"tasks {spec.name}: model", spec.model_args, folders=folders)
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"tasks {spec.name}: model {spec.model} returned a {type(model).__name__}, no torch.nn.Module."
        )
    if spec.checkpoint is not None:
        load_trained(model, _place(spec.checkpoint, folders))
    if spec.train is not None:
        return _own_task(spec, model, folders, device)
    assert spec.data is not None
    seed_generators(0, torch.device("cpu"))  # the data of a task are the same for every seed of its model
    data = called(spec.data, f"tasks {spec.name}: data", spec.data_args, folders=folders)
    optimizer = named(spec.optimizer, f"tasks {spec.name}: optimizer", folders=folders)
    loss = None if spec.loss is None else LOSSES.get(spec.loss)
    if spec.loss is not None and loss is None:
        loss = named(spec.loss, f"tasks {spec.name}: loss", folders=folders)
    return make_task(
        model,
        _batched(data, spec.batch_size),
        loss=loss,
        step=named(spec.step, f"tasks {spec.name}: step", folders=folders) if spec.step else None,
        optimizer=functools.partial(optimizer, **spec.optimizer_args),
        device=device,
        seed=0,
    )


def _own_task(spec: TaskSpec, model: nn.Module, folders: Sequence[Path], device: str | None) -> Task:
    """Returns the task of a training that the study's author wrote."""
    given = {"train": spec.train, "example": spec.example, "validate": spec.validation}
    parts = {
        name: named(place, f"tasks {spec.name}: {name}", folders=folders) for name, place in given.items() if place
    }
    return own_task(model, **parts, device=device, seed=0)


def _place(path: str, folders: Sequence[Path]) -> Path:
    """Returns a path as it is, or beside the study's file where it is there."""
    found = (Path(folder) / path for folder in folders if (Path(folder) / path).exists())
    return next(found, Path(path))


def _starts(spec: TaskSpec, folders: Sequence[Path]) -> list[Start]:
    return [start_of(load_start(_place(path, folders))) for path in spec.start]


def _batched(data: Any, size: int | None) -> Any:
    """Returns data in batches of a size, where one is given."""
    if size is None:
        return data
    if isinstance(data, (tuple, list)) and data and all(isinstance(item, Tensor) for item in data):
        data = TensorDataset(*data)
    if not isinstance(data, Dataset):
        raise ArgumentError(
            f"batch_size is for data that are rows (a Dataset, a tuple of tensors); these are a {type(data).__name__}. "
            "Leave it out, and let the data's factory make the batches."
        )
    order = torch.Generator().manual_seed(0)
    return DataLoader(data, batch_size=size, shuffle=True, drop_last=len(data) > size, generator=order)  # type: ignore[arg-type]


def spec_fingerprint(spec: TaskSpec, task: Task, graph: Graph) -> str:
    """Returns a hash of what decides a training, but not of the task's name."""
    told = spec.model_dump(mode="json", exclude={"name", "family", "dataset"})
    later: dict[str, Any] = {"checkpoint": None, "source": None, "start": []}
    later |= {"train": None, "example": None, "validation": None}
    return task_fingerprint(task, graph, jsonfile.as_before(told, later))


def features(task: Task, graph: Graph) -> dict[str, float | int | str | None]:
    """Returns what describes a task: some of it for people, and all the numbers that the recommender learns from."""
    kinds = Counter(layer.kind for layer in graph.weights)
    shapes = Counter(str(layer.activation) for layer in graph.weights)
    found: dict[str, float | int | str | None] = {
        "parameters": sum(layer.size for layer in graph.layers),
        "commonest_kind": kinds.most_common(1)[0][0] if kinds else None,
        "commonest_activation": shapes.most_common(1)[0][0] if shapes else None,
        "loss": task.loss_name,
        "optimizer": task.optimizer_name,
        **(told := task_features(task, graph)),
        **pass_features(task, graph, told),
    }
    return {name: rounded(value) for name, value in found.items()}
