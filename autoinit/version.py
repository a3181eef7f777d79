"""The version of the package, and how it was installed."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

__version__ = "0.1.0"

DISTRIBUTION = "torch-autoinit"


def to_install(extra: str) -> str:
    """Returns the command that adds an extra to this installation, as "pip install …".

    Args:
        extra: of the distribution: "report", "demo", "postgres", "ray" or "dashboard".
    """
    try:
        told = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        origin = json.loads(told) if told else {}
    except (metadata.PackageNotFoundError, ValueError):  # run from where it lies
        origin = {"url": Path(__file__).resolve().parents[1].as_uri(), "dir_info": {}}
    url = str(origin.get("url", ""))
    if "dir_info" in origin:
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f'pip install {editable}".[{extra}]" in {unquote(urlsplit(url).path)}'
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        return f'pip install "{DISTRIBUTION}[{extra}] @ {vcs.get("vcs", "git")}+{url}@{vcs.get("commit_id", "HEAD")}"'
    return f'pip install "{DISTRIBUTION}[{extra}]{f" @ {url}" if url else ""}"'
