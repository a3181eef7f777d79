"""The arithmetic of the rank benchmark: predictors, agreement, forms of the score, vetoes, replayed halving."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("mlxtend")
pytest.importorskip("transformers")

from autoinit import Recipe, trace
from autoinit.judging.score import score
from benchmarks.common.jobs import Row
from benchmarks.common.tasks import TASKS
from benchmarks.probes import agreement, candidates, halving_replay, leads, predictors, rank_report, score_forms, vetoes
from benchmarks.probes.predictors import DYNAMIC, STATIC, Form

RUNGS = (2, 4, 8, 15, 30, 60, 120, 240)


def row(place: int, level: float, **signals: Any) -> Row:
    """A candidate whose probe falls in a straight line to `level` nats below the reference at step 240."""
    losses = [math.exp(-level * step / 240) for step in range(1, 241)]
    return {
        "task": "mlp_tanh",
        "candidate": place,
        "recipe": f"recipe {place}",
        "reference": 1.0,
        "signals": {
            "loss": 1.0,
            "grad_norm": 1.0,
            "agreement": 0.5,
            "forward_std": [1.0, None, 0.1],
            "forward_mean": [0.5, None, 0.1],
            "layer_grad_norm": [1.0, 10.0],
            "weight_norm": [1.0, 1.0],
            "dead": [0.0, None],
            "saturated": [None, None],
            "separation": 0.5,
            **signals,
        },
        "probe": {
            "losses": losses,
            "held_back": {str(step): losses[step - 1] for step in RUNGS},
            "grad_norms": {str(step): [1.0, 10.0 ** (1 + step / 1000)] for step in RUNGS},
            "gradient_range": 2.0,
            "diverged_at": None,
            "seconds": 1.0,
        },
        "long": {"train": [math.exp(-level), math.exp(-level)], "val": [math.exp(-level), math.exp(-level)]},
        "date": "2026-01-01",
        "commit": "abc",
        "torch": "2",
    }


@pytest.fixture
def rows() -> list[Row]:
    return [row(place, level) for place, level in enumerate((0.1, 0.5, 1.0, 2.0))]


def test_agreement_of_a_perfect_and_a_reversed_predictor() -> None:
    rows: list[Row] = [
        {"candidate": place, "long": {"train": [place + 1, place + 2], "val": [9 - place, 9 - place]}}
        for place in range(8)
    ]
    places = [float(place) for place in range(8)]
    reversed_places = [-place for place in places]
    assert agreement.agreement(rows, places, "train") == pytest.approx((1.0, 1.0))
    assert agreement.agreement(rows, reversed_places, "train") == pytest.approx((-1.0, 1.0))
    assert agreement.agreement(rows, places, "val") == pytest.approx((-1.0, 1.0))
    assert agreement.long_losses(rows[0], "both") == pytest.approx([3.0, math.sqrt(18)])
    assert agreement.regret(rows, places, "train") == 0
    assert agreement.regret(rows, reversed_places, "train") == pytest.approx(math.log(8 * 9 / (1 * 2)) / 2)
    assert agreement.best_half(rows, "train") == [0, 1, 2, 3]
    assert agreement.best_half(rows, "val") == [4, 5, 6, 7]


def test_only_pairs_that_are_clearly_apart_count() -> None:
    losses = [1.0, 1.01, 2.0, math.inf]
    assert agreement.clear_pairs([1.0, 0.0, 2.0, 3.0], losses) == 1.0  # the first two are 1 % apart
    assert agreement.clear_pairs([2.0, 0.0, 1.0, 3.0], losses) == pytest.approx(4 / 5)
    assert agreement.clear_pairs([0.0] * 4, losses) == 0.5
    assert math.isnan(agreement.clear_pairs([1.0, 2.0], [1.0, 1.0]))


def test_a_task_whose_long_runs_disagree_has_no_share() -> None:
    assert math.isnan(agreement.share(0.1, 0.1))
    assert agreement.share(0.3, 0.6) == pytest.approx(0.5)


def test_the_halves_hold_every_task_once_and_every_kind_of_network() -> None:
    first, second = agreement.HALVES
    assert sorted([*first, *second]) == sorted(TASKS)
    for half in (first, second):
        assert sum(TASKS[name].plain_deep and name.startswith("mlp") for name in half) == 2
        assert sum(name.startswith("cnn") for name in half) == 1
        assert sum("ransformer" in TASKS[name].family or "GPT" in TASKS[name].family for name in half) == 2


def test_a_curve_holds_what_a_probe_of_that_length_sees(rows: list[Row]) -> None:
    curve = predictors.curve_at(rows[0], 30)
    assert curve.steps == 30
    assert [step for step, _ in curve.held_back] == [2, 4, 8, 15, 30]
    assert curve.gradient_range == 2.0
    assert predictors.curve_at(rows[0], 15).gradient_range == pytest.approx(1.008)  # that of rung 8
    assert predictors.curve_at(rows[0], 4).gradient_range == pytest.approx(1.004)


def test_a_divergence_is_seen_only_from_its_step_on(rows: list[Row]) -> None:
    rows[0]["probe"]["diverged_at"] = 40
    assert predictors.curve_at(rows[0], 30).diverged_at is None
    assert predictors.curve_at(rows[0], 60).diverged_at == 40
    assert Form()(rows[0], 60) > max(Form()(other, 60) for other in rows[1:])


def test_log_range_of_zeros_and_of_one() -> None:
    assert predictors.log_range([1.0, 100.0, None]) == pytest.approx(2.0)
    assert predictors.log_range([0.0, 1.0]) == math.inf
    assert predictors.log_range([0.0, 0.0]) is None
    assert predictors.log_range([1.0]) is None


@pytest.mark.parametrize("gradient_range", [None, 0.5, 2.0, 5.0, math.inf])
@pytest.mark.parametrize("steps", [8, 15, 60, 240])
def test_the_library_s_score_is_among_the_forms(rows: list[Row], gradient_range: float | None, steps: int) -> None:
    rows[1]["probe"]["gradient_range"] = gradient_range
    assert score_forms.LIBRARY in score_forms.GRID
    assert score_forms.LIBRARY(rows[1], steps) == pytest.approx(_library(rows[1], steps))


def _library(one: Row, steps: int) -> float:
    return score(predictors.curve_at(one, steps), predictors.reference(one), steps).total


def test_forms_add_what_they_say(rows: list[Row]) -> None:
    one, loss = rows[3], Form()
    assert loss(one, 240) == pytest.approx(-0.5 * (2.0 * (240 - 29.5) / 240 + 2.0))
    added = {
        Form(weight=0.1): 0.2,
        Form(weight=0.1, cap=1.5): 0.15,
        Form(weight=0.1, fading=True): 0.2 * 20 / 240,
        Form(weight=0.1, until=120): 0.0,
        Form(weight=0.1, unlearnt=True): 0.2 * math.exp(loss(one, 240)),
        Form(weight=0.1, late=True): 0.124,
        Form(progress=1.0): -2.0 * 60 / 240,
        Form(spikes=1.0): 0.0,
    }
    for form, extra in added.items():
        assert form(one, 240) - loss(one, 240) == pytest.approx(extra)


def test_a_spike_is_a_rise_above_the_lowest_so_far(rows: list[Row]) -> None:
    rows[0]["probe"]["losses"][5] *= math.e
    assert Form(spikes=1.0)(rows[0], 240) - Form()(rows[0], 240) == pytest.approx(1.0, abs=1e-3)


def test_static_predictors(rows: list[Row]) -> None:
    found = {name: predictor(rows[0]) for name, predictor in STATIC.items()}
    assert found["initial loss"] == 0
    assert found["gradient range"] == pytest.approx(1.0)
    assert found["range of forward std"] == pytest.approx(1.0)
    assert found["forward std, distance to 1"] == pytest.approx(0.5)
    assert found["forward |mean| over std"] == pytest.approx(0.0)
    assert found["saturated share"] == 0
    assert found["rows look alike"] == pytest.approx(math.log10(2))


def test_predictors_take_signals_that_are_not_there() -> None:
    bare = row(0, 1.0, agreement=None, separation=None, layer_grad_norm=[0.0, 1.0], loss=math.inf)
    assert all(isinstance(predictors.ranked(predictor(bare)), float) for predictor in STATIC.values())
    assert predictors.ranked(STATIC["gradient range"](bare)) == predictors.WORST
    assert predictors.ranked(STATIC["initial loss"](bare)) == predictors.WORST


def test_vetoes_count_what_they_drop_and_what_that_costs() -> None:
    tasks = {
        "mlp_tanh": [row(0, 0.1, loss=50.0), row(1, 1.0), row(2, 2.0, loss=20.0), row(3, 1.9)],
        "mlp_relu": [row(0, 0.1), row(1, 1.0), row(2, 2.0), row(3, 1.9)],
    }
    found = vetoes.dropped(tasks, vetoes.VETOES["loss > 10 x reference"])
    assert (found.count, found.tasks, found.tenth, found.close) == (2, 1, 1, 1)
    assert found.nearest == 0
    assert found.worst_loss == pytest.approx(0.1)
    none = vetoes.dropped(tasks, vetoes.VETOES["loss > 100 x reference"])
    assert (none.count, none.nearest, none.worst_loss) == (0, math.inf, 0.0)


def test_leads_over_the_owner_are_counted_by_what_becomes_of_them(rows: list[Row]) -> None:
    """The probes of candidates 1, 2 and 3 lead; then the second's long run ends above the owner's."""
    rows[2]["long"] = {"train": [2.0, 2.0], "val": [2.0, 2.0]}
    found = leads.leads({"mlp_tanh": rows}, 240)
    assert [lead > 0.3 for lead, _ in found] == [True, True, True]
    assert [ratio for _, ratio in found] == pytest.approx([-0.4, math.log(2) + 0.1, -1.9])
    assert "| 240 | none | none | 1 of 3, × 0.67 | 1 of 3, × 0.67 |" in leads.table({"mlp_tanh": rows})


def test_a_task_on_which_nothing_learns_is_told() -> None:
    assert vetoes.trains([row(0, 0.1), row(1, 1.0)])
    assert not vetoes.trains([row(0, 0.1), row(1, 0.05)])


def test_replayed_halving_spends_and_picks(rows: list[Row]) -> None:
    found = halving_replay.replay(rows, Form(), (10, 30), 0.5)
    assert found.pick == 3
    assert found.steps == 4 * 10 + 3 * 20  # the better two and the owner's weights go on
    assert found.share == pytest.approx(100 / (4 * TASKS["mlp_tanh"].steps))
    assert found.behind == found.fair == 0


def test_a_pick_is_compared_with_what_an_exhaustive_run_would_choose(rows: list[Row]) -> None:
    for one, losses in zip(rows, ((1.0, 1.0), (0.5, 0.8), (0.8, 0.5), (2.0, 2.0)), strict=True):
        one["long"] = {"train": list(losses), "val": list(losses)}
    # The first run chooses candidate 1, worth 0.8 in the second; the second chooses 2, worth 0.8 in the first.
    assert halving_replay.fair(rows, 0, "both") == pytest.approx(math.log(1 / 0.8))
    assert halving_replay.fair(rows, 1, "both") == pytest.approx(math.log(0.5 / 0.8) / 2)


def test_the_report_prints_every_predictor(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_report, "LENGTHS", {"30": lambda task: 30, "1/8": lambda task: 60})
    text = rank_report.report(rows)
    assert all(name in text for name in (*STATIC, *DYNAMIC, *vetoes.VETOES))
    assert "| mlp_tanh | first | 60 | 1.00 | 1.00 | 1.00 |" in text


def test_candidates_are_the_same_every_time_and_start_with_the_owner_s() -> None:
    task = TASKS["tabular_class"]
    graph = trace(task.make_model(0), task.train_batches(0), loss=task.loss)
    first, again = (candidates.candidates(graph) for _ in range(2))
    assert [recipe.key for recipe in first] == [recipe.key for recipe in again]
    assert len({recipe.key for recipe in first}) == len(candidates.FIXED) + candidates.RANDOM
    assert first[0] == Recipe()
    assert candidates.candidates(graph, seed=1)[: len(candidates.FIXED)] == first[: len(candidates.FIXED)]
    assert candidates.candidates(graph, seed=1)[-1] != first[-1]
