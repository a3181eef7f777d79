"""The documents say what is so: their code runs and prints what they show, their links and commands lead somewhere."""

from __future__ import annotations

import contextlib
import io
import re
import tomllib
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

import autoinit
from autoinit.cli import main as cli

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "benchmarks/results/*.md", "studies/*.md")
    for path in ROOT.glob(pattern)
)
WRITTEN = [page for page in DOCUMENTS if page != "docs/catalogue.md" and "/results/" not in page]
"""Written by people; the others are printed by commands."""

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
VARIES = "<!-- output varies -->"
"""Before a text block that is shown and not compared: times and measured numbers differ from run to run."""

LONGEST = {"README.md": 180, "ARCHITECTURE.md": 130}
WIDEST = 200
"""Characters of a line; those of tables and blocks may be longer."""

BEFORE = {
    "docs/catalogue.md": """
import torch
from sklearn.datasets import load_digits
from torch import nn
import autoinit

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.branch, self.head = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 10)

    def forward(self, x):
        x = self.first(x)
        return self.head(x + self.branch(x.relu()).relu())

model, weight = Residual(), torch.empty(8, 4)
pixels, labels = load_digits(return_X_y=True)
data = (pixels[:320] / 16, labels[:320])
"""
}
"""What a page's blocks take for granted: a model and its data, where it is a list of calls."""

WARNINGS = {"docs/frameworks.md": "ignore:::lightning"}
"""What other libraries say of themselves on a page: a filter in the form of Python's own."""


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


# Code


@dataclass(frozen=True)
class Block:
    code: str
    printed: str | None


def blocks(page: str) -> list[Block]:
    """Returns every Python block, with the text block that follows it directly as what it must print."""
    text = text_of(page)
    fences = list(FENCE.finditer(text))
    found = []
    for fence, after in zip_longest(fences, fences[1:]):
        if fence["language"] != "python":
            continue
        shown = after is not None and after["language"] == "text" and not text[fence.end() : after.start()].strip()
        line = text[: fence.start("body")].count("\n")
        found.append(Block("\n" * line + fence["body"], after["body"] if after and shown else None))
    return found


def unfenced(page: str) -> str:
    """Returns a page without its blocks and its code in backticks."""
    return re.sub(r"`[^`\n]+`", "", FENCE.sub("", text_of(page)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.filterwarnings(WARNINGS[page])] if page in WARNINGS else [])
        for page in DOCUMENTS
        if blocks(page)
    ],
)
def test_code_runs_and_prints_what_is_shown(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    exec(BEFORE.get(page, ""), namespace)
    for block in blocks(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.code, str(ROOT / page), "exec"), namespace)
        if block.printed is not None:
            assert printed.getvalue().rstrip() == block.printed.rstrip()


def test_there_is_code_to_run() -> None:
    assert any("autoinit.select" in block.code for block in blocks("README.md"))
    pages = {page for page in DOCUMENTS if blocks(page)}
    assert pages >= {f"docs/{name}.md" for name in ("guide", "large_models", "recommender", "reference", "running")}


def test_what_is_printed_is_compared() -> None:
    compared = {page: sum(block.printed is not None for block in blocks(page)) for page in WRITTEN}
    assert {page: count for page, count in compared.items() if count} == {
        "README.md": 1,
        "docs/adapters.md": 3,
        "docs/any_training.md": 4,
        "docs/ensembles.md": 1,
        "docs/growth.md": 3,
        "docs/guide.md": 6,
        "docs/large_models.md": 3,
        "docs/learned_starts.md": 2,
        "docs/reference.md": 1,
        "docs/rows_and_heads.md": 3,
        "docs/running.md": 1,
        "docs/stale_weights.md": 1,
        "docs/tickets.md": 2,
    }


@pytest.mark.parametrize("page", WRITTEN)
def test_shown_output_follows_code(page: str) -> None:
    """A comment that spares a text block from comparison stands right before one, and a Python block before it."""
    text = text_of(page)
    for spared in re.finditer(re.escape(VARIES), text):
        assert text[spared.end() :].startswith("\n```text\n")
        assert text[: spared.start()].rstrip().endswith("```")


# Commands


def sessions(page: str) -> list[tuple[list[str], str]]:
    """Returns the words of every command whose output a page shows below it, and that output."""
    bodies = [fence["body"] for fence in FENCE.finditer(text_of(page)) if fence["language"] == "console"]
    shown = [body.removeprefix("$ autoinit ").partition("\n") for body in bodies if body.startswith("$ autoinit ")]
    return [(command.split(), output) for command, _, output in shown if output and "$" not in output]


SESSIONS = [(page, words, output) for page in WRITTEN for words, output in sessions(page)]


