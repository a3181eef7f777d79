"""What the studies of the tests train: small networks on scikit-learn's digits."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def mlp(width: int = 32) -> nn.Module:
    """Returns a tanh network for digits."""
    return nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10))


def broken() -> nn.Module:
    """Fails, as a factory does whose file is not there."""
    raise FileNotFoundError("weights.bin is not here")


class Deadly(nn.Module):
    """Ends its process at the forward pass in which its weights are orthogonal."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.inner[2].weight  # type: ignore[index,union-attr]
        product = weight @ weight.T  # type: ignore[operator]
        if torch.allclose(product / product[0, 0], torch.eye(len(product)), atol=1e-4):
            self.fate()
        return self.inner(x)  # type: ignore[no-any-return]

    def fate(self) -> None:
        """Dies as at the hands of the system when memory runs out."""
        os.kill(os.getpid(), signal.SIGKILL)


class Hanging(Deadly):
    """Waits for ever where `Deadly` ends its process."""

    def fate(self) -> None:
        """Sleeps."""
        time.sleep(3600)


def digits() -> tuple[Tensor, Tensor]:
    """Returns all 1,797 digits: rows of 64 numbers from 0 to 1, and labels.

    From scikit-learn's file, which is not loaded for it: that would take a worker longer than all it trains.
    """
    library = importlib.util.find_spec("sklearn")
    assert library is not None
    assert library.origin is not None
    table = np.loadtxt(Path(library.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    return torch.tensor(table[:, :-1] / 16, dtype=torch.float32), torch.tensor(table[:, -1].astype(np.int64))


class NotedSGD(torch.optim.SGD):
    """Plain SGD that notes each training's first step, a line in the file of the environment's TRAININGS."""

    begun = False

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        """Takes a step."""
        if not self.begun:
            self.begun = True
            with Path(os.environ["TRAININGS"]).open("a") as file:
                file.write(f"{os.getpid()}\n")
        return super().step(closure)


def counted_digits(log: str) -> tuple[Tensor, Tensor]:
    """Returns the digits, and notes in a file that a worker has loaded them."""
    with Path(log).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return digits()


def descent(model: nn.Module, seed: int) -> Any:
    """A training of one's own: plain descent on digits, written by hand."""
    rows, labels = digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    chance = torch.Generator().manual_seed(seed)
    while True:
        chosen = torch.randint(0, 1500, (32,), generator=chance)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(rows[chosen]), labels[chosen])
        loss.backward()
        optimizer.step()
        yield loss.detach()


def touched(model: nn.Module) -> Tensor:
    """What its architecture is read from."""
    rows, labels = digits()
    return nn.functional.cross_entropy(model(rows[:64]), labels[:64])


def held_back(model: nn.Module, part: int) -> list[Tensor]:
    """Its held-back values."""
    rows, labels = digits()
    places = (range(1500, 1600), range(1600, 1700))[part]
    return [nn.functional.cross_entropy(model(rows[place:][:50]), labels[place:][:50]) for place in places[::50]]
