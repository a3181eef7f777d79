"""What `apply_` costs beside the bare draws: time, and memory beyond the model's own.

    python -m benchmarks.speed.draw_speed                      # a hundred million parameters
    python -m benchmarks.speed.draw_speed --layers 2 --runs 3  # a quick look
    python -m benchmarks.speed.draw_speed --threads 2          # as torch's threads are set for training

The model is a stack of linear layers of 2048 units with ReLUs. Time: `apply_(model, recipe)`, reading of the
architecture included, and `tensor.normal_`, `tensor.uniform_` or `torch.nn.init.orthogonal_` on the same weights, in
turns. With one thread, medians of its CPU time, which other work on the machine lengthens least, and their ratio (at
most 1.1 is wanted); with several, of the time that passes (at most 0.6 is wanted of two: torch's own draws use one
thread, `apply_` draws pieces in as many as there are). Memory:
in a fresh process, the highest resident size during `apply_` minus the resident size before, in units of one weight
in float32, in which all draws are made (at most one is wanted).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import autoinit

WIDTH = 2048
MIB = 2**20
BARE: dict[str, Callable[[nn.Parameter], object]] = {
    "he_normal": lambda weight: weight.normal_(0.0, 0.02),
    "he_uniform": lambda weight: weight.uniform_(-0.02, 0.02),
    "orthogonal": lambda weight: nn.init.orthogonal_(weight),
}
MEASURED: dict[bool, Callable[[], float]] = {True: time.perf_counter, False: time.process_time}
"""The clock, by whether there are several threads."""


def stack(layers: int, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Returns the model, its memory written once, so that no page is touched for the first time on the clock."""
    return nn.Sequential(
        *[part for _ in range(layers) for part in (nn.Linear(WIDTH, WIDTH, dtype=dtype), nn.ReLU())][:-1]
    )


@torch.no_grad()
def bare(model: nn.Sequential, recipe: str) -> None:
    """Draws the same weights by the tensor's own method, and zeroes the biases."""
    for layer in model:
        if isinstance(layer, nn.Linear):
            BARE[recipe](layer.weight)
            layer.bias.zero_()


def seconds(action: Callable[[], object]) -> float:
    clock = MEASURED[torch.get_num_threads() > 1]
    start = clock()
    action()
    return clock() - start


def ratio(model: nn.Sequential, recipe: str, runs: int) -> str:
    """Returns the line of the table for one recipe."""
    count = sum(parameter.numel() for parameter in model.parameters())
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(runs + 1):
        ours.append(seconds(lambda: autoinit.apply_(model, recipe)))
        theirs.append(seconds(lambda: bare(model, recipe)))
    fast, plain = statistics.median(ours[1:]), statistics.median(theirs[1:])
    return f"| {recipe} | {count / 1e6:.1f} M | {fast:.3f} | {plain:.3f} | {fast / plain:.3f} |"


def _status(field: str) -> int:
    """Returns a field of the process's memory status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}; this measurement needs Linux.")


def peak(layers: int, recipe: str, dtype: str) -> None:
    """Prints the bytes that `apply_` needed beyond the model; for a fresh process."""
    model = stack(layers, torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    autoinit.apply_(nn.Linear(2, 2), recipe)  # imports and caches are not its cost
    Path("/proc/self/clear_refs").write_text("5")  # the highest size starts again from here
    before = _status("VmRSS")
    autoinit.apply_(model, recipe)
    print(_status("VmHWM") - before)


def peak_line(layers: int, recipe: str, dtype: str) -> str:
    """Returns the line of the table for one recipe and dtype, measured in a process of its own."""
    call = f"from benchmarks.speed.draw_speed import peak; peak({layers}, {recipe!r}, {dtype!r})"
    found = int(subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True).stdout)
    parameter = 4 * WIDTH * WIDTH
    return f"| {recipe} | {dtype} | {found / MIB:.1f} | {parameter / MIB:.1f} | {found / parameter:.2f} |"


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--recipes", nargs="+", choices=BARE, default=["he_normal", "he_uniform"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = stack(arguments.layers)
    print("| recipe | parameters | apply_ (s) | bare draws (s) | ratio |\n| --- | --- | --- | --- | --- |")
    for recipe in arguments.recipes:
        print(ratio(model, recipe, arguments.runs), flush=True)
    if arguments.threads > 1:
        return
    print("\n| recipe | dtype | peak beyond the model (MiB) | one weight (MiB) | weights |")
    print("| --- | --- | --- | --- | --- |")
    for recipe in ("he_normal", "he_uniform", "he_truncated", "butterfly_orthogonal"):
        for dtype in ("float32", "bfloat16"):
            print(peak_line(arguments.layers, recipe, dtype), flush=True)


if __name__ == "__main__":
    main()
