from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from databases import all_closed, database, stored_trials
from optuna.distributions import FloatDistribution
from storage_processes import killed, said, started

from autoinit.errors import ArgumentError, StorageError
from autoinit.study.storage import Store, open_store

ROOT = Path(__file__).parents[2]


def jobs(number: int, first: int = 0) -> list[dict[str, object]]:
    return [{"number": first + index, "recipe": f"r{first + index}"} for index in range(number)]


def line(number: int, **fields: object) -> dict[str, object]:
    return {"id": f"{number:04x}", "number": number, **fields}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'night.db'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url, "night", create=True, wait=5)
    yield opened
    opened.close()


CLAIM = """
store = open_store(url, "night")
print(len(store.claim("a.b", 3)), os.getpid(), flush=True)
time.sleep(60)
"""


def test_a_trial_lives_from_waiting_to_its_line(store: Store) -> None:
    store.add_task("a.b", {"family": "mlp"})
    store.extend("a.b", jobs(4))
    first, second, third = store.claim("a.b", 3)
    assert (first.number, first.job, first.attempts) == (0, {"number": 0, "recipe": "r0"}, 1)
    assert store.finish(first, line(0), -0.5)
    assert store.finish(second, line(1), None)
    assert store.retry(third, "killed")
    assert store.counts() == {"a.b": {"waiting": 2, "running": 0, "complete": 1, "fail": 1}}
    again, last = store.claim("a.b", 5)
    assert (again.number, again.attempts, last.number, last.attempts) == (2, 2, 3, 1)
    assert store.finish(again, line(2), -0.7)
    assert [found["number"] for found in store.lines()] == [0, 1, 2]
    assert store.storage.get_trial(again.trial_id).user_attrs["reason"] == "killed"


def test_only_the_first_finish_counts(store: Store) -> None:
    store.add_task("a.b", {})
    store.extend("a.b", jobs(1))
    (claimed,) = store.claim("a.b", 1)
    assert store.finish(claimed, line(0, seconds=1), -1.0)
    assert not store.finish(claimed, line(0, seconds=2), -2.0)
    assert not store.finish(claimed, line(0, seconds=1), -1.0)
    assert not store.retry(claimed, "late")
    assert list(store.lines()) == [line(0, seconds=1)]


def test_claims_skip_and_keep_to_their_task(store: Store) -> None:
    for task in ("a", "b"):
        store.add_task(task, {})
        store.extend(task, jobs(5))
    assert [claimed.number for claimed in store.claim("a", 2, skip=(0, 2))] == [1, 3]
    assert [claimed.number for claimed in store.claim("a", 9)] == [0, 2, 4]
    assert store.claim("a", 9) == []
    assert store.counts()["b"]["waiting"] == 5


def optuna_study(store: Store, task: str) -> optuna.Study:
    """A task's trials as Optuna itself reads them."""
    return optuna.load_study(study_name=f"{store.study}/{task}", storage=store.storage)


def test_an_extension_cut_in_half_goes_on_and_leaves_no_gap(store: Store) -> None:
    store.add_task("a", {})
    store.extend("a", jobs(3))
    store.claim("a", 1)
    store.extend("a", jobs(6))
    trials = optuna_study(store, "a").trials
    assert [trial.user_attrs["job"]["number"] for trial in trials] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ArgumentError, match="Trial 9 of task 'a' cannot be added: the next one is 6"):
        store.extend("a", jobs(1, first=9))


def test_params_are_optunas_and_told_once_also_of_trials_that_have_ended(store: Store) -> None:
    store.add_task("a", {})
    places = {"log2_gain": FloatDistribution(-2, 2), "lr": FloatDistribution(0, 1)}
    chosen = [{"log2_gain": 0.5, "lr": 0.1}, {"lr": 0.2}]
    store.extend("a", jobs(2))
    for claimed in store.claim("a", 2):
        store.finish(claimed, line(claimed.number), float(claimed.number))
    store.add_params("a", places, lambda job: chosen[job["number"]])
    store.extend("a", jobs(3))
    store.add_params("a", places, lambda job: {"lr": 0.3})
    study = optuna_study(store, "a")
    assert study.best_params == {"log2_gain": 0.5, "lr": 0.1}
    assert [trial.params for trial in study.trials[1:]] == [{"lr": 0.2}, {"lr": 0.3}]
    assert study.trials[1].distributions == {"lr": places["lr"]}


