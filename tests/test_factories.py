from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoinit.errors import DataError, FactoryError
from autoinit.factories import blame, called, importable, named

HERE = """
from autoinit.errors import DataError

def model(width=3):
    return ["model", width]

def broken(**kwargs):
    return 1 / 0

def refused():
    raise DataError("The data are empty.")

class Holder:
    model = staticmethod(model)

made = [1, 2]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with one module, and beside it a folder of another."""
    here, beside = tmp_path / "here", tmp_path / "beside"
    here.mkdir()
    beside.mkdir()
    (here / "found_here.py").write_text(HERE)
    (beside / "found_beside.py").write_text(HERE)
    (beside / "needs_another.py").write_text("import no_such_library_at_all\n")
    (beside / "fails_at_once.py").write_text("\n\nraise RuntimeError('no licence')\n")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield beside
    for name in set(sys.modules) - before:
        if name.startswith(("found_", "needs_", "fails_")):
            del sys.modules[name]


def test_callable_of_the_current_folder_is_found_and_called() -> None:
    assert named("found_here:model", "MODEL")() == ["model", 3]
    assert called("found_here:Holder.model", "MODEL") == ["model", 3]
    assert called("found_here:model", "MODEL", {"width": 8}) == ["model", 8]


def test_further_folder_is_importable_only_when_it_is_named(folder: Path) -> None:
    with pytest.raises(FactoryError, match=r"there is no module 'found_beside' in .*here or among the installed"):
        named("found_beside:model", "model")
    assert called("found_beside:model", "model", folders=[folder]) == ["model", 3]
    with pytest.raises(FactoryError, match=r"no module 'found_nowhere' in .*here, .*beside or among"):
        named("found_nowhere:model", "model", [folder])


def test_relative_folder_stays_importable_after_a_change_of_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importable([Path("../beside")])
    monkeypatch.chdir("/")
    assert called("found_beside:model", "model") == ["model", 3]


def test_current_folder_comes_before_the_further_one_and_neither_twice(folder: Path) -> None:
    (folder / "found_here.py").write_text("def model():\n    return 'the wrong one'\n")
    importable([folder])
    length = len(sys.path)
    importable([folder])
    assert called("found_here:model", "model", folders=[folder]) == ["model", 3]
    assert len(sys.path) == length


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("found_here", "tasks[0].model is 'found_here'; give module:callable, such as train:make_model."),
        ("found_here:", "give module:callable"),
        ("lib/found_here.py:model", "name the module and not its file: lib.found_here:model."),
        ("found_here:mdel", "tasks[0].model found_here:mdel: there is no 'mdel'. Did you mean 'model'?"),
        ("found_here:made", "tasks[0].model found_here:made is a list; name a callable that returns it."),
        ("needs_another:model", "importing needs_another raised ModuleNotFoundError: No module named 'no_such_"),
        ("fails_at_once:model", "importing fails_at_once raised RuntimeError: no licence (fails_at_once.py, line 3)"),
    ],
)
def test_what_cannot_be_found_is_explained(spec: str, message: str, folder: Path) -> None:
    with pytest.raises(FactoryError, match=re.escape(message)):
        named(spec, "tasks[0].model", [folder])


def test_what_the_callable_raises_is_told_with_its_arguments_and_the_users_line(folder: Path) -> None:
    line = HERE.splitlines().index("    return 1 / 0") + 1
    with pytest.raises(FactoryError) as raised:
        called("found_beside:broken", "model", {"width": 8, "kind": "deep"}, [folder])
    calling = "model: calling found_beside:broken(width=8, kind='deep') raised ZeroDivisionError: division by zero"
    assert str(raised.value) == f"{calling} (found_beside.py, line {line})"
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    with pytest.raises(FactoryError, match=r"calling found_here:broken without arguments raised ZeroDivisionError"):
        called("found_here:broken", "model")


def test_unknown_argument_is_told_with_the_call() -> None:
    with pytest.raises(FactoryError, match=r"calling found_here:model\(depth=2\) raised TypeError: .*'depth'"):
        called("found_here:model", "model", {"depth": 2})


def test_own_error_goes_through_as_it_is() -> None:
    with pytest.raises(DataError, match=r"^The data are empty\.$"):
        called("found_here:refused", "data")


def test_blame_prefers_the_users_line_to_the_librarys(folder: Path) -> None:
    (folder / "found_calls.py").write_text("import json\n\ndef data():\n    return json.loads('{')\n")
    with pytest.raises(FactoryError, match=r"raised JSONDecodeError: .*\(found_calls\.py, line 4\)$"):
        called("found_calls:data", "data", folders=[folder])
    with pytest.raises(ValueError, match="Expecting") as raised:
        named("found_calls:data", "data", [folder])()
    assert "decoder.py" in blame("calling", raised.value), "where no folder is the user's, the last line counts"
    assert blame("calling", raised.value, [folder]).endswith("(found_calls.py, line 4)")
