"""Where the time of `select` goes: the share outside training, at two step times and with two optimizers."""

from __future__ import annotations

import cProfile
import functools
import pstats
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common import data, models
from ..common.clock import Clock, Place

REST = "everything else"
TRAINING = ("forward", "backward", "optimizer step")
CALIBRATE = "calibrating"
LOOP = "the probe's loop"


@dataclass(frozen=True)
class Setting:
    """A model and the share of `select` outside training that is wanted for it.

    Attributes:
        step_ms: the step time, in milliseconds, that the number of rows in a batch is chosen for.
        depth, width: of the tanh MLP.
        wanted: the largest share.
    """

    step_ms: float
    depth: int
    width: int
    wanted: float


SETTINGS = (Setting(5.0, 16, 128, 0.05), Setting(1.0, 4, 64, 0.15))
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9),
    "Adam": functools.partial(torch.optim.Adam, lr=1e-3),
}


class TimedModel(nn.Module):
    """A tanh MLP whose forward pass is on a clock."""

    def __init__(self, setting: Setting, clock: Clock) -> None:
        super().__init__()
        self.layers = models.plain_mlp(nn.Tanh, setting.depth, setting.width)
        object.__setattr__(self, "timed", clock.wrap("forward", self.layers, within=CALIBRATE))

    def forward(self, x: Tensor) -> Tensor:
        return self.timed(x)


def timed_optimizer(name: str, clock: Clock) -> Callable[[Any], torch.optim.Optimizer]:
    """Returns a factory of optimizers whose step is on a clock, with all that torch does around it."""

    def build(parameters: Any) -> torch.optim.Optimizer:
        optimizer = OPTIMIZERS[name](parameters)
        optimizer.step = clock.wrap("optimizer step", optimizer.step)  # type: ignore[method-assign]
        return optimizer

    return build


def batches_of(
    setting: Setting, optimizer: str, timer: Callable[[], float] = time.perf_counter
) -> tuple[float, list[tuple[Tensor, Tensor]]]:
    """Returns the step time nearest to the wanted one on this machine, in milliseconds, and batches that give it.

    Args:
        setting: the model, and the step time wanted.
        optimizer: key of `OPTIMIZERS`.
        timer: gives seconds.
    """
    split = data.mnist_rows()
    found = []
    for rows in (16, 32, 64, 96, 128, 192, 256):
        batches = list(zip(split.train_x.split(rows)[:-1], split.train_y.split(rows)[:-1], strict=True))
        model = models.plain_mlp(nn.Tanh, setting.depth, setting.width)
        # Orthogonal, since gradients that vanish into denormal numbers slow a step down.
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight)
        found.append((_step_ms(model, batches[0], OPTIMIZERS[optimizer](model.parameters()), timer), batches))
    return min(found, key=lambda pair: abs(pair[0] - setting.step_ms))


def _step_ms(
    model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer, timer: Callable[[], float]
) -> float:
    """Returns the median of 40 training steps, in milliseconds."""
    times = []
    for _ in range(42):
        start = timer()
        optimizer.zero_grad()
        F.cross_entropy(model(batch[0]), batch[1]).backward()
        optimizer.step()
        times.append(1e3 * (timer() - start))
    return statistics.median(times[2:])


