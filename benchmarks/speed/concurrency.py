"""Several candidates at a time on one device, against one after the other, and what else could make steps faster.

    python -m benchmarks.speed.concurrency                          # all parts, on a GPU where there is one
    python -m benchmarks.speed.concurrency --part stack --sizes 8,32
    python -m benchmarks.speed.concurrency --smoke                  # a few steps of everything, to see that it runs

- stack: training steps a second of K stacked candidates together, against one by one; peak memory.
- whole: the time of K candidates with their draws, rungs and evaluations over the time of one.
- tasks: which of the benchmark tasks can be stacked, and why the others cannot.
- optimizers: a training step with the optimizer's loop, foreach and fused forms, alone and for a stack.
- compile: `torch.compile` of a training's loss, alone and in a stack: what it costs and what it gains.
- graphs: a CUDA graph of one training step and several streams, replayed; on CUDA only.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..common.jobs import RESULTS, provenance
from ..common.tasks import TASKS, BenchTask

MODELS = ("tabular_class", "mlp_relu", "mlp_residual_ln", "cnn_plain", "cnn_residual", "char_transformer", "gpt2_hf")
"""Tasks that the tables have a row for: small and deep MLPs, CNNs without and with BatchNorm, Transformers."""

SIZES = (2, 4, 8, 16, 32)
STEPS = 30
REPEATS = 3


class Subject:
    """One benchmark task on a device, ready for jobs."""

    def __init__(self, name: str, device: torch.device) -> None:
        from autoinit.task.task import make_task
        from autoinit.tracing.tracing import trace_task

        self.name = name
        self.bench_task: BenchTask = TASKS[name]
        self.model = self.bench_task.make_model(0).to(device)
        options: dict[str, Any] = {"loss": self.bench_task.loss, "optimizer": self.bench_task.optimizer}
        self.task = make_task(self.model, self.bench_task.train_batches(0)[:40], device=device, **options)
        self.graph = trace_task(self.task)
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())

    @contextlib.contextmanager
    def bench(self) -> Iterator[Any]:
        from autoinit.probing.bench import Bench

        with self.task.preserved() as snapshot:
            yield Bench(self.task, self.graph, snapshot, 0)


def waited(device: torch.device) -> float:
    """Returns the time once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(action: Callable[[], object], device: torch.device) -> float:
    """Returns the seconds of an action."""
    start = waited(device)
    action()
    return waited(device) - start


def peak(action: Callable[[], object], device: torch.device) -> float:
    """Returns the most MiB that torch held on the device during an action; NaN on the CPU, where none is counted."""
    if device.type != "cuda":
        action()
        return float("nan")
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    action()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 2**20


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table, numbers to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def median_pace(executor: Any, steps: int, repeats: int) -> float:
    """Returns the median of several measurements of an executor's pace."""
    return statistics.median(executor.pace(steps) for _ in range(repeats))


def stack(subject: Subject, device: torch.device, sizes: Sequence[int], steps: int, repeats: int) -> list[str]:
    """Returns one row: the pace one by one, then the gain of each stack, and the largest stack's memory."""
    from autoinit.executors.sequential import Sequential
    from autoinit.executors.stacked import Stacked, why_not

    with subject.bench() as bench:
        alone = Sequential(bench)
        base = median_pace(alone, steps, repeats)
        head = [subject.name, f"{subject.parameters / 1e3:.0f} k", f"{1e3 / base:.2f}"]
        if reason := why_not(bench):
            return [*head, *["–"] * len(sizes), reason]
        cells, memory = [], float("nan")
        for size in sizes:
            stacked = Stacked(bench, size)
            paces: list[float] = []
            memory = peak(lambda s=stacked, p=paces: p.append(median_pace(s, steps, repeats)), device)  # type: ignore[misc]
            lowered = "" if stacked.concurrency == size else f" (at {stacked.concurrency})"
            cells.append(f"{paces[0] / base:.2f}×{lowered}")
            stacked.close()
        one = peak(lambda: alone.pace(steps), device)
        return [*head, *cells, "–" if memory != memory else f"{one:.0f} → {memory:.0f} MiB"]


