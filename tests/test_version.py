"""How to install an extra is told as it has to be done for this installation."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path

import pytest

from autoinit.version import to_install

ROOT = Path(__file__).parent.parent
DOES_NOT = re.compile(r"pip install (torch-autoinit|mlxtend|psycopg)|Install torch-autoinit\[")


class Installed:
    def __init__(self, told: str | None) -> None:
        self._told = told

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self._told


ORIGINS = {
    "an index": (None, 'pip install "torch-autoinit[report]"'),
    "an editable clone": (
        {"url": "file:///home/me/a%20clone", "dir_info": {"editable": True}},
        'pip install -e ".[report]" in /home/me/a clone',
    ),
    "a clone": ({"url": "file:///home/me/clone", "dir_info": {}}, 'pip install ".[report]" in /home/me/clone'),
    "a wheel": (
        {"url": "file:///tmp/a.whl", "archive_info": {}},
        'pip install "torch-autoinit[report] @ file:///tmp/a.whl"',
    ),
    "a repository": (
        {"url": "https://host/a.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
        'pip install "torch-autoinit[report] @ git+https://host/a.git@abc"',
    ),
}


@pytest.mark.parametrize("origin", ORIGINS)
def test_the_command_is_that_of_where_it_was_installed_from(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told, command = ORIGINS[origin]
    installed = Installed(None if told is None else json.dumps(told))
    monkeypatch.setattr(metadata, "distribution", lambda name: installed)
    assert to_install("report") == command


def test_what_is_not_installed_at_all_is_in_its_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Installed:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert to_install("ray") == f'pip install ".[ray]" in {ROOT}'


def test_no_message_has_a_command_of_its_own() -> None:
    found = [path for path in ROOT.glob("autoinit/**/*.py") if DOES_NOT.search(path.read_text())]
    assert found == []
