"""Who coordinates a study: locks that die with their process, on a SQLite file and on a PostgreSQL server."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import sqlalchemy

from ..errors import StorageError


class Lock(Protocol):
    """What makes a process a coordinator of a study.

    Attributes:
        owner: this coordinator's name, stored with every trial that it claims.
    """

    owner: str

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Keeps every other coordinator of the storage from changing trials."""

    def planning(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Keeps every other coordinator from planning what has this name."""

    def gone(self, owner: str | None) -> bool:
        """Says whether the coordinator of that name lives no more; asked inside `alone`."""

    def renew(self) -> None:
        """Takes everything anew after the connection broke."""

    def close(self) -> None:
        """Gives everything back."""


def owner_name() -> str:
    """Returns a name that no other coordinator ever has: "host:pid:random"."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


_held: set[int] = set()
"""Descriptors of held lock files."""


def _close_copies() -> None:
    """Closes them in a forked child, or a worker that outlives its coordinator would keep the file locked."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_copies)


class FileLock:
    """The one coordinator of a SQLite file: an operating system's lock on a file beside it.

    Attributes:
        owner: this coordinator's name.
    """

    def __init__(self, database: Path) -> None:
        """Locks a database file for this process.

        Args:
            database: the SQLite file; the lock is on "<database>.lock", which stays when it is given back.

        Raises:
            StorageError: another process holds it, or the file cannot be written.
        """
        self.owner = owner_name()
        path = database.with_name(database.name + ".lock")
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as problem:
            raise StorageError(f"Lock file {path} cannot be written: {problem.strerror}. Check the folder.") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = _holder(self._descriptor)
            os.close(self._descriptor)
            raise StorageError(
                f"SQLite file {database} is in use by another coordinator ({holder}). One coordinator writes to a "
                "SQLite file: wait for it, stop it, or keep the study on PostgreSQL (--storage postgresql://…)."
            ) from None
        _held.add(self._descriptor)
        with contextlib.suppress(OSError):  # on a full disk the lock holds, only the note of its holder is missing
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Does nothing: there is one coordinator."""
        yield

    @contextlib.contextmanager
    def planning(self, name: str) -> Iterator[None]:
        """Does nothing: there is one coordinator."""
        yield

    def gone(self, owner: str | None) -> bool:
        """Returns True for every name but its own: who holds the file lock is the only one."""
        return owner != self.owner

    def renew(self) -> None:
        """Does nothing: the lock cannot break."""

    def close(self) -> None:
        """Unlocks the file."""
        if self._descriptor in _held:
            _held.remove(self._descriptor)
            os.close(self._descriptor)


def _holder(descriptor: int) -> str:
    """Returns "process 123 on host" of a lock file."""
    try:
        note = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {note['pid']} on {note['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # between its lock and its note
        return "process unknown"


class ServerLock:
    """One of several coordinators on a PostgreSQL server: advisory locks of a session, which die with it.

    Attributes:
        owner: this coordinator's name.
    """

    def __init__(self, url: sqlalchemy.URL) -> None:
        """Opens a session of its own and holds the lock of this coordinator's name.

        Args:
            url: of the database; the driver is psycopg.
        """
        self.owner = owner_name()
        # The server itself asks whether this session's machine lives: one that lost its power is gone in a minute.
        options = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
        self._engine = sqlalchemy.create_engine(
            url,
            poolclass=sqlalchemy.NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"connect_timeout": 10, "options": options},
        )
        self._connection = self._engine.connect()
        self._ask("pg_advisory_lock", self.owner)

    def _ask(self, function: str, name: str) -> bool:
        if (
            self._connection.closed or self._connection.invalidated
        ):  # it would come back without this coordinator's lock
            self._reconnect()
        answer = self._connection.execute(sqlalchemy.text(f"SELECT {function}(:key)"), {"key": lock_key(name)})
        return bool(answer.scalar())

    def _reconnect(self) -> None:
        self._connection.close()
        self._connection = self._engine.connect()
        self._ask("pg_advisory_lock", self.owner)

    @contextlib.contextmanager
    def _holding(self, name: str) -> Iterator[None]:
        self._ask("pg_advisory_lock", name)
        try:
            yield
        finally:
            # With its session a broken connection has given the lock back already.
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
                self._ask("pg_advisory_unlock", name)

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Keeps every other coordinator of the database from changing trials."""
        return self._holding("alone")

    def planning(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Keeps every other coordinator from planning what has this name."""
        return self._holding(f"planning {name}")

    def gone(self, owner: str | None) -> bool:
        """Returns whether no session holds the lock of that name; None is who died between two statements."""
        if owner is None:
            return True
        if owner == self.owner or not self._ask("pg_try_advisory_lock", owner):
            return False
        self._ask("pg_advisory_unlock", owner)
        return True

    def renew(self) -> None:
        """Opens a new session and takes this coordinator's lock again, if the old one is broken."""
        try:
            if not self._connection.closed and not self._connection.invalidated:
                self._connection.execute(sqlalchemy.text("SELECT 1"))
                return
        except sqlalchemy.exc.SQLAlchemyError:
            pass
        self._reconnect()

    def close(self) -> None:
        """Ends the session, and with it every lock."""
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
            self._connection.close()
        self._engine.dispose()


def lock_key(name: str) -> int:
    """Returns the 64-bit key of an advisory lock."""
    digest = hashlib.blake2b(f"autoinit {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
