"""A model is put back exactly, whatever was done to it."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import snntorch
import torch
from helpers import observed, unchanged
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from autoinit.task import snapshot
from autoinit.task.snapshot import RandomStates, Snapshot, preserved, preserved_random


class Everything(nn.Module):
    """Frozen, tied, unused, stateful, with gradients, hooks and a submodule in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 6))
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.tied = nn.Linear(6, 6)
        self.tied.weight = self.body[0].weight
        self.lif = snntorch.Leaky(beta=0.9, init_hidden=True)
        self.register_buffer("wide", torch.ones(1, 1).expand(3, 4), persistent=False)
        self.calls = 0
        self.history: list[Tensor] = []
        self.memory = torch.zeros(6)
        self.body[1].eval()
        (self.body(torch.randn(4, 6)).sum() + self.tied(torch.ones(6)).sum()).backward()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.lif.mem = self.lif.mem.detach()  # as a spiking network's own loop does
        self.history.append(x)
        self.memory += x.detach().mean(0)
        return self.tied(self.frozen(self.lif(self.body(x))))


def wreck(model: Everything, error: type[BaseException] | None = None) -> None:
    """Changes everything that training, or a careless step, can change, and then fails if asked to."""
    model.train()
    model(torch.randn(4, 6)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    model.body[0].weight.register_hook(lambda grad: grad)
    model.body[0].weight.grad = torch.ones(6, 6)
    model.body[3].register_forward_hook(lambda *args: None)
    model.frozen.requires_grad_(True)
    model.body[1].running_mean = torch.ones(6)
    model.body[3].weight = nn.Parameter(torch.zeros(6, 6))
    model.tied.bias.data = torch.zeros(6)
    parametrizations.weight_norm(model.frozen)
    model.extra = nn.Linear(2, 2)  # type: ignore[assignment]
    del model.memory
    np.random.rand()
    random.random()
    if error is not None:
        raise error


def test_everything_is_put_back() -> None:
    model = Everything()
    with unchanged(model), preserved(model):
        wreck(model)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_everything_is_put_back_after(error: type[BaseException]) -> None:
    model = Everything()
    with pytest.raises(error), unchanged(model), preserved(model):
        wreck(model, error)


def spoil(model: Everything) -> None:
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    with torch.no_grad():
        model.body[0].weight.grad += 1


def test_the_check_sees_a_change() -> None:
    model = Everything()
    found = r"body.0.weight \(grad values\), body.0.weight \(values\)"
    with pytest.raises(AssertionError, match=found), unchanged(model):
        spoil(model)


def test_gradients_are_none_inside_and_the_owners_untouched() -> None:
    model = Everything()
    grad = model.body[0].weight.grad
    assert grad is not None
    values = grad.clone()
    with preserved(model):
        assert all(parameter.grad is None for parameter in model.parameters())
        model(torch.randn(4, 6)).sum().backward()
        assert grad.equal(values)
    assert model.body[0].weight.grad is grad


def test_rewind_puts_weights_buffers_and_state_back_but_no_random_state() -> None:
    model = Everything()
    before = observed(model)
    with preserved(model) as snapshot:
        model.train()
        model(torch.randn(4, 6)).sum().backward()
        torch.optim.SGD(model.parameters(), lr=1.0).step()
        random_state = torch.get_rng_state()
        snapshot.rewind()
        assert torch.get_rng_state().equal(random_state)
        after = observed(model)
        differ = {key for key in before if before[key] != after[key]}
    assert all("grad" in key or "generator" in key for key in differ), differ


def test_rewind_leaves_parameters_that_are_about_to_be_set() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, device="meta"), nn.Linear(4, 2))
    left, back = model[0].weight, [model[0].bias, model[3].weight, model[1].running_mean]
    before = [tensor.detach().clone() for tensor in back]
    with preserved(model) as snapshot:
        with torch.no_grad():
            for tensor in (left, *back):
                tensor.fill_(7.0)
        left.grad = torch.ones_like(left)
        snapshot.rewind([left, model[2].weight])
        assert bool((left == 7).all())
        assert left.grad is None
        assert all(tensor.equal(value) for tensor, value in zip(back, before, strict=True))
    assert not (left == 7).any()


def test_rewind_starts_each_trial_alike() -> None:
    model = Everything()
    losses = []
    with preserved(model) as snapshot:
        for _ in range(2):
            snapshot.rewind()
            torch.manual_seed(1)
            optimizer = torch.optim.Adam(model.parameters())
            for _ in range(3):
                optimizer.zero_grad()
                loss = model(torch.randn(4, 6)).square().mean()
                loss.backward()
                optimizer.step()
            losses.append(loss.item())
    assert losses[0] == losses[1]


