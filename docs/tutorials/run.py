"""Runs a tutorial from top to bottom in a kernel of its own and writes it with what it printed and drew.

`python docs/tutorials/run.py NOTEBOOK [TARGET]` writes over the notebook where no target is given. Times of cells,
warnings, progress and the kernel's version are left out, so that two runs differ by their numbers only.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

LONGEST = 300
"""Seconds for one cell; a whole tutorial takes some twenty on two idle cores."""


def run(source: Path, target: Path) -> None:
    """Writes a notebook with the outputs of a fresh run, whose files are left beside the target if it is another."""
    notebook = nbformat.read(source, as_version=4)
    metadata = dict(notebook.metadata)
    os.environ["PYTHONWARNINGS"] = "ignore"
    os.environ.pop("COLUMNS", None)  # a notebook's width, and not that of the terminal this was started in
    with tempfile.TemporaryDirectory() as folder:
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", connection_file=f"{folder}/kernel.json")
        place = {"metadata": {"path": folder if source == target else target.parent}}
        keep = {"record_timing": False, "coalesce_streams": True, "resources": place}
        NotebookClient(notebook, km=kernel, timeout=LONGEST, **keep).execute()
    for cell in notebook.cells:  # what a progress line leaves is no output
        if cell.cell_type == "code":
            cell.outputs = [
                out for out in cell.outputs if "image/png" in out.get("data", {}) or out.get("name") == "stdout"
            ]
    notebook.metadata = metadata
    nbformat.write(notebook, target)


if __name__ == "__main__":
    run(Path(sys.argv[1]).resolve(), Path(sys.argv[-1]).resolve())
