"""New rows of tables and heads: what they get, and that nothing else is touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import bits, observed
from torch import Tensor, nn

from autoinit.errors import ArgumentError, AutoInitError, ModelError, SourceError
from autoinit.inheritance.rows import new_rows, rows_

METHODS = ("mean", "mean_cov", "zero", "small")


def language(rows: int = 12, columns: int = 5, **settings: Any) -> nn.Sequential:
    return nn.Sequential(nn.Embedding(rows, columns, **settings), nn.Linear(columns, rows))


def gpt2(rows: int = 60) -> transformers.GPT2LMHeadModel:
    config = transformers.GPT2Config(vocab_size=rows, n_positions=16, n_embd=32, n_layer=1, n_head=2)
    return transformers.GPT2LMHeadModel(config).eval()


def others(model: nn.Module, new: slice | list[int], tables: tuple[str, ...]) -> dict[str, bytes | None]:
    """Returns the bytes of everything that is not to change: all other tensors, and the old rows of these."""
    found = {}
    for name, tensor in model.state_dict().items():
        kept = torch.ones(len(tensor), dtype=torch.bool) if tensor.dim() else None
        if kept is not None and name in tables:
            kept[new] = False
        found[name] = bits(tensor if kept is None else tensor[kept])
    return found


@pytest.mark.parametrize("method", METHODS)
def test_only_the_new_rows_change(method: Any) -> None:
    model = language()
    tables = ("0.weight", "1.weight", "1.bias")
    before = others(model, [3, 10, 11], tables)
    drawn = new_rows(model, method=method, rows=[11, 3, 10]).values
    assert others(model, [3, 10, 11], tables) == before
    told = rows_(model, method=method, rows=[11, 3, 10])
    assert list(told) == list(tables)
    assert all("3 new rows (3, 10, 11) of 12" in why for why in told.values())
    assert others(model, [3, 10, 11], tables) == before
    assert all(bits(model.state_dict()[name]) == bits(drawn[name]) for name in tables)


def test_nothing_is_changed_by_what_only_computes() -> None:
    model = gpt2()
    before = observed(model)
    new_rows(model, method="mean_cov", old=50)
    assert observed(model) == before


@pytest.mark.parametrize("rows", [[9, 10, 11], slice(9, None), slice(-3, 12), range(9, 12), list(np.arange(9, 12))])
def test_rows_are_named_in_many_ways(rows: Any) -> None:
    model = language()
    by_number = new_rows(model, old=9)
    named = new_rows(model, rows=rows)
    assert named.why == by_number.why
    assert {name: bits(value) for name, value in named.values.items()} == {
        name: bits(value) for name, value in by_number.values.items()
    }
    assert by_number.why["1.weight"] == "3 new rows (9 to 11) of 12: the mean of 9 old rows"


def test_the_mean_is_that_of_the_old_rows() -> None:
    model = language(2000, 7)
    given = new_rows(model, old=1990)
    for name, tensor in given.values.items():
        expected = dict(model.named_parameters())[name].detach().numpy()[:1990].astype(np.float64).mean(0)
        np.testing.assert_allclose(tensor[1990:].numpy(), np.broadcast_to(expected, tensor[1990:].shape), atol=1e-7)


def test_nearest_takes_the_rows_that_pairs_name() -> None:
    model = language()
    given = new_rows(model, method="nearest", pairs={9: 2, 10: [0, 4, 5]}, old=9)
    for name, value in given.values.items():
        old = dict(model.named_parameters())[name].detach()[:9]
        assert bits(value[9]) == bits(old[2])
        torch.testing.assert_close(value[10], old[[0, 4, 5]].mean(0))
        torch.testing.assert_close(value[11], old.mean(0))
    assert given.notes == tuple(f"pairs name no old row for 11 of {name}: these get the mean." for name in TABLES)
    alone = new_rows(model, method="nearest", pairs={10: 2})
    assert alone.notes == ()
    assert bits(alone.values["0.weight"][9]) == bits(model[0].weight[9])


TABLES = ("0.weight", "1.weight")


def test_biases_get_what_the_rows_get() -> None:
    model = language()
    assert torch.allclose(new_rows(model, old=9).values["1.bias"][9:], model[1].bias[:9].mean())
    assert torch.allclose(new_rows(model, method="mean_cov", old=9).values["1.bias"][9:], model[1].bias[:9].mean())
    assert not new_rows(model, method="small", old=9).values["1.bias"][9:].any()


def test_a_resized_gpt2_keeps_its_old_scores() -> None:
    model = gpt2()
    inputs = torch.randint(60, (2, 9))
    with torch.no_grad():
        before = model(inputs).logits
    model.resize_token_embeddings(67, mean_resizing=False)
    fresh = _surprise(model, inputs, before)
    before_rows = others(model, slice(60, None), ("transformer.wte.weight", "lm_head.weight"))
    told = rows_(model, old=60)
    assert list(told) == ["transformer.wte.weight"], "a tied table is set once"
    assert model.lm_head.weight is model.transformer.wte.weight
    assert others(model, slice(60, None), ("transformer.wte.weight", "lm_head.weight")) == before_rows
    with torch.no_grad():
        after = model(inputs).logits
    torch.testing.assert_close(after[..., :60], before)
    # Hewitt (2021): each of 7 rows at the mean takes at most a 60th of the old rows' probability.
    assert _surprise(model, inputs, before) <= np.log(1 + 7 / 60) + 1e-5
    assert _surprise(model, inputs, before) < fresh


def _surprise(model: nn.Module, inputs: Tensor, before: Tensor) -> float:
    """Returns the most that the log-probability of an old token has lost."""
    with torch.no_grad():
        after = model(inputs).logits
    lost = before.log_softmax(-1) - after.log_softmax(-1)[..., :60]
    return float(lost.max())


def test_rows_inside_a_padded_vocabulary_are_set() -> None:
    model = gpt2(64)
    before = others(model, [57, 58, 59], ("transformer.wte.weight", "lm_head.weight"))
    rows_(model, rows=[57, 58, 59], method="mean_cov")
    assert others(model, [57, 58, 59], ("transformer.wte.weight", "lm_head.weight")) == before
    padded = new_rows(model, old=57).values["transformer.wte.weight"]
    torch.testing.assert_close(padded[60], model.transformer.wte.weight.detach()[:57].mean(0))


def test_a_resized_bert_has_its_decoders_bias_set_too() -> None:
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = transformers.BertForMaskedLM(config)
    model.cls.predictions.bias.data.normal_()
    model.resize_token_embeddings(43, mean_resizing=False)
    told = rows_(model, old=40)
    assert list(told) == ["bert.embeddings.word_embeddings.weight", "cls.predictions.bias"]
    table = model.bert.embeddings.word_embeddings.weight.detach()
    torch.testing.assert_close(table[42], table[1:40].mean(0), msg="row 0 is padding")
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    bias = model.cls.predictions.decoder.bias.detach()
    torch.testing.assert_close(bias[40:], bias[:40][1:].mean().expand(3))


def test_new_classes_of_a_head_alone() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 12))
    told = rows_(model, method="zero", old=10, tables="2")
    assert list(told) == ["2.weight", "2.bias"]
    assert not model[2].weight[10:].any()
    assert model[2].weight[:10].all()


WRONG: list[tuple[dict[str, Any], type[AutoInitError], str]] = [
    ({}, ArgumentError, "Say which rows are new"),
    ({"old": 13}, SourceError, "0.weight has 12 rows, fewer than the 13 old ones. Rows that shrink"),
    ({"old": 12}, ArgumentError, "No row of 0.weight is new: it has 12 rows"),
    ({"old": 0}, ArgumentError, "1 or more. Got 0"),
    ({"old": True}, ArgumentError, "Got True"),
    ({"old": 9, "rows": [9]}, ArgumentError, "not by both"),
    ({"rows": [12]}, ArgumentError, "from 0 to 11. Got 12"),
    ({"rows": [-1]}, ArgumentError, "Got -1"),
    ({"rows": [1.5]}, ArgumentError, "Got 1.5"),
    ({"rows": []}, ArgumentError, "No row of 0.weight is new"),
    ({"rows": 3}, ArgumentError, "a sequence of whole numbers, or a slice. Got int"),
    ({"rows": {3}}, ArgumentError, "or a slice. Got set"),
    ({"method": "nearest", "pairs": {10: 1.5}}, ArgumentError, "whole numbers from 0 to 11. Got 1.5"),
    ({"method": "nearest", "pairs": {10: "a"}}, ArgumentError, "Got 'a'"),
    ({"rows": slice(20, None)}, ArgumentError, "No row of 0.weight is new"),
    ({"rows": range(12)}, ArgumentError, "no old row is left"),
    ({"old": 9, "method": "median"}, ArgumentError, "'median' is not known. Did you mean 'mean'"),
    ({"old": 9, "method": "nearest"}, ArgumentError, "pairs go with"),
    ({"old": 9, "pairs": {9: 1}}, ArgumentError, "pairs go with"),
    ({"old": 9, "method": "nearest", "pairs": {9: 10}}, ArgumentError, "row 10 is new itself"),
    ({"old": 9, "method": "nearest", "pairs": {3: 1}}, ArgumentError, "row 3 is not among the new ones"),
    ({"method": "nearest", "pairs": {10: 12}}, ArgumentError, "old rows in pairs of 0.weight are .* Got 12"),
    ({"method": "nearest", "pairs": {12: 1}}, ArgumentError, "new rows of 0.weight .* Got 12"),
    ({"method": "nearest", "pairs": {10: []}}, ArgumentError, "no old row for row 10"),
    ({"method": "nearest", "pairs": {}}, ArgumentError, "Say which rows are new"),
    ({"old": 9, "spread": -1.0}, ArgumentError, "spread"),
    ({"old": 9, "seed": -1}, ArgumentError, "seed"),
    ({"old": 9, "tables": "2"}, ArgumentError, "tables names '2'"),
]


@pytest.mark.parametrize(("arguments", "kind", "words"), WRONG, ids=[words[:24] for *_, words in WRONG])
def test_what_is_wrong_is_said_and_nothing_is_changed(
    arguments: dict[str, Any], kind: type[AutoInitError], words: str
) -> None:
    model = language()
    before = observed(model)
    with pytest.raises(kind, match=words):
        rows_(model, **arguments)
    assert observed(model) == before


def test_a_later_table_that_is_too_short_leaves_the_first_alone() -> None:
    model = nn.Sequential(nn.Embedding(12, 5), nn.Linear(5, 10))
    before = observed(model)
    with pytest.raises(SourceError, match=r"1\.weight has 10 rows"):
        rows_(model, old=11, tables=["0", "1"])
    assert observed(model) == before


def test_old_rows_that_are_not_finite_are_refused() -> None:
    model = language()
    model[0].weight.data[3, 1] = torch.inf
    for method in ("mean", "mean_cov", "small"):
        with pytest.raises(SourceError, match=r"Old rows of 0\.weight are not finite"):
            new_rows(model, method=method, old=9)
    assert not new_rows(model, method="zero", old=9).values["0.weight"][9:].any()


def test_a_model_without_tables_is_refused() -> None:
    with pytest.raises(ModelError, match="no table of embeddings"):
        rows_(nn.Sequential(nn.Linear(3, 4)), old=2)
