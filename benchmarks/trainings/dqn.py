"""DQN (Mnih et al. 2015, Nature 518) on CartPole and Acrobot.

A replay memory, a target network that is copied now and then, errors clipped to ±1 (Huber's loss), an ε that falls in
a line. Network, batch, memory and discount as in CleanRL's `dqn.py`, whose learning rate and frequency of learning are
for 500,000 moves; here they are between those and rl-baselines3-zoo's, which are for 50,000 and 100,000.

The literature starts where PyTorch does: CleanRL's and Stable-Baselines3's DQN leave layers as torch.nn draws them, and
the code of the paper was in Torch 7, whose layers drew the same uniform numbers of ±1/√fan_in. Orthogonal weights are
those of policy gradients. "rl" stands here for a start that somebody may carry over from there.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .environments import ACROBOT, CARTPOLE, HELD_BACK, Environments, Problem, Stepped, held_back
from .training import Training

ENVIRONMENTS, MOVES = 4, 8
"""A step of the training takes so many moves in each of so many environments."""
UPDATES, BATCH = 8, 128
MEMORY, FIRST = 10_000, 1_000
"""Transitions that are kept, and how many there must be before anything is learned."""
DISCOUNT = 0.99
EXPLORING, LEAST = 10_000, 0.05
"""Moves over which ε falls from 1, and to what; that is also what it is on held-back episodes, as in the paper."""
EPISODES = 16
"""Of each held-back part."""


class Memory:
    """The latest transitions, the oldest overwritten first."""

    def __init__(self, observed: int) -> None:
        self.seen, self.arrived = torch.zeros(MEMORY, observed), torch.zeros(MEMORY, observed)
        self.actions, self.rewards = torch.zeros(MEMORY, dtype=torch.long), torch.zeros(MEMORY)
        self.goes_on = torch.zeros(MEMORY)
        self.count = 0

    def add(self, seen: Tensor, actions: Tensor, stepped: Stepped) -> None:
        """Keeps one transition of each environment; one whose episode was only cut off goes on."""
        rows = torch.arange(self.count, self.count + len(seen)) % MEMORY
        self.seen[rows], self.arrived[rows] = seen, stepped.arrived
        self.actions[rows], self.rewards[rows] = actions, stepped.rewards
        self.goes_on[rows] = (~stepped.terminated).float()
        self.count += len(seen)

    def rows(self, generator: torch.Generator) -> Tensor:
        """Returns which transitions to learn from, at random."""
        return torch.randint(min(self.count, MEMORY), (BATCH,), generator=generator)


def build(problem: Problem, seed: int) -> nn.Module:
    """Returns the network of the values of actions, as torch.nn draws it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden = [nn.Linear(problem.observed, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()]
        return nn.Sequential(*hidden, nn.Linear(84, problem.actions))


def train(problem: Problem, rate: float, copied_every: int, model: nn.Module, seed: int) -> Iterator[float]:
    """Trains by DQN, and yields minus the mean return of the latest episodes after each step.

    Args:
        problem: the environment.
        rate: Adam's learning rate.
        copied_every: steps of the training between copies of the network to the target.
        model: gives the value of each action.
        seed: of the environments, of what is explored, and of what is learned from.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    target, memory, step = copy.deepcopy(model), Memory(problem.observed), 0
    envs = Environments(problem, ENVIRONMENTS, seed)
    try:
        while True:
            for _ in range(MOVES):
                move(model, envs, memory, generator)
            if memory.count >= FIRST:
                for _ in range(UPDATES):
                    optimizer.zero_grad()
                    loss(model, target, memory, memory.rows(generator)).backward()
                    optimizer.step()
            step += 1
            if step % copied_every == 0:
                target.load_state_dict(model.state_dict())
            yield envs.metric()
    finally:
        envs.close()


@torch.no_grad()
def move(model: nn.Module, envs: Environments, memory: Memory, generator: torch.Generator) -> None:
    """Takes the best action or, with probability ε, any, in each environment."""
    seen = envs.seen
    actions = chosen(model, seen, exploration(memory.count), generator)
    memory.add(seen, actions, envs.step(actions))


def chosen(model: nn.Module, seen: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Returns the best action of each row or, with some chance, any."""
    values = model(seen)
    any_action = torch.randint(values.shape[1], (len(seen),), generator=generator)
    return torch.where(torch.rand(len(seen), generator=generator) < chance, any_action, values.argmax(-1))


def exploration(moves: int) -> float:
    """Returns ε after so many moves."""
    return max(LEAST, 1 - (1 - LEAST) * moves / EXPLORING)


def loss(model: nn.Module, target: nn.Module, memory: Memory, rows: Tensor) -> Tensor:
    """Returns how far the values of the actions taken are from one step's reward and what the target expects of it."""
    with torch.no_grad():
        best = target(memory.arrived[rows]).amax(-1)
        wanted = memory.rewards[rows] + DISCOUNT * memory.goes_on[rows] * best
    values = model(memory.seen[rows]).gather(-1, memory.actions[rows, None]).squeeze(-1)
    return F.smooth_l1_loss(values, wanted)


def example(problem: Problem, model: nn.Module) -> Tensor:
    """Returns the loss on the first transitions of random actions."""
    generator, memory = torch.Generator().manual_seed(0), Memory(problem.observed)
    envs = Environments(problem, ENVIRONMENTS, seed=0)
    try:
        for _ in range(BATCH // ENVIRONMENTS):
            move(model, envs, memory, generator)
        return loss(model, copy.deepcopy(model), memory, torch.arange(BATCH))
    finally:
        envs.close()


@torch.no_grad()
def validate(problem: Problem, model: nn.Module, part: int) -> Sequence[float]:
    """Returns minus the return of each held-back episode. Without any chance, Acrobot's swings can go on for ever."""
    generator = torch.Generator().manual_seed(HELD_BACK[part])
    return held_back(problem, lambda seen: chosen(model, seen, LEAST, generator), part, EPISODES)


def training(problem: Problem, *, rate: float, copied_every: int, steps: int, budget: int) -> Training:
    """Returns DQN in one environment."""
    name = problem.name.split("-")[0].lower()
    return Training(
        name=f"dqn_{name}",
        build=functools.partial(build, problem),
        train=functools.partial(train, problem, rate, copied_every),
        example=functools.partial(example, problem),
        validate=functools.partial(validate, problem),
        literature="rl",
        steps=steps,
        budget=budget,
        about=f"DQN, {problem.name}, ReLU network of 120 and 84 units; minus the mean return of the last 20 episodes",
    )


DQN_CARTPOLE = training(CARTPOLE, rate=5e-4, copied_every=16, steps=600, budget=3000)
DQN_ACROBOT = training(ACROBOT, rate=1e-3, copied_every=4, steps=600, budget=2500)
