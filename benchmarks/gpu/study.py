"""A study whose workers share one card, beside the same study with one worker."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import studies
from autoinit.study.coordinator import StudyProgress
from autoinit.study.runner import run_study
from autoinit.study.spec import Study

from .session import Session

WORKERS, SMOKE_WORKERS = (1, 4), (2,)
STEPS, SMOKE_STEPS = 60, 5
MLP: dict[str, Any] = {
    "name": "mlp.digits",
    "model": "networks:mlp",
    "model_args": {"features": 64, "outputs": 10, "depth": 12, "activation": "tanh"},
    "data": "real_data:training_rows",
    "data_args": {"of": "digits_rows"},
    "optimizer": "torch.optim:SGD",
    "optimizer_args": {"lr": 0.02, "momentum": 0.9},
}
GPT: dict[str, Any] = {
    "name": "gpt.prose",
    "model": "networks:CharGPT",
    "model_args": {"vocabulary": 97, "length": 32},
    "data": "real_data:training_rows",
    "data_args": {"of": "prose"},
    "batch_size": 16,
    "optimizer_args": {"lr": 3e-3},
}
RECIPES = ["he_normal", "xavier_uniform", "orthogonal", "he_uniform", "lecun_normal", "xavier_normal"]


def run(session: Session) -> None:
    """Writes the trials a second of each number of workers, and what the last makes of the first."""
    paces: dict[int, float] = {}
    counts = SMOKE_WORKERS if session.smoke else WORKERS
    by_name = {f"{count} worker{'s' * (count > 1)}": count for count in counts}
    for name, seconds in session.cases(list(by_name), least=10.0):
        with session.contained(name):
            paces[by_name[name]] = _ran(session, name, by_name[name], seconds)
    if len(paces) > 1:
        most = max(paces)
        session.figure(f"{most} workers", "trials a second over one worker's", paces[most] / paces[1], unit="×")


def _ran(session: Session, name: str, workers: int, seconds: float) -> float:
    """Returns the trials a second, from the first one that ends to the last, and writes them."""
    times: list[float] = []
    failed = 0

    def note(progress: StudyProgress) -> None:
        nonlocal failed
        failed = progress.failed
        times.extend([time.perf_counter()] * (progress.done - len(times)))

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        budget = None if session.smoke else f"{max(5, int(seconds - 4))}s"
        home, kept = Path(str(studies.__file__)).parent, f"sqlite:///{folder}/study.db"
        ran = run_study(_study(session), folder=home, storage=kept, workers=workers, budget=budget, report=note)
        wall = time.perf_counter() - start
    if failed or not times:
        raise RuntimeError(f"{failed} of the trials failed, {len(times)} ended ({ran.reason or 'all were run'}).")
    pace = (len(times) - 1) / max(1e-9, times[-1] - times[0])
    said = "; ".join(filter(None, [f"{len(times)} trials", f"{wall:.1f} s with the start of the workers", ran.reason]))
    session.figure(name, "trials a second", pace, note=said)
    return pace


def _study(session: Session) -> Study:
    steps = SMOKE_STEPS if session.smoke else STEPS
    return Study.model_validate(
        {
            "name": "on-a-device",
            "tasks": [MLP] if session.smoke else [MLP, GPT],
            "seeds": [0] if session.smoke else [0, 1],
            "space": {"recipes": RECIPES[:2] if session.smoke else RECIPES},
            "probe": {"steps": steps, "rungs": []},
        }
    )
