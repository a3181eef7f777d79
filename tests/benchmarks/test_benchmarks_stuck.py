"""The benchmark of stuck nets: its tables, and the arithmetic of its report."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("mlxtend")

from autoinit.findings.told_apart import ALIKE, SAME
from benchmarks.common import jobs
from benchmarks.common.jobs import Row
from benchmarks.probes import stuck, stuck_nets, stuck_report

FIRST, SECOND = (
    next(name for name in stuck_nets.NETS if name.startswith(kind)) for kind in ("relu mlp", "sigmoid mlp")
)
"""A net that thresholds are chosen on and one that they are judged on, both of the same data."""


def row(name: str, seed: int, loss: float | None, share: float | None, **found: Any) -> Row:
    losses = None if loss is None else [2.3] * 18 + [loss] * 2
    told = {"found": [], "found_untold": [], "adapts": False, **found}
    return {"net": name, "seed": seed, "reference": 2.3, "losses": losses, "share": share, **told}


def test_no_family_is_on_both_sides() -> None:
    kinds = [{kind.name for kind in table} for table in (stuck_nets.CHOSEN_ON, stuck_nets.HELD_OUT)]
    assert not kinds[0] & kinds[1]
    assert min(len(stuck_nets.CHOOSING), len(stuck_nets.NETS) - len(stuck_nets.CHOOSING)) >= 60


def test_a_net_is_stuck_that_went_less_than_a_twentieth_of_the_way_under_most_seeds() -> None:
    ends = {FIRST: (2.25, 2.25, 0.3), SECOND: (2.1, 2.1, 2.3)}
    nets = stuck_report.by_net([row(name, seed, end, 1.0) for name in ends for seed, end in enumerate(ends[name])])
    assert stuck_report.ways(nets)[FIRST] == pytest.approx([0.025, 0.025, 1.0])
    assert stuck_report.stuck(nets) == {FIRST: True, SECOND: False}


def test_a_training_that_diverged_is_stuck() -> None:
    nets = stuck_report.by_net([row(FIRST, 0, None, 1.0), row(SECOND, 0, 0.3, 1.0)])
    assert stuck_report.ways(nets)[FIRST] == [-math.inf]
    assert stuck_report.stuck(nets)[FIRST]


def test_rules_are_replayed_with_the_thresholds_of_today() -> None:
    below, between = row(FIRST, 0, 2.3, ALIKE / 2), row(FIRST, 0, 2.3, ALIKE / 2, adapts=True)
    assert stuck_report.alike(below)
    assert stuck_report.untold(between)
    assert not stuck_report.told(between)
    assert stuck_report.told(row(FIRST, 0, 2.3, SAME / 2, adapts=True))
    assert not stuck_report.untold(row(FIRST, 0, 2.3, None))
    other = [["warning", "gradients vanish: …"]]
    assert stuck_report.before(row(FIRST, 0, 2.3, 1.0, found_untold=other))
    assert not stuck_report.told(row(FIRST, 0, 2.3, 1.0, found_untold=other))
    finding = [["warning", stuck_report.TOLD]]
    assert not stuck_report.before(row(FIRST, 0, 2.3, 1.0, found_untold=finding))


def test_sensitivity_and_specificity_count_nets() -> None:
    rows = [row(FIRST, 0, 2.3, ALIKE / 2), row(SECOND, 0, 0.3, ALIKE / 2)]
    found = stuck_report.verdicts(stuck_report.by_net(rows), {FIRST: True, SECOND: False}, stuck_report.untold)
    assert found == stuck_report.Verdicts(1, 1, 0, 1)
    assert found.cells() == ("1.00 (1 of 1)", "0.00 (0 of 1)")
    assert "| held out | `diagnose(model, data)` | - | 0.00 (0 of 1) |" in stuck_report.report(rows)


@pytest.mark.slow
def test_a_row_has_what_the_report_asks_for() -> None:
    one = stuck.run_one(next(name for name in stuck_nets.NETS if "wine, 3" in name), 0)
    assert len(one["losses"]) == stuck_nets.STEPS // stuck.EVERY
    assert one["losses"][-1] < 0.2 < one["share"] * 10
    assert not stuck_report.told(one)


def test_the_stored_rows_show_what_the_docs_say() -> None:
    """On the nets that thresholds were not chosen on, nine tenths of both kinds are called what they are."""
    nets = stuck_report.by_net(jobs.read_rows(stuck.PATH))
    held_out = stuck_report.halves(nets)["held out"]
    found = stuck_report.verdicts(held_out, stuck_report.stuck(nets), stuck_report.told)
    assert found.stuck + found.others >= 40
    assert found.caught >= 0.9 * found.stuck
    assert found.spared >= 0.9 * found.others
