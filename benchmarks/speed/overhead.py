"""What autoinit costs beside the training steps it takes.

    python -m benchmarks.speed.overhead                 # all parts
    python -m benchmarks.speed.overhead --part select --profile

- select: the share of the wall time of `select` outside forward passes, backward passes and optimizer steps, at two
  step times and with two optimizers, and where that share goes.
- screen: candidates a second that can be drawn, sent through one forward and backward pass, and vetoed.
- import: seconds of `import autoinit` in a fresh interpreter, and which heavy libraries it loads.
- trace: `autoinit.trace` against one training step, on a model of ten million parameters.

On a busy machine `--cpu-time` tells more: it counts what this process computes, not what it waits for. With `--steps`
two versions of the library can be compared: the same seeds give the same trials, however slow the machine is meanwhile.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common import data, models
from .select_time import OPTIMIZERS, SETTINGS, batches_of, select_overhead

HEAVY = ("torch", "sklearn", "pandas", "optuna", "numpy")


def screening_rate(count: int = 64) -> None:
    """Prints how many candidates a second are drawn, sent through one forward and backward pass, and vetoed."""
    from autoinit.judging.score import Reference
    from autoinit.judging.trials import Candidate, Job
    from autoinit.probing.bench import Bench
    from autoinit.recipes.space import random_recipes, space_of
    from autoinit.task.task import make_task
    from autoinit.tracing.choices import keep_choices
    from autoinit.tracing.tracing import trace_task

    for setting in SETTINGS:
        step_ms, batches = batches_of(setting, "SGD")
        torch.manual_seed(0)
        model = models.plain_mlp(nn.Tanh, setting.depth, setting.width)
        task = make_task(model, batches, optimizer=OPTIMIZERS["SGD"])
        graph = keep_choices(task.model, trace_task(task))
        times: dict[str, list[float]] = {}
        hopeless = Reference(1e-9)  # every loss is too high for it
        with task.preserved() as snapshot:
            bench = Bench(task, graph, snapshot, seed=0)
            for number, recipe in enumerate(random_recipes(space_of(graph, lr_searched=False), count, seed=0)):
                job = Job(number, "search", Candidate(recipe), seed=0, steps=1, reference=hopeless)
                start = time.perf_counter()
                outcome = bench.perform(job, lambda curve: True)
                kind = "calibrated" if recipe.calibration != "none" else "drawn only"
                times.setdefault(kind, []).append(time.perf_counter() - start)
                if outcome.curve is None or not outcome.reason:
                    raise RuntimeError(f"candidate {recipe} was not vetoed: {outcome}")
        each = [seconds for kind in times.values() for seconds in kind]
        print(
            f"screening, {setting.depth} x {setting.width}, {step_ms:.2f} ms a step: {count / sum(each):.0f} a second"
        )
        for kind, seconds in sorted(times.items()):
            print(f"  {kind:12s} {1e3 * statistics.median(seconds):6.1f} ms each (median of {len(seconds)})")


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
    parser.add_argument("--part", choices=("all", "select", "screen", "import", "trace"), default="all")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of each select")
    parser.add_argument("--steps", type=int, help="of each select, in the place of seconds: the same work at any pace")
    parser.add_argument("--runs", type=int, default=3, help="of select in each setting")
    parser.add_argument("--inferred-loss", action="store_true", help="leave the loss to select, as most people do")
    parser.add_argument("--cpu-time", action="store_true", help="count what this process computes")
    parser.add_argument("--profile", action="store_true", help="print a cProfile of a select of its own")
    arguments = parser.parse_args()
    import autoinit

    torch.set_num_threads(1)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load}; torch {torch.__version__}"
    )
    if arguments.part in ("all", "import"):
        import_time()
    if arguments.part in ("all", "trace"):
        trace_cost()
    if arguments.part in ("all", "screen"):
        screening_rate()
    if arguments.part in ("all", "select"):
        budget = arguments.budget if arguments.steps is None else autoinit.Budget(steps=arguments.steps)
        select_overhead(
            budget,
            arguments.runs,
            cpu_time=arguments.cpu_time,
            profile=arguments.profile,
            inferred=arguments.inferred_loss,
        )


if __name__ == "__main__":
    main()
