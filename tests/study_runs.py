"""Studies of digits, run by the command in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from autoinit.lines import MEASURED_TIMES, read_lines

HERE = Path(__file__).parent

FILE = """
name = "small"
seeds = [0, 1]
lr_steps = [1]
workers = 2

[probe]
steps = {steps}

[space]
recipes = ["he_normal", "xavier_uniform", "lsuv"]
random = 3
{more}

[[tasks]]
name = "mlp"
family = "mlp"
dataset = "digits"
model = "study_models:mlp"
data = "study_models:digits"
batch_size = 32
loss = "cross_entropy"
optimizer = "torch.optim:SGD"
optimizer_args = {{lr = 0.05}}
"""


def write(folder: Path, steps: int = 30, more: str = "", tasks: str = "") -> Path:
    (folder / "study_models.py").write_text((HERE / "study_models.py").read_text())
    file = folder / "small.toml"
    file.write_text(FILE.format(steps=steps, more=more) + tasks)
    return file


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "autoinit", "study", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def run(*arguments: str | Path, code: int = 0) -> str:
    process = start(*arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return out + err


def records(file: Path) -> list[dict[str, Any]]:
    out = file.with_suffix(".jsonl")
    out.unlink(missing_ok=True)
    run("export", file, out)
    read = read_lines(out)
    assert not read.skipped
    assert not read.repeated
    return read.lines


def timeless(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in MEASURED_TIMES} for line in lines]


def states(file: Path) -> dict[str, dict[str, Any]]:
    return {task["task"]: task for task in json.loads(run("status", file, "--json"))["tasks"]}


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == process.pid:
            found.append(int(folder.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
