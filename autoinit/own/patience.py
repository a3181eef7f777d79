"""A limit on the time that somebody else's code may take, which ends it where it stands."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any


class TimeIsUp(BaseException):
    """The time of a block is over. It is no Exception, so that a loop which goes on after every error ends, too."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises `TimeIsUp` inside the block where it takes longer.

    In the main thread a signal does it, which also ends waiting for a socket or a sleep. In others an exception is set
    for the thread, which arrives with the next line of Python. Code in C that never comes back is out of reach of both.

    Args:
        seconds: of wall time, more than 0.
    """
    if threading.current_thread() is threading.main_thread() and "setitimer" in dir(signal):
        with _alarm(seconds):
            yield
    else:
        with _set_from_outside(seconds):
            yield


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def late(number: int, frame: Any) -> None:
        raise TimeIsUp

    handler = signal.signal(signal.SIGALRM, late)
    waiting, every = signal.setitimer(signal.ITIMER_REAL, seconds)
    started = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if waiting:  # somebody else's alarm, such as a test's time limit: it rings when it would have
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, waiting - (time.monotonic() - started)), every)


@contextlib.contextmanager
def _set_from_outside(seconds: float) -> Iterator[None]:
    thread, lock, over = ctypes.c_ulong(threading.get_ident()), threading.Lock(), False

    def late() -> None:
        with lock:
            if not over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(TimeIsUp))

    timer = threading.Timer(seconds, late)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            over = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)
