"""Fresh optimizers that are the owner's, at any learning rate."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from helpers import unchanged
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.utils.data import DataLoader, TensorDataset

import autoinit
from autoinit.errors import OptimizerError
from autoinit.task.optimizers import OptimizerBuilder, step_scheduler

if TYPE_CHECKING:  # takes seconds to load
    from accelerate import Accelerator


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))


def train(model: nn.Module, optimizer: Optimizer, steps: int = 1) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(3, 4)).square().mean().backward()
        optimizer.step()


def test_none_is_adamw_whose_rate_is_searched(model: nn.Module) -> None:
    builder = OptimizerBuilder(model)
    assert (builder.name, builder.lr, builder.lr_searched) == ("AdamW", 1e-3, True)
    optimizer, scheduler = builder(4.0)
    assert type(optimizer) is AdamW
    assert scheduler is None
    assert optimizer.param_groups[0]["lr"] == 4e-3


@pytest.mark.parametrize(
    ("given", "lr", "expected", "searched"),
    [
        (None, None, 1e-3, True),
        (None, 0.1, 0.1, False),
        (None, "search", 1e-3, True),
        (lambda params: SGD(params, lr=0.5), None, 0.5, False),
        (lambda params: SGD(params, lr=0.5), "search", 0.5, True),
        (lambda params: SGD(params, lr=0.5), 0.1, 0.1, False),
        (SGD, None, 1e-3, False),
    ],
)
def test_learning_rates(model: nn.Module, given: Any, lr: Any, expected: float, searched: bool) -> None:
    builder = OptimizerBuilder(model, given, lr)
    assert (builder.lr, builder.lr_searched) == (expected, searched)
    assert builder(2.0)[0].param_groups[0]["lr"] == pytest.approx(2 * expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: Adam(p, lr=0.1, betas=(0.8, 0.9), amsgrad=True, foreach=False),
        lambda p: AdamW(p, lr=torch.tensor(0.1), weight_decay=0.3),
        lambda p: AdamW(p, lr=0.1, fused=True),
        lambda p: RMSprop(p, lr=0.1, centered=True),
        lambda p: Adagrad(p, lr=0.1),
    ],
)
def test_an_existing_optimizer_is_rebuilt_and_left_alone(model: nn.Module, make: Any) -> None:
    owner = make([{"params": model[0].parameters()}, {"params": [model[1].weight], "lr": 0.01}])
    train(model, owner)
    state, groups = dict(owner.state), [dict(group) for group in owner.param_groups]
    fresh, _ = OptimizerBuilder(model, owner)(0.5)
    assert type(fresh) is type(owner)
    for new, old in zip(fresh.param_groups, owner.param_groups, strict=True):
        assert [id(p) for p in new["params"]] == [id(p) for p in old["params"]]
        assert {k: v for k, v in new.items() if k not in ("params", "lr", "fused")} == {
            k: v for k, v in old.items() if k not in ("params", "lr", "fused")
        }
        assert float(new["lr"]) == pytest.approx(float(old["lr"]) / 2)
    train(model, fresh, 3)
    assert all(owner.state[p] is value for p, value in state.items())
    assert [dict(group) for group in owner.param_groups] == groups


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: StepLR(o, 2, 0.5),
        lambda o: CosineAnnealingLR(o, 20),
        lambda o: LambdaLR(o, lambda step: step / 5),
        lambda o: OneCycleLR(o, max_lr=0.2, total_steps=20),
        lambda o: SequentialLR(o, [LinearLR(o, 0.1, total_iters=3), StepLR(o, 2, 0.5)], milestones=[3]),
        lambda o: ReduceLROnPlateau(o, patience=1),
    ],
)
def test_schedules_are_scaled_along(model: nn.Module, schedule: Any) -> None:
    """Every rate of the schedule is three times the owner's, step by step."""

    def factory(params: Any) -> Any:
        optimizer = SGD(params, lr=0.1)
        return optimizer, schedule(optimizer)

    builder = OptimizerBuilder(model, factory)
    rates = []
    for factor in (1.0, 3.0):
        optimizer, scheduler = builder(factor)
        seen = []
        for _ in range(8):
            optimizer.step()
            seen.append(optimizer.param_groups[0]["lr"])
            step_scheduler(scheduler, 1.0)
        rates.append(seen)
    assert rates[1] == pytest.approx([3 * rate for rate in rates[0]])
    assert len(set(rates[0])) > 1


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: OneCycleLR(o, max_lr=0.2, total_steps=6),
        lambda o: ChainedScheduler([OneCycleLR(o, max_lr=0.2, total_steps=6)], optimizer=o),
    ],
)
def test_one_cycle_stays_at_its_end(model: nn.Module, schedule: Any) -> None:
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = schedule(optimizer)
    seen = []
    for _ in range(10):
        optimizer.step()
        seen.append(optimizer.param_groups[0]["lr"])
        step_scheduler(scheduler, 1.0)
    assert seen[5:] == [min(seen)] * 5
    assert seen[4] > seen[5] > 0


