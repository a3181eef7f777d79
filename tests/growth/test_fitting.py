"""Sources that no method, or another one, can use."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from grown import PICTURES, ROWS, SERIES, WORDS, Encoder, cnn, gpt2, llama, mlp, paired
from helpers import unchanged
from torch import nn

import autoinit
from autoinit.errors import SourceError
from autoinit.growth.growth import growth


def _refused(source: Any, model: nn.Module, inputs: Any, method: str) -> str:
    graph = paired(model, model, inputs).graph
    with unchanged(model), pytest.raises(SourceError) as caught:
        growth(model, source, method, graph)
    return str(caught.value)


def test_another_architecture_is_named_by_five_layers() -> None:
    said = _refused(cnn(4), Encoder(16, 2), SERIES, "clone")
    assert said.startswith("The source is of another architecture: 'first.weight' (16×5 here, nothing in its place")
    assert said.count(" here") == 5
    assert re.search(r"and \d+ more \(\d+ of \d+ tensors do not fit\)", said)


def test_a_kernel_of_another_size_is_another_architecture() -> None:
    model = cnn(8)
    model[0] = nn.Conv2d(1, 8, 5, padding=2)
    assert "'0.weight' (8×1×5×5 here, 4×1×3×3 in the source)" in _refused(cnn(4), model, PICTURES, "clone")


def test_a_larger_source_is_told_how_to_be_narrowed() -> None:
    said = _refused(mlp(16), mlp(8), ROWS, "clone")
    assert "'0.weight' (8×5 here, 16×5 in the source)" in said
    assert said.endswith("The nearest method that fits is 'select_uniform'.")
    said = _refused(gpt2(16, 2, 4), gpt2(16, 2, 2), WORDS, "net2net")
    assert "in a block that the model lacks" in said
    assert said.endswith("The nearest method that fits is 'select_uniform'.")


def test_a_smaller_source_is_told_how_to_be_grown() -> None:
    said = _refused(mlp(8), mlp(16), ROWS, "select_magnitude")
    assert said.endswith("The nearest method that fits is 'clone'.")
    said = _refused(gpt2(16, 2, 2), gpt2(16, 2, 4), WORDS, "select_uniform")
    assert "in a block that the source lacks" in said


def test_what_is_wider_and_shallower_fits_no_method() -> None:
    said = _refused(llama(16, 4, 2, 3), llama(32, 8, 4, 2), WORDS, "clone")
    assert "None fits: the model is larger in one place and smaller in another." in said


@pytest.mark.parametrize("source", [{}, {"epoch": 3, "name": "best"}])
def test_a_source_without_tensors_is_refused(source: dict[str, Any]) -> None:
    assert f"dict with {len(source)} entries" in _refused(source, mlp(8), ROWS, "clone")


def test_a_head_for_other_classes_stays_and_is_named() -> None:
    source, model = mlp(8), mlp(16)
    model[4] = nn.Linear(16, 7)
    before = model[4].weight.detach().clone()
    given = growth(model, source, "clone", autoinit.trace(model, (ROWS, torch.arange(6))))
    assert not {"4.weight", "4.bias"} & set(given.values)
    assert any("4.weight (it has 7 outputs, the source's 3)" in note for note in given.notes)
    assert any(note.startswith("Not used of the source: 4.weight, 4.bias") for note in given.notes)
    assert torch.equal(model[4].weight, before)
