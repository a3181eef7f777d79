"""What is recommended for a model, and what is said of it."""

from __future__ import annotations

import copy
import dataclasses
import re
from functools import cache

import pytest
import torch
from once import shipped_recommender
from sklearn.datasets import load_digits
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import autoinit
from autoinit.recipes.names import title
from autoinit.recommender.learner import NEVER
from autoinit.recommender.model import Recommender


@cache
def learned() -> Recommender:
    """One for which no task is far, and no risk too high."""
    return with_learner(dataclasses.replace(shipped_recommender(), far=float("inf")), caution=0.0, doubt=1.0)


def with_learner(found: Recommender, **changed: float) -> Recommender:
    return dataclasses.replace(found, learner=dataclasses.replace(found.learner, **changed))


@cache
def far() -> Recommender:
    return dataclasses.replace(learned(), far=0.0)


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    rows, labels = load_digits(return_X_y=True)
    return torch.tensor(rows / 16 - 0.3, dtype=torch.float32), torch.tensor(labels)


def deep() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*[part for _ in range(8) for part in (nn.Linear(64, 64), nn.GELU())], nn.Linear(64, 10))


def test_a_deep_plain_network_is_given_a_recipe_that_fits_and_promises_something() -> None:
    model = deep()
    found = autoinit.recommend(model, digits(), optimizer=torch.optim.AdamW, lr=3e-3, recommender=learned())
    assert not found.abstained
    assert found.best.key != "as_is"
    row = found.table[found.table["recipe"] == found.best.key].iloc[0]
    assert row["low"] < row["gain"] < row["high"]
    assert row["gain"] > 0
    assert found.recipes[0] == found.best
    assert len(found.recipes) == 5
    own = found.table[found.table["recipe"] == "as_is"].iloc[0]
    assert own["gain"] == own["harm"] == 0
    assert found.table["worth"].idxmax() == 0
    assert len(found.nearest) == 3
    assert found.known[0] > 55
    autoinit.apply_(model, found.best, digits())


def test_model_and_random_states_are_left_as_they_were() -> None:
    model = deep()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    autoinit.recommend(model, digits(), recommender=learned())
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_pass_of_the_weights_is_told_where_there_are_data_and_leaves_nothing_behind() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10)).eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    known = [
        autoinit.recommend(model, given, recommender=learned()).known[0]
        for given in (None, digits(), (digits()[0][:1], digits()[1][:1]))
    ]
    assert known[1] - known[0] > 15
    assert known[2] < known[1]  # a single row cannot be passed under batch normalization
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert all(torch.equal(parameter.grad, torch.ones_like(parameter)) for parameter in model.parameters())
    assert not any(module.training for module in model.modules())


def test_far_from_what_was_studied_it_keeps_the_owners_weights_and_says_why() -> None:
    found = autoinit.recommend(deep(), digits(), recommender=far())
    assert (found.abstained, found.unsure) == (True, True)
    assert found.best.key == "as_is"
    assert "unlike the studied ones" in found.why
    assert found.recipes
    told = str(found)
    assert told.startswith("Unsure: keep your own weights")
    assert "to try   " in told
    for reason in found.unlike:
        assert str(reason) in told


def test_where_nothing_is_surely_better_it_says_so() -> None:
    sceptic = with_learner(learned(), caution=100.0)
    found = autoinit.recommend(deep(), digits(), recommender=sceptic)
    assert (found.abstained, found.unsure) == (True, False)
    assert found.best.key == "as_is"
    assert "none of" in found.why
    assert "decide   " not in str(found)
    assert "unlike" not in found.why


def test_where_the_doubt_is_too_large_it_is_unsure_and_says_what_few_trainings_would_decide() -> None:
    bold = autoinit.recommend(deep(), digits(), optimizer=torch.optim.AdamW, lr=3e-3, recommender=learned())
    told = []
    for limit in (NEVER / 2, NEVER):
        limited = with_learner(learned(), doubt=limit)
        found = autoinit.recommend(deep(), digits(), optimizer=torch.optim.AdamW, lr=3e-3, recommender=limited)
        assert (found.best.key, found.abstained, found.unsure) == ("as_is", True, True)
        assert bold.best in found.recipes
        assert len(found.recipes) == 5
        told.append(" ".join(str(found).split()))
        assert re.search(r"is put no higher than your own weights by \d+% of the trees", told[-1])
        assert "a short training of each of these 5 and of your own weights would tell" in told[-1]
    assert "2% of the choices for unseen kinds of networks do harm at most" in told[0]
    assert "Too few tasks were studied" in told[1]


def test_a_third_partys_model_on_the_meta_device_without_data() -> None:
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=48, n_head=4, vocab_size=97))
    found = autoinit.recommend(model, recommender=learned(), k=3)
    assert len(found.recipes) <= 3
    assert found.known[0] < found.known[1]
    assert all(recipe.calibration == "none" for recipe in found.recipes)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_candidates_that_are_listed_are_the_only_ones() -> None:
    names = ["he_normal", "xavier_uniform"]
    found = autoinit.recommend(deep(), digits(), recipes=names, recommender=learned())
    assert set(found.table["recipe"]) == {"as_is", *(autoinit.Recipe(base=name).key for name in names)}


