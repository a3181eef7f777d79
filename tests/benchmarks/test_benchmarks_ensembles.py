"""The benchmark of ensembles: what is measured of members, a job on a few steps, and the table."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from benchmarks.choice import ensembles
from benchmarks.common import jobs


def test_losses_and_how_far_members_part() -> None:
    sure, unsure = [0.9, 0.1], [0.4, 0.6]
    members = torch.tensor([[sure, sure], [unsure, sure]], dtype=torch.float64)
    found = ensembles.scores(members, torch.tensor([0, 0]))
    assert found["member_losses"] == pytest.approx([-math.log(0.9), -(math.log(0.4) + math.log(0.9)) / 2])
    assert found["member_accuracies"] == [1.0, 0.5]
    assert found["loss"] == pytest.approx(-(math.log(0.65) + math.log(0.9)) / 2)
    assert found["accuracy"] == 1.0
    assert found["disagreement"] == 0.5
    there = 0.9 * math.log(0.9 / 0.4) + 0.1 * math.log(0.1 / 0.6)
    back = 0.4 * math.log(0.4 / 0.9) + 0.6 * math.log(0.6 / 0.1)
    assert found["divergence"] == pytest.approx((there + back) / 2 / 2)
    assert found["gain"] == pytest.approx(sum(found["member_losses"]) / 2 - found["loss"])


def test_equal_members_gain_nothing() -> None:
    found = ensembles.scores(torch.full((3, 4, 5), 0.2, dtype=torch.float64), torch.arange(4))
    assert (found["gain"], found["disagreement"], found["divergence"]) == (pytest.approx(0), 0, 0)


def test_rows_and_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ensembles, "RESULTS", tmp_path / "ensembles.jsonl")
    monkeypatch.setattr(ensembles, "MEMBERS", 2)
    assert ensembles.report() == "There is no result yet."
    row = ensembles.run("digits_mlp", 0, smoke=True)
    assert list(row["ways"]) == ["as-is", "selected", "he_normal"]
    assert len({tuple(way["member_losses"]) for way in row["ways"].values()}) == (2 if row["kept"] else 3)
    assert all(len(set(way["member_losses"])) == 2 and way["disagreement"] > 0 for way in row["ways"].values())
    way = {**row["ways"]["as-is"], "member_losses": [0.5, 0.7], "member_accuracies": [0.8, 0.9], "loss": 0.55}
    for seed in (0, 1):
        ways = {"as-is": way, "selected": way, "he_normal": {**way, "loss": 0.45}}
        jobs.append_row(ensembles.RESULTS, {**row, "seed": seed, "kept": True, "ways": ways, "search_steps": 3.0})
    lines = ensembles.report().splitlines()
    assert lines[2].startswith("| MLP, 5 layers, ReLU (digits_mlp) | as-is | 0.600, 85.0 % | 0.550, ")
    assert "| selected (as-is kept in 2 of 2) |" in lines[3]
    assert lines[-1].startswith(
        "digits_mlp: the ensemble's loss against as-is, 90 % interval: selected +0.000 (+0.000 to"
    )
    assert "he_normal -0.100" in lines[-1]
    assert "The search took 3 steps, 50 % of the members' trainings." in lines[-1]
