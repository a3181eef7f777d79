"""The coordinator, with workers in this process: what is claimed, when it is written down, and what a death costs."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from study_models import mlp
from study_plans import TASK, plan
from torch import Tensor, nn

from autoinit.study import coordinator as coordinating
from autoinit.study.coordinator import TRIES, Coordinator, StudyProgress
from autoinit.study.jobs import dense_jobs
from autoinit.study.orders import Describe, Died, Ended, Layers, Order, Raised, Ready, Reply, RunTrials, carried_out
from autoinit.study.performer import Performer
from autoinit.study.spec import Study
from autoinit.study.storage import Store, open_store

TIMES = ("seconds", "finished", "attempts")
SMALL = plan(space={"recipes": ["he_normal", "xavier_uniform"], "random": 2}, seeds=[0, 1])


class Here:
    """Carries out orders in this process, one reply at a time: the slots take turns.

    Attributes:
        given: all orders, with their slot.
        asked_to_end: the reasons, by slot.
        before: called with slot and order before each reply; what it returns comes back in the reply's place.
    """

    def __init__(self, study: Study, slots: int = 1) -> None:
        self.slots = tuple(range(slots))
        self.given: list[tuple[int, Order]] = []
        self.before: Callable[[int, Order], Reply | None] = lambda slot, order: None
        self.closed = False
        self._performers = [Performer(study) for _ in self.slots]
        self._at: dict[int, tuple[Order, Iterator[Reply]]] = {}
        self.asked_to_end: dict[int, str] = {}
        self._ready: set[int] = set()

    def give(self, slot: int, order: Order) -> None:
        assert slot not in self._at, "the slot is free"
        assert not self.closed
        self.given.append((slot, order))
        self._at[slot] = (order, carried_out(self._performers[slot], order))

    def replies(self, timeout: float) -> Iterator[tuple[int, Reply]]:
        for slot, (order, found) in list(self._at.items()):
            if slot not in self._ready and slot not in self.asked_to_end:
                self._ready.add(slot)
                yield slot, Ready()
                continue
            reply = Died(self.asked_to_end.pop(slot)) if slot in self.asked_to_end else self.before(slot, order)
            reply = next(found) if reply is None else reply
            if isinstance(reply, Died):
                self._performers[slot].close()
                self._ready.discard(slot)
            if isinstance(reply, (Ended, Raised, Died)):
                del self._at[slot]
            yield slot, reply

    def end(self, slot: int, reason: str) -> None:
        self.asked_to_end[slot] = reason

    def close(self) -> None:
        self.closed = True
        self._at.clear()
        for performer in self._performers:
            performer.close()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Callable[[Study], Store]]:
    """Opens studies, each in a file of its own."""
    opened: list[Store] = []

    def store(study: Study) -> Store:
        opened.append(open_store(f"sqlite:///{tmp_path / f'{len(opened)}.db'}", study.name, create=True))
        return opened[-1]

    yield store
    for one in opened:
        one.close()


Stores = Callable[[Study], Store]


def finished(study: Study, store: Store, crew: Here, stop: Callable[[], str] = lambda: "") -> list[StudyProgress]:
    told: list[StudyProgress] = []
    Coordinator(study, store, crew, report=told.append, stop=stop).run()
    crew.close()
    return told


def records(store: Store) -> list[dict[str, Any]]:
    return [{name: line[name] for name in line if name not in TIMES} for line in store.lines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The records of `SMALL` as one worker leaves them that nothing happens to: what all others are compared with."""
    with contextlib.closing(
        open_store(f"sqlite:///{tmp_path_factory.mktemp('one')}/0.db", "small", create=True)
    ) as one:
        finished(SMALL, one, Here(SMALL))
        return records(one)


def waiting_only(store: Store) -> bool:
    return all(states["running"] == 0 for states in store.counts().values())


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_any_number_of_workers_gives_the_same_records(
    stores: Stores, undisturbed: list[dict[str, Any]], slots: int
) -> None:
    several = stores(SMALL)
    told = finished(SMALL, several, Here(SMALL, slots))
    assert len(undisturbed) == 10
    assert records(several) == undisturbed
    assert (told[-1].done, told[-1].total, told[-1].failed, told[-1].running) == (10, 10, 0, 0)


