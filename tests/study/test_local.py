"""Worker processes of this machine: given orders, heard, killed and buried."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import alive
from study_plans import TASK, plan

from autoinit.errors import ArgumentError
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.study.jobs import Described, StudyJob, dense_jobs
from autoinit.study.local import Local, gpus
from autoinit.study.orders import Describe, Died, Ended, Layers, Order, Raised, Ready, Reply, RunTrials
from autoinit.study.performer import Performer
from autoinit.task.machine import usable_cores

HERE = Path(__file__).parent
TASKS = [
    TASK,
    {**TASK, "name": "gone", "model": "study_models:broken"},
    {**TASK, "name": "hanging", "model": "study_models:Hanging"},
]
STUDY = plan(tasks=TASKS)


@pytest.fixture(scope="module")
def crew() -> Iterator[Local]:
    """Two workers, started once for all tests; those that a test kills are started anew."""
    made = Local(STUDY, [HERE], 2)
    yield made
    pids = made.pids()
    made.close()
    assert not any(map(alive, pids))


def heard(crew: Local, slot: int, seconds: float = 60) -> list[Reply]:
    """Returns what comes back from a slot until its order has ended, but for a new worker's word that it is there."""
    found: list[Reply] = []
    deadline = time.monotonic() + 5 * seconds
    while time.monotonic() < deadline:
        for place, reply in crew.replies(0.5):
            assert place == slot, "the other one has no order"
            deadline = time.monotonic() + seconds  # a new worker starts in its own time: loading torch may take longer
            if not isinstance(reply, Ready):
                found.append(reply)
            if isinstance(reply, (Ended, Raised, Died)):
                return found
    pytest.fail(f"the order did not end; so far {found}")


def carried_out(crew: Local, slot: int, order: Order) -> list[Reply]:
    crew.give(slot, order)
    return heard(crew, slot)


def hangs() -> RunTrials:
    """An order that never ends, and whose end nobody waits for."""
    described = Described("f", {}, (), Performer(plan()).describe("mlp").space, lr=0.05)
    return RunTrials("hanging", (StudyJob("hanging", 0, "probe", Recipe(base="orthogonal"), 0, 0, 4),), described)


def test_processes_are_started_with_the_first_order_and_all_at_once() -> None:
    crew = Local(STUDY, [HERE], 2)
    try:
        assert crew.slots == (0, 1)
        assert crew.pids() == []
        assert list(crew.replies(0)) == []
        crew.give(1, Describe("mlp"))
        assert len(set(crew.pids())) == 2
        assert os.getpid() not in crew.pids()
    finally:
        crew.close()
    assert crew.pids() == []


def test_a_new_worker_says_that_it_is_there_before_anything_else_and_once() -> None:
    crew = Local(STUDY, [HERE], 1)
    try:
        for replies in ([Ready, Described, Ended], [Described, Ended]):
            crew.give(0, Describe("mlp"))
            found: list[Reply] = []
            while not (found and isinstance(found[-1], Ended)):
                found += [reply for _, reply in crew.replies(60)]
            assert [type(reply) for reply in found] == replies
    finally:
        crew.close()


def test_orders_give_what_the_performer_gives(crew: Local) -> None:
    performer = Performer(STUDY, [HERE])
    described = performer.describe("mlp")
    told, end = carried_out(crew, 0, Describe("mlp"))
    assert (told, end) == (described, Ended())
    jobs = tuple(dense_jobs(STUDY, "mlp", described))
    *lines, end = carried_out(crew, 1, RunTrials("mlp", jobs, described))
    assert isinstance(end, Ended)
    times = ("seconds", "finished", "threads")
    expected = [{name: one[name] for name in one if name not in times} for one in performer.run(jobs, described)]
    assert [
        {name: one[name] for name in one if name not in times} for one in lines if isinstance(one, dict)
    ] == expected
    assert len(lines) == 3
    recipes = (OWN, Recipe(base="he_normal"))
    assert carried_out(crew, 1, Layers("mlp", recipes)) == [*(performer.layers("mlp", r) for r in recipes), Ended()]
    performer.close()


def test_worker_that_raises_goes_on_with_its_next_order(crew: Local) -> None:
    carried_out(crew, 0, Describe("mlp"))
    before = crew.pids()
    (raised,) = carried_out(crew, 0, Describe("gone"))
    assert isinstance(raised, Raised)
    assert "weights.bin is not here" in raised.reason
    assert "Traceback" in raised.trace
    assert isinstance(carried_out(crew, 0, Describe("mlp"))[0], Described)
    assert crew.pids() == before


def test_killed_worker_is_told_of_and_replaced(crew: Local) -> None:
    carried_out(crew, 0, Describe("mlp"))
    dead = crew.pids()[0]
    crew.give(0, hangs())
    os.kill(dead, signal.SIGKILL)
    reason = "the worker process was ended by SIGKILL, as one is that needs more memory than there is"
    assert heard(crew, 0) == [Died(reason)]
    assert isinstance(carried_out(crew, 0, Describe("mlp"))[-1], Ended)
    assert dead not in crew.pids()


def test_worker_that_dies_while_it_is_idle_is_found_by_its_next_order(crew: Local) -> None:
    carried_out(crew, 1, Describe("mlp"))
    dead = crew.pids()[-1]
    os.kill(dead, signal.SIGUSR1)
    deadline = time.monotonic() + 30
    while alive(dead) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert carried_out(crew, 1, Describe("mlp")) == [Died("the worker process was ended by SIGUSR1")]
    assert isinstance(carried_out(crew, 1, Describe("mlp"))[-1], Ended)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_worker_leaves_signals_to_its_coordinator(crew: Local, number: signal.Signals) -> None:
    carried_out(crew, 0, Describe("mlp"))
    pid = crew.pids()[0]
    assert os.getpgid(pid) != os.getpgid(0), "Ctrl-C on a terminal does not reach it"
    os.kill(pid, number)
    assert isinstance(carried_out(crew, 0, Describe("mlp"))[-1], Ended)
    assert crew.pids()[0] == pid


def test_hung_worker_is_ended_with_the_reason_that_was_given(crew: Local) -> None:
    carried_out(crew, 0, Describe("hanging"))
    crew.give(0, hangs())
    assert list(crew.replies(0.5)) == [], "it hangs"
    crew.end(0, "nothing was heard of it")
    assert heard(crew, 0) == [Died("nothing was heard of it")]
    assert isinstance(carried_out(crew, 0, Describe("mlp"))[-1], Ended)


def test_close_ends_a_worker_that_is_at_something(crew: Local) -> None:
    other = Local(STUDY, [HERE], 1)
    carried_out(other, 0, Describe("hanging"))
    other.give(0, hangs())
    (pid,) = other.pids()
    started = time.monotonic()
    other.close()
    assert time.monotonic() - started < 5
    assert not alive(pid)
    other.close()  # twice does no harm
    assert other.pids() == []


@pytest.mark.parametrize("workers", [0, -2])
def test_no_workers_are_refused(workers: int) -> None:
    with pytest.raises(ArgumentError, match=f"{workers} workers cannot run anything"):
        Local(STUDY, [], workers)


def test_workers_are_as_many_as_the_machine_takes() -> None:
    if torch.cuda.is_available():
        pytest.skip("one for each GPU")
    assert len(Local(plan(threads=1)).slots) == usable_cores() <= len(os.sched_getaffinity(0))
    assert len(Local(plan(threads=10_000)).slots) == 1
    assert len(Local(plan(), workers=7).slots) == 7


def test_without_cuda_there_are_no_gpus_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    assert gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert gpus() == []
