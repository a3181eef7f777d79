"""Databases as tests look at them: Optuna's view of what is stored, and whether all connections were closed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import optuna
import sqlalchemy


@contextlib.contextmanager
def database(url: str) -> Iterator[optuna.storages.RDBStorage]:
    """A storage as Optuna opens it; it is closed again, since Python 3.13 warns of a connection that is left open."""
    storage = optuna.storages.RDBStorage(url)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def stored_trials(url: str, study: str) -> list[optuna.trial.FrozenTrial]:
    """The trials of a study in a database, as Optuna finds them."""
    with database(url) as storage:
        return optuna.load_study(study_name=study, storage=storage).trials


@contextlib.contextmanager
def all_closed() -> Iterator[None]:
    """Fails where a connection to a database is open at the end of the block that was opened in it."""
    count = {"connect": 0, "close": 0}

    def counted(event: str) -> Any:
        def count_one(*arguments: object) -> None:
            count[event] += 1

        return count_one

    listeners = [(sqlalchemy.Pool, event, counted(event)) for event in count]
    for listener in listeners:
        sqlalchemy.event.listen(*listener)
    try:
        yield
    finally:
        for listener in listeners:
            sqlalchemy.event.remove(*listener)
        assert count["close"] == count["connect"] > 0, count
