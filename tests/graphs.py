"""Small graphs written by hand, for tests of what only needs a graph."""

from __future__ import annotations

import dataclasses
from typing import Any

from autoinit.activations import GRID, Activation
from autoinit.graph import Graph, Layer
from autoinit.recipes.catalogue import ENTRIES

RELU, TANH = Activation("relu"), Activation("tanh")


def linear(name: str, out: int, inner: int, **rest: Any) -> Layer:
    """A Linear weight [out, in]."""
    facts: dict[str, Any] = {"kind": "linear", "role": "hidden", "fan_in": inner, "fan_out": out}
    return Layer(name=name, shape=(out, inner), out_axes=(0,), in_axes=(1,), **{**facts, **rest})


def bias(name: str, of: str, size: int, **rest: Any) -> Layer:
    """A bias of a weight."""
    return Layer(name=name, shape=(size,), kind="bias", role="bias", of=of, **rest)


def mlp(activation: Activation = RELU, depth: int = 4, width: int = 8) -> Graph:
    """784 → width → … → width → 10, with biases and a label prior of two classes in ten."""
    layers: list[Layer] = []
    for index in range(depth):
        first, last = index == 0, index == depth - 1
        layers.append(
            linear(
                f"{index}.weight",
                10 if last else width,
                784 if first else width,
                role="input" if first else "output" if last else "hidden",
                activation=Activation() if last else activation,
                depth=index,
            )
        )
        layers.append(bias(f"{index}.bias", f"{index}.weight", 10 if last else width, depth=index))
    return Graph(tuple(layers), label_prior=(0.9, 0.1, *[0.0] * 8))


def transformer(blocks: int = 2, width: int = 16, post_norm: bool = False) -> Graph:
    """A Transformer, pre-LN or post-LN: embedding, fused attention and an MLP per block, a head."""
    layers = [Layer(name="embed.weight", shape=(50, width), kind="embedding", role="embedding", depth=0)]
    for index in range(blocks):
        inside: dict[str, Any] = {"in_branch": True, "branch_weights": 2}
        depth, name = 1 + 4 * index, f"block.{index}"
        heads: dict[str, Any] = {"attention": f"{name}.qkv.weight", "heads": 2}
        layers += [
            Layer(name=f"{name}.norm.weight", shape=(width,), kind="norm", role="norm_scale", depth=depth),
            linear(
                f"{name}.qkv.weight",
                3 * width,
                width,
                role="qkv",
                slices=3,
                fan_out=width,
                depth=depth,
                **inside,
                **heads,
            ),
            linear(
                f"{name}.out.weight",
                width,
                width,
                role="attention_out",
                depth=depth + 1,
                closes_branch=True,
                post_norm=post_norm,
                **inside,
                **heads,
            ),
            linear(f"{name}.up.weight", 4 * width, width, activation=RELU, depth=depth + 2, **inside),
            linear(
                f"{name}.down.weight",
                width,
                4 * width,
                role="residual_out",
                depth=depth + 3,
                closes_branch=True,
                post_norm=post_norm,
                **inside,
            ),
        ]
    layers.append(linear("head.weight", 50, width, role="output", depth=1 + 4 * blocks))
    return Graph(tuple(layers), residual_adds=2 * blocks)


def lstm(width: int = 6) -> Graph:
    """One LSTM layer and a head."""
    cell: dict[str, Any] = {"kind": "recurrent", "cell": "lstm", "slices": 4, "activation": TANH, "fan_out": width}
    return Graph(
        (
            linear("weight_ih", 4 * width, 3, role="recurrent_input", **cell),
            linear("weight_hh", 4 * width, width, role="recurrent", **cell),
            bias("bias_ih", "weight_ih", 4 * width, cell="lstm", slices=4),
            bias("bias_hh", "weight_hh", 4 * width, cell="lstm", slices=4),
            linear("head", 2, width, role="output", depth=1),
        ),
        sequence_length=12,
    )


def relu_rnn(width: int = 6) -> Graph:
    """One recurrent layer of ReLU units and a head."""
    cell: dict[str, Any] = {"kind": "recurrent", "cell": "rnn", "activation": RELU}
    return Graph(
        (
            linear("weight_ih", width, 3, role="recurrent_input", **cell),
            linear("weight_hh", width, width, role="recurrent", **cell),
            linear("head", 2, width, role="output", depth=1),
        ),
        sequence_length=12,
    )


def spiking(width: int = 6) -> Graph:
    """Two layers of spiking neurons."""
    spike = Activation("spike", table=tuple(float(x >= 0) for x in GRID))
    return Graph((linear("0.weight", width, 3, activation=spike), linear("1.weight", 2, width, activation=spike)))


