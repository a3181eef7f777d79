"""Recipes of one kind of network, on models as their papers' code writes them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import autoinit
from autoinit.errors import RecipeError
from autoinit.graph import Graph
from autoinit.recipes.catalogue import NAMED
from autoinit.recipes.recipe import Recipe
from autoinit.recipes.space import space_of


def opening(graph: Graph) -> tuple[Recipe, ...]:
    return space_of(graph, lr_searched=False).opening


def spread(tensor: Tensor) -> float:
    """The standard deviation of the entries about their mean."""
    return tensor.detach().double().std(correction=0).item()


def has_std(tensor: Tensor, std: float) -> bool:
    """Whether it is that of a draw, within five standard errors."""
    return abs(spread(tensor) - std) < 5 * std / math.sqrt(2 * tensor.numel())


# DCGAN


def generator(width: int = 16) -> nn.Sequential:
    """That of Radford et al. 2015, for images of 32 × 32."""
    return nn.Sequential(
        nn.ConvTranspose2d(24, 4 * width, 4, bias=False), nn.BatchNorm2d(4 * width), nn.ReLU(),
        nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


def discriminator(width: int = 16) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(4 * width), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(64 * width, 1),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (generator(), torch.randn(2, 24, 1, 1)),
        (discriminator(), (torch.randn(4, 3, 32, 32), torch.rand(4, 1))),
        (generator(), None),  # the module tree tells as much
    ],
    ids=["generator", "discriminator", "without data"],
)
def test_a_gan_starts_as_dcgan_s_code_has_it(model: nn.Module, data: Any) -> None:
    autoinit.apply_(model, "dcgan", data)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            assert has_std(module.weight, 0.02)
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert has_std(module.weight, 0.02)
            assert module.weight.mean().item() == pytest.approx(1, abs=5 * 0.02 / math.sqrt(module.num_features))
            assert not module.bias.any()


class Gemma(nn.Module):
    """A normalization whose scale is stored as what it differs from 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)


def test_a_scale_that_is_stored_less_1_is_drawn_around_0() -> None:
    norm = Gemma(400)
    model = nn.Sequential(nn.Linear(5, 400), norm, nn.Linear(400, 2))
    plan = autoinit.apply_(model, "dcgan", torch.randn(6, 5))
    assert has_std(norm.weight, 0.02)
    assert abs(norm.weight.mean().item()) < 5 * 0.02 / math.sqrt(400)
    assert (
        plan["1.weight"].reason
        == "scales of normalizations: N(1, 0.02²), stored less the 1 that is added to it (DCGAN)"
    )


def test_dcgan_is_for_normalized_networks_and_tried_on_those_that_make_images() -> None:
    with pytest.raises(RecipeError, match=r"'dcgan' is for networks with normalizations .* Use normal"):
        autoinit.apply_(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), "dcgan", torch.randn(2, 3))
    assert NAMED["dcgan"] in opening(autoinit.trace(generator(), torch.randn(2, 24, 1, 1)))
    assert NAMED["dcgan"] not in opening(autoinit.trace(discriminator(), torch.randn(4, 3, 32, 32)))


def test_a_plan_with_drawn_scales_is_the_same_from_its_file(tmp_path: Any) -> None:
    first, second = generator(), generator()
    autoinit.apply_(first, "dcgan", torch.randn(2, 24, 1, 1)).save(tmp_path / "plan.json")
    autoinit.apply_(second, tmp_path / "plan.json")
    assert torch.equal(first.get_parameter("1.weight"), second.get_parameter("1.weight"))