def test_what_is_printed_names_the_choice_its_promise_and_its_neighbours() -> None:
    found = autoinit.recommend(deep(), digits(), optimizer=torch.optim.AdamW, lr=3e-3, recommender=learned())
    told = str(found)
    assert told.startswith(f"Try {title(found.best)}\n")
    assert found.nearest[0][0] in told
    assert "× 1" in told
    for reason in found.features_for:
        assert reason.change > 0
        assert str(reason) in told


@pytest.mark.parametrize("count", [0, -1, True, 2.0, "3"])
def test_a_number_of_recipes_that_is_none_is_refused(count: object) -> None:
    with pytest.raises(autoinit.ArgumentError, match="k must be a whole number from 1"):
        autoinit.recommend(deep(), digits(), k=count, recommender=learned())  # type: ignore[arg-type]


def test_errors_of_the_reader_and_of_recipes_come_through() -> None:
    with pytest.raises(autoinit.RecipeError):
        autoinit.recommend(deep(), digits(), recipes=["he_nromal"], recommender=learned())
    with pytest.raises(autoinit.RecipeError):
        autoinit.recommend(deep(), digits(), recipes=["siren"], recommender=learned())
    with pytest.raises(autoinit.ModelError):
        autoinit.recommend(deep().requires_grad_(False), digits(), recommender=learned())


def test_labels_out_of_range_are_refused() -> None:
    x, labels = torch.randn(64, 6), torch.full((64,), 3)
    with pytest.raises(autoinit.DataError, match="label 3 in batch 0 of data is out of range"):
        autoinit.recommend(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), (x, labels))


# With a few short trainings


def sgd(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)  # type: ignore[arg-type]


def deep_tanh() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*[part for _ in range(14) for part in (nn.Linear(64, 64), nn.Tanh())], nn.Linear(64, 10))


def after_probes(risk: float = 1.0) -> Recommender:
    found = learned()
    assert found.informed is not None
    return dataclasses.replace(found, informed=dataclasses.replace(found.informed, risk=risk))


def test_recipes_that_were_tried_are_told_with_what_they_came_to() -> None:
    model = deep_tanh()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = autoinit.recommend(model, digits(), optimizer=sgd, probes=3, recommender=after_probes())
    tried = found.table[found.table["lead"].notna()]
    assert len(tried) == 3
    assert (tried["recipe"] != "as_is").all()
    assert not found.abstained
    assert found.best.key in set(tried["recipe"])
    assert float(tried.loc[tried["recipe"] == found.best.key, "lead"].iloc[0]) > 0.2  # as-is stands still there
    assert found.steps == 4 * 16
    shown = str(found)
    assert "of the 3 recipes that were tried for 16 steps it is the likeliest to end well" in shown
    assert "64 steps of training: 4 trainings of 16" in shown
    assert "after 16" in found._repr_html_()
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_same_call_says_the_same_of_what_it_tried() -> None:
    first, again = (
        autoinit.recommend(deep_tanh(), digits(), optimizer=sgd, probes=2, recommender=after_probes()) for _ in range(2)
    )
    assert str(first) == str(again)


def test_where_what_was_tried_is_at_too_high_a_risk_it_is_unsure() -> None:
    found = autoinit.recommend(deep_tanh(), digits(), optimizer=sgd, probes=1, recommender=after_probes(risk=NEVER))
    assert (found.abstained, found.unsure, found.best.key) == (True, True, "as_is")
    assert "is the likeliest to end well, at a chance of" in found.why
    assert found.recipes[0].key == found.table["recipe"].iloc[0]


def test_what_leads_nowhere_is_not_recommended() -> None:
    worse = {"base": "he_normal", "log2_gain": 10.0}
    found = autoinit.recommend(
        deep(), digits(), optimizer=sgd, probes=5, recipes=autoinit.Recipe(**worse), recommender=after_probes()
    )
    assert found.abstained
    assert found.best.key == "as_is"
    assert found.steps == 2 * 16  # there is but one to try
    assert "is not expected to end better than your own weights" in found.why


@pytest.mark.parametrize("probes", [-1, 1.5, True, "3"])
def test_a_number_of_probes_that_is_none_is_refused(probes: object) -> None:
    with pytest.raises(autoinit.ArgumentError, match="probes must be a whole number from 0"):
        autoinit.recommend(deep(), digits(), probes=probes, recommender=learned())  # type: ignore[arg-type]


def test_probes_need_data_weights_and_something_known_of_beginnings() -> None:
    with pytest.raises(autoinit.ArgumentError, match="no data to train on"):
        autoinit.recommend(deep(), probes=2, recommender=learned())
    with pytest.raises(autoinit.ArgumentError, match="on the meta device"):
        autoinit.recommend(deep().to("meta"), digits(), probes=2, recommender=learned())
    knows_nothing = dataclasses.replace(learned(), informed=None)
    with pytest.raises(autoinit.ArgumentError, match="does not tell how trainings began"):
        autoinit.recommend(deep(), digits(), probes=2, recommender=knows_nothing)
