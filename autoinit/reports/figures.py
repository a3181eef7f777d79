"""The figures, as plotly's own JSON: plain dicts, since thousands of checked plotly objects take minutes to build."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from .. import text
from ..judging.curves import LossCurve, thinned
from ..knowledge.lines import Line
from ..recipes.names import OWN_TITLE, recipe_title, recipe_titles
from ..recipes.recipe import Recipe
from ..study.results import AS_IS, Mean, StudyResults, mean, total
from .blocks import Drawing, Figure
from .labels import axis_labels, field_title, legend_labels
from .summary import POINTS, Share, TaskSummary, grouped, mean_curve, mean_held_back

INK, BLUE, ORANGE, GREEN = "#1d2733", "#0072b2", "#d55e00", "#009e73"
COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#e69f00")
"""Of Okabe and Ito's palette, which colour-blind people can tell apart; as_is is dark and dashed."""

LEADERS = 4
"""Recipes whose curves are drawn beside as_is."""

ROWS = 60
"""Recipes of a heat map: random points are tried on a task each, and a night has thousands of them."""

_ROW, _TALL_ROW = 22, 34
"""Height of a row with a name of one line, and where some have two."""

_DIVERGING = [[0.0, "#b35806"], [0.25, "#f1a340"], [0.5, "#f7f7f7"], [0.75, "#67a9cf"], [1.0, "#2166ac"]]
_BELOW = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left", "traceorder": "normal"}


def _digits(values: Sequence[float | None], digits: int = 4) -> list[float | None]:
    return [None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}") for value in values]


def _height(names: Sequence[str]) -> int:
    """Returns the height of an axis of names."""
    return sum(_TALL_ROW if "<br>" in label else _ROW for label in axis_labels(names))


