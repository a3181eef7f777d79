"""MAML (Finn et al. 2017, arXiv:1703.03400): weights from which few digits teach an unknown class.

Five ways, one shot. A class is a digit turned by a number of quarter turns, as Omniglot's characters are there; 0, 1
and 8 look the same upside down and are turned once only. Held back are whole digits, other ones in each part. The
network is the paper's for Omniglot, cut down: three convolutions with strides, batch statistics and ReLU, and a linear
head; one inner step at rate 0.4, gradients taken through it, Adam at 0.001 outside. `MAML_BARE` has no batch
statistics, and an inner rate of 0.1.

The paper's code (github.com/cbfinn/maml, maml.py) draws convolutions by Xavier's uniform formula.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ..common.data import mnist_images
from .training import Training

WAYS, SHOTS, QUERIES = 5, 1, 5
META_BATCH, RATE = 4, 1e-3
EPISODES = 40
"""Of each held-back part."""
LEARNED, HELD_BACK = (0, 1, 2, 3, 4, 6), ((5, 8), (7, 9))
"""Digits whose classes are learned from, and those of each part. 6 and 9, one the other upside down, never meet."""
SAME_UPSIDE_DOWN = frozenset({0, 1, 8})
Episode = tuple[Tensor, Tensor]
"""What is adapted to and what is asked, class by class: [WAYS * SHOTS, 1, 14, 14] and [WAYS * QUERIES, 1, 14, 14]."""


@functools.cache
def classes(digits: tuple[int, ...]) -> Tensor:
    """Returns the images of every class of some digits, [classes, 500, 1, 14, 14]."""
    split = mnist_images()
    x, y = torch.cat([split.train_x, split.val_x]), torch.cat([split.train_y, split.val_y])
    found = []
    for digit in digits:
        images = x[y == digit]
        turns = 2 if digit in SAME_UPSIDE_DOWN else 4
        found += [images.rot90(turn, (2, 3)) for turn in range(turns)]
    return torch.stack(found)


def episode(digits: tuple[int, ...], generator: torch.Generator) -> Episode:
    """Returns a few images of some classes, at random."""
    images = classes(digits)
    ways = torch.randperm(len(images), generator=generator)[:WAYS]
    rows = torch.stack([torch.randperm(images.shape[1], generator=generator)[: SHOTS + QUERIES] for _ in ways])
    drawn = images[ways[:, None], rows]
    return drawn[:, :SHOTS].flatten(0, 1), drawn[:, SHOTS:].flatten(0, 1)


def labels(each: int) -> Tensor:
    """Returns the class of every image of an episode's side, so many of each."""
    return torch.arange(WAYS).repeat_interleave(each)


def build(batch_statistics: bool, seed: int) -> nn.Module:
    """Returns the network as torch.nn draws it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after in ((1, 32), (32, 32), (32, 32)):
            layers.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            if batch_statistics:
                layers.append(nn.BatchNorm2d(after, track_running_stats=False))
            layers.append(nn.ReLU())
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4, WAYS))


def query_loss(inner_rate: float, model: nn.Module, drawn: Episode) -> Tensor:
    """Returns the loss on what is asked after one step on what is adapted to; differentiable through that step."""
    known, asked = drawn
    weights: dict[str, Tensor] = dict(model.named_parameters())
    loss = F.cross_entropy(functional_call(model, weights, (known,)), labels(SHOTS))
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    adapted = {
        name: weight - inner_rate * gradient
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }
    return F.cross_entropy(functional_call(model, adapted, (asked,)), labels(QUERIES))


def train(inner_rate: float, model: nn.Module, seed: int) -> Iterator[Tensor]:
    """Trains by MAML, and yields the mean loss after adaptation of each batch of episodes."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    while True:
        found = [query_loss(inner_rate, model, episode(LEARNED, generator)) for _ in range(META_BATCH)]
        loss = torch.stack(found).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.detach()


def example(inner_rate: float, model: nn.Module) -> Tensor:
    """Returns the loss of the model as it is on one episode: its architecture, without an inner step."""
    known, _ = episode(LEARNED, torch.Generator().manual_seed(0))
    return F.cross_entropy(model(known), labels(SHOTS))


def validate(inner_rate: float, model: nn.Module, part: int) -> Sequence[float]:
    """Returns the loss after adaptation on each held-back episode of that part."""
    generator = torch.Generator().manual_seed(part)
    drawn = [episode(HELD_BACK[part], generator) for _ in range(EPISODES)]
    with torch.enable_grad():  # to adapt takes a gradient, wherever this is called
        return [float(query_loss(inner_rate, model, one).detach()) for one in drawn]


def training(name: str, *, batch_statistics: bool, inner_rate: float, steps: int, budget: int) -> Training:
    """Returns MAML on a network with batch statistics or without."""
    return Training(
        name=name,
        build=functools.partial(build, batch_statistics),
        train=functools.partial(train, inner_rate),
        example=functools.partial(example, inner_rate),
        validate=functools.partial(validate, inner_rate),
        literature="xavier_uniform",
        steps=steps,
        budget=budget,
        about="MAML, turned MNIST digits, 5-way 1-shot, three convolutions; the loss after adaptation",
    )


MAML = training("maml", batch_statistics=True, inner_rate=0.4, steps=400, budget=1200)
MAML_BARE = training("maml_bare", batch_statistics=False, inner_rate=0.1, steps=400, budget=1200)
