from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import unchanged
from once import mnist
from sklearn.datasets import load_digits
from torch import Tensor, nn

import autoinit.executors.processes as processes
from autoinit.errors import ArgumentError
from autoinit.executors.executor import Executor
from autoinit.executors.processes import Processes
from autoinit.executors.sequential import Sequential
from autoinit.executors.turns import Turns
from autoinit.judging.budget import Budget, Meter, Schedule
from autoinit.judging.score import Curve
from autoinit.judging.trials import Candidate, Job, Outcome, Trial
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import Recipe
from autoinit.recipes.space import space_of
from autoinit.search.campaign import Campaign
from autoinit.search.funnel import search
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)
RECIPES = ("", "he_normal", "xavier_normal", "orthogonal", "lecun_normal", "he_uniform", "truncated_normal")

pytestmark = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")


class Sick(nn.Sequential):
    """A model of digits that does some harm in each forward pass."""

    def __init__(self, harm: Callable[[Sick], None] = lambda model: None) -> None:
        super().__init__(nn.Linear(64, 24), nn.Tanh(), nn.Dropout(0.1), nn.Linear(24, 10))
        self.harm = harm

    def forward(self, x: Tensor) -> Tensor:
        self.harm(self)
        return super().forward(x)


@contextlib.contextmanager
def bench_of(model: nn.Module | None = None, data: Any = DATA, **rest: Any) -> Iterator[Bench]:
    model = model or Sick()
    rest = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.05), **rest}
    task = make_task(model, data, **rest)
    graph = trace_task(task)
    with task.preserved() as snapshot:
        yield Bench(task, graph, snapshot, seed=0)


@contextlib.contextmanager
def workers(bench: Bench, count: int) -> Iterator[Processes]:
    executor = Processes(bench, count)
    try:
        yield executor
    finally:
        executor.close()
        assert not multiprocessing.active_children()


def jobs(steps: int = 8, rungs: tuple[int, ...] = (2, 4), count: int = len(RECIPES)) -> list[Job]:
    recipes = [Recipe(base=name) if name else Recipe() for name in (RECIPES * 3)[:count]]
    return [Job(place, "search", Candidate(one), 7, steps, rungs) for place, one in enumerate(recipes)]


def go_on(job: Job, curve: Curve) -> bool:
    return True


def timeless(curve: Curve | None) -> Curve | None:
    return curve and dataclasses.replace(curve, seconds=0.0)


def bare(outcomes: Any) -> list[Outcome]:
    return [dataclasses.replace(outcome, curve=timeless(outcome.curve)) for outcome in outcomes]


def bare_records(records: list[Trial]) -> list[Trial]:
    return [dataclasses.replace(record, curve=timeless(record.curve)) for record in records]


# The order rule, without processes


def curve(steps: int) -> Curve:
    return Curve((1.0,) * steps)


def test_a_job_is_asked_only_after_all_before_it() -> None:
    asked: list[tuple[int, int]] = []

    def on_rung(job: Job, seen: Curve) -> bool:
        asked.append((job.number, seen.steps))
        return job.number != 1

    turns = Turns(jobs(count=4), on_rung)
    turns.ask(2, curve(2))
    turns.ask(1, curve(2))
    assert list(turns.answers()) == []
    turns.ask(0, curve(2))
    assert list(turns.answers()) == [(0, True), (1, False), (2, True)]
    turns.ask(2, curve(4))  # number 1 has ended by its answer, number 0 has not been here yet
    turns.ask(3, curve(2))
    assert list(turns.answers()) == [(3, True)]
    turns.end(0, Outcome(None, 1, "died"))
    assert list(turns.answers()) == [(2, True)]
    assert asked == [(0, 2), (1, 2), (2, 2), (3, 2), (2, 4)]


def test_a_job_at_its_last_step_is_asked_in_its_turn_and_waits_for_nothing() -> None:
    asked: list[int] = []

    def on_rung(job: Job, seen: Curve) -> bool:
        asked.append(job.number)
        return True

    turns = Turns(jobs(count=2), on_rung)
    turns.ask(1, curve(8))
    turns.end(1, Outcome(curve(8), 8))
    assert list(turns.answers()) == []
    assert turns.outcome(1) is None
    turns.ask(0, curve(8))
    assert list(turns.answers()) == []
    assert turns.outcome(0) is None
    assert turns.outcome(1) == Outcome(curve(8), 8)
    assert asked == [0, 1]


