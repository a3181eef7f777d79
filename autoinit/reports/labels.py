"""What stands on axes, in legends and in tables: recipes by names that a person reads and can tell apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

from ..recipes.catalogue import entry_of
from ..recipes.names import OWN_TITLE, meanings, recipe_of, title
from ..recipes.recipe import OWN
from ..screen.columns import shortened

LINE = 25
"""Characters in a line of a name on an axis: a phone is 390 points wide."""

FIELD_TITLES = {
    "base": "initializer",
    "mode": "fan that is divided by",
    "log2_gain": "scale of the weights",
    "depth_slope": "scale along the depth",
    "branch_power": "scale inside branches",
    "residual_out": "ends of residual branches",
    "depth_rule": "rule for deep networks",
    "head": "scale of the output layer",
    "head_bias": "bias of the output layer",
    "embedding": "scale of embeddings",
    "qk_log2": "scale of queries and keys",
    "attention": "products of queries and keys",
    "recurrent": "recurrent matrices",
    "bias": "biases",
    "norms": "scales of normalizations",
    "modulation": "modulation by a condition",
    "widths": "rule for wide networks",
    "base_width": "base width",
    "calibration": "calibration on batches",
    "growth": "growing from a trained network",
    "adapter": "start of low-rank adapters",
    "rows": "new rows of tables",
    "renewal": "stale weights",
    "start": "learned start or ticket",
    "rules": "schemes by role",
    "learning rate": "learning rate",
}
"""Field of a recipe → what it is called where choices are compared."""


def explained(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Returns the words in the names of some recipes that need an explanation, each with it."""
    recipes = [recipe for key in keys if (recipe := recipe_of(key)) is not None]
    own = [(OWN_TITLE, "the model as it was given, with the weights that its owner drew")] if OWN in recipes else []
    entries = [entry for recipe in recipes if recipe != OWN and (entry := entry_of(recipe)) is not None]
    named = [(entry.name, f"{entry.about.title}, for {entry.about.purpose}") for entry in entries]
    return [*own, *dict.fromkeys(named), *meanings(map(title, recipes))]


def field_title(name: str) -> str:
    """Returns what a recipe's field is called where choices are compared."""
    return FIELD_TITLES.get(name, name)


def axis_labels(names: Sequence[str], line: int = LINE, lines: int = 2) -> list[str]:
    """Returns names as an axis has room for: broken into lines, safe in plotly's markup, no two alike.

    Args:
        names: from the axis's beginning.
        line: characters in a line.
        lines: of a name at the most.
    """
    seen: Counter[str] = Counter()
    labels = []
    for name in names:
        label = "<br>".join(map(escape, _broken(name, line, lines)))
        seen[label] += 1
        labels.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return labels


LEGEND_LINE = 34
"""Characters in a line of a legend, which is as wide as a phone."""


def legend_labels(names: Sequence[str]) -> list[str]:
    """Returns names as a legend has room for, in the manner of `axis_labels`."""
    return axis_labels(names, LEGEND_LINE, lines=3)


def _broken(name: str, line: int, lines: int) -> list[str]:
    """Returns a name in so many lines or fewer, broken between its parts; what is too long loses its middle."""
    if len(name) <= line:
        return [name]
    at = max(name.rfind(end, 0, line) + 1 for end in " ._")
    if lines == 1 or at < line // 3:
        return [shortened(name, line, "middle")]
    return [name[:at].rstrip(), *_broken(name[at:], line, lines - 1)]
