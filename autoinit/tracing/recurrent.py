"""The weights of nn.RNN, nn.LSTM, nn.GRU and their cells: the same layers, however the call was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ..activations import LINEAR, Activation
from ..graph import Layer, Role
from .blocks import Blocks
from .tape import RecurrentCall
from .walk import Node

Cell = Literal["rnn", "lstm", "gru"]
_SLICES: dict[Cell, int] = {"rnn": 1, "lstm": 4, "gru": 3}


def recurrent_layers(blocks: Blocks, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Layer]:
    """Returns the layers of every recurrent call, by name; of a cell called often, its first call counts."""
    found: dict[str, Layer] = {}
    for node in blocks.nodes:
        if isinstance(node.fn, RecurrentCall):
            depth = max((blocks.depth[edge.node] for edge in node.data), default=0)
            residual_depth = max((blocks.residual_depth[edge.node] for edge in node.data), default=0)
            for name in node.fn.weights:
                layer = recurrent_layer(name, shapes[name], node.fn.name, depth, residual_depth)
                found.setdefault(name, layer)
    return found


def call_lengths(blocks: Blocks) -> list[int]:
    """Returns the time steps that each recurrent module runs over; of one called step by step, all steps in a row."""
    calls: dict[tuple[str, ...], set[Node]] = {}
    for node in blocks.nodes:
        if isinstance(node.fn, RecurrentCall):
            calls.setdefault(node.fn.weights, set()).add(node)
    return [_longest(blocks, mine) for mine in calls.values()]


def _longest(blocks: Blocks, calls: set[Node]) -> int:
    length: dict[Node, int] = {}
    for node in blocks.nodes:
        before = max((length.get(edge.node, 0) for edge in node.data), default=0)
        length[node] = before + (node.fn.steps if node in calls else 0)
    return max(length[node] for node in calls)


def recurrent_layer(name: str, shape: tuple[int, ...], call: str, depth: int = 0, residual_depth: int = 0) -> Layer:
    """Returns one parameter of a recurrent module.

    Args:
        name: ends in torch's own names: weight_ih_l0, bias_hh_l1_reverse, weight_hr_l0, weight_ih (cells).
        shape: gates stacked along the first axis.
        call: torch's function: "lstm", "gru_cell", "rnn_relu", …
        depth: weights before the module.
        residual_depth: residual adds before it.
    """
    kind = call.removesuffix("_cell")
    cell: Cell = "lstm" if kind == "lstm" else "gru" if kind == "gru" else "rnn"
    prefix, _, own = name.rpartition(".")
    level = int(own.split("_l")[1].split("_")[0]) if "_l" in own else 0
    slices = _SLICES[cell]
    activation = Activation("relu" if kind == "rnn_relu" else "tanh")
    if own.startswith("bias"):
        weight = own.replace("bias", "weight", 1)
        of = f"{prefix}.{weight}" if prefix else weight
        return Layer(
            name=name,
            shape=shape,
            kind="bias",
            role="bias",
            cell=cell,
            slices=slices,
            of=of,
            depth=depth + level,
            residual_depth=residual_depth,
        )
    projects = "weight_hr" in own
    role: Role = "hidden" if projects else "recurrent" if "weight_hh" in own else "recurrent_input"
    slices = 1 if projects else slices
    return Layer(
        name=name,
        shape=shape,
        kind="linear" if projects else "recurrent",
        role=role,
        fan_in=shape[1],
        fan_out=shape[0] // slices,
        out_axes=(0,),
        in_axes=(1,),
        slices=slices,
        cell=cell,
        activation=LINEAR if projects else activation,
        depth=depth + level,
        residual_depth=residual_depth,
    )
