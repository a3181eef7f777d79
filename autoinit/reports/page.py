"""A page as one HTML file that needs nothing else: no server, no network."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from ..jsonfile import finite
from ..version import __version__, to_install
from .blocks import Page

_NEEDS = "A report is drawn by plotly and jinja2, of which {missing} is not installed: {command}"


def target(path: str | os.PathLike[str]) -> Path:
    """Returns where a report can be written.

    Raises:
        ArgumentError: no path, a folder, or a path in a folder that does not exist.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"path is the HTML file to write, such as 'report.html'. Got {path!r}.")
    found = Path(path)
    if found.is_dir():
        raise ArgumentError(f"The report's path {os.fspath(path)!r} is a folder; name a file in it: 'report.html'.")
    if not found.parent.is_dir():
        raise ArgumentError(f"The report's folder {str(found.parent)!r} does not exist; make it first.")
    return found


def render(page: Page) -> str:
    """Returns a page as HTML, with plotly.js, styles and data inside.

    Raises:
        ArgumentError: plotly or jinja2 is not installed.
    """
    environment, plotly_js = _libraries()
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    template = environment.from_string(files(__package__).joinpath("template.html.j2").read_text(encoding="utf-8"))
    figures = [dataclasses.asdict(figure) for section in page.sections for figure in section.figures]
    return str(
        template.render(
            page=page,
            # A "</script>" in a name would end the script; in JSON an escaped "<" is the same character.
            figures=json.dumps(finite(figures), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
            plotly_js=plotly_js(),
            version=__version__,
            written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        )
    )


def _libraries() -> tuple[Any, Callable[[], str]]:
    try:
        from jinja2 import Environment, StrictUndefined
        from plotly.offline import get_plotlyjs
    except ImportError as problem:
        missing = (problem.name or "one").partition(".")[0]
        raise ArgumentError(_NEEDS.format(missing=missing, command=to_install("report"))) from None
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True), get_plotlyjs


def write(path: Path, html: str) -> None:
    """Writes the file whole or not at all.

    Raises:
        ArgumentError: the system refused it: a full disk, no permission.
    """
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(html)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # as any other file; temporary ones are readable by their owner only
        os.replace(temporary, path)
    except OSError as problem:
        raise ArgumentError(f"The report {str(path)!r} cannot be written: {problem.strerror}.") from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