def test_a_question_of_a_job_that_died_is_not_asked() -> None:
    turns = Turns(jobs(count=2), go_on)
    turns.ask(1, curve(4))
    turns.end(1, Outcome(None, 4, "died"))
    turns.ask(0, curve(4))
    assert list(turns.answers()) == [(0, True)]
    assert turns.outcome(1) == Outcome(None, 4, "died")
    assert turns.seen(1) == 4


# The same as one after the other


def pruned_by_number(job: Job, seen: Curve) -> bool:
    return not (job.number % 3 == 1 and seen.steps >= 2 + 2 * (job.number % 2))


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_outcomes_and_questions_are_those_of_the_sequential_executor(count: int) -> None:
    def run(executor: Executor) -> tuple[list[Outcome], list[list[int]]]:
        asked: list[list[int]] = [[] for _ in RECIPES]

        def on_rung(job: Job, seen: Curve) -> bool:
            assert all(before[-1] >= seen.steps or ended(before) for before in asked[: job.number])
            asked[job.number].append(seen.steps)
            return pruned_by_number(job, seen)

        def ended(steps: list[int]) -> bool:
            number = asked.index(steps)
            return number % 3 == 1 and steps[-1] >= 2

        return bare(executor.run(jobs(), on_rung)), asked

    with bench_of() as bench, workers(bench, count) as executor:
        expected = run(Sequential(bench))
        assert run(executor) == expected
        assert run(executor) == expected  # the workers of the first run again
        assert {outcome.curve.steps for outcome in expected[0] if outcome.curve} == {2, 4, 8}
        assert executor.concurrency == count


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))


