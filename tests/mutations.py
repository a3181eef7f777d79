"""Files that went wrong: mutations of JSON and TOML, the same ones for the same seed."""

from __future__ import annotations

import copy
import json
import random
import re
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**70, -(2**70), 1.5, 1e308, float("nan"), float("inf"), "", "x", "keep", "he_normal",
    "\x00", "ü" * 9, [], {}, [[]], [None], [1, "a"], {"": None}, {"name": {}}, [[[[[]]]]],
)  # fmt: skip
"""Values that take the place of others."""

LITERALS = (
    '""', '"x"', "0", "-1", "1e400", "nan", "true", "[]", "{}", "[[]]", '["a", 1]', "1979-05-27", "9" * 20,
)  # fmt: skip
"""TOML values that take the place of others."""


def mutated_json(data: Any, chance: random.Random) -> str:
    """A JSON text with one to three of its values or keys changed, moved or lost, or with some characters spoilt."""
    if chance.random() < 0.2:
        return spoilt(json.dumps(data), chance)
    data = copy.deepcopy(data)
    for _ in range(chance.randint(1, 3)):
        data = _changed(data, chance)
    return json.dumps(data)


def _changed(data: Any, chance: random.Random) -> Any:
    """The tree with one place changed; the deeper, the likelier."""
    if isinstance(data, dict) and data and chance.random() < 0.9:
        key = chance.choice(list(data))
        kind = chance.random()
        if kind < 0.08:
            del data[key]
        elif kind < 0.16:
            data[chance.choice(("name", "", "version", f"{key}x"))] = data.pop(key)
        else:
            data[key] = _changed(data[key], chance)
        return data
    if isinstance(data, list) and data and chance.random() < 0.8:
        at = chance.randrange(len(data))
        kind = chance.random()
        if kind < 0.1:
            data.pop(at)
        elif kind < 0.2:
            data.append(copy.deepcopy(data[at]))
        else:
            data[at] = _changed(data[at], chance)
        return data
    if isinstance(data, (int, float)) and not isinstance(data, bool) and chance.random() < 0.3:
        return chance.choice((-data, data * 1000, str(data), [data]))
    return copy.deepcopy(chance.choice(ODD))


def mutated_toml(text: str, chance: random.Random) -> str:
    """A TOML text with one to three lines changed, lost, doubled or moved, or with some characters spoilt."""
    if chance.random() < 0.2:
        return spoilt(text, chance)
    lines = text.splitlines()
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(lines))
        kind = chance.random()
        if kind < 0.6 and "=" in lines[at]:
            key = lines[at].split("=", 1)[0]
            lines[at] = f"{key}= {chance.choice(LITERALS)}"
        elif kind < 0.7:
            lines[at] = re.sub(r"\w+", lambda word: chance.choice((word[0], "x", word[0] + "x")), lines[at], count=1)
        elif kind < 0.8:
            lines.insert(at, lines[chance.randrange(len(lines))])
        else:
            lines.pop(at)
        if not lines:
            return ""
    return "\n".join(lines)


def spoilt(text: str, chance: random.Random) -> str:
    """A text that is cut off, or in which a few characters are others, lost or doubled."""
    if chance.random() < 0.2:
        return text[: chance.randrange(len(text) + 1)]
    for _ in range(chance.randint(1, 4)):
        if not text:
            break
        at = chance.randrange(len(text))
        piece = chance.choice(("", "0", '"', "{", "}", "[", "]", ",", "-", "e", "\n", "null", "\x00", text[at] * 2))
        text = text[:at] + piece + text[at + 1 :]
    return text
