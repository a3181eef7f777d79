"""Processes that open a study's storage, to be talked to and killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts a Python process; `store` and its arguments are at hand."""
    header = "import sys, time, os; from autoinit.study.storage import open_store; url = sys.argv[1]\n"
    command = [sys.executable, "-W", "error", "-c", header + code, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    """Returns the next line that a process prints, or fails with its errors."""
    assert process.stdout is not None
    text = process.stdout.readline().strip()
    if not text:
        pytest.fail(process.communicate()[1])
    return text


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
