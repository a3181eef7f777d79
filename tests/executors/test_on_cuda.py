"""What only a CUDA device can show: real graphs, its generators, its memory. Skipped where there is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from helpers import unchanged
from replays import late_momentum
from stacking import IMAGES, RECIPES, ROWS, cnn, going_on, jobs_of, mlp, momentum
from test_captured import ALIKE, REFUSED, ragged
from test_captured import jobs as single_jobs
from test_captured_stack import CASES
from torch import Tensor, nn

import autoinit
from autoinit.errors import ArgumentError
from autoinit.executors import capturable, capturable_stack, stacked
from autoinit.executors.captured import Captured
from autoinit.executors.captured_stack import CapturedStack
from autoinit.executors.sequential import Sequential
from autoinit.executors.stacked import Stacked
from autoinit.judging.trials import Outcome
from autoinit.probing.bench import Bench
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@contextmanager
def bench_there(model: nn.Module, data: Any = ROWS, optimizer: Any = momentum, **rest: Any) -> Iterator[Bench]:
    model = model.to("cuda")
    task = make_task(model, data, optimizer=optimizer, **rest)
    graph = trace_task(task)
    with unchanged(model), task.preserved() as snapshot:
        yield Bench(task, graph, snapshot, seed=0)


def last_losses(outcomes: list[Outcome]) -> list[float]:
    assert all(outcome.curve is not None for outcome in outcomes), [outcome.reason for outcome in outcomes]
    return [outcome.curve.losses[-1] for outcome in outcomes if outcome.curve is not None]


LATER = {"Adagrad, which starts from a sum": "2.13"}
"""Optimizers whose one kernel for CUDA is of a later release than the oldest that this runs with."""


@pytest.mark.parametrize("name", ALIKE)
def test_a_graph_trains_as_plain_steps_do(name: str) -> None:
    if torch.__version__ < LATER.get(name, ""):
        pytest.skip(f"needs torch {LATER[name]}")
    make, given = ALIKE[name]
    torch.manual_seed(0)
    with bench_there(make(), **given) as bench:
        assert capturable.why_not(bench) == ""
        plain = last_losses(list(Sequential(bench).run(single_jobs(), going_on)))
        executor = Captured(bench)
        found = last_losses(list(executor.run(single_jobs(), going_on)))
        assert executor.notes == []
        executor.close()
        coarse = "autocast" in given or "Dropout" in repr(make())
        if not coarse:  # masks are drawn from another place of the generator's row
            assert found == pytest.approx(plain, rel=2e-2)


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_cannot_hold_is_refused_and_the_device_goes_on(name: str) -> None:
    make, given, said = REFUSED[name]
    torch.manual_seed(0)
    with bench_there(make(), **given) as bench:
        why = capturable.why_not(bench)
        assert why
        print(f"\n{name}: {why}   [{said}]")
        assert len(last_losses(list(Captured(bench).run(single_jobs(3, ()), going_on)))) == 4
    assert torch.rand(3, device="cuda").sum().item() > 0


class Asking(nn.Module):
    """Looks at a value of a tensor."""

    def __init__(self, ask: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.ask = ask

    def forward(self, x: Tensor) -> Tensor:
        return self.ask(x)


def branched(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else x.relu()


ASKING = {
    "item": lambda x: x * x.mean().item(),
    "if": branched,
    "nonzero": lambda x: x * len(torch.nonzero(x)) / x.numel(),
    "cpu": lambda x: x.cpu().to(x.device),
}


@pytest.mark.parametrize("name", ASKING)
def test_a_step_that_waits_is_refused_with_its_line(name: str) -> None:
    model = nn.Sequential(nn.Linear(64, 24), Asking(ASKING[name]), nn.Linear(24, 10))
    with bench_there(model) as bench:
        why = capturable.why_not(bench)
        assert "asks for a tensor's value" in why
        assert "test_on_cuda.py" in why
        executor = Captured(bench)
        assert len(last_losses(list(executor.run(single_jobs(3, ()), going_on)))) == 4
        assert "asks for a tensor's value" in executor.notes[0]


@pytest.mark.parametrize("optimizer", [momentum, late_momentum])
def test_a_last_smaller_batch_is_computed_plainly(optimizer: Any) -> None:
    with bench_there(mlp(), ragged(), optimizer, val_data=ragged()[:1]) as bench:
        assert capturable.why_not(bench) == ""
        given = single_jobs(30, (4,))
        plain = last_losses(list(Sequential(bench).run(given, going_on)))
        assert last_losses(list(Captured(bench).run(given, going_on))) == pytest.approx(plain, rel=2e-2)


@pytest.mark.parametrize("case", CASES)
def test_a_captured_stack_trains_as_plain_steps_do(case: str) -> None:
    make, data, optimizer, rest = CASES[case]
    torch.manual_seed(0)
    with bench_there(make(), data, optimizer, **rest) as bench:
        assert stacked.why_not(bench) == ""
        assert capturable_stack.why_not(bench) == ""
        jobs = jobs_of(RECIPES[:4])
        plain = last_losses(list(Sequential(bench).run(jobs, going_on)))
        for executor in (Stacked(bench, 4), CapturedStack(bench, 4)):
            found = last_losses(list(executor.run(jobs, going_on)))
            assert executor.notes == []
            executor.close()
            if "dropout" not in case and "bfloat16" not in case:
                assert found == pytest.approx(plain, rel=2e-2)


def test_what_dropout_draws_is_the_seeds() -> None:
    with bench_there(nn.Sequential(nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, 10))) as bench:
        found = []
        for _ in range(2):
            executor = Captured(bench)
            found.append(last_losses(list(executor.run(single_jobs(), going_on))))
            executor.close()
        assert found[0] == found[1]


@pytest.mark.parametrize("executor", ["sequential", "captured", "stacked", None])
@pytest.mark.parametrize(("make", "data"), [(mlp, ROWS), (cnn, IMAGES)])
def test_a_selection_of_a_budget_in_steps_repeats(executor: str | None, make: Any, data: Any) -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        model = make().to("cuda")
        given = {"budget": autoinit.Budget(steps=1500), "apply": False, "progress": False}
        selection = autoinit.select(model, data, executor=executor, optimizer=momentum, **given)
        found.append(selection.trials[["stage", "name", "last_loss"]].to_csv())
        print(selection.cost.executor, selection.cost)
        if executor is None:
            return  # which way is measured, and measurements differ
    assert found[0] == found[1]


LOST = """
import torch
from torch import nn
import autoinit

