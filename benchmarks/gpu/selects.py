"""A whole `select` on each small model: how long, how many candidates, and what of it was no training."""

from __future__ import annotations

from typing import Any

import autoinit

from ..common.peaks import peak_beyond
from .figures import Wanted
from .models import SMALL, Spec, Subject
from .session import Session
from .timing import Split, split_time

OUTSIDE = Wanted(at_most=0.2)
"""Share of `select` that may be something else than forward, backward and optimizer steps."""
SHARE = 0.7
"""Of a model's time: the search's budget, which leaves something for making the model and reading it."""
WARMING = 3
"""Plain steps before: the device loads its kernels at the first of them, as it does for any training."""
SMOKE = autoinit.Budget(steps=160)


def run(session: Session) -> None:
    """Writes for each model what its search took and came to."""
    by_name = {spec.name: spec for spec in SMALL}
    for name, seconds in session.cases(list(by_name), least=4.0):
        with session.contained(name):
            _searched(session, by_name[name], SMOKE if session.smoke else SHARE * seconds)


def _searched(session: Session, spec: Spec, budget: Any) -> None:
    subject = Subject(spec, session.device, small=session.smoke)
    subject.train(subject.copied(), WARMING)
    selection, split, _ = select_watched(session, subject, budget)
    told(session, spec.name, selection, split, OUTSIDE)


def select_watched(session: Session, subject: Subject, budget: Any) -> tuple[autoinit.Selection, Split, int | None]:
    """Returns what `select` chooses, where its time went, and the bytes that it held at the most beyond the model's.

    On a CPU candidates run one after the other: worker processes would train where no clock sees it.
    """
    found: list[autoinit.Selection] = []
    one_by_one: Any = {"executor": "sequential"} if session.device.type == "cpu" else {}

    def search() -> None:
        found.append(
            autoinit.select(
                subject.model, subject.batches, optimizer=subject.spec.optimizer, budget=budget, apply=False,
                progress=False, **one_by_one, **subject.options,
            )
        )  # fmt: skip

    splits: list[Split] = []
    peak = peak_beyond(session.device, lambda: splits.append(split_time(subject, session.device, search)))
    return found[0], splits[0], peak


def told(session: Session, case: str, selection: autoinit.Selection, split: Split, outside: Wanted | None) -> None:
    """Writes what a search took and came to."""
    cost = selection.cost
    session.figure(case, "select", split.wall, unit="s", note=cost.executor)
    session.figure(case, "share outside training", split.outside, wanted=outside, note=split.most)
    session.figure(case, "steps", cost.steps, note=f"{cost.steps / split.wall:,.0f} a second of the whole")
    session.figure(case, "candidates tried", cost.trials)
    session.figure(case, "answer", selection.answer, note=selection.why)
