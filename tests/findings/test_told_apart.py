"""Networks whose last layer reads the same whatever the input are told, and those of the same shape that do not."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import torch
from fresh_models import FRESH
from helpers import unchanged
from once import mnist
from torch import nn

import autoinit
from autoinit.diagnosis import diagnose
from autoinit.errors import OptimizerError
from autoinit.findings.told_apart import ALIKE, SAME
from studies.networks import SeriesRNN, cnn, mlp

X, Y = mnist()
ROWS = (torch.tensor(X[::5] / 255, dtype=torch.float32) - 0.13) / 0.31
LABELS = torch.tensor(Y[::5], dtype=torch.long)
IMAGES = nn.functional.avg_pool2d(ROWS.unflatten(1, (1, 28, 28)), 2)

TOLD = "inputs are hardly told apart"
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
ADAM = functools.partial(torch.optim.Adam, lr=1e-3)


def seeded(build: Any, *args: Any, seed: int = 0, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return build(*args, **options)  # type: ignore[no-any-return]


def severities(model: nn.Module, data: Any, **options: Any) -> list[str]:
    with unchanged(model):
        findings = diagnose(model, data, **options).findings
    return [finding.severity for finding in findings if finding.text.startswith(TOLD)]


@pytest.mark.parametrize("seed", range(4))
def test_a_plain_cnn_of_six_layers_is_called_stuck(seed: int) -> None:
    diagnosis = diagnose(seeded(cnn, 1, 10, 6, seed=seed), (IMAGES, LABELS))
    assert not diagnosis.healthy
    (finding,) = [finding for finding in diagnosis.findings if finding.text.startswith(TOLD)]
    said = (
        r"two rows differ by 0\.\d+ in the outputs of 0.weight and by 0?\.?\S+ in what 14.weight reads \(0?\S+ of it\)"
    )
    assert re.search(said, finding.text), finding.text
    assert "'he_normal'" in finding.remedy


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("options", [{"norm": "batch"}, {"norm": "group"}, {}])
def test_the_same_shape_is_healthy_with_normalization_or_drawn_by_he(seed: int, options: dict[str, str]) -> None:
    model = seeded(cnn, 1, 10, 6, seed=seed, **options)
    if not options:
        autoinit.apply_(model, "he_normal", (IMAGES, LABELS), seed=seed)
    assert diagnose(model, (IMAGES, LABELS)).healthy


@pytest.mark.parametrize(
    ("activation", "depth"), [("relu", 10), ("gelu", 10), ("silu", 9), ("tanh", 16), ("sigmoid", 5)]
)
def test_so_are_deep_plain_mlps_of_any_activation(activation: str, depth: int) -> None:
    assert severities(seeded(mlp, 784, 10, depth, 64, activation), (ROWS, LABELS)) == ["warning"]


@pytest.mark.parametrize(
    ("activation", "recipe"), [("relu", "he_normal"), ("tanh", "orthogonal"), ("gelu", "he_normal")]
)
def test_and_not_where_signals_keep_their_size(activation: str, recipe: str) -> None:
    model = seeded(mlp, 784, 10, 12, 64, activation)
    autoinit.apply_(model, recipe, (ROWS, LABELS), seed=0)
    assert severities(model, (ROWS, LABELS)) == []


def test_the_finding_is_true_of_sgd() -> None:
    """Its loss after 60 steps is a constant guess's, while He's draws leave it; see benchmarks/probes/stuck.py."""
    reached = []
    for recipe in (None, "he_normal"):
        model = seeded(cnn, 1, 10, 6)
        if recipe is not None:
            autoinit.apply_(model, recipe, (IMAGES, LABELS), seed=0)
        optimizer = SGD(model.parameters())
        for step in range(60):
            rows = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(step))[:64]
            loss = nn.functional.cross_entropy(model(IMAGES[rows]), LABELS[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        reached.append(nn.functional.cross_entropy(model(IMAGES), LABELS).item())
    assert 2.25 < reached[0] < 2.35
    assert reached[1] < 2.1


def test_adam_gets_over_what_sgd_does_not() -> None:
    model = seeded(mlp, 784, 10, 10)
    assert severities(model, (ROWS, LABELS), optimizer=SGD) == ["warning"]
    assert severities(model, (ROWS, LABELS), optimizer=ADAM) == ["note"]
    assert severities(model, (ROWS, LABELS), optimizer=torch.optim.SGD(model.parameters(), lr=0.1)) == ["warning"]


def test_gradients_that_vanish_a_hundredfold_are_a_note_to_adam() -> None:
    deep, deeper = (seeded(mlp, 784, 10, depth, 64, "tanh") for depth in (16, 40))
    for optimizer, expected in ((None, "warning"), (SGD, "warning"), (ADAM, "note")):
        findings = diagnose(deep, (ROWS, LABELS), optimizer=optimizer).findings
        assert [one.severity for one in findings if one.text.startswith("gradients vanish")] == [expected]
    assert diagnose(deep, (ROWS, LABELS), optimizer=ADAM).healthy
    assert diagnose(deeper, (ROWS, LABELS), optimizer=ADAM).findings[0].severity == "error"


def test_an_optimizer_that_is_none_is_refused() -> None:
    with pytest.raises(OptimizerError, match="Allowed: optimizer=callable"):
        diagnose(seeded(mlp, 784, 10, 3), (ROWS, LABELS), optimizer="adam")


def test_what_no_optimizer_moves_is_an_error() -> None:
    model = seeded(mlp, 784, 10, 30)
    for options in ({}, {"optimizer": ADAM}):
        assert severities(model, (ROWS, LABELS), **options) == ["error"]


def test_layers_that_are_not_seen_are_judged_by_the_data_and_the_last_one() -> None:
    """The products of nn.LSTM happen out of sight."""
    series = (IMAGES.squeeze(1), LABELS)
    healthy, stuck = (seeded(SeriesRNN, 14, 10, "lstm", layers=layers) for layers in (2, 3))
    for parameter in stuck.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
    assert severities(healthy, series) == []
    (finding,) = [one for one in diagnose(stuck, series).findings if one.text.startswith(TOLD)]
    assert "in the data and by" in finding.text


def test_a_head_of_zeros_is_judged_by_what_lies_before_it() -> None:
    for depth, expected in ((3, []), (12, ["warning"])):
        model: Any = seeded(mlp, 784, 10, depth)
        nn.init.zeros_(model[-1].weight)
        assert severities(model, (ROWS, LABELS)) == expected


def test_a_small_head_is_no_loss() -> None:
    model: Any = seeded(mlp, 784, 10, 3)
    with torch.no_grad():
        model[-1].weight.mul_(1e-4)
    assert severities(model, (ROWS, LABELS)) == []


def test_rows_that_are_all_alike_say_nothing() -> None:
    model = seeded(mlp, 784, 10, 12)
    assert severities(model, [(torch.ones(8, 784), LABELS[:8])]) == []
    assert severities(model, [(ROWS[:1], LABELS[:1])]) == []


@pytest.mark.parametrize("name", FRESH)
def test_models_as_libraries_draw_them_are_far_from_it(name: str) -> None:
    from autoinit.findings.told_apart import course
    from autoinit.probing.signals import measure
    from autoinit.task.task import measured_task
    from autoinit.tracing.tracing import trace_task

    task = measured_task(*FRESH[name]())
    graph = trace_task(task)
    seen = course(task, graph, measure(task, graph))
    assert seen is None or seen.share > 5 * ALIKE


def test_the_thresholds_are_apart() -> None:
    assert SAME < ALIKE / 100
