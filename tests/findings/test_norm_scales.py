"""A norm's scale that stands out among those of its place in other blocks is named, and no other one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fresh_models import VOCABULARY, Fresh, llama, resnet, rows, tokens
from torch import Tensor, nn
from zoo import ZOO

from autoinit.diagnosis import diagnose
from autoinit.findings.finding import Finding
from autoinit.findings.siblings import norm_siblings
from autoinit.tracing.tracing import trace


def standing(model: nn.Module, data: Any) -> list[Finding]:
    return [found for found in diagnose(model, data).findings if "stands out among norms alike" in found.text]


class Centred(nn.Module):
    """A normalization by hand whose scale is 1 + w, so that w starts at zero, as in Gemma."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1.0 + self.w)


class Branch(nn.Module):
    """A pre-norm branch with any normalization."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.up, self.down = norm, nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(self.norm(x)).relu())


def branches(make: Callable[[], nn.Module], count: int = 5) -> Fresh:
    return nn.Sequential(*(Branch(make()) for _ in range(count)), nn.Linear(16, 5)), rows()


def gemma() -> Fresh:
    from transformers import GemmaConfig, GemmaForCausalLM

    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
    config = GemmaConfig(**sizes, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0)
    return GemmaForCausalLM(config), tokens()


def t5() -> Fresh:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4}
    return T5ForConditionalGeneration(T5Config(**sizes, num_layers=3, decoder_start_token_id=0)), tokens()


PLANTED: dict[str, tuple[Callable[[], Fresh], str, float]] = {
    "RMSNorm of two": (lambda: llama(2), "model.layers.1.input_layernorm.weight", 50.0),
    "too small": (llama, "model.layers.1.post_attention_layernorm.weight", 0.02),
    "BatchNorm": (resnet, "5.norm2.weight", 50.0),
    "GroupNorm": (lambda: branches(lambda: nn.GroupNorm(2, 16)), "2.norm.weight", 30.0),
    "1 + w": (lambda: branches(lambda: Centred(16)), "3.norm.w", 49.0),
    "Gemma": (gemma, "model.layers.2.input_layernorm.weight", 49.0),
    "T5": (t5, "encoder.block.0.layer.0.layer_norm.weight", 50.0),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_scale_far_from_its_siblings_is_named_and_the_call_mends_it(case: str) -> None:
    build, name, value = PLANTED[case]
    model, data = build()
    before = model.get_parameter(name).detach().clone()
    nn.init.constant_(model.get_parameter(name), value)
    (found,) = standing(model, data)
    assert found.text.split()[0] == name
    assert found.severity == "warning"
    exec(found.remedy.removeprefix("set it as they are: "), {"nn": nn, "model": model})
    assert torch.equal(model.get_parameter(name), before)
    assert not standing(model, data)


def test_a_trained_scale_is_named_from_thirty_times_its_siblings_on() -> None:
    model, data = branches(lambda: nn.LayerNorm(16))
    with torch.no_grad():
        for place, size in enumerate((0.02, 0.3, 0.4, 0.5, 6.0)):
            model.get_parameter(f"{place}.norm.weight").copy_(size * torch.linspace(0.5, 1.5, 16))
    assert not standing(model, data)
    with torch.no_grad():
        model.get_parameter("4.norm.weight").mul_(4)
    assert [found.text.split()[0] for found in standing(model, data)] == ["4.norm.weight"]


def test_a_trained_scale_of_1_plus_w_is_compared_as_a_whole() -> None:
    model, data = branches(lambda: Centred(16))
    with torch.no_grad():
        for place, size in enumerate((0.01, -0.01, 0.02, 0.01, 0.9)):
            model.get_parameter(f"{place}.norm.w").copy_(size * torch.linspace(0.5, 1.5, 16))
    assert not standing(model, data)


@pytest.mark.parametrize("value", [0.0, 0.02])
def test_scales_that_close_their_branches_small_are_their_owners_choice(value: float) -> None:
    model, data = resnet()
    for name, parameter in model.named_parameters():
        if name.endswith("norm2.weight"):
            nn.init.constant_(parameter, value)
    assert not standing(model, data)


@pytest.mark.parametrize("build", [gemma, t5])
def test_no_scale_of_a_fresh_model_stands_out(build: Callable[[], Fresh]) -> None:
    model, data = build()
    assert not standing(model, data)


@pytest.mark.parametrize("name", ZOO)
def test_no_scale_of_the_zoo_stands_out(name: str) -> None:
    case = ZOO[name]()
    assert not list(norm_siblings(case.model, trace(case.model, [case.batch], step=case.loss)))