def test_the_whole_study_and_its_tasks_keep_what_is_known(store: Store, url: str) -> None:
    assert store.attribute("spec") is None
    store.set_attribute("spec", {"name": "night"})
    store.add_task("b", {"family": "mlp"})
    store.add_task("a", {"family": "cnn"})
    store.add_task("b", {"family": "mlp", "dataset": "digits"})
    store.set_task_info("a", "error", "Traceback")
    reader = open_store(url, "night", readonly=True)
    assert reader.attribute("spec") == {"name": "night"}
    assert reader.tasks() == ["b", "a"]
    assert reader.task_info("b") == {"family": "mlp", "dataset": "digits"}
    assert reader.task_info("a") == {"family": "cnn", "error": "Traceback"}
    reader.close()


def test_a_study_whose_name_begins_like_another_is_another(url: str, store: Store) -> None:
    store.add_task("a", {})
    store.close()
    other = open_store(url, "night2", create=True)
    other.add_task("b", {})
    assert (other.tasks(), list(other.counts())) == (["b"], ["b"])
    other.close()


def test_lines_come_in_order_over_two_pages(store: Store) -> None:
    store.add_task("a", {})
    store.extend("a", jobs(1))
    (claimed,) = store.claim("a", 1)
    store.finish(claimed, line(0), 0.0)
    template = store.storage.get_trial(claimed.trial_id)
    study = optuna_study(store, "a")
    for number in range(1, 551):
        template.set_user_attr("record", {"value": None, "line": line(number)})
        study.add_trial(template)
    assert [found["number"] for found in store.lines("a")] == list(range(551))


def test_reading_while_a_coordinator_runs_changes_nothing(store: Store, url: str) -> None:
    store.add_task("a", {})
    store.extend("a", jobs(1))
    reader = open_store(url, "night", readonly=True)
    assert reader.counts()["a"]["waiting"] == 1
    with pytest.raises(ArgumentError, match="open for reading"):
        reader.claim("a", 1)
    with pytest.raises(ArgumentError, match="open for reading"), reader.planning("a"):
        pass
    store.finish(store.claim("a", 1)[0], line(0), 1.0)
    assert list(reader.lines()) == [line(0)]
    reader.close()


def test_a_second_coordinator_is_refused_and_told_who_holds_the_file(store: Store, url: str) -> None:
    second = started('open_store(url, "night")', url)
    error = second.communicate(timeout=60)[1]
    assert second.returncode != 0
    assert f"in use by another coordinator (process {os.getpid()} on " in error
    assert "keep the study on PostgreSQL" in error


def test_a_killed_coordinators_lock_is_gone_and_its_trials_come_back(store: Store, url: str) -> None:
    store.add_task("a.b", {})
    store.extend("a.b", jobs(5))
    store.close()
    process = started(CLAIM, url)
    assert said(process) == f"3 {process.pid}"
    with pytest.raises(StorageError, match=f"process {process.pid} on"):
        open_store(url, "night")
    killed(process)
    after = open_store(url, "night")
    assert after.counts()["a.b"] == {"waiting": 2, "running": 3, "complete": 0, "fail": 0}
    assert after.recover() == 3
    assert [(claimed.number, claimed.attempts) for claimed in after.claim("a.b", 9)] == [(n, 1) for n in range(5)]
    assert after.recover() == 0  # its own are not lost
    after.close()


FORKED = r"""
store = open_store(url, "night")
os.write(1, f"{os.fork() or 'child'}\n".encode())  # both say a line, each in one write: print may need two
time.sleep(60)
"""


def test_a_worker_that_outlives_its_coordinator_does_not_hold_the_file(store: Store, url: str) -> None:
    store.close()
    process = started(FORKED, url)
    child = int(next(text for text in (said(process), said(process)) if text != "child"))
    try:
        process.send_signal(signal.SIGKILL)
        process.wait()
        open_store(url, "night").close()
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


