"""The tutorials run from end to end, in a kernel of their own, and print what they show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def code(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def printed(cell: dict[str, Any]) -> str:
    return "".join(line for output in cell["outputs"] for line in output.get("text", []))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_runs_and_prints_what_it_shows(path: Path, tmp_path: Path) -> None:
    """Outputs are compared, but for those of cells with the tag "varies": times and measured numbers."""
    target = tmp_path / path.name
    command = [sys.executable, str(FOLDER / "run.py"), str(path), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run, shown = code(target), code(path)
    assert [bool(printed(cell)) for cell in run] == [bool(printed(cell)) for cell in shown]
    same = [place for place, cell in enumerate(shown) if "varies" not in cell["metadata"].get("tags", ())]
    assert [printed(run[place]) for place in same] == [printed(shown[place]) for place in same]
    assert (tmp_path / "init.json").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_was_saved_whole(path: Path) -> None:
    """It was run from top to bottom, without warnings, and says what its picture shows."""
    cells = code(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert {output.get("name", "") for cell in cells for output in cell["outputs"]} <= {"stdout", ""}
    drawn = [cell for cell in cells if any("image/png" in output.get("data", {}) for output in cell["outputs"])]
    assert [cell["metadata"]["alt"][:8] for cell in drawn] == ["Training"]


def test_both_tutorials_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["does_not_train", "which_start"]
