"""Studies of digits, run by the command in processes of their own."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from autoinit.cli.main import main
from autoinit.knowledge.lines import read_lines, write_lines
from autoinit.study.status import status_of
from autoinit.study.storage import Store, open_store, storage_of
from autoinit.study.toml_file import read_study

HERE = Path(__file__).parent

MEASURED_TIMES = ("seconds", "finished", "attempts", "device", "threads", "autoinit", "torch")
"""Fields in which two runs of the same trial may differ: when, where and by what it was run."""

FILE = """
name = "small"
seeds = [0, 1]
lr_steps = [1]
workers = 2

[probe]
steps = {steps}

[space]
recipes = ["he_normal", "xavier_uniform", "lsuv"]
random = 3
{more}

[[tasks]]
name = "mlp"
family = "mlp"
dataset = "digits"
model = "study_models:mlp"
data = "study_models:digits"
batch_size = 32
loss = "cross_entropy"
optimizer = "torch.optim:SGD"
optimizer_args = {{lr = 0.05}}
"""


def write(folder: Path, steps: int = 30, more: str = "", tasks: str = "") -> Path:
    (folder / "study_models.py").write_text((HERE / "study_models.py").read_text())
    file = folder / "small.toml"
    file.write_text(FILE.format(steps=steps, more=more) + tasks)
    return file


def start(*arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
    """Starts `autoinit study` with arguments, and further variables in its environment."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", "autoinit", "study", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def run(*arguments: str | Path, code: int = 0) -> str:
    """Runs the command `autoinit study` in this process, which has torch loaded; its workers are their own processes.

    Returns:
        What it printed and told.
    """
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told), pytest.raises(SystemExit) as ended:
        main(["study", *map(str, arguments)])
    assert (ended.value.code or 0) == code, told.getvalue()
    return told.getvalue()


def finished_study(folder: Path) -> Path:
    """Runs a study to its end without anything happening to it, as a person does: two workers, and a long stage."""
    file = write(folder, more="[long]\nsteps = 40\ntop = 1\n")
    process = start("run", file)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "Done." in out
    return file


def copied(file: Path, folder: Path) -> Path:
    """Returns a study's file in another folder, with all that belongs to it."""
    shutil.copytree(file.parent, folder, dirs_exist_ok=True)
    return folder / file.name


def probes(file: Path) -> list[dict[str, Any]]:
    """Returns the records of a study's probes, apart from times: those of one that has no long stage."""
    return [line for line in timeless(records(file)) if line["stage"] == "probe"]


def records(file: Path) -> list[dict[str, Any]]:
    """Returns what a study's storage holds of its finished trials, each once and readable as an export is."""
    out = file.with_suffix(".jsonl")
    out.unlink(missing_ok=True)
    with contextlib.closing(reading(file)) as store:
        assert write_lines(out, store.lines()) == sum(1 for _ in store.lines())
    read = read_lines(out)
    assert not read.skipped
    assert not read.repeated
    return read.lines


def timeless(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in MEASURED_TIMES} for line in lines]


def states(file: Path) -> dict[str, dict[str, Any]]:
    """Returns how each task stands, as `autoinit study status --json` tells it."""
    with contextlib.closing(reading(file)) as store:
        return {one.task: asdict(one) for one in status_of(store, read_study(file)).tasks}


def reading(file: Path) -> Store:
    """Opens the storage of a study, beside a coordinator that may be running."""
    study = read_study(file)
    return open_store(storage_of(study, file.parent), study.name, readonly=True)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == process.pid:
            found.append(int(folder.name))
    return found


def wait_for_trials(process: subprocess.Popen[str], file: Path, trials: int) -> None:
    """Waits until a study has so many trials behind it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if done(file) >= trials:
            return
        time.sleep(0.05)
    pytest.fail("the study did not begin")


def done(file: Path) -> int:
    """Returns how many trials have ended, read from the file itself."""
    database = file.with_suffix(".db")
    if not database.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()[0])
        except sqlite3.OperationalError:  # there are no tables yet
            return 0
