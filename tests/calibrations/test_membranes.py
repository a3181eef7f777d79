"""Membranes of a pass: found, measured where they lie, and read together at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoinit.calibrations import membranes as module
from autoinit.calibrations.membranes import Membrane, Membranes, read_together
from autoinit.task.products import watch_products
from autoinit.task.task import example_task
from autoinit.tracing.tracing import trace_task

X = torch.randn(40, 6, 8)
STEPS = 6


class Spiking(nn.Module):
    """Two layers of neurons that are reset, whose thresholds are numbers or buffers."""

    def __init__(self, threshold: Callable[[], Any]) -> None:
        super().__init__()
        self.weights = nn.ModuleList([nn.Linear(8, 12), nn.Linear(12, 5)])
        for place in range(2):
            value = threshold()
            name = f"threshold_{place}"
            self.register_buffer(name, value) if isinstance(value, Tensor) else setattr(self, name, value)
        self.courses: list[list[Tensor]] = [[], []]

    def forward(self, x: Tensor) -> Tensor:
        self.courses = [[], []]
        states = [x.new_zeros(()), x.new_zeros(())]
        for step in range(STEPS):
            signal = x[:, step]
            for place, (weight, threshold) in enumerate(zip(self.weights, self.thresholds(), strict=True)):
                states[place] = 0.9 * states[place] + weight(signal)
                self.courses[place].append(states[place].clone())
                signal = (states[place] - threshold > 0).float() + 0 * states[place]
                states[place] = states[place] - threshold * signal.detach()
        return signal

    def thresholds(self) -> list[Any]:
        return [self.threshold_0, self.threshold_1]


class Reads(TorchDispatchMode):
    """Counts the numbers that the host asks for one by one."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("threshold", "read"), [(lambda: 0.5, 0), (lambda: torch.tensor(0.5), 2)])
def test_a_pass_reads_each_threshold_once_and_membranes_together(
    threshold: Callable[[], Any], read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = Spiking(threshold)
    task = example_task(model, [(X, torch.randn(40, 5))], whole=True)
    with task.preserved():
        graph = trace_task(task)
    layers = {name: graph[name] for name in ("weights.0.weight", "weights.1.weight")}
    levels: Any = module.WeakTensorKeyDictionary()
    fetches: list[int] = []
    monkeypatch.setattr(module, "fetched", lambda tensors: fetches.append(len(tensors)) or list(tensors))

    def one_pass() -> dict[str, Membrane]:
        membranes = Membranes(layers, levels)
        with torch.no_grad(), watch_products(model, membranes.product), membranes:
            model(X)
        return membranes.found

    with Reads() as reads:
        one_pass()
        found = one_pass()
    assert reads.count == read
    assert [one.shape for one in read_together(found, [torch.zeros(3)])] == [(3,)]
    assert fetches == [1 + 2 * 2]
    for name, course in zip(layers, model.courses, strict=True):
        values = torch.stack(course).double()
        membrane = found[name]
        assert membrane.steps == STEPS
        assert membrane.threshold == pytest.approx(0.5)
        torch.testing.assert_close(membrane.mean, values.mean((0, 1)), rtol=1e-5, atol=1e-6)
        assert membrane.within == pytest.approx(values.var((0, 1), correction=0).mean().item(), rel=1e-5)
        assert membrane.total == pytest.approx(values.var(correction=0).item(), rel=1e-5)


def test_a_threshold_that_is_changed_is_read_again() -> None:
    membranes, threshold = Membranes({}), torch.tensor(0.5)
    assert [membranes._level(threshold), membranes._level(threshold.add_(1)), membranes._level(2)] == [0.5, 1.5, 2.0]
