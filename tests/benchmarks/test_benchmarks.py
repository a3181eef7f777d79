"""The benchmarks' own arithmetic, and that every task of the table can be trained. No search runs here."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import alive
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("mlxtend")
pytest.importorskip("transformers")

from benchmarks.choice import select_vs_default
from benchmarks.common import jobs
from benchmarks.common.statistics import MARGIN, geometric_mean, harm_test, holm, kendall, paired_interval
from benchmarks.common.tasks import TASKS, BenchTask, chosen, log_ratio
from benchmarks.common.training import batch_order, final_loss, steps_ratio, train


def double(row: int) -> jobs.Row:
    return {"value": 2 * row}


def fail(row: int) -> jobs.Row:
    raise ValueError(f"row {row} cannot be done")


def test_paired_interval_is_the_t_interval() -> None:
    # Mean 2, SD 1, n = 3: t(0.95, 2) = 2.920, half width 2.920/√3.
    interval = paired_interval([1.0, 2.0, 3.0])
    assert interval.estimate == pytest.approx(2.0)
    assert interval.high - 2.0 == pytest.approx(2.9200 / math.sqrt(3), abs=1e-4)


def test_weights_that_are_kept_on_every_seed_do_no_harm() -> None:
    test = harm_test([0.0] * 5)
    assert test.p == 0
    assert test.upper == 0


def test_the_same_harm_on_every_seed_is_harm() -> None:
    assert harm_test([0.1] * 5).p == 1


def test_a_large_gain_on_one_seed_does_not_look_like_harm() -> None:
    assert harm_test([0.0, 0.0, 0.0, 0.0, -3.0]).upper < MARGIN


def test_gains_do_not_pay_for_a_seed_that_is_harmed() -> None:
    assert harm_test([0.3, -3.0, -3.0, -3.0, -3.0]).upper > MARGIN


def test_holm_stops_at_the_first_that_fails() -> None:
    # 0.10/3 = 0.033, 0.10/2 = 0.05: 0.06 fails, and so 0.01 alone is rejected.
    assert holm([0.06, 0.01, 0.07], level=0.10) == [False, True, False]
    assert holm([0.04, 0.01, 0.07], level=0.10) == [True, True, True]


def test_geometric_mean_and_its_interval() -> None:
    interval = geometric_mean([0.5, 2.0])
    assert interval.estimate == pytest.approx(1.0)
    assert (interval.low, interval.high) == pytest.approx((0.5, 2.0))
    assert math.isnan(geometric_mean([]).estimate)


def test_kendall_ranks_divergence_last() -> None:
    assert kendall([1.0, 2.0, 3.0], [0.1, 0.2, math.inf]) == pytest.approx(1.0)
    assert kendall([1.0, 2.0, 3.0], [math.inf, 0.2, 0.1]) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("selected", "as_is", "expected"),
    [(0.5, 1.0, math.log(0.5)), (math.inf, math.inf, 0.0), (math.inf, 1.0, math.log(1000)), (0.0, 0.0, 0.0)],
)
def test_log_ratio_stays_finite(selected: float, as_is: float, expected: float) -> None:
    assert log_ratio(selected, as_is) == pytest.approx(expected)


def test_steps_ratio_is_reached_floored_or_never() -> None:
    line = tuple(1 - step / 100 for step in range(100))
    assert steps_ratio(line, 0.5, 100) == pytest.approx(0.53)  # the trailing mean of five lags by two steps
    assert steps_ratio(line, 2.0, 100) == 0.05
    assert steps_ratio(line, -1.0, 100) == 2.0


def test_final_loss_is_the_last_tenth() -> None:
    assert final_loss([5.0] * 90 + [1.0] * 10, 100) == 1.0
    assert final_loss([5.0] * 90, 100) == math.inf


@pytest.fixture
def tiny() -> BenchTask:
    return dataclasses.replace(TASKS["tabular_class"], steps=20)


def test_long_training_repeats_and_leaves_the_model_alone(tiny: BenchTask) -> None:
    model = tiny.make_model(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, second = train(model, tiny, 0), train(model, tiny, 0)
    assert first.curve == second.curve
    assert first.curve != train(model, tiny, 1).curve
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_long_training_stops_where_it_diverges(tiny: BenchTask) -> None:
    wild = dataclasses.replace(tiny, optimizer=functools.partial(torch.optim.SGD, lr=1e30))
    run = train(wild.make_model(0), wild, 0)
    assert len(run.curve) < 20
    assert run.final_train == run.final_val == math.inf


def test_batch_orders_hold_every_row_once_in_a_pass(tiny: BenchTask) -> None:
    rows = len(tiny.load().train_x) // tiny.rows
    labels = torch.cat([batch[0] for batch in batch_order(tiny, rows, 3)])
    assert len(labels.unique(dim=0)) == len(labels)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_takes_a_step(name: str) -> None:
    task = TASKS[name]
    model = task.make_model(0)
    loss = task.loss_of(model, task.train_batches(0)[0])
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert math.isfinite(task.reference())
    assert 400 <= task.steps <= 1000


@pytest.mark.parametrize("name", TASKS)
def test_the_owners_draw_depends_on_the_seed_only(name: str) -> None:
    def flat(seed: int) -> torch.Tensor:
        return nn.utils.parameters_to_vector(TASKS[name].make_model(seed).parameters())

    first = flat(0)
    assert torch.equal(first, flat(0))
    assert not torch.equal(first, flat(1))


def test_unknown_tasks_are_named() -> None:
    with pytest.raises(SystemExit, match="mlp_tahn"):
        chosen("mlp_tahn")
    assert all(task.plain_deep for task in chosen("plain_deep"))


def test_jobs_leave_one_row_each_and_outlive_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"torn": ')
    jobs.run_all(double, [(1,), (2,)], path, 1, str)
    jobs.run_all(fail, [(3,)], path, 1, str)
    assert [row["value"] for row in jobs.read_rows(path)] == [2, 4]
    assert "row 3 cannot be done" in capsys.readouterr().out


def test_jobs_run_in_worker_processes(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    jobs.run_all(double, [(4,)], path, 2, str)
    assert jobs.read_rows(path) == [{"value": 8}]


def _row(task: str, seed: int, as_is: float, selected: float) -> jobs.Row:
    kept = as_is == selected
    return {
        "task": task,
        "seed": seed,
        "reference": 2.3,
        "as_is": {"train": as_is, "val": as_is},
        "selected": {"train": selected, "val": selected},
        "steps_ratio": 1.0 if kept else 0.1,
        "kept": kept,
        "search": {"seconds": 60.0, "steps": 9000, "in_long_steps": 10_000.0},
        "date": "2026-01-01",
        "commit": "abc",
        "torch": "2",
    }


def test_the_report_says_which_tasks_train_by_themselves(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for seed in range(3):
        jobs.append_row(path, _row("mlp_tanh", seed, 2.3, 0.1))
        jobs.append_row(path, _row("lstm_rows", seed, 0.3, 0.3))
    results = select_vs_default.grouped(jobs.read_rows(path))
    assert {result.task.name: result.trains_by_itself for result in results} == {
        "mlp_tanh": False,
        "lstm_rows": True,
    }
    text = select_vs_default.report(path)
    assert "| mlp_tanh † | 3 | 2.3 | 0.1 |" in text
    assert "training: no harm shown for 2 of 2 tasks" in text


SLEEPERS = """
import os, sys, time
from pathlib import Path
from benchmarks.common import jobs

def work(number):
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    jobs.run_all(work, [(1,), (2,)], Path("rows.jsonl"), 2, str)
"""


def test_workers_end_with_a_killed_coordinator(tmp_path: Path) -> None:
    (tmp_path / "sleepers.py").write_text(SLEEPERS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "sleepers.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    workers = [int(process.stdout.readline()) for _ in range(2)]
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)
    process.stdout.close()
