"""What would mend a finding: calls that can be pasted, and that do set what was found faulty."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..graph import Graph
from ..plans.rules import resolve
from ..task.assign import is_parametrized
from ..task.origins import own_reset, parameter_call
from ..text import few
from ..tracing.choices import keep_choices

HE = "he_normal"


def recipe(name: str) -> str:
    """Returns the call that draws the whole model by a recipe."""
    return f"try autoinit.apply_(model, {name!r}, data)"


def suited(graph: Graph) -> str:
    """Returns a remedy that keeps signals and gradients level through this network's activations."""
    names = [layer.activation.name for layer in graph.weights if layer.activation.name != "linear"]
    common = max(set(names), key=names.count) if names else "linear"
    if common in ("sigmoid", "hardsigmoid"):  # its slope of at most 1/4 asks for weights four times as large
        return "try autoinit.apply_(model, autoinit.Recipe(base='orthogonal', log2_gain=2), data), or tanh units"
    return recipe("orthogonal" if common in ("tanh", "softsign", "erf", "linear") else HE)


def is_drawn(model: nn.Module, graph: Graph, name: str) -> bool:
    """Whether a recipe sets this parameter: what its owner has set on purpose, and what is no matrix, may stay."""
    return name in graph and not resolve(HE, keep_choices(model, graph))[name].untouched


def drawn_anew(model: nn.Module, graph: Graph, names: Sequence[str]) -> str:
    """Returns what draws some matrices at random: a recipe where it reaches all of them, else a call for each."""
    if all(is_drawn(model, graph, name) for name in names):
        return recipe(HE)
    calls = [
        f"nn.init.xavier_normal_({parameter_call(name)})"
        for name in names
        if not is_parametrized(model, name) and len(graph[name].shape) > 1
    ]
    return few(calls) if calls else f"set {few(list(names))} where the model is made"


def set_anew(model: nn.Module, graph: Graph, name: str) -> str:
    """Returns what sets one parameter or buffer that no recipe sets."""
    if call := own_reset(model, name):
        return call
    owner, _, attribute = name.rpartition(".")
    if attribute in model.get_submodule(owner)._buffers:
        if name in model.state_dict():
            return f"load it again, or set it where {_kind(model, owner)} registers it"
        return (
            f"make the model again: {_kind(model, owner)} computes {attribute} when it is made, no checkpoint holds it"
        )
    layer = graph.get(name)
    if layer is not None and layer.role == "norm_scale":
        return f"nn.init.ones_({parameter_call(name)})"
    if layer is not None and layer.role == "bias":
        return f"nn.init.zeros_({parameter_call(name)})"
    if layer is not None and len(layer.shape) > 1 and not layer.parametrized:
        return f"nn.init.trunc_normal_({parameter_call(name)}, std=0.02), or load it again"
    return f"set it where {_kind(model, owner)} makes it, or load it again"


def _kind(model: nn.Module, path: str) -> str:
    return type(model.get_submodule(path)).__name__
