"""The catalogue for readers: a table for a terminal, one entry whole, and the page docs/catalogue.md."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from ..text import table
from .about import PLAIN_COST, About
from .catalogue import ALIASES, ENTRIES, Entry, EntryKind, entry_name, named
from .needs import NEEDS
from .ready_starts import START_ROWS, StartRow
from .schemes import SCHEMES

COMMAND = "autoinit catalogue --markdown > docs/catalogue.md"
"""What makes the page."""

KINDS: dict[EntryKind, tuple[str, str]] = {
    "scheme": ("Schemes", "one formula for every weight matrix; also for one role: Recipe(rules={role: scheme})"),
    "recipe": ("Recipes", "rules by role, depth and width"),
    "calibration": ("Calibrations", "drawn, then measured on batches of your data and corrected"),
    "inheritance": ("Inheritance", "what is new beside trained weights: low-rank adapters"),
}
"""Kind → its heading and what it means."""

FUNCTIONS = {
    "zeros": "torch.nn.init.zeros_(weight)",
    "constant": "torch.nn.init.constant_(weight, 1 / fan_in)",
    "normal": "torch.nn.init.normal_(weight, std=0.02)",
    "uniform": "torch.nn.init.uniform_(weight, -0.0346, 0.0346)",
    "truncated_normal": "autoinit.init.truncated_normal_(weight, std=0.02)",
    "sparse": 'autoinit.init.sparse_(weight, "relu")',
    "identity": "autoinit.init.identity_(weight)",
    "xavier_normal": "autoinit.init.xavier_normal_(weight)",
    "xavier_uniform": "autoinit.init.xavier_uniform_(weight)",
    "xavier_truncated": "autoinit.init.xavier_truncated_(weight)",
    "he_normal": 'autoinit.init.he_normal_(weight, "relu")',
    "he_uniform": 'autoinit.init.he_uniform_(weight, "relu")',
    "he_truncated": 'autoinit.init.he_truncated_(weight, "relu")',
    "lecun_normal": "autoinit.init.lecun_normal_(weight)",
    "lecun_uniform": "autoinit.init.lecun_uniform_(weight)",
    "lecun_truncated": "autoinit.init.lecun_truncated_(weight)",
    "selu": "autoinit.init.lecun_normal_(weight)",
    "orthogonal": 'autoinit.init.orthogonal_(weight, "relu")',
    "butterfly_orthogonal": 'autoinit.init.butterfly_orthogonal_(weight, "relu")',
    "delta_orthogonal": 'autoinit.init.delta_orthogonal_(weight, "relu")',
    "looks_linear": 'autoinit.init.looks_linear_(weight, "hidden")',
    "hadamard": "autoinit.init.hadamard_(weight)",
    "siren": "autoinit.init.siren_(weight, omega=30.0)",
    "mimetic": "autoinit.init.mimetic_(query, key, value, out, heads=heads)",
    "chrono": "autoinit.init.chrono_(bias, steps)",
}
"""Entry → how to call it on one tensor, where a function of one tensor can know enough to do the same."""

_HEAD = f"""\
# The catalogue

<!-- Made by the command below from what stands in autoinit/recipes/: change that and run it again. -->

Every initialization that has a name. This page is made by

```console
$ {COMMAND}
```

`autoinit catalogue` prints the table in a terminal, `autoinit catalogue NAME` one entry whole, and
`autoinit.catalogue()` returns it as a DataFrame. Each entry is used in the same ways:

```python
autoinit.apply_(model, "fixup", data)  # draw it
autoinit.select(model, data, recipes=["fixup", "he_normal"])  # choose between some of them
autoinit.Recipe(base="xavier_normal", rules={{"output": "zeros"}})  # a scheme for the weights of one role
autoinit.init.he_normal_(weight, "gelu")  # fill one tensor
```

- gain(φ) is computed for the activation φ that follows each layer, whatever it is.
- *needs*: what a network must have. Without it the method means nothing, and `apply_` refuses it with a line that says
  what to use instead.
