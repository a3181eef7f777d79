"""What new rows get: the distribution of draws, and statistics of old rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import bits
from torch import nn

from autoinit.inheritance.row_fills import SMALL
from autoinit.inheritance.rows import new_rows


def language(rows: int = 12, columns: int = 5, **settings: Any) -> nn.Sequential:
    return nn.Sequential(nn.Embedding(rows, columns, **settings), nn.Linear(columns, rows))


@pytest.mark.parametrize("many", [False, True], ids=["few at a time", "more than columns"])
def test_draws_have_mean_and_covariance_of_the_old_rows(many: bool) -> None:
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(6, 6)) * np.array([3.0, 1.0, 1.0, 0.3, 0.1, 0.0])  # one direction has no spread
    old = generator.normal(size=(300, 6)) @ mixing.T + 5.0
    count = 20000 if many else 5
    table = nn.Embedding(300 + count, 6)
    table.weight.data[:300] = torch.from_numpy(old)
    seeds = range(1 if many else 1500)
    drawn = np.concatenate(
        [
            new_rows(table, method="mean_cov", old=300, seed=seed, spread=1.0).values["weight"][300:].numpy()
            for seed in seeds
        ]
    ).astype(np.float64)
    covariance = np.cov(old.T, bias=True)
    error = np.cov(drawn.T) - covariance
    # Entries of a sample covariance of n draws have the variance (σ_ii σ_jj + σ_ij²)/n.
    spread = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / len(drawn))
    assert (abs(error) < 5 * spread + 1e-6).all()
    assert (abs(drawn.mean(0) - old.mean(0)) < 5 * np.sqrt(np.diag(covariance) / len(drawn)) + 1e-5).all()
    along = np.linalg.svd(drawn - drawn.mean(0), compute_uv=False) / np.sqrt(len(drawn))
    assert along[4] > 20 * along[5], "old rows leave one direction out"
    assert not (abs(error + 0.1 * covariance) < 5 * spread + 1e-6).all(), "a covariance of nine tenths is told apart"


def test_rows_read_in_pieces_are_drawn_like_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = language(200, 5)
    whole = new_rows(model, method="mean", old=190).values["0.weight"]
    monkeypatch.setattr("autoinit.inheritance.row_fills.CHUNK", 7)
    torch.testing.assert_close(new_rows(model, method="mean", old=190).values["0.weight"], whole)
    drawn = new_rows(model, method="mean_cov", rows=slice(60, None), spread=1.0).values["0.weight"][60:]
    old = model[0].weight.detach()[:60]
    torch.testing.assert_close(drawn.T.cov(), old.T.cov(correction=0), atol=0.6, rtol=0)


def test_spread_is_in_standard_deviations() -> None:
    model = language()
    mean = new_rows(model, old=9).values["0.weight"]
    full = new_rows(model, method="mean_cov", old=9, spread=1.0).values["0.weight"]
    half = new_rows(model, method="mean_cov", old=9, spread=0.5).values["0.weight"]
    torch.testing.assert_close(half - mean, 0.5 * (full - mean))
    assert bits(new_rows(model, method="mean_cov", old=9, spread=0.0).values["0.weight"]) == bits(mean)


def test_draws_depend_on_the_seed_and_the_name_alone() -> None:
    model = language(12, 12)
    model[1].weight.data.copy_(model[0].weight.data)
    first, again, other = (new_rows(model, method="mean_cov", old=9, seed=seed).values for seed in (1, 1, 2))
    assert bits(first["0.weight"]) == bits(again["0.weight"]) != bits(other["0.weight"])
    assert bits(first["0.weight"]) != bits(first["1.weight"])


def test_small_rows_are_a_share_of_the_old_ones() -> None:
    model = language(3000, 40)
    value = new_rows(model, method="small", old=1000).values["1.weight"]
    size = value[:1000].square().mean().sqrt()
    drawn = value[1000:].square().mean().sqrt()
    assert abs(drawn / size - SMALL) < 5 * SMALL / (2 * 80000) ** 0.5
    zero = new_rows(model, method="zero", old=1000).values
    assert not zero["1.weight"][1000:].any()
    assert not zero["1.bias"][1000:].any()


def test_a_padding_row_stays_zero_and_out_of_the_mean() -> None:
    model = language(padding_idx=0)
    given = new_rows(model, old=9)
    torch.testing.assert_close(given.values["0.weight"][9], model[0].weight.detach()[1:9].mean(0))
    assert not given.values["0.weight"][0].any()
    late = language(padding_idx=11)
    given = new_rows(late, old=9)
    assert not given.values["0.weight"][11].any()
    assert given.values["0.weight"][10].all()
    assert given.notes == ("Row 11 of 0.weight stands for padding and is zero.",)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_of_half_precision_are_taken_in_float32(dtype: torch.dtype) -> None:
    """Sums of 20,000 rows of ones overflow float16 at 65,504 and stand still in bfloat16 at 256."""
    model = nn.Embedding(100_004, 3).to(dtype)
    model.weight.data[:] = 1.5
    if dtype == torch.float16:
        model.weight.data[:] = 300.0  # the squares are above its largest number
        small = new_rows(model, method="small", old=100_000).values["weight"][100_000:]
        assert 3 < small.float().square().mean().sqrt() < 300
    model.weight.data[:] = 1.5
    for method in ("mean", "mean_cov"):
        value = new_rows(model, method=method, old=100_000).values["weight"]
        assert value.dtype == dtype
        assert (value[100_000:] == 1.5).all()
