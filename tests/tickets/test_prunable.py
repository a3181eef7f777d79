"""What may be thinned out, and what is said of the rest."""

from __future__ import annotations

import pytest
import torch
from helpers import unchanged
from lots import data, dense
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

import autoinit
from autoinit.errors import ModelError


def test_frozen_and_parametrized_and_excluded_weights_stay_whole_and_are_told() -> None:
    model = dense()
    model[0].weight.requires_grad_(False)
    torch.nn.utils.parametrizations.weight_norm(model[3])
    with unchanged(model):
        found = autoinit.ticket(model, data(), 0.5, method="snip")
    assert list(found.masks) == ["5.weight"]
    notes = " ".join(found.notes)
    assert "0.weight: stays whole" in notes
    assert "3.weight: stays whole (derived by weight_norm" in notes
    spared = autoinit.ticket(dense(), data(), 0.5, method="snip", exclude="0.*")
    assert list(spared.masks) == ["3.weight", "5.weight"]
    assert "0.weight: stays whole (excluded by name)." in spared.notes


def test_what_a_mask_could_not_hold_on_stays_whole_in_attention() -> None:
    model = nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0), nn.Flatten(), nn.Linear(32, 3)
    )
    rows = [(torch.randn(16, 4, 8), torch.arange(16) % 3)]
    found = autoinit.ticket(model, rows, 0.5, method="snip")
    assert "0.self_attn.in_proj_weight" in found.masks
    assert "0.self_attn.out_proj.weight" not in found.masks
    assert any(note.startswith("0.self_attn.out_proj.weight: stays whole (its module is read") for note in found.notes)
    found.apply_(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(rows[0][0]), rows[0][1]).backward()
        optimizer.step()
    with torch.no_grad():  # attention's fast path, were it taken, would have the weight from before the last step
        quick = model.eval()(rows[0][0])
        torch.testing.assert_close(quick, model.train()(rows[0][0]))
        assert torch.equal(model[0].self_attn.in_proj_weight != 0, found.masks["0.self_attn.in_proj_weight"])


def test_a_tied_table_of_a_language_model_stays_whole_and_everything_else_is_thinned_out() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=8, vocab_size=23))
    rows = [{"input_ids": (ids := torch.randint(23, (4, 8))), "labels": ids}]
    with unchanged(model):
        found = autoinit.ticket(model, rows, 0.5, method="snip")
    assert len(found.masks) == 4
    assert any("transformer.wte.weight" in note and "table" in note for note in found.notes)
    found.apply_(model)
    assert model.lm_head.weight is model.transformer.wte.weight


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).relu()).relu())


@pytest.mark.parametrize("method", ["magnitude", "snip", "grasp", "synflow", "random"])
def test_a_tied_weight_has_one_mask_that_holds_in_both_places(method: str) -> None:
    model = Tied()
    options = {"steps": 4, "rounds": 2} if method == "magnitude" else {}
    with unchanged(model):
        found = autoinit.ticket(model, data(), 0.6, method=method, **options)  # type: ignore[arg-type]
    assert list(found.masks) == ["first.weight", "head.weight"]
    found.apply_(model)
    assert model.first.weight_orig is model.second.weight_orig
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = data()[0]
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model(x)
    for layer in (model.first, model.second):
        assert torch.equal(layer.weight != 0, found.masks["first.weight"])


def test_where_nothing_is_left_it_is_said_why() -> None:
    model = nn.Sequential(nn.Embedding(11, 8), nn.Flatten(), nn.LayerNorm(32))
    rows = [(torch.randint(11, (16, 4)), torch.randn(16, 32))]
    with unchanged(model), pytest.raises(ModelError, match=r"No weight of the model can be thinned out.*a table"):
        autoinit.ticket(model, rows, 0.5, method="snip")
