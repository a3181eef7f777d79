"""The commands `autoinit recommend` and `autoinit recommender`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from once import few_trees, known, shipped_recommender

import autoinit
from autoinit.cli import main as cli
from autoinit.knowledge.files import read_knowledge, write_knowledge
from autoinit.knowledge.tables import Knowledge

FACTORIES = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(4)]
    return nn.Sequential(*layers, nn.Linear(8, 2))

def on_meta():
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(800, 800), nn.ReLU(), nn.Linear(800, 10))

def data():
    x = torch.randn(512, 8, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a module of factories, and nothing of the person's own."""
    (tmp_path / "recommended.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOINIT_DATA", str(tmp_path / "own"))
    monkeypatch.setattr("autoinit.knowledge.files.shipped", known)
    return tmp_path


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> Knowledge:
    """What ships, were it of 24 tasks: to write all that ships takes seconds."""
    of_few = Knowledge(known().tasks[:24])
    monkeypatch.setattr("autoinit.knowledge.files.shipped", lambda: of_few)
    return of_few


def run(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments])
    assert (ended.value.code or 0) == code


def test_recommend_prints_its_answer_and_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    shipped_recommender()
    run("recommend", "recommended:model", "--data", "recommended:data", "-k", "3")
    told = capsys.readouterr().out
    run("recommend", "recommended:model", "--data", "recommended:data", "-k", "3", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["why"] in told
    assert "own weights" in told
    assert found["best"] == "as_is"
    assert len(found["table"]) == 4
    assert autoinit.Recipe.from_data(found["fields"]).key == found["best"]


def test_recommend_takes_a_model_without_weights_and_a_list_of_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    shipped_recommender()
    run("recommend", "recommended:on_meta", "--recipe", "he_normal", "--recipe", "xavier_uniform", "--json")
    found = json.loads(capsys.readouterr().out)
    assert {row["recipe"] for row in found["table"]} == {"as_is", "he_normal", "xavier_uniform"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recommend", "recommended:model", "-k", "0"], "k must be a whole number from 1"),
        (["recommend", "recommended:nothing"], "nothing"),
        (["recommend", "recommended:model", "--recommender", "none.npz"], "none.npz cannot be read"),
        (["recommender", "fit", "none.jsonl"], "none.jsonl cannot be read"),
        (["recommender", "fit", "--out", "mine.pkl"], "ends in .npz or .jsonl.xz"),
        (["recommender", "evaluate", "--split", "famly"], "Did you mean 'family'?"),
        (["recommender", "fit", "--without-shipped"], "0 tasks"),
    ],
)
def test_bad_input_is_one_message(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(*arguments, code=2)
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("autoinit: ")
    assert "Traceback" not in error


def test_own_knowledge_is_added_to_the_shipped_and_can_stand_alone(
    folder: Path, little: Knowledge, capsys: pytest.CaptureFixture[str]
) -> None:
    write_knowledge(folder / "mine.jsonl.xz", Knowledge(known().tasks[18:30]))
    run("recommender", "fit", "mine.jsonl.xz", "--out", "both.jsonl.xz")
    assert read_knowledge(folder / "both.jsonl.xz").tasks == known().tasks[:30]
    with few_trees():
        run("recommender", "fit", "mine.jsonl.xz", "--without-shipped", "--out", "alone.npz")
    assert "12 tasks" in capsys.readouterr().out
    run("recommend", "recommended:model", "--recommender", "alone.npz", "--json")
    assert json.loads(capsys.readouterr().out)["table"]


def test_what_a_search_recorded_is_fitted_to_without_being_named(
    folder: Path, little: Knowledge, capsys: pytest.CaptureFixture[str]
) -> None:
    search = ["select", "recommended:model", "--data", "recommended:data", "--budget", "3s", "--quiet", "--record"]
    run(*search)
    assert (folder / "own" / "records.jsonl").exists()
    capsys.readouterr()
    run("recommender", "fit", "--out", "mine.jsonl.xz")
    found = read_knowledge(folder / "mine.jsonl.xz")
    assert len(found.tasks) == len(little.tasks) + 1
    assert found.tasks[-1].name == "Sequential"


def test_damaged_lines_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped_recommender()
    (folder / "records.jsonl").write_text('{"schema": 2, "torn\n')
    run("recommender", "show", "records.jsonl")
    out, err = capsys.readouterr()
    assert "records.jsonl, line 1" in err
    assert f"{len(known().tasks)} tasks" in out


def test_show_tells_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    shipped_recommender()
    run("recommender", "show")
    told = capsys.readouterr().out
    assert known().hash in told
    assert "training hours" in told
    assert all(task.family in told for task in known().tasks)


@pytest.mark.slow
def test_evaluate_compares_with_a_fixed_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With few trees a forest: what is told of how well they choose is counted the same."""
    write_knowledge(folder / "mine.jsonl.xz", Knowledge(known().tasks[:24]))
    with few_trees(8, 8):
        run("recommender", "evaluate", "mine.jsonl.xz", "--without-shipped", "--split", "dataset")
    told = capsys.readouterr().out
    assert "24 tasks" in told
    rows = {line.split("  ")[0].strip(): line.split() for line in told.splitlines()}
    assert float(rows["as-is"][1]) > 0.5
    assert rows["as-is"][4] == "0%"
    assert {"recommender", "static portfolio"} <= rows.keys()