def test_workers_that_a_study_has_no_use_for_get_no_trial(stores: Stores) -> None:
    study = plan()
    crew = Here(study, 8)
    finished(study, stores(study), crew)
    runs = [slot for slot, order in crew.given if isinstance(order, RunTrials)]
    assert len(runs) == 3
    assert len(set(runs)) == 3
    assert sum(isinstance(order, Describe) for _, order in crew.given) == 1
    assert sum(isinstance(order, Layers) for _, order in crew.given) == 1


def test_worker_stays_at_its_task(stores: Stores) -> None:
    tasks = [{**TASK, "name": name} for name in ("a", "b")]
    study = plan(tasks=tasks)
    crew = Here(study, 2)
    finished(study, stores(study), crew)
    at = {slot: [order.task for given, order in crew.given if given == slot] for slot in crew.slots}
    for tasks_of_slot in at.values():
        changes = sum(one != other for one, other in itertools.pairwise(tasks_of_slot))
        assert changes <= 1, at


# Short trials are claimed ahead


def test_short_trials_are_claimed_ahead_one_for_each_worker(stores: Stores) -> None:
    store, crew = stores(SMALL), Here(SMALL, 2)
    running = []

    def look(slot: int, order: Order) -> None:
        if isinstance(order, RunTrials):
            running.append(store.counts()["mlp"]["running"])

    crew.before = look
    finished(SMALL, store, crew)
    assert running[0] <= 2, "nothing is known of how long they take"
    assert max(running) == 4, "two at work, two ahead; or two that ended, one at work, one ahead"


def test_long_trials_are_left_to_others(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinating, "SHORT", 0.0)
    store, crew = stores(SMALL), Here(SMALL, 2)
    running = []

    def look(slot: int, order: Order) -> None:
        running.append(store.counts()["mlp"]["running"])

    crew.before = look
    finished(SMALL, store, crew)
    assert max(running) <= 3  # at work, and one that has ended and is not written yet
    assert len(records(store)) == 10


def test_what_ended_is_written_while_the_workers_are_at_the_next(stores: Stores) -> None:
    """When a worker begins its next trial, the one before is not written; when it comes to its end, it is."""
    store, crew = stores(SMALL), Here(SMALL, 1)
    written = []

    def look(slot: int, order: Order) -> None:
        if isinstance(order, RunTrials):
            counts = store.counts()["mlp"]
            written.append((order.jobs[0].number, counts["complete"] + counts["fail"]))

    crew.before = look
    given = crew.give
    at_hand_over: list[tuple[int, int]] = []

    def give(slot: int, order: Order) -> None:
        if isinstance(order, RunTrials):
            at_hand_over.append((order.jobs[0].number, store.counts()["mlp"]["complete"]))
        given(slot, order)

    crew.give = give  # type: ignore[method-assign]
    finished(SMALL, store, crew)
    assert all(done == number for number, done in written)
    behind = [number - done for number, done in at_hand_over]
    assert behind == [0] + [1] * 9, "the worker did not wait for the storage"


@pytest.mark.parametrize("after", range(0, 24, 3))
def test_a_stop_releases_what_was_claimed_ahead(stores: Stores, undisturbed: list[dict[str, Any]], after: int) -> None:
    store, crew = stores(SMALL), Here(SMALL, 2)
    replies = itertools.count()
    seen = [0]

    def count(slot: int, order: Order) -> None:
        seen[0] = next(replies)

    crew.before = count
    told = finished(SMALL, store, crew, stop=lambda: "enough" if seen[0] >= after else "")
    assert crew.closed
    counts = store.counts()["mlp"]
    assert counts["running"] == 0
    assert counts["complete"] == told[-1].done == len(records(store))
    ended = [line["seed"] for line in store.lines()]
    claims = store.claim("mlp", 99)
    assert all(claimed.attempts == 1 for claimed in claims), "they were never begun"
    for claimed in claims:
        store.release(claimed)
    finished(SMALL, store, Here(SMALL, 2))
    assert records(store) == undisturbed
    assert len(ended) <= 10


