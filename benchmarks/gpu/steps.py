"""Candidates' training steps a second of small models: in a plain loop, one by one, captured, stacked, and both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autoinit.errors import described
from autoinit.executors import stacked
from autoinit.executors.sequential import Sequential
from autoinit.task.machine import quick_collections

from .figures import Wanted
from .models import SMALL, Spec, Subject
from .session import Session

SIZES = (32, 8)
"""Candidates of a stack."""
SMOKE_SIZES = (2,)
TIMED = 0.4
"""Seconds that a way is timed for, of steps as long as those of the plain loop."""
MOST, FEWEST = 100, 3
"""Steps of a timing."""
ALONE, STACKED = 5.0, 20.0
"""Times the plain loop's steps that candidates have to make together, where they do not stack and where they do."""


def run(session: Session) -> None:
    """Writes the pace of each way, and of the best one over a plain loop's."""
    by_name = {spec.name: spec for spec in SMALL}
    for name, seconds in session.cases(list(by_name), least=3.0):
        with session.contained(name), quick_collections(session.device):
            _paced(session, by_name[name], session.left() - seconds)


def _paced(session: Session, spec: Spec, enough: float) -> None:
    """Measures one model in every way, until no more than `enough` seconds of the section are left."""
    subject = Subject(spec, session.device, small=session.smoke)
    plain = plain_pace(session, subject)
    session.figure(spec.name, "plain loop", plain, unit="steps/s")
    steps = FEWEST if session.smoke else max(FEWEST, min(MOST, int(TIMED * plain)))
    best, stacks = 0.0, False
    with subject.bench() as bench:
        for name, pace in _ways(SMOKE_SIZES if session.smoke else SIZES):
            if session.left() < enough and not session.smoke:
                session.figure(spec.name, name, "–", note="no time was left for it")
                continue
            try:
                measured, note = pace(bench, steps)
            except Exception as problem:  # of one way: the others are measured
                measured, note = 0.0, described(problem)[:200]
            session.figure(spec.name, name, measured or "–", unit="steps/s" if measured else "", note=note)
            best, stacks = max(best, measured), stacks or (name.startswith("stack") and measured > 0)
    wanted = Wanted(at_least=STACKED if stacks else ALONE)
    note = "stacks" if stacks else "does not stack"
    session.figure(spec.name, "best over the plain loop", best / plain, unit="×", wanted=wanted, note=note)


def plain_pace(session: Session, subject: Subject) -> float:
    """Returns the steps a second of a loop as anyone writes it, after some that warm up."""
    model = subject.copied()
    subject.train(model, FEWEST)
    steps = FEWEST
    while True:
        start = session.waited()
        subject.train(model, steps)
        seconds = session.waited() - start
        if session.smoke or seconds > TIMED / 2 or steps >= MOST:
            return steps / seconds
        steps = min(MOST, 4 * steps)


Pace = Callable[[Any, int], tuple[float, str]]
"""Returns the steps a second on a bench, 0 where it cannot be done, and what there is to say."""


def _ways(sizes: tuple[int, ...]) -> list[tuple[str, Pace]]:
    """Returns all ways of running candidates, by name."""
    ways: list[tuple[str, Pace]] = [("one by one", _sequential), ("captured", _captured)]
    for size in sizes:
        ways.append((f"stack of {size}", lambda bench, steps, size=size: _stacked(bench, steps, size)))  # type: ignore[misc]
    both = sizes[0]
    ways.insert(3, (f"stack of {both}, captured", lambda bench, steps: _both(bench, steps, both)))
    return ways


def _sequential(bench: Any, steps: int) -> tuple[float, str]:
    return Sequential(bench).pace(steps), ""


def _captured(bench: Any, steps: int) -> tuple[float, str]:
    try:
        from autoinit.executors.captured import Captured, why_not
    except ImportError:
        return 0.0, NOT_BUILT
    return (0.0, reason) if (reason := why_not(bench)) else _pace_of(Captured(bench), steps)


def _stacked(bench: Any, steps: int, size: int) -> tuple[float, str]:
    if reason := stacked.why_not(bench):
        return 0.0, reason
    return _pace_of(stacked.Stacked(bench, size), steps)


def _both(bench: Any, steps: int, size: int) -> tuple[float, str]:
    try:
        from autoinit.executors.captured_stack import CapturedStack, why_not
    except ImportError:
        return 0.0, NOT_BUILT
    if reason := stacked.why_not(bench) or why_not(bench):
        return 0.0, reason
    return _pace_of(CapturedStack(bench, size), steps)


NOT_BUILT = "not built"
"""Of a way that this version of the library does not have."""


def _pace_of(executor: Any, steps: int) -> tuple[float, str]:
    try:
        return executor.pace(steps), "; ".join(executor.notes)
    finally:
        executor.close()
