"""Candidates a second: worker processes of one thread each against one process, side by side.

    python -m benchmarks.speed.workers                          # four models, as many workers as there are cores
    python -m benchmarks.speed.workers --tasks all --rounds 9
    python -m benchmarks.speed.workers --tasks lstm_rows --rounds 1 --batches 1 --most 2 --dry

The candidates are a search's: batches of eight, halved at rungs, each trial judged in the order of its number. Ways
take turns within a round, so that a busy machine slows all of them. Ways on one thread must give the same records bit
for bit, which is checked. Beside it the pace: training steps a second when every worker trains all the time, which is
what the machine could do if no worker ever waited for the end of a batch.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..common.jobs import RESULTS, provenance
from ..common.tasks import BenchTask, chosen

TASKS = "tabular_class,mlp_tanh,cnn_residual,encoder_pre_ln,lstm_rows"
ALLOWANCE = 2000
"""Steps of the budget whose rungs are used: full probes of 125 steps."""
PACE_STEPS = 40
WANTED = 1.6
"""Times the candidates of one worker that two are to try."""


@dataclass(frozen=True)
class Way:
    """How candidates are run.

    Attributes:
        name: in the table.
        workers: processes; 0: one after the other in this one.
        threads: of this process.
    """

    name: str
    workers: int
    threads: int


def ways(most: int, threads: int) -> list[Way]:
    """Returns the ways to compare: up to `most` workers, and this process with one and with all threads."""
    alone = [Way("in this process, 1 thread", 0, 1)]
    if threads > 1:
        alone.append(Way(f"in this process, {threads} threads", 0, threads))
    return [*alone, *(Way(f"{count} worker{'s' * (count > 1)}", count, 1) for count in range(1, most + 1))]


@dataclass
class Seen:
    """What one way did on one task.

    Attributes:
        rates: candidates a second, one of each round.
        paces: training steps a second of all workers together, one of each round.
        records: of the last round, without wall times.
    """

    rates: list[float] = field(default_factory=list)
    paces: list[float] = field(default_factory=list)
    records: list[Any] = field(default_factory=list)


def compare(task: BenchTask, compared: Sequence[Way], rounds: int, batches: int) -> dict[Way, Seen]:
    """Returns what each way did on a task, in turns; a first round that warms up is not counted."""
    from autoinit.probing.bench import Bench
    from autoinit.task.task import make_task
    from autoinit.tracing.tracing import trace_task

    todo = make_task(task.make_model(0), task.train_batches(0), loss=task.loss, optimizer=task.optimizer)
    graph = trace_task(todo)
    seen = {way: Seen() for way in compared}
    with todo.preserved() as snapshot:
        bench = Bench(todo, graph, snapshot, seed=0)
        for turn in range(rounds + 1):
            for way in compared:
                with _executor(bench, way) as executor:
                    pace = executor.pace(PACE_STEPS)
                    records, seconds = _funnel(bench, executor, batches)
                if turn:
                    seen[way].rates.append(len(records) / seconds)
                    seen[way].paces.append(pace)
                seen[way].records = records
    return seen


@contextlib.contextmanager
def _executor(bench: Any, way: Way) -> Iterator[Any]:
    from autoinit.executors.processes import Processes
    from autoinit.executors.sequential import Sequential

    before = torch.get_num_threads()
    torch.set_num_threads(way.threads)
    bench.memory.clear()  # before a fork copies what another way has drawn, with another number of threads
    executor = Processes(bench, way.workers) if way.workers else Sequential(bench)
    try:
        yield executor
    finally:
        executor.close()
        torch.set_num_threads(before)


def _funnel(bench: Any, executor: Any, batches: int) -> tuple[list[Any], float]:
    """Returns the records of some batches of a search's candidates, and the seconds they took.

    The owner's own trial comes before all others, alone, in a search as well as here; it is not timed.
    """
    from autoinit.judging.budget import Budget, Meter, Schedule
    from autoinit.judging.halving import Halving
    from autoinit.judging.trials import Candidate
    from autoinit.recipes.recipe import OWN
    from autoinit.recipes.space import random_recipes, space_of
    from autoinit.search.campaign import Campaign
    from autoinit.search.funnel import BATCH

    space = space_of(bench.graph, lr_searched=False)
    count = BATCH * batches
    recipes = [*space.opening, *random_recipes(space, count, seed=0)][:count]
    campaign = Campaign(bench, executor, Meter(budget=Budget(steps=10**9)), Schedule.of(ALLOWANCE))
    rungs = campaign.schedule.rungs
    halving = Halving(rungs)

    def decide(job: Any, curve: Any) -> str:
        return halving.judge(job.number, curve.steps, campaign.score(curve, rungs[-1]).total)

    def run(some: Sequence[Any]) -> None:
        entries = [(Candidate(recipe), "search") for recipe in some]
        jobs = campaign.jobs("search", entries, rungs[-1], rungs=rungs, reference=campaign.reference)
        halving.learn(campaign.run(jobs, decide))

    run([OWN])
    start = time.perf_counter()
    for first in range(0, count, BATCH):
        run(recipes[first : first + BATCH])
    seconds = time.perf_counter() - start
    return [_timeless(record) for record in campaign.trials[1:]], seconds


def _timeless(record: Any) -> Any:
    return dataclasses.replace(record, curve=record.curve and dataclasses.replace(record.curve, seconds=0.0))


def alike(seen: Mapping[Way, Seen]) -> bool:
    """Whether all ways on one thread gave the same records, bit for bit."""
    # The text, since NaN is not equal to itself.
    return len({repr(found.records) for way, found in seen.items() if way.threads == 1}) == 1


def ratio(mine: Sequence[float], others: Sequence[float]) -> float:
    """Returns the median over rounds of one way's rate over another's."""
    return statistics.median(mine_now / its for mine_now, its in zip(mine, others, strict=True))


def rows_of(task: str, seen: Mapping[Way, Seen]) -> list[list[str]]:
    """Returns a task's rows of the table."""
    one = next((found for way, found in seen.items() if way.workers == 1), None)
    rows = []
    for way, found in seen.items():
        rate, pace = statistics.median(found.rates), statistics.median(found.paces)
        over_one = ["", ""]
        if one is not None:
            over_one = [f"{ratio(found.rates, one.rates):.2f}", f"{ratio(found.paces, one.paces):.2f}"]
        rows.append([task, way.name, f"{rate:.2f}", over_one[0], f"{pace:.0f}", over_one[1]])
    return rows


