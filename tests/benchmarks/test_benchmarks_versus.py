"""The side-by-side benchmark: its accounting, its ranks, and that every method does what it says. No table is run."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import itertools
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from once import few_trees, known
from torch import Tensor, nn

from autoinit.recommender.model import Recommender

pytest.importorskip("sklearn")
pytest.importorskip("mlxtend")
pytest.importorskip("transformers")
pytest.importorskip("lsuv")
pytest.importorskip("gradinit")

from benchmarks.common.jobs import Row
from benchmarks.common.tasks import TASKS, BenchTask
from benchmarks.common.training import train
from benchmarks.versus import equal_cost, peers
from benchmarks.versus import side_by_side as versus
from benchmarks.versus import tables as versus_tables
from benchmarks.versus import tasks as versus_tasks
from benchmarks.versus.equal_cost import APART, allowance, horizon, long_steps, places_up_to, search_steps
from benchmarks.versus.peers import (
    METHODS,
    Method,
    Start,
    gradinit_peer,
    lsuv_peer,
    metainit,
    one_size,
    ours,
    random_search,
)
from benchmarks.versus.peers.cost import FREE, Identity, Watch, changes, counted
from benchmarks.versus.results import bootstrap, end_of, indexed, rank_table, ranks, steps_to_target, view
from benchmarks.versus.tasks import FAMILIES, NORMALIZED, VERSUS

CLASSES = TASKS["tabular_class"]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> BenchTask:
    """A task of twenty steps, in the place of the one of its name; budgets from 30 steps."""
    task = dataclasses.replace(CLASSES, steps=20)
    monkeypatch.setitem(VERSUS, task.name, task)
    monkeypatch.setattr(equal_cost, "LEAST", 30)
    return task


class TestEqualCost:
    def test_an_allowance_is_training_and_search(self) -> None:
        task = dataclasses.replace(CLASSES, steps=1000)
        assert [search_steps(task, name) for name in ("small", "middle", "large")] == [1000, 2000, 4000]
        assert allowance(task, "middle") == 3000
        assert allowance(task, "middle", stretch=8) == 10_000

    def test_a_short_task_has_the_least_budget(self) -> None:
        assert search_steps(dataclasses.replace(CLASSES, steps=400), "small") == 600

    def test_what_the_weights_took_is_not_trained_for(self) -> None:
        task = dataclasses.replace(CLASSES, steps=1000)
        assert horizon(task, "small", 0) == 2000
        assert horizon(task, "small", 999.5) == 1000
        assert horizon(task, APART, 999.5) == 1000

    def test_beyond_the_allowance_nothing_is_left(self) -> None:
        task = dataclasses.replace(CLASSES, steps=1000)
        assert horizon(task, "small", 1999) == 1
        assert horizon(task, "small", 1999.1) is None
        assert horizon(task, "middle", 1999.1) == 1000
        assert horizon(task, APART, 1e9) == long_steps(task)

    def test_a_reach_has_all_smaller_allowances(self) -> None:
        assert places_up_to("middle") == (APART, "small", "middle")


class TestTasks:
    def test_half_of_them_have_normalization_or_skips(self) -> None:
        assert len(VERSUS) == 20
        assert len(NORMALIZED) == 10

    @pytest.mark.parametrize("name", VERSUS)
    def test_the_normalized_are_those_with_such_layers(self, name: str) -> None:
        norms = (nn.LayerNorm, nn.modules.batchnorm._NormBase, nn.GroupNorm)
        model = VERSUS[name].make_model(0)
        assert any(isinstance(module, norms) for module in model.modules()) == (name in NORMALIZED)

    def test_every_one_has_its_families_and_they_are_studied(self) -> None:
        studies = (tomllib.loads(Path(f"studies/{name}.toml").read_text()) for name in ("overnight", "architectures"))
        studied = {model["family"] for study in studies for grid in study["grids"] for model in grid["models"]}
        assert FAMILIES.keys() == VERSUS.keys()
        assert set().union(*FAMILIES.values()) <= studied

    @pytest.mark.parametrize("name", versus_tasks.ADDED)
    def test_an_added_task_learns(self, name: str) -> None:
        task = VERSUS[name]
        assert train(task.make_model(0), task, 0, steps=120).final_train < 0.9 * task.reference()

    def test_halves_come_in_turns(self) -> None:
        names = [task.name for task in versus_tasks.chosen("mlp_relu,mlp_tanh,gpt2_hf")]
        assert names == ["gpt2_hf", "mlp_relu", "mlp_tanh"]
        with pytest.raises(SystemExit, match="unknown tasks gpt3"):
            versus_tasks.chosen("gpt3")
        with pytest.raises(SystemExit, match="unknown methods heh"):
            peers.chosen("he,heh")


class TestTraining:
    def test_one_training_serves_all_horizons(self, tiny: BenchTask) -> None:
        model = tiny.make_model(0)
        trained = versus.train_through(model, tiny, 3, {"short": 20, "long": 50, "same": 50})
        for place, steps in (("short", 20), ("long", 50), ("same", 50)):
            alone = train(model, tiny, 3, steps=steps)
            assert trained.ends[place] == {"steps": steps, "train": alone.final_train, "val": alone.final_val}
        assert len(trained.curve) == 50

    def test_a_divergence_ends_the_horizons_behind_it(self, tiny: BenchTask) -> None:
        wild = dataclasses.replace(tiny, optimizer=functools.partial(torch.optim.SGD, lr=1e30))
        trained = versus.train_through(wild.make_model(0), wild, 0, {"first": 1, "late": 20})
        assert trained.diverged_at is not None
        assert 1 < trained.diverged_at < 20
        assert math.isfinite(trained.ends["first"]["train"])
        assert trained.ends["late"]["train"] == trained.ends["late"]["val"] == math.inf

    def test_a_rate_of_the_grid_is_the_tasks_times_a_factor(self) -> None:
        for task in (CLASSES, TASKS["mlp_relu"]):
            groups = [one.optimizer([nn.Parameter(torch.zeros(1))]).param_groups[0] for one in
                      (task, versus.at_rate(task, 10**0.5))]  # fmt: skip
            assert groups[1]["lr"] == pytest.approx(groups[0]["lr"] * 10**0.5)
            assert {**groups[1], "lr": 0, "params": 0} == {**groups[0], "lr": 0, "params": 0}

    def test_a_kept_curve_is_a_trailing_mean(self) -> None:
        curve = [float(step) for step in range(1, 501)]
        points = versus.thinned(curve, 200)  # windows of 10 steps
        assert points[0] == [10, 5.5]
        assert points[-1] == [500, 495.5]
        assert len([place for place, _ in points if place <= 200]) == 96
        assert len(points) == 196
        assert versus.thinned([1.0] * 5, 200) == []


def arguments(**changed: Any) -> argparse.Namespace:
    given = {"tasks": "tabular_class,gpt2_hf", "methods": "he,select_small,select_large", "seeds": 2,
             "lrs": "centre,low", "reach": "large", "grid_to": "small", "stretch": 1.0}  # fmt: skip
    return argparse.Namespace(**{**given, **changed})


class TestJobs:
    def test_all_tasks_of_one_seed_at_the_centre_come_first(self) -> None:
        found = versus.pending(arguments(), [])
        # Three methods at the centre, of which the large search does not stand under the small allowance.
        assert len(found) == 2 * 2 * (3 + 2)
        assert found[:2] == [("gpt2_hf", "he", 0, "centre", "large", 1.0),
                             ("gpt2_hf", "select_small", 0, "centre", "large", 1.0)]  # fmt: skip
        assert [(job[2], job[3]) for job in found] == sorted((job[2], job[3]) for job in found)
        assert ("gpt2_hf", "select_large", 0, "low", "small", 1.0) not in found

    def test_what_is_done_is_left_out_and_what_fell_short_is_not(self) -> None:
        row = {"task": "gpt2_hf", "method": "he", "seed": 0, "rate": "low", "reach": "small"}
        assert len(versus.pending(arguments(), [row])) == 19
        assert len(versus.pending(arguments(grid_to="middle"), [row])) == 20
        assert len(versus.pending(arguments(grid_to="middle"), [{**row, "reach": "large"}])) == 19


def made(task: str, method: str, train_loss: float | None, seed: int = 0, rate: str = "centre", **fields: Any) -> Row:
    """Returns a row with one loss at every place; None for one whose cost is beyond every allowance."""
    end = None if train_loss is None else {"steps": 9, "train": train_loss, "val": 2 * train_loss}
    ends = dict.fromkeys((APART, "small", "middle", "large"), end)
    row = {"task": task, "method": method, "seed": seed, "rate": rate, "reach": "large", "stretch": 1.0, "steps": 100}
    row |= {"reference": 2.0, "failure": None, "kept": False, "recipe": "", "notes": [], "diverged_at": None}
    row |= {"cost": {"steps": 10.0, "how": "counted", "seconds": 0.1}, "ends": ends, "curve": [[50, 1.0], [80, 0.5]]}
    return {**row, "seconds": 1.0, "date": "2026-01-01", "commit": "abc", "torch": "2", **fields}


class TestRanks:
    def test_equal_losses_and_failures_share_ranks(self) -> None:
        assert ranks([0.2, 0.1, 0.2]) == [2.5, 1, 2.5]
        assert ranks([math.inf, 0.1, math.inf, 0.3]) == [3.5, 1, 3.5, 2]

    def test_the_interval_of_a_constant_has_no_width(self) -> None:
        one, other = bootstrap(np.array([[2.0, 1.0], [2.0, 3.0], [2.0, 5.0]]))
        assert (one.estimate, one.low, one.high) == (2, 2, 2)
        assert other.estimate == 3
        assert 1 <= other.low < 3 < other.high <= 5

    def test_the_interval_is_about_that_of_the_mean(self) -> None:
        values = np.random.default_rng(1).normal(size=(400, 1))
        (interval,) = bootstrap(values)
        half = 1.96 * values.std() / 20
        assert interval.high - interval.low == pytest.approx(2 * half, rel=0.1)

    def test_differences_are_paired(self) -> None:
        """Ranks that vary much from task to task, and a difference that does not."""
        base = np.random.default_rng(0).normal(size=20) * 10
        table = np.stack([base, base + 1], axis=1)
        assert bootstrap(table - table[:, [0]])[1].low == pytest.approx(1)

    def test_a_tie_of_identical_trainings(self) -> None:
        rows = [made("gpt2_hf", "default", 0.5), made("gpt2_hf", "select_small", 0.5, kept=True),
                made("gpt2_hf", "he", 0.4)]  # fmt: skip
        one = view(indexed(rows), ["gpt2_hf"], "small", best=False)
        assert dict(zip(one.ranked, rank_table(one, ["gpt2_hf"], "train")[0], strict=True)) == {
            "default": 2.5,
            "he": 1.0,
            "select_small": 2.5,
        }


class TestViews:
    def test_each_method_has_its_own_best_rate_of_those_that_all_have(self) -> None:
        rows = [made("gpt2_hf", "default", loss, rate=rate) for rate, loss in (("centre", 2), ("low", 1), ("high", 0))]
        rows += [made("gpt2_hf", "he", loss, rate=rate) for rate, loss in (("centre", 2), ("low", 3))]
        one = view(indexed(rows), ["gpt2_hf"], "small", best=True)
        assert one.rates["gpt2_hf"] == ("centre", "low")
        assert {name: (shown.rate, shown.train) for name, shown in one.shown["gpt2_hf"].items()} == {
            "default": ("low", (1,)),
            "he": ("centre", (2,)),
        }

    def test_the_rate_is_the_best_over_the_seeds_and_not_for_each(self) -> None:
        losses = {("centre", 0): 2.0, ("centre", 1): 2.0, ("low", 0): 1.0, ("low", 1): 4.0}
        rows = [made("gpt2_hf", "he", loss, seed=seed, rate=rate) for (rate, seed), loss in losses.items()]
        assert view(indexed(rows), ["gpt2_hf"], "small", best=True).shown["gpt2_hf"]["he"].train == (2.0, 2.0)

    def test_a_task_counts_where_every_method_has_been_run(self) -> None:
        rows = [made("gpt2_hf", "he", 1.0), made("gpt2_hf", "default", 1.0), made("mlp_relu", "he", 1.0)]
        assert list(view(indexed(rows), ["gpt2_hf", "mlp_relu"], "small", best=False).shown) == ["gpt2_hf"]

    def test_a_grid_of_one_seed_is_compared_on_that_seed(self) -> None:
        rows = [made("gpt2_hf", name, 1.0, seed) for name in ("default", "he") for seed in (0, 1)]
        rows += [made("gpt2_hf", name, 0.5, 1, rate="low") for name in ("default", "he")]
        found = indexed(rows)
        best = view(found, ["gpt2_hf"], "small", best=True)
        assert best.rates == {"gpt2_hf": ("centre", "low")}
        assert best.shown["gpt2_hf"]["he"].seeds == (1,)
        assert best.shown["gpt2_hf"]["he"].rate == "low"
        assert view(found, ["gpt2_hf"], "small", best=False).shown["gpt2_hf"]["he"].seeds == (0, 1)

    def test_a_failure_is_a_result_and_what_was_not_asked_is_none(self) -> None:
        raised = made("gpt2_hf", "he", 1.0, failure={"kind": "raised", "words": "no"}, reach="small")
        assert end_of(raised, "small") == end_of(raised, APART) == (math.inf, math.inf)
        assert end_of(raised, "middle") is None
        assert end_of(made("gpt2_hf", "he", None), "small") == (math.inf, math.inf)
        short = made("gpt2_hf", "he", 1.0)
        del short["ends"]["large"]
        assert end_of(short, "large") is None

    def test_under_an_allowance_the_select_of_its_budget_is_ranked(self) -> None:
        rows = [made("gpt2_hf", name, 1.0) for name in METHODS]
        found = indexed(rows)
        middle = view(found, ["gpt2_hf"], "middle", best=False)
        assert [name for name in middle.ranked if "select" in name] == ["select_quick", "select_middle"]
        assert middle.subjects == ["select_middle", "select_quick", "recommend"]
        assert "select_small" in middle.methods
        assert "random_search" in middle.ranked
        assert "random_search" not in view(found, ["gpt2_hf"], "small", best=False).methods
        apart = view(found, ["gpt2_hf"], APART, best=False)
        assert len(apart.ranked) == len(METHODS)
        assert apart.subjects == ["select_large", "select_quick", "recommend"]

    def test_the_furthest_training_of_a_key_counts(self) -> None:
        far, near = made("gpt2_hf", "he", 1.0), made("gpt2_hf", "he", 3.0, reach="small")
        assert next(iter(indexed([far, near]).values())) is far


def test_steps_to_a_target_have_the_weights_cost() -> None:
    row = made("gpt2_hf", "he", 1.0)  # 10 steps before a training of 100; at 0.5 after 80 steps
    assert steps_to_target(row, 0.5) == pytest.approx(0.9)
    assert steps_to_target(row, 0.1) == pytest.approx(2.1)
    assert steps_to_target({**row, "failure": {"kind": "raised", "words": ""}}, 0.5) == 2
    beyond = {**row, "curve": [[50, 1.0], [101, 0.1]]}
    assert steps_to_target(beyond, 0.1) == pytest.approx(2.1)


class TestReport:
    def test_it_tells_ranks_harm_and_failures(self) -> None:
        rows = []
        for task in VERSUS:
            for seed in (0, 1, 2):
                rows += [made(task, name, 1.0, seed) for name in METHODS if name not in ("metainit", "select_large")]
                rows += [made(task, "metainit", None, seed), made(task, "select_large", 0.5 + 0.01 * seed, seed)]
        raised = {"kind": "raised", "words": "RuntimeError: it cannot"}
        rows.append(made("gpt2_hf", "gradinit_package", 1.0, 2, failure=raised))
        rows.append(made("mlp_relu", "gradinit_package", 1.0, 2, notes=["unties a and b"], diverged_at=3))
        text = versus_tables.report(rows)
        assert "| select, large | 1.00 [1.00, 1.00] |" in text
        # Eleven tie behind it at 7; on one task of twenty one of them fails, and ten tie at 6.5.
        assert "| default | 6.97 [6.92, 7.00] |" in text
        assert "- pip gradinit: raised, RuntimeError: it cannot: gpt2_hf." in text
        assert "- pip gradinit: unties a and b: mlp_relu." in text
        assert "- pip gradinit: diverged: mlp_relu." in text
        assert "cost beyond the small allowance" in text
        assert "- select, large, the large allowance, training: no harm 20, HARM 0, not shown 0" in text
        assert "nan" not in text

    def test_peers_are_behind_what_is_recommended_where_it_is_better_on_every_task(self) -> None:
        rows = [made(task, name, 1.0) for task in VERSUS for name in ("default", "he", "select_small")]
        rows += [made(task, "recommend", 0.5) for task in VERSUS]
        found = indexed(rows)
        lines = versus_tables.ranking(view(found, list(VERSUS), "small", best=False)).splitlines()
        titles = lines[0].split(" | ")
        places = [place for place, title in enumerate(titles) if title.startswith("behind our recommend")]
        assert len(places) == 2  # by training and by validation loss
        cells = {line.split(" | ")[0]: [line.split(" | ")[place] for place in places] for line in lines[2:]}
        assert cells["| our recommend, family unseen"] == ["-", "-"]
        assert cells["| He"] == cells["| select, small"] == ["2.00 [2.00, 2.00] clear"] * 2

    def test_harm_of_what_is_recommended_is_tested_too(self) -> None:
        rows = [made(task, name, 1.0, seed) for task in VERSUS for name in ("default", "recommend") for seed in (0, 1)]
        text = versus_tables.report(rows)
        assert "- our recommend, family unseen, cost apart, training: no harm 20, HARM 0, not shown 0" in text

    def test_harm_is_tested_on_all_seeds_of_a_select_and_the_default_whoever_else_was_run(self) -> None:
        rows = [made(task, name, 1.0, 0) for task in VERSUS for name in METHODS]
        assert "It needs two seeds" in versus_tables.report(rows)
        more = ("default", "select_small")
        rows += [made(task, name, 1.0, seed) for task in VERSUS for name in more for seed in (1, 2)]
        text = versus_tables.report(rows)
        assert "- select, small, cost apart, training: no harm 20, HARM 0, not shown 0" in text
        assert "- select, large" not in text

    def test_a_beginning_has_a_report_too(self) -> None:
        assert versus_tables.report([]) == "There is no result yet."
        assert "default" in versus_tables.report([made("gpt2_hf", "default", 1.0)])
        raised = made("gpt2_hf", "he", 1.0, failure={"kind": "raised", "words": "no"})
        for field in ("cost", "ends", "curve", "notes", "kept", "diverged_at"):
            del raised[field]
        assert "raised, no" in versus_tables.report([raised, made("gpt2_hf", "default", 1.0)])


class Odd(nn.Module):
    """A convolution, a normalization, an embedding tied to a head, an LSTM, and bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64)
        self.table, self.head = nn.Embedding(300, 200), nn.Linear(200, 300)
        self.head.weight = self.table.weight
        self.lstm = nn.LSTM(50, 60)
        self.position, self.scale = nn.Parameter(torch.zeros(1, 50, 60)), nn.Parameter(torch.ones(7))


