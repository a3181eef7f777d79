"""From a model and one training step to its `Graph`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..activations import LINEAR
from ..errors import ModelError
from ..graph import WITHOUT_VALUES, Graph, Layer, Role
from ..task.batches import clone, move
from ..task.checks import check_trainable, unwrap
from ..task.products import derived_tensors, parameter_names
from ..task.snapshot import RandomStates, preserved
from ..task.task import Task, example_task, explained
from .axes import Use, fans, follow, kind_of, normalizes
from .blocks import Blocks
from .choices import keep_untrained
from .forward import Look, architecture, completed, thawed, watched_losses, whole
from .inventory import UNREACHED, Item, inventory
from .modules import read_modules
from .multipliers import bent
from .recurrent import call_lengths, recurrent_layers
from .residuals import find_blocks
from .responses import Replay, response
from .roles import Places, find_places, is_normalized, member_of, role_of
from .streams import conditioning, is_rectified, modulating, networks, stack_of
from .tape import Tape
from .vectors import kept_table, verdict
from .walk import Node, ReentrantError, release, unveil, walk


def trace(
    model: nn.Module,
    data: Any = None,
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    step: Callable[[nn.Module, Any], Tensor] | None = None,
) -> Graph:
    """Returns the architecture of a model; the model is left as it was.

    The graph has one `Layer` for every parameter: what it is for (input, hidden, query, bias, …), its fans, the
    activation that follows, its depth, the residual branch it lies in. It is read from the autograd graph of one
    forward pass, so functional calls, shared weights and skips are seen whatever the model's code looks like.

    A recipe is resolved for a graph (`resolve`); `apply_` and `select` trace by themselves, so call this to see what
    they see, or to plan for a model that is too large to build. It takes one forward pass of one batch, and no memory
    for weights on the meta device. Nothing is trained and no weight is changed.

    Args:
        model: This module is read. It may be on any device, the meta device included.
        data: One batch of this is passed through the model: batches, one batch, (X, y) with X of shape (rows, …) and y
            of shape (rows,) or (rows, …), or one example input. None means that the model's own `dummy_inputs`
            (transformers) are used, or else that the module tree is read, and what it cannot tell is kept.
        loss: This callable (output, target) -> scalar tensor is the loss. None means that it is inferred, as in
            `select`; without a target any output will do.
        step: This callable (model, batch) -> scalar takes the place of `loss`, for whatever else trains by one loss.

    Returns:
        A `Graph`, a mapping from the parameter's name to its `Layer`. Print it for a table, and pass it to `resolve`.

    Raises:
        ModelError: The model is no module or has no trainable parameter, or the loss has no gradient or reaches no
            parameter.
        DataError: The model or the loss cannot take the batch; the message has the shapes of both.
        StepError: The loss or the step cannot be called, or returns no scalar.

    Example:
        >>> import autoinit
        >>> from sklearn.datasets import load_iris
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> graph = autoinit.trace(model, load_iris(return_X_y=True))
        >>> print(graph)
        4 parameters read from the autograd graph of one step
        <BLANKLINE>
        parameter  shape  kind    role    fan in  fan out  activation  depth
        ─────────  ─────  ──────  ──────  ──────  ───────  ──────────  ─────
        0.weight   16×4   linear  input        4       16  relu            0
        0.bias     16     bias    bias         -        -  -               0
        2.weight   3×16   linear  output      16        3  linear          1
        2.bias     3      bias    bias         -        -  -               1
        >>> graph["2.weight"].role
        'output'
    """
    if data is not None:
        return trace_task(example_task(model, data, loss=loss, step=step))
    return trace_alone(model)


def trace_alone(model: nn.Module) -> Graph:
    """Returns the architecture of a model without data: from its own dummy inputs, or else from its modules."""
    model = unwrap(model)
    check_trainable(model)
    if "dummy_inputs" in dir(type(model)):
        try:
            with preserved(model) as snapshot:
                before = RandomStates()
                first = _look(model, lambda: _dummy_loss(model))
                graph = completed(first, before, model, snapshot, lambda: _look(model, lambda: _dummy_loss(model)))
                return _without_values(graph, model)
        except Exception as error:  # made-up inputs may not fit; the module tree always can be read
            note = f"The model's dummy_inputs could not be used ({type(error).__name__}), so its modules were read."
            graph = _without_values(read_modules(model), model)
            return replace(graph, notes=(note, *graph.notes))
    return _without_values(read_modules(model), model)


def trace_task(task: Task) -> Graph:
    """Returns the architecture of a task's model, with the frequency of its labels; what it does not train is kept."""
    if not task.train:
        return trace_alone(task.model)
    batch = move(task.train[0], task.device)
    with task.preserved() as snapshot:
        before = RandomStates()

        def look() -> Look:
            watched = _watched(batch)
            return _look(task.model, lambda: task.loss(watched))

        def plainly() -> Look:
            return _look(task.model, lambda: task.loss(clone(batch)))

        try:
            first = look()
        except ReentrantError:
            raise
        except Exception:  # a step may do with its batch what no gradient allows: write into it, take it to numpy
            snapshot.rewind()
            look = plainly
            with explained(task, batch):
                first = look()
        graph = _without_values(completed(first, before, task.model, snapshot, look), task.model)
    return keep_untrained(
        replace(graph, label_prior=task.label_prior, independent_labels=task.independent_labels), task.untrained
    )