def test_workers_that_do_not_end_in_time_are_cut_off_and_lose_nothing(
    stores: Stores, undisturbed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinating, "GRACE", 0.0)
    store, crew = stores(SMALL), Here(SMALL, 2)
    begun = [0]

    def count(slot: int, order: Order) -> None:
        begun[0] += isinstance(order, RunTrials)

    crew.before = count
    finished(SMALL, store, crew, stop=lambda: "enough" if begun[0] > 6 else "")
    assert waiting_only(store)
    assert 0 < len(records(store)) < 10
    finished(SMALL, store, Here(SMALL))
    assert records(store) == undisturbed


# Deaths


@pytest.mark.parametrize("victim", range(10))
def test_a_death_costs_its_own_trial_an_attempt_and_the_others_nothing(
    stores: Stores, undisturbed: list[dict[str, Any]], victim: int
) -> None:
    store, crew = stores(SMALL), Here(SMALL, 2)
    deaths = [Died("the worker process was ended by SIGKILL")]

    def kill(slot: int, order: Order) -> Reply | None:
        return deaths.pop() if deaths and isinstance(order, RunTrials) and order.jobs[0].number == victim else None

    crew.before = kill
    told = finished(SMALL, store, crew)
    assert records(store) == undisturbed
    assert [line["attempts"] for line in store.lines()] == [1 + (number == victim) for number in range(10)]
    assert any(f"trial {victim}: the worker process was ended by SIGKILL" in progress.news for progress in told)


def test_a_trial_that_kills_every_worker_fails_with_its_reason(stores: Stores) -> None:
    store, crew = stores(SMALL), Here(SMALL, 2)

    def kill(slot: int, order: Order) -> Reply | None:
        deadly = isinstance(order, RunTrials) and order.jobs[0].number == 4
        return Died("the worker process ended with code 9") if deadly else None

    crew.before = kill
    told = finished(SMALL, store, crew)
    lines = list(store.lines())
    assert [line["state"] for line in lines] == ["complete"] * 4 + ["failed"] + ["complete"] * 5
    assert (lines[4]["attempts"], lines[4]["reason"]) == (TRIES, "the worker process ended with code 9")
    assert (told[-1].done, told[-1].failed) == (10, 1)


STACKED = plan(space={"recipes": ["he_normal", "xavier_uniform"], "random": 2}, stack=3, seeds=[0, 1])


def test_after_a_death_in_a_stack_each_of_it_is_tried_alone(stores: Stores) -> None:
    store, crew = stores(STACKED), Here(STACKED, 2)
    deaths = [Died("gone")]

    def kill(slot: int, order: Order) -> Reply | None:
        return deaths.pop() if deaths and isinstance(order, RunTrials) else None

    crew.before = kill
    finished(STACKED, store, crew)
    assert len(records(store)) == 10
    assert [line["attempts"] for line in store.lines()][:4] == [2, 2, 2, 1]
    assert {line["state"] for line in store.lines()} == {"complete"}
    stacks = [[job.number for job in order.jobs] for _, order in crew.given if isinstance(order, RunTrials)]
    assert stacks[0] == [0, 1, 2]
    assert [stack for stack in stacks[1:] if stack[0] < 3] == [[0], [1], [2]]
    assert [3, 4] in stacks, "a stack is of one seed"
    assert [5, 6, 7] in stacks


def test_a_deadly_trial_in_a_stack_takes_no_other_one_with_it(stores: Stores) -> None:
    store, crew = stores(STACKED), Here(STACKED, 2)

    def kill(slot: int, order: Order) -> Reply | None:
        return Died("gone") if isinstance(order, RunTrials) and 1 in [job.number for job in order.jobs] else None

    crew.before = kill
    finished(STACKED, store, crew)
    assert [line["state"] for line in store.lines()] == ["complete", "failed", *["complete"] * 8]
    assert [line["attempts"] for line in store.lines()] == [2, 2, 2, *[1] * 7]


