"""A smaller config of a transformers model: whole layers and heads, every kind of layer, the owner's own draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from helpers import unchanged
from torch import nn

import autoinit
from autoinit.errors import ModelError
from autoinit.proxies.configs import from_smaller_config, is_from_config, smaller_config

KEPT = {"vocab_size", "head_dim", "max_position_embeddings", "patch_size", "image_size", "num_labels"}

CONFIGS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "GPT-2": (
        lambda: transformers.GPT2Config(n_layer=12, n_embd=96, n_head=6, n_inner=384),
        {"n_layer": 6, "n_embd": 48, "n_head": 3, "n_inner": 192},
    ),
    "grouped heads": (
        lambda: transformers.LlamaConfig(num_attention_heads=8, num_key_value_heads=2, hidden_size=64),
        {"num_attention_heads": 4, "num_key_value_heads": 1, "hidden_size": 32, "intermediate_size": 5504},
    ),
    "one head for all keys": (
        lambda: transformers.LlamaConfig(num_attention_heads=8, num_key_value_heads=1, hidden_size=64),
        {"num_attention_heads": 4, "num_key_value_heads": 1, "hidden_size": 32},
    ),
    "encoder and decoder": (
        lambda: transformers.BartConfig(encoder_layers=12, decoder_layers=6),
        {"encoder_layers": 6, "decoder_layers": 3, "d_model": 512, "decoder_ffn_dim": 2048},
    ),
    "T5": (
        lambda: transformers.T5Config(),
        {"num_layers": 3, "num_decoder_layers": 3, "num_heads": 4, "d_model": 256, "d_kv": 64},
    ),
    "stages": (
        lambda: transformers.ConvNextConfig(depths=[3, 3, 9, 3]),
        {"depths": [2, 2, 4, 2], "hidden_sizes": (48, 96, 192, 384), "num_stages": 4},
    ),
    "stages with heads": (
        lambda: transformers.SwinConfig(embed_dim=64, num_heads=[2, 4, 8, 16]),
        {"depths": (1, 1, 3, 1), "num_heads": [1, 2, 4, 8], "embed_dim": 32, "num_layers": 4},
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_depth_and_width_are_halved_and_heads_stay_as_wide(name: str) -> None:
    make, halved = CONFIGS[name]
    config = make()
    before = config.to_dict()
    found = vars(smaller_config(config, 2.0))
    assert {key: found[key] for key in halved} == halved
    assert {key: found[key] for key in KEPT & found.keys()} == {key: vars(config)[key] for key in KEPT & found.keys()}
    assert config.to_dict() == before


def test_configs_inside_a_config_are_divided_alike() -> None:
    found = smaller_config(transformers.CLIPConfig(), 2.0)
    text, vision = found.text_config, found.vision_config
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads) == (256, 6, 4)
    assert (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads) == (384, 6, 6)


def test_a_layer_of_each_kind_stays() -> None:
    config = transformers.Gemma3TextConfig(num_hidden_layers=12)
    found = smaller_config(config, 100.0)
    assert found.num_hidden_layers == 2
    assert found.layer_types == ["sliding_attention", "full_attention"]
    assert found.num_attention_heads % found.num_key_value_heads == 0
    longer = smaller_config(config, 1.5)
    assert longer.layer_types == config.layer_types[:8]


def test_layers_that_lead_and_one_more_stay() -> None:
    config = transformers.DeepseekV3Config(num_hidden_layers=12, first_k_dense_replace=3)
    assert smaller_config(config, 100.0).num_hidden_layers == 4


def llama(**rest: Any) -> Any:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 8, "num_attention_heads": 8}
    sizes |= {"num_key_value_heads": 4, "vocab_size": 17, "max_position_embeddings": 64}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**(sizes | rest), bos_token_id=0, eos_token_id=0))


def test_the_proxy_has_its_owners_draws_and_nothing_is_changed() -> None:
    torch.manual_seed(0)
    model = llama(initializer_range=0.3).eval().to(torch.float64)
    for block in model.model.layers:
        block.self_attn.q_proj.weight.requires_grad_(False)
    with unchanged(model):
        small = from_smaller_config(model, 4.0, seed=0)
        again = from_smaller_config(model, 4.0, seed=0)
        other = from_smaller_config(model, 4.0, seed=1)
    weights = dict(small.named_parameters())
    assert weights["model.layers.0.mlp.up_proj.weight"].std().item() == pytest.approx(0.3, rel=0.05)
    assert all(one.equal(two) for one, two in zip(weights.values(), again.parameters(), strict=True))
    assert not all(one.equal(two) for one, two in zip(weights.values(), other.parameters(), strict=True))
    assert {parameter.dtype for parameter in weights.values()} == {torch.float64}
    assert not small.training
    frozen = [name for name, parameter in weights.items() if not parameter.requires_grad]
    assert frozen
    assert all("q_proj" in name for name in frozen)


@pytest.mark.parametrize("times", [4.0, 16.0])
def test_it_is_so_many_times_smaller_beside_its_vocabulary(times: float) -> None:
    model = llama(num_hidden_layers=16, hidden_size=128, num_attention_heads=16, intermediate_size=256)
    small = from_smaller_config(model, times, seed=0)

    def size(one: Any) -> int:
        return sum(parameter.numel() for parameter in one.model.layers.parameters())

    assert times <= size(model) / size(small) < 3 * times


def test_what_is_tied_is_tied_in_the_proxy() -> None:
    small: Any = from_smaller_config(llama(tie_word_embeddings=True), 4.0, seed=0)
    assert small.lm_head.weight is small.model.embed_tokens.weight


def test_a_model_that_is_other_than_its_config_is_refused() -> None:
    model = llama(tie_word_embeddings=True)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    with pytest.raises(ModelError, match="not those that its config gives"), unchanged(model):
        from_smaller_config(model, 4.0, seed=0)


class Wrapped(transformers.LlamaForCausalLM):
    """Takes more than a config."""

    def __init__(self, config: Any, name: str) -> None:
        super().__init__(config)
        self.name = name


def test_a_class_that_takes_more_than_a_config_is_refused_and_its_blocks_are_copied() -> None:
    model = Wrapped(llama().config, "mine")
    with pytest.raises(ModelError, match=r"Wrapped cannot be made on a smaller one: TypeError.*name"):
        from_smaller_config(model, 4.0, seed=0)
    small: Any = autoinit.smaller(model)
    assert len(small.model.layers) == 2
    tokens = torch.zeros(1, 4, dtype=torch.long)
    assert small(input_ids=tokens, labels=tokens).loss.isfinite()


def test_a_model_without_weights_has_a_proxy_with_them() -> None:
    with torch.device("meta"):
        model = llama()
    small = from_smaller_config(model, 4.0, seed=0)
    assert {parameter.device.type for parameter in small.parameters()} == {"cpu"}


def test_only_models_of_transformers_come_from_a_config() -> None:
    assert is_from_config(llama())
    assert not is_from_config(nn.Linear(2, 2))
