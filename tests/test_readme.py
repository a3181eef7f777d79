"""The README's Python blocks run, in order, in one namespace, and print what it says they print."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import autoinit
from autoinit.cli import main as cli

README = Path(__file__).parent.parent / "README.md"
FENCE = re.compile(r"(?P<note><!--[^>]*-->\n)?```(?P<language>\w+)\n(?P<body>.*?)```", re.DOTALL)
VARIES = "output varies"
"""In a comment before a text block that is shown and not compared: times differ from run to run."""


@dataclass(frozen=True)
class Block:
    code: str
    printed: str | None


def blocks() -> list[Block]:
    """Returns every Python block, with the text block that follows it as what it must print."""
    text = README.read_text()
    fences = list(FENCE.finditer(text))
    found = []
    for i, fence in enumerate(fences):
        if fence["language"] != "python":
            continue
        after = fences[i + 1] if i + 1 < len(fences) else None
        close = after is not None and after["language"] == "text" and "#" not in text[fence.end() : after.start()]
        compare = after is not None and close and VARIES not in (after["note"] or "")
        line = text[: fence.start("body")].count("\n")
        found.append(Block("\n" * line + fence["body"], after["body"] if after and compare else None))
    return found


def sessions() -> list[tuple[list[str], str]]:
    """Returns the words of every command whose output the README shows below it, and that output."""
    bodies = [fence["body"] for fence in FENCE.finditer(README.read_text()) if fence["language"] == "console"]
    shown = [body.removeprefix("$ autoinit ").partition("\n") for body in bodies if body.startswith("$ autoinit ")]
    return [(command.split(), output) for command, _, output in shown if output and "$" not in output]


@pytest.mark.parametrize(("words", "output"), sessions(), ids=lambda value: str(value)[:30])
def test_commands_print_what_the_readme_says(
    words: list[str], output: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        cli.main(words)
    assert capsys.readouterr().out == output


def test_the_catalogue_is_shown_in_a_session() -> None:
    assert [words[0] for words, _ in sessions()] == ["catalogue"]


@pytest.mark.slow
def test_code_runs_and_prints_what_the_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in blocks():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.code, str(README), "exec"), namespace)
        if block.printed is not None:
            assert printed.getvalue().rstrip() == block.printed.rstrip()


def test_there_is_code_to_run() -> None:
    assert any("autoinit.select" in block.code for block in blocks())


def test_every_error_is_in_the_table() -> None:
    errors = {name for name, home in autoinit._HOMES.items() if home == "errors"} - {"FactoryError"}
    assert {name for name in errors if f"`{name}`" not in README.read_text()} <= {"AutoInitError"}


def test_the_tree_lists_every_module() -> None:
    tree = README.read_text().partition("## Where things are")[2]
    modules = {path.stem for path in Path(autoinit.__file__).parent.iterdir() if not path.name.startswith("_")}
    assert {name for name in modules - {"py"} if not re.search(rf"\b{name}\b", tree)} == set()
