from __future__ import annotations

import pytest
import torch

from autoinit.device_memory import PeakMemory, free_cache, peak_memory


def test_a_cpu_does_not_count() -> None:
    with peak_memory(torch.device("cpu")) as peak:
        torch.ones(1000)
    assert peak == PeakMemory(None)


def test_the_peak_is_there_and_cached_memory_given_back_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a device: which of its functions are called, and that the peak is what it says."""
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty"))
    with pytest.raises(RuntimeError), peak_memory(torch.device("cuda")) as peak:
        raise RuntimeError
    assert peak.bytes == 7
    assert calls == ["reset", "empty"]


def test_freeing_nothing_is_no_error() -> None:
    free_cache(torch.device("cpu"))
