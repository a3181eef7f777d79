"""Recipes of one kind of network, on models as their papers' code writes them."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo import ZOO

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


# Diffusion Transformers


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class Block(nn.Module):
    """A block of Peebles & Xie 2023."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.proj(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate.unsqueeze(1) * self.attend(modulate(self.norm1(x), shift, scale))
        return x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))


class DiT(nn.Module):
    """As in the paper's code, with two blocks and frozen sines for positions."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.x_embedder = nn.Conv2d(3, width, 2, stride=2)
        self.t_embedder = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.y_embedder = nn.Embedding(11, width)
        self.pos_embed = nn.Parameter(torch.linspace(0, 6, 16)[:, None].add(torch.arange(width)).sin()[None])
        self.pos_embed.requires_grad_(False)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.linear = nn.Linear(width, 12)

    def forward(self, images: Tensor, times: Tensor, classes: Tensor) -> Tensor:
        waves = times[:, None] * torch.logspace(0, -3, 8)
        c = self.t_embedder(torch.cat([waves.cos(), waves.sin()], 1)) + self.y_embedder(classes)
        x = self.x_embedder(images).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        found: Tensor = self.linear(modulate(self.norm_final(x), shift, scale))
        return found


NOISED = (torch.randn(4, 3, 8, 8), torch.tensor([3.0, 40.0, 200.0, 900.0]), torch.tensor([0, 3, 5, 10]))


def denoised(model: nn.Module, batch: Any) -> Any:
    return (model(*batch) - 1).square().mean()


def test_a_diffusion_transformer_starts_as_its_paper_has_it() -> None:
    model = DiT()
    positions = model.pos_embed.detach().clone()
    assert opening(autoinit.trace(model, [NOISED], step=denoised))[0].modulation == "same"
    assert "zero" in [recipe.modulation for recipe in opening(autoinit.trace(model, [NOISED], step=denoised))[:7]]
    autoinit.apply_(model, "adaln_zero", [NOISED], step=denoised)
    assert torch.equal(model.pos_embed, positions)
    for name, parameter in model.named_parameters():
        if "adaLN" in name or name.startswith("linear.") or name.endswith("bias"):
            assert not parameter.any(), name
        elif name.startswith(("t_embedder", "y_embedder")):
            assert has_std(parameter, 0.02), name
        elif "blocks" in name:
            widest = math.sqrt(6 / (sum(parameter.shape) - 2 * 32 * ("qkv" in name)))  # each third is a matrix
            assert widest * 0.95 < parameter.abs().max() <= widest, name
    x, c = torch.randn(2, 16, 32), torch.randn(2, 32)
    assert torch.equal(model.blocks[0](x, c), x)  # each block is the identity


def test_the_transformer_of_diffusers_starts_so_too() -> None:
    case = ZOO["dit"]()
    plan = autoinit.apply_(case.model, "adaln_zero", case.batch, step=case.loss)
    zero = {name for name, weight in case.model.named_parameters() if not weight.any() and name.endswith("weight")}
    assert zero == {
        "transformer_blocks.0.norm1.linear.weight",
        "transformer_blocks.1.norm1.linear.weight",
        "proj_out_1.weight",
        "proj_out_2.weight",
    }
    small = {name for name, fill in plan.items() if fill.std == 0.02}
    assert small == {name for name in plan if "embedder" in name and name.endswith("weight")}
    assert len(small) == 6


def test_without_data_modulation_is_told_by_what_stands_beside_it() -> None:
    for model in (DiT(), ZOO["dit"]().model):
        told = {layer.name for layer in autoinit.trace(model).layers if layer.modulates}
        assert told == {name for name, _ in model.named_parameters() if name.endswith(MODULATING)}
    plan = autoinit.apply_(model := DiT(), "adaln_zero")
    assert plan["blocks.1.adaLN_modulation.1.weight"].values == (0.0,)
    assert not model.get_parameter("blocks.0.adaLN_modulation.1.weight").any()


MODULATING = ("adaLN_modulation.1.weight", "norm1.linear.weight")


class FilmUNet(nn.Module):
    """A small U-Net that a time scales as 1 + s and shifts after its normalizations (Dhariwal & Nichol 2021)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(4, width), nn.SiLU(), nn.Linear(width, width))
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.down, self.up = nn.Conv2d(width, width, 4, 2, 1), nn.ConvTranspose2d(width, width, 4, 2, 1)
        self.norms = nn.ModuleList(nn.GroupNorm(2, width) for _ in range(2))
        self.films = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(2))
        self.leave = nn.Conv2d(2 * width, 3, 3, padding=1)

    def film(self, place: int, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.films[place](c)[:, :, None, None].chunk(2, 1)
        return nn.functional.silu(self.norms[place](x) * (1 + scale) + shift)

    def forward(self, images: Tensor, times: Tensor, _: Tensor) -> Tensor:
        c = self.time((times[:, None] / torch.tensor([1.0, 10.0, 100.0, 1000.0])).sin())
        top = self.enter(images)
        x = self.film(1, self.up(self.film(0, self.down(top), c)), c)
        found: Tensor = self.leave(torch.cat([x, top], 1))
        return found


class FilmMLP(nn.Module):
    """Scale and shift come from layers of their own, and there is no normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.time, self.gamma, self.beta = nn.Linear(1, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.enter, self.inner, self.leave = nn.Linear(192, 16), nn.Linear(16, 16), nn.Linear(16, 12)

    def forward(self, images: Tensor, times: Tensor, _: Tensor) -> Tensor:
        c = torch.tanh(self.time(times[:, None]))
        x = self.inner(torch.relu(self.enter(images.flatten(1))))
        found: Tensor = self.leave(torch.relu(torch.addcmul(self.beta(c), x, 1 + self.gamma(c))))
        return found


@pytest.mark.parametrize(
    ("model", "modulates", "conditions"),
    [
        (FilmUNet(), {"films.0.weight", "films.1.weight"}, {"time.0.weight", "time.2.weight"}),
        (FilmMLP(), {"gamma.weight", "beta.weight"}, {"time.weight"}),
    ],
    ids=["U-Net", "MLP"],
)
def test_film_starts_without_an_effect(model: nn.Module, modulates: set[str], conditions: set[str]) -> None:
    plan = autoinit.apply_(model, "adaln_zero", [NOISED], step=denoised)
    assert {name for name, fill in plan.items() if fill.values == (0.0,) and name.endswith("weight")} == (
        modulates | {"leave.weight"}
    )
    assert {name for name, fill in plan.items() if fill.std == 0.02} == conditions
    model.get_parameter("leave.weight").data.normal_()
    images, times, classes = NOISED
    assert torch.equal(model(images, times, classes), model(images, times + 7, classes))


def test_adaln_zero_is_refused_where_nothing_modulates() -> None:
    with pytest.raises(RecipeError, match=r"'adaln_zero' is for networks with weights that scale .* Use zero_residual"):
        autoinit.apply_(QNetwork(), "adaln_zero", torch.randn(5, 6))


def test_a_diffusion_transformer_that_its_owner_starts_so_takes_the_rest() -> None:
    model = DiT()
    for module in (*(block.adaLN_modulation[1] for block in model.blocks), model.adaLN_modulation[1], model.linear):
        nn.init.zeros_(module.weight)
    plan = autoinit.apply_(model, "adaln_zero", [NOISED], step=denoised)
    assert plan["t_embedder.0.weight"].std == 0.02
    assert not model.get_parameter("blocks.0.adaLN_modulation.1.weight").any()
