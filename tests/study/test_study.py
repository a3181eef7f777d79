"""Studies as a person runs them: the command, its processes, what kills them, and what is there afterwards."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import time
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from databases import database
from helpers import alive
from study_runs import copied, probes, records, run, start, states, timeless, wait_for_trials, workers_of, write

import autoinit
from autoinit.cli.main import main
from autoinit.cli.study import example
from autoinit.knowledge.lines import read_lines, write_lines
from autoinit.recipes.names import recipe_title
from autoinit.study.coordinator import StudyProgress
from autoinit.study.toml_file import read_study


@pytest.fixture(scope="module")
def half_broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study of a task that works and one that cannot be built, and what was told while it ran."""
    task = '[[tasks]]\nname = "gone"\nmodel = "study_models:broken"\ndata = "study_models:digits"\n'
    file = write(tmp_path_factory.mktemp("half"), steps=5, tasks=task)
    return file, run("run", file, "--workers", "1")


def test_study_keeps_a_record_of_every_trial(finished: Path) -> None:
    lines = records(finished)
    probes = [line for line in lines if line["stage"] == "probe"]
    assert len(probes) == 7 * 3  # as-is, three recipes and three random ones; seed 0 at two learning rates, seed 1
    assert {line["recipe"] for line in probes if line["seed"] == 1} == {line["recipe"] for line in probes}
    longs = [line for line in lines if line["stage"] == "long"]
    assert sorted((line["recipe"] == "as_is", line["seed"]) for line in longs) == [
        (False, 0),
        (False, 1),
        (True, 0),
        (True, 1),
    ]
    own = probes[0]
    assert own["recipe"] == "as_is"
    assert len(own["curve"]["losses"]) == own["steps"] == 30
    assert own["features"]["parameters"] == 64 * 32 + 32 + 32 * 32 + 32 + 32 * 10 + 10
    assert sorted({line["lr"] for line in probes}) == [0.05, pytest.approx(0.05 * 10**0.5, rel=1e-5)]


def test_candidates_of_a_seed_start_from_one_draw_of_the_owner(finished: Path) -> None:
    firsts = {(line["seed"], line["curve"]["losses"][0]) for line in records(finished) if line["recipe"] == "as_is"}
    assert len(firsts) == 2


def test_status_tells_counts_and_the_best(finished: Path) -> None:
    (status,) = json.loads(run("status", finished, "--json"))["tasks"]
    assert states(finished) == {"mlp": status}
    assert (status["done"], status["failed"], status["running"], status["waiting"]) == (25, 0, 0, 0)
    assert status["gain"] is not None
    assert recipe_title(status["best"])[:30] in run("status", finished), "as much as a line has room for"
    assert status["best"][:30] in run("status", finished, "--keys")
    assert "25 of 25 trials ended, 0 of them failed" in run("status", finished)


def test_finished_study_runs_nothing_again(finished: Path) -> None:
    before = records(finished)
    assert "Done." in run("resume", finished)
    assert records(finished) == before


def wait_for_training(process: subprocess.Popen[str], log: Path) -> None:
    """Waits until the next training has begun, or the process has ended."""
    before = log.stat().st_size if log.exists() else 0
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.stat().st_size > before:
            return
        time.sleep(0.005)


