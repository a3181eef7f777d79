"""Where a study is kept: an Optuna storage with one Optuna study per task, on SQLite or PostgreSQL.

A trial's user attributes are "job" (what to run), "attempts", "coordinator" (who runs it) and "record" (its line and
the value that it is compared by). Each change is safe against a kill at any statement: a trial is RUNNING before it has
a coordinator, and has its record before it is finished; `recover` completes what was cut in between.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from ..errors import ArgumentError, did_you_mean
from ..search.sampling import Storage, quiet_optuna
from ..search.storing import insert, param_rows
from ..version import to_install
from .database import BROKEN, away, in_words, keep_note, opened, parsed_url
from .locks import FileLock, Lock, ServerLock
from .spec import Study

T = TypeVar("T")

_PAGE = 500
"""Record lines read at a time."""
_COMPARED = ("recipe", "seed", "lr_step", "state", "stage", "score,total")
"""What is read of a record line where trials are compared."""
_RUN = "run"
"""The study's attribute that holds when the run at hand began, in UTC."""


def storage_of(study: Study, folder: Path, url: str | None = None) -> str:
    """Returns the URL of a study's storage: the one asked for, its own, or an SQLite file in a folder."""
    return url or study.storage or f"sqlite:///{(folder / f'{study.name}.db').resolve()}"


