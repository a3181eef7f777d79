"""What is refused, what is told, and that nobody's weights change."""

from __future__ import annotations

import pytest
import torch
from grown import (
    CLASSES,
    PAIRS,
    PICTURES,
    WORDS,
    apart,
    cnn,
    fresh,
    grow,
    paired,
    set_values,
    shaken,
)
from helpers import unchanged

import autoinit
from autoinit.errors import ArgumentError, SourceError
from autoinit.growth.growth import growth

EXACT = 1e-5
WIDER = ["clone", "net2net", "zero_pad", "identity", "stack"]
NARROWER = ["select_uniform", "select_consecutive", "select_magnitude"]


@pytest.mark.parametrize("method", WIDER)
@pytest.mark.parametrize("name", ["cnn, deeper", "gpt2, deeper"])
def test_nothing_is_set_and_the_source_stays(name: str, method: str) -> None:
    pair = fresh(name)
    with unchanged(pair.source), unchanged(pair.model):
        given = growth(pair.model, pair.source, method, pair.graph, source_graph=pair.source_graph, noise=0.1)
    parts = dict(pair.model.named_parameters()) | dict(pair.model.named_buffers())
    assert set(given.values) == set(given.why) == set(parts)
    for key, value in given.values.items():
        assert (value.shape, value.dtype) == (parts[key].shape, parts[key].dtype)
        assert value.data_ptr() not in {part.data_ptr() for part in parts.values()}
        assert value.data_ptr() not in {part.data_ptr() for part in pair.source.state_dict().values()}


def test_the_seed_decides_and_the_global_state_does_not() -> None:
    pair = fresh("gpt2")
    one, same, other = (grow(pair, "net2net", seed=seed, noise=0.1).values for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["transformer.wte.weight"], other["transformer.wte.weight"])


@pytest.mark.parametrize("name", ["mlp, relu", "cnn", "gpt2", "llama", "vit", "encoder, pre-norm", "lstm"])
@pytest.mark.parametrize("prefix", ["", "module.", "net.inner."])
def test_a_state_dict_will_do_under_any_prefix(name: str, prefix: str) -> None:
    pair = fresh(name)
    state = {prefix + key: value for key, value in pair.source.state_dict().items()}
    given = growth(pair.model, state, "clone", pair.graph)
    set_values(pair.model, given)
    assert apart(pair) < EXACT
    assert bool(given.notes) == ("heads" in "".join(given.notes))


def test_heads_that_a_state_dict_does_not_tell_are_said_to_be_assumed() -> None:
    pair = fresh("encoder, larger heads")
    given = growth(pair.model, pair.source.state_dict(), "clone", pair.graph)
    assert any("does not say how many heads it has; 1 of 16 units" in note for note in given.notes)
    set_values(pair.model, given)
    assert apart(pair) > 1e-3
    grow(pair, "clone")  # the module tells
    assert apart(pair) < EXACT


def test_weights_without_a_head_grow_into_a_model_with_one() -> None:
    pair = fresh("gpt2")
    state = pair.source.transformer.state_dict()
    set_values(pair.model, growth(pair.model, state, "clone", pair.graph))
    assert apart(pair) < EXACT


def test_words_beyond_the_sources_keep_the_models_rows() -> None:
    import transformers

    pair = fresh("gpt2")
    config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_head=4, n_layer=2, n_positions=16)
    model = transformers.GPT2LMHeadModel(config).eval()
    given = growth(model, pair.source, "clone", autoinit.trace(model, {**WORDS, "labels": WORDS["input_ids"]}))
    rows = given.values["transformer.wte.weight"]
    assert torch.equal(rows[40:], model.transformer.wte.weight[40:])
    set_values(model, given)
    with torch.no_grad():
        before, after = (net(**WORDS).logits for net in (pair.source, model))
    torch.testing.assert_close(after[..., :40], before, rtol=0, atol=1e-5)


def test_wrong_arguments_are_named() -> None:
    pair = fresh("mlp, relu")
    with pytest.raises(SourceError, match="Did you mean 'clone'"):
        growth(pair.model, pair.source, "cloned", pair.graph)
    with pytest.raises(ArgumentError, match="seed"):
        growth(pair.model, pair.source, "clone", pair.graph, seed=-1)
    for noise in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ArgumentError, match="noise must be 0 or a positive number"):
            growth(pair.model, pair.source, "clone", pair.graph, noise=noise)


def test_a_network_of_the_same_shape_is_copied_bit_for_bit() -> None:
    pair = paired(shaken(cnn(4), 1, PICTURES), shaken(cnn(4), 2, PICTURES), PICTURES)
    for method in ("clone", "zero_pad", "select_uniform"):
        values, state = grow(pair, method, noise=0.5).values, pair.source.state_dict()
        assert set(values) == set(state)
        assert all(torch.equal(value, state[name]) for name, value in values.items())


def test_every_pair_is_filled_whole() -> None:
    """No parameter keeps what it had: the head's classes and all tables are equal."""
    for name in ("cnn, deeper", "bert", "swin", "lstm"):
        pair = fresh(name)
        assert set(grow(pair, "clone").values) >= {key for key, _ in pair.model.named_parameters()}
    assert CLASSES == 3
    assert len(PAIRS) > 40
