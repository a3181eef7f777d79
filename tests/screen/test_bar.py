import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from autoinit.screen.bar import TerminalBar, lines, progress_shown

PROGRAM = """
import sys, time
from types import SimpleNamespace
from autoinit.screen.bar import TerminalBar, lines, progress_shown
with progress_shown({wanted}) as show:
    for done in (0.0, 0.05, 0.5, 0.55, 1.0):
        show(SimpleNamespace(stage="search", done=done, message="leading: " + "orthogonal, gain × 0.73, LSUV, " * 4))
        time.sleep({pause})
print("the answer")
"""


def run(wanted, pause=0.0, **how):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(wanted=wanted, pause=pause)], text=True, check=True, timeout=60, **how
    )


@pytest.mark.parametrize(("wanted", "stages"), [(True, 3), (None, 0), (False, 0)])
def test_where_there_is_no_terminal(wanted, stages):
    ran = run(wanted, capture_output=True)
    assert ran.stdout == "the answer\n"
    assert len(ran.stderr.splitlines()) == stages  # a line at each tenth of the way
    assert "\x1b" not in ran.stderr


@pytest.mark.parametrize("columns", [50, 80, 160])
def test_a_terminal_shows_one_line_that_goes_away(columns):
    import fcntl
    import struct
    import termios

    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    ran = run(None, 0.15, stderr=its, stdout=subprocess.PIPE, env={**environment, "TERM": "xterm-256color"})
    os.close(its)
    seen = os.read(ours, 100_000).decode()
    os.close(ours)
    assert ran.stdout == "the answer\n"
    assert "50%" in seen
    assert "leading: o" in seen
    assert "search" in seen
    assert seen.count("\n") == 1  # the end, after which the line is taken away: the bar never took a second one
    assert "\x1b[2K" in seen[seen.rindex("\n") :]


def test_a_notebook_shows_a_bar_without_widgets_and_takes_it_away():
    code = PROGRAM.format(wanted=None, pause=0.0)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    seen = []
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.on_cell_executed = None
    process = client.process_message

    def watched(message, cell, index):
        if message["msg_type"] in ("display_data", "update_display_data"):
            seen.append(message["content"]["data"])
        return process(message, cell, index)

    client.process_message = watched
    client.execute()
    bars = [data["text/html"] for data in seen]
    assert "<progress" in bars[0]
    assert bars[-1] == ""
    assert not any("application/vnd.jupyter.widget-view+json" in data for data in seen)
    assert [output.text for output in notebook.cells[0].outputs if output.output_type == "stream"] == ["the answer\n"]


def test_the_bar_goes_away_after_an_exception(capsys):
    def interrupted():
        with progress_shown(True) as show:
            show(SimpleNamespace(stage="search", done=0.1, message=""))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "search" in capsys.readouterr().err


def test_lines_appear_at_every_stage_and_tenth(capsys):
    show = lines()
    for stage, done in [("search", 0.0), ("search", 0.01), ("search", 0.1), ("gate", 0.1), ("gate", 1.0)]:
        show(SimpleNamespace(stage=stage, done=done, message="trial 1"))
    shown = capsys.readouterr().err.splitlines()
    assert [line.split()[:2] for line in shown] == [
        ["1%", "search"],
        ["10%", "search"],
        ["10%", "gate"],
        ["100%", "gate"],
    ]


def test_bar_leaves_stdout_alone(capsys):
    bar = TerminalBar()
    line = "wide " * 60
    try:
        bar(SimpleNamespace(stage="search", done=0.5, message="trial [1/2]"))
        print(line)
    finally:
        bar.stop()
    assert capsys.readouterr().out == line + "\n"