KILLS = tuple(itertools.product(["worker", "both", "coordinator"], [False, True]))
"""What is killed, and whether that is in the middle of a training or while it starts: each of both once."""


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coordinator, a worker, and both are killed, while they start and in the middle of trainings."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    files = []
    for folder in (whole, cut):
        folder.mkdir()
        file = write(folder, steps=1500)
        text = file.read_text().replace("torch.optim:SGD", "study_models:NotedSGD")
        file.write_text(text.replace("lr_steps = [1]", ""))
        files.append(file)
    trainings = [str(folder / "trainings.txt") for folder in (whole, cut)]
    with monkeypatch.context() as environment:
        environment.setenv("TRAININGS", trainings[0])
        run("run", files[0], "--workers", "1")
    chance = random.Random(0)
    kills = in_flight = 0
    process = start("run", file, TRAININGS=trainings[1])
    while kills < len(KILLS):
        what, in_training = KILLS[kills]
        if process.poll() is not None:  # two workers were killed while they built the task: it failed for that run
            assert "failed as a whole" in process.communicate()[1], "the study was over before it could be killed"
            process = start("resume", file, TRAININGS=trainings[1])
        if in_training:
            wait_for_training(process, Path(trainings[1]))
        time.sleep(chance.uniform(0.0, 0.2 if in_training else 1.0))
        pids = workers_of(process)
        if what != "coordinator" and not pids:
            continue
        kills += 1
        in_flight += 1 if what == "worker" else len(pids)
        if what != "coordinator":
            os.kill(chance.choice(pids), signal.SIGKILL)
        if what != "worker":
            process.kill()
            process.communicate()
            deadline = time.monotonic() + 10
            while any(map(alive, pids)) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not any(map(alive, pids)), "a worker outlived its coordinator"
            process = start("run", file, TRAININGS=trainings[1])
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert "Done." in run("resume", file)
    status = states(file)["mlp"]
    assert (status["running"], status["waiting"]) == (0, 0)
    expected = {line["id"]: line for line in timeless(records(whole / "small.toml"))}
    found = timeless(records(file))
    assert len(found) == len(expected) == 14
    for line in found:
        if line["state"] == "failed":  # its worker was killed twice
            assert "SIGKILL" in line["reason"]
        else:
            assert line == expected[line["id"]]
    begun = [len(Path(log).read_text().splitlines()) for log in trainings]
    assert begun[0] == 14, "each training is noted once"
    assert 14 < begun[1] <= 14 + in_flight, "a kill costs no more than the trials that are running"


@pytest.mark.parametrize(
    ("number", "code", "told"), [(signal.SIGTERM, 0, "ended by SIGTERM"), (signal.SIGINT, 130, "interrupted")]
)
def test_sigterm_and_ctrl_c_stop_it_cleanly(tmp_path: Path, number: signal.Signals, code: int, told: str) -> None:
    file = write(tmp_path, steps=2000)
    process = start("run", file)
    wait_for_trials(process, file, 1)
    workers = workers_of(process)
    for each in (process.pid, *workers):  # all at once, as a cluster does
        os.kill(each, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"Stopped: {told}. Nothing is lost; go on with:\n  autoinit study resume {file}" in out
    assert "Traceback" not in err
    assert "tried once more" not in err, "a trial that was stopped has not lost an attempt"
    assert not any(map(alive, workers))
    assert states(file).get("mlp", {"running": 0})["running"] == 0


def test_budget_ends_a_run_and_the_next_one_goes_on(tmp_path: Path) -> None:
    file = write(tmp_path, steps=3000)
    file.write_text(file.read_text().replace("seeds = [0, 1]", "seeds = [0]").replace("lr_steps = [1]", ""))
    assert "the budget is spent" in run("run", file, "--budget", "4s", "--workers", "1")
    assert states(file).get("mlp", {"done": 0})["done"] < 7
    assert "Done." in run("resume", file, "--workers", "1")
    assert states(file)["mlp"]["done"] == 7


def test_resume_needs_a_study(tmp_path: Path) -> None:
    assert "small" in run("resume", write(tmp_path), code=2)


def test_second_coordinator_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, steps=3000)
    process = start("run", file)
    try:
        deadline = time.monotonic() + 60
        while not workers_of(process) and time.monotonic() < deadline:
            time.sleep(0.1)
        told = run("run", file, code=2)
        assert str(process.pid) in told
        assert "running" in run("status", file, "--json"), "status works beside it"
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_changed_study_is_refused_and_a_grown_one_goes_on(tmp_path: Path, finished: Path) -> None:
    file = copied(finished, tmp_path)
    before = records(file)
    text = file.read_text()
    file.write_text(text.replace("steps = 30", "steps = 31"))
    told = run("run", file, code=2)
    assert "probe.steps" in told
    assert "30" in told
    assert "31" in told
    more = text[text.index("[[tasks]]") :].replace('name = "mlp"', 'name = "wide"')
    file.write_text(text + more + "model_args = {width = 48}\n")
    run("run", file, "--workers", "1")
    assert [line for line in records(file) if line["task"] == "mlp"] == before
    assert {line["task"] for line in records(file)} == {"mlp", "wide"}