def _without_values(graph: Graph, model: nn.Module) -> Graph:
    """Returns the graph with a note where the model is on the meta device."""
    bare = any(parameter.is_meta for parameter in model.parameters())
    return replace(graph, notes=(*graph.notes, WITHOUT_VALUES)) if bare else graph


def _watched(value: Any) -> Any:
    """Returns a batch whose floating-point tensors take part in the graph, so that a skip from the data is seen."""
    if isinstance(value, Tensor):
        return value.detach().requires_grad_() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _watched(item) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_watched(item) for item in value)
    return value


def _dummy_loss(model: Any) -> Tensor:
    """Returns the sum of the first tensor that the model makes of its own dummy inputs."""
    device = next(model.parameters()).device
    output = model(**{name: value.to(device) for name, value in model.dummy_inputs.items()})
    return next(value for value in output.values() if isinstance(value, Tensor) and value.grad_fn is not None).sum()


def read_graph(model: nn.Module, run: Callable[[], Tensor | None]) -> Graph:
    """Returns the architecture of a model, read from the autograd graph of one step.

    Args:
        model: its parameters are looked for in the graph; frozen ones are read as well, and stay frozen.
        run: computes the loss once, on whatever device; it may call `backward` itself, which is then left out.

    Raises:
        ModelError: no loss with a gradient came out, or it reaches no parameter of the model.
    """
    return _look(model, run).graph


def _look(model: nn.Module, run: Callable[[], Tensor | None]) -> Look:
    items = inventory(model)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with thawed(model), torch.enable_grad(), parametrize.cached():
        derived = derived_tensors(model)
        names = parameter_names(model)
        names.update({id(tensor): name for name, tensor in derived.items()})
        tape = Tape(names, trainable)
        losses = watched_losses(model, tape, run)
        cuts = {tensor.grad_fn: name for name, tensor in derived.items() if tensor.grad_fn is not None}
        nodes = walk([loss.grad_fn for loss in losses], names, cuts, tape.recurrent, tape.gradients, tape.noisy)
        own: list[Node] = []
        try:
            if not any(node.leaf or node.op == "Recurrent" for node in nodes):
                raise ModelError(
                    "The loss reaches no parameter of the model. Check that the loss is computed from this model's "
                    "output, outside torch.no_grad() and without detach()."
                )
            unveil(nodes, tape.calls)
            own = architecture(nodes, tape)
            return Look(_assemble(items, own, tape, nodes), tape.tossed)
        finally:
            release([*nodes, *own])


_LOSS_ONLY = "only the loss uses it, and no forward pass of the model; its value is part of the loss"
_ATTENDING = frozenset({"query", "key", "value", "qkv", "attention_out"})

_TIMING = "it sets the time step of a state space model; its range is part of the design"


@dataclass
class _Reader:
    """All that is known about the graph while the layers are put together."""

    blocks: Blocks
    places: Places
    replay: Replay
    uses: dict[str, list[Use]]
    by_node: dict[Node, list[Use]]
    recurrent: dict[str, Layer]
    nodes: dict[str, list[Node]]
    reached: set[str]


