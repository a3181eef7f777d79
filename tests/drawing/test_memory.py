"""Remembered draws: what is recalled, and how much is kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoinit.drawing import memory as module
from autoinit.drawing.memory import (
    CALIBRATED,
    CALIBRATED_SHARE,
    ON_CPU,
    SHARE,
    SPARE,
    Drawn,
    Memory,
    room_beside,
    room_for,
)


def test_a_draw_is_recalled_for_the_same_seed_parameter_and_distribution() -> None:
    memory, draw, found = Memory(), torch.randn(3, 2), torch.zeros(3, 2)
    memory.keep(0, "a", "orthogonal", draw)
    for other in ((1, "a", "orthogonal"), (0, "b", "orthogonal"), (0, "a", "mirrored")):
        assert not memory.recall(*other, found)
    assert not memory.recall(0, "a", "orthogonal", torch.zeros(3, 2, dtype=torch.float64))
    assert not found.any()
    expected = draw.clone()
    draw.zero_()
    assert memory.recall(0, "a", "orthogonal", found)
    assert torch.equal(found, expected)


def test_no_more_is_kept_than_there_is_room_for() -> None:
    memory = Memory(room=100)
    for name in "abc":
        memory.keep(0, name, "orthogonal", torch.randn(12))  # of 48 bytes
    assert len(memory) == 2
    assert not memory.recall(0, "c", "orthogonal", torch.empty(12))


def test_a_device_gives_a_tenth_of_the_weights(monkeypatch: object) -> None:
    model = nn.Linear(100, 10, bias=False)
    assert room_for(model) == ON_CPU
    assert room_for(model.to("meta")) == int(SHARE * 4000)


def test_a_calibration_keeps_draws_up_to_a_bound() -> None:
    drawn, small, large = Drawn(), torch.randn(4), torch.empty(CALIBRATED // 4)
    drawn.remember(small, "small")
    drawn.remember(large, "large")
    assert drawn.fill(torch.empty(4), "small")
    assert not drawn.fill(large, "large")
    tight = Drawn(room=15)
    tight.remember(small, "small")
    assert not tight.fill(small, "small")


def test_a_calibration_keeps_most_draws_of_a_device_that_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(100, 10, bias=False)
    assert room_beside(model) == CALIBRATED
    assert room_beside(model.to("meta")) == int(CALIBRATED_SHARE * 4000)
    for free, room in ((1000, int(SPARE * 1000)), (10**6, int(CALIBRATED_SHARE * 4000))):
        monkeypatch.setattr(module, "free_bytes", lambda device, free=free: free)
        assert room_beside(model) == room
