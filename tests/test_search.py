from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from autoinit.budget import Budget, Meter, Schedule
from autoinit.errors import ArgumentError
from autoinit.search import _spent, search
from autoinit.space import LR_STEPS, space_of
from autoinit.task import make_task
from autoinit.tracing import trace_task
from autoinit.trial import OWN, Bench, Candidate

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)


def make_bench(budget: Budget) -> Iterator[Bench]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))
    task = make_task(model, DATA, optimizer=lambda p: torch.optim.SGD(p, lr=0.03))
    graph = trace_task(task)
    with task.preserved() as snapshot:
        yield Bench(task, graph, snapshot, Meter(budget), Schedule.of(600), seed=0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    yield from make_bench(Budget(steps=600))


def test_order_of_trials() -> None:
    bench = next(benches := make_bench(Budget(steps=1200)))
    space = space_of(bench.graph, lr_searched=False)
    search(bench, space)
    tried = [record.candidate.recipe for record in bench.records if record.stage == "search"]
    assert tried[0] == OWN
    assert tuple(tried[1 : 1 + len(space.opening)]) == space.opening
    assert len(tried) > 1 + len(space.opening)
    states = {record.state for record in bench.records if record.stage == "search"}
    assert states == {"complete", "pruned"}
    benches.close()


def test_the_owner_is_never_pruned_and_all_meet_the_same_batches(bench: Bench) -> None:
    search(bench, space_of(bench.graph, lr_searched=False))
    assert bench.records[0].state == "complete"
    assert len({record.seed for record in bench.records if record.stage == "search"}) == 1


def test_the_owner_gets_the_whole_learning_rate_grid(bench: Bench) -> None:
    search(bench, space_of(bench.graph, lr_searched=True))
    own = [record.candidate for record in bench.records[: len(LR_STEPS)]]
    assert set(own) == {Candidate(OWN, lr_step) for lr_step in LR_STEPS}


def test_steps_are_kept_within_the_budget(bench: Bench) -> None:
    search(bench, space_of(bench.graph, lr_searched=False))
    assert 300 < bench.meter.steps <= 1.1 * 600


@pytest.mark.parametrize(("rivals", "spent"), [([], False), (["he_normal"], True)])
def test_the_search_uses_the_finals_share_while_nothing_beats_the_owner(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, rivals: list[str], spent: bool
) -> None:
    bench.schedule = Schedule.of(2_400)
    bench.meter = Meter(Budget(steps=2_400), steps=0.6 * 2_400)
    monkeypatch.setattr("autoinit.search.finalists", lambda records: (Candidate(OWN), rivals))
    assert _spent(bench) is spent


def test_same_seed_same_trials() -> None:
    def keys() -> list[tuple[str, float]]:
        bench = next(iter(make_bench(Budget(steps=600))))
        search(bench, space_of(bench.graph, lr_searched=False))
        return [(record.candidate.recipe.key, record.total) for record in bench.records]

    assert keys() == keys()


def test_a_list_of_recipes_is_tried_and_nothing_else(bench: Bench) -> None:
    search(bench, space_of(bench.graph, lr_searched=False, recipes=["he_normal", "lsuv"]))
    tried = [record.candidate.recipe.key for record in bench.records if record.stage == "search"]
    assert tried == ["as_is", "he_normal", "orthogonal calibration=lsuv"]


def test_trials_are_limited() -> None:
    bench = next(iter(make_bench(Budget(trials=4, steps=100_000))))
    search(bench, space_of(bench.graph, lr_searched=False))
    assert sum(record.stage == "search" for record in bench.records) == 4


def test_storage_keeps_the_trials_with_their_reasons(bench: Bench, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    space = space_of(bench.graph, lr_searched=False, recipes=["he_normal"])
    search(bench, space, storage=storage, study_name="one")
    trials = optuna.load_study(storage=storage, study_name="one").trials
    assert [trial.user_attrs["recipe"] for trial in trials] == ["as_is", "he_normal"]
    with pytest.raises(ArgumentError, match="holds a study 'one' already"):
        search(bench, space, storage=storage, study_name="one")


def test_ctrl_c_goes_to_the_gate_with_the_best_so_far(bench: Bench) -> None:
    def interrupt(event: object) -> None:
        if len(bench.records) == 4:
            bench.progress = lambda event: None
            raise KeyboardInterrupt

    bench.progress = interrupt
    found = search(bench, space_of(bench.graph, lr_searched=False))
    assert found.interrupted
    assert len(bench.records) == 4
    assert (found.champion is None) == (found.verdict is None)


def test_a_second_ctrl_c_is_raised(bench: Bench) -> None:
    def interrupt(event: object) -> None:
        if len(bench.records) >= 4:
            raise KeyboardInterrupt

    bench.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        search(bench, space_of(bench.graph, lr_searched=False))


def test_optuna_s_own_messages_are_silent_and_its_level_is_put_back(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    before = optuna.logging.get_verbosity()
    with caplog.at_level(logging.INFO, logger="optuna"):
        search(bench, space_of(bench.graph, lr_searched=False, recipes=["he_normal"]))
    assert optuna.logging.get_verbosity() == before
