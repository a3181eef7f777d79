"""The benchmark of promises: its tasks can be trained, and its tables say what its rows hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from benchmarks.choice import contests, promises
from benchmarks.choice.promise_tasks import ADDED, PROMISES
from benchmarks.common import jobs
from benchmarks.probes import verdicts


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # x_transformers uses that
@pytest.mark.parametrize("name", ADDED)
def test_a_task_takes_a_step_and_knows_a_constant_guess(name: str) -> None:
    task = ADDED[name]
    model = task.make_model(0)
    batch = task.train_batches(0)[0]
    loss = task.loss_of(model, batch)
    loss.backward()
    task.optimizer(model.parameters()).step()
    assert torch.isfinite(loss)
    assert 0 < task.reference() < math.inf


def test_tied_embeddings_begin_far_above_a_constant_guess() -> None:
    task = ADDED["gpt_tied_default"]
    model = task.make_model(0)
    assert task.loss_of(model, task.train_batches(0)[0]).item() > 3 * task.reference()


def test_a_curve_ends_as_the_plain_training_does() -> None:
    found = promises.curves(PROMISES["wine"].make_model(0), "wine", 0, [5, 10])
    assert list(found) == ["5", "10"]
    assert all(math.isfinite(loss) for ends in found.values() for loss in ends)


def row(task: str, seed: int, ends: dict[str, float] | None) -> dict[str, Any]:
    selected = {length: [factor, 2 * factor] for length, factor in (ends or {}).items()}
    return {
        "task": task,
        "budget": "160",
        "seed": seed,
        "kept": ends is None,
        "gate": 10,
        "steps": 400,
        "own": {length: [1.0, 2.0] for length in ends or {}},
        "selected": selected,
        "date": "2026-11-27",
        "commit": "abc",
    }


def test_the_table_has_the_worst_run_and_tells_harm_by_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = {"10": 0.5, "40": 1.2, "100": 2.0, "400": 0.9}
    rows = [row("wine", seed, ends) for seed in range(3)] + [row("cars", seed, None) for seed in range(3)]
    monkeypatch.setattr(jobs, "read_rows", lambda path: rows if path == promises.HELD else [])
    lines = promises.report().splitlines()
    assert lines[4].startswith("| 160 | 1 × the gate's | 6, 3 | 1.00 (cars), 0 of 2 tasks, its absence on 2 |")
    assert lines[6].startswith("| 160 | 10 × the gate's | 6, 3 | 2.00 (wine), 1 of 2 tasks, its absence on 1 |")
    assert lines[6].endswith("| 2.00 / 2.00 |")
    assert lines[7].startswith("| 160 | the task's own length | 6, 3 |")


def test_redraws_are_counted_with_their_upper_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"task": "wine", "seed": n, "won": n == 0, "date": "d", "commit": "c"} for n in range(100)]
    monkeypatch.setattr(jobs, "read_rows", lambda path: rows if path == promises.REDRAWS else [])
    # One of a hundred: the Clopper-Pearson bound at one-sided 95 % is 4.66 %.
    assert promises.report().startswith("Redraws: 1 of 100 were preferred (1.0 %, upper 95 % bound 4.7 %)")


def test_power_counts_what_is_better_in_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(seed: int, end: float, states: str) -> dict[str, Any]:
        words = {"w": "win", "u": "undecided", "l": "loss"}
        gates = {str(steps): [words[s], ""] for steps, s in zip(contests.GATES, states, strict=True)}
        ends = {"training": math.log(end), "validation": math.log(end)}
        return {"task": "gpt2_positions", "seed": seed, **ends, "gates": gates, "date": "d", "commit": "c"}

    rows = [one(0, 0.5, "uuww"), one(1, 0.8, "uuuw"), one(2, 1.0, "uuuu"), one(3, 1.2, "uwll")]
    monkeypatch.setattr(jobs, "read_rows", lambda path: rows if path == promises.POWER else [])
    *_, table, _, tail = promises.report().splitlines()
    assert table == "| gpt2_positions | × 0.83 / × 0.83 | 0 of 4 | 1 of 4 | 1 of 4 | 2 of 4 |"
    assert tail.startswith(
        "Of 2 pairs whose better start ends more than 5 % lower in both losses are found: 0 in gates"
    )
    assert tail.endswith("Of 1 where it ends more than 5 % higher in both, it was taken for better in 1.")


@pytest.mark.parametrize("name", contests.EFFECTS)
def test_an_effect_moves_the_owners_start_alone(name: str) -> None:
    found = contests.EFFECTS[name]
    better, own = found.task.make_model(0), found.task.make_model(0)
    found.owner(own)
    moved = [not torch.equal(a, b) for a, b in zip(better.parameters(), own.parameters(), strict=True)]
    assert any(moved)
    assert (sum(moved) == 1) == (name == "gpt2_positions")


def test_the_position_tables_have_the_published_deviations() -> None:
    model = contests.EFFECTS["gpt2_positions"].task.make_model(0)
    table = dict(model.named_parameters())["inner.transformer.wpe.weight"]
    assert table.std().item() == pytest.approx(0.01, rel=0.05)
    contests.EFFECTS["gpt2_positions"].owner(model)
    assert table.std().item() == pytest.approx(0.02, rel=0.05)


def test_a_rescue_of_the_rank_benchmark_is_believed_early_and_a_head_start_is_not() -> None:
    rows = [
        one
        for one in jobs.read_rows(jobs.RESULTS / "rank_agreement.jsonl")
        if one["task"] in ("mlp_tanh", "tabular_class")
    ]
    own = {one["task"]: one for one in rows if one["candidate"] == 0}
    won = dict.fromkeys(own, 0)
    for one in rows:
        won[one["task"]] += verdicts.verdict(one, own[one["task"]], 16).state == "win"
    assert won["mlp_tanh"] >= 8
    assert won["tabular_class"] == 0
