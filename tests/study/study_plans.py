"""Studies as data, for the tests of what needs no file and no process."""

from __future__ import annotations

from typing import Any

from autoinit.study.spec import Study

TASK: dict[str, Any] = {
    "name": "mlp",
    "family": "mlp",
    "dataset": "digits",
    "model": "study_models:mlp",
    "data": "study_models:digits",
    "batch_size": 32,
    "loss": "cross_entropy",
    "optimizer": "torch.optim:SGD",
    "optimizer_args": {"lr": 0.05},
}


def plan(**changes: Any) -> Study:
    """A study of digits as data, for what needs no file."""
    data = {"name": "small", "tasks": [TASK], "space": {"recipes": ["he_normal", "lsuv"]}, "probe": {"steps": 4}}
    return Study.model_validate({**data, **changes})