@dataclass(frozen=True)
class Claimed:
    """A trial that this coordinator runs.

    Attributes:
        task: its task.
        number: in that task.
        trial_id: in the storage.
        job: what to run, as it was planned.
        attempts: which attempt this is, from 1.
    """

    task: str
    number: int
    trial_id: int
    job: dict[str, Any]
    attempts: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the trials of a run end, by the clocks of its coordinators.

    Attributes:
        rate: trials a second since the last coordinator began; None where none has ended, or the clock was set.
        ago: seconds since the last one ended, by the clock here; None where none has.
    """

    rate: float | None
    ago: float | None


class Store:
    """One study in its storage; `open_store` opens it. Of one thread.

    Attributes:
        study: the study's name.
        url: of the storage, without its password.
        storage: Optuna's own.
    """

    def __init__(self, study: str, url: sqlalchemy.URL, storage: Storage, lock: Lock | None, wait: float) -> None:
        self.study = study
        self.url = str(url)
        self.storage = storage
        self._lock = lock
        self._wait = wait
        self._ids: dict[str, int] = {}

    # The study and its tasks

    def attribute(self, key: str) -> Any:
        """Returns what is kept of the whole study under a key; None where there is nothing."""
        return self._call(lambda: self.storage.get_study_user_attrs(self._id("")).get(key))

    def set_attribute(self, key: str, value: Any) -> None:
        """Keeps a JSON value of the whole study."""
        self._change(lambda: self.storage.set_study_user_attr(self._id(""), key, value))

    def set_note(self, body: str) -> None:
        """Keeps what a dashboard shows as the note of the whole study, as `keep_note` does."""
        self._change(lambda: keep_note(self.storage, self._id(""), body))

    def begin_run(self) -> None:
        """Notes that a coordinator begins now: paces are told from here on."""
        self.set_attribute(_RUN, _now().isoformat())

    def tasks(self) -> list[str]:
        """Returns the names of the tasks, in the order in which they were added."""
        self._ids.clear()
        self._call(lambda: self._id(""))
        return [task for task in self._ids if task]

    def add_task(self, task: str, info: Mapping[str, Any]) -> None:
        """Adds a task with what is known of it; one that is there already gets the information anew."""

        def add() -> None:
            with contextlib.suppress(DuplicatedStudyError), quiet_optuna():
                self.storage.create_new_study([StudyDirection.MINIMIZE], f"{self.study}/{task}")
            for key, value in info.items():
                self.storage.set_study_user_attr(self._id(task), key, value)

        self._change(add)

    def task_info(self, task: str) -> dict[str, Any]:
        """Returns what is known of a task."""
        return self._call(lambda: dict(self.storage.get_study_user_attrs(self._id(task))))

    def set_task_info(self, task: str, key: str, value: Any) -> None:
        """Keeps one more JSON value of a task."""
        self._change(lambda: self.storage.set_study_user_attr(self._id(task), key, value))

    # Trials, in the order of their lives

    def extend(self, task: str, jobs: Sequence[Mapping[str, Any]]) -> None:
        """Adds waiting trials in order; those that are there already are left as they are.

        Args:
            task: whose trials they are.
            jobs: JSON objects with their trial's "number".

        Raises:
            ArgumentError: the numbers leave a gap.
        """
        for job in jobs:
            template = create_trial(state=TrialState.WAITING, user_attrs={"job": dict(job)})
            self._change(functools.partial(self._add, task, job["number"], template))

    def add_params(
        self,
        task: str,
        distributions: Mapping[str, BaseDistribution],
        params: Callable[[dict[str, Any]], Mapping[str, Any]],
    ) -> None:
        """Tells Optuna's plots what the trials of a task differ in; those that were told are left as they are.

        Args:
            task: whose trials.
            distributions: of every parameter.
            params: gives those of one trial, by its job.
        """
        query = (
            "SELECT t.trial_id, job.value_json FROM trials t "
            "JOIN trial_user_attributes job ON job.trial_id = t.trial_id AND job.key = 'job' WHERE t.study_id = :study "
            "AND NOT EXISTS (SELECT 1 FROM trial_params p WHERE p.trial_id = t.trial_id) ORDER BY t.trial_id"
        )

        def add() -> None:
            untold = self._read(query, {"study": self._id(task)})
            each = ((trial, params(json.loads(job))) for trial, job in untold)
            rows = [row for trial, chosen in each for row in param_rows(trial, chosen, distributions)]
            # At once, and of ended trials too: Optuna commits each for itself, and none of a trial that has ended.
            with self.storage.engine.begin() as connection:
                insert(connection, "trial_params", rows)

        self._change(add)

    def _add(self, task: str, number: int, template: optuna.trial.FrozenTrial) -> None:
        # By SQL: Optuna would build every trial to count them.
        there = self._read("SELECT count(*) FROM trials WHERE study_id = :study", {"study": self._id(task)})[0][0]
        if number > there:
            raise ArgumentError(
                f"Trial {number} of task {task!r} cannot be added: the next one is {there}. Leave no gap."
            )
        if number == there:
            self.storage.create_new_trial(self._id(task), template)

    def claim(self, task: str, limit: int, skip: Sequence[int] = ()) -> list[Claimed]:
        """Takes waiting trials to run, lowest numbers first; no other coordinator gets them.

        Args:
            task: whose trials.
            limit: at most so many.
            skip: numbers that are not wanted.
        """
        query = (
            "SELECT t.trial_id, t.number, job.value_json, attempts.value_json FROM trials t "
            "JOIN trial_user_attributes job ON job.trial_id = t.trial_id AND job.key = 'job' "
            "LEFT JOIN trial_user_attributes attempts ON attempts.trial_id = t.trial_id AND attempts.key = 'attempts' "
            "WHERE t.study_id = :study AND t.state = 'WAITING' ORDER BY t.trial_id LIMIT :most"
        )
        values = {"study": self._call(lambda: self._id(task)), "most": limit + len(skip)}
        waiting = [
            Claimed(task, number, trial, json.loads(job), json.loads(attempts or "1"))
            for trial, number, job, attempts in self._rows(query, values)
            if number not in skip
        ]
        return [one for one in waiting[:limit] if self._change(functools.partial(self._take, one.trial_id))]

    def _take(self, trial_id: int) -> bool:
        """Makes a trial this coordinator's; returns False where another one was faster."""
        assert self._lock is not None
        state, owner = self._state_and_owner(trial_id)
        if state == TrialState.WAITING:
            self.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        elif state != TrialState.RUNNING or owner is not None:
            return False
        # Nobody else is between these two statements: a running trial without a coordinator was left there.
        self.storage.set_trial_user_attr(trial_id, "coordinator", self._lock.owner)
        return True

    def _state_and_owner(self, trial_id: int) -> tuple[TrialState, str | None]:
        query = (
            "SELECT t.state, a.value_json FROM trials t LEFT JOIN trial_user_attributes a "
            "ON a.trial_id = t.trial_id AND a.key = 'coordinator' WHERE t.trial_id = :trial"
        )
        state, owner = self._read(query, {"trial": trial_id})[0]
        return TrialState[state], json.loads(owner or "null")

    def finish(self, claimed: Claimed, line: Mapping[str, Any], value: float | None) -> bool:
        """Ends a trial with its record line; returns False where it had ended already, and changes nothing.

        Args:
            claimed: the trial.
            line: its record, a JSON object.
            value: what the trial is compared by; None for a failed one.
        """

        def end() -> bool:
            trial = claimed.trial_id
            try:
                self.storage.set_trial_user_attr(trial, "record", record)
                self._end(trial, value)
            except UpdateFinishedTrialError:
                # Asked again after a broken connection: the first time went through.
                return bool(self.storage.get_trial(trial).user_attrs.get("record") == record)
            return True

        record = {"value": value, "line": dict(line)}
        if self._call(lambda: self._state_and_owner(claimed.trial_id))[0].is_finished():
            return False
        return self._change(end)

    def _end(self, trial_id: int, value: float | None) -> None:
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self.storage.set_trial_state_values(trial_id, state, None if value is None else [value])

    def retry(self, claimed: Claimed, reason: str) -> bool:
        """Puts a trial back to be run once more; returns False where it is no longer this coordinator's.

        Args:
            claimed: the trial.
            reason: why; kept with the trial.
        """
        return self._give_back(claimed, {"reason": reason, "attempts": claimed.attempts + 1})

    def release(self, claimed: Claimed) -> bool:
        """Puts a trial back as if it had never been claimed; returns False where it is no longer this coordinator's."""
        return self._give_back(claimed, {})

    def _give_back(self, claimed: Claimed, noted: Mapping[str, Any]) -> bool:
        def give_back() -> bool:
            assert self._lock is not None
            if self._state_and_owner(claimed.trial_id) != (TrialState.RUNNING, self._lock.owner):
                return False
            for key, value in noted.items():
                self.storage.set_trial_user_attr(claimed.trial_id, key, value)
            self._release(claimed.trial_id)
            return True

        return self._change(give_back)

    def _release(self, trial_id: int) -> None:
        self.storage.set_trial_user_attr(trial_id, "coordinator", None)
        self.storage.set_trial_state_values(trial_id, TrialState.WAITING)

    def recover(self) -> int:
        """Puts back the running trials whose coordinator is gone, ends those that have their line; returns how many."""
        tasks = self.tasks()
        return self._change(lambda: sum(self._recover(task) for task in tasks))

    def _recover(self, task: str) -> int:
        assert self._lock is not None
        query = (
            "SELECT t.trial_id, owner.value_json, record.value_json FROM trials t "
            "LEFT JOIN trial_user_attributes owner ON owner.trial_id = t.trial_id AND owner.key = 'coordinator' "
            "LEFT JOIN trial_user_attributes record ON record.trial_id = t.trial_id AND record.key = 'record' "
            "WHERE t.study_id = :study AND t.state = 'RUNNING' ORDER BY t.trial_id"
        )
        running = self._read(query, {"study": self._id(task)})
        lost = [(trial, record) for trial, owner, record in running if self._lock.gone(json.loads(owner or "null"))]
        for trial, record in lost:
            if record is not None:
                self._end(trial, json.loads(record)["value"])
            else:
                self._release(trial)
        return len(lost)

    @contextlib.contextmanager
    def planning(self, task: str) -> Iterator[None]:
        """Keeps every other coordinator from planning a task's trials at the same time."""
        if self._lock is None:
            raise ArgumentError(f"Study {self.study!r} is open for reading: nothing can be planned.")
        with self._lock.planning(f"{self.study}/{task}"):
            yield

    # Reading, by SQL: Optuna would build every trial

    def counts(self) -> dict[str, dict[str, int]]:
        """Returns how many trials are "waiting", "running", "complete" and "fail" in each task; none counts 0."""
        counts = {task: dict.fromkeys(("waiting", "running", "complete", "fail"), 0) for task in self.tasks()}
        names = {self._ids[task]: task for task in counts}
        for study, state, number in self._rows(
            "SELECT study_id, state, count(*) FROM trials GROUP BY study_id, state", {}
        ):
            if study in names:
                counts[names[study]][state.lower()] = number
        return counts

    def pace(self) -> Pace:
        """Returns how fast trials end in the run at hand, over all its coordinators."""
        begun = self.attribute(_RUN)
        since = _now() if begun is None else datetime.datetime.fromisoformat(begun)
        query = (
            "SELECT count(*) AS ended, max(t.datetime_complete) AS last FROM trials t "
            "JOIN studies s ON s.study_id = t.study_id WHERE t.state IN ('COMPLETE', 'FAIL') "
            "AND t.datetime_complete > :since AND substr(s.study_name, 1, :length) = :prefix"
        )
        prefix = f"{self.study}/"
        asked = sqlalchemy.text(query).bindparams(sqlalchemy.bindparam("since", type_=sqlalchemy.DateTime))
        typed = asked.columns(ended=sqlalchemy.Integer, last=sqlalchemy.DateTime)  # in SQLite a time is a text
        values = {"since": since, "length": len(prefix), "prefix": prefix}
        ended, last = self._rows(typed, values)[0]
        if not ended:
            return Pace(None, None)
        seconds = (last - since).total_seconds()
        return Pace(ended / seconds if seconds > 0 else None, max(0.0, (_now() - last).total_seconds()))

    def lines(self, task: str | None = None) -> Iterator[dict[str, Any]]:
        """Yields the record lines of the finished trials, in the order of their numbers, a page in memory at a time.

        Args:
            task: only of this one; None: of all, one task after the other.
        """
        query = (
            "SELECT t.trial_id, a.value_json FROM trials t JOIN trial_user_attributes a ON a.trial_id = t.trial_id "
            "AND a.key = 'record' WHERE t.study_id = :study AND t.trial_id > :after "
            f"AND t.state IN ('COMPLETE', 'FAIL') ORDER BY t.trial_id LIMIT {_PAGE}"
        )
        for name in self.tasks() if task is None else [task]:
            values = {"study": self._call(functools.partial(self._id, name)), "after": -1}
            while page := self._rows(query, values):
                yield from (json.loads(record)["line"] for _, record in page)
                values["after"] = page[-1][0]

    def scores(self, stage: str) -> dict[str, list[dict[str, Any]]]:
        """Returns of every task what its finished trials of a stage are compared by, in the order of their numbers.

        Of each record line that is the recipe, seed, place of the learning rate, state and score's total: a study is
        watched every few seconds, and whole lines would take too long.

        Args:
            stage: "probe" or "long".
        """
        server = self.storage.engine.dialect.name == "postgresql"
        parts = [f"CAST(a.value_json AS json) #> '{{line,{part}}}'" for part in _COMPARED]
        paths = [f"'$.line.{part.replace(',', '.')}'" for part in _COMPARED]
        chosen = (
            f"json_build_array({', '.join(parts)})" if server else f"json_extract(a.value_json, {', '.join(paths)})"
        )
        query = (
            f"SELECT t.study_id, CAST({chosen} AS TEXT) FROM trials t "
            "JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'record' "
            "WHERE t.state IN ('COMPLETE', 'FAIL') ORDER BY t.trial_id"
        )
        names = {self._ids[task]: task for task in self.tasks()}
        found: dict[str, list[dict[str, Any]]] = {task: [] for task in names.values()}
        for study, told in self._rows(query, {}):
            if study in names:
                recipe, seed, lr_step, state, of, value = json.loads(told)
                if of == stage:
                    score = {"score": None if value is None else {"total": value}}
                    line = {"recipe": recipe, "seed": seed, "lr_step": lr_step, "state": state, **score}
                    found[names[study]].append(line)
        return found

    def close(self) -> None:
        """Closes the connections and gives the lock back."""
        self.storage.close()
        if self._lock is not None:
            self._lock.close()

    # The database

    def _id(self, task: str) -> int:
        """Returns Optuna's number of a task's study, or of the whole study for ""."""
        if task not in self._ids:
            found = sqlalchemy.text("SELECT study_id, study_name FROM studies ORDER BY study_id")
            with self.storage.engine.connect() as connection:
                rows = connection.execute(found).all()
            prefix = f"{self.study}/"
            self._ids = {name.removeprefix(prefix): number for number, name in rows if name.startswith(prefix)}
            self._ids.update(("", number) for number, name in rows if name == self.study)
        if task not in self._ids:
            raise ArgumentError(
                f"Study {self.study!r} has no task {task!r}. {did_you_mean(task, filter(None, self._ids))}"
            )
        return self._ids[task]

    def _rows(self, query: str | sqlalchemy.Executable, values: Mapping[str, Any]) -> Sequence[Any]:
        return self._call(lambda: self._read(query, values))

    def _read(self, query: str | sqlalchemy.Executable, values: Mapping[str, Any]) -> Sequence[Any]:
        """Returns the rows of one query, asked once: a change that breaks here begins anew, with its lock."""
        statement = sqlalchemy.text(query) if isinstance(query, str) else query
        with self.storage.engine.connect() as connection:
            return connection.execute(statement, values).all()

    def _change(self, statements: Callable[[], T]) -> T:
        """Runs statements that change the storage, with no other coordinator in between."""
        lock = self._lock
        if lock is None:
            raise ArgumentError(f"Study {self.study!r} is open for reading: nothing can be changed.")

        def change() -> T:
            with lock.alone():
                return statements()

        return self._call(change)

    def _call(self, statements: Callable[[], T]) -> T:
        """Runs statements, again and again while the server is away: each must do no harm when it is run twice."""
        end, pause, broken = time.monotonic() + self._wait, 0.1, False
        while True:
            try:
                if broken and self._lock is not None:
                    self._lock.renew()
                return statements()
            except BROKEN as problem:
                if not away(problem) or time.monotonic() > end:
                    raise in_words(problem, self.url, self._wait) from problem
                broken = True
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


