"""What is asked of a CUDA device to record work on it, told by a stand-in for torch.cuda."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoinit.errors import DeviceError
from autoinit.executors import capture
from autoinit.executors.capture import CudaCapture, _side_stream, in_words
from autoinit.task.snapshot import preserved_random

WAITED = "CUDA error: operation not permitted when stream is capturing"


class Device:
    """Stands for torch.cuda, and notes what is asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, broken: str = "") -> None:
        self.said: list[Any] = []
        self._broken = broken
        bound = inspect.signature(torch.cuda.graph.__init__)
        for name, stand_in in {
            "Stream": lambda device: self,
            "graph_pool_handle": lambda: (0, 7),
            "current_stream": lambda device: self,
            "CUDAGraph": lambda: self,
            "stream": lambda stream: self._block("stream"),
            "graph": lambda *args, **rest: self._graph(bound.bind(None, *args, **rest).arguments),
            "get_sync_debug_mode": lambda: 0,
            "set_sync_debug_mode": self.said.append,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        for name, said in (("_cuda_endAllocateToPool", "end of pool"), ("_cuda_releasePool", "pool released")):
            stand_in = functools.partial(self._note, said)
            monkeypatch.setattr(torch._C, name, stand_in, raising=False)
        _side_stream.cache_clear()
        monkeypatch.setattr(capture, "_side_stream", functools.cache(_side_stream.__wrapped__))

    def _note(self, said: str, *given: Any) -> None:
        self.said.append((said, *given))

    def wait_stream(self, other: Any) -> None:
        self.said.append("wait")

    def replay(self) -> None:
        self.said.append("replay")

    @contextmanager
    def _block(self, name: str) -> Iterator[None]:
        self.said.append(name)
        try:
            yield
        finally:
            self.said.append(f"end of {name}")

    @contextmanager
    def _graph(self, given: dict[str, Any]) -> Iterator[None]:
        self.said.append((given["pool"], given["capture_error_mode"]))
        try:
            yield
        finally:
            if self._broken:
                raise RuntimeError(self._broken)


CUDA = torch.device("cuda", 0)


class Generator:
    """Stands for a device's generator."""

    state = "recording"

    def graphsafe_get_state(self) -> str:
        return "fresh"

    def graphsafe_set_state(self, state: str) -> None:
        self.state = state


def test_a_rehearsal_may_not_wait_for_the_device_where_it_is_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    recording = CudaCapture(CUDA)
    recording.rehearse(lambda: device.said.append("work"), strict=False)
    assert device.said == ["wait", "stream", "work", "end of stream", "wait"]
    device.said.clear()
    with pytest.raises(ValueError, match="no"):
        recording.rehearse(lambda: int("no"), strict=True)
    assert device.said == ["wait", "stream", "error", 0, "end of stream", "wait"]


def test_a_strict_rehearsal_takes_the_branch_of_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers' causal masks do, which look at their values except where a stream is being recorded."""
    Device(monkeypatch)
    asked: list[bool] = []
    before = torch.cuda.is_current_stream_capturing
    for strict in (True, False):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        CudaCapture(CUDA).rehearse(lambda: asked.append(torch.cuda.is_current_stream_capturing()), strict=strict)
        assert not torch.cuda.is_current_stream_capturing()
    assert asked == [True, False]
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", before)


def test_all_recordings_of_a_device_are_on_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    Device(monkeypatch)
    made: list[Any] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or object())
    assert CudaCapture(CUDA)._stream is CudaCapture(CUDA)._stream
    assert made == [CUDA]


def test_a_recording_is_made_in_the_pool_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    made, replay = CudaCapture(CUDA).record(lambda: 3)
    assert made == 3
    assert device.said == ["stream", ((0, 7), "thread_local"), "end of stream"]
    replay()
    assert device.said[-1] == "replay"


def test_a_recording_that_fails_gives_the_pool_back_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, broken="CUDA error: operation failed due to a previous error during capture")

    def work() -> None:
        raise RuntimeError(WAITED)

    with pytest.raises(RuntimeError) as caught:
        CudaCapture(CUDA).record(work)
    released = [("end of pool", 0, (0, 7)), ("pool released", 0, (0, 7))]
    assert device.said[1:] == [((0, 7), "thread_local"), "end of stream", *released]
    assert f" at test_capture.py:{work.__code__.co_firstlineno + 1}" in in_words(caught.value)


def test_a_device_that_no_longer_draws_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    Device(monkeypatch)
    recording = CudaCapture(CUDA)
    with preserved_random():
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
        rand = torch.rand
        monkeypatch.setattr(torch, "rand", lambda count, device: rand(count))
        recording.recover()

        def fail(count: int, device: torch.device) -> Tensor:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")

        monkeypatch.setattr(torch, "rand", fail)
        monkeypatch.setattr(torch, "Generator", lambda device: Generator())
        monkeypatch.setattr(torch.cuda, "default_generators", [own := Generator()])
        with pytest.raises(DeviceError, match="Offset increment"):
            recording.recover()
        assert own.state == "fresh"

        def mended(count: int, device: torch.device) -> Tensor:
            return rand(count) if own.state == "fresh" else fail(count, device)

        own.state = "recording"
        monkeypatch.setattr(torch, "rand", mended)
        recording.recover()


def test_the_line_that_waits_is_named() -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        raise RuntimeError("called a synchronizing CUDA operation")

    line = step.__code__.co_firstlineno + 1
    with pytest.raises(RuntimeError) as caught:
        step(nn.Linear(2, 2), None)
    assert f" at test_capture.py:{line}, which a graph cannot hold" in in_words(caught.value)
