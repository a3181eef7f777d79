"""Attention by its formula is torch's own, with the dropout that a training by itself draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoinit.stacks import dropout as dropping
from autoinit.stacks.dropout import SameDropout
from autoinit.stacks.plain_attention import attention, plain_attention

ALLOWED = torch.ones(5, 7).tril(2) > 0

GIVEN: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "nothing more": ((2, 3, 5, 4), (2, 3, 7, 4), {}),
    "what may be attended": ((2, 3, 5, 4), (2, 3, 7, 4), {"attn_mask": ALLOWED}),
    "numbers to add": ((2, 3, 5, 4), (2, 3, 7, 4), {"attn_mask": torch.linspace(-1, 1, 35).view(5, 7)}),
    "causal, scaled": ((2, 3, 5, 4), (2, 3, 5, 4), {"is_causal": True, "scale": 0.3}),
    "shared heads": ((2, 6, 5, 4), (2, 2, 7, 4), {"enable_gqa": True}),
}


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("drops", [0.0, 0.4])
def test_it_is_torchs_own(name: str, drops: float) -> None:
    shape, other, given = GIVEN[name]
    query, key, value = torch.randn(shape), torch.randn(other), torch.randn(other)
    torch.manual_seed(3)
    with plain_attention():
        expected = F.scaled_dot_product_attention(query, key, value, dropout_p=drops, **given)
    torch.manual_seed(3)
    found = attention(lambda tensor, p: F.dropout(tensor, p), query, key, value, dropout_p=drops, **given)
    torch.testing.assert_close(found, expected)


class Attending(nn.Module):
    """nn.MultiheadAttention, which asks for dropout inside of a function of torch's own."""

    def __init__(self, *, weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.attention(x, x, x, need_weights=self.weights)[0]
        return found


class Direct(nn.Module):
    """Attention as models call it, over two heads."""

    def __init__(self, *, by_name: bool) -> None:
        super().__init__()
        self.by_name = by_name

    def forward(self, x: Tensor) -> Tensor:
        heads = x.view(2, 5, 2, 4).transpose(1, 2)
        if self.by_name:
            return F.scaled_dot_product_attention(heads, heads, heads, dropout_p=0.5)
        return F.scaled_dot_product_attention(heads, heads, heads, None, 0.5)


MODELS = {
    "with weights": lambda: Attending(weights=True),
    "without weights": lambda: Attending(weights=False),
    "by name": lambda: Direct(by_name=True),
    "by place": lambda: Direct(by_name=False),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_mask_inside_of_attention_is_drawn_once_for_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one row, as a training by itself draws it: on a device no other way gives the same mask."""
    drawn: list[tuple[int, ...]] = []
    mask = dropping._Mask.vmap

    def noted(info: Any, in_dims: Any, input: Tensor, p: float) -> Any:
        found = mask(info, in_dims, input, p)
        drawn.append(tuple(found[0].shape))
        return found

    monkeypatch.setattr(dropping._Mask, "vmap", staticmethod(noted))
    model = MODELS[name]()
    x = torch.randn(3, 2, 5, 8)
    torch.manual_seed(5)
    with plain_attention(), SameDropout():
        found = torch.vmap(model, randomness="same")(x)
    assert [shape[-2:] for shape in drawn] == [(5, 5)]
    assert torch.Size(drawn[0]).numel() == 2 * 2 * 25
    for row, by_itself in zip(found, x, strict=True):
        torch.manual_seed(5)
        with plain_attention():
            torch.testing.assert_close(row, model(by_itself))
