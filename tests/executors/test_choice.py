from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import autoinit
from autoinit.cli.main import select_command
from autoinit.errors import ArgumentError
from autoinit.executors.captured import Captured
from autoinit.executors.captured_stack import CapturedStack
from autoinit.executors.choice import check_executor, choose, fastest_threads
from autoinit.executors.processes import Processes
from autoinit.executors.sequential import Sequential
from autoinit.executors.stacked import Stacked
from autoinit.judging.budget import Budget
from autoinit.probing.bench import Bench
from autoinit.task.machine import using_threads
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)
PACES = {"sequential": 100.0, "processes": 100.0, "stacked": 100.0, "captured": 100.0, "both": 100.0}


def small_mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))


@pytest.fixture
def bench() -> Iterator[Bench]:
    task = make_task(small_mlp(), DATA, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    graph = trace_task(task)
    with task.preserved() as snapshot:
        yield Bench(task, graph, snapshot, seed=0)


@pytest.fixture
def paces(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What each executor is measured to do."""
    found = dict(PACES)
    for kind in (Sequential, Processes, Stacked, Captured):
        monkeypatch.setattr(kind, "pace", lambda self, steps: found[self.name])
    monkeypatch.setattr(CapturedStack, "pace", lambda self, steps: found["both"])
    monkeypatch.setattr("autoinit.executors.choice.usable_cores", lambda: 2)
    return found


@pytest.mark.parametrize(("pace", "name"), [(100.0, "sequential"), (109.0, "sequential"), (160.0, "processes")])
def test_another_way_is_chosen_where_it_was_measured_to_be_worth_it(
    bench: Bench, paces: dict[str, float], pace: float, name: str
) -> None:
    paces["processes"] = pace
    with using_threads(1):
        choice = choose(bench)
    choice.executor.close()
    assert choice.executor.name == name
    assert choice.pace == paces[name]
    assert choice.why.endswith(
        f"measured in steps/s: one job after the other on 1 thread 100, 2 processes {pace:.3g}, 8 stacked 100"
    )


@pytest.mark.parametrize(
    ("asked", "repeatable", "count"), [(None, False, 11), (None, True, 8), (9, False, 9), (9, True, 8)]
)
def test_a_repeatable_search_has_no_more_workers_than_a_batch_has_jobs(
    bench: Bench, paces: dict[str, float], monkeypatch: pytest.MonkeyPatch, asked: int, repeatable: bool, count: int
) -> None:
    paces["processes"] = 1000.0
    monkeypatch.setattr("autoinit.executors.choice.usable_cores", lambda: 11)
    for executor in (None, "processes"):
        choice = choose(bench, executor=executor, concurrency=asked, repeatable=repeatable)
        choice.executor.close()
        assert (choice.executor.name, choice.executor.concurrency) == ("processes", count)


@pytest.mark.parametrize("executor", [None, "processes"])
def test_there_are_no_more_workers_than_memory_holds(
    bench: Bench, paces: dict[str, float], monkeypatch: pytest.MonkeyPatch, executor: str | None
) -> None:
    paces["processes"] = 1000.0
    monkeypatch.setattr("autoinit.executors.choice.usable_cores", lambda: 6)
    monkeypatch.setattr("autoinit.executors.choice._workers_that_fit", lambda bench: 3)
    choice = choose(bench, executor=executor)
    choice.executor.close()
    assert choice.executor.concurrency == 3


def test_stacks_are_no_choice_for_a_repeatable_search(bench: Bench, paces: dict[str, float]) -> None:
    paces["stacked"] = 500.0
    assert choose(bench).executor.name == "stacked"
    assert choose(bench, repeatable=True).executor.name == "sequential"
    assert choose(bench, concurrency=3).executor.concurrency == 3


@pytest.mark.parametrize(("fast", "threads"), [(1, 1), (2, 2)])
def test_the_faster_number_of_threads_is_used(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fast: int, threads: int
) -> None:
    def pace(bench: Bench, steps: int) -> float:
        return 100.0 if torch.get_num_threads() == fast else 50.0

    monkeypatch.setattr("autoinit.executors.choice.steps_per_second", pace)
    with using_threads(2):
        assert fastest_threads(bench)[:2] == (threads, 100.0)
        assert torch.get_num_threads() == 2


def test_a_large_model_is_not_timed_on_one_thread(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoinit.executors.choice.SMALL", 100)
    monkeypatch.setattr("autoinit.executors.choice.steps_per_second", lambda bench, steps: 1 / torch.get_num_threads())
    with using_threads(2):
        assert fastest_threads(bench)[0] == 2


def test_what_is_asked_for_is_used(bench: Bench) -> None:
    assert choose(bench, executor="sequential").executor.name == "sequential"
    assert choose(bench, concurrency=1).executor.name == "sequential"
    choice = choose(bench, executor="processes", concurrency=3)
    assert (choice.executor.name, choice.executor.concurrency, choice.threads) == ("processes", 3, 1)
    choice.executor.close()


@pytest.mark.parametrize(
    ("steps", "said"),
    [(199, "too small to measure"), (200, "32 stacked and replayed"), (1500, "32 stacked and replayed")],
)
def test_on_a_device_ways_are_measured_sooner(stackable: Bench, paces: dict[str, float], steps: int, said: str) -> None:
    """There a stack of any size takes the time of one candidate, and more is gained."""
    assert said in choose(stackable, affordable_steps=steps).why


def test_nothing_is_measured_where_that_would_cost_too_much(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Sequential, "pace")
    assert "too small to measure" in choose(bench, affordable_steps=400).why


def test_what_cannot_run_here_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoinit.executors.processes.why_not", lambda bench: "no forks today")
    with pytest.raises(ArgumentError, match="'processes', which cannot run here: no forks today"):
        choose(bench, executor="processes")


@pytest.mark.parametrize("concurrency", [None, 1])
def test_a_captured_step_needs_a_cuda_device(bench: Bench, concurrency: int | None) -> None:
    with pytest.raises(ArgumentError, match="'captured', which cannot run here: CUDA graphs need a CUDA device"):
        choose(bench, executor="captured", concurrency=concurrency)


@pytest.fixture
def capturable(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench that says it is of a CUDA device, which records whatever it is given."""
    monkeypatch.setattr("autoinit.executors.captured.why_not", lambda bench: "")
    monkeypatch.setattr("autoinit.executors.choice.candidates_that_fit", lambda bench: (2, ""))
    monkeypatch.setattr(bench.task, "device", torch.device("cuda"))
    return bench


NO_STACK = 600
"""Affordable steps; what fits two candidates has no room for a stack of any size."""


def test_replays_are_measured_on_a_cuda_device(capturable: Bench, paces: dict[str, float]) -> None:
    paces["captured"] = 500.0
    choice = choose(capturable, affordable_steps=NO_STACK)
    assert choice.executor.name == "captured"
    assert "one replayed step after the other 500" in choice.why
    assert choose(capturable, executor="captured").why == "one replayed step after the other, as asked for"
    paces["captured"] = 109.0
    assert choose(capturable, affordable_steps=NO_STACK).executor.name == "sequential"


def test_replays_are_no_choice_for_a_repeatable_search(capturable: Bench, paces: dict[str, float]) -> None:
    paces["captured"] = 500.0
    assert "replayed" not in choose(capturable, repeatable=True, affordable_steps=NO_STACK).why


def test_no_step_is_recorded_that_has_no_room_beside_a_plain_one(
    capturable: Bench, paces: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoinit.executors.choice.candidates_that_fit", lambda bench: (1, "one needs 9 GiB"))
    paces["captured"] = 500.0
    choice = choose(capturable, affordable_steps=NO_STACK)
    assert choice.executor.name == "sequential"
    assert "; not captured: a recorded step has no room beside a plain one (one needs 9 GiB)" in choice.why


def test_why_steps_are_not_replayed_is_told(
    capturable: Bench, paces: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoinit.executors.captured.why_not", lambda bench: "Own has no capturable form")
    choice = choose(capturable, affordable_steps=NO_STACK)
    assert choice.executor.name == "sequential"
    assert "; not captured: Own has no capturable form" in choice.why


def test_a_large_model_is_not_captured(
    capturable: Bench, paces: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoinit.executors.choice.LAUNCH_BOUND", 100)
    monkeypatch.delattr("autoinit.executors.captured.why_not")
    why = choose(capturable, affordable_steps=NO_STACK).why
    assert "; not captured: with 3,466 parameters, starting kernels takes no share of a step; not stacked: " in why


@pytest.fixture
def stackable(capturable: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Likewise, with room for stacks, which can be recorded too."""
    monkeypatch.setattr("autoinit.executors.stacked.why_not", lambda bench: "")
    monkeypatch.setattr("autoinit.executors.captured_stack.why_not", lambda bench: "")
    monkeypatch.setattr("autoinit.executors.choice.candidates_that_fit", lambda bench: (96, "one needs 1 GiB"))
    return capturable


@pytest.mark.parametrize(
    ("stacked", "captured", "both", "kind"),
    [
        (950.0, 500.0, 900.0, CapturedStack),
        (900.0, 500.0, 400.0, Captured),
        (400.0, 900.0, 500.0, Captured),
        (105.0, 105.0, 109.0, Sequential),
    ],
)
def test_a_stack_that_can_be_replayed_is_measured_so_and_not_plain(
    stackable: Bench, paces: dict[str, float], stacked: float, captured: float, both: float, kind: type
) -> None:
    paces.update(stacked=stacked, captured=captured, both=both)
    choice = choose(stackable)
    assert type(choice.executor) is kind
    assert f"after the other {captured:.3g}, 32 stacked and replayed {both:.3g}" in choice.why
    assert "32 stacked 9" not in choice.why
    assert "8 stacked" not in choice.why
    assert "captured:" not in choice.why


@pytest.mark.parametrize(("most", "sizes"), [(96, [32]), (95, [8]), (24, [8]), (23, [])])
def test_no_stack_is_recorded_that_has_no_room_for_what_it_keeps(
    stackable: Bench, paces: dict[str, float], monkeypatch: pytest.MonkeyPatch, most: int, sizes: list[int]
) -> None:
    monkeypatch.setattr("autoinit.executors.choice.candidates_that_fit", lambda bench: (most, "one needs 1 GiB"))
    why = choose(stackable).why
    assert [size for size in (32, 8) if f"{size} stacked and replayed" in why] == sizes
    largest = 32 if most >= 32 else 8
    assert [size for size in (32, 8) if f"{size} stacked 100" in why] == [
        size for size in [largest] if size not in sizes
    ]
    said = "; no stack captured: the recorded step of 8 stacked has no room (one needs 1 GiB)"
    assert (said in why) == (not sizes)
    asked = choose(stackable, executor="stacked")
    assert type(asked.executor) is (CapturedStack if sizes else Stacked)
    assert (said in asked.why) == (not sizes)


def test_a_stack_that_is_asked_for_is_captured_where_it_can_be(
    stackable: Bench, paces: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = choose(stackable, executor="stacked", concurrency=5)
    assert (type(choice.executor), choice.executor.name, choice.executor.concurrency) == (CapturedStack, "stacked", 5)
    assert choice.why == "5 stacked and replayed, as asked for"
    monkeypatch.setattr("autoinit.executors.captured_stack.why_not", lambda bench: "its step draws on the host")
    choice = choose(stackable, executor="stacked", concurrency=5)
    assert type(choice.executor) is Stacked
    assert choice.why == "5 stacked, as asked for; no stack captured: its step draws on the host"
    assert type(choose(stackable, executor="captured").executor) is Captured


def test_why_no_stack_is_captured_is_told_once(
    stackable: Bench, paces: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("captured", "captured_stack"):
        monkeypatch.setattr(f"autoinit.executors.{module}.why_not", lambda bench: "Own has no capturable form")
    assert choose(stackable).why.endswith("32 stacked 100; not captured: Own has no capturable form")
    monkeypatch.setattr("autoinit.executors.captured_stack.why_not", lambda bench: "its losses differ")
    assert choose(stackable).why.endswith(
        "; not captured: Own has no capturable form; no stack captured: its losses differ"
    )


def test_no_stack_of_a_large_model_is_tried_unasked(
    stackable: Bench, paces: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device it takes the memory of its candidates, and starting kernels takes no share of a step."""
    monkeypatch.setattr("autoinit.executors.choice.LAUNCH_BOUND", 100)
    why = choose(stackable).why
    assert "; not stacked: with 3,466 parameters, starting kernels takes no share of a step" in why
    assert "8 stacked" not in why


def test_no_stack_of_a_large_model_is_captured(
    stackable: Bench, paces: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoinit.executors.choice.LAUNCH_BOUND", 100)
    monkeypatch.delattr("autoinit.executors.captured_stack.why_not")
    why = choose(stackable, executor="stacked").why
    assert why.endswith("; no stack captured: with 3,466 parameters, starting kernels takes no share of a step")
    assert "replayed" not in choose(stackable).why


def test_captured_stacks_are_no_choice_for_a_repeatable_search(stackable: Bench, paces: dict[str, float]) -> None:
    assert "replayed" not in choose(stackable, repeatable=True).why


def test_why_there_are_no_workers_is_told_where_they_could_help(
    bench: Bench, paces: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine with an accelerator, of a model on its CPU."""
    assert "no worker processes" not in choose(bench).why
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    choice = choose(bench)
    assert choice.executor.name == "sequential"
    assert "; no worker processes: autograd keeps threads for this machine's accelerator" in choice.why
    assert "CUDA_VISIBLE_DEVICES" in choice.why
    monkeypatch.setattr("autoinit.executors.choice.usable_cores", lambda: 1)
    assert "no worker processes" not in choose(bench).why


@pytest.mark.parametrize(
    ("executor", "concurrency", "message"),
    [
        ("threads", None, "executor is 'threads'. Allowed: sequential, processes, stacked, captured, or None"),
        (None, 0, "concurrency is 0. Allowed: a whole number from 1"),
        (None, True, "concurrency is True"),
        (None, 2.0, "concurrency is 2.0"),
        ("sequential", 2, "the sequential executor runs one job at a time"),
        ("captured", 2, "the captured executor runs one job at a time"),
    ],
)
def test_what_is_not_understood_is_refused(executor: str | None, concurrency: int | None, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        check_executor(executor, concurrency)


def test_measuring_leaves_the_model_as_it_was(bench: Bench) -> None:
    before = [p.clone() for p in bench.task.model.parameters()]
    choice = choose(bench)
    choice.executor.close()
    for now, then in zip(bench.task.model.parameters(), before, strict=True):
        assert torch.equal(now, then)
    assert (choice.pace or 0) > 0


def test_the_number_of_processes_does_not_change_a_selection() -> None:
    def selected(**how: object) -> tuple[object, ...]:
        budget = Budget(steps=1500)
        model = small_mlp()
        selection = autoinit.select(model, DATA, budget=budget, lr="search", **how)  # type: ignore[arg-type]
        trials = selection.trials.drop(columns="seconds")
        return selection.plan, selection.gain, selection.lr, trials.to_csv(), selection.cost.steps

    alone = selected(executor="sequential")
    assert selected(executor="processes", concurrency=2) == alone
    assert selected(executor="processes", concurrency=3) == alone
    assert selected() == alone


def test_select_says_how_it_ran() -> None:
    selection = autoinit.select(small_mlp(), DATA, budget=Budget(steps=600), executor="sequential")
    assert "  run    one job after the other, as asked for" in str(selection)


def test_a_stacked_selection_agrees_with_a_sequential_one() -> None:
    def losses(executor: str) -> list[float]:
        selection = autoinit.select(
            small_mlp(), DATA, recipes=["he_normal", "orthogonal"], budget=Budget(steps=1500), executor=executor
        )
        return list(selection.trials[selection.trials.stage == "search"].last_loss)

    assert losses("stacked") == pytest.approx(losses("sequential"), rel=1e-3)


def test_the_type_names_what_is_allowed_for_the_function_and_for_the_command() -> None:
    expected = Literal["sequential", "processes", "stacked", "captured"] | None
    assert typing.get_type_hints(autoinit.select)["executor"] == expected
    assert typing.get_type_hints(select_command)["executor"] == expected


def test_the_pace_of_one_job_at_a_time_is_that_of_the_fastest_way(stackable: Bench, paces: dict[str, float]) -> None:
    paces.update(captured=500.0, both=2000.0)
    choice = choose(stackable)
    assert (choice.pace, choice.alone) == (2000.0, 500.0)
    paces.update(captured=90.0)
    assert choose(stackable).alone == 100.0
    assert choose(stackable, executor="captured").alone is None