HEADER = ["task", "candidates run", "candidates/s", "over one worker", "steps/s", "over one worker"]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows as a Markdown table."""
    lines = [HEADER, ["---"] * len(HEADER), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    """Returns the processor's name and the number of its cores that this process may use."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def report(seen: Mapping[str, Mapping[Way, Seen]], command: str) -> str:
    """Returns the whole result as Markdown."""
    row = provenance()
    doubled = {
        task: ratio(two.rates, one.rates)
        for task, found in seen.items()
        for one in (found[way] for way in found if way.workers == 1)
        for two in (found[way] for way in found if way.workers == 2)
    }
    lines = [f"# Worker processes\n\n    {command}\n", f"{row['date']}, {machine()}, torch {row['torch']}.\n"]
    lines.append(table([line for task, found in seen.items() for line in rows_of(task, found)]) + "\n")
    if doubled:
        lines.append(
            f"Two workers over one, candidates a second: median {statistics.median(doubled.values()):.2f}, least "
            f"{min(doubled.values()):.2f} ({min(doubled, key=lambda task: doubled[task])}); {WANTED} is wanted.\n"
        )
    different = [task for task, found in seen.items() if not alike(found)]
    same = "gave the same records bit for bit" if not different else f"DIFFERED on {', '.join(different)}"
    lines.append(f"All ways on one thread {same}.\n")
    return "\n".join(lines)


def main() -> None:
    """Prints the table and keeps it."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=TASKS, help="comma-separated, or all")
    parser.add_argument("--rounds", type=int, default=5, help="measured in turns, after one that warms up")
    parser.add_argument("--batches", type=int, default=3, help="of eight candidates, in each measurement")
    parser.add_argument("--most", type=int, default=cores, help="workers")
    parser.add_argument("--dry", action="store_true", help="print the table, but keep no file")
    arguments = parser.parse_args()
    seen = {}
    for task in chosen(arguments.tasks):
        seen[task.name] = compare(task, ways(arguments.most, cores), arguments.rounds, arguments.batches)
        print(table(rows_of(task.name, seen[task.name])), flush=True)
    defaults = {"tasks": TASKS, "rounds": 5, "batches": 3, "most": cores}
    options = [
        f"--{name} {vars(arguments)[name]}" for name, usual in defaults.items() if vars(arguments)[name] != usual
    ]
    text = report(seen, " ".join(["python -m benchmarks.speed.workers", *options]))
    print(f"\n{text}")
    if not arguments.dry:
        (RESULTS / "workers.md").write_text(text)


if __name__ == "__main__":
    main()
