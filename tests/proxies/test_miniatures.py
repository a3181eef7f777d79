"""`smaller` and `proxy="auto"`: a proxy that makes itself, or an error that says how to give one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

import autoinit
from autoinit.errors import ArgumentError, ModelError, OptimizerError

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)
TOKENS = torch.tensor(DIGITS.data[:64], dtype=torch.long)


def deep(width: int = 32, layers: int = 16) -> nn.Module:
    torch.manual_seed(0)
    hidden = [part for _ in range(layers) for part in (nn.Linear(width, width), nn.Tanh())]
    return nn.Sequential(nn.Linear(64, width), nn.Tanh(), *hidden, nn.Linear(width, 10))


def gpt2(layers: int = 8, width: int = 32, heads: int = 4) -> Any:
    sizes = {"vocab_size": 17, "n_positions": 64, "n_embd": width, "n_layer": layers, "n_head": heads}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, use_cache=False))
    model.loss_type = "ForCausalLM"
    return model


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)


def selected(model: nn.Module, data: Any = DATA, **rest: Any) -> autoinit.Selection:
    options: dict[str, Any] = {"recipes": ["orthogonal", "lsuv"], "executor": "sequential", "optimizer": sgd, "seed": 1}
    budget = autoinit.Budget(steps=1500)
    return autoinit.select(model, data, proxy="auto", budget=budget, **(options | rest))


def test_what_wins_on_the_proxy_and_the_model_is_drawn_into_the_model() -> None:
    model = deep()
    selection = selected(model)
    assert not selection.kept
    assert "searched on a proxy of 6,634 of 19,306 parameters, 6 of 18 layers of weights" in selection.proxy
    assert selection.headline.endswith("(sure).")
    assert set(selection.plan) == dict(model.named_parameters()).keys()
    fresh = deep()
    autoinit.apply_(fresh, selection.plan)
    assert all(one.equal(two) for one, two in zip(model.parameters(), fresh.parameters(), strict=True))


def test_nothing_is_changed_where_nothing_is_applied() -> None:
    model = deep()
    with unchanged(model):
        selected(model, apply=False)


def test_a_config_and_its_blocks_make_a_proxy_of_one_kind() -> None:
    model = gpt2()
    batches = [{"input_ids": part, "labels": part} for part in TOKENS.split(8)]
    small: Any = autoinit.smaller(model)
    assert (small.config.n_layer, small.config.n_embd // small.config.n_head) == (5, 8)
    assert small.loss_type == "ForCausalLM"
    selection = selected(model, batches, recipes=["he_normal"], apply=False)
    assert "residual adds" in selection.proxy


def test_wrappers_are_looked_through() -> None:
    assert len(autoinit.smaller(nn.DataParallel(deep()))) == len(autoinit.smaller(deep()))  # type: ignore[arg-type]


@pytest.mark.parametrize("times", [1, 0, -3.0, float("nan"), float("inf"), "4", True, None])
def test_a_number_of_times_is_above_one(times: Any) -> None:
    with pytest.raises(ArgumentError, match="times must be a number above 1"):
        autoinit.smaller(deep(), times=times)


def test_what_is_not_repeated_says_how_to_give_a_proxy() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    for ask in (autoinit.smaller, selected):
        with pytest.raises(ModelError, match=r"more than 2 alike blocks\)\. Make one yourself.*proxy=small"):
            ask(model)  # type: ignore[operator]


def test_both_ways_that_failed_are_told() -> None:
    with torch.device("meta"):
        model = gpt2()
        model.extra = nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"from its config: its parameters.*from its blocks: it is on the meta"):
        autoinit.smaller(model)


def test_a_proxy_as_large_as_the_model_is_refused() -> None:
    """Layers that are one and the same are no fewer parameters."""
    one = nn.Linear(8, 8)
    with pytest.raises(ModelError, match="the smallest one has 90 parameters, and the model 90"):
        autoinit.smaller(nn.Sequential(*[one] * 6, nn.Linear(8, 2)))


def test_no_module_and_no_known_word_are_told_apart() -> None:
    with pytest.raises(ModelError, match="model is a str"):
        autoinit.smaller("gpt2")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"proxy is 'small'\. Allowed: \"auto\""), unchanged(model := deep()):
        autoinit.select(model, DATA, proxy="small")


def test_an_optimizer_of_the_models_parameters_suits_the_proxy_that_is_made() -> None:
    model = deep()
    selection = selected(model, optimizer=sgd(model.parameters()))
    assert "final" in set(selection.trials.stage)
    assert selection.lr == 0.02


def test_an_optimizer_of_other_parameters_is_refused() -> None:
    with pytest.raises(OptimizerError, match=r"do not belong to the model"):
        selected(deep(), optimizer=sgd(deep().parameters()))


class Heads(nn.Module):
    """Alike modules side by side, which are no blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.heads = nn.Linear(64, 8), nn.ModuleList(nn.Linear(8, 1) for _ in range(10))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([head(self.body(x).relu()) for head in self.heads], 1)


def test_a_proxy_that_cannot_take_the_data_is_told_as_one_that_was_made() -> None:
    with pytest.raises(autoinit.AutoInitError, match=r"autoinit\.smaller\(model\) made it; pass one of your own"):
        selected(Heads())
