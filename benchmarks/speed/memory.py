"""How much memory of the training device `select` takes beside a plain training of the same model.

    python -m benchmarks.speed.memory             # the device that is there: CUDA's own counter, or counted on the CPU
    python -m benchmarks.speed.memory --device cpu --steps 500

Plain training is the loop that everybody writes: three steps with the same model, batches and optimizer. Its highest
point is model + optimizer state + gradients + activations; batches are not counted, as both have them. `select` runs
one candidate at a time over its whole way: reading the architecture, calibrations, search, finals, gate.

On CUDA both numbers are `torch.cuda.max_memory_allocated`. On the CPU the training device is the host itself, so a
dispatch mode follows every storage from the operation that makes it to its end, and tells copies that would lie in
host memory from those that would not: `tensor.to("cpu", copy=True)`, by which the snapshot is taken, and what is
fingerprinted on the CPU whatever the device. Draws are counted: they are made where the parameters lie. Memory inside
of a kernel is not seen there. Trainings that wait for a next round of a search are kept for a model on a CPU
(`autoinit.probing.paused`): not here, where that stands for a device; and a search's draws are remembered within a
device's bound.
"""

from __future__ import annotations

import argparse
import contextlib
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adagrad, AdamW
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

import autoinit
from autoinit.drawing import memory as memory_module
from autoinit.drawing import weights as weights_module
from autoinit.search import rounds as rounds_module
from autoinit.task import task as task_module

from ..common.peaks import peak_beyond

TARGET = 1.10
ADAMW = partial(AdamW, lr=1e-3)
PLAIN_STEPS = 3
MIB = 2**20


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that are alive on the training device.

    Attributes:
        live: bytes now.
        peak: the most since the last `reset`.
    """

    def __init__(self, *held: nn.Module, apart: Any = ()) -> None:
        """Begins with the parameters and buffers of some models.

        Args:
            held: the models.
            apart: tensors in any containers that are never counted: the data.
        """
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}
        self._host_work = 0
        for leaf in tree_leaves(apart):
            self._see(leaf, counted=False)
        for model in held:
            for tensor in (*model.parameters(), *model.buffers()):
                self._see(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        device = kwargs.get("device")
        to_host = func is torch.ops.aten._to_copy.default and device is not None and torch.device(device).type == "cpu"
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf, counted=not (to_host or self._host_work))
        return result

    def reset(self) -> None:
        """Begins a new peak at what is alive now."""
        self.peak = self.live

    @contextlib.contextmanager
    def on_the_host(self) -> Iterator[None]:
        """Counts nothing that is made inside: it is made on the host whatever the training device is."""
        self._host_work += 1
        try:
            yield
        finally:
            self._host_work -= 1

    def _see(self, tensor: Tensor, counted: bool = True) -> None:
        if tensor.layout is not torch.strided or tensor.is_meta:
            return
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known and self._known[key]() is storage:
            return
        size = storage.nbytes() if counted else 0
        self._known[key] = weakref.ref(storage, partial(self._gone, key, size))
        self.live += size
        self.peak = max(self.peak, self.live)

    def _gone(self, key: int, size: int, dead: weakref.ref[Any]) -> None:
        self.live -= size
        if self._known.get(key) is dead:
            del self._known[key]


@contextlib.contextmanager
def counted(model: nn.Module, data: Any) -> Iterator[LiveBytes]:
    """Yields a counter of the device's live bytes, with what the model holds already in it and data left out."""
    counter = LiveBytes(model, apart=data)

    def off_the_books(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with counter.on_the_host():
                return function(*args, **kwargs)

        return call

    nothing_paused = mock.patch.object(rounds_module, "can_be_paused", return_value=False)
    groups = off_the_books(task_module.held_back_groups)  # of rows: they are batches, which are not counted
    grouped = mock.patch.object(task_module, "held_back_groups", groups)
    printed = mock.patch.object(weights_module, "digest", off_the_books(weights_module.digest))
    little_room = mock.patch.object(memory_module, "lies_on_cpu", return_value=False)
    with printed, nothing_paused, grouped, little_room, counter:
        yield counter


def net(width: int = 512, layers: int = 6) -> nn.Module:
    """Returns a deep plain net, of which weights and not activations fill the memory."""
    inner = [part for _ in range(layers) for part in (nn.Linear(width, width), nn.Tanh())]
    return nn.Sequential(nn.Linear(64, width), nn.Tanh(), *inner, nn.Linear(width, 10))


def convolutions(width: int = 48) -> nn.Module:
    """Returns a small CNN, of which activations fill the memory."""
    parts: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, width, 3, padding=1), nn.ReLU()]
    for _ in range(4):
        parts += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


class Block(nn.Module):
    """A pre-LN Transformer block; checkpointed, its inside is computed once more on the way back."""

    def __init__(self, width: int, checkpointed: bool) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.checkpointed = checkpointed

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inside, x, use_reentrant=False) if self.checkpointed else self.inside(x)

    def inside(self, x: Tensor) -> Tensor:
        batch, steps, width = x.shape
        heads = self.qkv(self.first(x)).view(batch, steps, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, steps, width))
        return x + self.down(F.gelu(self.up(self.second(x))))


