import os
import pty
import subprocess
import sys

import pytest

from autoinit.screen import columns
from autoinit.screen.columns import Column, shortened, table, width, wrapped

COLUMNS = [
    Column("recipe", least=12),
    Column("lr", ">", rank=2),
    Column("steps", ">", rank=3),
    Column("last loss", ">"),
    Column("why", rank=1, least=10),
]
ROWS = [
    ("orthogonal, gain × 0.73, LSUV, head / 8", "0.001", "256", "0.0731", "it led in the search and in the finals"),
    ("own weights", "0.001", "256", "2.3026", ""),
]


def titles(text):
    return [title for title in ("recipe", "lr", "steps", "last loss", "why") if title in text.splitlines()[0]]


@pytest.mark.parametrize("most", [40, 50, 60, 80, 100, 200])
def test_a_table_fits_and_keeps_its_numbers(most):
    text = table(COLUMNS, ROWS, most)
    assert max(map(len, text.splitlines())) <= most
    assert "0.0731" in text
    assert "2.3026" in text
    assert text.splitlines()[2].startswith("orthogonal")


def test_the_least_important_column_goes_first():
    assert titles(table(COLUMNS, ROWS, 200)) == ["recipe", "lr", "steps", "last loss", "why"]
    assert titles(table(COLUMNS, ROWS, 44)) == ["recipe", "lr", "last loss", "why"]
    assert titles(table(COLUMNS, ROWS, 40)) == ["recipe", "last loss", "why"]
    assert titles(table(COLUMNS, ROWS, 24)) == ["recipe", "last loss"]


def test_room_goes_to_the_first_columns():
    row = table(COLUMNS, ROWS, 80).splitlines()[2]
    assert row.startswith("orthogonal, gain × 0.73, LSUV, head / 8 ")
    assert row.endswith("…")


def test_what_cannot_fit_is_not_cut():
    assert "0.0731" in table([Column("a name"), Column("loss", ">")], [("one", "0.0731")], 5)


@pytest.mark.parametrize(
    ("what", "most", "cut", "left"),
    [
        ("orthogonal, gain × 0.73, LSUV", 29, "end", "orthogonal, gain × 0.73, LSUV"),
        ("orthogonal, gain × 0.73, LSUV", 26, "end", "orthogonal, gain × 0.73…"),
        ("orthogonal, gain × 0.73, LSUV", 24, "end", "orthogonal, gain × 0.73…"),
        ("orthogonal", 6, "end", "ortho…"),
        ("transformer.h.0.attn.c_attn.weight", 20, "middle", "transf….c_attn.weigh"),
    ],
)
def test_shortened(what, most, cut, left):
    found = shortened(what, most, cut)
    assert len(found) <= most
    if cut == "middle":
        assert found.endswith("c_attn.weight")
        assert found.startswith("transf"[: most - 14])
    else:
        assert found == left


def test_wrapped_lines_keep_words_whole():
    said = "from the model's own weights the loss stays at 2.3, from these it reaches 0.01 in 143 steps"
    lines = wrapped(said, "    ", 40).splitlines()
    assert max(map(len, lines)) <= 40
    assert all(line.startswith("    ") for line in lines[1:])
    assert " ".join(line.strip() for line in lines) == said


SAYS = "import sys; from autoinit.screen.columns import width; print(width())"


def on_a_terminal(columns_of_it):
    """Returns what a program prints whose stdout is a terminal of so many columns."""
    import fcntl
    import struct
    import termios

    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns_of_it, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    subprocess.run([sys.executable, "-c", SAYS], stdout=its, env=environment, check=True)
    os.close(its)
    try:
        return os.read(ours, 100).decode().strip()
    finally:
        os.close(ours)


def test_width_is_that_of_the_terminal_and_unlimited_where_there_is_none(monkeypatch):
    assert on_a_terminal(93) == "93"
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    into_a_pipe = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, env=environment)
    assert into_a_pipe.stdout.strip() == "None"
    monkeypatch.setenv("COLUMNS", "72")
    assert width() == 72
    monkeypatch.setenv("COLUMNS", "5")
    assert width() == columns.NARROWEST