def odd() -> Odd:
    torch.manual_seed(0)
    return Odd()


class TestOneSize:
    @pytest.mark.parametrize(
        ("draw", "conv", "table"),
        [
            (one_size.he, math.sqrt(2 / (16 * 9)), math.sqrt(2 / 200)),
            (one_size.xavier, math.sqrt(2 / (80 * 9)), math.sqrt(2 / 500)),
            (one_size.orthogonal, math.sqrt(1 / (16 * 9)), math.sqrt(1 / 300)),
        ],
    )
    def test_the_stds_that_they_claim(self, draw: Callable[..., Start], conv: float, table: float) -> None:
        model = odd()
        assert draw(model, CLASSES, 0) is FREE
        assert model.conv.weight.std().item() == pytest.approx(conv, rel=0.03)
        assert model.table.weight.std().item() == pytest.approx(table, rel=0.03)
        assert model.position.std() > 0
        assert model.head.weight is model.table.weight

    def test_biases_are_zero_and_scales_stay(self) -> None:
        model = odd()
        one_size.he(model, CLASSES, 0)
        for bias in (model.conv.bias, model.head.bias, model.norm.bias, model.lstm.bias_ih_l0, model.lstm.bias_hh_l0):
            assert bias is not None
            assert not bias.any()
        assert bool((model.norm.weight == 1).all())
        assert bool((model.scale == 1).all())

    def test_orthogonal_rows(self) -> None:
        model = odd()
        one_size.orthogonal(model, CLASSES, 0)
        rows = model.conv.weight.flatten(1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(64), atol=1e-5, rtol=0)


