"""A limit on time that ends what runs, in any thread, and leaves other alarms as they were."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from autoinit.own.patience import TimeIsUp, within


def endless() -> None:
    while True:
        sum(range(100))


def test_it_ends_a_loop_and_a_sleep() -> None:
    for stuck in (endless, lambda: time.sleep(60)):
        started = time.monotonic()
        with pytest.raises(TimeIsUp), within(0.05):
            stuck()
        assert time.monotonic() - started < 5


def test_what_is_done_in_time_is_left_alone() -> None:
    with within(0.05):
        pass
    time.sleep(0.1)


def test_it_ends_a_loop_of_another_thread_and_no_other_one() -> None:
    ended: list[str] = []

    def work() -> None:
        try:
            with within(0.05):
                endless()
        except TimeIsUp:
            ended.append("in time")
        with within(10):
            ended.append("went on")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert ended == ["in time", "went on"]


def test_an_alarm_of_somebody_else_rings_all_the_same() -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with within(10):
            time.sleep(0.05)
        assert signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL
        time.sleep(0.4)
        assert rung == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