def test_what_follows_one_cycle_goes_on(model: nn.Module) -> None:
    optimizer = SGD(model.parameters(), lr=0.1)
    parts = [OneCycleLR(optimizer, max_lr=0.2, total_steps=6), LambdaLR(optimizer, lambda step: float(step))]
    scheduler = SequentialLR(optimizer, parts, milestones=[6])
    seen = []
    for _ in range(10):
        optimizer.step()
        seen.append(optimizer.param_groups[0]["lr"])
        step_scheduler(scheduler, 1.0)
    assert len(set(seen)) == 10


def test_a_warm_up_from_zero_has_the_rate_it_warms_up_to(model: nn.Module) -> None:
    def factory(params: Any) -> Any:
        optimizer = SGD(params, lr=0.1)
        return optimizer, LambdaLR(optimizer, lambda step: min(1.0, step / 5))

    assert OptimizerBuilder(model, factory).lr == 0.1
    assert OptimizerBuilder(model, factory, 0.4)(1.0)[0].param_groups[0]["initial_lr"] == pytest.approx(0.4)


def test_frozen_parameters_are_not_given_to_a_factory(model: nn.Module) -> None:
    model[0].requires_grad_(False)
    counts: list[int] = []

    def factory(params: Any) -> Optimizer:
        counts.append(len(params))
        return SGD(params)

    OptimizerBuilder(model, factory)
    assert counts == [2]


class Odd(SGD):
    def __init__(self, params: Any, secret: int) -> None:
        super().__init__(params, lr=0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda params: None, r"returned None \(is its return missing\?\)"),
        (lambda params: 3, "returned a int"),
        (lambda params: (SGD(params), "cosine"), "returned a str as scheduler"),
        (lambda params: 1 / 0, "factory failed on 4 parameters: ZeroDivisionError"),
        (lambda params: torch.optim.LBFGS(params), "LBFGS needs a closure.*SGD or AdamW"),
        (lambda params: SGD(nn.Linear(2, 2).parameters()), "2 of the 2 parameters in the SGD do not belong"),
        ("adam", "optimizer is 'adam'.*Allowed: optimizer=callable"),
    ],
)
def test_what_is_no_optimizer_is_told_so(model: nn.Module, given: Any, message: str) -> None:
    with pytest.raises(OptimizerError, match=message):
        OptimizerBuilder(model, given)


def test_an_optimizer_that_cannot_be_rebuilt_asks_for_a_factory(model: nn.Module) -> None:
    with pytest.raises(OptimizerError, match=r"cannot be built again.*Pass a factory"):
        OptimizerBuilder(model, Odd(model.parameters(), 1))


@pytest.mark.parametrize("lr", [0, -1.0, float("nan"), "fast", True])
def test_learning_rates_that_are_none(model: nn.Module, lr: Any) -> None:
    with pytest.raises(OptimizerError, match="Allowed: a positive number, 'search', or None"):
        OptimizerBuilder(model, None, lr)


def test_the_search_needs_a_rate(model: nn.Module) -> None:
    class Still(Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {})

        def step(self, closure: Any = None) -> None: ...

    builder = OptimizerBuilder(model, Still, "search")
    assert (builder.lr, builder.lr_searched) == (None, False)
    with pytest.raises(OptimizerError, match="no learning rate to set"):
        OptimizerBuilder(model, Still, 0.1)


ADAMS: list[Callable[[Any], Optimizer]] = [
    lambda params: Adam(params, lr=0.01),
    lambda params: AdamW(params, lr=0.01, weight_decay=0.3, amsgrad=True),
    lambda params: Adam(params, lr=0.01, maximize=True, betas=(0.5, 0.9)),
]


@pytest.mark.parametrize("make", ADAMS)
def test_adam_is_fused_and_moves_weights_as_its_owners_does(model: nn.Module, make: Any) -> None:
    twin = copy.deepcopy(model)
    optimizer, _ = OptimizerBuilder(model, make)()
    assert optimizer.param_groups[0]["fused"]
    train(model, optimizer, steps=20)
    train(twin, make(twin.parameters()), steps=20)
    for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(
    "chosen", [{"foreach": False}, {"foreach": True}, {"fused": False}, {"capturable": True}, {"differentiable": True}]
)
def test_a_form_that_the_owner_chose_is_kept(model: nn.Module, chosen: dict[str, bool]) -> None:
    optimizer, _ = OptimizerBuilder(model, lambda params: AdamW(params, **chosen))()
    assert not optimizer.param_groups[0]["fused"]
    assert {name: optimizer.param_groups[0][name] for name in chosen} == chosen


