from __future__ import annotations

import contextlib
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from databases import all_closed, stored_trials
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from autoinit.search import storing
from autoinit.search.sampling import quiet_optuna, stored_study
from autoinit.search.storing import Copies, stored

PLACES: dict[str, BaseDistribution] = {
    "base": CategoricalDistribution(("as_is", "he_normal")),
    "log2_gain": FloatDistribution(-3.0, 3.0),
    "lr_step": IntDistribution(-2, 2),
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'trials.db'}"


def ask_and_tell(study: optuna.Study, total: float | None, *reports: float) -> None:
    trial = study.ask(PLACES)
    for step, report in enumerate(reports, 1):
        trial.report(report, step=step)
    trial.set_user_attr("recipe", "he_normal")
    study.tell(trial, total, state=TrialState.FAIL if total is None else None)


def test_what_is_copied_is_what_optuna_itself_would_have_kept(url: str) -> None:
    with all_closed(), stored(url, "one") as (study, _):
        ask_and_tell(study, -0.5, 1.0, math.nan, math.inf)
        ask_and_tell(study, None)
        ask_and_tell(study, math.inf, -math.inf)
        study.tell(study.ask(PLACES), state=TrialState.PRUNED)
        kept = study.trials
    found = stored_trials(url, "one")
    assert len(found) == 4
    for one, other in zip(found, kept, strict=True):
        assert repr(one.intermediate_values) == repr(other.intermediate_values)
        for what in ("number", "state", "values", "params", "distributions", "user_attrs", "datetime_complete"):
            assert getattr(one, what) == getattr(other, what), what


def test_a_trial_that_runs_is_there_and_ends_in_its_place(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "EVERY", 0.0)
    with stored(url, "one") as (study, write):
        first, second = study.ask(PLACES), study.ask(PLACES)
        first.report(1.0, step=8)
        write()
        assert [(one.state.name, one.params) for one in stored_trials(url, "one")] == [
            ("RUNNING", first.params),
            ("RUNNING", second.params),
        ]
        first.report(0.5, step=16)
        study.tell(first, 0.5)
        write()
        third = study.ask(PLACES)
        study.tell(second, state=TrialState.PRUNED)
        study.tell(third, 0.25)
    found = stored_trials(url, "one")
    assert [one.state.name for one in found] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert found[0].intermediate_values == {8: 1.0, 16: 0.5}
    assert [one.number for one in found] == [0, 1, 2]


def test_a_search_costs_a_storage_few_transactions(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's own asking and telling is some forty a trial."""
    monkeypatch.setattr(storing, "EVERY", 60.0)
    commits = 0

    def count(connection: object) -> None:
        nonlocal commits
        commits += 1

    with stored(url, "one") as (study, write):
        sqlalchemy.event.listen(sqlalchemy.Engine, "commit", count)
        for total in range(50):
            ask_and_tell(study, float(total), 1.0, 2.0)
            write()
        assert commits == 0
    sqlalchemy.event.remove(sqlalchemy.Engine, "commit", count)
    assert commits == 1
    assert len(stored_trials(url, "one")) == 50


def test_a_storage_that_cannot_be_written_costs_a_warning_and_no_search(tmp_path: Path, url: str) -> None:
    with quiet_optuna():
        study = optuna.create_study()
        copies = Copies(study, *stored_study(url, "one"))
    with contextlib.closing(sqlite3.connect(tmp_path / "trials.db")) as connection:
        connection.execute("DROP TABLE trial_params")
    ask_and_tell(study, 0.5)
    copies._next = 0.0
    copies.write()
    with pytest.warns(UserWarning, match=r"trials\.db could not be written \(OperationalError: .*no such table"):
        copies.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "trials.db")) as connection:  # all of a copy, or nothing
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (0,)


ENDLESS = """
import sys, torch, autoinit
from torch import nn
torch.manual_seed(0)
data = torch.randn(256, 16), torch.randint(0, 4, (256,))
model = nn.Sequential(*[nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(6)], nn.Linear(16, 4))
autoinit.select(model, data, budget="90s", executor="sequential", storage=sys.argv[1], study_name="one")
"""


def test_a_search_that_is_killed_leaves_what_had_ended(url: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, url], env=environment)
    try:
        deadline, ended = time.monotonic() + 60, 0
        while ended < 5 and time.monotonic() < deadline:
            time.sleep(0.5)
            assert process.poll() is None
            try:
                ended = sum(one.state.is_finished() for one in stored_trials(url, "one"))
            except Exception:  # not there yet
                continue
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert ended >= 5
    assert sum(one.state.is_finished() for one in stored_trials(url, "one")) >= ended
