"""Narrower networks have a part of the trained one, the same units wherever a stream passes."""

from __future__ import annotations

import pytest
import torch
from grown import PICTURES, ROWS, WORDS, Pair, cnn, gpt2, grow, llama, mlp, outputs, paired, shaken
from torch import Tensor

from autoinit.growth.mapping import Factor
from autoinit.growth.narrower import evenly, from_the_first, largest

METHODS = ["select_uniform", "select_consecutive", "select_magnitude"]


def _mlps() -> Pair:
    return paired(shaken(mlp(12), 1), shaken(mlp(4), 2), ROWS)


@pytest.mark.parametrize(("method", "units"), [("select_uniform", [0, 3, 6, 9]), ("select_consecutive", [0, 1, 2, 3])])
def test_entries_of_an_mlp(method: str, units: list[int]) -> None:
    pair = _mlps()
    given = grow(pair, method)
    first, inner, head = pair.source[0], pair.source[2], pair.source[4]
    assert torch.equal(given.values["0.weight"], first.weight.detach()[units])
    assert torch.equal(given.values["0.bias"], first.bias.detach()[units])
    assert torch.equal(given.values["2.weight"], inner.weight.detach()[units][:, units])
    assert torch.equal(given.values["4.weight"], head.weight.detach()[:, units])
    assert torch.equal(given.values["4.bias"], head.bias.detach())
    assert given.notes == ("A part of a network has other outputs than the whole.",)


def test_magnitude_takes_the_units_whose_weights_are_largest() -> None:
    """By brute force: a unit's squares in every weight that makes it or reads it, each weight in its own unit."""
    pair = _mlps()
    sizes = torch.zeros(12, dtype=torch.float64)
    for name, axes in (("0.weight", (0,)), ("2.weight", (0, 1)), ("4.weight", (1,))):
        weight = pair.source.state_dict()[name].double() ** 2
        for axis in axes:
            sizes += (weight / weight.mean()).sum(1 - axis)
    chosen = sizes.argsort()[-4:].sort().values.tolist()
    assert chosen not in ([0, 1, 2, 3], [0, 3, 6, 9])
    values = grow(pair, "select_magnitude").values
    assert torch.equal(values["2.weight"], pair.source[2].weight.detach()[chosen][:, chosen])
    assert torch.equal(values["4.weight"], pair.source[4].weight.detach()[:, chosen])


@pytest.mark.parametrize("method", METHODS)
def test_every_head_is_whole(method: str) -> None:
    pair = paired(shaken(llama(32, 8, 4), 1), shaken(llama(16, 4, 2), 2), WORDS)
    with torch.no_grad():  # a key's head and the two heads of queries that share it are the largest of all
        attention = pair.source.model.layers[0].self_attn
        attention.k_proj.weight[12:16] *= 5
        attention.q_proj.weight[24:32] *= 5
    values, state = grow(pair, method).values, pair.source.state_dict()
    stream = _rows(values["model.embed_tokens.weight"].T, state["model.embed_tokens.weight"].T)
    name = "model.layers.0.self_attn.{}_proj.weight"
    kv = _rows(values[name.format("k")], state[name.format("k")][:, stream])
    heads = _rows(values[name.format("q")], state[name.format("q")][:, stream])
    assert kv == _rows(values[name.format("v")], state[name.format("v")][:, stream])
    assert heads == _rows(values[name.format("o")].T, state[name.format("o")][stream].T)
    for units, size in ((kv, 2), (heads, 4)):
        starts = units[::4]
        assert units == [start + unit for start in starts for unit in range(4)]
        assert len(set(starts)) == size
        assert all(start % 4 == 0 for start in starts)
    shared = [start // 8 for start in heads[::4]]  # two heads of queries use one of keys, before and after
    assert shared == [start // 4 for start in kv[::4] for _ in range(2)]
    if method == "select_magnitude":
        assert 12 in kv


def _rows(part: Tensor, whole: Tensor) -> list[int]:
    """Returns which rows of a matrix another one has, by their entries."""
    found = (part[:, None] == whole[None]).all(2)
    assert torch.equal(found.sum(1), torch.ones(len(part), dtype=torch.long))
    return found.long().argmax(1).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_pictures_keep_their_positions_and_statistics_their_channels(method: str) -> None:
    pair = paired(shaken(cnn(8), 1, PICTURES), shaken(cnn(4), 2, PICTURES), PICTURES)
    values, state = grow(pair, method).values, pair.source.state_dict()
    channels = _rows(values["4.running_mean"][:, None], state["4.running_mean"][:, None])
    units = _rows(values["8.running_var"][:, None], state["8.running_var"][:, None])
    flat = [channel * 16 + place for channel in channels for place in range(16)]
    assert torch.equal(values["7.weight"], state["7.weight"][units][:, flat])
    assert values["4.num_batches_tracked"] == state["4.num_batches_tracked"] > 0
    outputs(pair.model, pair.inputs)


def test_a_shallower_model_has_the_first_blocks() -> None:
    pair = paired(shaken(gpt2(32, 4, 4), 1), shaken(gpt2(16, 2, 2), 2), WORDS)
    values, state = grow(pair, "select_consecutive").values, pair.source.state_dict()
    for block in range(2):
        name = f"transformer.h.{block}.mlp.c_fc.weight"
        assert torch.equal(values[name], state[name][:16, :64])


def test_units_at_equal_distances_and_the_first_ones() -> None:
    assert evenly(Factor(10, 4)).tolist() == [0, 2, 5, 7]
    assert from_the_first(Factor(10, 4)).tolist() == [0, 1, 2, 3]
    assert largest([])(Factor(10, 4)).tolist() == [0, 1, 2, 3]  # of what no weight says anything