def whole(subject: Subject, device: torch.device, size: int, steps: int) -> list[str]:
    """Returns one row: seconds of one candidate, and of many one by one and stacked, with draws and evaluations."""
    from autoinit.executors.sequential import Sequential
    from autoinit.executors.stacked import Stacked, why_not
    from autoinit.judging.trials import Candidate, Job
    from autoinit.recipes.recipe import Recipe

    with subject.bench() as bench:
        if why_not(bench):
            return [subject.name, *["–"] * 5]
        rungs = (max(1, steps // 4), max(1, steps // 2))
        gains = [-1.0 + 2.0 * place / size for place in range(size)]
        jobs = [
            Job(place, "search", Candidate(Recipe(log2_gain=gain)), 1, steps, rungs) for place, gain in enumerate(gains)
        ]
        stacked, alone = Stacked(bench, size), Sequential(bench)
        stacked.pace(1)  # what is loaded or chosen on first use
        one = timed(lambda: list(alone.run(jobs[:1], lambda job, curve: True)), device)
        seconds = timed(lambda: list(stacked.run(jobs, lambda job, curve: True)), device)
        some = jobs[: min(8, size)]
        by_one = timed(lambda: list(alone.run(some, lambda job, curve: True)), device) * size / len(some)
        note = "; ".join(stacked.notes) or f"{size} at a time"
        times = [f"{one:.2f} s", f"{by_one:.2f} s", f"{seconds:.2f} s", f"{seconds / one:.1f}×"]
        return [f"{subject.name}, {subject.parameters / 1e3:.0f} k", *times, note]


def stackable(name: str, device: torch.device) -> list[str]:
    """Returns one row: whether a task's model can be stacked, or why not."""
    from autoinit.executors.stacked import why_not

    subject = Subject(name, device)
    with subject.bench() as bench:
        return [name, subject.bench_task.family, why_not(bench) or "yes"]


def optimizer_kind(kind: type[torch.optim.Optimizer], form: str) -> Callable[[Any], torch.optim.Optimizer]:
    """Returns a factory of an optimizer in one of torch's forms of the same arithmetic."""
    options: dict[str, Any] = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}[form]
    return functools.partial(kind, lr=1e-3, **options)


def optimizers(subject: Subject, device: torch.device, size: int, steps: int, repeats: int) -> list[list[str]]:
    """Returns a row for each optimizer: milliseconds of a training step in each form, alone / for a stack of `size`."""
    from autoinit.executors.sequential import Sequential
    from autoinit.executors.stacked import Stacked
    from autoinit.task.optimizers import OptimizerBuilder

    rows = []
    own = subject.task._builder
    for kind in (torch.optim.SGD, torch.optim.AdamW):
        cells = []
        for form in ("loop", "foreach", "fused"):
            subject.task._builder = OptimizerBuilder(subject.model, optimizer_kind(kind, form))
            with subject.bench() as bench:
                alone = 1e3 / median_pace(Sequential(bench), steps, repeats)
                pace = median_pace(Stacked(bench, size), steps, repeats)
                cells.append(f"{alone:.2f} / {1e3 * size / pace:.2f}" if pace else f"{alone:.2f} / –")
        rows.append([f"{subject.name}, {kind.__name__}", *cells])
    subject.task._builder = own
    return rows


def stepped(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> Callable[[], object]:
    """Returns one training step of given parameters by plain SGD, as a function."""
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def step_ms(step: Callable[[], object], device: torch.device, steps: int, repeats: int) -> float:
    """Returns the median milliseconds of a step, over blocks of steps."""

    def block() -> None:
        for _ in range(steps):
            step()

    block()
    return 1e3 * statistics.median(timed(block, device) / steps for _ in range(repeats))


def alone_loss(subject: Subject, model: nn.Module) -> Callable[[], Tensor]:
    """Returns the loss of the first batch under a model."""
    batch = subject.task.train[0]
    return lambda: subject.bench_task.loss_of(model, batch)


def stacked_loss(subject: Subject, size: int) -> tuple[Callable[[], Tensor], list[Tensor]]:
    """Returns the summed loss of `size` copies of the model, and their stacked weights."""
    from torch.func import functional_call
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model, batch = subject.model, subject.task.train[0]
    leaves = {n: torch.stack([p.detach()] * size).requires_grad_() for n, p in model.named_parameters()}
    buffers = {n: torch.stack([b] * size) for n, b in model.named_buffers()}

    def one(values: dict[str, Tensor]) -> Tensor:
        call = functools.partial(functional_call, model, values)
        if subject.bench_task.loss is None:
            return call((), batch).loss
        x, y = batch
        return subject.bench_task.loss(call((x,)), y)

    def loss() -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return torch.vmap(one, randomness="same")({**leaves, **buffers}).sum()

    return loss, list(leaves.values())


def compiled(subject: Subject, device: torch.device, size: int, steps: int, repeats: int) -> list[list[str]]:
    """Returns rows: a step as it is and compiled, seconds of compiling, and the steps after which that is regained."""
    rows = []
    with subject.task.preserved():
        subject.model.train()
        stack_of, leaves = stacked_loss(subject, size)
        cases = [
            ("alone", alone_loss(subject, subject.model), list(subject.model.parameters())),
            (f"stack of {size}", stack_of, leaves),
        ]
        for name, loss, parameters in cases:
            torch._dynamo.reset()
            plain = step_ms(stepped(loss, parameters), device, steps, repeats)
            step = stepped(torch.compile(loss), parameters)
            try:
                # The second call compiles again where the first has changed what was assumed.
                seconds = timed(step, device) + timed(step, device)
                fast = step_ms(step, device, steps, repeats)
            except Exception as problem:
                failure = f"{type(problem).__name__}: {str(problem).strip().splitlines()[0][:80]}"
                rows.append([f"{subject.name}, {name}", f"{plain:.2f}", "–", "–", failure])
                continue
            regained = f"{1e3 * seconds / (plain - fast):.0f}" if fast < plain else "never"
            rows.append([f"{subject.name}, {name}", f"{plain:.2f}", f"{fast:.2f}", f"{seconds:.1f}", regained])
    return rows


def graph_of(step: Callable[[], object]) -> Any:
    """Returns a CUDA graph of a step, after steps on a side stream that bring everything into being."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def graphs(subject: Subject, device: torch.device, size: int, steps: int, repeats: int) -> list[str]:
    """Returns one row: milliseconds a step alone and stacked, each as it is and replayed, and over streams."""
    cells = []
    with subject.task.preserved():
        subject.model.train()
        stack_of, leaves = stacked_loss(subject, size)
        cases = [(alone_loss(subject, subject.model), list(subject.model.parameters())), (stack_of, leaves)]
        for loss, parameters in cases:
            step = stepped(loss, parameters)
            plain = step_ms(step, device, steps, repeats)
            try:
                replayed = f"{step_ms(graph_of(step).replay, device, steps, repeats):.2f}"
            except Exception as problem:
                replayed = f"– ({type(problem).__name__})"
            cells += [f"{plain:.2f}", replayed]
        cells.append(over_streams(subject, device, size, steps, repeats))
    return [subject.name, *cells]


def over_streams(subject: Subject, device: torch.device, size: int, steps: int, repeats: int) -> str:
    """Returns milliseconds in which `size` graphs of one model each are replayed, every one on its own stream."""
    try:
        models = [subject.bench_task.make_model(seed).to(device) for seed in range(size)]
        replays = [graph_of(stepped(alone_loss(subject, model), list(model.parameters()))) for model in models]
    except Exception as problem:
        return f"– ({type(problem).__name__})"
    streams = [torch.cuda.Stream() for _ in models]

    def round_() -> None:
        for stream, graph in zip(streams, replays, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()

    return f"{step_ms(round_, device, steps, repeats):.2f}"


def machine(device: torch.device) -> str:
    """Returns what the numbers were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}), {torch.get_num_threads()} thread(s)"