def _assemble(items: list[Item], nodes: list[Node], tape: Tape, everything: list[Node]) -> Graph:
    """Returns the graph.

    Args:
        items: the parameters.
        nodes: what the model's forward pass made.
        tape: what was recorded beside them.
        everything: those nodes, or what they are copies of, and what the loss made.
    """
    uses = follow(nodes, tape.calls)
    blocks = find_blocks(nodes, uses)
    by_name: dict[str, list[Use]] = {}
    by_node: dict[Node, list[Use]] = {}
    for use in uses:
        by_node.setdefault(use.node, []).append(use)
    uses = whole(blocks, uses)
    for use in uses:
        by_name.setdefault(use.chain.leaf, []).append(use)
    replay = Replay(tape.calls, {node.fn: node for node in nodes}, blocks)
    shapes = {item.name: item.shape for item in items}
    at = {name: [use.node for use in found] for name, found in by_name.items()}
    for node in nodes:
        for name in blocks.products[node] if node.op == "Recurrent" else ():
            at.setdefault(name, []).append(node)
    recurrent = recurrent_layers(blocks, shapes)
    places = find_places(blocks, uses)
    recorded = {node.fn: node for node in everything}  # a ReLU of the loss, too, gives a head of zeros no gradient
    places.rectified |= {node for node in places.last if is_rectified(blocks, recorded[node.fn])}
    places.modulating = modulating(blocks, tape.calls)
    places.conditioning = conditioning(blocks, places.modulating)
    reached = {node.leaf for node in everything}
    reader = _Reader(blocks, places, replay, by_name, by_node, recurrent, at, reached)
    layers = tuple(_layer(reader, item) for item in items)
    depths = {layer.name: layer for layer in layers}
    layers = tuple(_beside_weight(layer, depths) for layer in layers)
    apart = networks(nodes, at, [layer.name for layer in layers if layer.is_matrix])
    layers = _numbered(layers, at, apart)
    notes = (
        *_notes(layers, reader.places.unlike),
        *(f"A function that ends in {op} could not be read; it counts as linear." for op in sorted(set(replay.unread))),
    )
    written_out = [len(set(at[layer.name])) for layer in layers if layer.role == "recurrent" and not layer.cell]
    return Graph(
        layers,
        residual_adds=max(blocks.residual_depth.values(), default=0),
        sequence_length=max([*written_out, *call_lengths(blocks)], default=None),
        notes=notes,
        networks=tuple(
            max((blocks.residual_depth.get(one, 0) for one in members), default=0) for members in apart.values()
        ),
    )


def _numbered(
    layers: tuple[Layer, ...], at: Mapping[str, Sequence[Node]], apart: Mapping[str, Sequence[Node]]
) -> tuple[Layer, ...]:
    """Returns the layers with the number of their network: what is used nowhere is beside the weight it belongs to."""
    place = {node: number for number, members in enumerate(apart.values()) for node in members}
    found = {one.name: next((place[node] for node in at.get(one.name, ()) if node in place), None) for one in layers}
    return (
        tuple(replace(one, network=found[one.name] or found.get(one.of or "") or 0) for one in layers)
        if apart
        else layers
    )


def _layer(reader: _Reader, item: Item) -> Layer:
    if item.name in reader.recurrent:
        layer = reader.recurrent[item.name]
    else:
        uses = reader.uses.get(item.name, [])
        products = [use for use in uses if item.name in reader.blocks.products.get(use.node, ())]
        if not uses:
            layer = _unused(item, reached=item.name in reader.reached)
        else:
            layer = _matrix(reader, item, products) if products else _vector(reader, item, uses)
    keep = item.keep or layer.keep or _bent(reader.uses.get(item.name, []))
    stack = stack_of(reader.places.stacks, reader.nodes.get(item.name, ()))
    return replace(layer, tied_to=item.tied_to, parametrized=item.parametrized, keep=keep, stack=stack)


def _unused(item: Item, *, reached: bool) -> Layer:
    """Returns a parameter that no forward pass of the model has used."""
    role: Role = "scalar" if reached and math.prod(item.shape) == 1 else "other"
    keep = _LOSS_ONLY if reached else UNREACHED
    return Layer(name=item.name, shape=item.shape, kind="other", role=role, keep=keep)


