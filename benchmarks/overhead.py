"""What autoinit costs beside the training steps it takes.

    python -m benchmarks.overhead                 # all three
    python -m benchmarks.overhead --part select --profile

- select: the share of the wall time of `select` outside forward passes, backward passes and optimizer steps.
- import: seconds of `import autoinit` in a fresh interpreter, and which heavy libraries it loads.
- trace: `autoinit.trace` against one training step, on a model of ten million parameters.
"""

from __future__ import annotations

import argparse
import cProfile
import functools
import pstats
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import data, models

STEP_MS = 5.0
"""The step time that the share of `select` is wanted for."""
HEAVY = ("torch", "sklearn", "pandas", "optuna", "numpy")


class Clock:
    """Seconds by name; a call inside another timed call counts for the outer one only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._inside = False

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        if self._inside:
            yield
            return
        self._inside = True
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.calls[name] = self.calls.get(name, 0) + 1
            self._inside = False

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.time(name):
                return function(*args, **kwargs)

        return timed


CLOCK = Clock()


class TimedMLP(nn.Module):
    """A plain deep network whose forward pass is on the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = models.plain_mlp(nn.Tanh, depth=16, width=128)

    def forward(self, x: Tensor) -> Tensor:
        with CLOCK.time("forward"):
            return self.layers(x)


class TimedSGD(torch.optim.SGD):
    """SGD whose step is on the clock."""

    def step(self, closure: Any = None) -> Any:
        with CLOCK.time("optimizer step"):
            return super().step(closure)


def _loss(output: Tensor, target: Tensor) -> Tensor:
    with CLOCK.time("forward"):
        return F.cross_entropy(output, target)


def _sgd(parameters: Any) -> torch.optim.Optimizer:
    return TimedSGD(parameters, lr=0.01, momentum=0.9)


def _step_ms(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer, count: int) -> float:
    """Returns the median of `count` training steps, in milliseconds."""
    times = []
    for _ in range(count + 2):
        start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(batch[0]).flatten(0, -2), batch[1].flatten()).backward()
        optimizer.step()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[2:])


def _batches_of_wanted_step() -> tuple[float, list[tuple[Tensor, Tensor]]]:
    """Returns the step time nearest to `STEP_MS` on this machine, and the batches that give it."""
    split = data.mnist_rows()
    found = []
    for rows in (32, 64, 128, 192, 256):
        batches = list(zip(split.train_x.split(rows)[:-1], split.train_y.split(rows)[:-1], strict=True))
        model = models.plain_mlp(nn.Tanh, depth=16, width=128)
        # Orthogonal, since gradients that vanish into denormal numbers slow a step down.
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight)
        found.append(
            (_step_ms(model, batches[0], torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9), 40), batches)
        )
    return min(found, key=lambda pair: abs(pair[0] - STEP_MS))


def select_overhead(budget: float, profile: bool) -> str:
    """Returns where the time of one `select` went."""
    import autoinit

    torch.manual_seed(0)
    model = TimedMLP()
    step, batches = _batches_of_wanted_step()
    autoinit.select(TimedMLP(), batches, loss=_loss, optimizer=_sgd, budget="3s")  # imports are not its cost
    CLOCK.seconds.clear()
    CLOCK.calls.clear()
    backward = torch.Tensor.backward
    profiler = cProfile.Profile()
    torch.Tensor.backward = CLOCK.wrap("backward", backward)  # type: ignore[method-assign]
    try:
        start = time.perf_counter()
        if profile:
            profiler.enable()
        selection = autoinit.select(model, batches, loss=_loss, optimizer=_sgd, budget=budget)
        profiler.disable()
        wall = time.perf_counter() - start
    finally:
        torch.Tensor.backward = backward  # type: ignore[method-assign]
    lines = [
        f"select with {budget:g} s on a model whose step takes {step:.1f} ms: "
        f"{wall:.1f} s, {selection.cost.steps:.0f} steps"
    ]
    for name, seconds in CLOCK.seconds.items():
        lines.append(f"  {name:15s} {seconds:6.2f} s  {seconds / wall:6.1%}  {CLOCK.calls[name]} calls")
    rest = wall - sum(CLOCK.seconds.values())
    lines.append(f"  {'everything else':15s} {rest:6.2f} s  {rest / wall:6.1%}  (at most 10 % is wanted)")
    print("\n".join(lines))
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
        pstats.Stats(profiler).sort_stats("cumulative").print_stats("autoinit", 30)
    return f"{rest / wall:.1%}"


def import_time(repeats: int = 5) -> str:
    """Returns the median seconds of `import autoinit`, and the heavy libraries it loaded."""
    script = (
        "import sys, time; start = time.perf_counter(); import autoinit; "
        f"print(time.perf_counter() - start, *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(repeats)
    ]
    seconds = statistics.median(float(output[0]) for output in outputs)
    loaded = ", ".join(outputs[0][1:]) or "none of them"
    print(f"import autoinit: {seconds:.3f} s (under 0.2 s is wanted); of {', '.join(HEAVY)} it loads {loaded}")
    return f"{seconds:.3f} s"


def trace_cost(repeats: int = 7) -> str:
    """Returns the cost of `trace` in training steps on a Transformer of ten million parameters."""
    import autoinit

    torch.manual_seed(0)
    model = models.CharTransformer(data.VOCABULARY, 32, layers=6, width=368, heads=8)
    count = sum(parameter.numel() for parameter in model.parameters())
    split = data.prose(32)
    batch = (split.train_x[:16], split.train_y[:16])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target)

    def one_step() -> None:
        optimizer.zero_grad()
        loss(model(batch[0]), batch[1]).backward()
        optimizer.step()

    def one_trace() -> None:
        autoinit.trace(model, [batch], loss=loss)

    steps: list[float] = []
    traces: list[float] = []
    for _ in range(repeats + 1):  # in turns, so that a busy machine slows both
        for times, action in ((steps, one_step), (traces, one_trace)):
            start = time.perf_counter()
            action()
            times.append(time.perf_counter() - start)
    step, traced = statistics.median(steps[1:]), statistics.median(traces[1:])
    print(
        f"trace on {count / 1e6:.1f} M parameters: {1e3 * traced:.0f} ms; one step {1e3 * step:.0f} ms; "
        f"ratio {traced / step:.2f} (at most 1.05 is wanted)"
    )
    return f"{traced / step:.2f}"


def main() -> None:
    """Prints what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("all", "select", "import", "trace"), default="all")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of the profiled select")
    parser.add_argument("--profile", action="store_true", help="print a cProfile of select (it slows select down)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.part in ("all", "import"):
        import_time()
    if arguments.part in ("all", "trace"):
        trace_cost()
    if arguments.part in ("all", "select"):
        select_overhead(arguments.budget, arguments.profile)


if __name__ == "__main__":
    main()
