"""What a study costs beside the trials it runs: coordinator, storage and workers together.

    python -m benchmarks.speed.study_overhead                      # 1,000 trials of a probe of a step or two
    python -m benchmarks.speed.study_overhead --trials 10000       # how it grows, and `status` of so many
    python -m benchmarks.speed.study_overhead --part workers       # two workers beside one, on probes of 0.2 s
    python -m benchmarks.speed.study_overhead --part report        # the page about 100 tasks x 40 candidates x 2 seeds

The overhead of a trial is the wall time of all of them through their number, from the moment that the task is built,
less a worker's share of the seconds of the probes themselves; twice that is what each of the two workers waits. All
trials are planned, that is created in the storage, before the first is run: that share of each is told by itself, and
is part of the whole. Optuna's own share is what its storage takes
for the same trials, created, begun, given their record and ended, in a loop that does nothing else.

`status` and `report` are timed as a person calls them: the whole command, from the start of Python to its end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState, create_trial
from torch import Tensor

from autoinit.knowledge.lines import Line
from autoinit.search.sampling import Storage
from autoinit.study.coordinator import StudyProgress
from autoinit.study.runner import run_study
from autoinit.study.spec import Study
from autoinit.study.storage import open_store

WANTED = 0.030
"""Seconds of overhead a trial."""
STATUS, REPORT, PAGE = 2.0, 30.0, 15.0
"""Seconds of the two commands, and megabytes of the page, at most."""
TASKS, CANDIDATES, STEPS = 100, 40, 200
"""Of the study that is reported on."""
MARKS = (100, 300, 1000, 3000, 10000)


def rows() -> tuple[Tensor, Tensor]:
    """Returns the 442 patients of scikit-learn's diabetes data, standardized."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    target = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)
    return torch.tensor(x, dtype=torch.float32) * 20, target[:, None]


def task(name: str, model: dict[str, Any]) -> dict[str, Any]:
    """Returns a task of a study: a model on the diabetes data."""
    return {
        "name": name,
        **model,
        "data": "benchmarks.speed.study_overhead:rows",
        "batch_size": 64,
        "loss": "mse",
        "optimizer": "torch.optim:SGD",
        "optimizer_args": {"lr": 0.01},
    }


def study(name: str, trials: int, steps: int, model: dict[str, Any], workers: int) -> Study:
    """Returns a dense study of one task with so many random candidates, the owner's weights among them."""
    space = {"random": trials - 1, "calibrations": ["none"]}
    tasks = [task("diabetes", model)]
    return Study.model_validate(
        {"name": name, "tasks": tasks, "space": space, "probe": {"steps": steps, "rungs": []}, "workers": workers}
    )


def many() -> Study:
    """Returns a dense study of networks of ten widths with ten learning rates each, as families of its report."""
    tasks = []
    for place in range(TASKS):
        width = 4 + 2 * (place // 10)
        model = {**WIDE, "family": f"width-{width}", "model_args": {**WIDE["model_args"], "width": width, "hidden": 2}}
        found = task(f"width-{width}.diabetes.{place % 10}", model)
        tasks.append({**found, "optimizer_args": {"lr": 0.002 * (1 + place % 10)}})
    return Study.model_validate(
        {
            "name": "many",
            "tasks": tasks,
            "seeds": [0, 1],
            "space": {"random": CANDIDATES - 1, "calibrations": ["none"]},
            "probe": {"steps": STEPS},
            "stack": 16,
            "workers": 2,
        }
    )


LINEAR = {"model": "torch.nn:Linear", "model_args": {"in_features": 10, "out_features": 1}}
WIDE = {"model": "benchmarks.common.models:tabular_mlp", "model_args": {"features": 10, "outputs": 1}}


def memory() -> float:
    """Returns the megabytes that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def overhead(trials: int, folder: Path) -> None:
    """Prints the overhead of a trial, overall and between marks."""
    marks: list[tuple[int, float, float]] = []
    last: list[float] = [0, 0.0]
    built: list[float] = []

    def note(progress: StudyProgress) -> None:
        if progress.news.startswith("diabetes: "):
            built.append(time.perf_counter())
        if progress.done > last[0] and progress.done in (1, *MARKS):
            marks.append((progress.done, time.perf_counter(), memory()))
        last[:] = progress.done, time.perf_counter()

    plan = study("overhead", trials, 1, LINEAR, workers=2)
    run_study(plan, folder=folder, report=note)
    if last[0] > marks[-1][0]:
        marks.append((int(last[0]), last[1], memory()))
    lines = _lines(plan, folder)
    probe = statistics.fmean(line["seconds"] for line in lines)
    print(f"{len(lines)} trials by two workers, SQLite; a probe takes {1e3 * probe:.1f} ms")
    for (done, start, _), (until, end, held) in itertools.pairwise(marks):
        each = (end - start) / (until - done) - probe / 2
        print(f"  trials {done:6d} to {until:6d}: {1e3 * each:5.1f} ms overhead each; coordinator {held:.0f} MB")
    planned = (marks[0][1] - built[0]) / len(lines)
    print(f"  planned before the first: {1e3 * planned:.1f} ms each")
    each = (marks[-1][1] - built[0]) / len(lines) - probe / 2
    print(f"  all: {1e3 * each:.1f} ms each (at most {1e3 * WANTED:.0f} ms is wanted)")
    print(f"  Optuna's own share: {1e3 * optuna_alone(lines[: min(1000, len(lines))], folder):.1f} ms each")


def _lines(plan: Study, folder: Path) -> list[Line]:
    store = open_store(f"sqlite:///{folder / plan.name}.db", plan.name, readonly=True)
    try:
        return list(store.lines())
    finally:
        store.close()


def optuna_alone(lines: list[Line], folder: Path) -> float:
    """Returns the seconds that Optuna's storage takes for each of these trials, by itself."""
    storage = Storage(f"sqlite:///{folder / 'alone.db'}")
    alone = optuna.create_study(storage=storage, study_name="alone")
    start = time.perf_counter()
    for line in lines:
        trial = storage.create_new_trial(alone._study_id, create_trial(state=TrialState.WAITING))
        storage.set_trial_state_values(trial, TrialState.RUNNING)
        storage.set_trial_user_attr(trial, "line", line)
        storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.0])
    seconds = time.perf_counter() - start
    storage.close()
    return seconds / len(lines)


