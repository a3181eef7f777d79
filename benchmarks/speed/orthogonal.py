"""How fast random orthogonal matrices are drawn, and how well.

    python -m benchmarks.speed.orthogonal                          # the table
    python -m benchmarks.speed.orthogonal --sizes 256 --runs 3     # a quick look

Per matrix size and number of threads, the time of one draw (the methods in turns; the median, and the fastest, which
other work on the machine disturbs least) and what it gives, for

- torch.nn.init.orthogonal_: QR of a Gaussian matrix, Haar;
- orthogonal: autoinit's product of random reflections, Haar (a model's matrices are drawn by one thread each);
- butterfly_orthogonal: autoinit's circuit of random gates on blocks of 32 coordinates;
- two Hadamard rounds, three butterflies of plane rotations: other fast constructions, written here for comparison.

kurtosis: of the entries; Haar has 3n/(n + 2). error: max|WᵀW − I| of a float32 matrix, measured in float64, in units of
float32's eps. random numbers: how many the draw takes; a Haar matrix has n(n − 1)/2 degrees of freedom.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoinit.initializers.draws import fill_
from autoinit.initializers.geometry import Geometry

EPS = torch.finfo(torch.float32).eps
Draw = Callable[[Tensor, torch.Generator], object]


def ours(name: str) -> Draw:
    return lambda tensor, generator: fill_(tensor, name, Geometry(), 1 / math.sqrt(len(tensor)), generator)


def hadamard_rounds(tensor: Tensor, generator: torch.Generator, rounds: int = 2) -> None:
    """Fills a square matrix whose side is a power of two: signs, permutation, Hadamard transform, and again."""
    size = len(tensor)
    here, there = torch.eye(size), torch.empty(size, size)
    for _ in range(rounds):
        signs = torch.empty(size, 1).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
        torch.index_select(here, 0, torch.randperm(size, generator=generator), out=there)
        there.mul_(signs.div_(math.sqrt(size)))
        here, there = there, here
        for level in range(size.bit_length() - 1):
            pairs, out = (x.view(-1, 2, 2**level, size) for x in (here, there))
            torch.add(pairs[:, 0], pairs[:, 1], out=out[:, 0])
            torch.sub(pairs[:, 0], pairs[:, 1], out=out[:, 1])
            here, there = there, here
    tensor.copy_(here)


def rotation_rounds(tensor: Tensor, generator: torch.Generator, rounds: int = 3) -> None:
    """Fills a square matrix whose side is a power of two: butterflies of random plane rotations."""
    size = len(tensor)
    here, there = torch.eye(size), torch.empty(size, size)
    for _ in range(rounds):
        torch.index_select(here, 0, torch.randperm(size, generator=generator), out=there)
        here, there = there, here
        for level in range(size.bit_length() - 1):
            pairs, out = (x.view(-1, 2, 2**level, size) for x in (here, there))
            angle = torch.empty(size // 2).uniform_(-math.pi, math.pi, generator=generator).view(-1, 2**level, 1)
            cosine, sine = angle.cos(), angle.sin()
            torch.mul(pairs[:, 0], cosine, out=out[:, 0]).addcmul_(pairs[:, 1], sine, value=-1)
            torch.mul(pairs[:, 0], sine, out=out[:, 1]).addcmul_(pairs[:, 1], cosine)
            here, there = there, here
    tensor.copy_(here)


PEER = "torch.nn.init.orthogonal_"
METHODS: dict[str, Draw] = {
    PEER: lambda tensor, generator: nn.init.orthogonal_(tensor, generator=generator),
    "orthogonal": ours("orthogonal"),
    "butterfly_orthogonal": ours("butterfly_orthogonal"),
    "two Hadamard rounds": hadamard_rounds,
    "three rotation butterflies": rotation_rounds,
}


def random_numbers(name: str, size: int) -> int:
    """Returns how many random numbers a method takes for a matrix of that size."""
    levels = size.bit_length() - 1
    layers = 2 * max(1, math.ceil(math.log(size, 32) - 1e-9))
    return {"two Hadamard rounds": 4 * size, "three rotation butterflies": 3 * size * levels // 2 + 3 * size}.get(
        name, layers * size * 32 if name == "butterfly_orthogonal" else size * size
    )


def kurtosis(tensor: Tensor) -> float:
    squares = tensor.double().square()
    return (squares.square().mean() / squares.mean().square()).item()


def error(tensor: Tensor) -> float:
    """Returns max|WᵀW − I| in units of eps."""
    w = tensor.double()
    gram = w.T @ w
    gram.diagonal().sub_(1.0)
    return gram.abs().max().item() / EPS


def row(size: int, threads: int, runs: int) -> list[str]:
    """Returns the lines of the table for one size and one number of threads; the methods take turns."""
    torch.set_num_threads(threads)
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    last: dict[str, Tensor] = {}
    for run in range(runs + 1):
        for name, draw in METHODS.items():
            tensor = torch.zeros(size, size)
            start = time.perf_counter()
            draw(tensor, torch.Generator().manual_seed(run))
            seconds[name].append(time.perf_counter() - start)
            last[name] = tensor
    median = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    fastest = {name: min(times[1:]) for name, times in seconds.items()}
    return [
        f"| {size}² | {threads} | {name} | {median[name]:.4f} | {fastest[name]:.4f} | "
        f"{median[PEER] / median[name]:.1f} | {fastest[PEER] / fastest[name]:.1f} | "
        f"{kurtosis(last[name]):.3f} | {error(last[name]):.2f} | {random_numbers(name, size):,} |"
        for name in METHODS
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 4096], help="powers of two")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    columns = "size, threads, method, median s, fastest s, times faster (median), (fastest), kurtosis, error / eps"
    print(f"| {columns.replace(', ', ' | ')} | random numbers |\n|{' --- |' * 10}")
    for size in arguments.sizes:
        for threads in arguments.threads:
            print("\n".join(row(size, threads, arguments.runs)), flush=True)


if __name__ == "__main__":
    main()