def test_rewind_costs_little_beside_a_step() -> None:
    """One foreach copy: well below what copying through `load_state_dict` takes."""
    model = nn.Sequential(*(nn.Linear(256, 256) for _ in range(20)))

    def seconds(function: Callable[[], object]) -> float:
        times = []
        for _ in range(15):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return min(times)

    state = {key: value.clone() for key, value in model.state_dict().items()}
    with preserved(model) as snapshot:
        assert seconds(snapshot.rewind) < 2 * seconds(lambda: model.load_state_dict(state))


def test_special_values_survive() -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[float("nan"), -0.0], [float("inf"), 1e-45]]))
    with unchanged(model), preserved(model):
        nn.init.zeros_(model.weight)


def test_meta_models_have_no_values_to_put_back() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with unchanged(model), preserved(model):
        model(torch.empty(3, 4, device="meta")).sum().backward()
        assert model[0].weight.grad is not None


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "bfloat16", "complex"])
def test_layouts_and_dtypes_survive(layout: str) -> None:
    model: nn.Module = nn.Conv2d(3, 4, 3)
    if layout == "channels_last":
        model = model.to(memory_format=torch.channels_last)
    elif layout == "transposed":
        model = nn.Linear(3, 5)
        model.weight = nn.Parameter(torch.randn(3, 5).T)
    elif layout == "bfloat16":
        model = model.bfloat16()
    else:
        model.weight = nn.Parameter(torch.randn(2, 2, dtype=torch.complex64))
    with unchanged(model), preserved(model):
        for parameter in model.parameters():
            parameter.data = torch.zeros_like(parameter).contiguous()


def test_ctrl_c_during_the_restore_waits_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Everything()
    rewind = Snapshot.rewind

    def interrupted(self: Snapshot, *but: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        rewind(self, *but)

    monkeypatch.setattr(Snapshot, "rewind", interrupted)
    with pytest.raises(KeyboardInterrupt), unchanged(model), preserved(model):
        wreck(model)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_random_states_alone() -> None:
    model = nn.Linear(1, 1)
    with unchanged(model), preserved_random():
        torch.rand(3), np.random.rand(3), random.random()


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), np.random.rand, random.random])
def test_a_draw_from_any_generator_of_the_host_is_seen(draw: Callable[[], object]) -> None:
    with preserved_random():
        states = RandomStates()
        assert states.host_is_now()
        draw()
        assert not states.host_is_now()
        states.restore()
        assert states.host_is_now()


def test_copies_of_a_gpus_tensors_are_locked_in_memory_where_there_is_some() -> None:
    """Here there is no such memory, which raises, and any other will do; the copy has the values either way."""

    class OnGPU(torch.Tensor):
        is_cuda = True

    there = torch.arange(6.0).view(2, 3).t()
    for tensor in (there, there.as_subclass(OnGPU)):
        for pinned in (True, False):
            copy = snapshot._on_host(tensor, pinned=pinned)
            assert torch.equal(copy, there)
            assert copy.data_ptr() != there.data_ptr()


@pytest.mark.parametrize(("near", "there"), [(48, True), (47, False)])
def test_copies_of_a_small_model_stay_on_its_gpu(monkeypatch: pytest.MonkeyPatch, near: int, there: bool) -> None:
    class OnGPU(torch.Tensor):
        is_cuda = True

    monkeypatch.setattr(snapshot, "NEAR", near)
    on_host: list[torch.Tensor] = []
    monkeypatch.setattr(snapshot, "_on_host", lambda tensor, pinned: on_host.append(tensor) or tensor.clone())
    given = [torch.ones(2, 3).as_subclass(OnGPU), torch.ones(6).as_subclass(OnGPU)]
    targets, values = snapshot._copies(given)
    assert len(on_host) == (0 if there else 2)
    assert all(map(torch.equal, values, given))
    assert not {value.data_ptr() for value in values} & {target.data_ptr() for target in targets}
    snapshot._copies([torch.ones(2)])
    assert on_host[-1].shape == (2,)


def test_parameters_can_be_left_as_they_were_set_unless_ctrl_c_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    left, moved = model[0].weight, model[1].weight

    def set_and_leave(snapshot: Snapshot) -> None:
        moved.data = moved.data.clone()  # what is written there now is lost when the old memory is put back
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(7.0)
        snapshot.leave([left, moved, nn.Parameter(torch.ones(1))])

    def interrupted() -> None:
        with preserved(model) as snapshot:
            set_and_leave(snapshot)
            monkeypatch.setattr(Snapshot, "rewind", interrupting)

    rewind = Snapshot.rewind

    def interrupting(self: Snapshot, *but: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(Snapshot, "rewind", rewind)
        rewind(self, *but)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(parameter.equal(value) for parameter, value in zip(model.parameters(), before, strict=True))
    with preserved(model) as snapshot:
        set_and_leave(snapshot)
    assert [id(parameter) for parameter in snapshot.left] == [id(left)]
    assert bool((left == 7).all())
    rest = list(zip(model.parameters(), before, strict=True))[1:]
    assert all(parameter.equal(value) for parameter, value in rest)
