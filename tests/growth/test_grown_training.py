"""A network that has learned digits goes on learning as a larger one, from where it was."""

from __future__ import annotations

import functools

import pytest
import torch
from grown import ResNet, grow, outputs, paired
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from autoinit.growth.preserved import preserved


@functools.cache
def _digits() -> tuple[Tensor, Tensor]:
    pictures, labels = load_digits(return_X_y=True)
    images = torch.tensor(pictures, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    return images, torch.tensor(labels)


def _net(width: int, blocks: int) -> nn.Module:
    torch.manual_seed(width)
    net = ResNet(width, blocks)
    net.head = nn.Linear(width, 10)
    return net


def _train(model: nn.Module, steps: int, lr: float = 0.01) -> nn.Module:
    images, labels = _digits()
    order = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    model.train()
    for _ in range(steps):
        rows = torch.randint(0, 1400, (64,), generator=order)
        optimizer.zero_grad()
        F.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    return model


def _loss(model: nn.Module) -> float:
    images, labels = _digits()
    return F.cross_entropy(outputs(model, images[1400:]), labels[1400:]).item()


@functools.cache
def _trained() -> nn.Module:
    return _train(_net(8, 1), 150, lr=0.05)


@pytest.mark.parametrize("method", ["clone", "net2net", "zero_pad"])
def test_a_wider_and_deeper_network_goes_on_where_the_trained_one_was(method: str) -> None:
    source, model = _trained(), _net(16, 3)
    images, labels = _digits()
    pair = paired(source, model, images[:32])
    before = _loss(source)
    assert before < 1.0 < _loss(model)  # the one has learned and the other has not
    grow(pair, method, noise=0.1)
    assert preserved(source, model, (images[1400:], labels[1400:])) < 1e-5
    assert _loss(model) == pytest.approx(before, rel=1e-4)
    fresh = _loss(_train(_net(16, 3), 40))
    assert _loss(_train(model, 40)) < min(before, fresh)


@pytest.mark.parametrize("method", ["select_uniform", "select_consecutive", "select_magnitude"])
def test_a_part_of_a_trained_network_can_be_trained(method: str) -> None:
    model = _net(4, 1)
    images, _ = _digits()
    grow(paired(_trained(), model, images[:32]), method)
    start = _loss(model)
    assert _loss(_train(model, 60)) < start
