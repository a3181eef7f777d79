"""A search's trials in an Optuna storage: what a study in memory was told is copied into a database, in batches.

Optuna itself commits each parameter, value and attribute, and no candidate is tried meanwhile. All that is new in one
transaction costs about what one of those does. No torch is loaded.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from ..errors import described
from .sampling import Storage, new_study, quiet_optuna, stored_study

EVERY = 2.0
"""Seconds between two copies: what a crash may cost."""

Row = dict[str, Any]


@contextlib.contextmanager
def stored(storage: str | None, name: str | None) -> Iterator[tuple[optuna.Study, Callable[[], None]]]:
    """Gives a new study in memory, and what to call now and then so that the storage has its trials; all at the end.

    Args:
        storage: an Optuna storage URL; None for memory alone.
        name: of the study in the storage, where it must be new; None has Optuna make one up.

    Raises:
        ArgumentError: the storage cannot be opened, or holds a study of that name already.
    """
    with quiet_optuna():
        memory = new_study()
        if storage is None:
            yield memory, lambda: None
            return
        copies = Copies(memory, *stored_study(storage, name))
        try:
            yield memory, copies.write
        finally:
            copies.close()


class Copies:
    """Copies the trials of a study in memory into one in a database.

    Args:
        memory: the study that a search asks and tells.
        storage: the database.
        study: number of the empty study there that gets the trials, under their own numbers.
    """

    def __init__(self, memory: optuna.Study, storage: Storage, study: int) -> None:
        self._memory, self._storage, self._study = memory, storage, study
        self._running: dict[int, int] = {}
        self._seen = 0
        self._next = time.monotonic() + EVERY

    def write(self) -> None:
        """Copies what is new, unless that was done just now. A trial that runs is there as running."""
        if time.monotonic() >= self._next:
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):  # it must not end the search: it is tried again
                self._copy()
            self._next = time.monotonic() + EVERY

    def close(self) -> None:
        """Copies the rest, and closes the connections; a storage that cannot be written costs a warning."""
        try:
            self._copy()
        except sqlalchemy.exc.SQLAlchemyError as problem:
            warnings.warn(
                f"Storage {self._storage.engine.url} could not be written ({described(problem)}): it lacks the last "
                "trials. The selection has all of them.",
                stacklevel=2,
            )
        finally:
            self._storage.close()

    def _copy(self) -> None:
        trials = self._memory.get_trials(deepcopy=False)
        new = [one for one in trials[self._seen :] if one.state != TrialState.WAITING]  # those come last
        ended = [trials[number] for number in self._running if trials[number].state.is_finished()]
        if not new and not ended:
            return
        with self._storage.engine.begin() as connection:
            insert(connection, "trials", [{"study_id": self._study, **_trial_row(one)} for one in new])
            asked = sqlalchemy.text("SELECT number, trial_id FROM trials WHERE study_id = :study AND number >= :first")
            found = connection.execute(asked, {"study": self._study, "first": self._seen})
            ids = self._running | dict(map(tuple, found))
            for one in ended:
                for table in _ROWS:
                    connection.execute(sqlalchemy.delete(_table(table, "trial_id")).filter_by(trial_id=ids[one.number]))
                update = sqlalchemy.update(_table("trials", "trial_id", *_trial_row(one)))
                connection.execute(update.filter_by(trial_id=ids[one.number]).values(_trial_row(one)))
            for table, rows in _ROWS.items():
                insert(connection, table, [row for one in (*ended, *new) for row in rows(ids[one.number], one)])
        self._seen += len(new)
        self._running = {one.number: ids[one.number] for one in trials[: self._seen] if not one.state.is_finished()}


def insert(connection: sqlalchemy.Connection, table: str, rows: Sequence[Row]) -> None:
    """Adds rows to a table of Optuna's in one statement.

    Args:
        connection: in whose transaction.
        table: its name.
        rows: all of the same columns.
    """
    if rows:
        connection.execute(sqlalchemy.insert(_table(table, *rows[0])), list(rows))


def param_rows(
    trial_id: int, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> Iterator[Row]:
    """Yields the rows of a trial's parameters.

    Args:
        trial_id: in the storage.
        params: name → value.
        distributions: of each of them.
    """
    for name, value in params.items():
        yield {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(distributions[name]),
        }


def _table(name: str, *columns: str) -> sqlalchemy.TableClause:
    """Returns a table with some columns; of times it is said that they are, since SQLite keeps them as texts."""
    kinds = {"datetime_start": sqlalchemy.DateTime, "datetime_complete": sqlalchemy.DateTime}
    return sqlalchemy.table(name, *(sqlalchemy.column(column, kinds.get(column)) for column in columns))


def _trial_row(trial: FrozenTrial) -> Row:
    return {
        "number": trial.number,
        "state": trial.state.name,
        "datetime_start": trial.datetime_start,
        "datetime_complete": trial.datetime_complete,
    }


def _params(trial_id: int, trial: FrozenTrial) -> Iterator[Row]:
    return param_rows(trial_id, trial.params, trial.distributions)


def _attributes(trial_id: int, trial: FrozenTrial) -> Iterator[Row]:
    for key, value in trial.user_attrs.items():
        yield {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}


def _values(trial_id: int, trial: FrozenTrial) -> Iterator[Row]:
    for objective, value in enumerate(trial.values or ()):
        kept, kind = _number(value)
        yield {"trial_id": trial_id, "objective": objective, "value": kept, "value_type": kind}


def _reports(trial_id: int, trial: FrozenTrial) -> Iterator[Row]:
    for step, value in trial.intermediate_values.items():
        kept, kind = _number(value)
        yield {"trial_id": trial_id, "step": step, "intermediate_value": kept, "intermediate_value_type": kind}


def _number(value: float) -> tuple[float | None, str]:
    """Returns a number as Optuna keeps it: not every database has infinity."""
    if math.isfinite(value):
        return value, "FINITE"
    return None, "NAN" if math.isnan(value) else "INF_POS" if value > 0 else "INF_NEG"


_ROWS: dict[str, Callable[[int, FrozenTrial], Iterator[Row]]] = {
    "trial_params": _params,
    "trial_user_attributes": _attributes,
    "trial_values": _values,
    "trial_intermediate_values": _reports,
}
"""Optuna's tables of what a trial has, and its rows in each."""
