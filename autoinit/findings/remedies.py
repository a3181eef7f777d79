"""What would mend a finding: calls that can be pasted, and that do set what was found faulty."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from ..graph import HEADS, Graph, Layer
from ..plans.rules import resolve
from ..task.assign import read
from ..task.origins import own_reset, parameter_call, setting_call
from ..text import few, number
from ..tracing.choices import SET, keep_choices

HE = "he_normal"
SHOWN = 3
"""Statements that are written one by one; of more alike, a loop."""
LARGE_BIAS = 1.0
"""A constant bias of this size may by itself keep units where their activation is flat, or outputs far off."""


def plainly(name: str) -> str:
    """Returns the call that draws by a recipe what no owner has set on purpose."""
    return f"try autoinit.apply_(model, {name!r}, data)"


def recipe(name: str, model: nn.Module, graph: Graph, biases_of: Collection[str] = ()) -> str:
    """Returns the call that draws the whole model by a recipe, after those that set what it would keep.

    Args:
        name: of the recipe.
        model: whose weights are looked at.
        graph: of the model.
        biases_of: weights whose biases may be at fault, too.
    """
    return _after_setting(model, graph, plainly(name), biases_of)


def smaller_head(model: nn.Module, graph: Graph) -> str:
    """Returns what makes the outputs of the last layer smaller."""
    heads = [layer.name for layer in graph.layers if layer.role in HEADS]
    call = "try autoinit.apply_(model, autoinit.Recipe(head='eighth'), data)"
    return f"a smaller last layer: {_after_setting(model, graph, call, heads)}"


def suited(model: nn.Module, graph: Graph) -> str:
    """Returns a remedy that keeps signals and gradients level through this network's activations."""
    names = [layer.activation.name for layer in graph.weights if layer.activation.name != "linear"]
    common = max(set(names), key=names.count) if names else "linear"
    if common in ("sigmoid", "hardsigmoid"):  # its slope of at most 1/4 asks for weights four times as large
        call = "try autoinit.apply_(model, autoinit.Recipe(base='orthogonal', log2_gain=2), data)"
        return f"{_after_setting(model, graph, call)}, or tanh units"
    return recipe("orthogonal" if common in ("tanh", "softsign", "erf", "linear") else HE, model, graph)


def _after_setting(model: nn.Module, graph: Graph, call: str, biases_of: Collection[str] = ()) -> str:
    """Returns a call, after the statements that set what holds one number throughout and would stay.

    A matrix of one number other than zero counts as its owner's choice, and so does a constant bias; a recipe leaves
    both. Where something is wrong, they may be what is.
    """
    kept = [layer.name for layer in keep_choices(model, graph).layers if layer.keep == SET]
    matrices = [name for name in kept if graph[name].is_matrix]
    suspects = [layer.name for layer in graph.layers if layer.of in biases_of and layer.role == "bias"]
    biases = [name for name in suspects if not graph[name].keep and _is_far_off(read(model, name).detach())]
    statements = [
        *_draws(model, graph, matrices),
        *_joined({name: setting_call(model, name, "zeros_") for name in biases}),
    ]
    return f"first {'; '.join(statements)}; then {call}" if statements else call


def _is_far_off(bias: Tensor) -> bool:
    """Whether a bias is one number throughout, and a large one: a prior has one for each class."""
    return bool((bias == bias.flatten()[0]).all()) and bool((bias.abs() >= LARGE_BIAS).all())


def _draws(model: nn.Module, graph: Graph, names: Sequence[str]) -> list[str]:
    """Returns the statements that draw some matrices at random."""
    statements = {}
    for layer in map(graph.__getitem__, names):
        if len(layer.shape) > 1:
            statements[layer.name] = setting_call(model, layer.name, "xavier_normal_")
        else:
            std = number(max(1, layer.fan_in) ** -0.5)
            statements[layer.name] = setting_call(model, layer.name, "normal_", f"std={std}")
    return _joined(statements)


def _joined(statements: Mapping[str, str]) -> list[str]:
    """Returns statements by the parameter's name as they are, or, where many are alike, as one loop."""
    alike: dict[str, list[str]] = {}
    for name, statement in statements.items():
        alike.setdefault(statement.replace(repr(name), "name"), []).append(name)
    found: list[str] = []
    for loop, names in alike.items():
        if len(names) > SHOWN:
            found.append(f"for name in {names}: {loop}")
        else:
            found += [statements[name] for name in names]
    return found


def is_drawn(model: nn.Module, graph: Graph, name: str) -> bool:
    """Whether a recipe sets this parameter: what its owner has set on purpose, and what is no matrix, may stay."""
    return name in graph and not resolve(HE, keep_choices(model, graph))[name].untouched


def drawn_anew(model: nn.Module, graph: Graph, names: Sequence[str]) -> str:
    """Returns what draws some matrices at random: a recipe where it reaches all of them, else a call for each."""
    if all(is_drawn(model, graph, name) for name in names):
        return plainly(HE)
    calls = _draws(model, graph, [name for name in names if _is_assignable(graph[name])])
    return "; ".join(calls) if calls else f"set {few(list(names))} where the model is made"


def _is_assignable(layer: Layer) -> bool:
    return layer.is_matrix and "no right_inverse" not in layer.keep


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
