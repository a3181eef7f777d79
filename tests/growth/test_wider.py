"""Wider networks say what the network said that they come from, or it is told why they do not."""

from __future__ import annotations

import pytest
import torch
from grown import PAIRS, apart, batch, fresh, grow
from torch import nn
from torch.nn import functional as F

from autoinit.growth.mapping import Axis, Factor, Segment, plain
from autoinit.growth.wider import Filling, at_random, beside, in_turn

EXACT = 1e-5

UNEVEN = "no multiple: some count more often"
TURNED = "turns heads of 8 units by other angles"
ZEROS = "zeros change their mean and variance"
EPSILON = "but for the norm's ε"
REGROUPED = "fewer queries share a head of keys"
JOINED = "reads several streams"
TWICE = "changes what it gets a second time"
RECURRENT = "a recurrent layer without a skip"

NORMALIZED = (
    *("group norm, larger groups", "gpt2", "gpt2, larger heads", "gpt2, deeper", "gpt2, no multiple", "neox", "bert"),
    *("bert, deeper", "vit", "vit, deeper", "swin", "encoder, pre-norm", "encoder, post-norm"),
    *("encoder, larger heads", "encoder, flattened"),
)
BREAKS = {
    "clone": {
        "gpt2, no multiple": UNEVEN,
        "llama, larger heads": TURNED,
        "bert, deeper": TWICE,
        "lstm, deeper": RECURRENT,
    },
    "zero_pad": dict.fromkeys(NORMALIZED, ZEROS)
    | dict.fromkeys(
        ("llama", "llama, more queries", "llama, deeper", "llama, tied", "qwen3", "phi3", "gemma2", "mamba"), EPSILON
    )
    | {
        "llama, keys for each query": REGROUPED,
        "llama, larger heads": TURNED,
        "lstm, deeper": RECURRENT,
        "joined": JOINED,
    },
}
BREAKS["net2net"] = BREAKS["clone"] | {"llama, keys for each query": REGROUPED, "joined": JOINED}
"""What no method can keep, and what is said of it."""

CASES = [(name, method) for name in PAIRS for method in BREAKS]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_outputs_stay_where_theory_keeps_them(name: str, method: str) -> None:
    pair = fresh(name)
    before = apart(pair)
    given = grow(pair, method)
    reason = BREAKS[method].get(name)
    assert before > 0.1  # the model said something else
    if reason is None:
        assert apart(pair) < EXACT
        assert not given.notes
    else:
        assert any(reason in note for note in given.notes)
        if reason == EPSILON:
            assert apart(pair) < 1e-2
        else:
            assert apart(pair) > 1e-3


@pytest.mark.parametrize("name", ["mlp, relu", "cnn", "gpt2", "llama", "lstm", "more groups"])
def test_noise_parts_copies_and_keeps_outputs(name: str) -> None:
    pair = fresh(name)
    plain = grow(pair, "clone").values
    noisy = grow(pair, "clone", noise=0.3).values
    assert apart(pair) < EXACT
    changed = [key for key in plain if not torch.equal(plain[key], noisy[key])]
    assert changed
    assert all(plain[key].dim() > 1 for key in changed)  # biases and statistics of copies are equal


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_only_noise_lets_copies_part_in_training(noise: float) -> None:
    pair = fresh("mlp, relu")
    grow(pair, "clone", noise=noise)
    inputs, labels = batch(pair.inputs)
    optimizer = torch.optim.SGD(pair.model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(pair.model(inputs), labels).backward()
        optimizer.step()
    first = pair.model[0].weight.detach()
    distance = (first[0::2] - first[1::2]).abs().max()  # of each unit's two copies, which began as one
    assert (distance > 1e-3) == (noise > 0)


@pytest.mark.parametrize("name", ["mlp, relu", "cnn", "resnet", "gpt2", "llama", "vit", "lstm", "encoder, post-norm"])
@pytest.mark.parametrize("method", ["clone", "net2net", "zero_pad"])
def test_every_parameter_can_train_at_once_or_after_a_step(name: str, method: str) -> None:
    pair = fresh(name)
    grow(pair, method)
    seen: dict[str, float] = {}
    optimizer = torch.optim.SGD(pair.model.parameters(), lr=1e-2)
    inputs = batch(pair.inputs)
    for _ in range(2):
        optimizer.zero_grad()
        if isinstance(inputs, dict):
            pair.model(**inputs).loss.backward()
        else:
            F.cross_entropy(pair.model(inputs[0]), inputs[1]).backward()
        for key, parameter in pair.model.named_parameters():
            size = 0.0 if parameter.grad is None else float(parameter.grad.abs().max())
            seen[key] = max(size, seen.get(key, 0.0))
        optimizer.step()
    # A key's bias adds the same to all scores of a query, so that softmax never feels it.
    assert not [key for key, size in seen.items() if size == 0 and "k_proj.bias" not in key]


def test_entries_of_a_clone() -> None:
    """By hand: rows are repeated, columns are repeated and halved."""
    source, model = nn.Linear(2, 2), nn.Linear(4, 4)
    axes = plain(2, 4), plain(2, 4, "in")
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    with torch.no_grad():
        source.weight.copy_(weight)
    expected = torch.tensor([[0.5, 0.5, 1, 1], [0.5, 0.5, 1, 1], [1.5, 1.5, 2, 2], [1.5, 1.5, 2, 2]])
    assert torch.equal(Filling(axes, in_turn).of(source.weight.detach(), model.weight), expected)


def test_entries_of_a_padded_weight() -> None:
    own = torch.full((3, 3), 9.0)
    filled = Filling((plain(2, 3), plain(2, 3, "in")), beside).of(torch.ones(2, 2), own)
    assert filled.tolist() == [[1, 1, 0], [1, 1, 0], [9, 9, 9]]
    silent = Filling((plain(2, 3), plain(2, 3, "in")), beside, silent=True).of(torch.ones(2, 2), own)
    assert silent.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_larger_heads_take_queries_that_keep_scores() -> None:
    """q·k/√d by hand, for three heads of 2 units that become heads of 6."""
    heads, size = Factor(3, 3, "heads"), Factor(2, 6, "head size")
    queries, keys = Axis((Segment((heads, size), contracted=True),)), Axis((Segment((heads, size)),))
    q, k = torch.randn(6), torch.randn(6)
    for choose in (in_turn, at_random(1), beside):
        larger_q, larger_k = (
            Filling((axis,), choose).of(one, torch.zeros(18)) for axis, one in ((queries, q), (keys, k))
        )
        before = (q * k).reshape(3, 2).sum(1) / 2**0.5
        after = (larger_q * larger_k).reshape(3, 6).sum(1) / 6**0.5
        torch.testing.assert_close(after, before)


def test_random_copies_are_even_and_the_old_units_come_first() -> None:
    units = at_random(7)(Factor(5, 15))
    assert units[:5].tolist() == [0, 1, 2, 3, 4]
    assert torch.bincount(units).tolist() == [3] * 5
    assert units[5:].tolist() != [0, 1, 2, 3, 4] * 2
    assert not torch.equal(units, at_random(8)(Factor(5, 15)))
    assert torch.equal(units, at_random(7)(Factor(5, 15)))


def test_precision_is_the_models() -> None:
    filled = Filling((plain(2, 4), plain(2, 4, "in")), in_turn).of(
        torch.ones(2, 2, dtype=torch.bfloat16), torch.zeros(4, 4, dtype=torch.float64)
    )
    assert filled.dtype == torch.float64
    assert torch.all(filled == 0.5)
