"""Units that are dead on purpose: exactly these are found and renewed, and nothing else moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import bits, unchanged
from renewing import fresh_of, set_values
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit
from autoinit.errors import ArgumentError
from autoinit.graph import Graph
from autoinit.renewal.dormant import Dormancy, Renewal, find_dormant, renew_dormant

DEAD = {"0.weight": (1, 4), "2.weight": (0, 3, 5)}


def expected_masks(model: nn.Module, renewal: Renewal) -> dict[str, Tensor]:
    """Which entries of each tensor are renewed, from the entries that the renewal names, one by one."""
    masks = {}
    for entry in renewal.entries:
        tensor = {**dict(model.named_parameters()), **dict(model.named_buffers())}[entry.name]
        mask = masks.setdefault(entry.name, torch.zeros(tensor.shape, dtype=torch.bool))
        for index in entry.indices:
            mask.select(entry.axis, index).fill_(True)
    return masks


@pytest.fixture
def mlp() -> tuple[nn.Sequential, Graph, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    batch = (torch.randn(64, 5), torch.randint(0, 3, (64,)))
    with torch.no_grad():
        for name, units in DEAD.items():
            model.get_submodule(name.split(".")[0]).bias[list(units)] = -100.0
    return model, autoinit.trace(model, batch), batch


def test_exactly_the_dead_units_are_found(mlp: Any) -> None:
    model, graph, batch = mlp
    with unchanged(model):
        found = find_dormant(model, graph, [batch], threshold=0.0)
    assert found.dormant == DEAD
    assert found.share == 5 / 14
    assert set(found.left) == {"4.weight"}
    assert found.notes == ()


def test_scores_are_those_of_the_paper(mlp: Any) -> None:
    model, graph, (x, y) = mlp
    found = find_dormant(model, graph, [(x[:48], y[:48]), (x[48:], y[48:])], threshold=0.025)
    hidden = torch.relu(model[0](x)).abs().double().mean(0)  # over all rows, however they are batched
    scores = torch.tensor([unit.score for unit in found.layers["0.weight"]], dtype=torch.float64)
    torch.testing.assert_close(scores, hidden / hidden.mean(), rtol=1e-5, atol=0.0)
    uneven = torch.stack([torch.relu(model[0](part)).abs().double().mean(0) for part in (x[:48], x[48:])]).mean(0)
    assert not torch.allclose(scores, uneven / uneven.mean(), rtol=1e-3)


def test_the_threshold_decides(mlp: Any) -> None:
    model, graph, batch = mlp
    scores = [unit.score for unit in find_dormant(model, graph, [batch], threshold=0.0).layers["0.weight"]]
    weakest = min(score for score in scores if score > 0)
    found = find_dormant(model, graph, [batch], threshold=weakest)
    assert len(found.dormant["0.weight"]) == 3
    with pytest.raises(ArgumentError, match="threshold is -1"):
        find_dormant(model, graph, [batch], threshold=-1.0)
    with pytest.raises(ArgumentError, match="no batch"):
        find_dormant(model, graph, [], threshold=0.1)


def test_renewed_units_are_alive_and_the_output_is_what_it_was(mlp: Any) -> None:
    model, graph, (x, y) = mlp
    before, fresh = model(x), fresh_of(graph)
    with unchanged(model):
        renewal = renew_dormant(model, graph, find_dormant(model, graph, [(x, y)], threshold=0.0), fresh)
    set_values(model, renewal.given.values)
    assert torch.equal(model(x), before)
    assert find_dormant(model, graph, [(x, y)], threshold=0.0).dormant == {}
    live = [unit for unit in range(8) if unit not in DEAD["0.weight"]]
    assert torch.equal(model[0].weight[[1, 4]], fresh["0.weight"][[1, 4]])
    assert torch.equal(model[2].weight[[0, 3, 5]][:, live], fresh["2.weight"][[0, 3, 5]][:, live])
    assert not model[2].weight[:, [1, 4]].any()  # of renewed rows, too
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        assert model[4].weight.grad[:, [0, 3, 5]].abs().amin(0).gt(0).any()
        assert bool(model[2].weight.grad[[0, 3, 5]].any(1).all()) is (step > 0)
        optimizer.step()


def test_nothing_else_moves_bit_for_bit(mlp: Any) -> None:
    model, graph, batch = mlp
    before = {name: value.clone() for name, value in model.state_dict().items()}
    renewal = renew_dormant(model, graph, find_dormant(model, graph, [batch], threshold=0.0), fresh_of(graph))
    by_hand = {name: torch.zeros(value.shape, dtype=torch.bool) for name, value in before.items()}
    for name, units in DEAD.items():
        place = int(name[0])
        by_hand[name][list(units)] = True
        by_hand[f"{place}.bias"][list(units)] = True
        by_hand[f"{place + 2}.weight"][:, list(units)] = True
    masks = expected_masks(model, renewal)
    assert masks.keys() == renewal.given.values.keys() == renewal.given.why.keys()
    for name, mask in masks.items():
        assert torch.equal(mask, by_hand.pop(name))
        assert bits(renewal.given.values[name][~mask]) == bits(before[name][~mask])
        assert not torch.equal(renewal.given.values[name][mask], before[name][mask])
    assert not any(mask.any() for mask in by_hand.values())


OPTIMIZERS: dict[str, Any] = {
    "adam": lambda parameters: torch.optim.Adam(parameters, amsgrad=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, momentum=0.9, centered=True),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters),
    "adafactor": lambda parameters: torch.optim.Adafactor(parameters),
    "no_momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_exactly_the_state_of_renewed_entries_is_cleared(mlp: Any, kind: str) -> None:
    model, graph, (x, y) = mlp
    renewal = renew_dormant(model, graph, find_dormant(model, graph, [(x, y)], threshold=0.0), fresh_of(graph))
    with torch.no_grad():  # so that every entry has a state
        for one in model.parameters():
            one.copy_(torch.randn(one.shape))
    optimizer = OPTIMIZERS[kind](model.parameters())
    for rows in torch.arange(64).split(16):
        optimizer.zero_grad()
        (F.cross_entropy(model(x[rows]), y[rows]) + sum(one.sin().sum() for one in model.parameters())).backward()
        optimizer.step()
    names = {one: name for name, one in model.named_parameters()}
    before = {
        (names[one], key): value.clone() for one, held in optimizer.state.items() for key, value in held.items()
        if isinstance(value, Tensor)
    }  # fmt: skip
    renewal.clear_state(optimizer)
    masks, cleared = expected_masks(model, renewal), 0
    for one, held in optimizer.state.items():
        for key, value in held.items():
            if not isinstance(value, Tensor):
                continue
            mask = masks.get(names[one], torch.zeros(one.shape, dtype=torch.bool))
            mask = mask if value.shape == one.shape else torch.zeros(value.shape, dtype=torch.bool)
            old = before[names[one], key]
            assert bits(value[~mask]) == bits(old[~mask]), (names[one], key)
            assert not value[mask].any(), (names[one], key)
            cleared += int(old[mask].count_nonzero())
    assert (cleared == 0) is (kind == "no_momentum")


def test_an_optimizer_of_another_model_is_refused(mlp: Any) -> None:
    model, graph, batch = mlp
    renewal = renew_dormant(model, graph, find_dormant(model, graph, [batch], threshold=0.0), fresh_of(graph))
    with pytest.raises(ArgumentError, match="trains none of the renewed"):
        renewal.clear_state(torch.optim.Adam(nn.Linear(5, 8).parameters()))
    nothing = renew_dormant(model, graph, Dormancy({}, 0.0, {}), {})
    nothing.clear_state(torch.optim.Adam(model.parameters()))
    assert nothing.entries == () == tuple(nothing.given.values)


def test_draws_that_are_missing_or_of_another_shape(mlp: Any) -> None:
    model, graph, batch = mlp
    found, fresh = find_dormant(model, graph, [batch], threshold=0.0), fresh_of(graph)
    with pytest.raises(ArgumentError, match=r"no fresh draw of 2\.weight"):
        renew_dormant(model, graph, found, {"0.weight": fresh["0.weight"]})
    with pytest.raises(ArgumentError, match=r"0\.weight has shape \(5, 8\)"):
        renew_dormant(model, graph, found, fresh | {"0.weight": torch.ones(5, 8)})


# Other architectures


def test_channels_behind_batch_normalization_read_by_a_flattened_linear() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(5 * 2 * 2, 3),
    )  # fmt: skip
    x, y = torch.randn(16, 1, 10, 10), torch.randint(0, 3, (16,))
    graph = autoinit.trace(model, (x, y))
    model(x)  # statistics that are not those of a fresh model
    with torch.no_grad():
        model[1].bias[[2, 5]] = -100.0
        model[5].bias[3] = -100.0
    with unchanged(model):
        found = find_dormant(model, graph, [(x, y)], threshold=0.0)
    assert found.dormant == {"0.weight": (2, 5), "4.weight": (3,)}
    renewal = renew_dormant(model, graph, found, fresh_of(graph))
    masks = expected_masks(model, renewal)
    assert masks["8.weight"].any(0).nonzero().flatten().tolist() == [12, 13, 14, 15]
    assert masks["4.weight"].all(-1).all(-1)[0].nonzero().flatten().tolist() == [2, 5]
    norms = ("weight", "bias", "running_mean", "running_var")
    assert {f"{at}.{key}" for at in (1, 5) for key in norms} < renewal.given.values.keys()
    states = {name: value.clone() for name, value in model.state_dict().items()}
    for mode in (model.eval, model.train):
        model.load_state_dict(states)
        before = mode()(x)
        model.load_state_dict(states)
        set_values(model, renewal.given.values)
        assert torch.equal(model(x), before)
    set_values(model, renewal.given.values)
    starts = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    assert all(model.state_dict()[f"1.{key}"][[2, 5]].eq(start).all() for key, start in starts.items())
    assert find_dormant(model, graph, [(x, y)], threshold=0.0).dormant == {}


@pytest.mark.parametrize("norm_first", [False, True])
def test_feed_forward_units_of_a_torch_encoder_layer(norm_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 24, activation="gelu", batch_first=True, norm_first=norm_first)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(8 * 6, 3))
    x, y = torch.randn(16, 6, 8), torch.randint(0, 3, (16,))
    graph = autoinit.trace(model, (x, y))
    with torch.no_grad():
        layer.linear1.bias[[0, 7, 23]] = -100.0
    with unchanged(model):
        found = find_dormant(model, graph, [(x, y)], threshold=0.025)
    assert found.dormant == {"0.linear1.weight": (0, 7, 23)}
    before = model.eval()(x)
    renewal = renew_dormant(model, graph, found, fresh_of(graph))
    set_values(model, renewal.given.values)
    assert set(renewal.given.values) == {"0.linear1.weight", "0.linear1.bias", "0.linear2.weight"}
    torch.testing.assert_close(model(x), before, rtol=0.0, atol=1e-7)
    assert find_dormant(model, graph, [(x, y)], threshold=0.025).dormant == {}


def test_an_error_in_the_middle_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))
    batch = (torch.randn(16, 5), torch.randint(0, 3, (16,)))
    graph = autoinit.trace(model, batch)

    def failing(one: nn.Module, given: Any) -> object:
        one.train()(given[0])  # statistics move, masks are drawn
        one.register_buffer("left_behind", torch.ones(1))
        raise ValueError("nothing comes of it")

    with unchanged(model), pytest.raises(ValueError, match="nothing comes of it"):
        find_dormant(model, graph, [batch], threshold=0.1, forward=failing)
