"""Which tensors have a row for each token or class."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn
from torch.nn.utils import parametrizations

from autoinit.errors import ArgumentError, ModelError
from autoinit.inheritance.tables import tables_of

SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


class Language(nn.Module):
    """A model of words with a table of places; the head comes last."""

    def __init__(self, words: int = 12, places: int = 8, *, tied: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(words, 4)
        self.places = nn.Embedding(places, 4)
        self.inner = nn.Linear(4, 4)
        self.head = nn.Linear(4, words)
        if tied:
            self.head.weight = self.words.weight


def names(model: nn.Module, chosen: str | list[str] | None = None) -> list[tuple[str, list[str], int | None]]:
    return [(table.name, list(table.biases), table.padding) for table in tables_of(model, chosen)]


def test_models_of_transformers_name_their_own() -> None:
    config = transformers.GPT2Config(vocab_size=40, n_positions=40, n_embd=16, n_layer=1, n_head=2)
    assert names(transformers.GPT2LMHeadModel(config)) == [("transformer.wte.weight", [], None)]
    assert names(transformers.GPT2Model(config)) == [("wte.weight", [], None)], "as many places as tokens"
    bert = transformers.BertForMaskedLM(transformers.BertConfig(**SMALL))
    assert names(bert) == [("bert.embeddings.word_embeddings.weight", ["cls.predictions.bias"], 0)]
    untied = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, tie_word_embeddings=False))
    assert names(untied) == [("model.embed_tokens.weight", [], None), ("lm_head.weight", [], None)]
    t5 = transformers.T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    assert [name for name, *_ in names(transformers.T5ForConditionalGeneration(t5))][:1] == ["shared.weight"]


def test_the_head_that_comes_last_goes_with_the_table() -> None:
    assert names(nn.Sequential(nn.Embedding(6, 6, padding_idx=2), nn.Linear(6, 6), nn.Linear(6, 6, bias=False))) == [
        ("0.weight", [], 2),
        ("2.weight", [], None),
    ]
    assert names(nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6), nn.Linear(6, 2))) == [("0.weight", [], None)]


@pytest.mark.parametrize("tied", [False, True])
def test_of_several_tables_that_of_the_heads_rows_is_taken(tied: bool) -> None:
    found = names(Language(tied=tied))
    apart = [("words.weight", [], None), ("head.weight", ["head.bias"], None)]
    assert found == ([("words.weight", ["head.bias"], None)] if tied else apart)


def test_a_tied_table_is_known_among_as_large_ones() -> None:
    assert names(Language(words=8, tied=True)) == [("words.weight", ["head.bias"], None)]
    with pytest.raises(ModelError, match=r"several tables: words, places\. Name those meant"):
        tables_of(Language(words=8))


def test_tables_are_named_by_path_or_weight() -> None:
    model = Language()
    assert names(model, "places") == names(model, ["places.weight"]) == [("places.weight", [], None)]
    assert names(model, ["head", "words"]) == [("head.weight", ["head.bias"], None), ("words.weight", [], None)]
    assert names(nn.Linear(2, 3), "") == [("weight", ["bias"], None)]
    assert names(Language(tied=True), ["words", "head"]) == [("words.weight", ["head.bias"], None)]


def test_what_has_no_rows_is_refused() -> None:
    with pytest.raises(ModelError, match=r"Sequential has no table of embeddings.*tables='path"):
        tables_of(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(ArgumentError, match=r"tables names 'wrods', which is no module.*Did you mean 'words'"):
        tables_of(Language(), "wrods")
    with pytest.raises(ArgumentError, match="'1', which is a ReLU of the model"):
        tables_of(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), "1")
    with pytest.raises(ArgumentError, match="tables is empty"):
        tables_of(Language(), [])
    with pytest.raises(ModelError, match="meta device and holds no values"):
        tables_of(nn.Embedding(3, 2, device="meta"))
    whole, parametrized = nn.Embedding(3, 2), Language()
    whole.weight = nn.Parameter(torch.ones(3, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match=r"is torch\.int8"):
        tables_of(whole)
    parametrizations.weight_norm(parametrized.head)
    with pytest.raises(ModelError, match="The weight of head is parametrized"):
        tables_of(parametrized)
