"""What a head is given, and that the model is left as it was."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import transformers
from helpers import observed
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from autoinit.errors import ArgumentError, AutoInitError, DataError, ModelError
from autoinit.inheritance.head_inputs import head_inputs


class Restless(nn.Module):
    """Normalization, dropout, state of its own and random numbers in evaluation mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.register_buffer("calls", torch.zeros(()))
        self.seen: list[int] = []
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(len(x))
        features = self.body(x)
        torch.rand(3)
        return self.head(features)


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(5, 6), torch.randint(3, (5,))) for _ in range(count)]


def test_features_are_those_of_evaluation_mode() -> None:
    model, data = Restless(), batches()
    found = head_inputs(model, data, "head")
    with torch.no_grad():
        expected = torch.cat([model.body.eval()(x) for x, _ in data]).double()
    assert torch.equal(found.features, expected)
    assert torch.equal(found.targets, torch.cat([y for _, y in data]))
    assert found.names == ("head.weight", "head.bias")


@pytest.mark.parametrize("broken", [False, True])
def test_the_model_and_random_states_are_left_as_they_were(broken: bool) -> None:
    model = Restless()
    model.body[1].eval()  # one part is frozen, the rest trains
    data: Any = DataLoader(TensorDataset(*map(torch.cat, zip(*batches(), strict=True))), batch_size=4, shuffle=True)
    before = observed(model)
    if broken:
        with pytest.raises(ModelError, match="fails on a batch"):
            head_inputs(model, itertools.chain(data, [(torch.zeros(5, 7), torch.zeros(5))]), "head")
    else:
        head_inputs(model, data, "head")
    assert observed(model) == before


def test_places_of_a_sequence_are_rows() -> None:
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=4
    )
    model = transformers.BertForTokenClassification(config)
    data = [{"input_ids": torch.randint(30, (2, 5)), "labels": torch.randint(4, (2, 5))} for _ in range(2)]
    found = head_inputs(model, data, "classifier")
    assert found.features.shape == (20, 8)
    assert torch.equal(found.targets, torch.cat([batch["labels"].flatten() for batch in data]))


def test_several_numbers_for_each_row_stay_together() -> None:
    data = [(torch.randn(5, 6), torch.randn(5, 3)) for _ in range(2)]
    assert torch.equal(head_inputs(Restless(), data, "head").targets, torch.cat([y for _, y in data]))
    column = [(torch.randn(5, 6), torch.randn(5, 1))]
    assert head_inputs(Restless(), column, "head").targets.shape == (5,)


class Twice(Restless):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.head(self.body(x))


def tied() -> nn.Module:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    model[1].weight = model[0].weight
    return model


X = torch.zeros(5, 6)
WRONG: list[tuple[nn.Module, Any, str, type[AutoInitError], str]] = [
    (Restless(), [], "head", DataError, "no batch"),
    (Restless(), [X], "head", DataError, r"no targets beside its inputs: got \[5, 6\] float32"),
    (Restless(), [(X, torch.zeros(4))], "head", DataError, r"5 rows of features for targets of shape \[4\]"),
    (Restless(), [(X * torch.nan, torch.zeros(5))], "head", DataError, "features that head is given are not finite"),
    (Restless(), [(X, torch.zeros(5))], "haed", ArgumentError, "'haed' is no module .* Did you mean 'head'"),
    (Restless(), [(X, torch.zeros(5))], "body.1", ArgumentError, "'body.1' is a BatchNorm1d"),
    (
        Restless(),
        [(X[:, :3], torch.zeros(5))],
        "head",
        ModelError,
        r"fails on a batch, \(\[5, 3\] float32",
    ),
    (Twice(), [(X, torch.zeros(5))], "head", ModelError, "head is called 2 times"),
    (tied(), [(torch.zeros(3, dtype=torch.long), torch.zeros(3))], "1", ModelError, "1 shares its weight with 0"),
    (Restless().to("meta"), [(X, torch.zeros(5))], "head", ModelError, "meta device"),
]


@pytest.mark.parametrize(("model", "data", "head", "kind", "words"), WRONG)
def test_what_is_wrong_is_said_and_nothing_is_changed(
    model: nn.Module, data: Any, head: str, kind: type[AutoInitError], words: str
) -> None:
    before = observed(model)
    with pytest.raises(kind, match=words):
        head_inputs(model, data, head)
    assert observed(model) == before