def places() -> list[tuple[str, Place]]:
    """Returns the functions of autoinit and Optuna that the rest of the time is split by, each with its region."""
    import optuna

    from autoinit import selector
    from autoinit.calibrations.methods import CALIBRATIONS
    from autoinit.drawing import weights
    from autoinit.judging.halving import Halving
    from autoinit.probing import bench
    from autoinit.probing.paused import PausedTrainings
    from autoinit.probing.probe import Training
    from autoinit.probing.stepping import InParts
    from autoinit.search import campaign, duel, rounds
    from autoinit.task.snapshot import Snapshot
    from autoinit.task.task import Task

    found: list[tuple[str, Place]] = [
        ("making the task", (vars(selector), "make_task")),
        ("tracing", (vars(selector), "trace_task")),
        ("tracing", (vars(selector), "keep_choices")),
        ("making the space", (vars(selector), "space_of")),
        ("table of trials", (vars(selector), "trial_table")),
        ("making plans", (vars(bench), "resolve")),
        ("drawing weights", (bench.Bench, "place")),
        ("drawing weights", (bench.Bench, "draw")),
        ("drawing weights", (vars(selector), "apply_plan")),
        ("fingerprints", (vars(weights), "digest")),
        ("snapshot", (Snapshot, "__init__")),
        ("snapshot", (Snapshot, "restore")),
        ("rewinding", (Snapshot, "rewind")),
        ("building optimizers", (Task, "build_optimizer")),
        (LOOP, (Training, "go_on")),
        ("evaluation", (Task, "evaluate")),
        ("norms of gradients", (InParts, "norms")),
        ("trainings that wait", (PausedTrainings, "pause")),
        ("trainings that wait", (PausedTrainings, "take")),
        ("trainings that wait", (vars(rounds), "can_be_paused")),
        ("records", (campaign.Campaign, "run")),
        ("halving", (Halving, "judge")),
        ("gate and its statistics", (vars(duel), "judge")),
        ("Optuna: ask", (optuna.Study, "ask")),
        ("Optuna: tell", (optuna.Study, "tell")),
        ("Optuna: the rest", (optuna.Study, "enqueue_trial")),
        ("Optuna: the rest", (optuna.Trial, "set_user_attr")),
        ("Optuna: the rest", (vars(optuna), "create_study")),
        ("Optuna: the rest", (vars(optuna.samplers), "TPESampler")),
        ("backward", (torch.Tensor, "backward")),
        ("backward", (vars(torch.autograd), "grad")),
    ]
    return found + [(CALIBRATE, (CALIBRATIONS, name)) for name in CALIBRATIONS]


@dataclass(frozen=True)
class Run:
    """Where the time of one `select` went.

    Attributes:
        wall: all of it, in seconds.
        shares: of it by region.
        calls: by region.
        steps: training steps or their equivalents.
        trials: candidates tried.
    """

    wall: float
    shares: dict[str, float]
    calls: dict[str, int]
    steps: float
    trials: int

    @property
    def outside(self) -> float:
        """The share outside forward passes, backward passes and optimizer steps."""
        return 1 - sum(self.shares.get(name, 0.0) for name in TRAINING)


def split_calibrations(seconds: dict[str, float], calls: dict[str, int]) -> dict[str, float]:
    """Returns the seconds with the forward passes of calibrations split: a plain pass, and what watching it adds.

    Args:
        seconds: by region; the plain passes are counted as "forward", those of calibrations apart.
        calls: by region.
    """
    found = dict(seconds)
    watched = found.pop(f"forward in {CALIBRATE}", 0.0)
    plain = calls[f"forward in {CALIBRATE}"] * found["forward"] / calls["forward"] if watched else 0.0
    plain = min(plain, watched)
    found["forward"] += plain
    found[CALIBRATE] = found.get(CALIBRATE, 0.0) + watched - plain
    return found


def run_select(
    setting: Setting,
    optimizer: str,
    batches: list[tuple[Tensor, Tensor]],
    budget: Any,
    clock: Clock,
    seed: int,
    *,
    inferred: bool = False,
) -> Run:
    """Returns where the time of one `select` goes.

    Args:
        setting: the model.
        optimizer: key of `OPTIMIZERS`.
        batches: to train on.
        budget: of `select`.
        clock: counts.
        seed: of the model and of `select`.
        inferred: whether the loss is left to `select`, which then finds it out from each output.
    """
    import autoinit

    torch.manual_seed(seed)
    model = TimedModel(setting, clock)
    factory = timed_optimizer(optimizer, clock)
    loss = None if inferred else clock.wrap("forward", F.cross_entropy, within=CALIBRATE)
    torchs_own: list[tuple[str, Place]] = [("forward", (vars(F), "cross_entropy"))] if inferred else []
    with clock.watching([*places(), *torchs_own]):
        clock.start()
        selection = autoinit.select(
            model, batches, loss=loss, optimizer=factory, budget=budget, seed=seed, executor="sequential"
        )
        total = clock.stop()
    seconds = split_calibrations(clock.seconds, clock.calls)
    shares = {name: spent / total for name, spent in seconds.items()}
    return Run(total, shares, dict(clock.calls), selection.cost.steps, selection.cost.trials)


