"""What calibrations cost: few passes, few looks, and the time of a dozen forward passes at most."""

from __future__ import annotations

import pytest

pytest.importorskip("mlxtend")
pytest.importorskip("transformers")

from benchmarks.speed.calibrations import SETTINGS, WANTED, Cost, Setting, costs, report


@pytest.mark.parametrize("setting", SETTINGS, ids=[setting.name for setting in SETTINGS])
def test_a_calibration_takes_few_passes_and_looks(setting: Setting) -> None:
    rounds = 3 if "GPT-2" in setting.name else 1
    found = costs([setting], rounds=rounds, width=64, device="cpu")
    assert [cost.calibration for cost in found] == list(setting.calibrations)
    for cost in found:
        assert cost.passes == (1 if cost.calibration == "admin" else 2)
        assert cost.looks <= cost.passes + 1
        assert cost.forward > 0
    if "GPT-2" in setting.name:
        assert max(cost.time for cost in found) <= WANTED


def test_the_table_has_a_line_for_each() -> None:
    found = [Cost("CNN", name, 0.01, 2, 3, 4.25, 5.0) for name in ("lsuv", "within_layer")]
    text = report(found, "cpu", 5)
    assert text.count("| CNN |") == 2
    assert "| CNN | lsuv | 10.00 | 2 | 3 | 4.2 | 5.0 |" in text
