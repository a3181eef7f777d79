"""What the benchmarks of starts from trained weights compute of their rows."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.inheritance import adapters, growth
from benchmarks.inheritance.adapters import STARTS


def test_a_loss_is_reached_where_the_smoothed_curve_is_there() -> None:
    curve = [1.0] * 50 + [0.5] * 50
    assert growth.reached(curve, 0.5) == 0.55  # five steps of the window later
    assert growth.reached(curve, 1.0) == 0.01
    assert growth.reached(curve, 0.4) == math.inf


def test_agreement_is_that_of_early_and_late_rankings() -> None:
    rows = [{"curve": [first] * growth.STEPS, "train": last} for first, last in ((1.0, 0.1), (2.0, 0.2), (3.0, 0.3))]
    assert growth.agreement(rows, 0.01) == pytest.approx(1)
    rows[0]["train"] = 0.9
    assert growth.agreement(rows, 0.01) == pytest.approx(-1 / 3)


def test_each_task_has_its_starts() -> None:
    assert growth.starts_of("gpt, doubled") == ["from scratch", "clone", "net2net", "zero_pad", "identity", "stack"]
    assert growth.starts_of("vit, halved")[1:] == ["select_uniform", "select_consecutive", "select_magnitude"]


def row(start: str, rate: float, seed: int, loss: float) -> dict[str, Any]:
    told = {"date": "2026-11-28", "commit": "abc", "torch": "2", "seconds": 1.0, "task": "gpt_prose", "first": 2.0}
    return {**told, "start": start, "rate": rate, "seed": seed, "train": loss, "val": loss + 0.1}


def test_each_start_is_compared_at_its_own_best_rate() -> None:
    rows = [row("default", rate, seed, 2.0 - (rate == 1.0)) for rate in (0.1, 1.0) for seed in (0, 1)]
    rows += [row("pissa", rate, seed, 1.5 - (rate == 0.1)) for rate in (0.1, 1.0) for seed in (0, 1)]
    said = adapters.report(rows, [])
    lines = {line.split("|")[1].strip(" *"): line for line in said.splitlines() if line.startswith("| ")}
    assert "| × 0.1 | 0.5000 | 0.6000 |" in lines["pissa"]
    assert f"{math.log(0.5):+.3f} [" in lines["pissa"]
    assert f"{math.log(1.5):+.3f} [" in lines["pissa"], "and at the rate that is best for the usual one"
    assert "| × 1 | 1.0000 |" in lines["default"]
    assert STARTS[0] == "default"


def test_what_diverged_is_said() -> None:
    rows = [row("default", 1.0, seed, 1.0) for seed in (0, 1)] + [row("pissa", 1.0, seed, math.inf) for seed in (0, 1)]
    assert "diverged" in adapters.report(rows, [])
