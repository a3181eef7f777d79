"""PPO (Schulman et al. 2017, arXiv:1707.06347) on CartPole and Acrobot.

As CleanRL's `ppo.py` has it: two networks of 64 tanh units, generalized advantage estimation, the clipped objective,
advantages normalized in each minibatch, an entropy bonus, gradients clipped, Adam with eps 1e-5, four epochs of four
minibatches. Other than there: 8 environments and 32 steps an iteration (as rl-baselines3-zoo's CartPole), so that an
iteration is a short step; a learning rate that stays; an episode that was cut off goes on in the value of where it
ended; and no clipping of the value's loss (Andrychowicz et al. 2021, arXiv:2006.05990, find that it hurts).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .environments import ACROBOT, CARTPOLE, HELD_BACK, Environments, Problem, held_back
from .training import Training

ENVIRONMENTS, LENGTH = 8, 32
EPOCHS, MINIBATCHES = 4, 4
DISCOUNT, TRACE = 0.99, 0.95
CLIP, ENTROPY, VALUE, LARGEST_GRADIENT = 0.2, 0.01, 0.5, 0.5
EPISODES = 16
"""Of each held-back part."""


class ActorCritic(nn.Module):
    """A policy and a value of the same observations; logits as [n, actions] and values as [n]."""

    def __init__(self, observed: int, actions: int, width: int = 64) -> None:
        super().__init__()
        self.actor = _network(observed, actions, width)
        self.critic = _network(observed, 1, width)

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(seen), self.critic(seen).squeeze(-1)


def _network(inputs: int, outputs: int, width: int) -> nn.Module:
    hidden = [nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


class Rollout(NamedTuple):
    """What an iteration learns from, a row for each step of each environment."""

    seen: Tensor
    actions: Tensor
    chances: Tensor
    """Logarithms of the probabilities that the actions had."""
    advantages: Tensor
    returns: Tensor


def build(problem: Problem, seed: int) -> nn.Module:
    """Returns policy and value in one module, as torch.nn draws them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ActorCritic(problem.observed, problem.actions)


def train(problem: Problem, rate: float, model: nn.Module, seed: int) -> Iterator[float]:
    """Trains by PPO, and yields minus the mean return of the latest episodes after each iteration."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, eps=1e-5, fused=True)
    envs = Environments(problem, ENVIRONMENTS, seed)
    try:
        while True:
            rollout = collected(model, envs, generator)
            for _ in range(EPOCHS):
                order = torch.randperm(len(rollout.seen), generator=generator)
                for rows in order.chunk(MINIBATCHES):
                    optimizer.zero_grad()
                    loss(model, Rollout(*(column[rows] for column in rollout))).backward()
                    nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
                    optimizer.step()
            yield envs.metric()
    finally:
        envs.close()


@torch.no_grad()
def collected(model: nn.Module, envs: Environments, generator: torch.Generator) -> Rollout:
    """Returns what some steps of the present policy gave, with the advantages of its actions."""
    rows: list[tuple[Tensor, ...]] = []
    for _ in range(LENGTH):
        seen = envs.seen
        logits, values = model(seen)
        chances = logits.log_softmax(-1)
        actions = torch.multinomial(chances.exp(), 1, generator=generator)
        stepped = envs.step(actions.squeeze(-1))
        rewards = stepped.rewards
        if stepped.truncated.any():
            rewards = rewards + DISCOUNT * model(stepped.arrived)[1] * stepped.truncated
        over = stepped.terminated | stepped.truncated
        rows.append((seen, actions.squeeze(-1), chances.gather(-1, actions).squeeze(-1), values, rewards, over))
    seen, actions, chances, values, rewards, over = (torch.stack(column) for column in zip(*rows, strict=True))
    gained = advantages(rewards, torch.cat([values, model(envs.seen)[1][None]]), over)
    return Rollout(*(column.flatten(0, 1) for column in (seen, actions, chances, gained, gained + values)))


def advantages(rewards: Tensor, values: Tensor, over: Tensor) -> Tensor:
    """Returns generalized advantage estimates (Schulman et al. 2016, arXiv:1506.02438).

    Args:
        rewards: [steps, environments].
        values: of what was seen before each step and after the last, [steps + 1, environments].
        over: whether the episode ended with the step, [steps, environments].
    """
    goes_on = (~over).to(values.dtype)
    surprises = rewards + DISCOUNT * goes_on * values[1:] - values[:-1]
    found, last = torch.empty_like(rewards), torch.zeros_like(rewards[0])
    for step in reversed(range(len(rewards))):
        last = surprises[step] + DISCOUNT * TRACE * goes_on[step] * last
        found[step] = last
    return found


def loss(model: nn.Module, rows: Rollout) -> Tensor:
    """Returns the clipped objective, the value's error and the entropy, as one number to be lowered."""
    logits, values = model(rows.seen)
    chances = logits.log_softmax(-1)
    ratio = (chances.gather(-1, rows.actions[:, None]).squeeze(-1) - rows.chances).exp()
    gained = (rows.advantages - rows.advantages.mean()) / (rows.advantages.std() + 1e-8)
    policy = -torch.min(gained * ratio, gained * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
    entropy: Tensor = -(chances.exp() * chances).sum(-1).mean()
    return policy + VALUE * 0.5 * (values - rows.returns).square().mean() - ENTROPY * entropy


def example(problem: Problem, model: nn.Module) -> Tensor:
    """Returns the loss on what a few steps of the present policy gave."""
    envs = Environments(problem, ENVIRONMENTS, seed=0)
    try:
        return loss(model, collected(model, envs, torch.Generator().manual_seed(0)))
    finally:
        envs.close()


@torch.no_grad()
def validate(problem: Problem, model: nn.Module, part: int) -> Sequence[float]:
    """Returns minus the return of each held-back episode, the actions drawn as they are in training."""
    generator = torch.Generator().manual_seed(HELD_BACK[part])

    def act(seen: Tensor) -> Tensor:
        return torch.multinomial(model(seen)[0].softmax(-1), 1, generator=generator).squeeze(-1)

    return held_back(problem, act, part, EPISODES)


def training(problem: Problem, *, rate: float, steps: int, budget: int) -> Training:
    """Returns PPO in one environment."""
    name = problem.name.split("-")[0].lower()
    return Training(
        name=f"ppo_{name}",
        build=functools.partial(build, problem),
        train=functools.partial(train, problem, rate),
        example=functools.partial(example, problem),
        validate=functools.partial(validate, problem),
        literature="rl",
        steps=steps,
        budget=budget,
        about=f"PPO, {problem.name}, two tanh networks of 64 units; minus the mean return of the last 20 episodes",
    )


PPO_CARTPOLE = training(CARTPOLE, rate=2.5e-4, steps=300, budget=1000)
PPO_ACROBOT = training(ACROBOT, rate=2.5e-4, steps=250, budget=800)
