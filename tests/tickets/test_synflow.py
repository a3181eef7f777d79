"""SynFlow: scores that are conserved from layer to layer, and no layer without weights at any sparsity."""

from __future__ import annotations

import pytest
import torch
from helpers import unchanged
from lots import Plain, data, dense, graph_of, images, task_of
from torch import Tensor, nn

import autoinit
from autoinit.errors import ModelError
from autoinit.tickets.synflow import _linearize, _ones, flow, synflow


def names_of(model: nn.Module) -> list[str]:
    return [name for name, weight in model.named_parameters() if weight.dim() > 1]


@pytest.mark.parametrize("norm", [False, True])
def test_scores_are_conserved_layer_by_layer(norm: bool) -> None:
    model = Plain(norm=norm)
    task = task_of(model, images())
    graph = graph_of(task)
    with task.preserved():
        model.eval()
        call = _ones(task)
        _linearize(model, graph)
        scores = flow(call, {name: model.get_parameter(name) for name in names_of(model)})
        total = float(call().detach())
    sums = [float(score.sum()) for score in scores.values()]
    assert len(sums) == 9
    assert sums == pytest.approx([total] * 9, rel=1e-9)


def test_with_biases_too_as_these_are_left_out_of_the_flow() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    task = task_of(model, data())
    masks, scores = synflow(task, graph_of(task), names_of(model), 0.5, rounds=1)
    sums = [float(score.sum()) for score in scores.values()]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-9)
    matrices = [model.get_parameter(name).detach().double().abs() for name in names_of(model)]
    ahead, behind = torch.ones(8).double(), [matrices[2].sum(0)]  # an independent reference: 1ᵀ|W3| |W2| |W1| 1
    behind.append(matrices[1].T @ behind[0])
    torch.testing.assert_close(scores["0.weight"], behind[1][:, None] * matrices[0] * ahead[None])
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.5 * 93)


@pytest.mark.parametrize("norm", [False, True])
def test_a_way_from_input_to_output_is_left_at_99_9_percent(norm: bool) -> None:
    torch.manual_seed(3)
    model = Plain(norm=norm)
    with unchanged(model):
        found = autoinit.ticket(model, images(), 0.999, method="synflow")
    assert all(density > 0 for density in found.densities.values())
    assert not [note for note in found.notes if "collapse" in note]
    assert through(found) > 0


def test_one_iteration_is_not_enough() -> None:
    """That the hundred of them are what keeps layers alive."""
    found = autoinit.ticket(Plain(), images(), 0.999, method="synflow", rounds=1)
    assert through(found) == 0


def through(found: autoinit.Ticket) -> float:
    """How many ways lead through the masks alone, by one position of the kernels, up to a scale."""
    signal = torch.ones(3).double()
    for mask in found.masks.values():
        signal = mask.double().flatten(2).amax(2) @ signal if mask.dim() == 4 else mask.double() @ signal
        signal = signal / signal.sum().clamp(min=1e-300)
    return float(signal.sum())


def test_the_mode_and_the_statistics_of_a_norm_do_not_matter() -> None:
    model = dense()
    first = autoinit.ticket(model, data(), 0.8, method="synflow")
    with torch.no_grad():
        model[2].running_mean.fill_(7.0)
    model.eval()
    second = autoinit.ticket(model, data(), 0.8, method="synflow")
    assert all(torch.equal(first.masks[name], second.masks[name]) for name in first.masks)


def test_what_cannot_be_ranked_is_refused() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 3), Constant())
    with unchanged(model), pytest.raises(ModelError, match="scores are all zero"):
        autoinit.ticket(model, data(), 0.5, method="synflow")
    tokens = nn.Sequential(nn.Embedding(11, 8), nn.Flatten(), nn.Linear(32, 3))
    rows = [(torch.randint(11, (16, 4)), torch.randint(3, (16,)))]
    with unchanged(tokens), pytest.raises(ModelError, match="takes whole numbers"):
        autoinit.ticket(tokens, rows, 0.5, method="synflow")


class Constant(nn.Module):
    """Outputs whose sum is the same for all weights, exactly, as that after a softmax is up to rounding."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, -x], 1)