def test_trials_of_one_order_are_written_as_they_end(stores: Stores) -> None:
    store, crew = stores(STACKED), Here(STACKED)
    written: list[int] = []

    def look(slot: int, order: Order) -> None:
        if isinstance(order, RunTrials) and order.jobs[0].number == 0:
            written.append(store.counts()["mlp"]["complete"])

    crew.before = look
    finished(STACKED, store, crew)
    assert written == [0, 1, 2, 2], "the last one when the worker is at its next order"
    assert len(records(store)) == 10


def test_a_task_whose_workers_die_while_they_build_it_fails_alone(stores: Stores) -> None:
    study = plan(tasks=[{**TASK, "name": "large"}, TASK])
    store, crew = stores(study), Here(study, 2)

    def kill(slot: int, order: Order) -> Reply | None:
        return Died("out of memory") if order.task == "large" else None

    crew.before = kill
    told = finished(study, store, crew)
    assert [order.task for _, order in crew.given].count("large") == TRIES
    assert "out of memory, 2 times" in store.task_info("large")["error"]
    assert {line["task"] for line in store.lines()} == {"mlp"}
    assert any("large failed as a whole: out of memory" in progress.news for progress in told)
    again = Here(study)
    finished(study, store, again)
    assert {line["task"] for line in store.lines()} == {"mlp", "large"}
    assert store.task_info("large")["error"] is None


def test_a_hung_worker_is_ended_and_its_trial_tried_again(stores: Stores) -> None:
    study = plan(timeout="0.2s")
    store, crew = stores(study), Here(study)
    original, silent = crew.replies, [True]

    def replies(timeout: float) -> Iterator[tuple[int, Reply]]:
        if silent and isinstance(crew.given[-1][1], RunTrials):
            if not crew.asked_to_end:
                time.sleep(0.05)  # nothing comes back
                return
            silent.clear()
        yield from original(timeout)

    crew.replies = replies  # type: ignore[method-assign]
    told = finished(study, store, crew)
    assert len(records(store)) == 3
    assert [line["attempts"] for line in store.lines()] == [2, 1, 1]
    assert any("nothing was heard of it for 0.2 s" in progress.news for progress in told)


def slow_to_start(crew: Here, seconds: float) -> list[str]:
    """Has nothing come back of the workers for so long, as while they load torch; returns why any was ended."""
    replies, end, begun = crew.replies, crew.end, time.monotonic()
    ended: list[str] = []

    def silent(timeout: float) -> Iterator[tuple[int, Reply]]:
        if ended or time.monotonic() > begun + seconds:
            yield from replies(timeout)
        else:
            time.sleep(0.05)

    def noted(slot: int, reason: str) -> None:
        ended.append(reason)
        end(slot, reason)

    crew.replies, crew.end = silent, noted  # type: ignore[method-assign]
    return ended


def test_what_a_worker_takes_to_start_is_no_trials_time(stores: Stores) -> None:
    study = plan(timeout="0.2s")
    store, crew = stores(study), Here(study)
    ended = slow_to_start(crew, 1.0)
    finished(study, store, crew)
    assert [line["attempts"] for line in store.lines()] == [1, 1, 1]
    assert not ended


def test_a_worker_that_never_starts_is_ended_all_the_same(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinating, "START", 0.3)
    study = plan(timeout="0.2s")
    store, crew = stores(study), Here(study)
    ended = slow_to_start(crew, 3600.0)
    finished(study, store, crew)
    assert ended == ["nothing was heard of it for 0.5 s: the worker was ended"]
    assert len(records(store)) == 3


# Memory that runs out, and what comes after the probes

_FAILURES: list[str] = []


