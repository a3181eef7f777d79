"""What a worker of a study does: build a task, describe it, run its trials, measure its signals."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..executors.executor import Executor
from ..executors.sequential import Sequential
from ..executors.stacked import Stacked
from ..judging.score import score
from ..judging.trials import Candidate, Job, Outcome
from ..knowledge.lines import Line, curve_data, rounded, score_data, signals_data, stamped
from ..probing.signals import measure
from ..recipes.recipe import Recipe
from ..recipes.space import LR_RATIO
from ..seeds import seed_of_use
from .jobs import Described, StudyJob
from .spec import Study
from .workbench import Workbench


class Performer:
    """Runs the orders of a study, one after the other; keeps the task that it was last at.

    Args:
        study: whose tasks are run.
        folders: where their modules are looked up besides the current folder.
        device: where to train; None for where the models are.
    """

    def __init__(self, study: Study, folders: Sequence[Path] = (), device: str | None = None) -> None:
        self._study, self._folders, self._device = study, folders, device
        self._specs = {spec.name: spec for spec in study.tasks}
        self._at: Workbench | None = None

    def describe(self, task: str) -> Described:
        """Returns what a task is found to be, and its candidates."""
        return self._bench(task, self._study.seeds[0]).described(self._study)

    def layers(self, task: str, recipe: Recipe) -> list[dict[str, Any]]:
        """Returns the signals of each layer with a recipe's weights, on the first batch, before any training."""
        at = self._bench(task, self._study.seeds[0])
        at.bench.draw(recipe)
        seen = measure(at.bench.task, at.graph)
        at.bench.snapshot.rewind()
        return [rounded(asdict(layer)) for layer in seen.layers]

    def run(self, jobs: Sequence[StudyJob], described: Described) -> Iterator[Line]:
        """Yields the line of each job, in their order; those of one seed are trained in lockstep, as the study says.

        Args:
            jobs: of one task.
            described: the task's.
        """
        for seed in dict.fromkeys(job.seed for job in jobs):
            alike = [job for job in jobs if job.seed == seed]
            at = self._bench(alike[0].task, seed)
            executor: Executor = Sequential(at.bench)
            if self._study.stack > 1 and len(alike) > 1 and at.stackable:
                executor = Stacked(at.bench, self._study.stack)
            started = time.perf_counter()
            outcomes = executor.run([_job(place, job) for place, job in enumerate(alike)], lambda job, curve: True)
            for job, outcome in zip(alike, outcomes, strict=True):
                ended = time.perf_counter()
                yield self._line(at, job, described, outcome, ended - started)
                started = ended

    def close(self) -> None:
        """Lets go of the task that it was last at."""
        if self._at is not None:
            self._at.close()
            self._at = None

    def _bench(self, task: str, seed: int) -> Workbench:
        if self._at is None or (self._at.spec.name, self._at.seed) != (task, seed):
            self.close()
            self._at = Workbench(self._specs[task], seed, self._folders, self._device)
        return self._at

    def _line(self, at: Workbench, job: StudyJob, described: Described, outcome: Outcome, seconds: float) -> Line:
        curve = outcome.curve
        scored = None if curve is None else score(curve, at.reference, job.steps)
        state = "failed" if scored is None else "diverged" if scored.diverged else "complete"
        return finished_line(
            self._study,
            job,
            described,
            recipe_features={} if curve is None else at.recipe_features(job.recipe),  # it may not fit the task
            curve=None if curve is None else curve_data(curve),
            signals=None if curve is None else signals_data(curve),
            score=None if scored is None else score_data(scored),
            state=state,
            reason=outcome.reason,
            spent=rounded(float(outcome.spent)),
            seconds=rounded(curve.seconds if curve is not None else seconds),
            device=str(at.bench.task.device),
            threads=torch.get_num_threads(),
        )


def failed_line(study: Study, job: StudyJob, described: Described, reason: str) -> Line:
    """Returns the line of a trial that no worker lived to tell of."""
    return finished_line(
        study,
        job,
        described,
        recipe_features={},
        curve=None,
        signals=None,
        score=None,
        state="failed",
        reason=reason,
        spent=0.0,
        seconds=0.0,
        device="",
        threads=0,
    )


def finished_line(study: Study, job: StudyJob, described: Described, **measured: Any) -> Line:
    """Returns a line of what was asked for, what it was tried on, and what was measured."""
    spec = next(spec for spec in study.tasks if spec.name == job.task)
    line = {
        "study": study.name,
        "task": job.task,
        "family": spec.family,
        "dataset": spec.dataset,
        "fingerprint": described.fingerprint,
        "features": described.features,
        "recipe": job.recipe.key,
        "fields": job.to_data()["recipe"],
        "stage": job.stage,
        "seed": job.seed,
        "lr_step": job.lr_step,
        "lr": None if described.lr is None else rounded(float(described.lr * LR_RATIO**job.lr_step)),
        "steps": job.steps,
        **measured,
    }
    return stamped(line, torch=str(torch.__version__))


def _job(place: int, job: StudyJob) -> Job:
    order = seed_of_use(job.seed, "study order")  # of the batches: the same for all candidates of a seed
    return Job(place, "search", Candidate(job.recipe, job.lr_step), order, job.steps, rungs=job.rungs)
