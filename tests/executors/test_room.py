"""Room for candidates: what one needs is measured, and no more are tried than fit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from replays import Again
from sklearn.datasets import load_digits
from torch import nn

from autoinit.executors import room, stacked
from autoinit.executors.captured_stack import CapturedStack
from autoinit.executors.choice import ROOMS, choose
from autoinit.executors.room import candidates_that_fit
from autoinit.judging.trials import Candidate, Job
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import OWN
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task
from benchmarks.speed.memory import LiveBytes

PIXELS, LABELS = load_digits(return_X_y=True)
DATA = ((PIXELS / 16).astype("float32"), LABELS)
MIB = 2**20


@pytest.fixture
def bench() -> Iterator[Bench]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 10))
    task = make_task(model, DATA, optimizer=lambda p: torch.optim.Adam(p, lr=1e-3))
    graph = trace_task(task)
    with task.preserved() as snapshot:
        yield Bench(task, graph, snapshot, seed=0)


def counted(monkeypatch: pytest.MonkeyPatch, bench: Bench, free: int) -> None:
    """Lets the CPU stand for a device that counts its memory, of which so many bytes are free."""
    counter = LiveBytes(bench.task.model, apart=(bench.task.train, bench.task.probe_eval, bench.task.gate_eval))

    def measured(*args: object, **rest: object) -> object:
        with counter:
            return probe(*args, **rest)  # type: ignore[arg-type]

    class Peak:
        def __enter__(self) -> Peak:
            counter.reset()
            return self

        def __exit__(self, *_: object) -> None:
            self.bytes = counter.peak

    probe = room.probe
    monkeypatch.setattr(room, "probe", measured)
    monkeypatch.setattr(room, "peak_memory", lambda device: Peak())
    monkeypatch.setattr(room, "free_bytes", lambda device: free)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: counter.live)


def test_a_device_that_does_not_count_has_room_for_any_number(bench: Bench) -> None:
    assert candidates_that_fit(bench) == (float("inf"), "")


def test_a_candidate_needs_weights_gradients_moments_and_activations(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted(monkeypatch, bench, free=100 * MIB)
    before = [parameter.clone() for parameter in bench.task.model.parameters()]
    most, said = candidates_that_fit(bench)
    weights = 4 * sum(parameter.numel() for parameter in before)  # 1.2 MB
    needed = 0.8 * 100 * MIB / most
    assert 4 * weights <= needed <= 6 * weights
    assert said.endswith("and 0.098 GiB are free")
    assert all(map(torch.equal, before, bench.task.model.parameters()))


def test_a_captured_stack_keeps_no_more_than_there_must_be_room_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight candidates that become four, two and one; weights, gradients and moments are most of what they need."""
    counted(monkeypatch, bench, free=1000 * MIB)
    needed = 0.8 * 1000 * MIB / candidates_that_fit(bench)[0]
    counter = LiveBytes(bench.task.model, apart=(bench.task.train, bench.task.probe_eval, bench.task.gate_eval))
    jobs = [Job(number, "search", Candidate(OWN), 0, 12, (3, 6, 9)) for number in range(8)]
    executor = CapturedStack(bench, 8, Again(bench.task.model))
    with counter:
        counter.reset()
        before = counter.live
        list(executor.run(jobs, lambda job, curve: job.number % (2 ** (curve.steps // 3)) == 0))
    assert executor.notes == []
    assert 1.5 * 8 * needed < counter.peak - before < ROOMS * 8 * needed
    executor.close()


@pytest.mark.parametrize(("free", "tried"), [(1000 * MIB, [8]), (10 * MIB, [])])
def test_no_stack_is_tried_that_has_no_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, free: int, tried: list[int]
) -> None:
    counted(monkeypatch, bench, free)
    sizes = list[int]()
    monkeypatch.setattr(stacked.Stacked, "pace", lambda self, steps: sizes.append(self.concurrency) or 0.0)
    choice = choose(bench, affordable_steps=1e6)
    assert sizes == tried
    assert ("not stacked: 8 candidates have no room (one needs 0.0" in choice.why) == (not tried)


def test_why_a_model_is_not_stacked_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacked, "why_not", lambda bench: "it keeps a secret")
    assert choose(bench, affordable_steps=1e6).why.endswith("; not stacked: it keeps a secret")
