"""Recurrent modules, whole and as cells."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from autoinit.tracing.recurrent import recurrent_layer
from autoinit.tracing.tracing import read_graph


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


class Steps(nn.Module):
    """Recurrent layers run as the test says."""

    def __init__(self, run: Callable[[Steps, Tensor], Tensor]) -> None:
        super().__init__()
        self.lstm, self.first = nn.LSTM(3, 4, 2, batch_first=True), nn.GRU(3, 4)
        self.cell, self.x, self.h = nn.GRUCell(3, 4), nn.Linear(3, 4), nn.Linear(4, 4)
        self.head, self.run = nn.Linear(4, 2), run

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.run(self, x))

    def written_out(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 4)
        for step in x.unbind(1):
            h = torch.tanh(self.x(step) + self.h(h))
        return h

    def by_cell(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 4)
        for step in x.unbind(1):
            h = self.cell(step, h)
        return h

    def one_at_a_time(self, x: Tensor) -> Tensor:
        state = None
        for step in x.split(1, 1):
            out, state = self.lstm(step, state)
        return out


LENGTHS: dict[str, tuple[Callable[[Steps, Tensor], Tensor], int | None]] = {
    "batch first": (lambda m, x: m.lstm(x)[0], 7),
    "time first": (lambda m, x: m.first(x)[0], 5),
    "no batch": (lambda m, x: m.first(x[0])[0], 7),
    "packed": (
        lambda m, x: m.lstm(pack_padded_sequence(x, torch.tensor([6, 6, 3, 2, 1]), batch_first=True))[1][0][-1], 6,
    ),
    "packed, time first": (lambda m, x: m.first(pack_padded_sequence(x, torch.tensor([4, 3, 3, 2, 1, 1, 1])))[1][0], 4),
    "cell": (Steps.by_cell, 7),
    "module called step by step": (Steps.one_at_a_time, 7),
    "written out": (Steps.written_out, 7),
    "two of different length": (lambda m, x: m.lstm(x)[0][:, -1] + m.first(x[:, :2].transpose(0, 1))[0][-1], 7),
    "one for two inputs": (lambda m, x: m.lstm(x)[0][:, -1] + m.lstm(x[:, :4])[0][:, -1], 7),
    "none": (lambda m, x: torch.tanh(m.x(x)), None),
}  # fmt: skip


@pytest.mark.parametrize("name", LENGTHS)
def test_sequence_length(name: str) -> None:
    run, expected = LENGTHS[name]
    graphs = []
    for device in ("cpu", "meta"):
        model = Steps(run).to(device)
        x = torch.randn(5, 7, 3, device=device)
        graphs.append(read_graph(model, lambda model=model, x=x: model(x).sum()))
    assert [graph.sequence_length for graph in graphs] == [expected, expected]
