"""What the heads of an agent are for: which chooses actions, and which says how good they or a state are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from ..graph import Graph, Layer

Part = Literal["policy", "value", ""]

_POLICY = frozenset("policy actor pi mu action actions act logits logit mean std logstd log sigma dist loc".split())
"""Words in names of what a distribution over actions is made of."""
_VALUE = frozenset("value values val critic critics vf v q qf qs qvalue qvalues advantage adv baseline".split())
"""Words in names of what estimates returns."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def part_of(head: Layer, graph: Graph) -> Part:
    """Returns what a head of an agent is for; empty where nothing tells.

    A name tells: the last part of it that says either (policy, actor, pi, mu, action, logits, mean, log_std; value,
    critic, vf, v, q, advantage) and not both. Where it says neither, a head of one unit beside one of several is the
    value, and the one of several the policy, unless that other one has a name that says what it is.

    Args:
        head: a weight with the role "output".
        graph: the network that it is part of.
    """
    if said := _said(head.name):
        return said
    others = [layer for layer in heads_of(graph) if layer.name != head.name]
    mine = units(head)
    if mine == 1 and any(units(other) > 1 and _said(other.name) != "value" for other in others):
        return "value"
    if mine > 1 and any(units(other) == 1 and _said(other.name) != "policy" for other in others):
        return "policy"
    return ""


def heads_of(graph: Graph) -> list[Layer]:
    """Returns the output weights of a network, those that must stay as well."""
    return [layer for layer in graph.layers if layer.role == "output" and layer.is_matrix]


def is_actor_critic(graph: Graph) -> bool:
    """Whether free heads are a policy and a value."""
    parts = {part_of(head, graph) for head in heads_of(graph) if not head.keep}
    return {"policy", "value"} <= parts


def units(head: Layer) -> int:
    """Returns the number of outputs of a head."""
    count = 1
    for axis in head.out_axes:
        count *= head.shape[axis]
    return count


def _said(name: str) -> Part:
    """Returns what the name of a parameter says, by its last part that does."""
    for part in reversed(name.split(".")):
        words = {word.lower() for word in _WORD.findall(part)}
        found: Mapping[Part, bool] = {"policy": bool(words & _POLICY), "value": bool(words & _VALUE)}
        said = [which for which, is_said in found.items() if is_said]
        if len(said) == 1:
            return said[0]
    return ""
