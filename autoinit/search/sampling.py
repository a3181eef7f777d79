"""What a search asks of Optuna: a study for its trials, its form of a dimension, silence. No torch is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ..errors import ArgumentError, described
from ..recipes.space import Dimension


def distribution_of(dimension: Dimension) -> BaseDistribution:
    """Returns Optuna's form of one dimension."""
    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    if isinstance(dimension.default, int):
        return IntDistribution(int(dimension.low), int(dimension.high))
    return FloatDistribution(dimension.low, dimension.high)


class Storage(optuna.storages.RDBStorage):
    """Optuna's storage in a database, which leaves no connection open: neither at its end nor where it fails to begin.

    Args:
        url: as Optuna takes it.
        options: whatever else Optuna takes.
    """

    def __init__(self, url: str, **options: Any) -> None:
        try:
            super().__init__(url, **options)
        except BaseException:
            if "engine" in vars(self):
                self.engine.dispose()
            raise

    def close(self) -> None:
        """Closes the connections of this thread, and those that wait for one."""
        self.remove_session()
        self.engine.dispose()


def new_study() -> optuna.Study:
    """Returns a new study in memory. Trials are halved by `Halving`, which can say why."""
    return optuna.create_study(pruner=optuna.pruners.NopPruner())


def stored_study(url: str, name: str | None) -> tuple[Storage, int]:
    """Returns a storage and the number of a new study in it; without a name Optuna makes one up.

    Raises:
        ArgumentError: the storage cannot be opened, or holds a study of that name already.
    """
    try:
        with contextlib.ExitStack() as opening:  # it is closed again where it takes no study
            storage = Storage(url)
            opening.callback(storage.close)
            number = optuna.create_study(storage=storage, study_name=name)._study_id
            opening.pop_all()
            return storage, number
    except optuna.exceptions.DuplicatedStudyError:
        raise ArgumentError(f"Storage {url!r} holds a study {name!r} already. Choose another study_name.") from None
    except Exception as problem:
        raise ArgumentError(
            f"Storage {url!r} cannot be opened ({described(problem)}). Give a URL such as sqlite:///trials.db."
        ) from None


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silences Optuna's per-study messages, and puts its level back."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