def net() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    return model, torch.randn(8, 3, dtype=torch.float64), torch.randint(2, (8,))


class TestMetaInit:
    def test_the_quotient_is_that_of_the_whole_hessian(self) -> None:
        model, x, y = net()
        names = [name for name, _ in model.named_parameters()]
        sizes = [parameter.numel() for parameter in model.parameters()]

        def loss(flat: Tensor) -> Tensor:
            parts = [part.view_as(p) for part, p in zip(flat.split(sizes), model.parameters(), strict=True)]
            return F.cross_entropy(torch.func.functional_call(model, dict(zip(names, parts, strict=True)), (x,)), y)

        flat = nn.utils.parameters_to_vector(model.parameters()).detach()
        gradient = torch.autograd.functional.jacobian(loss, flat)
        product = torch.autograd.functional.hessian(loss, flat) @ gradient
        sign = torch.where(gradient >= 0, 1.0, -1.0)
        expected = ((gradient - product) / (gradient + metainit.EPSILON * sign) - 1).abs().mean()
        found = metainit.gradient_quotient(F.cross_entropy(model(x), y), list(model.parameters()))
        torch.testing.assert_close(found, expected)

    def test_it_is_zero_where_the_gradient_is_constant(self) -> None:
        model, x, _ = net()
        parameters = list(model[0].parameters())  # type: ignore[index]
        # A trace of curvature, since what has none at all has no second derivative to ask for.
        loss = model[0](x).sum() + 1e-9 * sum(p.square().sum() for p in parameters)  # type: ignore[index]
        assert metainit.gradient_quotient(loss, parameters).item() < 1e-4

    @pytest.mark.parametrize("seed", range(3))
    def test_small_moves_lower_it_each_time(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Steps as long as the paper's jump about, and lower it on some draws only; short ones show the direction."""
        monkeypatch.setattr(metainit, "LR", 1e-7)
        model = CLASSES.make_model(seed).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)
        x, y = CLASSES.train_batches(seed)[0]
        found = list(metainit.descent(model, CLASSES, [(x.double(), y)], 5))
        assert all(after < before for before, after in itertools.pairwise(found))

    def test_only_norms_of_weights_move(self) -> None:
        model = CLASSES.make_model(0)
        before = {name: value.clone() for name, value in model.named_parameters()}
        assert metainit.prepare(model, CLASSES, 0, iterations=3).steps > 0
        for name, value in model.named_parameters():
            if value.ndim == 1:
                assert value.equal(before[name])
            else:
                torch.testing.assert_close(value / value.norm(), before[name] / before[name].norm())
                assert (value.norm() - before[name].norm()).abs() > 0.05
        assert model.training