def agent(width: int = 8) -> Graph:
    """A policy over three actions and a value on one body."""
    return Graph(
        (
            linear("body.0.weight", width, 5, role="input", activation=TANH),
            bias("body.0.bias", "body.0.weight", width),
            linear("body.2.weight", width, width, activation=TANH, depth=1),
            linear("actions.weight", 3, width, role="output", depth=2),
            linear("returns.weight", 1, width, role="output", depth=2),
        )
    )


def modulated(width: int = 8) -> Graph:
    """An embedded time that scales and shifts what a network of ReLUs computes."""
    return Graph(
        (
            linear("time.weight", width, 4, role="input", activation=RELU, conditions=True),
            bias("time.bias", "time.weight", width),
            linear("stem.weight", width, 3, role="input"),
            linear("film.weight", 2 * width, width, slices=2, fan_out=width, modulates=True, depth=1),
            bias("film.bias", "film.weight", 2 * width, slices=2),
            linear("inner.weight", width, width, activation=RELU, depth=2),
            linear("head.weight", 3, width, role="output", depth=3),
        )
    )


def generator(width: int = 8) -> Graph:
    """Two transposed convolutions, normalized between them."""
    axes: dict[str, Any] = {"kind": "conv_transposed", "in_axes": (0, 2, 3), "out_axes": (1,)}
    first, last = ((6, width, 4, 4), 6 * 16), ((width, 3, 4, 4), width * 16)
    return Graph(
        (
            Layer(name="0.weight", shape=first[0], role="input", fan_in=first[1], fan_out=16 * width,
                  activation=RELU, normalized=True, **axes),
            Layer(name="1.weight", shape=(width,), kind="norm", role="norm_scale"),
            bias("1.bias", "1.weight", width),
            Layer(name="3.weight", shape=last[0], role="output", fan_in=last[1], fan_out=48, depth=1, **axes),
        )
    )  # fmt: skip


def adapted(width: int = 8, rank: int = 2) -> Graph:
    """A network of ReLUs with a trained layer that stays, and a low-rank adapter beside that."""
    own = mlp(RELU, width=width)
    part: dict[str, Any] = {"role": "lora", "of": "trained.weight", "depth": 2}
    beside = (
        linear("trained.weight", width, width, keep="frozen (requires_grad is False)", lends=True, depth=2),
        linear("trained.down", rank, width, adapter="down", **part),
        linear("trained.up", width, rank, adapter="up", multiplier=2.0, **part),
    )
    return dataclasses.replace(own, layers=(*own.layers, *beside))


GRAPHS = {
    "relu": mlp(RELU),
    "tanh": mlp(TANH),
    "sine": mlp(Activation("sin", (30.0,))),
    "selu": mlp(Activation("selu")),
    "pre_ln": transformer(),
    "post_ln": transformer(post_norm=True),
    "lstm": lstm(),
    "relu_rnn": relu_rnn(),
    "spiking": spiking(),
    "adapted": adapted(),
    "generator": generator(),
    "agent": agent(),
    "modulated": modulated(),
}
ONLY_FOR = {
    **{entry.name: {"adapted"} for entry in ENTRIES.values() if entry.recipe.adapter != "same"},
    **{entry.name: set() for entry in ENTRIES.values() if entry.recipe.growth != "none"},  # those are inherit_'s
    **{entry.name: set() for entry in ENTRIES.values() if entry.recipe.rows != "same"},  # no checkpoint is shorter
    "class_means": {"relu", "adapted", "tanh", "sine", "selu"},
    "siren": {"sine"},
    "selu": {"selu"},
    "looks_linear": {"relu", "adapted", "pre_ln", "post_ln", "relu_rnn", "generator", "modulated"},
    "dynamical_isometry": {"tanh", "sine", "lstm", "agent"},
    "edge_of_chaos": set(GRAPHS) - {"spiking"},
    "gpt2": {"pre_ln", "post_ln"},
    "zero_residual": {"pre_ln", "post_ln"},
    "fixup": {"pre_ln", "post_ln"},
    "t_fixup": {"pre_ln", "post_ln"},
    "deepnorm": {"pre_ln", "post_ln"},
    "admin": {"post_ln"},
    "adaln_zero": {"modulated"},
    "multi_task": {"agent"},
    "dcgan": {"pre_ln", "post_ln", "generator"},
    "mimetic": {"pre_ln", "post_ln"},
    "irnn": {"relu_rnn"},
    "chrono": {"lstm"},
    "label_prior": {"relu", "adapted", "tanh", "sine", "selu"},
    "fluctuation_driven": {"spiking"},
}