def _now() -> datetime.datetime:
    """Returns the time as Optuna keeps it in a database: UTC, and without saying so."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def open_store(url: str, study: str, *, create: bool = False, readonly: bool = False, wait: float = 60.0) -> Store:
    """Opens a study in a storage.

    Args:
        url: "sqlite:///file.db" or "postgresql://user:password@host/database".
        study: its name.
        create: begin it where it is not there.
        readonly: only read, beside a coordinator that runs.
        wait: seconds to wait for a locked file or a server that is away.

    Raises:
        ArgumentError: the URL is wrong, or there is no such study.
        StorageError: another coordinator holds the file, or the storage cannot be used.
    """
    address = parsed_url(url)
    file = Path(address.database or "") if address.drivername == "sqlite" else None
    if file is not None and not file.exists() and not create:
        raise ArgumentError(f"There is no study {study!r}: no file {file}. Begin it with `autoinit study run`.")
    with contextlib.ExitStack() as opening:  # what is open is closed again where a later step fails
        try:
            lock: Lock | None = None
            if not readonly:
                lock = ServerLock(address) if file is None else FileLock(file)
                opening.callback(lock.close)
            with lock.alone() if lock is not None else contextlib.nullcontext():
                storage = opened(address, file, readonly, wait)
                opening.callback(storage.close)
                store = Store(study, address, storage, lock, wait)
                _found(store, create and not readonly)
        except ImportError:
            raise ArgumentError(f"Storage {address} needs a driver: {to_install('postgres')}") from None
        except BROKEN as problem:
            raise in_words(problem, str(address), wait if file is not None else 0) from problem
        opening.pop_all()
    return store


def _found(store: Store, create: bool) -> None:
    """Makes sure that the study is there."""
    names = [study.study_name for study in store.storage.get_all_studies()]
    if store.study in names:
        return
    if not create:
        known = [name for name in names if "/" not in name]
        listed = did_you_mean(store.study, known) if known else "It holds no study."
        raise ArgumentError(f"Storage {store.url} holds no study {store.study!r}. {listed}")
    with quiet_optuna():
        store.storage.create_new_study([StudyDirection.MINIMIZE], store.study)
