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


def report(what: Selection | Diagnosis | StudyResults, path: str | os.PathLike[str]) -> None:
    """Writes a report as one HTML file that opens anywhere without a network.

        selection = autoinit.select(model, data)
        autoinit.report(selection, "init.html")

    Args:
        what: the answer of `select` or `diagnose`, or a study's results.
        path: of the file; an older one is replaced.

    Raises:
        ArgumentError: nothing that a report can be made of, a path that cannot be written, or plotly or jinja2 is
            missing.
    """
    file = target(path)
    if isinstance(what, StudyResults):
        page = study_page(what)
    else:  # these load torch, which a study's results do without
        from ..diagnosis import Diagnosis
        from ..search.selection import Selection
        from .model_pages import diagnosis_page, selection_page

        if isinstance(what, Selection):
            page = selection_page(what)
        elif isinstance(what, Diagnosis):
            page = diagnosis_page(what)
        else:
            raise ArgumentError(
                "A report is made of a Selection (autoinit.select), a Diagnosis (autoinit.diagnose) or StudyResults. "
                f"Got {type(what).__name__}."
            )
    write(file, render(page))
