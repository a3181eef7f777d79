"""The command for a person with a GPU: it runs from end to end on a CPU, and what breaks or hangs in it is said."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("transformers")

from benchmarks.common.jobs import read_rows
from benchmarks.common.peaks import peak_beyond, watched
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import runner
from benchmarks.gpu.figures import YES, Wanted, figure, in_words, machine_line, page, summary, table, troubles
from benchmarks.gpu.models import GPT2, RESNET50, SMALL, Subject
from benchmarks.gpu.runner import LATE, SECTIONS, WHOLE, Section, run_sections
from benchmarks.gpu.session import Options, Session, describe_machine
from benchmarks.gpu.steps import plain_pace
from benchmarks.gpu.timing import split_time, timer_of
from benchmarks.speed import memory

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
BY_NAME = {spec.name.split(",")[0]: spec for spec in SMALL}


def session_at(path: Path, seconds: float = 60.0, *, smoke: bool = True) -> Session:
    return Session("part", Options(path / "gpu.jsonl", "now", smoke, "cpu"), seconds)


def rows_at(session: Session) -> list[dict[str, Any]]:
    return read_rows(session.options.path)


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "benchmarks.gpu", "--smoke", "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    rows = read_rows(tmp_path / "gpu.jsonl")
    assert troubles(rows) == []
    assert [row["section"] for row in rows if row["kind"] == "section"] == ["machine", *SECTIONS]
    assert {row["section"] for row in rows if row["kind"] == "figure"} == set(SECTIONS)
    (machine,) = (row for row in rows if row["kind"] == "machine")
    assert machine["device_name"].startswith("CPU")
    assert machine["torch"] == torch.__version__
    figures = {(row["section"], row["figure"]): row for row in rows if row["kind"] == "figure"}
    for section in ("equality", "steps", "select"):
        assert {row["case"] for row in rows if row["section"] == section and "case" in row} == {s.name for s in SMALL}
    assert all(row["met"] for row in rows if row["section"] == "equality" and row["kind"] == "figure")
    wanted = {key: row["wanted"] for key, row in figures.items() if row["wanted"]}
    assert wanted["gpt2", "a verdict of the gate"] == "yes"
    assert wanted["gpt2", "at least a dozen candidates"] == "≥ 12"
    assert wanted["gpt2", "share outside training"] == "≤ 0.1"
    assert wanted["select", "share outside training"] == "≤ 0.2"
    assert (tmp_path / "gpu.md").read_text() == page(rows)
    assert f"Written to {tmp_path / 'gpu.jsonl'}" in ran.stdout


# What breaks


def breaks(session: Session) -> None:
    session.figure("before", "it broke", 1.0)
    raise ValueError("no such kernel")


def hangs(session: Session) -> None:
    session.figure("before", "it hung", 1.0)
    time.sleep(600)


def dies(session: Session) -> None:
    os._exit(7)


def works(session: Session) -> None:
    session.figure("this", "works", True, wanted=YES)


@pytest.mark.slow
def test_a_section_that_breaks_hangs_or_dies_says_so_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {breaks: 60.0, hangs: 8.0, dies: 60.0, works: 60.0}
    parts = {part.__name__: Section(f"{__name__}:{part.__name__}", each, "") for part, each in seconds.items()}
    monkeypatch.setattr(runner, "SECTIONS", parts)
    monkeypatch.setattr(runner, "LOADED", ("benchmarks.gpu.session", __name__))
    told = list[str]()
    options = Options(tmp_path / "gpu.jsonl", "now", device="cpu")
    rows = run_sections(list(parts), options, lambda row: told.append(f"{row['section']}: {row['status']}"))
    assert told == [
        "machine: done",
        "breaks: failed",
        "hangs: was ended after 10 s",
        "dies: died (exit code 7)",
        "works: done",
    ]
    assert troubles(rows) == [
        "breaks, all of it",
        "breaks failed",
        "hangs was ended after 10 s",
        "dies died (exit code 7)",
    ]
    assert [row["problem"] for row in rows if row["kind"] == "problem"] == ["ValueError: no such kernel"]
    assert [row["figure"] for row in rows if row["kind"] == "figure"] == ["it broke", "it hung", "works"]
    assert rows == read_rows(options.path)


@pytest.mark.parametrize(("broken", "code"), [(True, 1), (False, 0)])
def test_the_exit_code_says_whether_everything_was_measured(
    broken: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    end = {"kind": "section", "section": "draws", "status": "died", "broken": broken, "seconds": 1.0}
    monkeypatch.setattr(command, "run_sections", lambda names, options, tell: [end])
    assert command.main(["--smoke", "--only", "draws"]) == code
    assert ("draws died" in capsys.readouterr().out) is broken


def test_where_a_forked_process_cannot_use_the_device_all_are_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = list[tuple[str, str]]()

    def apart(where: str, name: str, options: Options, seconds: float, patience: float, method: str) -> str:
        started.append((name, method))
        return "failed" if method == "forkserver" else ""

    monkeypatch.setattr(runner, "_apart", apart)
    run_sections(["draws", "steps"], Options(tmp_path / "gpu.jsonl", "now"), lambda row: None)
    assert started == [("machine", "forkserver"), ("machine", "spawn"), ("draws", "spawn"), ("steps", "spawn")]


NO_DEVICE = """
import importlib, torch
def touched(*args, **kwargs):
    raise SystemExit("a device was asked for")
torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = touched
torch.accelerator.is_available = torch.accelerator.current_accelerator = touched
from benchmarks.gpu.runner import LOADED
for module in LOADED:
    importlib.import_module(module)
"""


@pytest.mark.slow
def test_what_is_loaded_before_processes_are_forked_touches_no_device() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", NO_DEVICE], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_a_section_that_is_none_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--only", "draws,speed"])
    assert "speed is no section. Allowed: equality, draws, steps" in capsys.readouterr().err


def test_the_sections_fit_into_eight_minutes() -> None:
    assert WHOLE == 480
    assert sum(section.seconds for section in SECTIONS.values()) < WHOLE - 30  # the start of processes
    assert LATE > 1


def test_a_case_that_fails_leaves_the_next_alone(tmp_path: Path) -> None:
    session = session_at(tmp_path)
    for name, _ in session.cases(["one", "two"], least=1.0):
        with session.contained(name):
            if name == "one":
                raise RuntimeError("out of luck")
            session.figure(name, "speed", 2.0)
    assert [(row["kind"], row["case"]) for row in rows_at(session)] == [("problem", "one"), ("figure", "two")]
    assert "out of luck" in table(rows_at(session))


def test_cases_without_time_are_left_out_and_said_to_be(tmp_path: Path) -> None:
    session = session_at(tmp_path, 0.0, smoke=False)
    assert list(session.cases(["one", "two"], least=1.0)) == []
    assert troubles(rows_at(session)) == ["part, one", "part, two"]
    assert "| two | **left out** |" in table(rows_at(session))


def test_cases_share_the_time_that_is_left(tmp_path: Path) -> None:
    shares = [share for _, share in session_at(tmp_path, 90.0, smoke=False).cases(["one", "two", "three"], least=1.0)]
    assert shares == pytest.approx([30.0, 45.0, 90.0], abs=1.0)


# What is said


def test_a_figure_says_what_is_wanted_and_whether_it_is_met() -> None:
    row = figure("draws", "he_normal", "ratio", 1.7, unit="×", wanted=Wanted(at_most=1.5))
    assert (row["wanted"], row["met"]) == ("≤ 1.5", False)
    assert "| he_normal | ratio | 1.7 × | ≤ 1.5 | **no** |  |" in table([row])
    assert figure("steps", "MLP", "ratio", 5.0, wanted=Wanted(at_least=5))["met"] is True
    assert figure("steps", "MLP", "ratio", math.nan, wanted=Wanted(at_least=5))["met"] is False
    assert [figure("e", "m", "equal", value, wanted=YES)["met"] for value in (True, False)] == [True, False]
    assert figure("steps", "MLP", "pace", 3.0)["met"] is None


def test_values_in_words() -> None:
    assert [in_words(value) for value in (True, False, "–", 0.12345, 2350.4)] == ["yes", "no", "–", "0.123", "2,350"]


def test_a_cell_is_one_line_without_bars() -> None:
    assert "| a b / c |" in table([figure("s", "case", "what", 1.0, note="a\nb | c")])


def test_the_summary_names_what_is_missed_and_what_was_not_measured() -> None:
    rows = [
        figure("draws", "he_normal", "ratio", 1.7, wanted=Wanted(at_most=1.5)),
        figure("draws", "orthogonal", "ratio", 1.2, wanted=Wanted(at_most=1.5)),
        {"kind": "section", "section": "steps", "status": "was ended after 9 s", "broken": True, "seconds": 9.0},
    ]
    assert summary(rows) == (
        "1 of 2 wanted figures are reached. Not: he_normal: ratio. **Not measured:** steps was ended after 9 s."
    )


def test_a_machine_without_git_is_described_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    options = Options(tmp_path / "gpu.jsonl", "now", device="cpu", commit="abc1234")
    describe_machine(Session("machine", options, 1.0))
    (row,) = read_rows(options.path)
    assert (row["commit"], row["torch"], row["smoke"]) == ("abc1234", torch.__version__, False)
    assert f"torch {torch.__version__}, Python {row['python']}, commit abc1234" in machine_line(row)


def test_rows_are_plain_json(tmp_path: Path) -> None:
    session = session_at(tmp_path)
    session.figure("case", "equal", True, wanted=YES)
    (line,) = session.options.path.read_text().splitlines()
    assert json.loads(line)["value"] is True


# What is measured


def test_eight_kinds_of_small_models_and_two_large_ones() -> None:
    assert set(BY_NAME) >= {"MLP", "CNN", "ViT", "ResNet", "LSTM", "GPT-2", "ConvNeXt", "autoencoder"}
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in spec.build(**spec.size).parameters()) for spec in (*SMALL, GPT2, RESNET50)]
    assert max(sizes[:-2]) < 5e6
    assert sizes[-2] == pytest.approx(86e6, rel=0.01)
    assert sizes[-1] == pytest.approx(23.5e6, rel=0.01)


def test_a_plain_loop_trains_a_copy(tmp_path: Path) -> None:
    subject = Subject(BY_NAME["MLP"], CPU, small=True)
    before = [parameter.detach().clone() for parameter in subject.model.parameters()]
    assert plain_pace(session_at(tmp_path), subject) > 0
    assert all(torch.equal(*pair) for pair in zip(before, subject.model.parameters(), strict=True))
    copied = subject.copied()
    subject.train(copied, 2)
    assert not torch.equal(next(copied.parameters()), before[0])


def test_training_counts_as_training_whoever_makes_the_optimizer() -> None:
    subject = Subject(BY_NAME["LSTM"], CPU, small=True)
    subject.spec.optimizer(subject.model.parameters())  # the first of a class changes its `step`
    patched = (type(subject.model), "forward"), (nn.functional, "cross_entropy"), (torch.optim.AdamW, "step")
    before = [getattr(*place) for place in patched]
    split = split_time(subject, CPU, lambda: subject.train(subject.copied(), 20))
    assert split.outside < 0.5
    assert split.wall > 0
    idle = split_time(subject, CPU, lambda: time.sleep(0.05))
    assert idle.outside == pytest.approx(1.0)
    assert idle.most.startswith("everything else 100")
    assert [getattr(*place) for place in patched] == before


@pytest.mark.parametrize(("recording", "strict", "waits"), [(False, 0, True), (True, 0, False), (False, 2, False)])
def test_a_step_that_is_being_recorded_is_not_waited_for(
    recording: bool, strict: int, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = list[Any]()
    monkeypatch.setattr(torch.cuda, "synchronize", done.append)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: recording)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: strict)
    before = time.perf_counter()
    assert timer_of(torch.device("cuda"))() >= before
    assert bool(done) is waits


class FakeCuda:
    """A device's counter of memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = 0
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device=None: self.now)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: self.most)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.start_anew)

    def start_anew(self, device: Any = None) -> None:
        self.most = self.now

    def hold(self, size: int) -> None:
        self.now = size
        self.most = max(self.most, size)


def test_a_peak_outlives_a_counter_that_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, device = FakeCuda(monkeypatch), torch.device("cuda")
    cuda.hold(900)
    cuda.hold(100)

    def work() -> None:
        cuda.hold(500)
        cuda.hold(200)
        torch.cuda.reset_peak_memory_stats(device)  # as `select` does before it measures itself
        cuda.hold(300)

    assert peak_beyond(device, work) == 400
    cuda.hold(100)
    layer = nn.Linear(2, 2)  # of 24 bytes, which count as the training's
    assert memory.peak(layer, None, device, work) == 424
    with watched(device) as peak:
        pass
    assert peak.bytes == 300
    assert torch.cuda.reset_peak_memory_stats == cuda.start_anew


def test_memory_is_not_counted_on_a_cpu() -> None:
    done = list[int]()
    assert peak_beyond(CPU, lambda: done.append(1)) is None
    assert done == [1]
