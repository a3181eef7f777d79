"""How many cores this process may use."""

from __future__ import annotations

import joblib


def usable_cores() -> int:
    """Returns the cores that this process may use, by its affinity and by its container's share of time."""
    return int(joblib.cpu_count())
