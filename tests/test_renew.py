"""The verb on stale weights; how units are found and what they get is tested in tests/renewal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import unchanged
from torch import Tensor, nn

import autoinit


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)
    )


ROWS = torch.randn(128, 8, generator=torch.Generator().manual_seed(0))


def with_dead_units() -> nn.Module:
    model = network().eval()
    with torch.no_grad():
        model[0].bias[[2, 5]] = -100.0
        model[3].bias[7] = -100.0
    return model


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("fresh", ["recipe", "module"])
def test_shrinking_and_perturbing_is_what_its_formula_says(fresh: str) -> None:
    model, other = network(), network()
    before = weights(model)
    drawn: Any = other if fresh == "module" else "orthogonal"
    renewed = autoinit.renew_(model, ROWS, fresh=drawn, shrink=0.6, perturb=0.2, seed=4)
    if fresh == "recipe":
        autoinit.apply_(other, "orthogonal", ROWS, seed=4)
    for name in ("0.weight", "3.weight", "5.weight"):
        torch.testing.assert_close(model.get_parameter(name), 0.6 * before[name] + 0.2 * other.get_parameter(name))
        assert "0.6" in renewed.given.why[name]
    assert renewed.entries == ()


def test_dormant_units_start_anew_and_nothing_else_moves() -> None:
    model = with_dead_units()
    before, outputs = weights(model), model(ROWS).detach()
    renewed = autoinit.renew_(model, ROWS, method="redo")
    biases = {entry.name: entry.indices for entry in renewed.entries if entry.name.endswith("bias")}
    assert biases == {"0.bias": (2, 5), "3.bias": (7,), **{k: v for k, v in biases.items() if k == "2.bias"}}
    assert not model.training
    hidden = model[:2](ROWS)
    assert bool((hidden[:, [2, 5]] > 0).any(0).all())
    others = [place for place in range(16) if place not in (2, 5)]
    assert torch.equal(model[0].weight[others], before["0.weight"][others])
    assert torch.equal(model[5].bias, before["5.bias"])
    assert float((model(ROWS) - outputs).detach().abs().max()) < 1.0


def test_an_optimizer_forgets_the_renewed_entries_and_no_others() -> None:
    model = with_dead_units()
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(3):
        model(ROWS).square().mean().backward()
        optimizer.step()
    for state in optimizer.state.values():
        state["exp_avg_sq"].add_(1.0)
    autoinit.renew_(model, ROWS, method="redo").clear_state(optimizer)
    kept = optimizer.state[model[0].weight]["exp_avg_sq"]
    assert not kept[[2, 5]].any()
    assert bool((kept[[0, 1, 3]] >= 1).all())
    assert bool((optimizer.state[model[5].bias]["exp_avg_sq"] >= 1).all())


def test_the_same_seed_gives_the_same_bits() -> None:
    def renewed(seed: int) -> Tensor:
        torch.manual_seed(0)
        model = network()
        state = torch.get_rng_state()
        autoinit.renew_(model, ROWS, seed=seed)
        assert torch.equal(state, torch.get_rng_state())
        return model[0].weight.detach()

    assert torch.equal(renewed(1), renewed(1))
    assert not torch.equal(renewed(1), renewed(2))


def test_bad_arguments_change_nothing() -> None:
    model, broken = network(), network()
    with torch.no_grad():
        broken[0].weight[0, 0] = float("nan")
    cases: list[tuple[nn.Module, dict[str, Any], type[Exception], str]] = [
        (model, {"method": "shrink"}, autoinit.ArgumentError, "Did you mean 'shrink_and_perturb'"),
        (model, {"shrink": 1.5}, autoinit.ArgumentError, "shrink"),
        (model, {"method": "redo", "threshold": -1.0}, autoinit.ArgumentError, "threshold"),
        (model, {"fresh": nn.Linear(8, 3)}, autoinit.ArgumentError, "no instance of the same model"),
        (model, {"fresh": "he_norml"}, autoinit.RecipeError, "he_normal"),
        (model, {"seed": -1}, autoinit.ArgumentError, "seed"),
        (broken, {}, autoinit.AutoInitError, "finite|NaN"),
    ]
    for one, options, error, words in cases:
        with pytest.raises(error, match=words), unchanged(one):
            autoinit.renew_(one, ROWS, **options)
