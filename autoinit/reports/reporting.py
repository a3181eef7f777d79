"""One self-contained HTML page about a study, a selection or a diagnosis."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import ArgumentError
from ..study.results import StudyResults as StudyResults
from .page import render, target, write
from .study_page import study_page

if TYPE_CHECKING:
    from ..diagnosis import Diagnosis
    from ..search.selection import Selection


def report(what: Selection | Diagnosis | StudyResults | str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Writes a report as one HTML file that opens anywhere without a network.

    The page of a selection says in its title what was chosen, then how to use it, and shows the loss curves that
    decided, each layer's signals before and after, the leaderboard, every run and the plan; that of a diagnosis shows
    the findings, and signals and gradients layer by layer; that of a study shows what every recipe did on every task,
    and what to conclude. Figures, styles and data are inside the file, which takes 0.7 MB and more. It is light or dark
    as the reader's system is, is read on a phone as well, and can be printed.

    Nothing is computed anew: no model is run. It needs jinja2 (the extra `report`). For a study on
    disk there is `autoinit study report FILE OUT.html` on the command line, for a saved selection `autoinit report`.

    Args:
        what: The report is about this: the answer of `select` or of `diagnose`, a study's results, or the path of a
            selection that was written with `selection.save(path, full=True)`.
        path: The file has this path, in a folder that exists; an older one is replaced, whole or not at all.

    Raises:
        ArgumentError: No report can be made of `what`, the path cannot be written, or jinja2 is missing. An older file
            is left as it was.
        PlanFileError: The file that `what` names is missing or damaged, or holds a plan only.

    Example:
        >>> import autoinit, tempfile
        >>> from pathlib import Path
        >>> from sklearn.datasets import load_iris
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> diagnosis = autoinit.diagnose(model, load_iris(return_X_y=True))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = Path(folder, "weights.html")
        ...     autoinit.report(diagnosis, page)
        ...     print(page.read_text(encoding="utf-8")[:15])
        <!DOCTYPE html>
    """
    file = target(path)
    if isinstance(what, StudyResults):
        page = study_page(what)
    else:  # these load torch, which a study's results do without
        from ..diagnosis import Diagnosis
        from ..search.selection import Selection
        from .model_pages import diagnosis_page, selection_page

        if isinstance(what, (str, os.PathLike)):
            what = Selection.load(what)
        if isinstance(what, Selection):
            page = selection_page(what)
        elif isinstance(what, Diagnosis):
            page = diagnosis_page(what)
        else:
            raise ArgumentError(
                "A report is made of a Selection (autoinit.select), a Diagnosis (autoinit.diagnose), StudyResults, or "
                "the path of a selection that was saved with full=True. "
                f"Got {type(what).__name__}."
            )
    write(file, render(page))
