"""What a method needs of an architecture, so that it is offered where it means something and refused elsewhere."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import RecipeError
from ..graph import Graph
from .agents import heads_of, is_actor_critic
from .formulas import mimetic


@dataclass(frozen=True, slots=True)
class Need:
    """A condition on an architecture.

    Attributes:
        met: whether a graph meets it.
        text: what is needed, to follow "is for networks with …".
        instead: what to use where it is not met.
    """

    met: Callable[[Graph], bool]
    text: str
    instead: str


def _has_residuals(graph: Graph) -> bool:
    return any(layer.in_branch or layer.closes_branch for layer in graph.weights)


def _has_attention(graph: Graph) -> bool:
    return any(layer.attention and not layer.cross for layer in graph.weights)


def _has_activation(name: str) -> Callable[[Graph], bool]:
    return lambda graph: any(layer.activation.name == name for layer in graph.weights)


def _bent(graph: Graph) -> list[bool]:
    """Returns, for each activation in use, whether its odd part is a straight line."""
    used = {layer.activation for layer in graph.weights if layer.activation.name != "linear"}
    return [activation.odd_slope() is not None for activation in used]


def _looks_linear(graph: Graph) -> bool:
    lines = _bent(graph)
    return bool(lines) and all(lines)


def _reaches_isometry(graph: Graph) -> bool:
    used = {layer.activation for layer in graph.weights}
    return all(activation.isometry(len(graph.weights)) is not None for activation in used)


def _has_critical_point(graph: Graph) -> bool:
    used = {layer.activation for layer in graph.weights if layer.activation.name != "linear"}
    return any(activation.edge_of_chaos() is not None for activation in used)


def _is_relu_rnn(graph: Graph) -> bool:
    states = [layer for layer in graph.weights if layer.role == "recurrent"]
    return bool(states) and all(layer.cell == "rnn" and layer.activation.name == "relu" for layer in states)


def _has_timed_gates(graph: Graph) -> bool:
    gated = any(layer.cell in ("lstm", "gru") and layer.role == "bias" and not layer.keep for layer in graph.layers)
    return gated and graph.sequence_length is not None and graph.sequence_length >= 3


def _has_classes(graph: Graph) -> bool:
    return any(bias.size == len(graph.label_prior) for bias in graph.output_biases)


def _has_class_head(graph: Graph) -> bool:
    """Whether one linear layer of its own gives a score for each class."""
    heads = [layer for layer in graph.layers if layer.role == "output" and layer.is_matrix]
    return (
        len(heads) == 1
        and heads[0].kind == "linear"
        and not (heads[0].keep or heads[0].adapter or heads[0].tied_to or heads[0].parametrized)
        and heads[0].shape[0] == len(graph.label_prior)
        and heads[0].multiplier == 1.0
        and not graph.independent_labels
    )


def _has_adapters(graph: Graph) -> bool:
    return any(layer.adapter and not layer.keep for layer in graph.layers)


def _has_lenders(graph: Graph) -> bool:
    free = {layer.of for layer in graph.layers if layer.adapter and not layer.keep}
    return bool(free) and all(name in graph and graph[name].lends for name in free if name)


def _has_heads(graph: Graph) -> bool:
    """Whether two heads may be scaled that something stands before; whether that is one trunk, only a pass tells."""
    heads = Counter(head.network for head in heads_of(graph) if not (head.keep or head.tied_to))
    return max(heads.values(), default=0) > 1 and any(
        layer.is_matrix and layer.role != "output" for layer in graph.layers
    )


NEEDS: dict[str, Need] = {
    "residuals": Need(_has_residuals, "residual branches", "he_normal or orthogonal on a plain network"),
    "attention": Need(
        lambda graph: any(mimetic(layer, graph) for layer in graph.weights),
        "self-attention whose heads have keys of their own",
        "he_normal or orthogonal elsewhere",
    ),
    "transformer": Need(
        lambda graph: _has_residuals(graph) and _has_attention(graph),
        "attention in residual branches (Transformers)",
        "fixup on other residual networks",
    ),
    "post_norm": Need(
        lambda graph: any(layer.post_norm for layer in graph.weights),
        "a normalization right after each residual add (post-LN Transformers)",
        "zero_residual or gpt2 where the normalization comes first",
    ),
    "norms": Need(
        lambda graph: graph.has_role("norm_scale"),
        "normalizations that have scales of their own",
        "normal, which draws all weights alike",
    ),
    "modulation": Need(
        lambda graph: any(layer.modulates or layer.conditions for layer in graph.weights),
        "weights that scale streams as 1 + s, or gate branches, by a condition (adaptive normalization, FiLM)",
        "zero_residual on other residual networks",
    ),
    "sines": Need(_has_activation("sin"), "sines as activations", "he_normal, whose gain follows the activation"),
    "selu": Need(_has_activation("selu"), "SELU activations", "he_normal, whose gain follows the activation"),
    "straight": Need(
        _looks_linear,
        "activations for which φ(x) − φ(−x) is a straight line (ReLU, leaky ReLU, GELU, SiLU)",
        "dynamical_isometry for tanh-like activations, orthogonal for others",
    ),
    "isometry": Need(
        _reaches_isometry,
        "activations that are nearly linear around 0, so that orthogonal weights make an isometry of this many layers "
        "(tanh, erf, sines)",
        "looks_linear for ReLU-like activations, edge_of_chaos or orthogonal for others",
    ),
    "critical": Need(
        _has_critical_point,
        "activations that have a critical point (most have; softplus, squared ReLU and steps have none)",
        "he_normal or lsuv",
    ),
    "relu_rnn": Need(
        _is_relu_rnn,
        "recurrent layers of ReLU units (nn.RNN with nonlinearity='relu')",
        "chrono or Recipe(recurrent='orthogonal') for other cells",
    ),
    "gates": Need(
        _has_timed_gates,
        "an LSTM or GRU with biases that was seen running over three or more time steps",
        "data= so that the sequence length can be read",
    ),
    "spikes": Need(_has_activation("spike"), "spiking neurons", "lsuv for networks of continuous units"),
    "actor_critic": Need(
        is_actor_critic,
        "a head for a policy and one for a value",
        "orthogonal, whose gain follows the activation",
    ),
    "heads": Need(
        _has_heads,
        "two heads or more on one trunk",
        "lsuv, which brings all outputs to one variance",
    ),
    "adapters": Need(
        _has_adapters,
        "low-rank adapters that train (peft's LoRA, DoRA and rsLoRA layers, or pairs of the same shape)",
        "a recipe for whole networks elsewhere",
    ),
    "bases": Need(
        _has_lenders,
        "low-rank adapters beside plain weights that may change, since it takes from them what the adapter adds",
        "lora_default, lora_gaussian, lora_orthogonal or eva, which leave the weights beside as they are",
    ),
    "source": Need(
        lambda graph: bool(graph.grows),  # no matter of the architecture: inherit_ and select are given it
        "a trained source of another size, which inherit_ and select take",
        "autoinit.inherit_(model, source, data, method=…)",
    ),
    "rows": Need(
        lambda graph: any(layer.new_rows for layer in graph.layers),
        "a checkpoint whose tables have fewer rows than the model's",
        "checkpoint=, or autoinit.rows_(model, old=…) where there is no file",
    ),
    "class_head": Need(
        _has_class_head,
        "one new linear head, and labels of single classes in the data",
        "autoinit.head_(model, data, head=…) for a head that no loss tells, or he_normal",
    ),
    "classes": Need(
        _has_classes,
        "an output bias, and class labels in the data by cross-entropy, binary or not",
        "data= with integer targets, or he_normal",
    ),
}
"""What a method may need, by the name that it is asked for under."""


def meets(graph: Graph, names: tuple[str, ...]) -> bool:
    """Returns whether an architecture has all that a method needs (keys of `NEEDS`)."""
    return all(NEEDS[name].met(graph) for name in names)


def check_needs(what: str, names: tuple[str, ...], graph: Graph) -> None:
    """Raises RecipeError where an architecture lacks what a method needs.

    Args:
        what: the method, as the user named it.
        names: keys of `NEEDS`.
        graph: the architecture.
    """
    for name in names:
        need = NEEDS[name]
        if not need.met(graph):
            blind = "Its modules were read without data; pass data= to see the rest."
            remedy = blind if graph.source == "modules" else f"Use {need.instead}."
            raise RecipeError(f"{what!r} is for networks with {need.text}; {_lack(need, graph)}. {remedy}")


def _lack(need: Need, graph: Graph) -> str:
    """Returns whether a need is not there, or must stay as its owner made it."""
    kept = [layer.keep for layer in graph.layers if layer.is_matrix and layer.keep]
    free = (dataclasses.replace(layer, keep="") for layer in graph.layers)
    if kept and need.met(dataclasses.replace(graph, layers=tuple(free))):
        return f"in this one they must stay as they are ({kept[0]})"
    return "this one has none"
