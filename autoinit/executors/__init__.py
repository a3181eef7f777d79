"""Ways of running jobs: one after the other, in worker processes, or several at a time on one device."""

from __future__ import annotations

from .executor import Executor, OnRung
from .processes import Processes
from .sequential import Sequential
from .stacked import Stacked

__all__ = ["Executor", "OnRung", "Processes", "Sequential", "Stacked"]
