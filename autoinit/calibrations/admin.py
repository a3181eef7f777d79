"""Adaptive model initialization of networks that normalize after each residual add (post-LN).

Liu, Liu, Gao, Chen & Han 2020, "Understanding the difficulty of training transformers", arXiv:2004.08249.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import USER_ERRORS
from ..graph import Graph
from ..plans.fill import Adjustment
from ..task.assign import read
from ..task.batches import tensors
from ..task.products import watch_products
from .fetching import fetched
from .follower import Follower
from .subject import Subject

_ADDS = frozenset({"add", "radd", "iadd"})
LARGEST = 1e4
"""An ω beyond this, or below its inverse, comes of a branch or stream that is not at work: it is passed over."""


def admin(subject: Subject) -> dict[str, Adjustment]:
    """Returns the factor 1/ω_i of the last weight (and bias) of each post-LN residual branch.

    Admin computes x_i = LN(ω_i·x_{i−1} + f_i(x_{i−1})) with ω_i² = Var[x_0] + Σ_{j<i} Var[f_j], which one forward
    pass at ω = 1 measures on each stack of blocks by itself (an encoder, a decoder). LN does not see a common factor,
    so LN(ω·x + f) = LN(x + f/ω): the model gets the same function by its weights alone, to within the epsilon of the
    normalization. What differs from the paper is that ω is no parameter of its own, which would be trained.

    A closing weight that must stay is left, as is one with a bias of which that holds. A weight that closes several
    branches (shared blocks) gets the geometric mean of their ω, and there the function is not exactly Admin's.
    Without post-LN branches there is nothing to return.
    """
    closers = _closers(subject)
    omegas = _fullest(subject, set(closers)) if closers else {}
    found: dict[str, Adjustment] = {}
    for name in filter(omegas.__contains__, closers):
        omega = math.exp(sum(map(math.log, omegas[name])) / len(omegas[name]))
        for part in (name, *_biases(subject, name)):
            if not subject.graph[part].keep:
                found[part] = Adjustment(factor=1 / omega, fold=1 / omega)
    return found


def _fullest(subject: Subject, closers: Set[str]) -> dict[str, list[float]]:
    """Returns ω of each closing weight, at each of its adds, in the pass that leaves fewest branches out.

    Every branch adds to the ω of all that come after it, so they have to be measured in one pass.
    """
    best = _measured(subject, subject.forward)
    for run in subject.further() if closers - best.keys() else ():
        try:
            best = max(best, _measured(subject, run), key=len)
        except USER_ERRORS:  # it is we who want this pass: the model need not be made for it
            continue
        if closers <= best.keys():
            break
    return best


def _measured(subject: Subject, run: Callable[[], None]) -> dict[str, list[float]]:
    """Returns ω of the weights that close a branch in a pass, which the host reads at its end, all together."""
    profile = _Profile()

    def on_product(name: str, output: Tensor) -> None:
        profile.made(output, _Branch(frozenset({name})) if subject.graph[name].post_norm else None)

    with torch.no_grad(), watch_products(subject.model, on_product), profile:
        run()
    found: dict[str, list[float]] = defaultdict(list)
    variances = fetched([variance for _, variance in profile.adds])
    for (names, _), variance in zip(profile.adds, variances, strict=True):
        omega = math.sqrt(variance.item())
        if 1 / LARGEST < omega < LARGEST:
            for name in names:
                found[name].append(omega)
    return found


def _closers(subject: Subject) -> list[str]:
    """Returns the last weights of branches that can be scaled as a whole by them."""
    closing = [layer for layer in subject.graph.layers if layer.closes_branch and layer.post_norm and layer.is_matrix]
    free = [layer.name for layer in closing if not (layer.keep or layer.normalized)]
    owners = {bias: name for name in free for bias in _biases(subject, name) if subject.graph[bias].keep}
    nonzero = fetched([read(subject.model, bias).any() for bias in owners])
    biased = {name for name, value in zip(owners.values(), nonzero, strict=True) if value}
    return [name for name in free if name not in biased]


def _biases(subject: Subject, weight: str) -> list[str]:
    """Returns the biases of a weight; those of zeros as well, for the sake of their learning rates."""
    graph: Graph = subject.graph
    return [layer.name for layer in graph.layers if layer.role == "bias" and layer.of == weight]


@dataclass(frozen=True)
class _Branch:
    """What a residual branch puts out, by the names of its last weights."""

    names: frozenset[str]


@dataclass
class _Stream:
    """The residual stream of one stack: the variance that it would have without normalizations."""

    variance: Tensor


class _Profile(Follower[_Branch | _Stream]):
    """Notes ω² at every add of a branch and a stream.

    Attributes:
        adds: of each, the branch's closing weights and ω² on the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.adds: list[tuple[frozenset[str], Tensor]] = []

    def hand_on(
        self, name: str, args: tuple[Any, ...], marks: list[_Branch | _Stream], result: Tensor
    ) -> _Branch | _Stream | None:
        """Returns the stream after an add, and what went in after any other function that keeps the shape."""
        branches = [mark for mark in marks if isinstance(mark, _Branch)]
        if name in _ADDS and branches:
            joined = _Branch(frozenset().union(*(branch.names for branch in branches)))
            others = [value for value in tensors(args) if not isinstance(self.mark_of(value), _Branch)]
            trunk = next((value for value in others if value.shape == result.shape), None)
            return joined if trunk is None else self._add(joined, trunk, result, args)
        return marks[0] if result.numel() == max(map(Tensor.numel, tensors(args)), default=0) else None

    def _add(self, branch: _Branch, trunk: Tensor, result: Tensor, args: tuple[Any, ...]) -> _Stream:
        """Notes ω² and returns the stream with the branch in it; the add may have written into either of them."""
        own = next(value for value in tensors(args) if isinstance(self.mark_of(value), _Branch))
        before, added = (trunk, result - trunk) if own is result else (result - own, own)
        mark = self.mark_of(trunk)
        stream = mark if isinstance(mark, _Stream) else _Stream(_variance(before))
        self.adds.append((branch.names, stream.variance))
        stream.variance = stream.variance + _variance(added)
        return stream


def _variance(values: Tensor) -> Tensor:
    return values.double().var(correction=0)