class TestCost:
    def test_passes_with_gradients_count_whole(self) -> None:
        model = CLASSES.make_model(0)
        x, _ = CLASSES.train_batches(0)[0]
        with counted(model, len(x)) as passes:
            model(x)
            with torch.no_grad():
                model(x)
                model(torch.cat([x, x]))
        model(x)
        assert passes.steps == pytest.approx(2)

    def test_a_copy_without_weights_computes_nothing(self) -> None:
        model = CLASSES.make_model(0)
        with counted(model, 4) as passes:
            copy.deepcopy(model).to("meta")(torch.empty(4, 30, device="meta"))
        assert passes.steps == 0

    def test_the_price_is_the_median_ratio_and_leaves_the_model_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, batches = CLASSES.make_model(0), CLASSES.train_batches(0)
        before = [parameter.clone() for parameter in model.parameters()]
        ticks = iter([0, 9])  # the first plain step is not counted
        taken = [(6, 2), (100, 1), (4, 2)]  # seconds of an iteration, and of the plain step after it
        clock = itertools.chain(ticks, *((0, iteration, 0, plain) for iteration, plain in taken))
        monkeypatch.setattr("benchmarks.versus.peers.cost.time.process_time", lambda: next(clock))
        watch = Watch(model, CLASSES, batches)
        assert watch.steps == 0
        for _ in taken:
            with watch.iteration():
                pass
        assert watch.steps == 3 * 3
        assert all(one.equal(other) for one, other in zip(before, model.parameters(), strict=True))

    def test_nothing_is_said_of_weights_alone(self) -> None:
        model = odd()
        before = Identity.of(model)
        one_size.he(model, CLASSES, 0)
        assert changes(before, Identity.of(model)) == []

    def test_what_else_is_changed_is_said(self) -> None:
        model = odd()
        before = Identity.of(model)
        model.head.weight = nn.Parameter(model.head.weight.detach().clone())
        model.conv.weight.requires_grad_(False)
        model.scale = nn.Parameter(torch.ones(8))
        model.norm.running_mean += 1  # type: ignore[operator]
        del model.position
        assert changes(before, Identity.of(model)) == [
            "unties head.weight and table.weight",
            "loses position",
            "reshapes scale",
            "freezes conv.weight",
            "moves 1 buffers, norm.running_mean first",
        ]