- *left out*: what the source does that is not an initial weight."""


def find(name: str) -> Entry:
    """Returns the entry called `name`, by any of its names.

    Raises:
        RecipeError: unknown name; the message holds the nearest known one.
    """
    named(name)
    return ENTRIES[entry_name(name)]


# In a terminal


def listing(width: int) -> str:
    """Returns the table of all entries, grouped by kind, wrapped to a width in characters."""
    groups = []
    for kind, (heading, meaning) in KINDS.items():
        rows = [row for entry in ENTRIES.values() if entry.kind == kind for row in _wrapped(entry, width)]
        head = "\n".join(_lines(f"{heading}: {meaning}", width))
        groups.append(f"{head}\n\n{table(('name', 'for', 'when to prefer it', 'extra cost'), rows)}")
    return "\n\n".join([*groups, "One entry whole: autoinit catalogue NAME"])


def _wrapped(entry: Entry, width: int) -> list[tuple[str, ...]]:
    """Returns the lines of one entry: its cells, side by side, each wrapped to its share of the width."""
    first = max(map(len, ENTRIES))
    rest = max(54, width - first - 3 * len("  "))
    cost = "" if entry.about.cost == PLAIN_COST else entry.about.cost
    cells = ((entry.about.purpose, 35), (entry.about.prefer, 38), (cost, 27))
    columns = [_lines(text, rest * share // 100) for text, share in cells]
    height = max(1, *map(len, columns))
    return [
        (entry.name if i == 0 else "", *(column[i] if i < len(column) else "" for column in columns))
        for i in range(height)
    ]


def card(entry: Entry, width: int) -> str:
    """Returns all that is known of one entry and how to use it, wrapped to a width in characters."""
    about = entry.about
    facts = {
        "formula": [about.formula],
        "source": [about.source],
        "for": [about.purpose],
        "prefer": [about.prefer],
        "needs": [f"{NEEDS[name].text}; else use {NEEDS[name].instead}" for name in about.needs],
        "left out": [about.left_out],
        "cost": [about.cost],
        "recipe": [entry.recipe.key],
        "aliases": [", ".join(aliases(entry))],
    }
    lines = [f"{entry.name}: {about.title}", ""]
    for title, texts in facts.items():
        wrapped = [line for text in texts for line in _lines(text, max(40, width - 12))]
        lines += _beside(title, wrapped)
    return "\n".join([*lines, "", *_beside("use", usage(entry))])


def _lines(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _beside(title: str, lines: Sequence[str]) -> list[str]:
    return [f"  {title if i == 0 else '':<8}  {line}" for i, line in enumerate(lines)]


def usage(entry: Entry) -> list[str]:
    """Returns the lines of Python that use an entry: on a model, in a search, for one role, on one tensor."""
    name = entry.name
    fields = ", ".join(f"{field}={json.dumps(value)}" for field, value in json.loads(entry.recipe.to_json()).items())
    lines = [
        f'autoinit.apply_(model, "{name}", data)',
        # Probes train at the owner's own rates, so a search cannot judge what asks for others.
        f'autoinit.select(model, data, recipes=["{name}"])' if entry.recipe.widths == "standard" else "",
        f"autoinit.Recipe({fields})  # to vary it" if name != "as_is" else "",
        f'autoinit.Recipe(rules={{"hidden": "{name}"}})  # for one role' if name in SCHEMES and name != "as_is" else "",
        f"{FUNCTIONS[name]}  # on one tensor" if name in FUNCTIONS else "",
    ]
    return [line for line in lines if line]


def aliases(entry: Entry) -> list[str]:
    """Returns the other names of an entry."""
    return [alias for alias, name in ALIASES.items() if name == entry.name]


def as_data(entry: Entry) -> dict[str, Any]:
    """Returns an entry as JSON-ready data."""
    return {
        "name": entry.name,
        "kind": entry.kind,
        "recipe": json.loads(entry.recipe.to_json()),
        **dataclasses.asdict(entry.about),
        "key": entry.recipe.key,
        "needs": {name: NEEDS[name].text for name in entry.about.needs},
        "aliases": aliases(entry),
        "usage": usage(entry),
    }


def all_data() -> dict[str, Any]:
    """Returns every entry as JSON-ready data, by name."""
    return {name: as_data(entry) for name, entry in ENTRIES.items()}


# As a page


def markdown() -> str:
    """Returns the text of docs/catalogue.md, one row an entry."""
    sections = [_HEAD]
    for kind, (heading, meaning) in KINDS.items():
        rows = [_row(entry) for entry in ENTRIES.values() if entry.kind == kind]
        sections.append(f"## {heading}\n\n{meaning[0].upper()}{meaning[1:]}.\n\n" + "\n".join([*_TITLES, *rows]))
    starts = [_start_row(row) for row in START_ROWS.values()]
    sections.append("\n".join([_STARTS, *_TITLES, *starts]))
    other = [f"| `{alias}` | `{name}` |" for alias, name in ALIASES.items()]
    sections.append("\n".join(["## Other names", "", "| is understood as | |", "|---|---|", *other]))
    return "\n\n".join(sections) + "\n"


_TITLES = (
    "| name | for | formula | source | needs | cost | when to prefer it | left out |",
    "|---|---|---|---|---|---|---|---|",
)


_STARTS = """## Starts that are objects

These have no name to draw by: `select(recipes=[…])` takes the object, or its file. Here is the verb that makes each.
"""


def _start_row(row: StartRow) -> str:
    return _cells(row.verb, row.about)


def _row(entry: Entry) -> str:
    return _cells(entry.name, entry.about)


def _cells(name: str, about: About) -> str:
    needs = "; ".join(NEEDS[name].text for name in about.needs)
    texts = (about.purpose, about.formula, about.source, needs, about.cost, about.prefer, about.left_out)
    cells = [f"`{name}`<br>{cell(about.title)}", *map(cell, texts)]
    return f"| {' | '.join(cells)} |"


def cell(text: str) -> str:
    """Returns a text as a cell of a Markdown table, with links to arXiv."""
    escaped = re.sub(r"([\\|*<`\[\]])", r"\\\1", text)
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", escaped)