class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 8)
        self.head = nn.Linear(8, 10)
        self.calls = 0
    def forward(self, x):
        if torch.cuda.is_current_stream_capturing():
            x = x + 1000  # beyond the table: the kernel asserts
        return self.head(self.table(x))

x = torch.randint(0, 4, (256,), device="cuda")
try:
    autoinit.select(Broken().cuda(), (x, torch.randint(0, 10, (256,))), budget="8s", executor="captured")
except autoinit.errors.DeviceError as problem:
    print("TOLD", problem)
"""


def test_a_device_that_is_lost_is_told_with_what_to_do() -> None:
    ran = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=300, check=False)
    assert 'executor="sequential"' in ran.stdout + ran.stderr, ran.stderr[-3000:]
    assert "TOLD" in ran.stdout, ran.stderr[-3000:]


def test_a_large_model_is_drawn_tensor_by_tensor() -> None:
    """A billion weights on meta come to the device, which holds no second copy."""
    with torch.device("meta"):
        model = nn.Sequential(*[nn.Linear(8192, 8192, bias=False) for _ in range(15)])
    plan = autoinit.apply_(model, "he_normal")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model.to_empty(device="cuda")
    autoinit.apply_(model, plan)
    one = 4 * 8192 * 8192
    assert all(weight.is_cuda for weight in model.parameters())
    assert torch.cuda.max_memory_allocated() - before < 15.6 * one
    assert 0.9 < model[7].weight.std().item() / (1 / 8192) ** 0.5 < 1.1


def test_draws_depend_on_nothing_but_seed_name_and_device() -> None:
    model = nn.Sequential(nn.Linear(1500, 1500), nn.ReLU(), nn.Linear(1500, 10)).to("cuda")
    for recipe in ("he_normal", "orthogonal", "butterfly_orthogonal"):
        plan = autoinit.apply_(model, recipe)
        assert plan.drawn_on == "cuda"
        first = [weight.clone() for weight in model.parameters()]
        torch.rand(7, device="cuda")
        autoinit.apply_(model, plan)
        assert all(torch.equal(old, new) for old, new in zip(first, model.parameters(), strict=True))


def test_a_device_that_is_not_there_is_refused() -> None:
    model = mlp().to("cuda")
    with unchanged(model), pytest.raises(ArgumentError, match="cuda:77"):
        autoinit.apply_(model, "he_normal", draw_on="cuda:77")
