"""A page as one HTML file that needs nothing else: no server, no network.

Figures are drawn by plotly.js. Its bundle for plain charts lies beside this file, compressed, and goes into each page
so; the page unpacks it. The whole of plotly.js would make every page ten times as large.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import os
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from ..jsonfile import finite
from ..version import __version__, to_install
from .blocks import Page

_NEEDS = "A report needs jinja2, which is not installed: {command}"

PLOTLY_JS = "plotly-cartesian.min.js.gz"
"""npm's plotly.js-cartesian-dist-min 4.1.1 (gzip -9n), under the MIT licence that lies beside it."""

PACKED_FROM = 200_000
"""Characters of figures from which on they are compressed too: those of a hundred tasks take megabytes."""


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
        ArgumentError: jinja2 is not installed.
    """
    folder = files(__package__)
    template = _environment().from_string(folder.joinpath("template.html.j2").read_text(encoding="utf-8"))
    figures = [dataclasses.asdict(figure) for section in page.sections for figure in section.figures]
    drawn = json.dumps(finite(figures), ensure_ascii=False, separators=(",", ":"))
    packed = len(drawn) > PACKED_FROM
    return str(
        template.render(
            page=page,
            # A "</script>" in a name would end the script; in JSON an escaped "<" is the same character.
            figures=_base64(gzip.compress(drawn.encode(), mtime=0)) if packed else drawn.replace("<", "\\u003c"),
            packed=packed,
            plotly_js=_base64(folder.joinpath(PLOTLY_JS).read_bytes()) if figures else "",
            version=__version__,
            written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        )
    )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _environment() -> Any:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise ArgumentError(_NEEDS.format(command=to_install("report"))) from None
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


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
