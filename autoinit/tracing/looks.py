"""More than one look at a model whose pass is random: what one pass leaves out is read from others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from ..graph import Graph
from ..task.snapshot import RandomStates, Snapshot, seed_generators
from .inventory import UNREACHED

SEEDS = 32
"""Looks under seeds of our own, at most."""
PATIENCE = 6
"""Of those, how many in a row may show nothing new: a layer that is left out every second time is missed by 2 %."""


def completed(
    first: Graph, before: RandomStates, model: nn.Module, snapshot: Snapshot, look: Callable[[], Graph]
) -> Graph:
    """Returns the architecture, with every parameter that some pass uses.

    Layers may be left out at random (LayerDrop, stochastic depth), or one of several be taken. Where the first look
    misses parameters and has drawn random numbers, others are taken: one in evaluation mode, in which most such models
    run as a whole, and as many as are needed under seeds of our own. The answer does not depend on the numbers that
    happened to be drawn.

    Args:
        first: what one look has shown.
        before: the random states before that.
        model: random states are put back by whoever calls this.
        snapshot: of the model, which is rewound to before each further look.
        look: reads the graph of one pass.
    """
    if not _unreached(first) or before.are_now():
        return first
    device = next(model.parameters()).device
    device = torch.device("cpu") if device.type == "meta" else device
    looks: list[Graph] = []
    missing = set(first)

    def again(seed: int, *, training: bool) -> bool:
        """Takes one more look, and returns whether it was no random one."""
        snapshot.rewind()
        seed_generators(seed, device)
        if not training:
            model.eval()
        states = RandomStates()
        try:
            graph = look()
        except Exception:  # it is we who want this pass: the model need not be made for it
            return False
        looks.append(graph)
        missing.intersection_update(_unreached(graph))
        return states.are_now()

    settled = again(0, training=False)
    dull = seed = 0
    while seed < SEEDS and dull < PATIENCE and missing - (_unreached(first) if settled else set()):
        count = len(missing)
        again(seed, training=True)
        dull = 0 if len(missing) < count else dull + 1
        seed += 1
    return _merged(looks, first)


def _unreached(graph: Graph) -> set[str]:
    return {layer.name for layer in graph.layers if layer.keep == UNREACHED}


def _merged(looks: list[Graph], first: Graph) -> Graph:
    """Returns the look that misses least, with what it misses taken from the others; the first is the last resort."""
    base = min(looks, key=lambda graph: len(_unreached(graph)), default=first)
    layers = list(base.layers)
    for at, layer in enumerate(layers):
        for graph in (*looks, first):
            if layers[at].keep == UNREACHED:
                layers[at] = graph[layer.name]
    return replace(base, layers=tuple(layers), residual_adds=max(graph.residual_adds for graph in (base, *looks)))
