"""Recipes of one kind of network, on models as their papers' code writes them."""

from __future__ import annotations

import math
from collections import OrderedDict
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


# Agents


class SharedTrunk(nn.Module):
    """A policy over discrete actions and a value on one body, of names that tell nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.left, self.right = nn.Linear(32, 4), nn.Linear(32, 1)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(state)
        return self.left(hidden), self.right(hidden)


class SeparateTrunks(nn.Module):
    """CleanRL's agent for discrete actions."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
        self.actor = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 4))

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(state), self.critic(state)


class Gaussian(nn.Module):
    """CleanRL's agent for one continuous action: both heads have one unit, and log_std is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))
        self.actor_mean = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))
        self.actor_logstd = nn.Parameter(torch.full((1, 1), -0.5))

    def forward(self, state: Tensor) -> tuple[torch.distributions.Normal, Tensor]:
        mean = self.actor_mean(state)
        return torch.distributions.Normal(mean, self.actor_logstd.expand_as(mean).exp()), self.critic(state)


class QNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, state: Tensor) -> Tensor:
        values: Tensor = self.network(state)
        return values


def played(model: nn.Module, batch: Any) -> Any:
    """PPO's loss of a batch at its first step, where the ratio of probabilities is 1."""
    states, (actions, gains, returns) = batch
    policy, value = model(states)
    if isinstance(policy, Tensor):
        policy, taken = torch.distributions.Categorical(logits=policy, validate_args=False), actions
    else:
        taken = actions[:, None].float()
    bonus, chance = policy.entropy().mean(), policy.log_prob(taken).reshape(-1)
    ratio = (chance - chance.detach()).exp()
    return (
        -torch.min(gains * ratio, gains * ratio.clamp(0.8, 1.2)).mean()
        + 0.5 * (value.squeeze(-1) - returns).square().mean()
        - 0.01 * bonus
    )


PLAYED = (torch.randn(16, 6), (torch.randint(0, 4, (16,)), torch.randn(16), torch.randn(16)))


def gain_of(weight: Tensor) -> float:
    """The factor of an orthogonal matrix; fails where it is none."""
    sizes = torch.linalg.svdvals(weight.detach())
    assert torch.allclose(sizes, sizes[0].expand_as(sizes), rtol=1e-4)
    return float(sizes[0])


@pytest.mark.parametrize(
    ("model", "policy", "value"),
    [
        (SharedTrunk(), "left.weight", "right.weight"),
        (SeparateTrunks(), "actor.4.weight", "critic.4.weight"),
        (Gaussian(), "actor_mean.2.weight", "critic.2.weight"),
    ],
    ids=["one trunk", "two trunks", "Gaussian"],
)
def test_an_actor_critic_starts_as_the_code_of_ppo_has_it(model: nn.Module, policy: str, value: str) -> None:
    graph = autoinit.trace(model, PLAYED, step=played)
    assert NAMED["rl"] in opening(graph)
    autoinit.apply_(model, "rl", PLAYED, step=played)
    for name, parameter in model.named_parameters():
        if name == "actor_logstd":
            assert parameter.item() == -0.5
        elif name.endswith("bias"):
            assert not parameter.any()
        else:
            wanted = {policy: 0.01, value: 1.0}.get(name, math.sqrt(2))
            assert gain_of(parameter) == pytest.approx(wanted, rel=1e-4)
    with torch.no_grad():
        chosen = model(PLAYED[0])[0]
    probabilities = chosen.softmax(-1) if isinstance(chosen, Tensor) else 0.25 + chosen.mean
    assert (probabilities - 0.25).abs().max() < 0.02


def test_a_q_network_s_head_has_gain_1_and_a_lone_policy_s_0_01() -> None:
    model = QNetwork()
    autoinit.apply_(model, "rl", torch.randn(5, 6))
    assert gain_of(model.get_parameter("network.4.weight")) == pytest.approx(1, rel=1e-4)
    assert NAMED["rl"] not in opening(autoinit.trace(model, torch.randn(5, 6)))
    lone = nn.Sequential(OrderedDict(policy=QNetwork()))
    autoinit.apply_(lone, "rl", torch.randn(5, 6))
    assert gain_of(lone.get_parameter("policy.network.4.weight")) == pytest.approx(0.01, rel=1e-4)


def test_cells_of_an_agent_with_memory_have_gain_1() -> None:
    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(6, 16, batch_first=True)
            self.actor, self.critic = nn.Linear(16, 4), nn.Linear(16, 1)

        def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.cell(states[:, None])[0][:, -1]
            return self.actor(hidden), self.critic(hidden)

    model = Remembering()
    autoinit.apply_(model, "rl", PLAYED, step=played)
    for part in model.get_parameter("cell.weight_hh_l0").chunk(4):
        assert gain_of(part) == pytest.approx(1, rel=1e-4)
    assert gain_of(model.get_parameter("actor.weight")) == pytest.approx(0.01, rel=1e-4)
