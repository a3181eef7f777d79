"""What tests of lottery tickets share: networks, rows, and a check that a mask holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoinit.task.task import Task, example_task
from autoinit.tracing.tracing import trace_task


def dense(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(8, 24), nn.ReLU(), nn.BatchNorm1d(24), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 3)
        )


def data(rows: int = 96) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 8, generator=generator)
    y = (x[:, :3] + 0.3 * torch.randn(rows, 3, generator=generator)).argmax(1)
    return list(zip(x.split(32), y.split(32), strict=True))


WEIGHTS = ["0.weight", "3.weight", "5.weight"]


class Plain(nn.Module):
    """VGG-11's eight convolutions and its head, an eighth as wide, without biases, on 32×32 images."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width, pool in (
            (8, True),
            (16, True),
            (32, False),
            (32, True),
            (64, False),
            (64, True),
            (64, False),
            (64, True),
        ):
            layers.append(nn.Conv2d(before, width, 3, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width)] * norm + [nn.ReLU()] + [nn.MaxPool2d(2)] * pool
            before = width
        self.body, self.head = nn.Sequential(*layers), nn.Linear(64, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


def images() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(8, 3, 32, 32, generator=generator), torch.randint(10, (8,), generator=generator))]


def task_of(model: nn.Module, batches: object) -> Task:
    return example_task(model, batches, whole=True)


def graph_of(task: Task):  # type: ignore[no-untyped-def]
    return trace_task(task)
