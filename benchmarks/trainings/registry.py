"""Every training by its name, and where it is. A module is loaded when its training is wanted."""

from __future__ import annotations

import importlib

from .training import Training

REGISTRY: dict[str, str] = {
    "dcgan": "dcgan:TRAINING",
    "wgan_gp": "wgan_gp:TRAINING",
    "diffusion": "diffusion:TRAINING",
    "two_towers": "two_towers:TRAINING",
    "ppo_cartpole": "ppo:PPO_CARTPOLE",
    "ppo_acrobot": "ppo:PPO_ACROBOT",
    "dqn_cartpole": "dqn:DQN_CARTPOLE",
    "dqn_acrobot": "dqn:DQN_ACROBOT",
    "multi_task": "multi_task:MULTI_TASK",
    "maml": "maml:MAML",
    "maml_bare": "maml:MAML_BARE",
}
"""Name of a training → module of this folder, and in it a `Training` or a function that returns one."""


def load(name: str) -> Training:
    """Returns the training of this name.

    Raises:
        SystemExit: where there is none, with those that there are.
    """
    if name not in REGISTRY:
        raise SystemExit(f"unknown training {name}; known: {', '.join(REGISTRY)}")
    module, _, attribute = REGISTRY[name].partition(":")
    found = vars(importlib.import_module(f"{__package__}.{module}"))[attribute]
    training: Training = found if isinstance(found, Training) else found()
    return training


def chosen(names: str) -> list[str]:
    """Returns the names of a comma-separated list, in the order of the registry; all of them for an empty one.

    Raises:
        SystemExit: for a name that is not there.
    """
    wanted = [name for name in names.split(",") if name] or list(REGISTRY)
    if unknown := [name for name in wanted if name not in REGISTRY]:
        raise SystemExit(f"unknown trainings {', '.join(unknown)}; known: {', '.join(REGISTRY)}")
    return [name for name in REGISTRY if name in wanted]
