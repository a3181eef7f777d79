"""Running a study from its file or from Python: storage, workers, signals, and the clock."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from ..errors import ArgumentError
from ..judging.budget import parse_budget
from .coordinator import Coordinator, StudyProgress
from .local import Local
from .orders import Workers
from .spec import Study
from .status import as_note, status_of
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
    executor: Literal["local", "ray"] | None = None,
    budget: str | None = None,
    resume: bool = False,
    report: Callable[[StudyProgress], None] = lambda progress: None,
) -> Ran:
    """Runs what is left of a study, and returns when everything is done or it was asked to stop.

    A study trains every candidate of its space on every task, with every seed, in worker processes, and keeps a record
    of each trial in its storage: an SQLite file in `folder`, or a PostgreSQL database that several machines may share.
    Whatever ended an earlier run, a kill included, the next one goes on where it was; one that is done returns at once.

    SIGTERM and Ctrl-C stop it: running trials have a moment to end, and what is cut off waits for the next run. A
    second Ctrl-C is raised. `autoinit study status`, `export` and `report` show what came of a study that has a file
    (TOML). Nothing of it runs in this process but the book-keeping, and no model of yours is touched.

    Args:
        study: This is run: tasks, candidates, seeds and lengths, as a `Study`.
        folder: Modules that the study names are looked up here besides the current folder, and its SQLite file is here.
        storage: The trials are kept at this URL of Optuna's ("sqlite:///file.db", "postgresql://user@host/database").
            None means the study's own, or else the file NAME.db in `folder`.
        workers: This many workers run at a time. None means as many as the study says, or else one on each GPU, or on
            each core.
        executor: Workers are processes of this machine ("local") or actors of a Ray cluster ("ray"). None means as the
            study says.
        budget: After this wall time, a text such as "90s" or "8h", the run stops. None means the study's own, or no
            limit.
        resume: Whether the study must have been started before; a study that was not is an error then.
        report: This callable is told of the progress: `done`, `failed`, `running` and `total` count trials, `seconds`
            and `left` are times of this run, and `news` says what happened.

    Returns:
        Why the run ended before everything was done (`reason`, an empty text where all is), and the URL at which its
        trials are kept (`storage`).

    Raises:
        ArgumentError: Another study was started under this name, none was where `resume` is true, or an argument is out
            of range. What is in the storage stays.
        BudgetError: The budget is not understood.
        StorageError: The storage cannot be used: another coordinator is at the SQLite file, it is locked or full, or
            the server is away. Trials that ended are kept.

    Example:
        Two recipes and as-is, twenty steps each. What a study names is looked up as module:callable:

        >>> import autoinit, tempfile
        >>> linear = {"name": "linear", "model": "torch.nn:Linear", "model_args": {"in_features": 4, "out_features": 3}}
        >>> iris = {"data": "sklearn.datasets:load_iris", "data_args": {"return_X_y": True}}
        >>> study = autoinit.Study(
        ...     name="iris",
        ...     tasks=[{**linear, **iris}],
        ...     space={"recipes": ["he_normal", "xavier_uniform"]},
        ...     probe={"steps": 20},
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     told = []
        ...     ran = autoinit.run_study(study, folder=folder, workers=1, report=told.append)
        ...     print(told[-1].done, "of", told[-1].total, "trials ended;", ran.reason or "done")
        3 of 3 trials ended; done
    """
    home = Path(folder)
    if not isinstance(study, Study):
        raise ArgumentError(
            f"study is {study!r}. Pass an autoinit.Study; `autoinit study run` takes the path of a study file."
        )
    if not home.is_dir():
        raise ArgumentError(f"folder is {str(folder)!r}, which is no folder. Make it first, or give another one.")
    url = storage_of(study, home, storage)
    limit = parse_budget(budget or study.budget).seconds if budget or study.budget else None
    store = open_store(url, study.name, create=not resume)
    try:
        _check_same(store, study)
        crew = _workers(study, home, workers or study.workers, executor or study.executor)
        try:
            _note(store, study)
            with _stopping(limit) as stop:
                reason = Coordinator(study, store, crew, report=report, stop=stop).run()
            _note(store, study)
        finally:
            crew.close()
    finally:
        store.close()
    return Ran(reason, url)


def _note(store: Store, study: Study) -> None:
    """Tells who opens the storage in a dashboard what the study as a whole is, and how it stands."""
    store.set_note(as_note(study.name, status_of(store, study)))


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
