"""Properties of every network: they are looked for in networks composed at random.

`AUTOINIT_EXAMPLES=100000 pytest tests/tracing/test_composed.py` looks at so many of them.
"""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import replace

import pytest
import torch
from composed import ACTIVATIONS, PENALTIES, WAYS, Composition, Product, compositions, cross_entropy
from helpers import observed, unchanged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import autoinit

EXAMPLES = int(os.environ.get("AUTOINIT_EXAMPLES", "2000"))


def looked_at(share: float) -> settings:
    """Returns settings for a share of the examples, always the same ones, as long as they may take."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=max(10, int(share * EXAMPLES)),
        deadline=None,
        derandomize="AUTOINIT_EXAMPLES" not in os.environ,
        suppress_health_check=slow,
        database=None,
    )


@looked_at(0.5)
@given(compositions())
def test_the_graph_names_every_trainable_parameter_once_whatever_the_loss_and_what_is_drawn(
    composition: Composition,
) -> None:
    """Both are looked for in the same networks: to compose and to read one is what takes the time."""
    model = composition.build()
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(composition.seed)
        with unchanged(model):
            graph = autoinit.trace(model, composition.data, step=cross_entropy)
        torch.random.default_generator.manual_seed(composition.seed + 1)
        with unchanged(model):
            other = autoinit.trace(model, composition.data, step=PENALTIES[composition.penalty])
    assert sorted(graph) == sorted(name for name, _ in model.named_parameters())
    fans = model.fans_in()
    assert {name: layer.fan_in for name, layer in graph.items() if layer.fan_in} == fans
    for name in fans:
        convolves = "kernel" in name or isinstance(model.get_submodule(name.rpartition(".")[0]), Product)
        assert graph[name].kind in (("conv", "linear") if convolves else ("linear",))
    for name, expected in model.expected().items():
        assert {key: getattr(graph[name], key) for key in expected} == expected, name
    assert {name: layer.role for name, layer in other.items()} == {name: layer.role for name, layer in graph.items()}
    for name, layer in graph.items():
        assert replace(other[name], rectified=layer.rectified) == layer


class Chain(nn.Module):
    """Products with one activation between them, wide enough for a second moment to be near what theory says."""

    def __init__(self, ways: tuple[str, ...], activation: str, width: int = 96) -> None:
        super().__init__()
        self.products = nn.ModuleList(Product(way, width, width) for way in ways)
        self.head = nn.Linear(width, 3)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        for product in self.products:
            x = self.activation(product(x))
        return self.head(x)


@looked_at(0.08)
@given(
    st.lists(st.sampled_from(WAYS), min_size=2, max_size=6).map(tuple),
    st.sampled_from(("relu", "leaky", "none")),
    st.integers(0, 2**16),
)
def test_he_normal_keeps_the_second_moment_of_every_pre_activation(
    ways: tuple[str, ...], activation: str, seed: int
) -> None:
    """It does by He et al. (2015) for ReLU and its leaky kin, and for no activation, however the product is written."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(256, 96, generator=generator), torch.randint(0, 3, (256,), generator=generator)
    model = Chain(ways, activation)
    autoinit.apply_(model, "he_normal", (x, y), step=cross_entropy, seed=seed)
    moments: list[float] = []
    for product in model.products:
        product.register_forward_hook(lambda module, inputs, output: moments.append(output.square().mean().item()))
    model(x)
    # Each is the mean over 96 units; they wander as a product of such means does.
    for place, (one, next_one) in enumerate(itertools.pairwise(moments), 1):
        assert 0.5 < next_one / one < 2, f"from product {place} to the next"
    gain = {"none": 1.0}.get(activation, 2 / (1 + 0.2**2) if activation == "leaky" else 2.0)
    assert moments[0] == pytest.approx(gain, rel=0.5)


@looked_at(0.02)
@given(compositions(2), st.sampled_from(("diagnose", "select", "failing")))
def test_the_model_is_as_it_was(composition: Composition, verb: str) -> None:
    model = composition.build()
    before = observed(model)
    x, y = composition.data
    data = [(x, y)] * 4
    step = PENALTIES[composition.penalty]
    if verb == "diagnose":
        autoinit.diagnose(model, data, step=step)
    elif verb == "select":
        budget = autoinit.Budget(steps=170)
        autoinit.select(model, data, step=step, budget=budget, apply=False, executor="sequential", lr=1e-3)
    else:
        with pytest.raises(autoinit.AutoInitError):
            autoinit.diagnose(model, [(x[:, :-1], y)] * 4, step=step)
    assert observed(model) == before
    assert all(math.isfinite(p.abs().sum().item()) for p in model.parameters())
