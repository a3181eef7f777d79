"""The benchmark of stale weights on two short tasks: what each method does between them, and the table."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import autoinit
from autoinit.renewal.dormant import find_dormant
from benchmarks.common import jobs
from benchmarks.common.data import mnist_images
from benchmarks.inheritance import continual, sequences
from benchmarks.inheritance.continual import METHODS, _adam, _prepared, _renew, _train, outcomes
from benchmarks.inheritance.sequences import SEQUENCES, dense
from tests.helpers import bits


def short(name: str, seed: int = 0) -> list[sequences.Part]:
    return [dataclasses.replace(part, steps=3) for part in SEQUENCES[name].parts(seed)[:2]]


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_tasks_of_a_sequence_differ_and_repeat(name: str) -> None:
    parts = SEQUENCES[name].parts(0)
    (first, second), again = parts[:2], SEQUENCES[name].parts(0)[1]
    assert torch.equal(second.train[0], again.train[0])
    assert torch.equal(second.train[1], again.train[1])
    alike = first.train[0].shape == second.train[0].shape and torch.equal(first.train[0], second.train[0])
    assert not (alike and torch.equal(first.train[1], second.train[1]))
    assert len(parts) >= 20 or name in ("half, then all", "warped digits, half first")


def test_half_of_the_warped_digits_is_a_part_of_all_and_none_of_them_is_held_back() -> None:
    half, everything = SEQUENCES["warped digits, half first"].parts(0)
    assert torch.equal(everything.train[0][:1000], half.train[0])
    assert len(everything.train[0]) == 2000
    together = torch.cat([everything.train[0], everything.held_back[0]]).flatten(1)
    assert len(torch.unique(together, dim=0)) == len(together) == 5000


def test_warped_digits_are_digits_that_have_been_moved() -> None:
    plain = mnist_images()
    x, y = sequences.warped_digits(degrees=0.0, shift=0.0, noise=0.0)
    torch.testing.assert_close(x, torch.cat([plain.train_x, plain.val_x]), atol=1e-4, rtol=0.0)
    assert torch.equal(y[: len(plain.train_y)], plain.train_y)
    shifted, _ = sequences.warped_digits(degrees=0.0, shift=0.25, noise=0.0)
    assert shifted.min() >= x.min() - 1e-4  # nothing blacker or whiter comes in at the border
    ink, place = (x - x.min()).sum((1, 2)), torch.arange(14.0)
    moved = ((shifted - x.min()).sum((1, 2)) * place).sum(1) / (shifted - x.min()).sum((1, 2, 3))
    distance = (moved - (ink * place).sum(1) / ink.sum(1)).abs()
    assert 1.0 < distance.mean() < 2.0  # pixels: the mean of what is uniform up to 3.5, cut at the border


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_does_before_a_task(name: str) -> None:
    method, part = METHODS[name], short("pairs of digits")[0]  # three steps: before any unit is renewed
    model = dense(2, 0)
    graph = autoinit.trace(model, tuple(one[:50] for one in part.train))
    optimizer = _adam(model, method)
    _train(model, optimizer, graph, method, part, torch.Generator().manual_seed(0), network=dense)
    old = {key: value.clone() for key, value in model.state_dict().items()}
    states = {id(one): optimizer.state[one]["exp_avg"].clone() for one in model[0].parameters()}
    fresh = dense(2, 5)
    after, next_optimizer = _prepared(model, optimizer, graph, method, fresh, heads_differ=True)
    assert bits(after[-1].weight) == bits(fresh[-1].weight)
    shrink, perturb = method.shares or ((0.0, 1.0) if method.fresh else (1.0, 0.0))
    expected = shrink * old["0.weight"] + perturb * dense(2, 5)[0].weight
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
    course = dataclasses.replace(SEQUENCES["random labels"], parts=lambda seed: parts)
    monkeypatch.setitem(SEQUENCES, "random labels", course)
    for method in ("as it is", "ReDo"):
        row: dict[str, Any] = continual.run("random labels", method, 0)
        assert len(row["newest"]) == len(row["learned"]) == len(row["dormant"]) == 2
        assert len(row["old"]) == 1
        assert outcomes(row) == (row["newest"][1], row["old"][0], row["dormant"][1])
        for seed in (0, 1):
            moved = {**row, "seed": seed, "newest": [0.5, 0.6 + 0.02 * seed + 0.1 * (method == "ReDo")]}
            jobs.append_row(continual.RESULTS, moved)
    lines = continual.report().splitlines()
    assert "2 seeds" in lines[0]
    assert "| random labels | ReDo | 71.0 ± 12.7 | +10.0 ± 0.0 |" in lines[-1]


def test_dormant_channels_of_the_convolutional_network_are_renewed() -> None:
    course, part = SEQUENCES["warped digits, half first"], short("warped digits, half first")[0]
    model = course.network(10, 0)
    graph = autoinit.trace(model, tuple(one[:50] for one in part.train))
    found = find_dormant(model, graph, [part.held_back[0][:100]], threshold=0.0)
    assert [len(units) for units in found.layers.values()] == [16, 32, 64]
    with torch.no_grad():
        model[2].bias[:5] = -100.0
    method, orders = METHODS["ReDo"], torch.Generator().manual_seed(0)
    renewed = _renew(model, _adam(model, method), graph, method, part.train[0][:100], orders, network=course.network)
    assert renewed >= 5
    assert not model[2].bias[:5].any()
    assert not model[4].weight[:, :5].any()


def test_the_number_of_seeds_may_differ_between_sequences() -> None:
    rows = [{"sequence": name, "seed": seed} for name, count in (("random labels", 2),) for seed in range(count)]
    assert continual._seeds(rows) == "2"
    more = [{"sequence": "half, then all", "seed": seed} for seed in range(5)]
    assert continual._seeds(rows + more) == "2 to 5"
