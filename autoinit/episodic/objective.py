"""The loss of one side of an episode at weights that are not the model's own, and what its targets may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import DataError
from ..task.losses import IGNORED, Loss, aligned, check_labels, classes, prediction, split
from .stream import Episode, Side

Tensors = dict[str, Tensor]


class Objective:
    """The loss of a model at given weights and buffers; the model's own stay untouched.

    Weights that several layers share are given under their first name and reach all of them. What a pass changes in
    buffers, statistics of batch normalization for example, it changes in those that are given.
    """

    def __init__(self, model: nn.Module, loss: Callable[[Any, Any], Tensor] | None) -> None:
        self._model, self._loss = model, Loss(loss)
        self._at: Tensors = {}
        self._width = 0

    def loss(self, weights: Tensors, buffers: Tensors, side: Side) -> Tensor:
        """Returns the scalar loss of one side, with gradient with regard to the weights."""
        self._at = {**weights, **buffers}
        as_model: Any = self._called
        return self._loss(as_model, side)

    def scores(self, weights: Tensors, buffers: Tensors, side: Side) -> Tensor | None:
        """Returns what the model predicts for one side, without gradient."""
        args, keywords, _ = split(side)
        self._at = {**weights, **buffers}
        with torch.no_grad():
            return prediction(self._called(*args, **keywords))

    @property
    def name(self) -> str:
        """Where the loss comes from, as "mse" or "cross_entropy"; known after the first one."""
        return self._loss.name

    @property
    def classifies(self) -> bool:
        """Whether targets are class numbers; known after the first `check`."""
        return self._width > 0

    def check(self, weights: Tensors, buffers: Tensors, episode: Episode, where: str) -> None:
        """Raises DataError where targets are no classes of the model, or the support has only one class.

        Args:
            weights: to make the first prediction with, which tells the number of classes.
            buffers: copies, which it may change.
            episode: whose targets are looked at.
            where: its name in messages.
        """
        support, query = episode
        if not self._loss.may_classify or support[1].is_floating_point():
            return
        if not self._width:
            output = self.scores(weights, buffers, support)
            found = None if output is None else classes(output, support[1])
            self._width = found[0] if found else 0
        if not self._width:
            return
        for side, name in ((support, "support"), (query, "query")):
            check_labels([side[1]], self._width, f"the {name} of {where}")
        different = torch.unique(support[1][support[1] != IGNORED])
        if len(different) < 2:
            raise DataError(
                f"the support of {where} has rows of {len(different)} class, so there is nothing to tell apart. Pass "
                "two classes or more in each episode."
            )

    def accuracy(self, scores: Tensor, labels: Tensor) -> float:
        """Returns the share of labels that have the highest score."""
        lined, labels = aligned(scores, labels)
        known = labels != IGNORED
        return float((lined.argmax(1) == labels)[known].double().mean())

    def _called(self, *args: Any, **keywords: Any) -> Any:
        return functional_call(self._model, self._at, args, keywords)
