"""A study on a PostgreSQL server of the tests' own: several coordinators, kills, a restart."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import study_runs
from optuna.distributions import IntDistribution
from storage_processes import killed, said, started

from autoinit.errors import ArgumentError, StorageError
from autoinit.knowledge.lines import read_lines
from autoinit.study.storage import Store, open_store

ROOT = Path(__file__).parents[2]


def programs() -> Path | None:
    """Returns the folder of the newest PostgreSQL server, which Debian keeps out of PATH."""
    found = [Path(path).parent for path in glob.glob("/usr/lib/postgresql/*/bin/initdb")]
    if (config := shutil.which("pg_config")) is not None:
        folder = Path(subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True).stdout.strip())
        found += [folder] if (folder / "initdb").exists() else []
    found += [Path(path).parent for path in [shutil.which("initdb")] if path]
    return max(found, key=lambda path: [int(part) for part in path.parts if part.isdigit()], default=None)


BIN = programs()
pytestmark = pytest.mark.skipif(BIN is None, reason="no PostgreSQL server is installed")


class Server:
    """A PostgreSQL server in a temporary folder, on a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        if os.getuid() == 0:  # the server refuses to run as root
            shutil.chown(folder, "postgres", "postgres")
        self.run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "night", "--no-sync", "-E", "UTF8")
        self.start()

    def run(self, program: str, *arguments: str) -> None:
        assert BIN is not None
        command = [str(BIN / program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        with open(self.folder / "programs.log", "ab") as log:  # a pipe would stay open as long as the server
            done = subprocess.run(command, cwd=self.folder, stdout=log, stderr=log, check=False)
        if done.returncode:
            pytest.fail((self.folder / "programs.log").read_text())

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = f"{self.folder}/server.log"
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-l", log, "-o", options, "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-m", mode, "-w", "stop")

    def url(self, database: str, driver: str = "postgresql") -> str:
        return f"{driver}://night@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="night"))  # short, for the socket's path, and open to the server's user
    folder.chmod(0o755)
    running = Server(folder)
    try:
        yield running
    finally:
        running.stop("immediate")
        shutil.rmtree(folder)


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    """A new database."""
    name = f"d{abs(hash(request.node.name))}"
    server.run("createdb", "-h", "127.0.0.1", "-p", str(server.port), "-U", "night", name)
    return server.url(name)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url, "night", create=True)
    opened.add_task("a", {"family": "mlp"})
    yield opened
    opened.close()


def jobs(number: int) -> list[dict[str, object]]:
    return [{"number": index} for index in range(number)]


WORK = """
store = open_store(url, "night")
print("ready", flush=True)
ran = []
while True:
    claimed = store.claim("a", 2)
    for each in claimed:
        time.sleep(0.005)
        ran.append(each.number)
        store.finish(each, {"number": each.number, "by": os.getpid()}, float(each.number))
    counts = store.counts()["a"]
    if not claimed and not store.recover() and not counts["running"] and not counts["waiting"]:
        break
print(*ran, flush=True)
"""


def test_two_coordinators_run_every_trial_once(store: Store, url: str) -> None:
    store.extend("a", jobs(30))
    both = [started(WORK, url), started(WORK, url)]
    for process in both:
        assert said(process) == "ready"
    ran = [[int(number) for number in said(process).split()] for process in both]
    for process in both:
        assert process.communicate()[1] == ""
    assert sorted(ran[0] + ran[1]) == list(range(30))
    assert min(len(ran[0]), len(ran[1])) > 0
    lines = list(store.lines())
    assert [line["number"] for line in lines] == list(range(30))
    assert {line["by"] for line in lines} == {process.pid for process in both}
    assert store.counts()["a"] == {"waiting": 0, "running": 0, "complete": 30, "fail": 0}
    assert store.scores("probe") == {"a": []}


def test_what_trials_are_compared_by_is_read_on_the_server(store: Store) -> None:
    store.extend("a", jobs(2))
    for claimed, total in zip(store.claim("a", 2), (-0.5, None), strict=True):
        score = None if total is None else {"total": total}
        line = {"recipe": "lsuv", "seed": claimed.number, "lr_step": 0, "state": "complete", "score": score}
        store.finish(claimed, {**line, "stage": "probe", "curve": {"losses": [1.0]}}, total)
    plain = {"recipe": "lsuv", "lr_step": 0, "state": "complete"}
    assert store.scores("probe") == {
        "a": [{**plain, "seed": 0, "score": {"total": -0.5}}, {**plain, "seed": 1, "score": None}]
    }
    assert store.scores("long") == {"a": []}
    store.add_params("a", {"seed": IntDistribution(0, 1)}, lambda job: {"seed": job["number"]})
    store.add_params("a", {"seed": IntDistribution(0, 1)}, lambda job: {"seed": 0})
    trials = store.storage.get_all_trials(store._id("a"))
    assert [trial.params for trial in trials] == [{"seed": 0}, {"seed": 1}]


def test_pace_is_of_all_coordinators_since_the_last_one_began(store: Store, url: str) -> None:
    store.extend("a", jobs(4))
    store.begin_run()
    for claimed in store.claim("a", 2):
        store.finish(claimed, {"number": claimed.number}, 0.0)
    other = open_store(url, "night")
    for claimed in other.claim("a", 2):
        other.finish(claimed, {"number": claimed.number}, 0.0)
    pace = store.pace()
    assert pace.rate is not None
    assert pace.ago is not None
    other.begin_run()
    assert store.pace().rate is None
    other.close()


EXTEND = """
store = open_store(url, "night", create=True)
store.add_task("b", {})
print("ready", flush=True)
store.extend("b", [{"number": number} for number in range(12)])
print("done", flush=True)
"""


def test_two_coordinators_that_begin_at_once_plan_every_trial_once(url: str) -> None:
    both = [started(EXTEND, url), started(EXTEND, url)]
    for process in both:
        assert (said(process), said(process)) == ("ready", "done")
        assert process.communicate()[1] == ""
    store = open_store(url, "night")
    assert store.tasks() == ["b"]
    assert [claimed.job["number"] for claimed in store.claim("b", 100)] == list(range(12))
    store.close()


CLAIM = """
store = open_store(url, "night")
print(*(each.number for each in store.claim("a", 3)), flush=True)
time.sleep(60)
"""


def test_a_killed_coordinators_trials_are_recovered_by_the_other(store: Store, url: str) -> None:
    store.extend("a", jobs(6))
    (own,) = store.claim("a", 1)
    process = started(CLAIM, url)
    assert said(process) == "1 2 3"
    assert store.recover() == 0  # both live
    killed(process)
    end = time.monotonic() + 30
    while not (recovered := store.recover()) and time.monotonic() < end:
        time.sleep(0.05)  # the server hears of the death in its own time
    assert recovered == 3
    assert [(claimed.number, claimed.attempts) for claimed in store.claim("a", 9)] == [(n, 1) for n in (1, 2, 3, 4, 5)]
    assert store.finish(own, {"number": 0}, 1.0)


HALF = """
store = open_store(url, "night")
store.storage.set_trial_user_attr = lambda *_: os.kill(os.getpid(), 9)  # it runs, and nobody is named
store.claim("a", 1)
"""


def test_a_trial_claimed_by_halves_is_recovered(store: Store, url: str) -> None:
    store.extend("a", jobs(1))
    process = started(HALF, url)
    assert process.communicate(timeout=60)[1] == ""
    assert store.counts()["a"]["running"] == 1
    assert store.recover() == 1
    assert store.counts()["a"]["waiting"] == 1


def test_retry_and_a_late_finish(store: Store, url: str) -> None:
    store.extend("a", jobs(1))
    (first,) = store.claim("a", 1)
    assert store.retry(first, "killed")
    other = open_store(url, "night")
    (second,) = other.claim("a", 1)
    assert second.attempts == 2
    assert not store.retry(first, "it is the other's now")
    assert other.finish(second, {"number": 0, "by": "other"}, 1.0)
    assert not store.finish(first, {"number": 0, "by": "late"}, 2.0)
    assert [line["by"] for line in store.lines()] == ["other"]
    other.close()


def test_planning_is_one_coordinators_at_a_time(store: Store, url: str) -> None:
    other = open_store(url, "night")
    entered = threading.Event()

    def plan() -> None:
        with other.planning("a"):
            entered.set()

    with store.planning("a"):
        thread = threading.Thread(target=plan)
        thread.start()
        assert not entered.wait(0.3)
        store.extend("a", jobs(1))  # who plans may also change
    assert entered.wait(10)
    thread.join()
    other.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restarted_server_costs_no_trial(server: Server, store: Store, url: str, mode: str) -> None:
    store.extend("a", jobs(50))
    (own,) = store.claim("a", 1)
    both = [started(WORK, url), started(WORK, url)]
    for process in both:
        assert said(process) == "ready"
    while store.counts()["a"]["complete"] < 8:
        time.sleep(0.01)
    server.stop(mode)
    time.sleep(1.0)
    server.start()
    assert store.finish(own, {"number": own.number}, 0.0)
    for process in both:
        assert said(process)
        assert process.communicate()[1] == ""
    assert [line["number"] for line in store.lines()] == list(range(50))
    assert store.counts()["a"] == {"waiting": 0, "running": 0, "complete": 50, "fail": 0}


def test_a_server_that_stays_away_is_named(server: Server, url: str) -> None:
    store = open_store(url, "night", create=True, wait=1.5)
    store.add_task("a", {})
    server.stop()
    try:
        start = time.monotonic()
        with pytest.raises(StorageError, match=r"does not answer since 1\.5 s .*Check that the server runs"):
            store.add_task("b", {})
        assert time.monotonic() - start >= 1.5
        with pytest.raises(StorageError, match="does not answer"):
            open_store(url, "night")
    finally:
        server.start()
    assert store.tasks() == ["a"]
    store.close()


def test_a_restarted_coordinator_is_alive_to_the_others(server: Server, store: Store, url: str) -> None:
    other = open_store(url, "night")
    store.extend("a", jobs(2))
    (own,) = store.claim("a", 1)
    server.stop()
    server.start()
    store.set_attribute("spec", {})  # its first word after the restart takes its lock again
    assert other.recover() == 0
    assert store.finish(own, {"number": 0}, 1.0)
    other.close()


def test_reading_takes_no_lock(store: Store, url: str) -> None:
    store.extend("a", jobs(1))
    with store.planning("a"):
        reader = open_store(url.replace("postgresql:", "postgres:"), "night", readonly=True)
        assert reader.counts()["a"]["waiting"] == 1
        assert reader.task_info("a") == {"family": "mlp"}
        with pytest.raises(ArgumentError, match="open for reading"):
            reader.recover()
        reader.close()


def test_a_missing_study_and_database_are_named(server: Server, store: Store, url: str) -> None:
    with pytest.raises(ArgumentError, match=r"holds no study 'nigth'\. Did you mean 'night'"):
        open_store(url, "nigth")
    with pytest.raises(StorageError, match='database "nowhere" does not exist'):
        open_store(server.url("nowhere"), "night", create=True)


def test_a_password_is_not_told(server: Server) -> None:
    with pytest.raises(StorageError) as caught:
        open_store(f"postgresql://night:secret@127.0.0.1:{server.port}/nowhere", "night")
    assert "secret" not in str(caught.value)
    assert "night:***@127.0.0.1" in str(caught.value)
    with contextlib.suppress(StorageError):
        open_store(server.url("nowhere"), "night")


def test_two_commands_share_one_study(url: str, tmp_path: Path) -> None:
    """As two machines of a cluster do: every trial is run once, and the records are those of one coordinator."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for folder in (alone, shared):
        folder.mkdir()
    study_runs.run("run", study_runs.write(alone, steps=300), "--workers", "1")
    file = study_runs.write(shared, steps=300)
    both = [study_runs.start("run", file, "--storage", url, "--workers", "1") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert "Done." in out
    out = tmp_path / "records.jsonl"
    assert "21 records" in study_runs.run("export", file, out, "--storage", url)
    expected = sorted(study_runs.timeless(study_runs.records(alone / "small.toml")), key=lambda line: line["id"])
    assert sorted(study_runs.timeless(read_lines(out).lines), key=lambda line: line["id"]) == expected
