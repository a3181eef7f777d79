"""What each of these trainings is: a model, how its owner trains it, and what its metric is. Lower is always better.

`train(model, seed)` is a generator that trains the model from its present weights and yields one number after each
step. Whatever it needs beside the model (optimizers, environments, buffers, a target network) it makes itself, out of
the seed, so that two trainings with one seed are one training. `validate(model, part)` is the held-back value: of one
part of what is held back while candidates are searched (0), and of another at the end (1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Train = Callable[[Any, int], Iterator[float | Tensor]]
Validate = Callable[[Any, int], float | Sequence[float]]


@dataclass(frozen=True)
class Training:
    """One training that is no single loss.

    Attributes:
        name: of the row in tables.
        build: makes the model as its owner would, from a seed.
        train: trains it, and yields the metric after each step.
        example: what its architecture is read from: an input, a batch, or a callable (model) -> scalar tensor that
            touches every part.
        validate: the held-back value.
        literature: the catalogue's name of what its literature starts from.
        steps: of the whole training that a start is judged by.
        budget: steps that a selection has.
        about: what is trained on what, and what the metric is, in a line.
    """

    name: str
    build: Callable[[int], nn.Module]
    train: Train
    example: Any
    validate: Validate
    literature: str
    steps: int
    budget: int
    about: str
