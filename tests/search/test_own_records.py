"""What `select(record=True)` keeps, and where."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import autoinit
from autoinit.knowledge.lines import read_lines
from autoinit.knowledge.tables import knowledge_of
from autoinit.search.own_records import records_path


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    rows, labels = load_digits(return_X_y=True)
    return torch.tensor(rows / 16, dtype=torch.float32), torch.tensor(labels)


def selected(seed: int = 0, **more: object) -> autoinit.Selection:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))
    budget = autoinit.Budget(trials=6, steps=2000)
    return autoinit.select(model, digits(), optimizer=torch.optim.SGD, lr=0.1, budget=budget, seed=seed, **more)


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOINIT_DATA", str(tmp_path / "own"))
    return tmp_path / "own"


def test_nothing_is_kept_unless_asked_for(data_folder: Path) -> None:
    selected()
    assert not data_folder.exists()


def test_probes_that_went_the_whole_way_become_knowledge(data_folder: Path) -> None:
    selection = selected(record=True)
    read = read_lines(records_path())
    assert not read.skipped
    assert records_path() == data_folder / "records.jsonl"
    searched = selection.trials[(selection.trials["stage"] == "search") & (selection.trials["state"] == "complete")]
    assert [line["recipe"] for line in read.lines] == list(searched["recipe"])
    own, *others = knowledge_of(read.lines).tasks[0].tried
    assert own.features["init_as_is"] == 1
    assert others
    assert all(one.features["init_as_is"] == 0 and one.outcomes[0].loss is not None for one in others)
    task = knowledge_of(read.lines).tasks[0]
    assert task.features["data_classes"] == pytest.approx(3.32193)
    assert task.features["train_lr"] == -1


def test_a_second_search_adds_what_is_new_to_the_same_task(data_folder: Path) -> None:
    selected(record=True)
    once = len(read_lines(records_path()).lines)
    selected(record=True)
    assert len(read_lines(records_path()).lines) == once
    selected(seed=1, record=True)
    lines = read_lines(records_path()).lines
    assert len(lines) > once
    assert len({line["fingerprint"] for line in lines}) == 1


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOINIT_DATA", str(tmp_path / "file" / "folder"))
    with pytest.warns(UserWarning, match="AUTOINIT_DATA"):
        selection = selected(record=True)
    assert len(selection.trials) > 0


def test_the_folder_is_the_users_own_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOINIT_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert records_path() == tmp_path / "autoinit" / "records.jsonl"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert records_path() == tmp_path / ".local" / "share" / "autoinit" / "records.jsonl"