def _names(names: Sequence[str], axis: str = "y") -> dict[str, Any]:
    """Returns an axis with names at 0, 1, …."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": axis_labels(names),
        "automargin": True,
        "zeroline": False,
        "showgrid": False,
        "fixedrange": True,
        **({"range": [len(names) - 0.4, -0.6]} if axis == "y" else {}),
    }


def _lines(title: str, **rest: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "font": {"size": 12}},
        "gridcolor": "#e6eaee",
        "zerolinecolor": "#9aa5b1",
        "fixedrange": True,
        **rest,
    }


def _loss_scale(positive: bool) -> dict[str, Any]:
    """Returns a log axis with ticks at 1, 2, 5, 10, … where all losses are positive, a linear one elsewhere."""
    return {"type": "log", "tickformat": "~g", "dtick": "D2"} if positive else {"tickformat": "~g"}


def intervals(
    identity: str, title: str, note: str, rows: Sequence[tuple[str, str, Mean]], axis: str, *, factors: bool = False
) -> Figure:
    """Returns a row per mean with its interval.

    Args:
        identity: of the figure.
        title: above it.
        note: how to read it.
        rows: (label, hover text, mean) from the top; above 0 is better.
        axis: title of the horizontal axis.
        factors: whether e to the minus of each is drawn, a factor on the loss, and 1 is where nothing changes.
    """
    means = [row[2] for row in rows]

    def drawn(value: float | None, otherwise: float) -> float:
        found = otherwise if value is None else value
        return math.exp(-found) if factors else found

    middles = [drawn(each.mean, 0.0) for each in means]
    ends = [sorted((drawn(each.low, each.mean), drawn(each.high, each.mean))) for each in means]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": _digits(middles),
        "y": list(range(len(rows))),
        "marker": {"color": [BLUE if each.mean > 0 else ORANGE for each in means], "size": 9},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": _digits([high - middle for middle, (_, high) in zip(middles, ends, strict=True)]),
            "arrayminus": _digits([middle - low for middle, (low, _) in zip(middles, ends, strict=True)]),
            "color": "#7b8794",
            "thickness": 1.2,
            "width": 3,
        },
        "text": [escape(hover) for _, hover, _ in rows],
        "hovertemplate": "%{text}<extra></extra>",
    }
    labels = [label for label, _, _ in rows]
    reach = max([1.0, *(high for _, high in ends)])
    scale = {"rangemode": "tozero", "zeroline": True, "zerolinewidth": 2}
    if factors:
        scale = {"range": [0, 1.05 * reach], "tickprefix": "× "}
    layout = {"height": 100 + _height(labels), "xaxis": _lines(axis, **scale), "yaxis": _names(labels)}
    if factors:
        line = {"color": "#9aa5b1", "width": 2}
        layout["shapes"] = [{"type": "line", "x0": 1, "x1": 1, "y0": 0, "y1": 1, "yref": "paper", "line": line}]
    return Figure(identity, title, note, [Drawing([trace], {**layout, "showlegend": False})])


def best_gains(tasks: Sequence[TaskSummary], stage: str) -> Figure | None:
    """Returns the gain of the best recipe of each task; None where no task has one."""
    found = [(task, task.best, task.gains[task.best]) for task in tasks if task.best is not None]
    if not found:
        return None
    rows = [
        (task.name, f"{task.name}: {recipe_title(best)}, gain {gain.mean:.3g} ({gain.count} seeds)", gain)
        for task, best, gain in sorted(found, key=lambda row: -row[2].mean)
    ]
    note = (
        "By how much the loss is lower than from the model's own weights, in log units: 0.1 is about 10 %, 0.7 half of "
        "it. Mean over seeds and its 95 % interval; a dot without one rests on a single seed. Right of 0 is better."
    )
    axis = "lower loss, in log units"
    return intervals(f"gains-{stage}", "Gain of each task's best recipe", note, rows, axis)


@dataclass
class _Cells:
    """What came of recipes in groups: gains over as_is, and runs without an end, by row and column."""

    gains: defaultdict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    lost: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    tasks: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @staticmethod
    def of(tasks: Sequence[TaskSummary], place: Callable[[TaskSummary, str], tuple[str, str]]) -> _Cells:
        """Returns the cells of all recipes but as_is, each at the row and column that `place` gives it on a task."""
        found = _Cells()
        for task in tasks:
            for recipe, gain in task.gains.items():
                found.gains[place(task, recipe)].append(gain.mean)
                found.tasks[place(task, recipe)[0]].add(task.name)
            for recipe, count in task.unfinished.items():
                if count and recipe != AS_IS:
                    found.lost[place(task, recipe)] += count
                    found.tasks[place(task, recipe)[0]].add(task.name)
        return found

    def rows(self) -> list[str]:
        """Returns the rows, the best on average at the top, those without a gain last."""
        each: dict[str, list[float]] = {row: [] for row in self.tasks}
        for (row, _), gains in self.gains.items():
            each[row].append(mean(gains).mean)
        return sorted(each, key=lambda row: (-mean(each[row]).mean if each[row] else math.inf, row))

    def columns(self) -> list[str]:
        """Returns the columns by name."""
        return sorted({column for _, column in (*self.gains, *self.lost)})


def heat_map(tasks: Sequence[TaskSummary]) -> Figure | None:
    """Returns the mean gain of each recipe in each family of tasks; None where there is none."""
    cells = _Cells.of(tasks, lambda task, recipe: (recipe, task.info.get("family") or "other"))
    rows = cells.rows()
    if not rows:
        return None
    most = set(sorted(rows, key=lambda row: -len(cells.tasks[row]))[:ROWS])
    kept = [row for row in rows if row in most]
    left = f" Only the {ROWS} that were tried on the most tasks are shown, of {len(rows)}." if len(rows) > ROWS else ""
    note = (
        "Mean over tasks and seeds, in log units of the loss: blue is better than own weights, brown worse; colours "
        "saturate at the strongest tenth. Grey: no run was finished to compare. The best recipes on average are at "
        f"the top.{left}"
    )
    drawing = _map(cells, kept, cells.columns(), recipe_titles(kept))
    return Figure("heat-map", "Gain by recipe and family of tasks", note, [drawing])


def gain_map(tasks: Sequence[TaskSummary], fields: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """Returns the mean gain over as_is of each initializer at each scale; None where one scale only was tried.

    Args:
        tasks: what came of each.
        fields: of each recipe, those that are not at their default.
    """

    def place(task: TaskSummary, recipe: str) -> tuple[str, str]:
        held = fields[recipe]
        return str(held.get("base", AS_IS)), _scale(float(held.get("log2_gain", 0.0)))

    cells = _Cells.of(tasks, place)
    columns = sorted(cells.columns(), key=lambda column: float(column.removeprefix("× ")))
    if len(columns) < 2:
        return None
    note = (
        "The scale of the weights beside the one that is each initializer's own, to the nearest power of two; own "
        "weights are the model's own draw, rescaled. Colours as above. A cell is the mean over all recipes with that "
        "initializer and scale, whatever else they say, so neighbours may differ by more than the two."
    )
    rows = cells.rows()
    drawing = _map(cells, rows, columns, {row: OWN_TITLE if row == AS_IS else row for row in rows})
    return Figure("gain-map", "Gain by initializer and scale", note, [drawing])


def _scale(log2_gain: float) -> str:
    return f"× {2.0 ** round(log2_gain):g}"


def _map(cells: _Cells, rows: Sequence[str], columns: Sequence[str], titles: Mapping[str, str]) -> Drawing:
    """Returns the mean gains as colours: rows, each with its title, from the top, columns from the left."""
    values = [[mean(cells.gains[r, c]).mean if cells.gains[r, c] else None for c in columns] for r in rows]
    sizes = sorted(abs(value) for row in values for value in row if value is not None) or [1.0]
    reach = max(sizes[math.ceil(0.9 * len(sizes)) - 1], 1e-3)  # one extreme recipe would blanch all others
    trace = {
        "type": "heatmap",
        "z": [_digits(row, 3) for row in values],
        "x": list(range(len(columns))),
        "y": list(range(len(rows))),
        "text": [[_cell(titles[r], c, cells.gains[r, c], cells.lost[r, c]) for c in columns] for r in rows],
        "hovertemplate": "%{text}<extra></extra>",
        "hoverongaps": True,
        "zmid": 0,
        "zmin": -reach,
        "zmax": reach,
        "colorscale": _DIVERGING,
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"orientation": "h", "thickness": 10, "y": 0, "yanchor": "top", "ypad": 10, "len": 1},
    }
    names = [titles[row] for row in rows]
    layout = {
        "height": 190 + _height(names),
        "margin": {"l": 52, "r": 12, "t": 12, "b": 60},
        "xaxis": {**_names(columns, "x"), "side": "top", "tickangle": -60 if len(columns) > 3 else 0},
        "yaxis": _names(names),
        "plot_bgcolor": "#c9d1d9",
    }
    return Drawing([trace], layout)


def _cell(row: str, column: str, gains: list[float], lost: int) -> str:
    found = f"mean gain {mean(gains).mean:.3g} over {len(gains)}" if gains else "nothing to compare"
    unfinished = f"<br>{lost} runs diverged or failed" if lost else ""
    return f"{escape(row)}<br>{escape(column)}<br>{found}{unfinished}"


def importance_figure(shares: Sequence[Share]) -> Figure | None:
    """Returns a bar for the share of each choice; None where nothing varies."""
    if not shares:
        return None
    places = list(range(len(shares)))
    names = [field_title(share.name) for share in shares]
    hover = [
        f"{escape(name)}: {text.percent(s.share)}, {s.values} values, {s.tasks} tasks"
        for name, s in zip(names, shares, strict=True)
    ]
    bars = {
        "type": "bar",
        "orientation": "h",
        "name": "explained",
        "x": _digits([share.share for share in shares]),
        "y": places,
        "marker": {"color": BLUE},
        "text": hover,
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }
    chance = {
        "type": "scatter",
        "mode": "markers",
        "name": "by chance alone",
        "x": _digits([share.chance for share in shares]),
        "y": places,
        "marker": {"symbol": "line-ns", "size": 14, "line": {"width": 2.5, "color": ORANGE}},
        "hovertemplate": "by chance: %{x:.0%}<extra></extra>",
    }
    layout = {
        "height": 120 + _height(names) + 4 * len(names),
        "xaxis": _lines("share of the differences", range=[0, 1.02], tickformat=".0%"),
        "yaxis": _names(names),
        "legend": _BELOW,
        "margin": {"l": 52, "r": 12, "t": 12, "b": 44},
    }
    note = (
        "Of the differences between the scores within a task, the share that lies between the values of one choice "
        "(eta squared, the mean over tasks). The mark is what a choice of as many values explains on average if it "
        "does nothing. Shares overlap and need not add up to 100 %."
    )
    return Figure("importance", "Importance of each choice", note, [Drawing([bars, chance], layout)])


STAGE_TITLES = {"probe": "short trainings", "long": "long trainings"}
"""Stage of a study → what its trainings are called."""


def curves(results: StudyResults, stages: Sequence[str], opening: str = "") -> Figure | None:
    """Returns the training losses of as_is and of the leaders of each task; None where no trial has a curve.

    Args:
        results: of a study.
        stages: whose trainings are shown.
        opening: the task that is shown first.
    """
    first = ""
    drawings: list[Drawing] = []
    for stage in stages:
        central = (line for line in results.lines if line["stage"] == stage and line["lr_step"] == 0)
        for task, lines in grouped(central, lambda line: str(line["task"])).items():
            label = f"{task} ({STAGE_TITLES[stage]})" if len(stages) > 1 else task
            first = first or (label if (task, stage) == (opening, stages[0]) else "")
            if data := _task_curves(lines):
                drawings.append(Drawing(_named(data), _curve_layout(data), label))
    note = (
        "Training loss before each step, the mean over seeds, neighbouring steps averaged so that a curve has at most "
        "60 points; crosses are held-back losses. A curve ends where a seed's loss was no longer finite."
    )
    drawings.sort(key=lambda drawing: drawing.label)
    shown = next((place for place, drawing in enumerate(drawings) if drawing.label == first), 0)
    title = "Loss from own weights and from the leaders"
    return Figure("curves", title, note, drawings, shown=shown) if drawings else None


def _task_curves(lines: list[Line]) -> list[dict[str, Any]]:
    by_recipe = grouped(lines, lambda line: str(line["recipe"]))
    ranked = sorted(
        (math.fsum(value for value in totals if value is not None) / len(totals), recipe)
        for recipe, same in by_recipe.items()
        if recipe != AS_IS and None not in (totals := [total(line) for line in same])
    )
    data = []
    for place, recipe in enumerate([AS_IS, *(recipe for _, recipe in ranked[:LEADERS])]):
        same = by_recipe.get(recipe, [])
        steps, losses = thinned(mean_curve(same), POINTS)
        if not losses:
            continue
        look = {"color": INK, "dash": "dash"} if recipe == AS_IS else {"color": COLOURS[(place - 1) % len(COLOURS)]}
        data.append(_curve(recipe, steps, losses, {"mode": "lines", "line": {"width": 2, **look}}))
        if held_back := mean_held_back(same):
            marks = {"mode": "markers", "marker": {"symbol": "x-thin", "size": 8, "line": {"width": 2, **look}}}
            marks["marker"]["line"].pop("dash", None)  # type: ignore[index]
            held_steps, held_losses = zip(*held_back, strict=True)
            data.append({**_curve(recipe, held_steps, held_losses, marks), "showlegend": False})
    return data


def _curve(recipe: str, steps: Sequence[float], losses: Sequence[float], look: dict[str, Any]) -> dict[str, Any]:
    name = recipe_title(recipe)
    rest = {"name": name, "hovertemplate": f"{escape(name)}<br>step %{{x}}: %{{y}}<extra></extra>"}
    return {"type": "scatter", "x": _digits(steps), "y": _digits(losses), **rest, **look}


def _curve_layout(data: list[dict[str, Any]]) -> dict[str, Any]:
    values = [value for trace in data for value in trace["y"] if value is not None]
    positive = bool(values) and min(values) > 0
    return {
        "height": 420,
        "xaxis": _lines("training step"),
        "yaxis": _lines("training loss", **_loss_scale(positive), automargin=True),
        "legend": _BELOW,
        "margin": {"l": 52, "r": 12, "t": 12, "b": 44},
    }


LEVEL = (
    "One batch, before any training. Level lines are good: no layer's output or gradient fades or explodes. A gap is a "
    "value of 0, or one that could not be measured."
)
"""How to read signals along the layers."""


def layers_figure(tasks: dict[str, dict[str, Any]], opening: str = "") -> Figure | None:
    """Returns the layers' outputs and gradients as they were and under the best recipe; None where none are given.

    Args:
        tasks: what is told of each.
        opening: the task that is shown first.
    """
    drawings = [
        signals(
            [("as_is", info["layers"]["as_is"]), (str(info["layers"]["best_recipe"]), info["layers"]["best"])], task
        )
        for task, info in tasks.items()
        if info.get("layers")
    ]
    shown = next((place for place, drawing in enumerate(drawings) if drawing.label == opening), 0)
    title = "Signals layer by layer, before and after"
    return Figure("layers", title, LEVEL, drawings, shown=shown) if drawings else None


def signals(series: Sequence[tuple[str, Sequence[dict[str, Any]]]], label: str = "") -> Drawing:
    """Returns output spread above, gradient norm below, over the layers, for each (name, layers)."""
    data = []
    names = [str(layer["name"]) for layer in series[0][1]]
    said = {AS_IS: OWN_TITLE, **{title: recipe_title(title) for title, _ in series}}
    for place, (title, layers) in enumerate(series):
        look = {"color": INK, "dash": "dash"} if title == AS_IS else {"color": COLOURS[(place - 1) % len(COLOURS)]}
        for row, key in enumerate(("forward_std", "grad_norm")):
            values = _digits([layer[key] for layer in layers])
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": said[title],
                    "x": list(range(len(layers))),
                    "y": [None if value is None or value <= 0 else value for value in values],
                    "text": [f"{escape(str(layer['name']))}<br>{escape(str(layer['role']))}" for layer in layers],
                    "hovertemplate": f"%{{text}}<br>%{{y}}<extra>{escape(said[title])}</extra>",
                    "line": {"width": 2, **look},
                    "marker": {"size": 5},
                    "legendgroup": title,
                    "showlegend": row == 0,
                    "yaxis": "y2" if row else "y",
                }
            )
    every = max(1, math.ceil(len(names) / 10))
    ticks = {"tickvals": list(range(0, len(names), every)), "ticktext": axis_labels(names[::every], 22, lines=1)}
    log = {"type": "log", "tickformat": "~g", "dtick": 1, "automargin": True}
    spans = {place: _decades(data, place) for place in ("y", "y2")}
    layout = {
        "height": 500,
        "xaxis": {**_names(names, "x"), **ticks, "tickangle": -60, "anchor": "y2"},
        "yaxis": _lines("spread of outputs", **{**log, **spans["y"]}, domain=[0.54, 1]),
        "yaxis2": _lines("size of gradients", **{**log, **spans["y2"]}, domain=[0, 0.46]),
        "legend": _BELOW,
        "margin": {"l": 60, "r": 12, "t": 12, "b": 44},
    }
    return Drawing(_named(data), layout, label)


def _decades(data: list[dict[str, Any]], axis: str) -> dict[str, Any]:
    """Returns ticks at every so many decades: one a decade where few, fewer where the gradients fade by 1e-20."""
    values = [value for trace in data if trace["yaxis"] == axis for value in trace["y"] if value is not None]
    if not values:
        return {}
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return {"range": [low - 0.1, max(high, low + 1) + 0.1], "dtick": max(1, math.ceil((high - low) / 5))}


_STATES = {
    "complete": ("went to the end", BLUE, "circle"),
    "pruned": ("left behind", "#8a97a5", "circle-open"),
    "vetoed": ("cannot train", ORANGE, "x"),
    "diverged": ("loss not finite", "#cc79a7", "diamond"),
    "failed": ("raised an error", "#e69f00", "square"),
}
"""How a run ended → what it is called, its colour and its mark."""


def trials_figure(trials: Sequence[dict[str, Any]], titles: Mapping[str, str]) -> Figure | None:
    """Returns a selection's runs in order, by their scores; None where none has one.

    Args:
        trials: their rows.
        titles: recipe's key → its name.
    """
    scored = [trial for trial in trials if math.isfinite(trial["score"])]
    data: list[dict[str, Any]] = []
    for state, same in grouped(scored, lambda trial: str(trial["state"])).items():
        name, colour, mark = _STATES[state]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [trial["number"] for trial in same],
                "y": _digits([trial["score"] for trial in same]),
                "text": [
                    f"{escape(titles[trial['recipe']])}<br>{STAGES[trial['stage']]}, learning rate "
                    f"{text.number(trial['lr'])}, {trial['steps']} steps<br>score {trial['score']:.3f}"
                    for trial in same
                ],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"size": 8, "color": colour, "symbol": mark},
            }
        )
    layout = {
        "height": 340,
        "xaxis": _lines("run, in order", **({"dtick": 1} if len(trials) < 12 else {})),
        "yaxis": _lines("score (lower is better)", automargin=True),
        "legend": _BELOW,
        "showlegend": True,
        "margin": {"l": 52, "r": 12, "t": 12, "b": 44},
    }
    note = "In the order in which they were run; touch or point at one to see its recipe."
    return Figure("trials", "Every run's score", note, [Drawing(data, layout)]) if data else None


STAGES = {"search": "search", "final": "finals", "gate": "paired run"}
"""Stage of a run → what it is called."""


def race_figure(curves: Sequence[LossCurve], champion: Recipe | None, leaders: Sequence[str]) -> Figure | None:
    """Returns the search's losses from the owner's weights, the champion's and the leaders'; None for none.

    Args:
        curves: that a selection has kept.
        champion: what met the owner's weights in the gate.
        leaders: keys of the search's best recipes, the best first.
    """
    longest: dict[str, LossCurve] = {}
    for curve in curves:
        key = curve.recipe.key
        if curve.stage == "search" and (key not in longest or curve.length > longest[key].length):
            longest[key] = curve
    first = [AS_IS] if champion is None else [AS_IS, champion.key]
    order = [key for key in dict.fromkeys([*first, *leaders]) if key in longest][: len(first) + LEADERS - 1]
    titles = recipe_titles(order)
    data = []
    for place, key in enumerate(order):
        curve, look = longest[key], _look(key, place)
        data.append(_line(titles[key], curve.steps, curve.losses, look))
        if curve.held_back:
            data.append(_crosses(titles[key], curve.held_back, look))
    note = (
        "All of them saw the same batches in the same order. Loss before each step; crosses are losses on rows that "
        "none of them trained on."
    )
    title = "In the search: own weights and the leaders"
    return Figure("race", title, note, [Drawing(_named(data), _curve_layout(data))]) if data else None


def pairs_figure(curves: Sequence[LossCurve], champion: Recipe | None) -> Figure | None:
    """Returns the gate's paired runs: a mean and a band for the owner's weights and the champion's; None for none.

    Args:
        curves: that a selection has kept.
        champion: what met the owner's weights in the gate.
    """
    gate = [curve for curve in curves if curve.stage == "gate"]
    arms = {key: [curve for curve in gate if curve.recipe.key == key] for key in (AS_IS, str(champion))}
    if champion is None or not all(arms.values()):
        return None
    titles = recipe_titles(arms)
    bands: list[dict[str, Any]] = []
    data: list[dict[str, Any]] = []
    for place, (key, same) in enumerate(arms.items()):
        steps = min((curve.steps for curve in same), key=len)  # a run that diverged has fewer
        columns = list(zip(*(curve.losses for curve in same), strict=False))[: len(steps)]
        look = _look(key, place)
        if len(same) > 1:
            bands += _band(steps, columns, look["color"])
        data.append(_line(titles[key], steps, [math.fsum(each) / len(each) for each in columns], look))
        if seen := _mean_points([curve.held_back for curve in same]):
            data.append(_crosses(titles[key], seen, look))
    count = len(arms[AS_IS])
    note = (
        f"{count} pairs of runs, each on a fresh order of the batches that is the same for both: the line is their "
        "mean, the band holds all of them. Crosses are losses on rows that the search never saw."
    )
    layout = _curve_layout([*bands, *data])
    return Figure("pairs", "The paired runs that decided", note, [Drawing([*bands, *_named(data)], layout)])


def _named(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns traces whose names are such as a legend has room for, and no two of different recipes alike."""
    names = list(dict.fromkeys(trace["name"] for trace in data if "name" in trace))
    labels = dict(zip(names, legend_labels(names), strict=True))
    return [{**trace, "name": labels[trace["name"]]} if "name" in trace else trace for trace in data]


