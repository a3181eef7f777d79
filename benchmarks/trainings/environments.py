"""Copies of one of gymnasium's environments, side by side in this process, and what their episodes have returned.

A plain list: on these small environments gymnasium's vector classes cost more than the physics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

LATELY = 20
"""Episodes that the metric is a mean of."""
HELD_BACK = (0x5EED_0000, 0x5EED_0001)
"""What the environment seeds of each held-back part come from."""


@dataclass(frozen=True)
class Problem:
    """One environment.

    Attributes:
        name: in gymnasium.
        observed: numbers of an observation.
        actions: how many there are.
        until_done: whether each step costs one until the goal is reached, so that an episode that still runs promises
            nothing; where not, each step gains one, and a running episode has what it has gained.
    """

    name: str
    observed: int
    actions: int
    until_done: bool


CARTPOLE = Problem("CartPole-v1", 4, 2, until_done=False)
ACROBOT = Problem("Acrobot-v1", 6, 3, until_done=True)


class Stepped(NamedTuple):
    """What one step of every environment gave.

    Attributes:
        rewards: [count].
        arrived: observations that the actions led to, [count, observed]; where an episode ended, its last one.
        terminated: whether the episode ended by what happened, [count].
        truncated: whether it ended by its length, [count].
    """

    rewards: Tensor
    arrived: Tensor
    terminated: Tensor
    truncated: Tensor


class Environments:
    """Environments that are stepped together; whatever has ended begins anew at once.

    Attributes:
        seen: the present observations, [count, observed].
        finished: returns of the episodes that ended lately.
    """

    def __init__(self, problem: Problem, count: int, seed: int) -> None:
        self._problem = problem
        self._envs = [gymnasium.make(problem.name, disable_env_checker=True) for _ in range(count)]
        seeds = np.random.SeedSequence(seed).generate_state(count)
        self._seen = [env.reset(seed=int(one))[0] for env, one in zip(self._envs, seeds, strict=True)]
        self._running = [0.0] * count
        self.finished: deque[float] = deque(maxlen=LATELY)
        self.seen = torch.as_tensor(np.array(self._seen))

    def step(self, actions: Tensor) -> Stepped:
        """Takes one action in each environment."""
        rewards, arrived, terminated, truncated = [], [], [], []
        for place, (env, action) in enumerate(zip(self._envs, actions.tolist(), strict=True)):
            observation, reward, ended, cut, _ = env.step(action)
            rewards.append(float(reward))
            arrived.append(observation)
            terminated.append(ended)
            truncated.append(cut and not ended)
            self._running[place] += float(reward)
            if ended or cut:
                self.finished.append(self._running[place])
                self._running[place] = 0.0
                observation, _ = env.reset()
            self._seen[place] = observation
        self.seen = torch.as_tensor(np.array(self._seen))
        return Stepped(
            torch.tensor(rewards), torch.as_tensor(np.array(arrived)), torch.tensor(terminated), torch.tensor(truncated)
        )

    def metric(self) -> float:
        """Returns minus the mean return of the episodes that ended lately.

        An episode that still runs counts as soon as what it is sure of raises the mean. Else long episodes, which are
        the good ones where each step gains, would be missing among the first; and one that has just begun would lower
        the mean by nothing but its youth.
        """
        sure = [self._sure_of(returned) for returned in self._running]
        if not self.finished:
            return -sum(sure) / len(sure)
        mean = sum(self.finished) / len(self.finished)
        counted = [*self.finished, *(one for one in sure if one > mean)]
        return -sum(counted) / len(counted)

    def _sure_of(self, returned: float) -> float:
        return -float(longest(self._problem)) if self._problem.until_done else returned

    def close(self) -> None:
        """Closes every environment."""
        for env in self._envs:
            env.close()


def longest(problem: Problem) -> int:
    """Returns after how many steps an episode is cut off."""
    steps = gymnasium.spec(problem.name).max_episode_steps
    if steps is None:
        raise ValueError(f"Episodes of {problem.name} have no end.")
    return steps


def held_back(problem: Problem, act: Callable[[Tensor], Tensor], part: int, episodes: int) -> Sequence[float]:
    """Returns minus the return of each of some episodes whose seeds belong to that part alone.

    Args:
        problem: the environment.
        act: observations [count, observed] to actions [count].
        part: of what is held back, 0 or 1.
        episodes: how many; all of them run side by side.
    """
    seeds = np.random.SeedSequence(HELD_BACK[part]).generate_state(episodes)
    envs: list[Any] = [gymnasium.make(problem.name, disable_env_checker=True) for _ in seeds]
    try:
        seen = [env.reset(seed=int(seed))[0] for env, seed in zip(envs, seeds, strict=True)]
        returns, running = [0.0] * episodes, list(range(episodes))
        while running:
            actions = act(torch.as_tensor(np.array([seen[place] for place in running]))).tolist()
            going = []
            for place, action in zip(running, actions, strict=True):
                seen[place], reward, ended, cut, _ = envs[place].step(action)
                returns[place] += float(reward)
                if not (ended or cut):
                    going.append(place)
            running = going
        return [-returned for returned in returns]
    finally:
        for env in envs:
            env.close()
