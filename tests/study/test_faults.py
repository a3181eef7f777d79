"""What may happen to a machine while a study runs: a full disk, a clock that jumps, a file that another one holds."""

from __future__ import annotations

import datetime
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from study_runs import done, probes, records, run, start, states, timeless, wait_for_trials, workers_of, write

from autoinit.knowledge.lines import read_lines

TRIALS = 21


@pytest.fixture(scope="session")
def undisturbed(finished: Path) -> list[dict[str, object]]:
    """The records of a study that nothing happened to, apart from times."""
    return probes(finished)


# A full disk


@pytest.mark.slow
def test_a_full_disk_ends_the_study_in_words_and_with_room_it_goes_on(
    tmp_path: Path, undisturbed: list[dict[str, object]]
) -> None:
    """From the third trial on no file may grow: the next write fails as on a full disk."""
    file = write(tmp_path)
    process = start("run", file)
    wait_for_trials(process, file, 3)
    full = max(part.stat().st_size for part in tmp_path.glob("small.db*"))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (full, full))
    out, err = process.communicate(timeout=120)
    assert process.returncode > 0, "neither well nor by a signal"
    assert "Done." not in out
    assert "the disk is full or fails" in err
    assert "Free some space" in err
    assert "Traceback" not in err
    kept = states(file)["mlp"]["done"]
    assert 0 < kept < TRIALS, "it was full in the middle"
    before = timeless(records(file))
    assert "Done." in run("resume", file, "--workers", "1")
    after = timeless(records(file))
    assert after == undisturbed
    assert [line for line in after if line in before] == before, "what had ended was not run again"


DISK = """
set -e
mount -t tmpfs -o size=1300k tmpfs "$1/disk"
storage="sqlite:///$1/disk/small.db"
if "$2" -m autoinit study run "$1/small.toml" --storage "$storage" --workers 1 2>"$1/first.txt"; then exit 3; fi
mount -o remount,size=64m "$1/disk"
"$2" -m autoinit study export "$1/small.toml" "$1/before.jsonl" --storage "$storage"
"$2" -m autoinit study resume "$1/small.toml" --storage "$storage" --workers 1
"$2" -m autoinit study export "$1/small.toml" "$1/after.jsonl" --storage "$storage"
"""
"""In a namespace of its own a user may mount a disk, and make it larger."""


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0,
    reason="no namespaces for users",
)
def test_a_disk_of_a_megabyte_fills_up_and_a_larger_one_is_gone_on_with(
    tmp_path: Path, undisturbed: list[dict[str, object]]
) -> None:
    write(tmp_path)
    (tmp_path / "disk").mkdir()
    command = ["unshare", "-rm", "sh", "-c", DISK, "sh", str(tmp_path), sys.executable]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stderr
    told = (tmp_path / "first.txt").read_text()
    assert "the disk is full or fails (database or disk is full). Free some space" in told
    assert "Traceback" not in told
    before, after = (timeless(read_lines(tmp_path / name).lines) for name in ("before.jsonl", "after.jsonl"))
    assert 0 < len(before) < TRIALS, "it was full in the middle"
    assert after == undisturbed
    assert [line for line in after if line in before] == before


# A clock that jumps

CLOCK = """
import builtins, datetime, os, time, types

real, real_time, real_import, jump = datetime.datetime, time.time, builtins.__import__, os.environ["JUMP"]


def moved():
    return 86_400.0 * int(open(jump).read()) if os.path.exists(jump) else 0.0


class AnyDatetime(type):
    def __instancecheck__(cls, one):
        return isinstance(one, real)


class Moved(real, metaclass=AnyDatetime):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + datetime.timedelta(seconds=moved())


told = types.SimpleNamespace(**{**vars(datetime), "datetime": Moved})


def imported(name, globals=None, *rest, **more):
    theirs = name == "datetime" and str((globals or {}).get("__name__")).startswith(("autoinit.", "optuna."))
    return told if theirs else real_import(name, globals, *rest, **more)


builtins.__import__, time.time = imported, lambda: real_time() + moved()
"""
"""Read by each Python process as it starts: the wall clock of autoinit and Optuna is off by the days that a file says.
The monotonic clock is as it is, as on a machine whose clock is set. (libfaketime moves sleeps too: they fail. Libraries
in C crash when `datetime.datetime` is another class for them.)"""


@pytest.mark.slow
@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_jumps_changes_no_record_and_no_duration(
    tmp_path: Path, undisturbed: list[dict[str, object]], days: int
) -> None:
    """The wall clock of coordinator and workers is moved by a year, after some trials and while others run."""
    file = write(tmp_path)
    jump = tmp_path / "jump"
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK)
    environment = {"PYTHONPATH": str(tmp_path / "clock"), "JUMP": str(jump)}
    process = start("run", file, **environment)
    wait_for_trials(process, file, 3)
    moved = tmp_path / "moved"
    moved.write_text(str(days))
    moved.replace(jump)
    started = time.monotonic()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "Done." in out
    found = records(file)
    assert timeless(found) == undisturbed
    years = [datetime.datetime.fromisoformat(line["finished"]) for line in found]
    assert max(years) - min(years) > datetime.timedelta(days=300), "the clock did jump"
    assert all(0 < line["seconds"] < time.monotonic() - started + 60 for line in found)
    assert not re.search(r"-\d[\d.]* ?(s|min|h)\b", err), "a negative time was told"
    status = states(file)["mlp"]
    assert (status["done"], status["running"], status["waiting"]) == (TRIALS, 0, 0)


# A file that another one holds


@pytest.mark.slow
def test_a_locked_file_is_waited_for(tmp_path: Path, undisturbed: list[dict[str, object]]) -> None:
    file = write(tmp_path)
    process = start("run", file)
    wait_for_trials(process, file, 3)
    other = sqlite3.connect(file.with_suffix(".db"), isolation_level=None, timeout=10)
    other.execute("BEGIN IMMEDIATE")
    before = done(file)
    time.sleep(3)
    assert process.poll() is None
    assert done(file) == before, "nothing is written while it is locked"
    assert before < TRIALS
    assert len(workers_of(process)) == 2
    other.execute("ROLLBACK")
    other.close()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "Done." in out
    assert timeless(records(file)) == undisturbed
