"""The arithmetic of the proxies' benchmark, and that each of its families has proxies of 4 and 16 times less."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("mlxtend")
pytest.importorskip("transformers")

import autoinit
from benchmarks.choice import proxies
from benchmarks.common import jobs


@pytest.mark.parametrize("name", proxies.FAMILIES)
def test_every_family_has_proxies_that_take_its_batches(name: str) -> None:
    task = proxies.FAMILIES[name]
    model, batch = task.make_model(0), task.train_batches(0)[0]
    sizes = []
    for times in proxies.TIMES:
        small = autoinit.smaller(model, times=times)
        sizes.append(sum(parameter.numel() for parameter in small.parameters()))
        assert torch.isfinite(task.loss_of(small, batch))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < sum(parameter.numel() for parameter in model.parameters())


def found(gain: float, kept: bool = False, seconds: float = 8.0) -> jobs.Row:
    state = "kept" if kept else "win"
    row = {"parameters": 1000, "recipe": "he_normal", "kept": kept, "state": state, "seconds": seconds, "gain": gain}
    return row if kept else {**row, "low": gain - 0.1, "high": gain + 0.1}


def test_a_share_is_that_of_the_lead_in_log_loss() -> None:
    row = {"searches": {"1": found(-2.0), "4": found(-1.5), "16": found(0.0, kept=True)}}
    assert [proxies.share(row, times) for times in (4, 16)] == [0.75, 0.0]
    assert math.isnan(proxies.share({"searches": {"1": found(0.0, kept=True), "4": found(-1.0)}}, 4))


def test_the_table_has_a_row_for_each_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(proxies, "PATH", tmp_path / "proxies.jsonl")
    for seed in (0, 1):
        searches = {"1": found(-2.0), "4": found(-1.5, seconds=2.0), "16": found(0.0, kept=True, seconds=1.0)}
        jobs.append_row(proxies.PATH, {"task": "mlp_tanh", "seed": seed, "searches": searches})
    table = proxies.report()
    assert len([line for line in table.splitlines() if line.startswith("| plain MLP")]) == 6
    assert "| 0.223 (0.202 … 0.247) | win | 75% |" in table
    assert "Proxies ÷ 4: the carried recipe won 2 of 2, the search took 1/4.0 of the time, and the median" in table