def speedup(folder: Path, rounds: int) -> None:
    """Prints how many times the trials a second two workers run, beside one, on probes of about 0.2 s."""
    ratios = []
    for place in range(rounds):
        rates, seconds = [], []
        for workers in (1, 2):
            times: list[float] = []
            plan = study(f"workers-{workers}-{place}", 120, 480, WIDE, workers)
            run_study(plan, folder=folder, report=lambda progress, at=times: _note(progress, at))  # type: ignore[misc]
            seconds.append(statistics.fmean(line["seconds"] for line in _lines(plan, folder)))
            # from when all workers have started to when one finds nothing left
            rates.append((len(times) - 32) / (times[-2] - times[30]))
        ratios.append(rates[1] / rates[0])
        print(
            f"  {rates[0]:.2f} and {rates[1]:.2f} trials a second, {ratios[-1]:.2f} times; the probes themselves take "
            f"{seconds[0]:.3f} and {seconds[1]:.3f} s"
        )
    print(f"two workers beside one: {statistics.median(ratios):.2f} times (at least 1.7 is wanted)")


def _note(progress: StudyProgress, at: list[float]) -> None:
    if progress.done > len(at):
        at.append(time.perf_counter())


def status(trials: int, folder: Path) -> None:
    """Prints the seconds that the command takes to tell how so many trials stand."""
    plan = study("overhead", trials, 1, LINEAR, workers=2)
    told = timed("status", plan, folder, rounds=5)
    print(f"status of {len(_lines(plan, folder))} trials: {told} (under {STATUS:.0f} s is wanted)")


def timed(command: str, plan: Study, folder: Path, *more: str, rounds: int) -> str:
    """Returns what a command about a study takes, with the start of Python and all imports, in words."""
    file = folder / f"{plan.name}.toml"
    file.write_text(as_toml(plan))
    call = [sys.executable, "-m", "autoinit", "study", command, str(file), *more]
    wall, computing = [], []
    for _ in range(rounds):
        start, before = time.perf_counter(), os.times()
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        wall.append(time.perf_counter() - start)
        computing.append(sum(after[2:4]) - sum(before[2:4]))
    return f"{statistics.median(wall):.2f} s, {statistics.median(computing):.2f} of them computing, median of {rounds}"


def as_toml(plan: Study) -> str:
    """Returns the study file that says the same."""
    fields = plan.model_dump(mode="json", exclude_defaults=True)
    return "".join(f"{name} = {_inline(value)}\n" for name, value in fields.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_inline(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)


def reported(folder: Path) -> None:
    """Prints what the report on a large study takes, in seconds and megabytes, after having run it."""
    plan, page = many(), folder / "many.html"
    start = time.perf_counter()
    run_study(plan, folder=folder)
    lines = _lines(plan, folder)
    counted = f"{len({line['task'] for line in lines})} tasks, {len(lines)} trials of {STEPS} steps"
    print(f"{counted}, run in {time.perf_counter() - start:.0f} s")
    told = timed("report", plan, folder, str(page), rounds=3)
    print(f"report: {told} (under {REPORT:.0f} s is wanted)")
    print(f"        {page.stat().st_size / 1e6:.1f} MB (under {PAGE:.0f} MB is wanted)")
    print(f"status: {timed('status', plan, folder, rounds=3)} (under {STATUS:.0f} s is wanted)")


def main() -> None:
    """Prints what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("overhead", "workers", "report"), default="overhead")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="of each number of workers")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; optuna {optuna.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.part == "workers":
            speedup(Path(folder), arguments.rounds)
        elif arguments.part == "report":
            reported(Path(folder))
        else:
            overhead(arguments.trials, Path(folder))
            status(arguments.trials, Path(folder))


if __name__ == "__main__":
    main()