class Rows(nn.Module):
    """An LSTM over the rows of a digit, with numpy's and Python's noise on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x + float(np.random.rand()) * 0.1 + random.random() * 0.1
        return self.head(F.dropout(self.norm(self.lstm(x.view(-1, 8, 8))[0][:, -1]), 0.1, self.training))


smoothed = nn.CrossEntropyLoss(label_smoothing=0.1)


def closure_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    loss = F.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return loss


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "rest", "steps", "counts"),
    [
        (mlp, {}, 1500, (1, 2, 3)),
        (mlp, {"loss": lambda output, target: smoothed(output, target), "lr": "search"}, 2500, (2,)),
        (mlp, {"step": closure_step}, 1500, (2,)),
        (Rows, {"optimizer": lambda p: torch.optim.Adam(p, lr=3e-3)}, 1500, (3,)),
    ],
    ids=["plain", "lambda loss, lr searched", "step that calls backward", "lstm with noise of every generator"],
)
def test_a_search_is_the_same_whatever_the_number_of_workers(
    build: Callable[[], nn.Module], rest: dict[str, Any], steps: int, counts: tuple[int, ...]
) -> None:
    """Who waits for whom depends on the number of workers, whatever is trained: all numbers are tried with one kind.

    What else a worker has to have as the parent has it, from its generators to the owner's own code, one number shows.
    """

    def records(count: int) -> tuple[list[Trial], Any]:
        torch.manual_seed(0)
        model = build()
        with unchanged(model), bench_of(model, **rest) as bench:
            executor: Executor = Processes(bench, count) if count else Sequential(bench)
            with contextlib.closing(executor):
                campaign = Campaign(bench, executor, Meter(budget=Budget(steps=steps)), Schedule.of(steps))
                found = search(campaign, space_of(bench.graph, lr_searched=bench.task.lr_searched))
            return bare_records(campaign.trials), found

    alone = records(0)
    # Five learning rates of the owner's leave little for others, and of an LSTM that trains little is left to find.
    assert alone[0][-1].stage == "gate" or "lr" in rest or build is Rows
    assert {record.state for record in alone[0]} >= {"complete", "pruned"}
    assert sum(record.stage == "search" for record in alone[0]) > 9  # so that TPE has been told more than one batch
    for count in counts:
        assert records(count) == alone


# Death


class Killed:
    """Kills the process that it is called in, at the first training step from a number on, once."""

    def __init__(self, flag: Path, how: Callable[[], object], after: int = 3) -> None:
        self.flag, self.how, self.after, self.parent, self.calls = flag, how, after, os.getpid(), 0

    def __call__(self, model: Sick) -> None:
        if os.getpid() == self.parent:
            return
        self.calls += model.training
        if self.calls > self.after:
            with contextlib.suppress(FileExistsError):
                self.flag.touch(exist_ok=False)  # of two workers one dies
                self.how()


def kill_nine() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    faulthandler.disable()  # which pytest has enabled
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (kill_nine, "the worker process died (signal 9, SIGKILL, as from a system that lacks memory)"),
        (crash, "the worker process died (signal 11, SIGSEGV)"),
        (lambda: sys.exit(3), "the worker process died (exit code 3)"),
    ],
    ids=["kill -9", "segmentation fault", "sys.exit"],
)
@pytest.mark.parametrize("count", [1, 2])
def test_a_death_costs_one_job(tmp_path: Path, count: int, how: Callable[[], None], reason: str) -> None:
    harm = Killed(tmp_path / "died", how)
    with bench_of(Sick(harm)) as bench, workers(bench, count) as executor:
        alone = bare(Sequential(bench).run(jobs(), go_on))
        outcomes = bare(executor.run(jobs(), go_on))
        dead = [place for place, outcome in enumerate(outcomes) if outcome.curve is None]
        assert len(dead) == 1
        assert outcomes[dead[0]] == Outcome(None, 2, reason)  # it was seen at the rung of step 2
        assert outcomes[: dead[0]] + outcomes[dead[0] + 1 :] == alone[: dead[0]] + alone[dead[0] + 1 :]
        assert bare(executor.run(jobs(), go_on)) == alone


def test_a_search_goes_on_after_a_death(tmp_path: Path) -> None:
    def run(executor_of: Callable[[Bench], Executor], harm: Callable[[Sick], None]) -> list[Trial]:
        torch.manual_seed(0)
        with bench_of(Sick(harm)) as bench, contextlib.closing(executor_of(bench)) as executor:
            campaign = Campaign(bench, executor, Meter(budget=Budget(trials=8, steps=9000)), Schedule.of(600))
            search(campaign, space_of(bench.graph, lr_searched=False))
            return [record for record in bare_records(campaign.trials) if record.stage == "search"]

    harm = Killed(tmp_path / "died", kill_nine, after=12)  # after the owner's own trial, in the first round
    records = run(lambda bench: Processes(bench, 2), harm)
    (failed,) = (record for record in records if record.state == "failed")
    assert failed.reason.startswith("the worker process died (signal 9")
    alone = run(Sequential, lambda model: None)
    assert [record.candidate for record in records] == [record.candidate for record in alone]
    assert all(
        mine.curve == other.curve
        for mine, other in zip(records, alone, strict=True)
        if mine.state == other.state == "complete"
    )


def test_workers_that_always_die_do_not_loop_for_ever() -> None:
    parent = os.getpid()

    def harm(model: Sick) -> None:
        if os.getpid() != parent:
            kill_nine()

    with bench_of(Sick(harm)) as bench, workers(bench, 2) as executor:
        outcomes = list(executor.run(jobs(), go_on))
        assert len(outcomes) == len(RECIPES)
        assert all("signal 9" in outcome.reason and outcome.spent == 1 for outcome in outcomes)


def test_a_worker_that_dies_while_idle_costs_nothing() -> None:
    with bench_of() as bench, workers(bench, 2) as executor:
        alone = bare(executor.run(jobs(), go_on))
        for child in multiprocessing.active_children():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join()
        assert bare(executor.run(jobs(), go_on)) == alone


def test_a_system_without_room_for_processes_fails_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(ForkContext):
        class Process(ForkContext.Process):  # type: ignore[name-defined, misc]
            def start(self) -> None:
                raise BlockingIOError(11, "Resource temporarily unavailable")

    with bench_of() as bench, workers(bench, 2) as executor:
        monkeypatch.setattr(multiprocessing, "get_context", lambda method: Full())
        outcomes = list(executor.run(jobs(count=3), go_on))
        assert [outcome.curve for outcome in outcomes] == [None] * 3
        assert "no worker process could be started (BlockingIOError: " in outcomes[0].reason
        assert executor.pace(3) == 0.0
        assert "Resource temporarily unavailable" in executor.notes[0]


def test_a_forward_that_raises_fails_its_job_only() -> None:
    def harm(model: Sick) -> None:
        if model[0].weight.std().item() > 0.15:  # he_normal's is 0.177, Kaiming's uniform of a Linear 0.07
            raise ValueError("too large for me")

    with bench_of(Sick(harm)) as bench, workers(bench, 2) as executor:
        alone = bare(Sequential(bench).run(jobs(), go_on))
        assert bare(executor.run(jobs(), go_on)) == alone
        reasons = [outcome.reason for outcome in alone]
        assert "ValueError: too large for me" in reasons
        assert "" in reasons


# Ends


def processes_of_group(group: int) -> list[int]:
    """Returns the living processes of a group, zombies included."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                found += [int(entry.name)] if int(fields[2]) == group else []
    return found


