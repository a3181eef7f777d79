"""Cores are counted, threads and memory put back, also after an error."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import autoinit
from autoinit.errors import DeviceError
from autoinit.task.machine import (
    answering_device,
    free_cache,
    ordered_sums,
    peak_memory,
    quick_collections,
    usable_cores,
    using_threads,
)


def test_there_is_one_at_least_and_no_more_than_the_machine_has() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_a_process_that_is_bound_to_one_core_has_one() -> None:
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + (
        "from autoinit.task.machine import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_the_number_is_put_back_also_after_an_error() -> None:
    before = torch.get_num_threads()
    seen = []

    def fail() -> None:
        with using_threads(before + 1):
            seen.append(torch.get_num_threads())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", ["orthogonal", "looks_linear", "butterfly_orthogonal"])
def test_a_plan_gives_the_same_bits_on_any_number_of_threads(name: str) -> None:
    def drawn(threads: int) -> torch.Tensor:
        model = nn.Sequential(nn.Linear(192, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
        with using_threads(threads):
            autoinit.apply_(model, name, torch.zeros(4, 192))
        return nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(drawn(1), drawn(2))


def test_a_cpu_does_not_count() -> None:
    with peak_memory(torch.device("cpu")) as peak:
        torch.ones(1000)
    assert peak.bytes is None


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


def test_a_block_inside_of_another_hides_nothing_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter of a stand-in: its peak is at least what is held now, and starting anew forgets what was."""
    counter = {"peak": 0}
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: counter.update(peak=1))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: counter["peak"])
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    device = torch.device("cuda")
    with peak_memory(device) as outer:
        counter["peak"] = 9
        with peak_memory(device) as inner:
            counter["peak"] = 5
        counter["peak"] = 6
    assert (outer.bytes, inner.bytes) == (9, 5)


def test_freeing_nothing_is_no_error() -> None:
    free_cache(torch.device("cpu"))


def test_collections_pass_over_what_was_there_before_and_only_inside() -> None:
    cuda = torch.device("cuda")
    assert gc.get_freeze_count() == 0
    with quick_collections(cuda):
        assert gc.get_freeze_count() > 1000
        with quick_collections(cuda):  # who has set objects aside keeps them there
            pass
        assert gc.get_freeze_count() > 1000
    assert gc.get_freeze_count() == 0
    with quick_collections(torch.device("cpu")):
        assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("told", ["", "could not be recorded. Restart the process."])
def test_a_device_that_no_longer_answers_is_told_with_what_to_do(told: str) -> None:
    """Whatever puts things back on the way out fails too, in the place of the error that says why."""

    def putting_back() -> None:
        try:
            raise DeviceError(told) if told else torch.AcceleratorError("CUDA error: device-side assert triggered")
        finally:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    with (
        pytest.raises(
            DeviceError, match=told or "no longer answers .*assert triggered.* Restart the process; with CUDA"
        ),
        answering_device(),
    ):
        putting_back()
    with pytest.raises(RuntimeError, match="of its own"), answering_device():
        raise RuntimeError("an error of its own")


def test_sums_are_in_order_inside_alone() -> None:
    before = torch.backends.cudnn.deterministic
    with pytest.raises(ZeroDivisionError), ordered_sums():
        _ = 1 // (not torch.backends.cudnn.deterministic)
    assert torch.backends.cudnn.deterministic == before
