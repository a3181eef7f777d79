"""What is said of a growth that changes outputs, and what makes up for a new width."""

from __future__ import annotations

import pytest
import torch
from grown import WORDS, apart, fresh, grow, llama, paired, set_values, shaken
from helpers import unchanged
from torch import nn

import autoinit
from autoinit.errors import SourceError
from autoinit.growth.growth import growth

EXACT = 1e-5


def test_a_tied_head_takes_its_share_from_the_last_normalization() -> None:
    pair = fresh("gpt2")
    values, state = grow(pair, "clone").values, pair.source.state_dict()
    assert torch.equal(values["transformer.ln_f.weight"], state["transformer.ln_f.weight"].repeat_interleave(2) / 2)
    assert torch.equal(values["transformer.ln_f.bias"], state["transformer.ln_f.bias"].repeat_interleave(2) / 2)
    name = "transformer.h.1.ln_2.weight"
    assert torch.equal(values[name], state[name].repeat_interleave(2))


def test_a_tied_head_without_a_normalization_before_it_is_told_of() -> None:
    class Net(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.table, self.inner = nn.Embedding(40, width), nn.Linear(width, width)
            self.head = nn.Linear(width, 40, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.inner(self.table(x)).tanh())

    words = WORDS["input_ids"]
    source, model = shaken(Net(8), 1), shaken(Net(16), 2)
    graph = autoinit.trace(model, (words, words))
    given = growth(model, source, "clone", graph)
    assert any("the logits are as many times as large" in note for note in given.notes)
    set_values(model, given)
    with torch.no_grad():
        torch.testing.assert_close(model(words), 2 * source(words))
    with pytest.raises(SourceError, match="the logits are as many times"):
        growth(model, source, "clone", graph, exact=True)


@pytest.mark.parametrize(
    ("name", "method"),
    [("gpt2", "zero_pad"), ("llama", "zero_pad"), ("gpt2, no multiple", "clone"), ("gpt2, deeper", "stack")],
)
def test_a_growth_that_cannot_be_exact_is_refused_where_it_must_be(name: str, method: str) -> None:
    pair = fresh(name)
    with unchanged(pair.source), unchanged(pair.model), pytest.raises(SourceError, match="exactly and cannot"):
        growth(pair.model, pair.source, method, pair.graph, exact=True)
    growth(pair.model, pair.source, method, pair.graph)


def test_an_exact_growth_passes() -> None:
    pair = fresh("llama, deeper")
    grow(pair, "clone", exact=True)
    assert apart(pair) < EXACT


@pytest.mark.parametrize("tied", [False, True])
def test_a_head_that_is_tied_in_one_network_only(tied: bool) -> None:
    source = shaken(llama(16, 4, 2, tie_word_embeddings=not tied), 1)
    pair = paired(source, shaken(llama(32, 8, 4, tie_word_embeddings=tied), 2), WORDS)
    given = grow(pair, "clone")
    if tied:
        assert any("lm_head.weight of its own, which the model ties" in note for note in given.notes)
        assert apart(pair) > 1e-3
        with pytest.raises(SourceError, match="of its own, which the model ties"):
            grow(pair, "clone", exact=True)
    else:
        assert not given.notes
        assert apart(pair) < EXACT