def _matrix(reader: _Reader, item: Item, uses: list[Use]) -> Layer:
    blocks, places, first = reader.blocks, reader.places, uses[0]
    role = role_of(blocks, places, item.name, uses)
    axes, fan_in, fan_out, groups = fans(first, item.shape)
    slices, cut = places.parts.get(item.name, 1), places.cuts.get(item.name, "blocks")
    apart = places.apart.get(item.name, frozenset()) if role not in _ATTENDING else frozenset()
    if first.chain.part:  # the weight is cut, and not its output
        slices = 3 if role == "qkv" and first.chain.cut in axes.outside[:1] else 1
    residual = next((places.residual[use.node] for use in uses if use.node in places.residual), None)
    member = member_of(places, item.name, role)
    following = response(blocks, reader.replay, first.node)
    return Layer(
        name=item.name,
        shape=item.shape,
        kind=kind_of(first.node),
        role=role,
        fan_in=fan_in,
        fan_out=fan_out // (slices * math.prod(item.shape[axis] for axis in apart)),
        out_axes=tuple(axis for axis in axes.outside if axis not in apart),
        in_axes=axes.inside,
        groups=groups,
        slices=slices if cut == "blocks" or (cut == "interleaved" and groups == 1) else 1,
        interleaved=cut == "interleaved" and groups == 1,
        activation=LINEAR if role in ("output", "query", "key") else following.activation,
        mixed=following.mixed,
        depth=max((blocks.depth[edge.node] for edge in first.node.data), default=0),
        residual_depth=max((blocks.residual_depth[edge.node] for edge in first.node.data), default=0),
        in_branch=residual is not None,
        branch_weights=residual.weights if residual else 0,
        closes_branch=any(use.node in places.closing for use in uses),
        rectified=any(use.node in places.rectified for use in uses),
        post_norm=any(use.node in places.post_norm for use in uses),
        attention=member.attention,
        heads=member.heads,
        cross=member.cross,
        normalized=all(is_normalized(blocks, use.node) for use in uses),
        multiplier=first.chain.constant,
        modulates=all(use.node in places.modulating for use in uses),
        conditions=all(use.node in places.conditioning for use in uses),
        keep=_kept(uses, role, places, item.name) or (kept_table(blocks, first) if role == "position" else ""),
    )


def _kept(uses: list[Use], role: str, places: Places, name: str) -> str:
    use = uses[0]
    if normalizes(frozenset().union(*(one.chain.ops for one in uses if one.node is use.node))):
        return "its scale is removed by a normalization of the weight (weight standardization)"
    if "Mm" in use.chain.ops or "Bmm" in use.chain.ops:
        return "a factor of a weight that is a product of weights"
    if role == "lora" and name in places.lora:
        return f"part of a low-rank addition (LoRA) to {places.lora[name]}"
    if name in places.timing:
        return _TIMING
    if role == "router":
        return "it routes to experts; its scale decides how evenly"
    return ""


def _bent(uses: list[Use]) -> str:
    """Returns why no scheme's scale is that of a parameter that acts through a function; empty where it acts as it is.

    Where it comes together in several ways, some of them are statistics of it.
    """
    ways = [use.chain.ops for use in uses if use.node is uses[0].node]
    return bent(ways[0]) if len(ways) == 1 else ""


def _vector(reader: _Reader, item: Item, uses: list[Use]) -> Layer:
    found = verdict(reader.blocks, uses, reader.by_node)
    data = uses[0].node.data
    return Layer(
        name=item.name,
        shape=item.shape,
        kind=found.kind,
        role=found.role,
        of=found.of,
        in_branch=found.in_branch,
        on_skip=found.on_skip,
        multiplier=uses[0].chain.constant,
        offset=uses[0].chain.offset,
        keep=found.keep,
        depth=max((reader.blocks.depth[edge.node] for edge in data), default=0),
        residual_depth=max((reader.blocks.residual_depth[edge.node] for edge in data), default=0),
    )


def _beside_weight(layer: Layer, layers: dict[str, Layer]) -> Layer:
    """Returns a bias at the depth of its weight."""
    weight = layers.get(layer.of) if layer.of else None
    if layer.role not in ("bias", "norm_scale"):
        return layer
    if weight is None or weight.kind == "embedding":  # a tied head has its bias far from the embedding
        return layer
    return replace(
        layer,
        keep=layer.keep or (weight.keep if weight.keep == _TIMING else ""),
        depth=weight.depth,
        residual_depth=weight.residual_depth,
        in_branch=weight.in_branch,
        slices=weight.slices,
        interleaved=weight.interleaved,
    )


def _notes(layers: tuple[Layer, ...], unlike: dict[str, str]) -> Iterator[str]:
    for layer in layers:
        if layer.role == "qkv" and layer.slices == 1 and layer.name in unlike:
            yield f"{layer.name} holds queries, keys and values {unlike[layer.name]}; it is treated as one matrix."
