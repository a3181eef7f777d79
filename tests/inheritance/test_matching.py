"""Which tensor of a model is which of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from helpers import observed
from torch import nn
from torch.nn.utils import parametrizations

from autoinit.errors import ModelError, SourceError
from autoinit.inheritance.checkpoints import read_checkpoint
from autoinit.inheritance.matching import matched


def gpt2(kind: type[Any] = transformers.GPT2LMHeadModel, **settings: Any) -> Any:
    shape = {"vocab_size": 64, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2}
    return kind(transformers.GPT2Config(**(shape | settings)))


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))


def test_a_model_has_all_of_its_own_weights_and_nothing_is_changed() -> None:
    model = plain()
    before = observed(model)
    found = matched(model, model)
    assert dict(found.same) == {name: name for name in model.state_dict()}
    assert (found.rows, found.new, found.new_buffers, found.unused, found.notes) == ({}, (), (), (), ())
    assert found.differs(model) == []
    assert observed(model) == before


def test_values_that_differ_are_named_and_nan_equals_nan() -> None:
    model, source = plain(), plain()
    source.load_state_dict(model.state_dict())
    for each in (model, source):
        each[2].bias.data[1] = torch.nan
    found = matched(model, source)
    assert found.differs(model) == []
    model[0].weight.data[0, 0] += 1e-6
    model[1].running_mean[2] = 1.0
    assert found.differs(model) == ["0.weight", "1.running_mean"]
    assert set(found.differs(plain().to("meta"))) == set(found.same)


def test_values_are_compared_in_the_dtype_of_the_model() -> None:
    model = plain()
    stored = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    half = plain().bfloat16()
    half.load_state_dict(stored)
    assert matched(half, stored).differs(half) == []


@pytest.mark.parametrize(
    ("wrap_model", "wrap_file"),
    [
        ("", "module."),
        ("", "model."),
        ("module.", ""),
        ("", "_orig_mod."),
        ("_orig_mod.", ""),
        ("module.", "model."),
        ("", "_orig_mod.module.model."),
        ("", "base_model.model."),
    ],
)
def test_a_constant_prefix_on_either_side_is_seen(wrap_model: str, wrap_file: str) -> None:
    inner = plain()
    model: nn.Module = inner
    for part in reversed(wrap_model.split(".")[:-1]):
        outer = nn.Module()
        outer.add_module(part, model)
        model = outer
    stored = {wrap_file + name: tensor for name, tensor in inner.state_dict().items()}
    found = matched(model, stored)
    assert dict(found.same) == {wrap_model + name: wrap_file + name for name in inner.state_dict()}
    assert (found.new, found.unused) == ((), ())
    told = [word for word in (wrap_model, wrap_file) if word not in ("", "_orig_mod.")]
    assert len(found.notes) == bool(told)
    assert all(word.replace("_orig_mod.", "") in found.notes[0] for word in told)


def test_a_head_is_new_on_a_base_model_and_left_over_the_other_way() -> None:
    whole, base = gpt2(), gpt2(transformers.GPT2Model)
    found = matched(whole, base)
    assert dict(found.same) == {f"transformer.{name}": name for name in base.state_dict()}
    assert found.new == (), "the tied head is the table of tokens"
    classifier = gpt2(transformers.GPT2ForSequenceClassification, num_labels=3)
    assert matched(classifier, base).new == ("score.weight",)
    assert matched(base, classifier).unused == ("score.weight",)


def test_a_tied_tensor_is_found_under_whichever_name_a_file_has(tmp_path: Path) -> None:
    model = gpt2()
    state = model.state_dict()
    for left_out in ("transformer.wte.weight", "lm_head.weight"):
        found = matched(model, {name: tensor for name, tensor in state.items() if name != left_out})
        (kept,) = {"transformer.wte.weight", "lm_head.weight"} - {left_out}
        assert found.same["transformer.wte.weight"] == kept
        assert (found.new, found.unused) == ((), ())
    untied = gpt2(tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    assert matched(untied, tmp_path).new == ("lm_head.weight",)


def test_rows_beyond_the_files_are_new() -> None:
    model = gpt2()
    stored = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.resize_token_embeddings(70)
    found = matched(model, stored)
    assert dict(found.rows) == {"transformer.wte.weight": "transformer.wte.weight"}
    assert found.differs(model) == []
    model.transformer.wte.weight.data[3] += 1.0
    assert found.differs(model) == ["transformer.wte.weight"]


def test_a_head_with_more_classes_has_new_rows_of_weight_and_bias() -> None:
    model = plain()
    stored = dict(model.state_dict())
    model[2] = nn.Linear(6, 5)
    assert set(matched(model, stored).rows) == {"2.weight", "2.bias"}


def test_other_shapes_are_named_and_may_be_left_out() -> None:
    model = plain()
    stored = dict(model.state_dict())
    model[2] = nn.Linear(6, 2)
    with pytest.raises(SourceError, match=r"2\.weight is \[2, 6\], there \[3, 6\], 2\.bias is \[2\].*without\(name"):
        matched(model, stored)
    found = matched(model, read_checkpoint(stored).without("2.weight", "2.bias"))
    assert found.new == ("2.weight", "2.bias")
    model[0] = nn.Linear(5, 6)  # more columns are no more rows
    with pytest.raises(SourceError, match=r"0\.weight is \[6, 5\], there \[6, 4\]"):
        matched(model, read_checkpoint(stored).without("2.weight", "2.bias"))


def test_a_parametrized_weight_takes_the_plain_one_or_what_it_is_derived_from() -> None:
    source = plain()
    model = plain()
    model.load_state_dict(source.state_dict())
    parametrizations.weight_norm(model[0])
    found = matched(model, source)
    assert found.same["0.weight"] == "0.weight"
    assert not any("parametrizations" in name for name in (*found.same, *found.new))
    assert found.differs(source) == []
    own = matched(model, model)
    assert own.same["0.parametrizations.weight.original1"] == "0.parametrizations.weight.original1"
    assert "0.weight" not in own.same
    lacking = matched(model, read_checkpoint(source).without("0.weight"))
    assert lacking.new == ("0.weight",)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weight_normalization_of_before_is_known() -> None:
    old, model = plain(), plain()
    nn.utils.weight_norm(old[0])
    parametrizations.weight_norm(model[0])
    model.load_state_dict(old.state_dict())
    found = matched(model, old)
    assert found.same["0.parametrizations.weight.original0"] == "0.weight_g"
    assert found.same["0.parametrizations.weight.original1"] == "0.weight_v"
    assert (found.new, found.unused, found.differs(model)) == ((), (), [])


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_adapters_are_new_on_the_weights_that_they_adapt() -> None:
    base = gpt2()
    stored = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    found = matched(adapted, stored)
    assert found.same["base_model.model.transformer.h.0.attn.c_attn.base_layer.weight"] == (
        "transformer.h.0.attn.c_attn.weight"
    )
    assert all("lora_" in name for name in found.new)
    assert len(found.new) == 4
    assert found.unused == ()


def test_a_part_of_a_larger_model_is_found_in_it() -> None:
    whole = nn.ModuleDict({"encoder": plain(), "decoder": nn.Linear(3, 4)})
    found = matched(plain(), whole)
    assert found.same["0.weight"] == "encoder.0.weight"
    assert found.unused == ("decoder.weight", "decoder.bias")


def test_two_ways_that_fit_alike_are_not_guessed() -> None:
    twins = nn.ModuleDict({"student": plain(), "teacher": plain()})
    with pytest.raises(SourceError, match=r"in two ways .* begin with 'student\.'.* begin with 'teacher\.'"):
        matched(plain(), twins)


def test_a_new_head_takes_no_other_tensor_that_is_left_over() -> None:
    source, model = gpt2(tie_word_embeddings=False), gpt2(transformers.GPT2ForSequenceClassification, num_labels=100)
    found = matched(model, source)
    assert found.new == ("score.weight",), "the file's lm_head.weight has fewer rows and as many columns"
    assert found.unused == ("lm_head.weight",)


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(SourceError, match=r"has nothing of the model: its names are .*encoder"):
        matched(gpt2(), {"encoder.alpha": torch.ones(3), "encoder.beta": torch.ones(2)})


def test_buffers_that_are_not_kept_are_not_asked_for() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.register_buffer("mask", torch.ones(2), persistent=False)
    assert "mask" not in matched(model, model).same
    affine = {"0.weight": model[0].weight, "0.bias": model[0].bias, "1.weight": model[1].weight}
    found = matched(model, affine)
    assert found.new == ("1.bias",)
    assert found.new_buffers == ("1.running_mean", "1.running_var", "1.num_batches_tracked")


def test_a_lazy_model_has_no_shapes_yet() -> None:
    with pytest.raises(ModelError, match=r"0\.weight gets its shape from the first batch"):
        matched(nn.Sequential(nn.LazyLinear(3)), plain())