KILLED_IN_FINISH = """
store = open_store(url, "night")
claimed = store.claim("a", 4)
store.storage.set_trial_state_values = lambda *_: os.kill(os.getpid(), 9)  # the line is in, the state is not
store.finish(claimed[int(sys.argv[2])], {"number": int(sys.argv[2])}, -1.5 if sys.argv[3] == "good" else None)
"""


@pytest.mark.parametrize(("outcome", "state"), [("good", "complete"), ("bad", "fail")])
def test_a_kill_between_line_and_state_loses_neither(store: Store, url: str, outcome: str, state: str) -> None:
    store.add_task("a", {})
    store.extend("a", jobs(4))
    store.close()
    process = started(KILLED_IN_FINISH, url, "2", outcome)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == -signal.SIGKILL
    after = open_store(url, "night")
    assert list(after.lines()) == []
    assert after.recover() == 4
    expected = {"waiting": 3, "running": 0, "complete": 0, "fail": 0} | {state: 1}
    assert after.counts()["a"] == expected
    assert list(after.lines()) == [{"number": 2}]
    after.close()


WORK = """
store = open_store(url, "night")
store.recover()
print("ready", flush=True)
while claimed := store.claim("a", 2):
    for each in claimed:
        store.finish(each, {"number": each.number}, float(each.number))
print("done", flush=True)
"""


def test_kills_at_any_moment_lose_and_double_nothing(store: Store, url: str) -> None:
    store.add_task("a", {})
    store.extend("a", jobs(60))
    store.close()
    for index in range(3):
        process = started(WORK, url)
        assert said(process) == "ready"
        time.sleep(0.01 + 0.017 * index)
        killed(process)
        reader = open_store(url, "night", readonly=True)
        counts = reader.counts()["a"]
        assert counts["running"] <= 2
        reader.close()
    process = started(WORK, url)
    assert said(process) == "ready"
    assert said(process) == "done"
    process.communicate()
    reader = open_store(url, "night", readonly=True)
    assert [found["number"] for found in reader.lines()] == list(range(60))
    assert reader.counts()["a"] == {"waiting": 0, "running": 0, "complete": 60, "fail": 0}
    reader.close()


def test_a_locked_file_is_waited_for_and_then_named(url: str, tmp_path: Path) -> None:
    store = open_store(url, "night", create=True, wait=0.5)
    store.add_task("a", {})
    store.extend("a", jobs(1))
    (claimed,) = store.claim("a", 1)
    other = sqlite3.connect(tmp_path / "night.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"night\.db is locked by another program since 0\.5 s\. Close what writes"):
        store.finish(claimed, line(0), 1.0)
    assert time.monotonic() - start >= 0.5
    other.execute("ROLLBACK")
    other.close()
    assert store.finish(claimed, line(0), 1.0)
    store.close()


FULL = """
import resource
store = open_store(url, "night", wait=1)
claimed = store.claim("a", 25)
size = max(os.path.getsize(path) for path in (sys.argv[2], sys.argv[2] + "-wal"))
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 200_000, size + 200_000))
for each in claimed:
    store.finish(each, {"number": each.number, "curve": "x" * 20_000}, 1.0)
    print(each.number, flush=True)
"""


def test_a_file_that_may_not_grow_stops_the_study_and_loses_no_finished_trial(
    store: Store, url: str, tmp_path: Path
) -> None:
    store.add_task("a", {})
    store.extend("a", jobs(25))
    store.close()
    process = started(FULL, url, str(tmp_path / "night.db"))
    output, error = process.communicate(timeout=60)
    finished = [int(number) for number in output.split()]
    assert "StorageError" in error
    assert "the disk is full or fails" in error
    assert "Free some space" in error
    assert 0 < len(finished) < 25
    after = open_store(url, "night")
    assert [found["number"] for found in after.lines()] == finished
    after.recover()
    for claimed in after.claim("a", 25):
        after.finish(claimed, line(claimed.number), 1.0)
    assert [found["number"] for found in after.lines()] == list(range(25))
    after.close()


def test_a_full_database_says_so_and_goes_on_when_there_is_room(store: Store, url: str, tmp_path: Path) -> None:
    store.add_task("a", {})
    store.extend("a", jobs(2))
    first, second = store.claim("a", 2)
    store.finish(first, line(0), 1.0)
    with store.storage.engine.connect() as connection:  # the pool holds this one connection
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match=r"disk is full or fails \(database or disk is full\)\. Free some space"):
        store.finish(second, line(1, curve="x" * 100_000), 1.0)
    with store.storage.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    assert list(store.lines()) == [line(0)]
    assert store.finish(second, line(1, curve="x" * 100_000), 1.0)
    assert len(list(store.lines())) == 2