def test_task_that_cannot_be_built_fails_alone(half_broken: tuple[Path, str]) -> None:
    file, told = half_broken
    assert "weights.bin is not here" in told
    status = states(file)
    assert status["mlp"]["done"] == 21
    assert "weights.bin is not here" in status["gone"]["error"]


def test_worker_that_dies_costs_one_trial_which_is_tried_once_more(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_text(
        file.read_text()
        .replace("study_models:mlp", "study_models:Deadly")
        .replace('"lsuv"', '"orthogonal"')
        .replace("seeds = [0, 1]", "seeds = [0]")
        .replace("lr_steps = [1]", "")
    )
    told = run("run", file)
    assert "it is tried once more" in told
    lines = records(file)
    assert len(lines) == 7
    (dead,) = [line for line in lines if line["recipe"] == "orthogonal"]
    assert (dead["state"], dead["attempts"]) == ("failed", 2)
    assert "SIGKILL" in dead["reason"]
    others = [line for line in lines if line["fields"].get("base") != "orthogonal"]
    assert all(line["state"] != "failed" and line["attempts"] == 1 for line in others)


def test_trial_that_hangs_is_ended_and_tried_once_more(tmp_path: Path) -> None:
    file = write(tmp_path)
    text = file.read_text().replace("study_models:mlp", "study_models:Hanging").replace('"lsuv"', '"orthogonal"')
    file.write_text(text.replace("seeds = [0, 1]", "seeds = [0]\ntimeout = '12s'").replace("lr_steps = [1]", ""))
    told = run("run", file, "--workers", "1")
    assert "nothing was heard of it for 12 s" in told
    lines = records(file)
    (hung,) = [line for line in lines if line["recipe"] == "orthogonal"]
    assert (hung["state"], hung["attempts"]) == ("failed", 2)
    assert "nothing was heard" in hung["reason"]
    assert {line["state"] for line in lines if line["fields"].get("base") != "orthogonal"} == {"complete"}


SEARCH = """mode = "search"
trials = 20
batch = 4
"""
"""Fifteen are known beforehand; the others are proposed."""


def test_search_that_was_cut_off_proposes_the_same(tmp_path: Path) -> None:
    """It is ended by a signal in the middle of its first batch and of its second; another process goes on."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    files = []
    for folder in (whole, cut):
        folder.mkdir()
        file = write(folder, steps=100)
        text = file.read_text().replace("seeds = [0, 1]", SEARCH + "seeds = [0]").replace("random = 3", "")
        file.write_text(text)
        files.append(file)
    run("run", files[0], "--workers", "1")
    for trials in (2, 6):

        def end(progress: StudyProgress, trials: int = trials) -> None:
            if progress.done >= trials:
                os.kill(os.getpid(), signal.SIGTERM)

        ran = autoinit.run_study(read_study(files[1]), folder=cut, workers=1, report=end)
        assert ran.reason == "ended by SIGTERM"
        assert trials <= len(records(files[1])) < trials + 2, "it was cut off in the middle of a batch"
    process = start("run", files[1], "--workers", "1")
    assert "Done." in process.communicate(timeout=300)[0]
    assert len(records(files[0])) == 20
    assert timeless(records(files[1])) == timeless(records(files[0]))


def test_stacked_candidates_agree_with_single_ones(tmp_path: Path, finished: Path) -> None:
    file = write(tmp_path)
    file.write_text(file.read_text().replace("workers = 2", "workers = 1\nstack = 4"))
    run("run", file)
    assert len(records(file)) == 21
    single = {line["id"]: line for line in records(finished)}
    for line in records(file):
        other = single[line["id"]]
        assert line["curve"]["losses"] == pytest.approx(other["curve"]["losses"], rel=1e-3)


@pytest.mark.slow
def test_study_runs_on_a_ray_cluster(tmp_path: Path, finished: Path) -> None:
    pytest.importorskip("ray")
    file = write(tmp_path)
    process = start("run", file, "--executor", "ray")
    out, err = process.communicate(timeout=300)
    assert "Done." in out, err
    assert timeless(records(file)) == probes(finished)


def test_study_is_run_from_python_too(tmp_path: Path, finished: Path) -> None:
    write(tmp_path)
    plan = autoinit.Study.model_validate({**read_study(finished).model_dump(mode="json"), "long": None})
    told: list[str] = []
    ran = autoinit.run_study(plan, folder=tmp_path, workers=1, report=lambda progress: told.append(progress.news))
    assert ran.reason == ""
    assert (tmp_path / "small.db").exists()
    assert "mlp: 7 candidates" in told
    assert timeless(records(tmp_path / "small.toml")) == probes(finished)


# What a person does with a finished study


def test_exports_agree_and_merge_without_repeats(finished: Path, tmp_path: Path) -> None:
    lines, table, both = tmp_path / "a.jsonl", tmp_path / "b.parquet", tmp_path / "both.jsonl"
    assert "25 records" in run("export", finished, lines)
    assert "25 records" in run("export", finished, table)
    assert "0 records" in run("export", finished, lines), "what is there already is not written again"
    with lines.open("a") as file:
        file.write('{"schema": 2, "torn')
    told = run("merge", lines, table, "--out", both)
    assert "line 26: not JSON" in told
    assert "25 records" in told
    assert read_lines(both).lines == read_lines(table).lines


def test_report_is_one_page(finished: Path, tmp_path: Path) -> None:
    page = tmp_path / "study.html"
    assert "25 trials of 1 tasks" in run("report", finished, page)
    text = page.read_text()
    assert "mlp" in text
    assert "as_is" in text


def test_report_of_two_tasks_names_the_one_that_failed(half_broken: tuple[Path, str], tmp_path: Path) -> None:
    run("report", half_broken[0], tmp_path / "study.html")
    assert "weights.bin is not here" in (tmp_path / "study.html").read_text()


def test_layers_are_measured_before_and_after(finished: Path, tmp_path: Path) -> None:
    from autoinit.study.results import results_of
    from autoinit.study.storage import open_store

    store = open_store(f"sqlite:///{finished.parent / 'small.db'}", "small", readonly=True)
    layers = results_of(store, read_study(finished)).tasks["mlp"]["layers"]
    store.close()
    assert [layer["name"] for layer in layers["as_is"]] == ["0.weight", "2.weight", "4.weight"]
    assert layers["as_is"] != layers["best"]
    assert layers["best_recipe"] != "as_is"


def asked(port: int, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies{path}", timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_dashboard_shows_the_tasks_with_parameters_and_importances(finished: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start("dashboard", finished, "--port", str(port))
    try:
        studies: list[dict[str, Any]] = []
        deadline = time.monotonic() + 60
        while not studies and time.monotonic() < deadline:
            try:
                studies = asked(port, "")["study_summaries"]
            except OSError:
                time.sleep(0.2)
        assert [one["study_name"] for one in studies] == ["small/mlp"]
        detail = asked(port, f"/{studies[0]['study_id']}")
        importances = asked(port, f"/{studies[0]['study_id']}/param_importances")["param_importances"]
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert len(detail["trials"]) == 25
    for trial in detail["trials"]:
        params = {one["name"]: one["param_external_value"] for one in trial["params"]}
        job = json.loads(next(one["value"] for one in trial["user_attrs"] if one["key"] == "job"))
        assert params["base"] == str(job["recipe"].get("base", "as_is"))
        assert params["calibration"] == str(job["recipe"].get("calibration", "none"))
        assert [params[name] for name in ("seed", "steps", "lr_step")] == [
            str(job[name]) for name in ("seed", "steps", "lr_step")
        ]
    (found,) = importances
    assert {"base", "calibration", "lr_step", "seed", "steps", "log2_gain"} <= {one["name"] for one in found}
    assert sum(one["importance"] for one in found) == pytest.approx(1.0)


def test_a_plain_dashboard_says_what_the_study_as_a_whole_is(finished: Path) -> None:
    from optuna_dashboard._app import create_app

    url = f"sqlite:///{finished.parent / 'small.db'}"
    with database(url) as storage:
        app = create_app(storage)

        def answered(path: str) -> Any:
            return json.loads(b"".join(app({"PATH_INFO": path, "REQUEST_METHOD": "GET"}, lambda *ignored: None)))

        studies = {one["study_name"]: one["study_id"] for one in answered("/api/studies")["study_summaries"]}
        note = answered(f"/api/studies/{studies['small']}")["note"]["body"]
    assert set(studies) == {"small", "small/mlp"}
    (status,) = json.loads(run("status", finished, "--json"))["tasks"]
    assert note.startswith("## A study of autoinit\n\nThis entry holds the whole together and has no trials of its own")
    assert f"| `small/mlp` | 25 | 0 | {recipe_title(status['best'])} ({status['gain']:+.3f}" in note


def test_a_storage_of_an_earlier_version_gets_its_parameters_on_resume(finished: Path) -> None:
    database = finished.with_suffix(".db")
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        told = connection.execute("SELECT trial_id, param_name, param_value FROM trial_params ORDER BY 1, 2").fetchall()
        connection.execute("DELETE FROM trial_params")
    before = records(finished)
    assert "Done." in run("resume", finished)
    assert records(finished) == before
    with contextlib.closing(sqlite3.connect(database)) as connection:
        again = connection.execute(
            "SELECT trial_id, param_name, param_value FROM trial_params ORDER BY 1, 2"
        ).fetchall()
    assert again == told
    assert len({trial for trial, *_ in told}) == 25


def test_schema_knows_every_key_of_a_study_file(finished: Path) -> None:
    known = json.loads(run("schema"))["properties"]
    assert set(tomllib.loads(finished.read_text())) <= set(known)


def test_the_example_is_the_shipped_study_and_lies_in_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = Path(__file__).parents[2] / "studies" / "quick.toml"
    assert (Path(autoinit.__file__).parent / "study" / "example.toml").read_bytes() == shipped.read_bytes()
    with pytest.raises(SystemExit) as ended:
        main(["study", "example"])
    assert not ended.value.code
    out, err = capsys.readouterr()
    assert out == shipped.read_text()
    assert "in studies/ of the repository: save it there, or name your own" in err
    (tmp_path / "quick.toml").write_text(out)
    assert read_study(tmp_path / "quick.toml") == read_study(shipped)


def test_the_example_of_a_wheel_names_the_modules_that_the_wheel_holds(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    held = {Path(there): here for here, there in wheel["force-include"].items()}
    assert all((root / here).is_file() for here in held.values())
    printed, where = example((root / "studies" / "quick.toml").read_text(), tmp_path)
    assert where == f"{tmp_path}; "
    assert "studies/" not in printed
    for task in tomllib.loads(printed)["tasks"]:
        for key in ("model", "data"):
            module, _, name = task[key].partition(":")
            source = root / held[Path(*module.split(".")).with_suffix(".py")]
            assert re.search(rf"^(def|class) {name}\b", source.read_text(), re.MULTILINE)


def test_writing_lines_twice_changes_nothing(finished: Path, tmp_path: Path) -> None:
    found = records(finished)
    assert write_lines(tmp_path / "a.jsonl", found) == 25
    assert write_lines(tmp_path / "a.jsonl", found) == 0


def test_a_folder_that_is_none_and_a_study_that_is_none_are_told(tmp_path: Path) -> None:
    study = read_study(Path(__file__).parents[1] / "before" / "before.toml")
    with pytest.raises(autoinit.ArgumentError, match=r"folder is '.*away', which is no folder\. Make it first"):
        autoinit.run_study(study, folder=tmp_path / "away")
    with pytest.raises(autoinit.ArgumentError, match=r"study is 'night\.toml'\. Pass an autoinit\.Study"):
        autoinit.run_study("night.toml", folder=tmp_path)  # type: ignore[arg-type]
