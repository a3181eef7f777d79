"""Builds the site's pages from what the repository shows: `mkdocs.yml` names this file.

Pages outside docs/ (README.md is the start page) are added where they stand, notebooks become pages with the output
that they carry, and every public name gets its place in the reference. Links stay as they work in the repository; here
they are turned to the pages that the same files have in the site.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import autoinit

ROOT = Path(__file__).parent.parent

OUTSIDE = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "benchmarks/README.md", "studies/README.md")
"""Pages that stand outside docs/, beside the tables of results."""

TABLES = "benchmarks/results"

FENCED = re.compile(r"(^ *```.*?^ *```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
NESTED = re.compile(r"^( +)(?=[-*] |\d+\. )", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not files of docs/."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(notebook)
        for uri, content in page_of_notebook(notebook).items():
            files.append(File.generated(config, uri, content=content))
    for name in [*OUTSIDE, *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / TABLES).glob("*.md")))]:
        files.append(File.generated(config, uri_of(name), content=(ROOT / name).read_text()))
    for uri, content in [(f"{TABLES}/index.md", list_of_tables()), *reference()]:
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Returns a page with its links turned to the site's pages and files, and nested lists indented by four columns."""
    if page.file.src_uri.startswith(TABLES):
        page.meta["search"] = {"exclude": True}  # numbers, which would bury what a reader looks for
    source = name_of(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)

    def turned(link: re.Match[str]) -> str:
        name = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        uri = uri_of(name)
        if not name.endswith(".md") and (ROOT / name).is_file() and files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, content=(ROOT / name).read_bytes()))
        return f"]({posixpath.relpath(uri, here or '.')}{link[2] or ''})"

    parts = FENCED.split(markdown)
    parts[::2] = [NESTED.sub(lambda space: 2 * space[1], LINK.sub(turned, part)) for part in parts[::2]]
    return "".join(parts)


def uri_of(name: str) -> str:
    """Returns where in the site a file of the repository is."""
    if name == "README.md":
        return "index.md"
    if (ROOT / name).is_dir():
        return f"{name}/index.md"
    return re.sub(r"\.ipynb$", ".md", name.removeprefix("docs/"))


def name_of(uri: str) -> str:
    """Returns which file of the repository a page of the site shows."""
    if uri == "index.md":
        return "README.md"
    return uri if (ROOT / uri).exists() or uri.startswith(TABLES) else f"docs/{uri}"


# Tables


def list_of_tables() -> str:
    """Returns a page with a link to each table of results, by its heading."""
    heads = {
        path.name: path.read_text().partition("\n")[0].lstrip("# ") for path in sorted((ROOT / TABLES).glob("*.md"))
    }
    return "\n".join(["# Tables", "", *(f"- [{head}]({name})" for name, head in heads.items())])


# Tutorials


def page_of_notebook(notebook: File) -> dict[str, str | bytes]:
    """Returns the page of a notebook and its pictures, each with its place in the site."""
    place = notebook.src_uri.removesuffix(".ipynb")
    shown: list[str] = []
    made: dict[str, str | bytes] = {}
    for cell in json.loads(notebook.content_string)["cells"]:
        source = "".join(cell["source"])
        shown.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{place}_{len(made) + 1}.png"
                made[picture] = base64.b64decode(data["image/png"])
                shown.append(f"![{cell['metadata'].get('alt', '')}]({posixpath.basename(picture)})")
            elif text := "".join(output.get("text", data.get("text/plain", []))).rstrip():
                shown.append(f"```text\n{text}\n```")
    return {f"{place}.md": "\n\n".join(shown)} | made


# The reference

OF_A_MODULE = {
    "heading_level": 1,
    "filters": ["!^_", "!^(?!PROPERTIES)[A-Z]+$"],  # constants that its functions compute with
}


def reference() -> Iterator[tuple[str, str]]:
    """Yields the pages of the reference, each public name on one of them."""
    names = [name for name in dir(autoinit) if not name.startswith("_")]
    kinds = {
        "functions": ("Functions", [name for name in names if name[0].islower() and name not in ("init", "testing")]),
        "classes": ("Classes", [name for name in names if name[0].isupper() and not name.endswith("Error")]),
        "errors": ("Errors", [name for name in names if name.endswith("Error")]),
    }
    for page, (title, shown) in kinds.items():
        yield f"api/{page}.md", "\n\n".join([f"# {title}", *(f"::: autoinit.{name}" for name in shown)])
    for module in ("init", "testing"):
        yield f"api/{module}.md", f"::: autoinit.{module}\n    options: {json.dumps(OF_A_MODULE)}\n"


class Examples(griffe.Extension):
    """Has the examples of docstrings shown as code: griffe knows them by the plural only."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Changes the title of an object's example."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