def open_files() -> list[str]:
    gc.collect()
    return sorted(os.listdir("/proc/self/fd"))


def test_nothing_is_left_behind() -> None:
    with bench_of() as bench:
        before = open_files()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(3):
                executor = Processes(bench, 2)
                list(executor.run(jobs(), go_on))
                executor.pace(2)
                executor.close()
                executor.close()  # a second time does nothing
            del executor
            assert open_files() == before
        assert not multiprocessing.active_children()


def test_an_exception_of_on_rung_is_raised_and_ends_the_jobs() -> None:
    def on_rung(job: Job, seen: Curve) -> bool:
        if job.number == 2:
            raise ZeroDivisionError("mine")
        return True

    with bench_of() as bench, workers(bench, 2) as executor:
        with pytest.raises(ZeroDivisionError, match="mine"):
            list(executor.run(jobs(), on_rung))
        assert len(list(executor.run(jobs(), go_on))) == len(RECIPES)


def test_a_run_that_is_left_does_not_disturb_the_next() -> None:
    with bench_of() as bench, workers(bench, 2) as executor:
        alone = bare(executor.run(jobs(), go_on))
        left = executor.run(jobs(steps=500), go_on)
        next(left)
        assert bare(executor.run(jobs(), go_on)) == alone
        kept = multiprocessing.active_children()
        left.close()  # as late as the garbage collector may come: the workers are others' now
        assert {child.pid for child in multiprocessing.active_children()} == {child.pid for child in kept}
        assert bare(executor.run(jobs(), go_on)) == alone


def test_a_closed_executor_ends_a_run_that_is_left() -> None:
    with bench_of() as bench, workers(bench, 2) as executor:
        left = executor.run(jobs(steps=500), go_on)
        next(left)
        executor.close()
        with pytest.raises(RuntimeError, match="given up"):
            list(left)


SCRIPT = """
    import os, signal, sys, threading, time
    import torch
    from sklearn.datasets import load_digits
    from torch import nn
    from autoinit.probing.bench import Bench
    from autoinit.judging.budget import Budget, Meter, Schedule
    from autoinit.search.campaign import Campaign
    from autoinit.executors.processes import Processes
    from autoinit.search.funnel import search
    from autoinit.recipes.space import space_of
    from autoinit.task.task import make_task
    from autoinit.tracing.tracing import trace_task

    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.manual_seed(0)
    torch.set_num_threads({threads})
    (torch.randn(700, 700) @ torch.randn(700, 700)).exp().sum()  # starts OpenMP's threads
    model = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 10))
    before = {{name: value.clone() for name, value in model.state_dict().items()}}
    digits = load_digits()
    task = make_task(model, ((digits.data / 16).astype("float32"), digits.target))
    graph = trace_task(task)
    with task.preserved() as snapshot:
        bench = Bench(task, graph, snapshot, seed=0)
        executor = Processes(bench, 2)
        {body}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    print("the model is as it was", flush=True)
"""


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts programs in groups of their own, and ends what is left of them."""
    started: list[subprocess.Popen[str]] = []

    def run(body: str, threads: int = 1) -> subprocess.Popen[str]:
        inside = textwrap.indent(textwrap.dedent(body), " " * 4).strip()
        script = textwrap.dedent(SCRIPT).format(threads=threads, body=inside)
        command = [sys.executable, "-W", "error::ResourceWarning", "-c", script]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        piped: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, start_new_session=True, env=environment, **piped))
        return started[-1]

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=100)
    assert err == ""
    assert process.returncode == 0
    assert processes_of_group(process.pid) == []
    return out


SEARCH = """
    campaign = Campaign(bench, executor, Meter(budget=Budget(seconds=600, steps={steps})), Schedule.of({steps}))
    campaign.progress = lambda event: print(len(campaign.trials), flush=True)
    found = search(campaign, space_of(graph, lr_searched=False))
    print("interrupted", found.interrupted, flush=True)
    executor.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("group", [True, False], ids=["from a terminal", "to the one process"])
