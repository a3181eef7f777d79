"""A study's database: its address, how it is opened, and what its troubles mean."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study._frozen import FrozenStudy

from ..errors import ArgumentError, StorageError
from ..search.sampling import Storage, quiet_optuna

BROKEN = (StorageInternalError, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error)
"""What Optuna, SQLAlchemy and SQLite raise for every trouble of a database."""

_NOTE_VERSION, _NOTE_PART, _NOTE_LENGTH = "dashboard:note_ver", "dashboard:note_str:", 2045
"""Where optuna-dashboard looks for a study's note, and how much of it stands at one place."""

# Without it a claim in a study of 10,000 trials walks over all that are finished.
_INDEX = "CREATE INDEX IF NOT EXISTS autoinit_waiting ON trials (study_id, trial_id) WHERE state = 'WAITING'"


def parsed_url(url: str) -> sqlalchemy.URL:
    """Returns a storage's address, with psycopg as the driver of PostgreSQL.

    Raises:
        ArgumentError: it is no URL, or of another database.
    """
    allowed = "Give sqlite:///file.db or postgresql://user:password@host/database."
    try:
        address = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise ArgumentError(f"Storage {url!r} is not a URL. {allowed}") from None
    if address.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return address.set(drivername="postgresql+psycopg")
    if address.get_backend_name() != "sqlite":
        raise ArgumentError(f"Storage {address} is on {address.drivername!r}, which is not supported. {allowed}")
    if not address.database or address.database == ":memory:":
        raise ArgumentError(f"Storage {address} is in memory and would be lost with the process. {allowed}")
    return address.set(drivername="sqlite")


def opened(address: sqlalchemy.URL, file: Path | None, readonly: bool, wait: float) -> Storage:
    """Returns Optuna's storage, its tables created unless it is only read.

    Args:
        address: as `parsed_url` gives it.
        file: of SQLite; None on a server.
        readonly: change nothing.
        wait: seconds to wait for a locked file.
    """
    if file is None:
        options: dict[str, Any] = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}
    else:
        options = {"connect_args": {"timeout": wait}}
        if not readonly:
            # Kept in the file: from then on readers never wait for the coordinator.
            with contextlib.closing(sqlite3.connect(file, timeout=wait)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
    with quiet_optuna():
        storage = Storage(_escaped(address), engine_kwargs=options, skip_table_creation=readonly)
    with contextlib.ExitStack() as opening:
        opening.callback(storage.close)
        if file is not None:
            sqlalchemy.event.listen(storage.engine, "connect", _readonly if readonly else _durable)
            storage.engine.dispose()  # what is open already has not heard of it
        if not readonly:
            with storage.engine.begin() as connection:
                connection.execute(sqlalchemy.text(_INDEX))
        opening.pop_all()
    return storage


class TasksOnly(Storage):
    """A study's storage as a dashboard shows it: its tasks, without what holds the whole together and has no trials.

    Args:
        url: of the storage.
        study: its name.
    """

    def __init__(self, url: str, study: str) -> None:
        self._prefix = f"{study}/"
        text = _escaped(parsed_url(url))
        super().__init__(text, skip_compatibility_check=True, skip_table_creation=True)

    def get_all_studies(self) -> list[FrozenStudy]:
        """Returns the tasks' studies."""
        return [one for one in super().get_all_studies() if one.study_name.startswith(self._prefix)]


def keep_note(storage: RDBStorage, study: int, body: str) -> None:
    """Keeps what optuna-dashboard shows as the note of a study; one that its owner wrote there stays.

    Args:
        storage: Optuna's.
        study: its number there.
        body: Markdown, whose first line is always the same and tells it from what others write.
    """
    kept = storage.get_study_system_attrs(study)
    parts = sum(key.startswith(_NOTE_PART) for key in kept)
    before = "".join(kept[f"{_NOTE_PART}{place}"] for place in range(parts))
    if before == body or (before and before.splitlines()[0] != body.splitlines()[0]):
        return
    storage.set_study_system_attr(study, _NOTE_VERSION, kept.get(_NOTE_VERSION, 0) + 1)
    for place in range(max(parts, math.ceil(len(body) / _NOTE_LENGTH))):
        part = body[place * _NOTE_LENGTH : (place + 1) * _NOTE_LENGTH]
        storage.set_study_system_attr(study, f"{_NOTE_PART}{place}", part)


def _escaped(address: sqlalchemy.URL) -> str:
    """Returns an address with its password, as Optuna wants it: it fills in what stands in braces."""
    return address.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")


def _durable(connection: sqlite3.Connection, _: object) -> None:
    """In WAL mode NORMAL loses nothing when the process is killed; only a power cut may cost the last trials."""
    connection.execute("PRAGMA synchronous=NORMAL")


def _readonly(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA query_only=ON")


def _origin(problem: BaseException) -> BaseException:
    """Returns what the database driver raised."""
    inner = problem.__cause__ if isinstance(problem, StorageInternalError) else problem
    driver = inner.orig if isinstance(inner, sqlalchemy.exc.DBAPIError) else inner
    return driver or problem


def away(problem: BaseException) -> bool:
    """Says whether a server may come back: not for SQLite, which has waited for its lock itself."""
    driver = _origin(problem)
    kinds = {kind.__name__ for kind in type(driver).__mro__}
    server = not isinstance(driver, sqlite3.Error)
    return server and bool(kinds & {"OperationalError", "InterfaceError", "PendingRollbackError"})


def in_words(problem: BaseException, url: str, wait: float) -> StorageError:
    """Returns the error that says what happened to a storage, and what to do.

    Args:
        problem: as Optuna or SQLAlchemy raised it.
        url: of the storage, without its password.
        wait: the seconds that were waited.
    """
    driver = _origin(problem)
    code = vars(driver).get("sqlite_errorname", "") if isinstance(driver, sqlite3.Error) else ""
    said = str(driver).strip().splitlines()[0] if str(driver).strip() else type(driver).__name__
    kept = "Finished trials are kept; then resume the study."
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        what = f"is locked by another program since {wait:g} s. Close what writes to it (a database browser?). {kept}"
    elif code.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        what = f"cannot be written: the disk is full or fails ({said}). Free some space. {kept}"
    elif code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
        what = f"cannot be written or opened ({said}). Check that its folder exists and may be written."
    elif code.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        what = f"is not a healthy SQLite database ({said}). Give another file, or a copy of this one."
    elif away(problem):
        since = f" since {wait:g} s" if wait else ""
        what = f"does not answer{since} ({said}). Check that the server runs and the address is right. {kept}"
    else:
        what = f"refused a statement ({said}). Is it the storage of a study?"
    return StorageError(f"Storage {url} {what}")
