"""Units that several rows feed, or that lie beside others, are put together from what a pass showed."""

from __future__ import annotations

import torch
from renewing import fresh_of, set_values
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import ZOO

import autoinit
from autoinit.renewal.dormant import find_dormant, renew_dormant


def test_a_gated_unit_is_renewed_in_both_factors() -> None:
    torch.manual_seed(0)
    case = ZOO["llama"]()
    graph = autoinit.trace(case.model, case.batch, step=case.loss)
    path = "model.layers.0.mlp"
    with torch.no_grad():
        case.model.get_parameter(f"{path}.up_proj.weight")[5] = 0.0
        case.model.get_parameter(f"{path}.gate_proj.weight")[9] = 0.0
    found = find_dormant(case.model, graph, [case.batch], threshold=0.0)
    assert found.dormant == {f"{path}.gate_proj.weight · {path}.up_proj.weight": (5, 9)}
    before, renewal = case.loss(case.model, case.batch), renew_dormant(case.model, graph, found, fresh_of(graph))
    set_values(case.model, renewal.given.values)
    assert {(entry.name, entry.axis, entry.indices) for entry in renewal.entries} == {
        (f"{path}.up_proj.weight", 0, (5, 9)), (f"{path}.gate_proj.weight", 0, (5, 9)),
        (f"{path}.down_proj.weight", 1, (5, 9)),
    }  # fmt: skip
    torch.testing.assert_close(case.loss(case.model, case.batch), before, rtol=1e-6, atol=0.0)


def test_units_that_join_in_one_input_are_told_apart() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.join = nn.Linear(4, 6), nn.Linear(4, 8), nn.Linear(6 + 4 + 4, 5)
            self.head = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            gate, value = self.right(x).chunk(2, dim=-1)
            both = torch.cat([torch.relu(self.left(x)), x, F.silu(gate) * value], dim=-1)
            return self.head(F.gelu(self.join(both)))

    torch.manual_seed(0)
    model, batch = Joined(), (torch.randn(32, 4), torch.randint(0, 3, (32,)))
    graph = autoinit.trace(model, batch)
    with torch.no_grad():
        model.left.bias[2] = model.join.bias[4] = -100.0
        model.right.weight[5] = model.right.bias[5] = 0.0
    found = find_dormant(model, graph, [batch], threshold=0.0)
    assert found.dormant == {"left.weight": (2,), "right.weight": (1,), "join.weight": (4,)}
    assert found.layers["right.weight"][1].incoming == (("right.weight", 1), ("right.weight", 5))
    assert found.layers["right.weight"][1].outgoing == (("join.weight", 11),)
    assert found.layers["left.weight"][2].outgoing == (("join.weight", 2),)
