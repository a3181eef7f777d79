"""The recommender: what it is fitted to, what it says, how it is kept."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from once import few_trees, known, shipped_recommender

from autoinit.activations import Array
from autoinit.errors import ArgumentError, KnowledgeError
from autoinit.judging.score import WORST_FINITE
from autoinit.knowledge.features import FEATURES
from autoinit.knowledge.tables import Knowledge, StudiedTask
from autoinit.recipes.recipe import OWN
from autoinit.recommender import cache as kept_files
from autoinit.recommender.evaluation import SPLITS, TOPS, by_size, evaluations_of, static_portfolio
from autoinit.recommender.evaluation import learned as learned_ranking
from autoinit.recommender.examples import BLIND, HARM, NAMES, PASS_NAMES, SIZES, Examples, examples_of, results_of
from autoinit.recommender.forest import grown
from autoinit.recommender.learner import NEVER, Predicted, Verdict, bounded, folds
from autoinit.recommender.model import Recommender
from autoinit.recommender.portfolio import common_keys, portfolio, single_best
from autoinit.recommender.source import recommender_from


@cache
def examples() -> Examples:
    return examples_of(known())


def learned() -> Recommender:
    return shipped_recommender()


@cache
def fitted_to_few(seed: int = 0) -> Recommender:
    """One that was fitted here, and comes from no file."""
    with few_trees():
        return Recommender.fit(Knowledge(known().tasks[:12]), seed=seed)


# Examples


def test_outcomes_are_of_as_is_and_of_the_best() -> None:
    found = examples()
    assert len(found.results) == len(known().tasks)
    for task in range(len(found.results)):
        rows = found.rows(task)
        assert found.keys[rows.start] == OWN.key
        assert found.outcome[rows.start] == found.gain[rows.start] == 0
        assert found.outcome[rows].max() <= 1
        assert found.weight[rows].sum() == pytest.approx(1)
    beaten = [task for task in range(len(found.results)) if found.outcome[found.rows(task)].max() == 1]
    assert len(beaten) > len(found.results) / 2


def test_places_are_shares_of_the_others_and_harm_is_below_as_is() -> None:
    found = examples()
    for task in range(0, len(found.results), 7):
        rows = found.rows(task)
        place, gains = found.place[rows], found.results[task].gains()
        assert place.mean() == pytest.approx(0.5)
        assert (np.diff(place[np.argsort(gains)]) >= 0).all()
        assert place[gains.argmin()] < 0.1 < 0.9 < place[gains.argmax()]
        losses = found.results[task].losses
        assert np.array_equal(found.harm[rows], (losses > losses[0] + HARM).mean(1))
        assert found.harm[rows][0] == 0


def test_a_first_pass_is_known_of_what_was_tried_and_not_before() -> None:
    assert NAMES[BLIND:] == PASS_NAMES
    passes = examples().features[:, BLIND:]
    assert np.isfinite(passes).mean() > 0.9


def test_results_are_of_the_candidates_that_every_seed_has() -> None:
    task = known().tasks[0]
    whole = results_of(task)
    assert whole is not None
    assert whole.losses.shape == (len(task.tried), 3)
    fewer = dataclasses.replace(task.tried[1], outcomes=task.tried[1].outcomes[:2])
    cut = results_of(dataclasses.replace(task, tried=(task.tried[0], fewer, *task.tried[2:])))
    assert cut is not None
    assert len(cut.keys) == len(whole.keys) - 1
    assert results_of(dataclasses.replace(task, tried=task.tried[1:])) is None
    assert results_of(dataclasses.replace(task, tried=task.tried[:1])) is None


def test_outcomes_are_of_held_back_rows_and_the_training_stands_beside_them() -> None:
    task = known().tasks[0]
    found = results_of(task)
    assert found is not None
    probes = [[next(one for one in tried.outcomes if one.seed == seed) for seed in found.seeds] for tried in task.tried]
    assert found.losses.tolist() == [[one.held_back for one in row] for row in probes]
    assert found.training.tolist() == [[one.training for one in row] for row in probes]
    assert not np.array_equal(found.losses.argsort(0), found.training.argsort(0))


def test_a_failed_probe_counts_as_the_worst_there_is() -> None:
    task = known().tasks[0]
    failed = tuple(
        dataclasses.replace(one, state="failed", total=None, training=None, held_back=None)
        for one in task.tried[1].outcomes
    )
    changed = dataclasses.replace(task, tried=(task.tried[0], dataclasses.replace(task.tried[1], outcomes=failed)))
    found = results_of(changed)
    assert found is not None
    assert (found.losses[1] > WORST_FINITE).all()
    assert found.diverged[1].all()


def test_chosen_tasks_keep_their_rows() -> None:
    some = examples().of([1, 3])
    for place, task in enumerate((1, 3)):
        assert some.results[place] is examples().results[task]
        assert np.array_equal(some.outcome[some.rows(place)], examples().outcome[examples().rows(task)])
        assert some.keys[some.rows(place)] == examples().keys[examples().rows(task)]


# The forest


def test_forest_says_what_scikit_learn_says() -> None:
    from sklearn.ensemble import ExtraTreesRegressor

    found = examples()
    targets = np.stack([found.outcome, found.gain], axis=1)
    ours = grown(found.features, targets, found.weight, trees=20, leaf=3, share=0.4, seed=1)
    theirs = ExtraTreesRegressor(20, min_samples_leaf=3, max_features=0.4, random_state=1, bootstrap=True)
    theirs.fit(found.features.astype(np.float32), targets, sample_weight=found.weight)
    rows = found.features.copy()
    rows[::3, ::5] = np.nan
    mean, spread = ours.predict(rows)
    assert np.allclose(mean, theirs.predict(rows.astype(np.float32)), atol=1e-3)  # numbers are kept to three digits
    between = np.stack([tree.predict(rows.astype(np.float32)) for tree in theirs.estimators_]).std(0)
    assert (spread >= between - 1e-3).all()
    assert (spread > between + 1e-2).any()


# Splits


def test_a_split_by_size_learns_from_small_networks_only() -> None:
    small, large = by_size(examples())
    sizes = [[one.task.features["net_parameters"] for one in part.results] for part in (small, large)]
    assert max(sizes[0]) < min(sizes[1])
    assert len(sizes[0]) + len(sizes[1]) == len(examples().results)
    fewer, larger = by_size(examples(), 5e3, 3e4)
    assert max(one.task.features["net_parameters"] for one in fewer.results) < np.log10(5e3)
    assert min(one.task.features["net_parameters"] for one in larger.results) >= np.log10(3e4)
    with pytest.raises(KnowledgeError, match="0 from 1e\\+09 on"):
        by_size(examples(), 1e5, 1e9)


# Portfolio


def test_portfolio_begins_with_a_good_one_and_each_adds_to_it() -> None:
    found = examples()
    keys = portfolio(found, 5)
    table = {key: np.zeros(len(found.results)) for key in common_keys(found)}
    for key, task, outcome in zip(found.keys, found.task, found.outcome, strict=True):
        if key in table:
            table[key][task] = outcome
    reached = [np.maximum(0, np.max([table[key] for key in keys[:count]], axis=0)).mean() for count in range(1, 6)]
    assert reached == sorted(set(reached))
    assert reached[0] >= np.maximum(0, table[single_best(found)]).mean()
    assert table[single_best(found)].mean() == max(row.mean() for row in table.values())
    assert OWN.key not in keys


def test_random_points_are_in_no_portfolio() -> None:
    counts = {key: examples().keys.count(key) for key in common_keys(examples())}
    assert min(counts.values()) >= 0.3 * len(examples().results)


# The model


def test_folds_split_no_group_and_miss_no_task() -> None:
    groups = ["a"] * 5 + ["b"] * 3 + ["c", "d", "e", "f"]
    parts = folds(groups, 3)
    assert sorted(place for part in parts for place in part) == list(range(12))
    assert all(len({part for part in range(3) if group in {groups[at] for at in parts[part]}}) == 1 for group in groups)
    assert max(map(len, parts)) <= 5


def test_as_is_gains_nothing_for_sure_and_others_have_intervals() -> None:
    task = known().tasks[0]
    predicted = learned().predict(task.features, [one.features for one in task.tried])
    worth = learned().worth(predicted)
    assert predicted.gain[0] == predicted.low[0] == predicted.high[0] == predicted.harm[0] == 0
    assert (predicted.low[1:] < predicted.gain[1:]).all()
    assert (predicted.gain[1:] < predicted.high[1:]).all()
    assert (worth <= predicted.place).all()
    assert ((predicted.harm >= 0) & (predicted.harm <= 1)).all()


def test_of_two_like_recipes_the_second_is_tried_late() -> None:
    places = np.array([[0.9, 0.9, 0.1], [0.9, 0.9, 0.1], [0.2, 0.2, 0.9], [0.5, 0.5, 0.5]])
    nothing = np.zeros(4)
    predicted = Predicted(places, nothing, nothing, nothing, nothing)
    assert predicted.first(predicted.place, 2) == [0, 2]
    assert sorted(predicted.first(predicted.place, 9)) == [0, 1, 2, 3]
    assert predicted.first(predicted.place - np.array([1.0, 0.0, 0.0, 0.0]), 1) == [1]


def test_a_choice_is_given_where_trees_agree_and_as_is_comes_first_elsewhere() -> None:
    learner = dataclasses.replace(learned().learner, caution=1.0, doubt=0.3)
    sure = np.array([[0.5, 0.5], [0.9, 0.8], [0.3, 0.9]])
    gain, harm = np.array([0.0, 0.4, 0.2]), np.array([0.0, 0.1, 0.2])

    def verdict(places: Array = sure, gain: Array = gain, harm: Array = harm, far: bool = False) -> Verdict:
        return learner.verdict(Predicted(places, harm, gain, gain, gain), 0, 3, far)

    split = np.array([[0.5, 0.5], [0.95, 0.5], [0.3, 0.4]])
    assert verdict() == Verdict("try", 1, (1, 2, 0))
    assert verdict(places=split) == Verdict("unsure", 1, (0, 1, 2))
    assert Predicted(split, harm, gain, gain, gain).doubts(0).tolist() == [1.0, 0.5, 1.0]
    assert verdict(far=True) == Verdict("unsure", 1, (0, 1, 2))
    assert verdict(gain=0.1 * gain).answer == "keep"
    assert verdict(harm=6 * harm) == Verdict("keep", 1, (0, 1, 2))
    alone = Predicted(sure[:1], harm[:1], gain[:1], gain[:1], gain[:1])
    assert learner.verdict(alone, 0, 3) == Verdict("keep", 0, (0,))


def test_risk_is_bounded_so_that_few_choices_harm() -> None:
    calm = [(0.001 * place, False) for place in range(150)]
    assert bounded(calm, 150, 0.02) == calm[-1][0]
    # of 150 tasks two may be harmed: with one more that counts as harmed they are 3 of 151
    harmed = [*calm, (0.0105, True), (0.0205, True), (0.0305, True)]
    assert bounded(harmed, 150, 0.02) == 0.03
    assert bounded([*harmed, (0.02, True)], 150, 0.02) == 0.02
    assert bounded([(0.02, True), (0.02, True), (0.02, False)], 150, 0.02) == 0.02
    assert bounded(calm[:48], 48, 0.02) == NEVER
    assert bounded([], 150, 0.02) == NEVER


def test_on_tasks_like_those_of_before_the_promise_is_kept_on_average() -> None:
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        risk = generator.random(200)
        did = generator.random(200) < risk**3  # what is predicted need not be a chance, but tell the order
        limit = bounded(list(zip(risk.tolist(), did.tolist(), strict=True)), 200, 0.05)
        shares.append(limit**4 / 4 if limit > 0 else 0.0)
    assert 0.03 < np.mean(shares) <= 0.05


def test_it_has_learned_something_of_the_tasks_that_it_saw() -> None:
    ranked = []
    for task in known().tasks:
        found = results_of(task)
        assert found is not None
        worth = learned().worth(learned().predict(task.features, [one.features for one in task.tried]))
        ranked.append(np.corrcoef(worth, np.clip(found.gains(), -2, 2))[0, 1])
    assert np.median(ranked) > 0.5


def test_unknown_features_are_allowed_and_unheard_of_ones_ignored() -> None:
    task = known().tasks[0]
    recipes = [one.features for one in task.tried]
    bare = learned().predict({}, recipes)
    assert np.isfinite(bare.gain).all()
    assert np.isfinite(learned().distance({}))
    odd = learned().predict({**task.features, "unheard_of": 1.0}, recipes)
    assert np.array_equal(odd.gain, learned().predict(task.features, recipes).gain)
    nothing = learned().predict(task.features, [{}])
    assert np.isfinite(nothing.gain).all()


def test_a_studied_task_is_its_own_nearest_and_an_odd_one_is_far() -> None:
    task = known().tasks[5]
    name, distance = learned().nearest(task.features)[0]
    assert (name, distance) == (task.name, pytest.approx(0, abs=1e-9))
    assert learned().distance(task.features) < learned().far
    odd = {name: value + 1000 for name, value in task.features.items()}
    assert learned().distance(odd) > learned().far


def test_too_few_tasks_are_refused() -> None:
    with pytest.raises(KnowledgeError, match=r"4 tasks .* are too few"):
        Recommender.fit(Knowledge(known().tasks[:4]))
    with pytest.raises(KnowledgeError, match="0 tasks"):
        Recommender.fit(Knowledge(()))


def test_tasks_without_features_are_learned_from_all_the_same() -> None:
    bare: list[StudiedTask] = [dataclasses.replace(task, features={}) for task in known().tasks[:12]]
    with few_trees():
        found = Recommender.fit(Knowledge(tuple(bare)))
    assert np.isfinite(found.predict({}, [known().tasks[0].tried[1].features]).gain).all()


def test_same_knowledge_and_seed_give_the_same_recommender() -> None:
    one, again, other = fitted_to_few(), fitted_to_few.__wrapped__(), fitted_to_few(seed=1)
    rows = examples().features[:50]
    assert np.array_equal(one.learner.predict(rows).gain, again.learner.predict(rows).gain)
    assert not np.array_equal(one.learner.predict(rows).gain, other.learner.predict(rows).gain)


# As a file


def test_a_fitted_recommender_is_kept_and_read_again(tmp_path: Path) -> None:
    path, made = tmp_path / "mine.npz", fitted_to_few()
    kept_files.save(made, path)
    again = kept_files.load(path)
    rows = examples().features[:60]
    for name in ("places", "harm", "gain", "low", "high"):
        assert np.array_equal(getattr(again.learner.predict(rows), name), getattr(made.learner.predict(rows), name))
    assert (again.portfolio, again.names, again.source) == (made.portfolio, made.names, made.source)
    with np.load(path, allow_pickle=False) as file:
        assert all(array.dtype != object for array in file.values())
    assert recommender_from(path).source == made.source


@pytest.mark.parametrize("damage", [b"", b"no numpy file", None])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "mine.npz"
    kept_files.save(fitted_to_few(), path)
    path.write_bytes(path.read_bytes()[:-2000] if damage is None else damage)
    with pytest.raises(KnowledgeError, match="cannot be read"):
        kept_files.load(path)


def test_what_no_recommender_can_be_is_refused() -> None:
    with pytest.raises(ArgumentError, match="recommender is a int"):
        recommender_from(3)  # type: ignore[arg-type]
    assert recommender_from(learned()) is learned()


SHIPPED = """
import os, sys
from autoinit.recommender import cache
found = cache.default()
print("sklearn" in sys.modules, os.path.exists(os.environ["AUTOINIT_CACHE"]), found.source)
"""


def test_what_ships_is_read_and_not_fitted(tmp_path: Path) -> None:
    environment = {**os.environ, "AUTOINIT_CACHE": str(tmp_path / "none")}
    done = subprocess.run([sys.executable, "-c", SHIPPED], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["False", "False", known().hash], done.stderr


@pytest.mark.slow
def test_what_ships_is_what_is_fitted_to_the_knowledge_that_ships() -> None:
    ships, fitted = shipped_recommender(), Recommender.fit(known())
    rows = examples().features[::7]
    for part in fields(Predicted):
        one, other = (getattr(each.learner.predict(rows), part.name) for each in (ships, fitted))
        assert np.allclose(one, other, atol=0.01), "fit it anew: python -m studies.knowledge … --fitted …"
    assert ships.informed is not None
    assert fitted.informed is not None
    limits, others = ((each.learner.doubt, each.informed.risk) for each in (ships, fitted))
    assert limits == pytest.approx(others, abs=1e-3)
    assert (ships.names, ships.portfolio, ships.source) == (fitted.names, fitted.portfolio, fitted.source)


def test_what_ships_is_not_used_for_other_knowledge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    few = Knowledge(known().tasks[:12])
    monkeypatch.setenv("AUTOINIT_CACHE", str(tmp_path))
    monkeypatch.setattr(kept_files, "shipped_hash", lambda: few.hash)
    monkeypatch.setattr(kept_files, "shipped", lambda: few)
    with few_trees():
        assert kept_files.default.__wrapped__().source == few.hash


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Knowledge]:
    """What recommenders are fitted to from now on: to two trees a forest, how many there are is of no matter here."""
    fit, found = Recommender.fit, []

    def noted(knowledge: Knowledge) -> Recommender:
        found.append(knowledge)
        with few_trees(2, 2):
            return fit(knowledge)

    monkeypatch.setattr(Recommender, "fit", staticmethod(noted))
    return found


def test_it_is_fitted_once_and_then_read_and_anew_where_its_file_was_damaged(
    fits: list[Knowledge], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOINIT_CACHE", str(tmp_path / "new"))
    few = Knowledge(known().tasks[:12])
    for times in (1, 1):
        assert kept_files.fitted(few).source == few.hash
        assert len(fits) == times
    (file,) = (tmp_path / "new").iterdir()
    file.write_bytes(b"damaged")
    assert kept_files.fitted(few).source == few.hash
    assert len(fits) == 2
    assert kept_files.load(file).source == few.hash


def test_a_cache_that_cannot_be_written_costs_one_warning(
    fits: list[Knowledge], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOINIT_CACHE", str(tmp_path / "file" / "folder"))
    few = Knowledge(known().tasks[:12])
    with pytest.warns(UserWarning, match="AUTOINIT_CACHE") as told:
        assert kept_files.fitted(few).source == few.hash
    assert len(told) == len(fits) == 1


def test_columns_are_features_that_the_table_explains() -> None:
    assert sorted((*NAMES, *SIZES)) == sorted(FEATURES)
    assert all(text and not text.endswith(".") for text in FEATURES.values())


# What it must be better than


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
def test_what_ships_is_no_worse_than_a_fixed_list_whatever_is_held_out(split: str) -> None:
    """A third of the tasks is held out at a time: more than it does without when it ships, which is a handicap too."""
    with few_trees(12, 8):
        ours, theirs = (
            evaluations_of(examples(), split, way, most_folds=3) for way in (learned_ranking, static_portfolio)
        )
    for top in range(len(TOPS)):
        assert np.mean([one.regret[top] for one in ours]) <= np.mean([one.regret[top] for one in theirs])
    assert np.mean([one.harmed for one in ours]) <= np.mean([one.harmed for one in theirs])
    assert 0.75 <= np.mean([one.covered for one in ours]) <= 0.85
    assert np.mean([one.flagged for one in ours]) <= 0.5  # of so few trees that no risk at all may be promised