def test_ctrl_c_goes_to_the_gate_and_leaves_no_process(start: Start, group: bool) -> None:
    process = start(SEARCH.format(steps=6000))
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "4":
            break
    (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
    out = finished(process)
    assert "interrupted True" in out
    assert out.endswith("the model is as it was\n")


@pytest.mark.slow
def test_ctrl_c_while_measuring_is_raised_and_leaves_no_process(start: Start) -> None:
    body = """
    try:
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        executor.pace(10**6)
    except KeyboardInterrupt:
        print("raised", flush=True)
    """
    assert finished(start(body)) == "raised\nthe model is as it was\n"


@pytest.mark.slow
def test_an_executor_that_nobody_closed_does_not_hang_the_end_of_the_program(start: Start) -> None:
    assert finished(start("print(executor.pace(3) > 0)")) == "True\nthe model is as it was\n"


@pytest.mark.slow
def test_workers_end_with_a_coordinator_that_is_killed(start: Start) -> None:
    process = start("print(executor.pace(3) > 0, flush=True); time.sleep(1000)")
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    assert len(processes_of_group(process.pid)) == 3
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while processes_of_group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of_group(process.pid) == []


@pytest.mark.slow
def test_workers_do_not_hang_where_openmp_has_been_used_before(start: Start) -> None:
    out = finished(start(SEARCH.format(steps=900), threads=2))
    assert "interrupted False" in out
    assert int(out.split("\n")[-4]) > 8


# What is shared, and what is not


def private_bytes(pid: int) -> int:
    """Returns the memory that a process has for itself."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    fields = {line.split()[0].rstrip(":"): line.split()[1] for line in lines[1:]}
    return 1024 * (int(fields["Private_Clean"]) + int(fields["Private_Dirty"]))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's smaps_rollup")
def test_data_are_shared_and_not_copied() -> None:
    x, y = mnist()
    rows = torch.tensor(x, dtype=torch.float32).div(255).repeat(6, 1)
    size = rows.numel() * rows.element_size()
    assert size > 85 * 2**20
    model = nn.Sequential(nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    with bench_of(model, (rows, torch.tensor(y).repeat(6))) as bench, workers(bench, 2) as executor:
        del rows
        held = sum(batch[0].numel() * 4 for batch in bench.task.train)
        assert held > 0.8 * size
        everything = len(bench.task.train)  # steps in which each batch is read
        list(executor.run(jobs(steps=everything, rungs=(), count=2), go_on))
        for child in multiprocessing.active_children():
            assert child.pid is not None
            assert private_bytes(child.pid) < 0.3 * size


def test_the_parents_model_is_not_touched() -> None:
    model = Sick()
    with bench_of(model) as bench, workers(bench, 2) as executor, unchanged(model):
        list(executor.run(jobs(), go_on))
        executor.pace(2)


def test_the_coordinators_handlers_and_files_are_not_the_workers(tmp_path: Path) -> None:
    """A worker that is asked to end does so, whatever the program does at SIGTERM."""
    called = tmp_path / "called"
    before = signal.signal(signal.SIGTERM, lambda *arguments: called.touch())
    try:
        with bench_of() as bench, workers(bench, 1) as executor:
            executor.pace(2)
            (child,) = multiprocessing.active_children()
            child.terminate()
            child.join(10)
            assert child.exitcode == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not called.exists()


# The pace


def test_pace_is_of_all_workers_together() -> None:
    with bench_of() as bench, workers(bench, 2) as executor:
        assert executor.pace(20) > 0
        assert executor.notes == []
        assert len(multiprocessing.active_children()) == 2
        assert len(list(executor.run(jobs(), go_on))) == len(RECIPES)  # by the same workers


@pytest.mark.parametrize(
    ("harm", "note"),
    [
        (lambda: time.sleep(100), "a worker process did not answer in time"),
        (lambda: 1 / 0, "a worker process could not train: ZeroDivisionError: division by zero"),
        (kill_nine, "a worker process died (signal 9, SIGKILL, as from a system that lacks memory)"),
    ],
    ids=["hangs", "raises", "dies"],
)
def test_workers_without_a_pace_are_given_up(harm: Callable[[], object], note: str) -> None:
    parent = os.getpid()

    def harmful(model: Sick) -> None:
        if os.getpid() != parent:
            harm()

    with bench_of(Sick(harmful)) as bench, workers(bench, 2) as executor:
        assert executor.pace(3, timeout=1.0) == 0.0
        assert executor.notes == [note]
        assert not multiprocessing.active_children()


def test_slow_steps_are_waited_for() -> None:
    parent = os.getpid()

    def harmful(model: Sick) -> None:
        if os.getpid() != parent:
            time.sleep(0.2)

    with bench_of(Sick(harmful)) as bench, workers(bench, 1) as executor:
        assert 0 < executor.pace(4, timeout=0.6) < 5.1  # the four steps take longer than a first one may


def test_the_clock_of_a_pace_starts_when_all_are_warm() -> None:
    """Two workers that each sleep 20 ms a step make at most 100 steps a second, also where one starts late."""
    parent = os.getpid()
    late = multiprocessing.Value("i", 0)

    def harmful(model: Sick) -> None:
        if os.getpid() == parent or not model.training:
            return
        with late.get_lock():
            late.value += 1
            first = late.value == 1
        time.sleep(0.5 if first else 0.02)

    with bench_of(Sick(harmful)) as bench, workers(bench, 2) as executor:
        assert 0 < executor.pace(5) <= 100


# Where it cannot work


def why_not(bench: Bench) -> str:
    with pytest.raises(ArgumentError) as caught:
        Processes(bench, 2)
    problem = processes.why_not(bench)
    assert f"worker processes: {problem}. Run them one after the other." in str(caught.value)
    return problem


def test_it_says_so_where_it_can_work() -> None:
    with bench_of() as bench:
        assert processes.why_not(bench) == ""


def test_no_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    with bench_of() as bench:
        monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
        assert "cannot be forked" in why_not(bench)


def test_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    with bench_of() as bench:
        monkeypatch.setattr(sys, "platform", "darwin")
        assert why_not(bench) == "processes cannot be forked safely on darwin"


def test_daemons() -> None:
    with bench_of() as bench:
        mine, theirs = multiprocessing.Pipe()
        target = lambda: theirs.send(why_not(bench))  # noqa: E731
        process = multiprocessing.get_context("fork").Process(target=target, daemon=True)
        process.start()
        assert mine.poll(60)
        assert "this process is a daemon" in mine.recv()
        process.join()
        process.close()
        mine.close()
        theirs.close()


def test_other_devices() -> None:
    with bench_of() as bench:
        task = dataclasses.replace(bench.task, device=torch.device("meta"))
        assert (
            why_not(dataclasses.replace(bench, task=task)) == "the model is on meta, which forked processes cannot use"
        )


def test_threads_of_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    with bench_of() as bench:
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        assert "autograd keeps threads" in why_not(bench)


def test_distributed_programs(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        with bench_of() as bench:
            assert "torch.distributed is initialized" in why_not(bench)
    finally:
        torch.distributed.destroy_process_group()


def test_shared_weights() -> None:
    model = mlp().share_memory()
    with bench_of(model) as bench:
        assert "in shared memory" in why_not(bench)


def test_a_count_that_is_none() -> None:
    with bench_of() as bench, pytest.raises(ArgumentError, match="0 worker processes cannot run anything"):
        Processes(bench, 0)


def test_jobs_run_beside_other_threads() -> None:
    """Python 3.12 and later warn of a fork beside threads; here that is meant, and warnings are errors."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with bench_of() as bench, workers(bench, 2) as executor:
            assert len(list(executor.run(jobs(), go_on))) == len(RECIPES)
    finally:
        stop.set()
        thread.join()
