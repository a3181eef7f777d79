"""The benchmark of lottery tickets on a few steps: what a job gives, and the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.common import jobs
from benchmarks.inheritance import tickets


def test_rows_and_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tickets, "RESULTS", tmp_path / "tickets.jsonl")
    monkeypatch.setattr(tickets, "STEPS", 3)
    assert tickets.report() == "There is no result yet."
    dense, found = tickets.run("dense", 0.0, 0), tickets.run("magnitude", 0.8, 0)
    assert list(dense["accuracy"]) == ["dense"]
    assert list(found["accuracy"]) == ["magnitude", "magnitude, re-drawn", "random, its densities"]
    assert len(set(found["accuracy"].values())) > 1
    for seed in (0, 1):
        jobs.append_row(tickets.RESULTS, {**dense, "seed": seed, "accuracy": {"dense": 0.9 + 0.02 * seed}})
        moved = {"magnitude": 0.95 + 0.02 * seed, "random, its densities": 0.8}
        jobs.append_row(tickets.RESULTS, {**found, "seed": seed, "accuracy": moved, "choosing": 2.0})
    lines = tickets.report().splitlines()
    assert "2 seeds" in lines[0]
    assert lines[4] == "| 0 % | dense | 91.0 ± 12.7 | | | |"
    assert lines[5] == "| 80 % | magnitude | 96.0 ± 12.7 | +5.0 ± 0.0 | – | 2 |".replace("–", "")
    assert lines[6].startswith("| 80 % | random, its densities | 80.0 ± 0.0 | -11.0 ± 12.7 | -16.0 ± 12.7 |")


def test_a_ticket_keeps_its_density_through_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "STEPS", 5)
    model = tickets.network(0)
    ticket = tickets.choose(model, "snip", 0.95, 0)
    ticket.apply_(model)
    tickets.trained(model, 0)
    for at in (0, 2, 4):
        assert torch.equal(model[at].weight != 0, ticket.masks[f"{at}.weight"])
