"""Random masks: one density, or those of another ticket, the same on every call with one seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import unchanged
from lots import WEIGHTS, data, dense

import autoinit
from autoinit.errors import ArgumentError


def test_the_densities_of_another_ticket_are_taken_to_the_entry() -> None:
    model = dense()
    first = autoinit.ticket(model, data(), 0.8, method="snip")
    second = autoinit.ticket(model, data(), 0.8, method="random", densities=first, seed=3)
    assert second.densities == first.densities
    assert len(set(first.densities.values())) == 3
    assert all(not torch.equal(first.masks[name], second.masks[name]) for name in WEIGHTS)
    named = autoinit.ticket(model, data(), 0.8, method="random", densities=first.densities, seed=3)
    assert all(torch.equal(named.masks[name], second.masks[name]) for name in WEIGHTS)


def test_a_seed_decides_and_layers_share_no_draw() -> None:
    model = dense()
    first, again, other = (autoinit.ticket(model, data(), 0.5, method="random", seed=s) for s in (1, 1, 2))
    assert torch.equal(first.masks["0.weight"], again.masks["0.weight"])
    assert not torch.equal(first.masks["0.weight"], other.masks["0.weight"])
    assert first.reached == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("densities", "said"),
    [
        ({"0.weight": 0.2}, "other weights than the model: 3.weight, 5.weight differ"),
        (dict.fromkeys(WEIGHTS, 1.2), "density of 0.weight is 1.2"),
        (dict.fromkeys(WEIGHTS, float("nan")), "density of 0.weight is nan"),
        (dict.fromkeys(WEIGHTS, 0.5), "these densities give 0.5. Pass that"),
    ],
)
def test_densities_that_do_not_fit_are_refused(densities: Any, said: str) -> None:
    model = dense()
    with unchanged(model), pytest.raises(ArgumentError, match=said):
        autoinit.ticket(model, data(), 0.8, method="random", densities=densities)