class Greedy(nn.Module):
    """Has too little memory as often as `_FAILURES` says, where its weights are those of the last recipe."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: Tensor) -> Tensor:
        if _FAILURES and self.inner[2].weight.std() > 0.2:  # type: ignore[index,union-attr,operator]
            raise MemoryError(_FAILURES.pop())
        return self.inner(x)  # type: ignore[no-any-return]


GREEDY = plan(
    tasks=[{**TASK, "model": "test_coordinator:Greedy"}],
    space={"recipes": ["zeros", "he_normal"]},
    long={"steps": 8, "top": 1},
)


@pytest.mark.parametrize("slots", [1, 2])
def test_long_trainings_wait_for_a_last_probe_that_is_tried_again(stores: Stores, slots: int) -> None:
    store, whole = stores(GREEDY), stores(GREEDY)
    finished(GREEDY, whole, Here(GREEDY))
    _FAILURES.append("too little")
    told = finished(GREEDY, store, Here(GREEDY, slots))
    assert not _FAILURES
    assert any("too little; it is tried once more" in progress.news for progress in told)
    assert [line["stage"] for line in records(whole)] == ["probe"] * 3 + ["long"] * 2
    assert records(whole)[-1]["recipe"] == "he_normal", "the last probe is the best"
    assert records(store) == records(whole)


def test_trials_that_another_coordinator_runs_are_waited_for(stores: Stores) -> None:
    """Leaders are those of all probes: while one runs elsewhere, no long training is planned."""
    store, whole = stores(GREEDY), stores(GREEDY)
    finished(GREEDY, whole, Here(GREEDY))
    described = Performer(GREEDY).describe("mlp")
    store.add_task("mlp", {})
    store.set_task_info("mlp", "described", described.to_data())
    store.extend("mlp", [job.to_data() for job in dense_jobs(GREEDY, "mlp", described)])
    (elsewhere,) = store.claim("mlp", 1)
    begun = time.monotonic()
    finished(GREEDY, store, Here(GREEDY), stop=lambda: "enough" if time.monotonic() - begun > 2 else "")
    assert [line["stage"] for line in store.lines()] == ["probe"] * 2
    assert store.counts()["mlp"] == {"complete": 2, "running": 1, "waiting": 0, "fail": 0}
    store.release(elsewhere)
    finished(GREEDY, store, Here(GREEDY))
    assert records(store) == records(whole)


def test_search_is_the_same_with_any_number_of_workers_and_after_a_stop(stores: Stores) -> None:
    study = plan(mode="search", trials=30, batch=5, space={"recipes": []}, probe={"steps": 2})
    one, several = stores(study), stores(study)
    finished(study, one, Here(study))
    for enough in (7, 18):
        finished(study, several, Here(study, 3), lambda: "enough" if len(list(several.lines())) >= enough else "")  # noqa: B023
    finished(study, several, Here(study, 2))
    assert len(records(one)) == 30
    assert records(several) == records(one)


def test_time_that_is_left_is_told_and_never_negative(stores: Stores) -> None:
    told = finished(SMALL, stores(SMALL), Here(SMALL, 2))
    assert told[0].left is None
    assert told[0].unbuilt == 1
    assert told[-1].unbuilt == 0
    assert told[-1].left == 0
    assert all(progress.left is None or progress.left >= 0 for progress in told)
    assert [progress.done for progress in told] == sorted(progress.done for progress in told)
    assert all(progress.total >= progress.done for progress in told)


def test_finished_study_gives_no_order(stores: Stores) -> None:
    store = stores(SMALL)
    finished(SMALL, store, Here(SMALL))
    before = list(store.lines())
    crew = Here(SMALL)
    told = finished(SMALL, store, crew)
    assert crew.given == []
    assert list(store.lines()) == before
    assert (told[-1].done, told[-1].total) == (10, 10)


def test_random_states_of_the_test_are_as_before(stores: Stores) -> None:
    before = torch.random.get_rng_state()
    finished(SMALL, stores(SMALL), Here(SMALL))
    assert torch.equal(torch.random.get_rng_state(), before)
