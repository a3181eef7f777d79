"""Where the time of a run goes: seconds by region, each moment counted once, for the innermost region."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Place = tuple[Any, str]
"""An object and the name of one of its functions: an attribute, or a key where the object is a dict."""


class Clock:
    """Seconds and calls by region. What the clock itself takes is counted apart, as `itself`.

    Attributes:
        seconds: spent in each region, without the regions inside it.
        calls: how often each was entered.
        itself: seconds that the counting took.
    """

    def __init__(self, outermost: str = "everything else", timer: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: defaultdict[str, int] = defaultdict(int)
        self.itself = 0.0
        self._timer = timer
        self._regions = [outermost]
        self._since = timer()

    def start(self) -> None:
        """Forgets what was counted, and starts anew in the outermost region."""
        self.seconds.clear()
        self.calls.clear()
        self.itself = 0.0
        self._since = self._timer()

    def stop(self) -> float:
        """Returns all seconds since the start, without those of the clock."""
        now = self._timer()
        self.seconds[self._regions[-1]] += now - self._since
        self._since = now
        return sum(self.seconds.values())

    def wrap(self, name: str, function: Callable[..., Any], within: str = "") -> Callable[..., Any]:
        """Returns a function whose calls are counted for a region.

        Args:
            name: of the region.
            function: to call.
            within: calls inside this region are counted for the region "`name` in `within`".
        """
        timer, regions, seconds = self._timer, self._regions, self.seconds

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            before = timer()
            seconds[regions[-1]] += before - self._since
            region = f"{name} in {within}" if within and within in regions else name
            regions.append(region)
            self.calls[region] += 1
            self._since = timer()
            self.itself += self._since - before
            try:
                return function(*args, **kwargs)
            finally:
                after = timer()
                seconds[regions.pop()] += after - self._since
                self._since = timer()
                self.itself += self._since - after

        return timed

    @contextmanager
    def watching(self, places: Sequence[tuple[str, Place]]) -> Iterator[None]:
        """Counts all calls of some functions inside the block, each for the region named before it."""
        kept = [(owner, name, _get(owner, name)) for _, (owner, name) in places]
        for (region, _), (owner, name, function) in zip(places, kept, strict=True):
            _set(owner, name, self.wrap(region, function))
        try:
            yield
        finally:
            for owner, name, function in kept:
                _set(owner, name, function)


def _get(owner: Any, name: str) -> Callable[..., Any]:
    return owner[name] if isinstance(owner, dict) else vars(owner)[name]


def _set(owner: Any, name: str, function: Callable[..., Any]) -> None:
    if isinstance(owner, dict):
        owner[name] = function
    else:
        setattr(owner, name, function)
