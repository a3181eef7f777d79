"""A matrix that stands out among those of its place in other blocks is named, and no other one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fresh_models import FRESH, Fresh, bert, gpt2, llama, resnet, vit
from torch import nn

from autoinit.diagnosis import diagnose

PLANTED: dict[str, tuple[Callable[[], Fresh], str, float]] = {
    "gpt2": (gpt2, "transformer.h.2.attn.c_attn.weight", 50),
    "llama": (llama, "model.layers.0.self_attn.o_proj.weight", 50),
    "llama, a gate": (llama, "model.layers.2.mlp.gate_proj.weight", 40),
    "bert, one of two": (lambda: bert(2), "bert.encoder.layer.1.output.dense.weight", 50),
    "vit, too small": (vit, "vit.layers.1.mlp.fc1.weight", 1 / 50),
    "resnet": (resnet, "4.conv1.weight", 50),
    "mlp": (FRESH["mlp"], "2.weight", 30),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_matrix_far_from_its_siblings_is_named_and_the_call_mends_it(case: str) -> None:
    build, name, factor = PLANTED[case]
    model, data = build()
    with torch.no_grad():
        model.get_parameter(name).mul_(factor)
    standing = [found for found in diagnose(model, data).findings if "stands out among layers alike" in found.text]
    assert [found.text.split()[0] for found in standing] == [name]
    assert standing[0].severity == "warning"
    exec(standing[0].remedy.removeprefix("draw it as they are: "), {"nn": nn, "model": model})
    assert not any("stands out" in found.text for found in diagnose(model, data).findings)


def test_blocks_that_fade_with_depth_are_still_found() -> None:
    """Like with like: each block's first layer has a hundredth of the signal of the one three blocks before."""
    model = nn.Sequential(nn.Linear(16, 32), *(Block(4.0**-place) for place in range(5)), nn.Linear(32, 5))
    x = torch.randn(256, 16)
    texts = [found.text for found in diagnose(model, (x, x[:, :5].argmax(1))).findings]
    assert any(text.startswith("signals fade with depth") and "in 1.up.weight" in text for text in texts)


class Block(nn.Module):
    """A residual branch whose first layer is drawn by a scale of its own."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(32), nn.Linear(32, 32), nn.Linear(32, 32)
        nn.init.normal_(self.up.weight, std=0.2 * scale)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.up(self.norm(x)).tanh())