class Transformer(nn.Module):
    """Reads the pixels of a digit as 64 tokens of 17 kinds."""

    def __init__(self, width: int = 128, layers: int = 4, checkpointed: bool = False) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(17, width), nn.Embedding(64, width)
        self.blocks = nn.Sequential(*(Block(width, checkpointed) for _ in range(layers)))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.tokens((pixels * 16).long()) + self.places(torch.arange(64, device=pixels.device))
        return self.head(self.last(self.blocks(x)).mean(1))


def accumulated(model: nn.Module, batch: tuple[Tensor, Tensor], parts: int = 4) -> Tensor:
    """Splits a batch into micro-batches, and calls backward for each."""
    total = torch.zeros((), device=batch[1].device)
    for x, y in zip(batch[0].chunk(parts), batch[1].chunk(parts), strict=True):
        loss = F.cross_entropy(model(x), y) / parts
        loss.backward()
        total += loss.detach()
    return total


@dataclass(frozen=True)
class Case:
    """A training whose memory is measured.

    Attributes:
        build: makes the model.
        optimizer: makes the optimizer of some parameters.
        rows: of a batch.
        options: further arguments of `select`.
    """

    build: Callable[[], nn.Module]
    optimizer: Callable[[Any], torch.optim.Optimizer] = ADAMW
    rows: int = 64
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "MLP, SGD without momentum": Case(net, partial(SGD, lr=0.05)),
    "MLP, AdamW": Case(net),
    "MLP, Adagrad": Case(net, partial(Adagrad, lr=0.01)),
    "CNN, SGD with momentum": Case(convolutions, partial(SGD, lr=0.05, momentum=0.9)),
    "Transformer, AdamW": Case(Transformer),
    "Transformer, AdamW, checkpointed": Case(partial(Transformer, checkpointed=True)),
    "Transformer, AdamW, 4 micro-batches": Case(Transformer, options={"step": accumulated}),
    "Transformer, AdamW, bfloat16": Case(Transformer, options={"autocast": torch.bfloat16}),
}


def batches(rows: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Returns scikit-learn's 1,797 digits."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    pixels, labels = torch.tensor(x / 16, dtype=torch.float32, device=device), torch.tensor(y, device=device)
    return [pair for pair in zip(pixels.split(rows), labels.split(rows), strict=True) if len(pair[1]) == rows]


def model_of(case: Case, device: torch.device) -> nn.Module:
    """Returns the model of a case, the same at every call."""
    torch.manual_seed(0)
    return case.build().to(device)


def train(case: Case, model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> None:
    """Trains for a few steps, as everybody does."""
    optimizer = case.optimizer(model.parameters())
    step, autocast = case.options.get("step"), case.options.get("autocast")
    device = data[0][1].device
    for x, y in data[:PLAIN_STEPS]:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
            loss = step(model, (x, y)) if step else F.cross_entropy(model(x), y)
        if not step:
            loss.backward()
        optimizer.step()


def chosen(case: Case, model: nn.Module, data: list[tuple[Tensor, Tensor]], **more: Any) -> autoinit.Selection:
    """Returns what `select` chooses, one candidate at a time."""
    options = {"executor": "sequential", **case.options, **more}
    return autoinit.select(model, data, optimizer=case.optimizer, **options)


def peak(model: nn.Module, data: Any, device: torch.device, work: Callable[[], object]) -> int:
    """Returns the most bytes of the device that were alive during some work."""
    if device.type == "cuda":
        beyond = peak_beyond(device, work)
        return beyond + sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    with counted(model, data) as counter:
        work()
    return counter.peak


@dataclass(frozen=True)
class Peaks:
    """Most bytes alive: of the model at rest, of plain training, of `select`."""

    model: int
    plain: int
    select: int

    @property
    def ratio(self) -> float:
        """Of `select` to plain training."""
        return self.select / self.plain


def measured(case: Case, device: torch.device, **more: Any) -> Peaks:
    """Returns the peaks of one case."""
    data = batches(case.rows, device)
    model = model_of(case, device)
    plain = peak(model, data, device, lambda: train(case, model, data))
    del model
    model = model_of(case, device)
    size = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    return Peaks(size, plain, peak(model, data, device, lambda: chosen(case, model, data, **more)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=1000, help="budget of select")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    args = parser.parse_args()
    device = torch.device(args.device)
    how = "torch.cuda.max_memory_allocated" if device.type == "cuda" else "storages followed from birth to death"
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}, {place}: {how}; select of {args.steps} steps\n")
    print("| training | model | plain training | select | ratio |\n|---|---|---|---|---|")
    worst = 0.0
    for name in args.cases:
        found = measured(CASES[name], device, budget=autoinit.Budget(steps=args.steps))
        worst = max(worst, found.ratio)
        sizes = " | ".join(f"{size / MIB:.2f} MiB" for size in (found.model, found.plain, found.select))
        print(f"| {name} | {sizes} | {found.ratio:.3f} |", flush=True)
    print(f"\nThe worst ratio is {worst:.3f}; at most {TARGET:.2f} is wanted.")


if __name__ == "__main__":
    main()
