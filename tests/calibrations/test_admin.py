"""Admin on a device: the host reads what a pass has measured once, at its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from autoinit.calibrations import admin as module
from autoinit.calibrations.admin import admin
from autoinit.calibrations.subject import Subject
from autoinit.task.task import Task, example_task
from autoinit.tracing.tracing import trace_task

X, Y = torch.randn(12, 6, 16), torch.randint(3, (12,))


class PostNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(x).mean(1))
        return found


class Away(Task):
    """The forward pass on the meta device, which refuses whoever asks for a number."""

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        found: Tensor = self.model(batch[0].to("meta"))
        return found


def test_the_host_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    task = example_task(PostNorm(), [(X, Y)], loss=nn.functional.cross_entropy, whole=True)
    graph = trace_task(task)
    with task.preserved():
        expected = admin(Subject(task, graph))
    assert len(expected) == 12
    read: list[int] = []

    def fetch(tensors: Sequence[Tensor]) -> list[Tensor]:
        read.extend([len(tensors)] * bool(tensors))
        assert all(tensor.is_meta for tensor in tensors)
        return [torch.tensor(4.0) for _ in tensors]

    monkeypatch.setattr(module, "fetched", fetch)
    model = task.model.to("meta")
    away = Away(**{field.name: getattr(task, field.name) for field in dataclasses.fields(task) if field.init})
    found = admin(Subject(dataclasses.replace(away, model=model), graph))
    assert read == [6]
    assert {name: by.factor for name, by in found.items()} == dict.fromkeys(expected, 0.5)