WRONG = [
    ("night.db", r"Storage 'night\.db' is not a URL\. Give sqlite:///file\.db or postgresql://"),
    ("mysql://host/db", "is on 'mysql', which is not supported"),
    ("sqlite://", "is in memory and would be lost"),
    ("sqlite:///:memory:", "is in memory and would be lost"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_a_wrong_url_is_named(wrong: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        open_store(wrong, "night", create=True)


@pytest.mark.parametrize("readonly", [False, True])
def test_what_is_not_there_is_not_made(url: str, tmp_path: Path, readonly: bool) -> None:
    with pytest.raises(ArgumentError, match=r"no study 'night': no file .*night\.db.*autoinit study run"):
        open_store(url, "night", readonly=readonly)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("readonly", [False, True])
def test_an_unknown_study_is_told_which_there_are(store: Store, url: str, readonly: bool) -> None:
    store.add_task("a", {})
    store.close()
    with (
        all_closed(),
        pytest.raises(ArgumentError, match=r"holds no study 'nigth'\. Did you mean 'night'\? Known: night\."),
    ):
        open_store(url, "nigth", readonly=readonly)
    open_store(url, "night").close()  # the failed one gave the lock back


def test_an_unknown_task_is_told_which_there_are(store: Store) -> None:
    store.add_task("mlp.digits", {})
    with pytest.raises(ArgumentError, match=r"has no task 'mlp\.digit'\. Did you mean 'mlp\.digits'"):
        store.claim("mlp.digit", 1)


@pytest.mark.parametrize("readonly", [False, True])
def test_a_file_of_something_else_is_refused(url: str, tmp_path: Path, readonly: bool) -> None:
    (tmp_path / "night.db").write_text("name = 'night'\n" * 100)
    with pytest.raises(StorageError, match="is not a healthy SQLite database"):
        open_store(url, "night", create=not readonly, readonly=readonly)


def test_a_file_of_something_else_is_closed_again(url: str, tmp_path: Path) -> None:
    (tmp_path / "night.db").write_text("name = 'night'\n" * 100)
    with all_closed(), pytest.raises(StorageError):
        open_store(url, "night", readonly=True)


def test_a_store_closes_what_it_opened(url: str) -> None:
    with all_closed():
        store = open_store(url, "night", create=True)
        store.add_task("a", {})
        store.close()


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"Lock file .*none/night\.db\.lock cannot be written"):
        open_store(f"sqlite:///{tmp_path}/none/night.db", "night", create=True)


def test_a_note_of_any_length_is_what_the_dashboard_reads_and_one_of_the_owner_stays(store: Store, url: str) -> None:
    from optuna_dashboard import get_note, save_note

    def note() -> str:
        with database(url) as storage:
            return get_note(optuna.load_study(study_name="night", storage=storage))

    for body in ("# Ours\nlong" + "x" * 5000, "# Ours\nshort", "# Ours\n" + "y" * 3000):
        store.set_note(body)
        assert note() == body
    with database(url) as storage:
        save_note(optuna.load_study(study_name="night", storage=storage), "my own words")
    store.set_note("# Ours\nagain")
    assert note() == "my own words"


def test_the_dashboards_view_is_plain_optuna(store: Store, url: str) -> None:
    store.add_task("a", {})
    store.extend("a", jobs(1))
    store.finish(store.claim("a", 1)[0], line(0), 0.25)
    with database(url) as storage:
        summaries = {summary.study_name: summary.n_trials for summary in optuna.get_all_study_summaries(storage)}
    assert summaries == {"night": 0, "night/a": 1}
    (trial,) = stored_trials(url, "night/a")
    assert (trial.value, trial.user_attrs["record"]) == (0.25, {"value": 0.25, "line": line(0)})
    assert json.dumps(trial.user_attrs)
