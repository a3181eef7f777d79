"""Adam on scales: torch's own steps, none where a slope is not finite, and nothing that the host waits for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoinit.calibrations import metainit as averaging
from autoinit.calibrations.descent import CLIP, SMALLEST, Descent
from autoinit.calibrations.gradinit import gradinit
from autoinit.calibrations.metainit import best_stretch, metainit
from autoinit.calibrations.nio import nio
from autoinit.calibrations.subject import Subject
from autoinit.plans.fill import Adjustment
from autoinit.task.task import example_task
from autoinit.tracing.tracing import trace_task


class Reads(TorchDispatchMode):
    """Counts the numbers that the host asks for one by one."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_steps_are_those_of_torch_and_read_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    slopes = [3 * torch.randn(5, generator=generator) for _ in range(40)]
    slopes[0][1], slopes[7][2] = math.nan, math.inf
    bounds = [bool(torch.rand((), generator=generator) < 0.4) for _ in slopes]
    ours, theirs = torch.ones(5, requires_grad=True), torch.ones(5, requires_grad=True)
    descent = Descent(ours, lr=0.05)
    adams = {bound: torch.optim.Adam([theirs], lr=0.05) for bound in (False, True)}
    for slope, bound in zip(slopes, bounds, strict=True):
        with Reads() as reads:
            descent.step(slope, bound=bound)
        assert reads.count == 0
        if slope.isfinite().all():
            theirs.grad = slope.clamp(-CLIP, CLIP)
            adams[bound].step()
            with torch.no_grad():
                theirs.clamp_(min=SMALLEST)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    assert (ours - 1).abs().max() > 0.5


ITERATIONS = 6


@pytest.mark.parametrize(("calibrate", "each"), [(gradinit, 1), (nio, 1), (metainit, 0)])
def test_an_iteration_asks_for_the_number_that_decides_what_is_done_and_no_other(
    calibrate: Callable[..., Mapping[str, Adjustment]], each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))
    batches = [(torch.randn(8, 6), torch.randint(3, (8,))) for _ in range(4)]
    task = example_task(model, batches, loss=nn.functional.cross_entropy, whole=True)
    graph = trace_task(task)
    at_the_end: list[int] = []
    numbers = averaging.numbers

    def at_once(scalars: list[Tensor]) -> list[float]:
        at_the_end.append(reads.count)
        return numbers(scalars)

    monkeypatch.setattr(averaging, "numbers", at_once)
    with task.preserved():
        with Reads() as reads:
            calibrate(Subject(task, graph), iterations=1)
        few = at_the_end[-1] if at_the_end else reads.count
        with Reads() as reads:
            calibrate(Subject(task, graph), iterations=ITERATIONS)
        many = at_the_end[-1] if at_the_end else reads.count
    assert many - few == each * (ITERATIONS - 1)


def test_the_best_stretch_is_the_one_with_the_smallest_geometric_mean() -> None:
    values = [3.0, math.nan, 2.0, 1.0, 4.0, 0.5, 8.0, 0.0, 1e-3]
    found = best_stretch(values, 2)
    assert found is not None
    usable = [pair for pair in itertools.pairwise(values) if all(0 < value < math.inf for value in pair)]
    assert math.prod(values[found]) == min(map(math.prod, usable)) == 2.0
    assert (found.start, found.stop) == (2, 4)
    assert best_stretch([math.inf, 1.0, math.nan], 2) is None
    assert best_stretch([1.0], 2) is None
