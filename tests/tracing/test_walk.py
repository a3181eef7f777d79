"""The autograd graph as nodes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from autoinit.errors import ModelError
from autoinit.task.products import parameter_names
from autoinit.tracing.walk import Node, saved, search_back, walk


def nodes_of(model: nn.Module, loss: Tensor) -> list[Node]:
    return walk([loss.grad_fn], parameter_names(model), {}, {}, {})


def test_every_node_comes_after_its_inputs_and_every_parameter_is_a_leaf() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    nodes = nodes_of(model, model(torch.randn(5, 3)).sum())
    assert {node.leaf for node in nodes if node.leaf} == {name for name, _ in model.named_parameters()}
    assert all(edge.node.index < node.index for node in nodes for edge in node.inputs if edge)
    assert [node.index for node in nodes] == list(range(len(nodes)))
    for node in nodes:
        assert all(consumer.inputs[position].node is node for consumer, position in node.consumers)


def test_long_graphs_need_no_recursion() -> None:
    layer = nn.Linear(2, 2)
    x = torch.randn(1, 2)
    for _ in range(3000):
        x = layer(x)
    assert len(nodes_of(layer, x.sum())) > 6000


def test_static_nodes_depend_on_parameters_only() -> None:
    model = nn.Linear(3, 4)
    x = torch.randn(5, 3)
    masked = model.weight * torch.ones(4, 3)  # a constant leaves the shape of the weight
    nodes = nodes_of(model, (x @ masked.T + model.bias).sum())
    static = {node.op: node.static for node in nodes}
    assert static["Mul"]
    assert static["T"] if "T" in static else static["Permute"]
    assert not static["Mm"]


def test_data_times_a_vector_is_not_static() -> None:
    scale = nn.Parameter(torch.ones(3))
    model = nn.ParameterDict({"scale": scale})
    nodes = nodes_of(model, (torch.randn(5, 3) * scale).sum())
    assert not next(node for node in nodes if node.op == "Mul").static


def test_saved_values_and_what_is_not_saved() -> None:
    x = torch.randn(3, requires_grad=True)
    assert saved(torch.nn.functional.leaky_relu(x, 0.3).grad_fn, "negative_slope") == pytest.approx(0.3)
    assert saved(x.exp().grad_fn, "no_such_thing", 7) == 7
    y = x.exp()
    y.sum().backward()
    assert saved(y.grad_fn, "result", "freed") == "freed"


def test_search_back_stops_at_the_floor() -> None:
    layer = nn.Linear(2, 2)
    x = layer(torch.randn(1, 2)).tanh().sin().exp()
    nodes = nodes_of(layer, x.sum())
    sin = next(node for node in nodes if node.op == "Sin")
    assert {node.op for node in search_back(nodes[-1], sin.index)} == {"Sin", "Exp", "Sum"}


def test_reentrant_checkpointing_is_refused() -> None:
    layer = nn.Linear(2, 2)
    x = torch.randn(1, 2, requires_grad=True)
    loss = checkpoint(layer, x, use_reentrant=True).sum()
    with pytest.raises(ModelError, match="use_reentrant=False"):
        nodes_of(layer, loss)


def test_a_gradient_that_the_step_took_is_a_constant_and_what_it_differentiated_is_seen() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.randn(5, 3, requires_grad=True)
    output = model(x)
    (slope,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    loss = output.mean() + (slope.norm(dim=1) - 1).square().mean()
    gradients = {slope.grad_fn: (output.grad_fn,)}
    nodes = walk([loss.grad_fn], parameter_names(model), {}, {}, gradients)
    assert [node.op for node in nodes if node.inputs and not node.static] == ["Addmm", "Tanh", "Addmm", "Mean", "Add"]
    assert nodes[-1].inputs[1] is None
    alone = walk([slope.grad_fn], parameter_names(model), {}, {}, gradients)
    assert [node.op for node in alone if node.inputs and not node.static] == ["Addmm", "Tanh", "Addmm"]
    assert {node.leaf for node in alone if node.leaf} == {name for name, _ in model.named_parameters()}