@pytest.fixture(scope="module")
def blind() -> Recommender:
    """What is recommended to one task, of few trees; whoever asks for it after that meets the same one."""
    with few_trees(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoinit.knowledge.files.shipped", known)
        return ours.blind(FAMILIES[CLASSES.name])


class TestPeers:
    """Each on one task, with few iterations."""

    def test_lsuv_gives_unit_variance(self) -> None:
        model = CLASSES.make_model(0)
        start = lsuv_peer.prepare(model, CLASSES, 0)
        outputs = model[0](CLASSES.train_batches(0)[0][0])  # type: ignore[index]
        assert outputs.std().item() == pytest.approx(1, abs=0.1)
        assert start.how == "counted"
        assert 4 / 3 <= start.steps < 10

    def test_gradinit_rescales_and_costs_more_than_its_steps(self) -> None:
        model = CLASSES.make_model(0)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        start = gradinit_peer.prepare(model, CLASSES, 0, iterations=4)
        assert start.how == "measured"
        assert start.steps > 0
        for old, new in zip(before, model.parameters(), strict=True):
            torch.testing.assert_close(new / new.norm(), old / old.norm())
        assert any(not old.equal(new) for old, new in zip(before, model.parameters(), strict=True))

    def test_gradinit_runs_on_attention_and_unties(self) -> None:
        task = TASKS["gpt2_hf"]
        model = task.make_model(0)
        before = Identity.of(model)
        gradinit_peer.prepare(model, task, 0, iterations=1)
        assert changes(before, Identity.of(model)) == ["unties lm_head.weight and transformer.wte.weight"]

    def test_random_search_keeps_within_its_budget_and_takes_the_best(self) -> None:
        model = CLASSES.make_model(0)
        start = random_search.search(model, CLASSES, 0, 300)
        assert start.notes[0] in ("3 points", "4 points")
        assert 150 < start.steps <= 300
        assert start.recipe
        again = CLASSES.make_model(0)
        random_search.search(again, CLASSES, 0, 300)
        assert all(one.equal(two) for one, two in zip(model.parameters(), again.parameters(), strict=True))

    def test_a_single_recipe_is_what_the_library_applies(self) -> None:
        import autoinit

        model, other = CLASSES.make_model(0), CLASSES.make_model(0)
        start = ours.single(model, CLASSES, 0, "lsuv_centred")
        autoinit.apply_(other, "lsuv_centred", CLASSES.train_batches(0), loss=CLASSES.loss)
        assert all(one.equal(two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
        assert 1 < start.steps < 10

    def test_what_is_recommended_is_by_others_than_the_tasks_families(self, blind: Recommender) -> None:
        """The recommender's own record of what it was fitted to has none of them, and all others."""
        families = FAMILIES[CLASSES.name]
        family_of = {task.name: task.family for task in known().tasks}
        names = set(blind.names)
        assert names == {name for name in names if family_of[name] not in families}
        assert {family_of[name] for name in names} == set(family_of.values()) - families
        assert ours.blind(families) is ours.blind(frozenset(families)) is blind

    def test_the_quick_search_has_the_same_steps_on_every_task(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import autoinit

        asked: dict[str, Any] = {}
        answer = SimpleNamespace(cost=SimpleNamespace(steps=99.0), recipe=autoinit.Recipe(), kept=True, why="no gain")
        monkeypatch.setattr(autoinit, "select", lambda *args, **named: asked.update(named) or answer)
        start = ours.quickly_selected(CLASSES.make_model(0), CLASSES, 3)
        assert (asked["budget"], asked["seed"]) == (autoinit.Budget(steps=160), 3)
        assert asked["recommender"] is ours.blind(FAMILIES[CLASSES.name])
        assert (start.steps, start.kept, start.notes) == (99.0, True, ("kept: no gain",))

    def test_what_is_recommended_is_applied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import autoinit

        monkeypatch.setattr(ours, "blind", lambda families: None)
        promise = SimpleNamespace(best=autoinit.Recipe(base="orthogonal", calibration="lsuv"), abstained=False, why="")
        monkeypatch.setattr(autoinit, "recommend", lambda *args, **named: promise)
        model, other = CLASSES.make_model(0), CLASSES.make_model(0)
        start = ours.recommended(model, CLASSES, 0)
        autoinit.apply_(other, promise.best, CLASSES.train_batches(0), loss=CLASSES.loss)
        assert all(one.equal(two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
        assert (start.recipe, start.kept) == (promise.best.key, False)
        assert 1 < start.steps < 20

    def test_where_nothing_is_recommended_the_weights_stay_and_cost_a_few_passes(
        self, blind: Recommender, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = CLASSES.make_model(0)
        gain = dataclasses.replace(blind.learner.gain, mean=blind.learner.gain.mean + 1)  # were the task a near one
        far = dataclasses.replace(blind, learner=dataclasses.replace(blind.learner, gain=gain), far=0.0)
        monkeypatch.setattr(ours, "blind", lambda families: far)
        start = ours.recommended(model, CLASSES, 0)
        assert start.kept
        assert 0 < start.steps < 5
        assert start.notes[0].startswith("kept: ")
        fresh = CLASSES.make_model(0)
        assert all(one.equal(two) for one, two in zip(model.parameters(), fresh.parameters(), strict=True))

    def test_select_that_keeps_leaves_the_weights(self, tiny: BenchTask) -> None:
        """A budget of 30 steps is too small for a choice."""
        model = tiny.make_model(0)
        start = ours.selected(model, tiny, 0, "small")
        assert start.kept
        fresh = tiny.make_model(0)
        assert all(one.equal(two) for one, two in zip(model.parameters(), fresh.parameters(), strict=True))


class TestRows:
    def test_a_row_has_the_losses_where_each_allowance_is_spent(self, tiny: BenchTask) -> None:
        row = versus.run_one(tiny.name, "lsuv_package", 0, "low", "middle", 1.0)
        assert row["failure"] is None
        cost = row["cost"]["steps"]
        assert {place: end["steps"] for place, end in row["ends"].items()} == {
            APART: 20,
            "small": math.floor(50 - cost),
            "middle": math.floor(60 - cost),
        }
        assert row["curve"][-1][0] == math.floor(60 - cost)

    def test_kept_weights_train_as_the_default_does(self, tiny: BenchTask) -> None:
        default = versus.run_one(tiny.name, "default", 0, "centre", "small", 1.0)
        kept = versus.run_one(tiny.name, "select_small", 0, "centre", "small", 1.0)
        assert kept["kept"]
        assert kept["ends"][APART] == default["ends"][APART]
        assert kept["ends"]["small"]["steps"] == 50 - math.ceil(kept["cost"]["steps"])
        assert default["ends"]["small"]["steps"] == 50

    @pytest.mark.parametrize(
        ("cost", "expected"), [(55.0, {"small": None, "middle": 5}), (999.0, {"small": None, "middle": None})]
    )
    def test_a_cost_beyond_the_allowance_is_a_failure_there(
        self, tiny: BenchTask, monkeypatch: pytest.MonkeyPatch, cost: float, expected: dict[str, int | None]
    ) -> None:
        monkeypatch.setitem(METHODS, "costly", Method("costly", "", lambda model, task, seed: Start(cost, "counted")))
        row = versus.run_one(tiny.name, "costly", 0, "centre", "middle", 1.0)
        assert {place: end and end["steps"] for place, end in row["ends"].items()} == {APART: 20, **expected}

    def test_what_a_method_raises_is_its_result(self, tiny: BenchTask, monkeypatch: pytest.MonkeyPatch) -> None:
        import autoinit

        def fail(error: Exception) -> Callable[..., Start]:
            def prepare(model: nn.Module, task: BenchTask, seed: int) -> Start:
                raise error

            return prepare

        for error, kind in ((RuntimeError("no\nmore"), "raised"), (autoinit.RecipeError("not here"), "refused")):
            monkeypatch.setitem(METHODS, "failing", Method("failing", "", fail(error)))
            row = versus.run_one(tiny.name, "failing", 0, "centre", "small", 1.0)
            assert row["failure"] == {"kind": kind, "words": f"{type(error).__name__}: {str(error).splitlines()[0]}"}

    def test_a_model_that_cannot_be_trained_is_a_failure_too(
        self, tiny: BenchTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def freeze(model: nn.Module, task: BenchTask, seed: int) -> Start:
            model.requires_grad_(False)
            return FREE

        monkeypatch.setitem(METHODS, "freezing", Method("freezing", "", freeze))
        row = versus.run_one(tiny.name, "freezing", 0, "centre", "small", 1.0)
        assert row["failure"]["kind"] == "raised"
        assert "freezes 0.weight" in row["notes"]
        assert versus_tables.report([row, made(tiny.name, "default", 1.0)]).count("raised") > 0

    def test_draws_come_from_the_seed_and_leave_torchs_own(self, tiny: BenchTask) -> None:
        torch.manual_seed(5)
        state = torch.get_rng_state()
        ends = [versus.run_one(tiny.name, "he", seed, "centre", "small", 1.0)["ends"] for seed in (0, 0, 1)]
        assert ends[0] == ends[1] != ends[2]
        assert torch.get_rng_state().equal(state)
