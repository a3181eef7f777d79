"""Models of real size: GPT-2 with 86 million weights in bf16, and a ResNet-50. Draws, steps, a search, its memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

import autoinit
from autoinit.text import count

from ..common.peaks import peak_beyond
from .figures import YES, Wanted
from .models import GPT2, RESNET50, Subject
from .selects import SMOKE, select_watched, told
from .session import Session

GPT2_SECONDS, RESNET50_SECONDS = 90.0, 25.0
"""Budgets of the searches in a whole run."""
ENOUGH = 12
"""Candidates that the search for GPT-2 has to try."""
MEMORY, OUTSIDE = Wanted(at_most=1.1), Wanted(at_most=0.1)
"""Times plain training's memory that a search may hold; its share outside training."""
PASSES = Wanted(at_most=12)
"""Forward passes that a calibration by layers may take the time of."""
PLAIN_STEPS = 8


def gpt2(session: Session) -> None:
    """Writes draws, steps and a search of GPT-2."""
    subject = Subject(GPT2, session.device, small=session.smoke)
    case = _sized(session, subject)
    with session.contained(f"{case}, search"):
        selection = _searched(session, case, subject, GPT2_SECONDS, (MEMORY, OUTSIDE))
        enough, judged = Wanted(at_least=ENOUGH), selection.gain is not None
        session.figure(case, "at least a dozen candidates", selection.cost.trials, wanted=enough)
        session.figure(case, "a verdict of the gate", judged, wanted=YES, note=f"{selection.answer}: {selection.why}")
    with session.contained(f"{case}, draws"):
        _drawn(session, case, subject)


def resnet50(session: Session) -> None:
    """Writes steps and a search of a ResNet-50, and what a recommendation takes."""
    subject = Subject(RESNET50, session.device, small=session.smoke)
    case = _sized(session, subject)
    with session.contained(f"{case}, search"):
        _searched(session, case, subject, RESNET50_SECONDS, (None, None))
    with session.contained(f"{case}, recommendation"):
        for call in ("first", "second"):
            start = session.waited()
            found = autoinit.recommend(subject.model, subject.batches, **subject.options)
            took, answer = session.waited() - start, "abstains" if found.abstained else "recommends"
            session.figure(case, f"recommend, {call} call", took, unit="s", note=answer)


def _sized(session: Session, subject: Subject) -> str:
    """Returns the name of the case, with the number of weights, and writes what a plain step takes."""
    case = f"{subject.spec.name}, {count(subject.weights)} weights"
    with session.contained(f"{case}, plain training"):
        model = subject.copied()
        seconds = _seconds(session, lambda: subject.train(model, PLAIN_STEPS), 1)
        session.figure(case, "plain step", 1e3 * seconds / PLAIN_STEPS, unit="ms")
    return case


def _drawn(session: Session, case: str, subject: Subject) -> None:
    """Writes what setting all weights takes, in seconds and in forward passes."""
    with torch.no_grad():
        forward = _seconds(session, lambda: subject.loss(subject.model, subject.batches[0]), PLAIN_STEPS)
    session.figure(case, "forward pass", 1e3 * forward, unit="ms")
    took: dict[str, float] = {}
    for recipe, _ in session.cases(("lsuv", "orthogonal", "he_normal", "mimetic"), least=3.0):

        def draw(recipe: str = recipe) -> None:
            with subject.precision():
                autoinit.apply_(subject.model, recipe, subject.batches)

        took[recipe] = seconds = _seconds(session, draw, 2)
        note = f"{seconds:.3g} s, with reading the architecture"
        session.figure(case, f"apply_ {recipe}", seconds / forward, unit="forward passes", note=note)
    if {"lsuv", "orthogonal"} <= took.keys():
        beyond = (took["lsuv"] - took["orthogonal"]) / forward
        note = "LSUV on a draw of orthogonal weights, beside that draw alone"
        session.figure(case, "calibration", beyond, unit="forward passes", wanted=PASSES, note=note)


def _searched(
    session: Session, case: str, subject: Subject, seconds: float, wanted: tuple[Wanted | None, Wanted | None]
) -> autoinit.Selection:
    """Returns a search's selection, and writes what it took beside plain training."""
    weights = sum(tensor.nbytes for tensor in (*subject.model.parameters(), *subject.model.buffers()))
    plain = _plain_peak(session, subject)
    budget = SMOKE if session.smoke else min(seconds * session.options.scale, session.left() - RESERVE)
    selection, split, peak = select_watched(session, subject, budget)
    told(session, case, selection, split, wanted[1])
    if plain is not None and peak is not None:
        note = f"{(peak + weights) / 2**20:,.0f} MiB against {(plain + weights) / 2**20:,.0f}, the model's own included"
        ratio = (peak + weights) / (plain + weights)
        session.figure(case, "peak memory over plain training", ratio, unit="×", wanted=wanted[0], note=note)
    return selection


def _plain_peak(session: Session, subject: Subject) -> int | None:
    """Returns the most bytes that a few plain steps hold beyond the model's own."""
    model = subject.copied()
    return peak_beyond(session.device, lambda: subject.train(model, 3))


LONG = 3.0
"""Seconds of a run beside which it does not matter whether it was the first."""
RESERVE = 12.0
"""Seconds of a section that are kept for what comes after the budget."""


def _seconds(session: Session, work: Callable[[], object], runs: int) -> float:
    """Returns the median seconds of some runs, after one that warms up; of that alone where it takes long."""
    times: list[float] = []
    while len(times) < 1 + runs:
        start = session.waited()
        work()
        times.append(session.waited() - start)
        if times[0] > LONG:
            return times[0]
    return statistics.median(times[1:])