UNMEASURED = """Not measured, as there is no CUDA device here, and known from no run at all:

- the gain of stacking on a GPU, for which it is meant, and 32 candidates of a small model against the time of one;
- a CUDA graph of one step, or of a whole stack's, replayed; several streams; fused optimizers on a GPU;
- peak memory, and how far running out of it is survived: on the CPU it is injected by tests;
- dropout inside fused attention, whose kernels may draw other masks than attention by its formula: where they do,
  the comparison before a search finds it, and the model runs one by one."""


def report(arguments: argparse.Namespace) -> str:
    """Returns the tables of the parts that are asked for."""
    device = torch.device(arguments.device)
    sizes = [int(size) for size in arguments.sizes.split(",")]
    names = arguments.models.split(",")
    steps, repeats, largest = arguments.steps, arguments.repeats, max(sizes)
    if arguments.smoke:
        sizes, names, steps, repeats, largest = [2, 4], names[:1], 3, 1, 4
    made = provenance()
    parts = [f"Measured on {machine(device)}, {made['date']}, torch {made['torch']}, commit {made['commit']}."]

    def wanted(part: str) -> bool:
        return arguments.part in ("all", part)

    def say(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        parts.append(f"## {title}\n\n{table(header, rows)}")
        print(f"\n{parts[-1]}", flush=True)

    print(parts[0])
    subjects = [Subject(name, device) for name in names]
    if wanted("stack"):
        header = ["model", "weights", "one step alone, ms", *(f"K = {size}" for size in sizes), "peak memory"]
        rows = [stack(subject, device, sizes, steps, repeats) for subject in subjects]
        say("Training steps a second of K stacked candidates together, over one by one", header, rows)
    if wanted("whole"):
        header = ["model", "one", f"{largest} one by one", f"{largest} stacked", "stacked over one", "note"]
        rows = [whole(subject, device, largest, 4 * steps) for subject in subjects]
        say(f"{largest} candidates of {4 * steps} steps, with draws, rungs and evaluations", header, rows)
    if wanted("tasks"):
        rows = [stackable(name, device) for name in (names if arguments.smoke else TASKS)]
        say("Which tasks can be stacked", ["task", "family", "stacks"], rows)
    if wanted("optimizers"):
        rows = [row for subject in subjects for row in optimizers(subject, device, largest, steps, repeats)]
        header = ["model and optimizer", "loop", "foreach", "fused"]
        say(f"Milliseconds of a step alone / of {largest} stacked, by the optimizer's form", header, rows)
    if wanted("compile"):
        header = ["model", "a step, ms", "compiled, ms", "compiling, s", "regained after steps"]
        chosen = subjects[:1] if arguments.smoke else [s for s in subjects if s.name in arguments.compiled.split(",")]
        rows = [row for subject in chosen for row in compiled(subject, device, min(8, largest), steps, repeats)]
        say("torch.compile", header, rows)
    if wanted("graphs") and device.type == "cuda":
        header = ["model", "alone", "replayed", f"{largest} stacked", "replayed", f"{largest} graphs on streams"]
        rows = [graphs(subject, device, largest, steps, repeats) for subject in subjects]
        say("Milliseconds of a step, as it is and as a CUDA graph", header, rows)
    elif wanted("graphs"):
        parts.append(f"## Unmeasured\n\n{UNMEASURED}")
        print(f"\n{parts[-1]}")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Prints the tables and writes them to `results/concurrency.md` where all parts were run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("all", "stack", "whole", "tasks", "optimizers", "compile", "graphs")
    parser.add_argument("--part", choices=parts, default="all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="candidates at a time")
    parser.add_argument("--models", default=",".join(MODELS), help="tasks of benchmarks/tasks.py")
    parser.add_argument("--compiled", default="mlp_relu,cnn_plain,char_transformer", help="models to compile")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything; nothing is written")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    text = report(arguments)
    if arguments.part == "all" and not arguments.smoke:
        kind = torch.device(arguments.device).type
        path = RESULTS / ("concurrency.md" if kind == "cpu" else f"concurrency_{kind}.md")
        path.write_text(f"# Several candidates at a time\n\n{text}")
        print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
