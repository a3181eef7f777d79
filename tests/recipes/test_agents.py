from __future__ import annotations

import dataclasses

import pytest
from graphs import agent, linear

from autoinit.graph import Graph
from autoinit.recipes.agents import is_actor_critic, part_of, units


def heads(**sizes: int) -> Graph:
    """A body and heads of these sizes; two underscores in a name stand for a point."""
    found = [linear(f"{name.replace('__', '.')}.weight", size, 8, role="output") for name, size in sizes.items()]
    return Graph((linear("body.weight", 8, 8), *found))


def parts(graph: Graph) -> list[str]:
    return [part_of(layer, graph) for layer in graph.layers if layer.role == "output"]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"a": 4, "b": 1}, ["policy", "value"]),
        ({"a": 1, "b": 4}, ["value", "policy"]),
        ({"a": 3, "b": 2, "c": 1}, ["policy", "policy", "value"]),  # several discrete actions at once
        ({"actor__4": 1, "critic__4": 1}, ["policy", "value"]),
        ({"actor_mean__4": 1, "critic__4": 1}, ["policy", "value"]),  # CleanRL
        ({"action_net": 1, "value_net": 1}, ["policy", "value"]),  # Stable-Baselines3
        ({"pi": 1, "vf": 1}, ["policy", "value"]),
        ({"a2c_network__mu": 1, "a2c_network__value": 1}, ["policy", "value"]),  # rl_games
        ({"_logits": 1, "_value_branch": 1}, ["policy", "value"]),  # RLlib
        ({"valueHead": 1, "policyHead": 1}, ["value", "policy"]),
        ({"actor_critic__value_head": 1, "actor_critic__policy_head": 1}, ["value", "policy"]),
        ({"policy__value_net": 1, "policy__action_net": 1}, ["value", "policy"]),  # the last part that tells
        ({"mu": 2, "log_std": 2, "v_head": 1}, ["policy", "policy", "value"]),
        ({"policy": 4, "value": 51}, ["policy", "value"]),  # returns as a distribution over atoms
        ({"value": 1, "advantage": 4}, ["value", "value"]),  # a dueling Q-network
        ({"state__value": 1, "other": 4}, ["value", "policy"]),
        ({"q1": 1, "q2": 1}, ["value", "value"]),
        ({"head": 4}, [""]),
        ({"head": 1}, [""]),
        ({"policy": 4}, ["policy"]),
        ({"q_net__4": 4}, ["value"]),
        ({"a": 1, "b": 1}, ["", ""]),
        ({"a": 4, "b": 4}, ["", ""]),
        ({"actor_critic__0": 4}, [""]),
    ],
)
def test_a_head_is_told_by_its_name_and_else_by_its_units(sizes: dict[str, int], said: list[str]) -> None:
    assert parts(heads(**sizes)) == said


def test_an_actor_critic_has_both() -> None:
    assert is_actor_critic(agent())
    for sizes in ({"value": 1, "advantage": 4}, {"policy": 4}, {"q": 4}, {"a": 4, "b": 4}):
        assert not is_actor_critic(heads(**sizes))
    assert not is_actor_critic(agent().restricted(exclude="returns.*"))


def test_units_are_counted_along_the_axes_of_outputs() -> None:
    assert units(linear("head", 5, 3)) == 5
    assert units(dataclasses.replace(linear("head", 5, 3), out_axes=(1,), in_axes=(0,))) == 3