def plain_share(
    setting: Setting, optimizer: str, batches: list[tuple[Tensor, Tensor]], clock: Clock, steps: int = 400
) -> float:
    """Returns the share of a training loop, as anyone writes it, outside forward, backward and optimizer steps."""
    torch.manual_seed(0)
    model = TimedModel(setting, clock)
    fresh = timed_optimizer(optimizer, clock)(model.parameters())
    loss_of = clock.wrap("forward", F.cross_entropy)
    with clock.watching([("backward", (torch.Tensor, "backward"))]):
        clock.start()
        losses = []
        for step in range(steps):
            x, y = batches[step % len(batches)]
            fresh.zero_grad()
            loss = loss_of(model(x), y)
            loss.backward()
            fresh.step()
            losses.append(loss.item())
        total = clock.stop()
    return clock.seconds[REST] / total


def select_overhead(budget: Any, runs: int, *, cpu_time: bool, profile: bool, inferred: bool) -> None:
    """Prints where the time of `select` goes, for every setting and optimizer.

    Args:
        budget: of each `select`, seconds or an `autoinit.Budget`.
        runs: of it in each setting.
        cpu_time: whether to count what the process computes rather than seconds.
        profile: whether to print a profile of one more.
        inferred: whether the loss is left to `select`.
    """
    import autoinit

    timer = time.process_time if cpu_time else time.perf_counter
    clock = Clock(REST, timer)
    for setting in SETTINGS:
        for optimizer in OPTIMIZERS:
            step_ms, batches = batches_of(setting, optimizer, timer)
            run_select(setting, optimizer, batches, 2.0, clock, seed=0)  # imports are not its cost
            found = [
                run_select(setting, optimizer, batches, budget, clock, seed, inferred=inferred) for seed in range(runs)
            ]
            rows = len(batches[0][1])
            print(f"\n{setting.depth} x {setting.width}, {optimizer}, {rows} rows: a step takes {step_ms:.2f} ms")
            _print_table(found, setting, runs)
            plain = statistics.median(plain_share(setting, optimizer, batches, clock) for _ in range(runs))
            print(f"  a plain training loop (zero_grad, loss.item, freeing the graph) has {plain:.1%} outside them")
            if profile:
                model = models.plain_mlp(nn.Tanh, setting.depth, setting.width)
                with cProfile.Profile() as profiler:
                    autoinit.select(
                        model, batches, optimizer=OPTIMIZERS[optimizer], budget=budget, executor="sequential"
                    )
                pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
                pstats.Stats(profiler).sort_stats("cumulative").print_stats("autoinit|optuna", 50)


def _print_table(found: list[Run], setting: Setting, runs: int) -> None:
    def median(read: Callable[[Run], float]) -> float:
        return statistics.median(map(read, found))

    outside = ", ".join(f"{run.outside:.1%}" for run in found)
    print(
        f"  {median(lambda run: run.wall):.1f} s, {median(lambda run: run.steps):.0f} steps, "
        f"{median(lambda run: run.trials):.0f} trials; medians of {runs}"
    )
    names = {name for run in found for name in run.shares} - set(TRAINING)
    split = sorted(names, key=lambda name: -median(lambda run: run.shares.get(name, 0.0)))
    print(f"  outside training {median(lambda run: run.outside):.1%} ({outside}); wanted: {setting.wanted:.0%} at most")
    for name in (*TRAINING, *split):
        calls = median(lambda run: run.calls.get(name, 0))  # noqa: B023
        share = median(lambda run: run.shares.get(name, 0.0))  # noqa: B023
        print(f"    {name:26s} {share:7.2%}  {calls:8.0f} calls")
