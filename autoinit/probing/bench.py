"""Where a job is run: draw a candidate's weights, train them briefly, say what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

from ..apply import apply_plan, set_calibrated
from ..calibrations.subject import Subject
from ..drawing.memory import Memory, room_for
from ..drawing.starting import held
from ..drawing.weights import with_results
from ..errors import described
from ..graph import Graph
from ..judging.budget import Aside, Tally, evaluated
from ..judging.score import Curve, Glance
from ..judging.screening import veto
from ..judging.trials import Job, Outcome
from ..plans.plan import Plan
from ..plans.rules import resolve
from ..recipes.recipe import Recipe
from ..recipes.space import LR_RATIO
from ..seeds import seed_of_use
from ..task.snapshot import Snapshot
from ..task.task import Task
from .paused import PausedTrainings
from .probe import HeldBack, RungReport, Training, probe
from .stepping import Eager, MakeStepper


@dataclass
class Bench:
    """One copy of the model that is about to be trained, with all that a job needs.

    Attributes:
        task: what is trained.
        graph: its architecture.
        snapshot: the owner's weights, rewound to before each job that begins anew.
        seed: of the draws, the same for all candidates, so that they differ by what they are and not by luck.
        draw_on: the kind of device that draws are made on; empty for where the model lies.
        memory: of costly draws.
        paused: trainings that later jobs may go on with.
        aside: the time that setting weights took, and recording steps.
    """

    task: Task
    graph: Graph
    snapshot: Snapshot
    seed: int
    draw_on: str = ""
    memory: Memory = field(init=False)
    paused: PausedTrainings = field(default_factory=PausedTrainings)
    aside: Aside = field(default_factory=Aside)

    def __post_init__(self) -> None:
        self.memory = Memory(room_for(self.task.model))

    def draw(self, recipe: Recipe, tally: Tally | None = None) -> Plan:
        """Sets a candidate's weights, starting from the owner's; returns the plan that gives them again.

        Args:
            recipe: of the candidate.
            tally: told what a calibration costs.
        """
        return with_results(self.task.model, self._draw(recipe, tally))

    def _draw(self, recipe: Recipe, tally: Tally | None) -> Plan:
        self.snapshot.rewind()
        plan = dataclasses.replace(resolve(recipe, self.graph, seed=self.seed), drawn_on=self.draw_on)
        spend = (tally or Tally()).spend
        subject = Subject(self.task, self.graph, seed=seed_of_use(self.seed, "calibration"), spend=spend)
        return set_calibrated(subject, plan, self.snapshot.rewind, self.memory)

    def set(self, plan: Plan) -> None:
        """Sets the very weights of a plan that `draw` returned."""
        self.snapshot.rewind()
        apply_plan(self.task.model, plan, self.memory)

    def place(self, job: Job, tally: Tally) -> None:
        """Sets the weights that a job starts from."""
        with self.aside.counted(placing=True):
            if job.plan is not None:
                self.set(job.plan)
            else:  # nobody asks for the plan: fingerprints would cost a tenth more
                self._draw(job.candidate.recipe, tally)

    def held_back(self, job: Job) -> HeldBack:
        """Returns the batches that a job is evaluated on after so many steps.

        The gate has its own, which the search never sees, and the same ones all the way: it looks where the loss is
        going. In the search, what is compared at a rung was evaluated alike, however long the training is to become.
        """
        if job.stage == "gate":
            return lambda step: evaluated(self.task.gate_eval, job.steps)
        return lambda step: evaluated(self.task.probe_eval, step)

    def perform(self, job: Job, on_rung: RungReport, stepper: MakeStepper = Eager) -> Outcome:
        """Returns what came of a job; the model is left with the trained weights.

        What goes wrong ends this job only: out of memory, a shape that one draw cannot take, a user's own check.

        Args:
            job: what to run.
            on_rung: asked with the curve at each rung; False ends the job there.
            stepper: makes what takes the steps of a training that begins anew.
        """
        tally, vetoes = Tally(), list[str]()
        held_back = self.held_back(job)
        training: Training | None = None
        pauses = False
        try:
            training = self._begun(job, tally, stepper)
            before = training.steps
            with held(self.task, job.candidate.recipe):
                curve = training.go_on(
                    job.steps, held_back=held_back, rungs=job.rungs, on_rung=on_rung, screen=_screen(job, vetoes)
                )
            pauses = job.pauses and curve.steps == job.steps and curve.diverged_at is None
            if pauses:
                self.paused.pause(job.number, training, self.task.model)
        except Exception as problem:
            self.snapshot.rewind()
            tally.spend(steps=1)
            return Outcome(None, tally.steps, described(problem))
        finally:
            if training is not None and not pauses:
                training.close()
        tally.spend(**cost(self.task, curve, held_back, before))
        return Outcome(curve, tally.steps, *vetoes)

    def _begun(self, job: Job, tally: Tally, stepper: MakeStepper) -> Training:
        """Returns the training that a job goes on with, or a new one from the weights that it starts from."""
        if not (job.pauses or job.goes_on):
            self.paused.close()  # the rounds are over
        training = self.paused.take(job.number) if job.goes_on else None
        if training is not None:
            return training
        self.place(job, tally)
        return Training(self.task, seed=job.seed, lr_factor=LR_RATIO**job.candidate.lr_step, stepper=stepper)


def cost(task: Task, curve: Curve, held_back: HeldBack, before: int = 0) -> dict[str, float]:
    """Returns the steps and forward passes of a training.

    Args:
        task: that was trained.
        curve: of the training.
        held_back: batches of each evaluation.
        before: steps that were paid for already.
    """
    forwards = sum(task.forwards(held_back(step)) for step, _ in curve.held_back if step > before)
    return {"steps": curve.steps - before, "forwards": forwards}


def steps_per_second(bench: Bench, steps: int, stepper: MakeStepper = Eager) -> float:
    """Returns how fast the owner's weights train, after a step that warms up; the bench is rewound."""
    probe(bench.task, steps=1, seed=0, stepper=stepper)
    curve = probe(bench.task, steps=steps, seed=0, stepper=stepper)
    bench.snapshot.rewind()
    return curve.steps / max(curve.seconds, 1e-9)


def _screen(job: Job, vetoes: list[str]) -> Callable[[Glance], bool]:
    """Returns what a probe asks after its first backward pass; a veto is added to the list."""

    def screen(glance: Glance) -> bool:
        why = veto(glance, job.reference) if job.reference is not None else ""
        vetoes.extend([why] if why else [])
        return not why

    return screen
