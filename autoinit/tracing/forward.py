"""A model's own forward passes in a training step: watched, told from the loss, and repeated where they are random."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import ModelError
from ..graph import Graph
from ..task.snapshot import RandomStates, Snapshot, seed_generators
from .axes import Use, contraction, follow
from .blocks import Blocks
from .inventory import UNREACHED
from .tape import Tape
from .walk import BINARY, NORMS, UNARY, VIEWS, Edge, Node

_ELEMENTWISE = VIEWS | UNARY | BINARY | NORMS
SEEDS = 32
"""Looks under seeds of our own, at most."""
PATIENCE = 6
"""Of those, how many in a row may show nothing new: a layer that is left out every second time is missed by 2 %."""


@contextmanager
def thawed(model: nn.Module) -> Iterator[None]:
    """Lets frozen parameters take part in the graph, so that what follows them is read rightly."""
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def watched_losses(model: nn.Module, tape: Tape, run: Callable[[], Tensor | None]) -> list[Tensor]:
    """Returns what a step would have differentiated, and lets the tape see the step.

    Args:
        model: of whose modules the tape is told what they return.
        tape: begun, and not yet used.
        run: the step; it may call `backward` itself, which is then left out.

    Raises:
        ModelError: no loss with a gradient came out.
    """
    try:
        mode: Any = tape
        with _watched(model, tape.returned), mode:
            loss = run()
    except Exception:
        if not tape.losses:
            raise
        loss = None  # all is seen, or it went on after a backward pass that was left out, and missed the gradients
    losses = [*tape.losses, *([loss] if isinstance(loss, Tensor) and not tape.losses else [])]
    losses = [loss for loss in losses if loss.grad_fn is not None]
    if not losses:
        raise ModelError(
            f"The step returned {type(loss).__name__} without a gradient, so the architecture cannot be read. "
            "Return the loss tensor, computed outside torch.no_grad()."
        )
    return losses


@contextmanager
def _watched(model: nn.Module, returned: Callable[[Any], None]) -> Iterator[None]:
    """Calls `returned` with what each module that holds parameters returns, while the context lasts.

    A step need not call the model itself: it may call its encoder and its decoder, one after the other. A module
    without parameters may be the loss.
    """

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        returned(output)

    hooks: list[RemovableHandle] = []
    try:
        for module in model.modules():
            if module is model or next(module.parameters(), None) is not None:
                with suppress(RuntimeError):  # a scripted module takes no hook; what holds it does
                    hooks.append(module.register_forward_hook(look))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def architecture(nodes: list[Node], tape: Tape) -> list[Node]:
    """Returns copies of the nodes that the model's own forward pass has made, in forward order.

    These are the nodes that what a module returned depends on. A step may use parameters without a module; their
    products, and what is added to these or scales them, are the model's too. What a loss or a penalty does with
    outputs and weights is left out. Where no module was called, all nodes are returned.

    Args:
        nodes: all that the loss depends on.
        tape: what was recorded beside them.
    """
    ends = {tape.recurrent.get(fn, fn) for fn in tape.outputs}
    kept = _behind(node for node in nodes if node.fn in ends)
    if not kept:
        return nodes
    uses = follow(nodes, tape.calls)
    known = {use.chain.leaf for use in uses if use.node in kept}
    for use in uses:
        if use.node not in kept and _is_architecture(use, kept, use.chain.leaf in known):
            known.add(use.chain.leaf)
            kept |= _behind([use.node])
    return _copies([node for node in nodes if node in kept])


def _is_architecture(use: Use, kept: set[Node], known: bool) -> bool:
    """Whether a step uses a parameter, outside of all modules, as a part of the model.

    Args:
        use: where it does.
        kept: what is known to be the model's.
        known: whether the parameter is used there too. Then a penalty may multiply by some function of it, as that of
            a contractive autoencoder does; a tied head multiplies by the parameter itself.
    """
    if contraction(use.node, use.position) is not None:
        return not known or (bool(use.node.data) and use.chain.ops <= VIEWS)
    return not known and all(_is_direct(edge, kept) for edge in use.node.data)


def _is_direct(edge: Edge, kept: set[Node]) -> bool:
    """Whether a value is an elementwise function of values of the model, or of data."""
    stack, seen = [edge.node], {edge.node}
    while stack:
        node = stack.pop()
        if node in kept or not node.inputs:
            continue
        if node.op not in _ELEMENTWISE:
            return False
        stack.extend(before.node for before in node.data if before.node not in seen)
        seen.update(before.node for before in node.data)
    return True


def _behind(ends: Iterable[Node]) -> set[Node]:
    """Returns nodes and all that they depend on, parameters included."""
    stack = list(ends)
    found = set(stack)
    while stack:
        for edge in stack.pop().inputs:
            if edge is not None and edge.node not in found:
                found.add(edge.node)
                stack.append(edge.node)
    return found


def _copies(nodes: list[Node]) -> list[Node]:
    """Returns nodes that know of each other only; all that any of them depends on has to be among them."""
    copies = {node: replace(node, index=index, consumers=[]) for index, node in enumerate(nodes)}
    for copy in copies.values():
        copy.inputs = tuple(None if edge is None else Edge(copies[edge.node], edge.output) for edge in copy.inputs)
        for position, edge in enumerate(copy.inputs):
            if edge is not None:
                edge.node.consumers.append((copy, position))
    return list(copies.values())


def whole(blocks: Blocks, uses: list[Use]) -> list[Use]:
    """Returns the uses less those in passes that begin or end inside the model, where others go through it.

    A step may run the encoder by itself, for a loss of its own, or the decoder on noise or on a code without gradient.
    """
    begun = _begun(blocks, uses)
    levels = {(use.chain.leaf, blocks.depth[use.node]) for use in begun if use.node in blocks.followed}
    return [
        use
        for use in begun
        if use.node in blocks.followed
        or use.chain.leaf not in blocks.products.get(use.node, ())
        or (use.chain.leaf, blocks.depth[use.node]) not in levels
    ]


def _begun(blocks: Blocks, uses: list[Use]) -> list[Use]:
    """Returns the uses less those that no input reaches, of parameters that elsewhere do meet what comes of an input.

    The first state of a recurrent network is no input either, but it leads to such a place.
    """
    if all(node.inputs or node.leaf for node in blocks.nodes):
        return uses  # no input takes part in the graph
    fed: set[Node] = set()
    for node in blocks.nodes:
        if _is_source(node) or any(edge.node in fed for edge in node.data):
            fed.add(node)
    places: dict[str, set[Node]] = {}
    for use in uses:
        if use.node in fed:
            places.setdefault(use.chain.leaf, set()).add(use.node)
    return [
        use
        for use in uses
        if use.node in fed or use.chain.leaf not in places or _reaches(use.node, places[use.chain.leaf])
    ]


def _is_source(node: Node) -> bool:
    """Whether an input enters: a leaf that is no parameter, rows of a table, a product of learned queries."""
    if node.op.startswith("Embedding") or not (node.inputs or node.leaf):
        return True
    factors = [edge for at, edge in enumerate(node.inputs) if edge is not None and contraction(node, at) is not None]
    return len(factors) > 1 and not node.data and all(_is_learned(edge.node) for edge in factors)


def _is_learned(node: Node) -> bool:
    """Whether a value is made of parameters, and not what a normalization with parameters makes of noise."""
    if node.op in NORMS and node.inputs[0] is None:
        return False
    return all(_is_learned(edge.node) for edge in node.inputs if edge is not None)


def _reaches(start: Node, ends: set[Node]) -> bool:
    """Whether one of these nodes depends on another."""
    stack, seen = [start], {start}
    while stack:
        for consumer, _ in stack.pop().consumers:
            if consumer in ends:
                return True
            if consumer not in seen:
                seen.add(consumer)
                stack.append(consumer)
    return False


class Look(NamedTuple):
    """What one pass has shown.

    Attributes:
        graph: the architecture, as far as this pass used it.
        tossed: Python was told numbers that torch drew.
    """

    graph: Graph
    tossed: bool


def completed(
    first: Look, before: RandomStates, model: nn.Module, snapshot: Snapshot, look: Callable[[], Look]
) -> Graph:
    """Returns the architecture, with every parameter that some pass uses.

    Layers may be left out at random (LayerDrop, stochastic depth), or one of several be taken. Where the first look has
    drawn random numbers, and misses parameters or has let Python see the numbers, others are taken: one in evaluation
    mode, in which most such models run as a whole, and as many as are needed under seeds of our own. A look that misses
    no parameter may still have missed a layer: one that another pass of the same step runs, or whose weights another
    layer has too. The answer does not depend on the numbers that happened to be drawn.

    Args:
        first: what one look has shown.
        before: the random states before that.
        model: random states are put back by whoever calls this.
        snapshot: of the model, which is rewound to before each further look.
        look: reads the graph of one pass.
    """
    tossed = first.tossed or not before.python_is_now()
    if not (tossed or _unreached(first.graph)) or before.are_now():
        return first.graph
    device = next(model.parameters()).device
    device = torch.device("cpu") if device.type == "meta" else device
    looks: list[Graph] = []
    missing = set(first.graph)

    def again(seed: int, *, training: bool) -> bool:
        """Takes one more look, and returns whether it was no random one."""
        snapshot.rewind()
        seed_generators(seed, device)
        if not training:
            model.eval()
        states = RandomStates()
        try:
            graph = look().graph
        except Exception:  # it is we who want this pass: the model need not be made for it
            return False
        looks.append(graph)
        missing.intersection_update(_unreached(graph))
        return states.are_now()

    def seen() -> tuple[int, int]:
        return -len(missing), max(map(_length, looks), default=0)

    settled = again(0, training=False)
    dull = seed = 0
    while seed < SEEDS and dull < PATIENCE:
        if not (missing - _unreached(first.graph) if settled else missing or tossed):
            break
        count = seen()
        again(seed, training=True)
        dull = 0 if seen() > count else dull + 1
        seed += 1
    return _merged(looks, first.graph)


def _unreached(graph: Graph) -> set[str]:
    return {layer.name for layer in graph.layers if layer.keep == UNREACHED}


def _length(graph: Graph) -> int:
    """Returns a number that grows with each layer that a pass does not leave out."""
    return sum(layer.depth for layer in graph.layers)


def _merged(looks: list[Graph], first: Graph) -> Graph:
    """Returns the look that misses least, with what it misses taken from the others; the first is the last resort."""
    base = min(looks, key=lambda graph: (len(_unreached(graph)), -_length(graph)), default=first)
    layers = list(base.layers)
    for at, layer in enumerate(layers):
        for graph in (*looks, first):
            if layers[at].keep == UNREACHED:
                layers[at] = graph[layer.name]
    return replace(base, layers=tuple(layers), residual_adds=max(graph.residual_adds for graph in (base, *looks)))
