"""Files that commit 31744b6 wrote, before the modules had wings, still load and mean the same."""

from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import autoinit
from autoinit.cli.main import main
from autoinit.knowledge.files import read_knowledge, write_knowledge
from autoinit.knowledge.lines import read_lines
from autoinit.knowledge.tables import knowledge_of
from autoinit.recipes.catalogue import NAMED

BEFORE = Path(__file__).parent / "before"
RECIPES = json.loads((BEFORE / "recipes.json").read_text())
WEIGHTS = json.loads((BEFORE / "weights.json").read_text())


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_it_was(name: str) -> None:
    recipe = autoinit.Recipe.from_json(json.dumps(RECIPES[name]["data"]))
    assert recipe.key == RECIPES[name]["key"]
    assert json.loads(recipe.to_json()) == RECIPES[name]["data"]
    assert name not in NAMED or NAMED[name] == recipe


def test_every_entry_of_the_catalogue_is_still_there() -> None:
    assert set(RECIPES) - set(NAMED) == {"of one's own"}


@pytest.mark.parametrize("file", WEIGHTS)
def test_a_plan_gives_the_weights_that_it_gave(file: str, tmp_path: Path) -> None:
    """Both are drawn uniform, whose bits do not depend on the processor's vector unit."""
    model = mlp()
    plan = autoinit.apply_(model, BEFORE / file)
    found = {name: (tensor.double().sum(), tensor.double().square().sum()) for name, tensor in mlp_state(model)}
    assert found == {name: pytest.approx(sums, rel=1e-12) for name, sums in WEIGHTS[file].items()}
    written = json.loads((BEFORE / file).read_text())
    plan.save(tmp_path / "again.json", provenance=written["provenance"])
    assert json.loads((tmp_path / "again.json").read_text()) == written


def mlp_state(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return list(model.state_dict().items())


def test_records_and_knowledge_are_read_as_they_were(tmp_path: Path) -> None:
    read = read_lines(BEFORE / "records.jsonl")
    assert len(read.lines) == 12
    assert not read.skipped
    knowledge = read_knowledge(BEFORE / "knowledge.jsonl.xz")
    assert knowledge.hash == knowledge_of(read.lines).hash == "7070acd16f717df4"
    write_knowledge(tmp_path / "again.jsonl.xz", knowledge)
    assert read_knowledge(tmp_path / "again.jsonl.xz") == knowledge


def test_a_study_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its file is read, its storage opened: all trials are done, none is run again, and its records are the same."""
    shutil.copy(BEFORE / "before.toml", tmp_path)
    shutil.copy(Path(__file__).parent / "study" / "study_models.py", tmp_path)
    (tmp_path / "before.db").write_bytes(lzma.decompress((BEFORE / "before.db.xz").read_bytes()))

    def command(*words: str | Path) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["study", *map(str, words)])
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert command("resume", tmp_path / "before.toml", "--quiet").startswith("Done.")
    status = json.loads(command("status", tmp_path / "before.toml", "--json"))
    assert (status["done"], status["failed"], status["total"]) == (12, 0, 12)
    command("export", tmp_path / "before.toml", tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_text() == (BEFORE / "records.jsonl").read_text()
