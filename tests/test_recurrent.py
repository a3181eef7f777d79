"""Recurrent modules, whole and as cells."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from autoinit.recurrent import recurrent_layer
from autoinit.tracing import read_graph


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 4, num_layers=2, batch_first=True, proj_size=2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, torch.tensor([5, 3]), batch_first=True)
        return self.head(self.rnn(packed)[1][0][-1])


def test_packed_sequences_and_projections() -> None:
    model = Packed()
    graph = read_graph(model, lambda: model(torch.randn(2, 5, 3)).sum())
    assert graph["rnn.weight_hr_l0"].role == "hidden"
    assert (graph["rnn.weight_ih_l1"].fan_in, graph["rnn.weight_ih_l1"].depth) == (2, 1)
    assert graph["head.weight"].depth == 2
    assert graph["head.weight"].role == "output"


@pytest.mark.parametrize(
    ("cell", "slices"),
    [(nn.RNNCell(3, 4), 1), (nn.GRUCell(3, 4), 3), (nn.LSTMCell(3, 4), 4)],
    ids=["rnn", "gru", "lstm"],
)
def test_cells_called_in_a_loop_are_one_layer(cell: nn.Module, slices: int) -> None:
    head = nn.Linear(4, 2)
    model = nn.ModuleList([cell, head])

    def run() -> Tensor:
        state = None
        for step in torch.randn(6, 2, 3):
            state = cell(step, state)
        return head(state[0] if isinstance(state, tuple) else state).sum()

    graph = read_graph(model, run)
    layer = graph["0.weight_hh"]
    assert (layer.role, layer.slices, layer.fan_in, layer.fan_out) == ("recurrent", slices, 4, 4)
    assert graph["0.bias_hh"].of == "0.weight_hh"
    assert graph["1.weight"].depth == 1
    assert graph.residual_adds == 0


def test_the_layer_follows_from_the_name() -> None:
    layer = recurrent_layer("encoder.weight_ih_l1_reverse", (12, 5), "gru", depth=2)
    assert (layer.role, layer.depth, layer.slices, layer.fan_out, layer.cell) == ("recurrent_input", 3, 3, 4, "gru")
    assert recurrent_layer("bias_ih", (4,), "rnn_relu_cell").of == "weight_ih"
