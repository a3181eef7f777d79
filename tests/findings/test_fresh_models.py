"""Models as libraries draw them are called healthy."""

from __future__ import annotations

import pytest
from fresh_models import FRESH, ZEROED

from autoinit.diagnosis import diagnose


@pytest.mark.parametrize("name", FRESH)
def test_a_fresh_model_is_healthy(name: str) -> None:
    model, data = FRESH[name]()
    assert [finding for finding in diagnose(model, data).findings if finding.severity != "note"] == []


@pytest.mark.parametrize("name", ZEROED)
def test_layers_of_zeros_are_noted_and_no_error(name: str) -> None:
    model, data = ZEROED[name]()
    findings = diagnose(model, data).findings
    assert [
        finding.text for finding in findings if "exactly zero" not in finding.text and finding.severity != "note"
    ] == []
    (note,) = [finding for finding in findings if finding.severity == "note"]
    assert "at a constant" in note.text
