"""What every test starts from: one thread, the same seeds."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: two test processes share two cores

import random
import signal

import numpy as np
import pytest
import torch

torch.set_num_threads(1)

# What is started in the background inherits an ignored Ctrl-C; the tests that press it need Python's own handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same state of all global random generators, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
