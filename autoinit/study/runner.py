"""Running a study from its file or from Python: storage, workers, signals, and the clock."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ..errors import ArgumentError
from ..judging.budget import parse_budget
from .coordinator import Coordinator, Progress
from .local import Local
from .orders import Workers
from .spec import Study
from .storage import Store, open_store, storage_of
from .toml_file import difference

SPEC = "spec"
"""The storage's attribute that holds the study as it was started."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run of a study ended.

    Attributes:
        reason: why before its end; "" where everything is done.
        storage: the URL that holds its trials.
    """

    reason: str
    storage: str


def run_study(
    study: Study,
    *,
    folder: str | Path = ".",
    storage: str | None = None,
    workers: int | None = None,
    executor: str | None = None,
    budget: str | None = None,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Ran:
    """Runs what is left of a study, and returns when everything is done or it was asked to stop.

    SIGTERM and Ctrl-C stop it: running trials have a moment to end, and what is cut off waits for the next run. A
    second Ctrl-C is raised.

    Args:
        study: what to run.
        folder: where its modules are looked up besides the current folder, and where its SQLite file is.
        storage: Optuna's URL, in the place of the study's own.
        workers: at a time, in the place of the study's own.
        executor: "local" or "ray", likewise.
        budget: wall time of this run, such as "8h", likewise.
        resume: whether it must have been started before.
        report: told of the progress.

    Raises:
        ArgumentError: the study is not the one that was started under its name, or an argument is out of range.
        StorageError: the storage cannot be used; another coordinator is at a SQLite file, a server is away.
    """
    home = Path(folder)
    url = storage_of(study, home, storage)
    limit = parse_budget(budget or study.budget).seconds if budget or study.budget else None
    store = open_store(url, study.name, create=not resume)
    try:
        _check_same(store, study)
        crew = _workers(study, home, workers or study.workers, executor or study.executor)
        try:
            with _stopping(limit) as stop:
                reason = Coordinator(study, store, crew, report=report, stop=stop).run()
        finally:
            crew.close()
    finally:
        store.close()
    return Ran(reason, url)


def _check_same(store: Store, study: Study) -> None:
    """Refuses another study under the same name, and keeps the spec of this one."""
    begun = store.attribute(SPEC)
    if begun is not None and (changed := difference(begun, study)):
        raise ArgumentError(
            f"The study {study.name!r} was started otherwise: {'; '.join(changed[:5])}. Only its budget and how it is "
            "run may change, and its task list may grow. Put it back, or give the changed study a name of its own."
        )
    store.set_attribute(SPEC, study.model_dump(mode="json"))


def _workers(study: Study, folder: Path, count: int | None, executor: str) -> Workers:
    if executor == "local":
        return Local(study, [folder], count)
    if executor == "ray":
        from .ray_tasks import OnRay

        return OnRay(study, [folder], count)
    raise ArgumentError(f"executor is {executor!r}. Allowed: local, ray.")


@contextmanager
def _stopping(limit: float | None) -> Iterator[Callable[[], str]]:
    """Yields what tells why to stop; the handlers of the signals are put back."""
    deadline = None if limit is None else time.monotonic() + limit
    asked: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append("interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}")

    def stop() -> str:
        over = "the budget is spent" if deadline is not None and time.monotonic() >= deadline else ""
        return asked[0] if asked else over

    before = {number: signal.signal(number, note) for number in _signals()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signals() -> Sequence[signal.Signals]:
    """Returns the signals that can be caught here: none outside the main thread."""
    import threading

    return (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
