"""The benchmark of stale weights on two short tasks: what each method does between them, and the table."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import autoinit
from benchmarks.common import jobs
from benchmarks.inheritance import continual, sequences
from benchmarks.inheritance.continual import METHODS, _adam, _prepared, _train, outcomes
from benchmarks.inheritance.sequences import SEQUENCES, network
from tests.helpers import bits


def short(name: str, seed: int = 0) -> list[sequences.Part]:
    return [dataclasses.replace(part, steps=3) for part in SEQUENCES[name](seed)[:2]]


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_tasks_of_a_sequence_differ_and_repeat(name: str) -> None:
    parts = SEQUENCES[name](0)
    (first, second), again = parts[:2], SEQUENCES[name](0)[1]
    assert torch.equal(second.train[0], again.train[0])
    assert torch.equal(second.train[1], again.train[1])
    alike = first.train[0].shape == second.train[0].shape and torch.equal(first.train[0], second.train[0])
    assert not (alike and torch.equal(first.train[1], second.train[1]))
    assert len(parts) >= 20 or name == "half, then all"


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_does_before_a_task(name: str) -> None:
    method, part = METHODS[name], short("pairs of digits")[0]  # three steps: before any unit is renewed
    model = network(2, 0)
    graph = autoinit.trace(model, tuple(one[:50] for one in part.train))
    optimizer = _adam(model, method)
    _train(model, optimizer, graph, method, part, torch.Generator().manual_seed(0))
    old = {key: value.clone() for key, value in model.state_dict().items()}
    states = {id(one): optimizer.state[one]["exp_avg"].clone() for one in model[0].parameters()}
    fresh = network(2, 5)
    after, next_optimizer = _prepared(model, optimizer, graph, method, fresh, heads_differ=True)
    assert bits(after[-1].weight) == bits(fresh[-1].weight)
    shrink, perturb = method.shares or ((0.0, 1.0) if method.fresh else (1.0, 0.0))
    expected = shrink * old["0.weight"] + perturb * network(2, 5)[0].weight
    torch.testing.assert_close(after[0].weight, expected)
    if method.anew:
        assert not next_optimizer.state
    else:
        kept = {id(one): state["exp_avg"] for one, state in next_optimizer.state.items()}
        assert kept.keys() == {id(one) for at in (0, 2) for one in model[at].parameters()}
        assert all(torch.equal(kept[key], value) for key, value in states.items())


def test_a_row_and_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(continual, "RESULTS", tmp_path / "continual.jsonl")
    assert continual.report() == "There is no result yet."
    parts = short("random labels")
    monkeypatch.setitem(SEQUENCES, "random labels", lambda seed: parts)
    for method in ("as it is", "ReDo"):
        row: dict[str, Any] = continual.run("random labels", method, 0)
        assert len(row["newest"]) == len(row["dormant"]) == 2
        assert len(row["old"]) == 1
        assert outcomes(row) == (row["newest"][1], row["old"][0], row["dormant"][1])
        for seed in (0, 1):
            moved = {**row, "seed": seed, "newest": [0.5, 0.6 + 0.02 * seed + 0.1 * (method == "ReDo")]}
            jobs.append_row(continual.RESULTS, moved)
    lines = continual.report().splitlines()
    assert "2 seeds" in lines[0]
    assert "| random labels | ReDo | 71.0 ± 12.7 | +10.0 ± 0.0 |" in lines[-1]