class OwnAdam(Adam):
    """Of which nobody knows what it does besides."""


def test_a_subclass_keeps_its_form(model: nn.Module) -> None:
    assert not OptimizerBuilder(model, OwnAdam)()[0].param_groups[0]["fused"]


def test_one_group_with_a_form_of_its_own_keeps_all_as_they_are(model: nn.Module) -> None:
    def two(params: Any) -> Optimizer:
        first, *rest = params
        return Adam([{"params": [first], "foreach": False}, {"params": rest}])

    assert not any(group["fused"] for group in OptimizerBuilder(model, two)()[0].param_groups)


def test_the_owners_optimizer_is_not_made_to_fuse(model: nn.Module) -> None:
    own = Adam(model.parameters())
    assert OptimizerBuilder(model, own)()[0].param_groups[0]["fused"]
    assert own.param_groups[0]["fused"] is None
    assert not own._optimizer_step_pre_hooks


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.to(torch.bfloat16),
        lambda model: model.append(nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last)),
        lambda model: model.append(nn.Linear(2, 2, dtype=torch.complex64)),
    ],
    ids=["bfloat16", "channels last", "complex"],
)
def test_weights_that_the_fused_kernel_may_not_move_rightly(model: nn.Module, change: Any) -> None:
    change(model)
    assert not OptimizerBuilder(model)()[0].param_groups[0]["fused"]


def test_a_gradient_laid_out_otherwise_moves_its_own_weights() -> None:
    """torch's fused kernel pairs entries by their place in memory: a hook that transposes would mix them up."""
    model, gradient = nn.Linear(3, 4), torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).t()
    twin = copy.deepcopy(model)
    optimizer, _ = OptimizerBuilder(model, lambda params: Adam(params, lr=0.1))()
    for one, mover in ((model, optimizer), (twin, Adam(twin.parameters(), lr=0.1, foreach=False))):
        for grad in (gradient.contiguous(), gradient if one is model else gradient.contiguous()):
            one.weight.grad = grad
            mover.step()
    torch.testing.assert_close(model.weight, twin.weight)


def test_a_weight_that_was_laid_anew_gets_its_own_gradient() -> None:
    """As by a step that projects weights after its backward pass, here into another order of axes."""
    model = nn.Linear(3, 4)
    twin = copy.deepcopy(model)
    optimizer, _ = OptimizerBuilder(model, lambda params: Adam(params, lr=0.1))()
    gradient = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for one, mover in ((model, optimizer), (twin, Adam(twin.parameters(), lr=0.1, foreach=False))):
        for _ in range(2):
            one.weight.grad = gradient.clone()
            one.weight.data = one.weight.data.t().contiguous().t()
            mover.step()
    torch.testing.assert_close(model.weight, twin.weight)


def test_adam_still_refuses_sparse_gradients_by_itself() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    optimizer, _ = OptimizerBuilder(table, Adam)()
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        optimizer.step()


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    """Accelerate's own, whose state is one for the whole process."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("times", [1, 2])
def test_an_optimizer_that_accelerate_prepared_is_the_one_within(accelerator: Accelerator, times: int) -> None:
    from accelerate.optimizer import AcceleratedOptimizer

    model = nn.Linear(4, 2)
    own = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    prepared = accelerator.prepare(own)
    for _ in range(times - 1):
        prepared = AcceleratedOptimizer(prepared)
    assert isinstance(prepared, torch.optim.Optimizer)
    assert prepared is not own
    builder = OptimizerBuilder(model, prepared)
    built, _ = builder()
    assert (type(built), builder.name, builder.lr) == (torch.optim.SGD, "SGD", 0.3)
    assert built is not own
    assert built.param_groups[0]["momentum"] == 0.9


def test_a_selection_takes_what_accelerate_prepared_and_leaves_it_as_it_was(accelerator: Accelerator) -> None:
    x, y = torch.randn(96, 8, generator=torch.Generator().manual_seed(0)), torch.arange(96) % 3
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    model, optimizer, loader = accelerator.prepare(
        net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), DataLoader(TensorDataset(x, y), batch_size=16)
    )
    state = copy.deepcopy(optimizer.state_dict())
    with unchanged(model):
        found = autoinit.select(
            model, loader, optimizer=optimizer, recipes="he_normal", budget=autoinit.Budget(steps=160), apply=False
        )
    assert (found.task.split(";")[0], found.lr) == ("cross-entropy, SGD", 0.1)
    assert optimizer.state_dict() == state
    accelerator.backward(nn.functional.cross_entropy(model(x), y))
    optimizer.step()
