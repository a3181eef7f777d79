"""Input projections of attention: what is shown of them, and what attention then uses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from autoinit.calibrations.projections import Projections, projection_weights

X, MEMORY = torch.randn(3, 5, 8), torch.randn(3, 9, 6)


def attended(attention: nn.MultiheadAttention, watch: Projections) -> Tensor:
    memory = MEMORY if attention.kdim == 6 else X
    with torch.no_grad(), parametrize.cached():
        watch.names = {id(weight): name for name, weight in projection_weights(attention).items()}
        with watch:
            found: Tensor = attention(X, memory, memory, need_weights=False)[0]
    return found


@pytest.mark.parametrize("options", [{}, {"kdim": 6, "vdim": 6}])
@pytest.mark.parametrize("training", [True, False])
def test_attention_uses_what_it_is_told_and_keeps_its_weights(options: dict[str, int], training: bool) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True, **options).train(training)
    before = {name: parameter.clone() for name, parameter in attention.named_parameters()}
    shown: list[str] = []

    def change(name: str, weight: Tensor, output: Tensor) -> tuple[Tensor, Tensor | None]:
        shown.append(name)
        return 2 * weight, torch.arange(24.0) if name == "in_proj_weight" else None

    found = attended(attention, Projections(change))
    assert all(parameter.equal(before[name]) for name, parameter in attention.named_parameters())
    with torch.no_grad():
        for name in shown:
            attention.get_parameter(name).mul_(2)
        if "in_proj_weight" in shown:
            attention.in_proj_bias.copy_(torch.arange(24.0))
    expected = attended(attention, Projections(lambda name, weight, output: (weight, None)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    separate = ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
    assert shown == (separate if options else ["in_proj_weight"])


def test_what_is_shown_is_what_the_weights_put_out() -> None:
    attention = parametrizations.weight_norm(nn.MultiheadAttention(8, 2, batch_first=True), "in_proj_weight")
    shown: dict[str, Tensor] = {}

    def change(name: str, weight: Tensor, output: Tensor) -> tuple[Tensor, Tensor | None]:
        shown[name] = output
        return weight, None

    watch = Projections(change)
    attended(attention, watch)
    assert watch.parts == (15, 15, 15)
    weights = attention.in_proj_weight.chunk(3)
    expected = torch.cat([F.linear(X.transpose(0, 1), weight).flatten(0, 1) for weight in weights])
    torch.testing.assert_close(shown["in_proj_weight"], expected.detach())