@pytest.mark.parametrize(("page", "words", "output"), SESSIONS, ids=lambda value: str(value)[:30])
def test_commands_print_what_is_shown(
    page: str, words: list[str], output: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        cli.main(words)
    assert capsys.readouterr().out == output


def test_the_catalogue_is_shown_in_a_session() -> None:
    assert [(page, words[0]) for page, words, _ in SESSIONS] == [("docs/guide.md", "catalogue")]


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__main__.py").exists()


@pytest.mark.parametrize("page", DOCUMENTS)
def test_every_module_that_is_run_exists(page: str) -> None:
    named = re.findall(r"python -m ((?:benchmarks|studies|autoinit)[\w.]*\w)(?!\S*…)", text_of(page))
    assert {name for name in named if not is_module(name)} == set()


def test_every_benchmark_is_in_the_table() -> None:
    """Each table of benchmarks/README.md names a folder in its head and a command of it in each row."""
    text = text_of("benchmarks/README.md")
    heads = list(re.finditer(r"python -m (benchmarks(?:\.\w+)?)\.…", text))
    named = {
        f"{head[1]}.{name}"
        for head, end in zip(heads, [*[head.start() for head in heads[1:]], text.index("## Running")], strict=True)
        for name in re.findall(r"^\| `(\w+)", text[head.end() : end], re.MULTILINE)
    }
    runnable = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in (ROOT / "benchmarks").rglob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    }
    assert named == runnable


# Links


def anchors(page: str) -> set[str]:
    """Returns the names that GitHub gives a page's headings."""
    names: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        names.add(next(name for name in [plain, *(f"{plain}-{i}" for i in range(1, 99))] if name not in names))
    return names


def links(page: str) -> list[str]:
    """Returns what the relative links of a page point to."""
    found = re.findall(r"\]\(([^)\s]+)\)", unfenced(page))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("page", [page for page in DOCUMENTS if links(page)])
def test_links_lead_somewhere(page: str) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(str(target.resolve().relative_to(ROOT.resolve())))):
            broken.append(link)
    assert broken == []


def test_the_readme_leads_to_every_page() -> None:
    wanted = {page for page in DOCUMENTS if page.startswith("docs/")} | {"ARCHITECTURE.md", "CHANGELOG.md"}
    wanted |= {"benchmarks/README.md", "studies/README.md"}
    assert wanted - {link.partition("#")[0] for link in links("README.md")} == set()


# Form


@pytest.mark.parametrize("page", LONGEST)
def test_a_front_page_is_short(page: str) -> None:
    assert len(text_of(page).splitlines()) <= LONGEST[page]


@pytest.mark.parametrize("page", WRITTEN)
def test_lines_are_not_wider_than_a_window(page: str) -> None:
    lines = FENCE.sub("", text_of(page)).splitlines()
    assert [line for line in lines if len(line) > WIDEST and not line.startswith("|")] == []


# Lists


def test_every_error_is_in_the_table() -> None:
    section = text_of("docs/reference.md").partition("## What bad input gets")[2]
    first_cells = "".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))
    errors = {name for name, home in autoinit._HOMES.items() if home == "errors"} - {"AutoInitError"}
    assert errors - set(re.findall(r"`(\w+)`", first_cells)) == set()


def test_every_public_name_is_in_the_reference() -> None:
    words = set(re.findall(r"\w+", text_of("docs/reference.md")))
    assert {name for name in dir(autoinit) if not name.startswith("_")} - words == set()


def tree() -> str:
    """Returns the part of the README's tree that shows the package."""
    section = text_of("README.md").partition("## Where things are")[2]
    return section.partition("autoinit/\n")[2].partition("\ntests/")[0]


def wings() -> set[str]:
    package = Path(autoinit.__file__).parent
    return {path.name for path in package.iterdir() if path.is_dir() and not path.name.startswith("_")}


def test_the_tree_names_every_folder_of_the_package() -> None:
    assert set(re.findall(r"(\w+)/", tree())) == wings()


def test_the_architecture_says_what_every_wing_is_for() -> None:
    assert wings() - set(re.findall(r"^\| `(\w+)/`", text_of("ARCHITECTURE.md"), re.MULTILINE)) == set()


def test_the_tree_names_every_module_of_the_root() -> None:
    modules = {path.stem for path in Path(autoinit.__file__).parent.glob("*.py") if not path.name.startswith("_")}
    lines = [line.strip().partition("  ")[0] for line in tree().splitlines() if "/" not in line]
    assert set(" ".join(lines).split()) == modules


def test_links_of_the_readme_lead_somewhere_on_a_package_index_too() -> None:
    """A wheel's long description is the README as pyproject.toml has it rewritten."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (rule,) = told["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]
    home = told["project"]["urls"]["Source"]
    links = re.findall(r"\]\(([^)]+)\)", re.sub(rule["pattern"], rule["replacement"], text_of("README.md")))
    rewritten = [link.removeprefix(f"{home}/blob/main/") for link in links if link.startswith(home)]
    assert len(rewritten) > 10
    assert [link for link in rewritten if not (ROOT / link.partition("#")[0]).exists()] == []
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