def _look(key: str, place: int) -> dict[str, Any]:
    """Returns how a recipe's line is drawn; the owner's is dark and dashed."""
    return {"color": INK, "dash": "dash"} if key == AS_IS else {"color": COLOURS[(place - 1) % len(COLOURS)]}


def _line(name: str, steps: Sequence[float], losses: Sequence[float], look: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines" if len(steps) > 1 else "markers",
        "name": name,
        "x": _digits(steps),
        "y": _digits(losses),
        "line": {"width": 2.5, **look},
        "marker": {"color": look["color"]},
        "hovertemplate": f"{escape(name)}<br>step %{{x}}: %{{y}}<extra></extra>",
    }


def _crosses(name: str, points: Sequence[tuple[int, float]], look: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [step for step, _ in points],
        "y": _digits([loss for _, loss in points]),
        "marker": {"symbol": "x-thin", "size": 8, "line": {"width": 2, "color": look["color"]}},
        "hovertemplate": f"{escape(name)}, held-back rows<br>after step %{{x}}: %{{y}}<extra></extra>",
        "showlegend": False,
    }


def _band(steps: Sequence[float], columns: Sequence[Sequence[float]], colour: str) -> list[dict[str, Any]]:
    """Returns the lower and the upper end of some runs, and what is between filled."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    rest = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    lower = {**rest, "x": _digits(steps), "y": _digits([min(each) for each in columns])}
    upper = {**rest, "x": _digits(steps), "y": _digits([max(each) for each in columns])}
    return [lower, {**upper, "fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},0.28)"}]


def _mean_points(runs: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    """Returns the mean at each step where all runs have a point."""
    points: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for step, loss in run:
            points[step].append(loss)
    return [(step, math.fsum(each) / len(each)) for step, each in sorted(points.items()) if len(each) == len(runs)]
