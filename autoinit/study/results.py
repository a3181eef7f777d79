"""What came of a study, read from its storage for a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a report is drawn without a storage
    from .spec import Study
    from .storage import Store


@dataclass(frozen=True)
class StudyResults:
    """A study and what came of it, as plain data.

    Attributes:
        study: the study's specification, as JSON values.
        tasks: task → what is known of it: "family", "dataset", "optimizer", "parameters", "error" (a traceback; None
            where the task could be built) and "layers": None, or the layers' signals under "as_is" and "best", with the
            recipe of the latter as "best_recipe". A layer has "name", "role", "forward_std" and "grad_norm".
        lines: the finished trials' record lines, in any order.
        skipped: damaged lines, each in words.
    """

    study: dict[str, Any]
    tasks: dict[str, dict[str, Any]] = field(repr=False)
    lines: list[dict[str, Any]] = field(repr=False)
    skipped: list[str] = field(default_factory=list)


def results_of(store: Store, study: Study) -> StudyResults:
    """Returns all that a report shows of a study, finished or not.

    Args:
        store: of the study; one that was opened to read will do.
        study: as its file has it now.
    """
    begun = set(store.tasks())
    tasks: dict[str, dict[str, Any]] = {}
    for spec in study.tasks:
        info = store.task_info(spec.name) if spec.name in begun else {}
        features = (info.get("described") or {}).get("features", {})
        tasks[spec.name] = {
            "family": spec.family,
            "dataset": spec.dataset,
            "optimizer": spec.optimizer.rpartition(":")[2],
            "parameters": features.get("parameters"),
            "error": info.get("error"),
            "layers": info.get("layers"),
        }
    return StudyResults(study.model_dump(mode="json"), tasks, list(store.lines()), [])
