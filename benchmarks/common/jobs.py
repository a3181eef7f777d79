"""Runs jobs in worker processes of one thread each, and keeps one JSON line per finished job."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Returns the finished rows of a result file; none where there is no file; torn lines are skipped."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def append_row(path: Path, row: Row) -> None:
    """Adds a row to a result file, on a line of its own even after a torn one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a") as file:
        file.write(("\n" if torn else "") + json.dumps(row) + "\n")


def one_thread() -> None:
    """Makes this process compute on one thread, as every timing here assumes."""
    import torch

    torch.set_num_threads(1)


def _begin_worker() -> None:
    one_thread()
    threading.Thread(target=_end_with_the_coordinator, daemon=True).start()


def _end_with_the_coordinator() -> None:
    """Ends this worker when the process that started it is gone, even by a signal that lets it clean up nothing."""
    coordinator = multiprocessing.parent_process()
    if coordinator is not None:
        coordinator.join()
        os._exit(1)


def run_all(
    work: Callable[..., Row],
    jobs: Sequence[tuple[Any, ...]],
    path: Path,
    workers: int,
    describe: Callable[[Row], str],
) -> None:
    """Runs `work(*job)` for every job and appends each row as soon as it is there.

    A job that fails prints its traceback and leaves no row, so that the next run tries it again.

    Args:
        work: a function at the top level of a module.
        jobs: its arguments; those that are done already are left out by the caller.
        path: the result file, written by this process only.
        workers: processes; with 1 everything runs here.
        describe: one line about a row, for the terminal.
    """
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    start = time.perf_counter()

    def finish(count: int, row: Row) -> None:
        append_row(path, row)
        minutes = (time.perf_counter() - start) / 60
        print(f"[{count}/{len(jobs)} {minutes:.1f} min] {describe(row)}", flush=True)

    if workers == 1:
        one_thread()
        for count, job in enumerate(jobs, 1):
            _contained(lambda job=job: work(*job), job, lambda row, count=count: finish(count, row))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker) as pool:
        futures = {pool.submit(work, *job): job for job in jobs}
        for count, future in enumerate(as_completed(futures), 1):
            _contained(future.result, futures[future], lambda row, count=count: finish(count, row))


def _contained(result: Callable[[], Row], job: tuple[Any, ...], finish: Callable[[Row], None]) -> None:
    try:
        row = result()
    except Exception:
        print(f"FAILED {job}\n{traceback.format_exc()}", flush=True)
    else:
        finish(row)


def provenance() -> Row:
    """Returns date, commit of the library and torch's version, to be kept in every row.

    The commit is empty where there is no git, or no history.
    """
    import torch

    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        commit = subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True, check=False).stdout
    except OSError:
        commit = ""
    return {"date": time.strftime("%Y-%m-%d"), "commit": commit.strip(), "torch": torch.__version__}
