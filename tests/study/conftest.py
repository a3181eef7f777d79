"""The study that most tests of studies look at, or compare with."""

from __future__ import annotations

from pathlib import Path

import pytest
from once import alone, run_folder
from study_runs import copied, finished_study


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that ran to its end without anything happening to it: run once, and each process has a copy."""
    whole = run_folder(tmp_path_factory) / "whole"
    with alone(whole):
        if not (whole / "ended").exists():
            finished_study(whole)
            (whole / "ended").touch()
    return copied(whole / "small.toml", tmp_path_factory.mktemp("finished"))
