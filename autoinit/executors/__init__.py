"""Ways of running jobs: one after the other, in worker processes, or several at a time on one device."""

from __future__ import annotations

from .executor import Executor, OnRung
from .processes import WORKER_DIED, Processes
from .sequential import Sequential
from .stacked import Stacked

__all__ = ["WORKER_DIED", "Executor", "OnRung", "Processes", "Sequential", "Stacked"]
