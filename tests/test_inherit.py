"""The verbs on trained weights; `restore_` is tested with the adapters, in tests/inheritance."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import unchanged
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

import autoinit
from autoinit.growth.preserved import preserved
from autoinit.recipes.growths import GROWTH_ROWS


def network(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3)
    )


ROWS = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))


def trained(width: int = 12) -> nn.Module:
    model = network(width)
    for _ in range(5):
        model(ROWS)  # the statistics of the normalization are no longer those of a fresh one
    return model


def gpt2(width: int, layers: int) -> nn.Module:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=16, n_embd=width, n_layer=layers, n_head=2, bos_token_id=0,
                   eos_token_id=0, loss_type="ForCausalLM")
    )  # fmt: skip


IDS = torch.arange(48).reshape(4, 12) % 50
TOKENS = [{"input_ids": IDS, "labels": IDS}]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_wider_network_gives_the_same_outputs_with_its_statistics() -> None:
    small, large = trained(), network(24)
    with unchanged(small):
        plan = autoinit.inherit_(large, small, ROWS)
    assert preserved(small, large, ROWS) < 1e-5
    assert plan.base == "trained"
    assert set(plan.buffers) == {"3.running_mean", "3.running_var", "3.num_batches_tracked"}
    assert plan.recipe == autoinit.Recipe(growth="clone")
    assert "12×12 → 24×24" in plan["2.weight"].reason


def test_wider_and_deeper_at_once() -> None:
    small, large = gpt2(16, 2), gpt2(32, 4)
    autoinit.inherit_(large, small, TOKENS)
    assert preserved(small, large, TOKENS[0]) < 1e-5


def test_a_saved_plan_gives_the_same_bits_to_another_instance(tmp_path: Path) -> None:
    large, other = network(24), network(24)
    autoinit.inherit_(large, trained(), ROWS, method="net2net", seed=3).save(tmp_path / "grown.json")
    autoinit.apply_(other, tmp_path / "grown.json")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in large.state_dict().items())


@pytest.mark.parametrize("kind", ["module", "mapping", "file"])
def test_the_source_may_be_a_module_its_weights_or_a_file(kind: str, tmp_path: Path) -> None:
    small, large = trained(), network(24)
    save_file(small.state_dict(), tmp_path / "small.safetensors")
    source: Any = {"module": small, "mapping": small.state_dict(), "file": tmp_path / "small.safetensors"}[kind]
    autoinit.inherit_(large, source, ROWS)
    assert preserved(small, large, ROWS) < 1e-5


@pytest.mark.parametrize("method", [name for name, row in GROWTH_ROWS.items() if row.narrower])
def test_a_smaller_network_takes_a_part(method: str) -> None:
    large, small = trained(24), network(12)
    autoinit.inherit_(small, large, ROWS, method=method)
    rows = {tuple(row) for row in large[0].weight.tolist()}
    assert all(tuple(row) in rows for row in small[0].weight.tolist())


def test_what_cannot_be_says_why_and_changes_nothing(tmp_path: Path) -> None:
    small = trained()
    (tmp_path / "notes.txt").write_text("no weights")
    cases: list[tuple[nn.Module, Any, dict[str, Any], type[Exception], str]] = [
        (network(6), small, {}, autoinit.SourceError, "select_uniform"),
        (network(24), small, {"method": "select_uniform"}, autoinit.SourceError, "clone"),
        (network(24), small, {"method": "clones"}, autoinit.SourceError, "Did you mean 'clone'"),
        (nn.Sequential(nn.Linear(8, 24), nn.LayerNorm(24), nn.Linear(24, 3)), small, {}, autoinit.SourceError, "fit"),
        (network(24), tmp_path / "notes.txt", {}, autoinit.SourceError, "notes.txt"),
        (network(24), small, {"noise": -1.0}, autoinit.ArgumentError, "noise"),
        (network(24), small, {"seed": -1}, autoinit.ArgumentError, "seed"),
    ]
    for model, source, options, error, words in cases:
        with pytest.raises(error, match=words), unchanged(model), unchanged(small):
            autoinit.inherit_(model, source, ROWS, **options)


def test_a_growth_that_cannot_be_exact_is_refused_where_that_is_asked() -> None:
    large, small = gpt2(32, 2), gpt2(16, 2)
    with (
        pytest.raises(autoinit.SourceError, match=r"cannot: transformer\.h\.0\.ln_1"),
        unchanged(large),
        unchanged(small),
    ):
        autoinit.inherit_(large, small, TOKENS, method="zero_pad", exact=True)
    assert any("ln_1" in note for note in autoinit.inherit_(large, small, TOKENS, method="zero_pad").notes)


def test_a_growth_is_no_recipe_for_other_verbs() -> None:
    model = network(8)
    for name in ("grow_clone", "select_uniform"):
        with pytest.raises(autoinit.RecipeError, match=r"autoinit.inherit_\(model, source"), unchanged(model):
            autoinit.apply_(model, name, ROWS)


def test_the_source_stays_apart_from_the_model() -> None:
    small, large = trained(), network(24)
    before = weights(small)
    autoinit.inherit_(large, small, ROWS)
    optimizer = torch.optim.SGD(large.parameters(), lr=0.1)
    large(ROWS).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in weights(small).items())
    assert not torch.equal(copy.deepcopy(large)[0].weight, small[0].weight)


def test_a_head_in_closed_form_leaves_the_rest(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10)).train()
    before = weights(model)
    random_state = torch.get_rng_state()
    told = autoinit.head_(model, (x[:1000], y[:1000]))
    assert torch.equal(random_state, torch.get_rng_state())
    assert model.training
    assert set(told) == {"3.weight", "3.bias"}
    assert {name for name, value in weights(model).items() if not torch.equal(value, before[name])} == set(told)
    held_back = model.eval()(x[1000:]).argmax(1) == y[1000:]
    assert held_back.float().mean() > 0.85


def test_a_head_for_numbers_is_ridge_regression() -> None:
    from sklearn.datasets import load_diabetes

    rows, numbers = load_diabetes(return_X_y=True)
    x = torch.tensor(rows / rows.std(0), dtype=torch.float32)
    y = torch.tensor((numbers - numbers.mean()) / numbers.std(), dtype=torch.float32)[:, None]
    model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
    autoinit.head_(model, (x, y), head="2", method="least_squares")
    assert float((model(x).detach() - y).square().mean()) < 0.6


def test_a_head_that_is_none_is_refused() -> None:
    model, data = network(8), (ROWS, torch.randint(3, (64,)))
    for options, error, words in (
        ({"head": "6"}, autoinit.ArgumentError, "6"),
        ({"head": "5", "method": "means"}, autoinit.ArgumentError, "class_means"),
    ):
        with pytest.raises(error, match=words), unchanged(model):
            autoinit.head_(model, data, **options)
