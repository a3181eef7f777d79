"""Rounds of training, thinning out and rewinding, beside a loop written out by hand."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers import unchanged
from lots import WEIGHTS, data, dense, task_of
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit
from autoinit.errors import ModelError
from autoinit.tickets.magnitude import masked, usual_rounds


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01, weight_decay=0.1, foreach=False)


def scheduled(parameters: Any) -> Any:
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)


def by_hand(make: Any, *, steps: int, rewind_to: int, rounds: int, sparsity: float) -> tuple[dict[str, Tensor], Any]:
    """The masks and the weights rewound to, each round trained anew from step 0 on with masks from that step on."""
    batches = list(task_of(dense(), data()).order(5, steps))
    masks = {name: torch.ones_like(dense().get_parameter(name)) for name in WEIGHTS}
    start: Any = None
    for turn in range(1, rounds + 1):
        model = dense().train()
        made = make(list(model.parameters()))
        optimizer, scheduler = made if isinstance(made, tuple) else (made, None)
        for at, (x, y) in enumerate(batches):
            if at == rewind_to:
                start = {name: value.clone() for name, value in model.state_dict().items()}
                hold(model, masks)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            for name in WEIGHTS if at >= rewind_to else ():
                model.get_parameter(name).grad.mul_(masks[name])
            optimizer.step()
            if scheduler:
                scheduler.step()
            if at >= rewind_to:
                hold(model, masks)
        flat = torch.cat([model.get_parameter(name).detach().abs().flatten() for name in WEIGHTS])
        kept = round((1 - sparsity) ** (turn / rounds) * len(flat))
        least = flat.sort(descending=True).values[kept - 1]
        masks = {name: (model.get_parameter(name).detach().abs() >= least).float() for name in WEIGHTS}
    return masks, start


def hold(model: nn.Module, masks: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)


@pytest.mark.parametrize(("make", "rewind_to"), [(adam, 0), (adam, 6), (scheduled, 0), (scheduled, 6)])
def test_a_ticket_is_that_of_a_loop_by_hand(make: Any, rewind_to: int) -> None:
    model = dense()
    with unchanged(model):
        found = autoinit.ticket(model, data(), 0.6, rounds=3, steps=14, rewind_to=rewind_to, optimizer=make, seed=5)
    masks, start = by_hand(make, steps=14, rewind_to=rewind_to, rounds=3, sparsity=0.6)
    for name in WEIGHTS:
        assert int((found.masks[name] != masks[name].bool()).sum()) == 0
    for name, value in found.weights.items():
        torch.testing.assert_close(value, start[name])
    assert found.weights.keys() == start.keys()


def test_rounds_remove_a_fifth_at_a_time() -> None:
    assert [usual_rounds(share) for share in (0.1, 0.2, 0.36, 0.8, 0.95)] == [1, 1, 2, 8, 14]


def test_ctrl_c_in_a_round_leaves_the_model_as_it_was() -> None:
    model, passes = dense().eval(), itertools.count()

    def loss(output: Tensor, target: Tensor) -> Tensor:
        if next(passes) == 25:
            raise KeyboardInterrupt
        return F.cross_entropy(output, target)

    with unchanged(model), pytest.raises(KeyboardInterrupt):
        autoinit.ticket(model, data(), 0.8, steps=10, loss=loss)
    assert next(passes) == 26


def test_a_training_that_diverges_is_told() -> None:
    model = dense()
    with unchanged(model), pytest.raises(ModelError, match="not finite"):
        autoinit.ticket(model, data(), 0.8, steps=10, optimizer=lambda ps: torch.optim.SGD(ps, lr=1e38))


def test_what_the_optimizer_does_not_hold_stays_whole() -> None:
    found = autoinit.ticket(dense(), data(), 0.5, steps=3, optimizer=lambda ps: adam(ps[:-2]))
    assert list(found.masks) == WEIGHTS[:2]
    assert "5.weight: stays whole (the optimizer does not train it)." in found.notes


def test_no_gradient_reaches_what_is_removed_so_that_a_clipped_norm_knows_nothing_of_it() -> None:
    model = dense()
    mask = torch.rand(24, 8) < 0.3
    with masked(model, {"0.weight": mask}):
        assert torch.equal(model[0].weight != 0, mask)
        F.cross_entropy(model(data()[0][0]), data()[0][1]).backward()
    assert not model[0].weight.grad[~mask].any()
    assert bool(model[0].weight.grad[mask].any())
    assert not model[0].weight._backward_hooks
