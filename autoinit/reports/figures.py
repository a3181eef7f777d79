"""The figures, as plotly's own JSON: plain dicts, since thousands of checked plotly objects take minutes to build."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from .. import text
from ..judging.curves import thinned
from ..knowledge.lines import Line
from ..study.results import StudyResults
from .blocks import Drawing, Figure
from .summary import AS_IS, POINTS, Mean, Share, TaskSummary, grouped, mean, mean_curve, mean_held_back, total

INK, BLUE, ORANGE, GREEN = "#1d2733", "#0072b2", "#d55e00", "#009e73"
COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#e69f00")
"""Of Okabe and Ito's palette, which colour-blind people can tell apart; as_is is dark and dashed."""

LEADERS = 4
"""Recipes whose curves are drawn beside as_is."""

LABEL = 26
"""Characters of a name on an axis: a phone is 390 points wide."""

ROWS = 60
"""Recipes of a heat map: random points are tried on a task each, and a night has thousands of them."""

_ROW = 20
_DIVERGING = [[0.0, "#b35806"], [0.25, "#f1a340"], [0.5, "#f7f7f7"], [0.75, "#67a9cf"], [1.0, "#2166ac"]]
_BELOW = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"}


def short(name: str, most: int = LABEL) -> str:
    """Returns a name that an axis has room for, safe in plotly's own markup; its middle tells the least."""
    front, back = most // 2, most - 1 - most // 2
    return escape(name if len(name) <= most else f"{name[:front]}…{name[-back:]}")


def _digits(values: Sequence[float | None], digits: int = 4) -> list[float | None]:
    return [None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}") for value in values]


def _names(names: Sequence[str], axis: str = "y") -> dict[str, Any]:
    """Returns an axis with names at 0, 1, …: two that are cut to the same label stay apart."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [short(name) for name in names],
        "automargin": True,
        "zeroline": False,
        "showgrid": False,
        "fixedrange": True,
        **({"range": [len(names) - 0.4, -0.6]} if axis == "y" else {}),
    }


def _lines(title: str, **rest: Any) -> dict[str, Any]:
    return {"title": {"text": title}, "gridcolor": "#e6eaee", "zerolinecolor": "#9aa5b1", "fixedrange": True, **rest}


def _loss_scale(positive: bool) -> dict[str, Any]:
    """Returns a log axis with ticks at 1, 2, 5, 10, … where all losses are positive, a linear one elsewhere."""
    return {"type": "log", "tickformat": "~g", "dtick": "D2"} if positive else {"tickformat": "~g"}


def intervals(identity: str, title: str, note: str, rows: Sequence[tuple[str, str, Mean]], axis: str) -> Figure:
    """Returns a row per mean with its interval: (label, hover text, mean), from the top."""
    means = [row[2] for row in rows]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": _digits([each.mean for each in means]),
        "y": list(range(len(rows))),
        "marker": {"color": [BLUE if each.mean > 0 else ORANGE for each in means], "size": 9},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": _digits([0 if each.high is None else each.high - each.mean for each in means]),
            "arrayminus": _digits([0 if each.low is None else each.mean - each.low for each in means]),
            "color": "#7b8794",
            "thickness": 1.2,
            "width": 3,
        },
        "text": [escape(hover) for _, hover, _ in rows],
        "hovertemplate": "%{text}<extra></extra>",
    }
    layout = {
        "height": 90 + _ROW * len(rows),
        "xaxis": _lines(axis, zeroline=True, zerolinewidth=2, rangemode="tozero"),
        "yaxis": _names([label for label, _, _ in rows]),
        "showlegend": False,
    }
    return Figure(identity, title, note, [Drawing([trace], layout)])


def best_gains(tasks: Sequence[TaskSummary], stage: str) -> Figure | None:
    """Returns the gain of the best recipe of each task; None where no task has one."""
    found = [(task, task.best, task.gains[task.best]) for task in tasks if task.best is not None]
    if not found:
        return None
    rows = [
        (task.name, f"{task.name}: {best}, gain {gain.mean:.3g} ({gain.count} seeds)", gain)
        for task, best, gain in sorted(found, key=lambda row: -row[2].mean)
    ]
    note = "Mean over seeds and its 95 % interval; a dot without one rests on a single seed. Right of 0 is better."
    return intervals(f"gains-{stage}", "Gain of each task's best recipe", note, rows, "gain, in log units")


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
        "Mean over tasks and seeds, in log units: blue is better than as_is, brown worse; colours saturate at the "
        f"strongest tenth. Grey: no run was finished to compare. The best recipes on average are at the top.{left}"
    )
    drawing = _map(cells, kept, cells.columns())
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
        "The scale of the weights beside the one that is each initializer's own, to the nearest power of two; as_is is "
        "the model's own draw, rescaled. Colours as above. A cell is the mean over all recipes with that initializer "
        "and scale, whatever else they say, so neighbours may differ by more than the two."
    )
    drawing = _map(cells, cells.rows(), columns)
    return Figure("gain-map", "Gain by initializer and scale", note, [drawing])


def _scale(log2_gain: float) -> str:
    return f"× {2.0 ** round(log2_gain):g}"


def _map(cells: _Cells, rows: Sequence[str], columns: Sequence[str]) -> Drawing:
    """Returns the mean gains as colours: rows from the top, columns from the left."""
    values = [[mean(cells.gains[r, c]).mean if cells.gains[r, c] else None for c in columns] for r in rows]
    sizes = sorted(abs(value) for row in values for value in row if value is not None) or [1.0]
    reach = max(sizes[math.ceil(0.9 * len(sizes)) - 1], 1e-3)  # one extreme recipe would blanch all others
    trace = {
        "type": "heatmap",
        "z": [_digits(row, 3) for row in values],
        "x": list(range(len(columns))),
        "y": list(range(len(rows))),
        "text": [[_cell(r, c, cells.gains[r, c], cells.lost[r, c]) for c in columns] for r in rows],
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
    layout = {
        "height": 190 + _ROW * len(rows),
        "margin": {"l": 52, "r": 12, "t": 12, "b": 60},
        "xaxis": {**_names(columns, "x"), "side": "top", "tickangle": -60 if len(columns) > 3 else 0},
        "yaxis": _names(rows),
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
    hover = [f"{escape(s.name)}: {s.share:.3f}, {s.values} values, {s.tasks} tasks" for s in shares]
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
        "hovertemplate": "by chance: %{x}<extra></extra>",
    }
    layout = {
        "height": 120 + 26 * len(shares),
        "xaxis": _lines("share of the variance within tasks", range=[0, 1.02]),
        "yaxis": _names([share.name for share in shares]),
        "legend": _BELOW,
        "margin": {"l": 52, "r": 12, "t": 34, "b": 44},
    }
    note = (
        "Eta squared: of the variance of the scores within a task, the share that lies between the values of one "
        "choice; the mean over tasks. The mark is what a choice of as many values explains on average if it does "
        "nothing. Shares overlap and need not add up to 1."
    )
    return Figure("importance", "Importance of each choice", note, [Drawing([bars, chance], layout)])


def curves(results: StudyResults, stages: Sequence[str]) -> Figure | None:
    """Returns the training losses of as_is and of the leaders of each task; None where no trial has a curve."""
    drawings = []
    for stage in stages:
        central = (line for line in results.lines if line["stage"] == stage and line["lr_step"] == 0)
        for task, lines in grouped(central, lambda line: str(line["task"])).items():
            label = f"{task} ({stage})" if len(stages) > 1 else task
            if data := _task_curves(lines):
                drawings.append(Drawing(data, _curve_layout(data), label))
    note = (
        "Training loss before each step, the mean over seeds, neighbouring steps averaged so that a curve has at most "
        "60 points; crosses are held-back losses. A curve ends where a seed's loss was no longer finite."
    )
    drawings.sort(key=lambda drawing: drawing.label)
    return Figure("curves", "Learning curves of as_is and the leaders", note, drawings) if drawings else None


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
    rest = {"name": short(recipe, 34), "hovertemplate": f"{escape(recipe)}<br>step %{{x}}: %{{y}}<extra></extra>"}
    return {"type": "scatter", "x": _digits(steps), "y": _digits(losses), **rest, **look}


def _curve_layout(data: list[dict[str, Any]]) -> dict[str, Any]:
    values = [value for trace in data for value in trace["y"] if value is not None]
    positive = bool(values) and min(values) > 0
    return {
        "height": 420,
        "xaxis": _lines("training step"),
        "yaxis": _lines("loss", **_loss_scale(positive), automargin=True),
        "legend": _BELOW,
        "margin": {"l": 52, "r": 12, "t": 70, "b": 44},
    }


def layers_figure(tasks: dict[str, dict[str, Any]]) -> Figure | None:
    """Returns the layers' outputs and gradients as they were and under the best recipe; None where none are given."""
    drawings = [
        signals(
            [("as_is", info["layers"]["as_is"]), (str(info["layers"]["best_recipe"]), info["layers"]["best"])], task
        )
        for task, info in tasks.items()
        if info.get("layers")
    ]
    note = "One batch, before training. Level lines mean that no layer's signal or gradient fades or explodes."
    return Figure("layers", "Signals layer by layer, before and after", note, drawings) if drawings else None


def signals(series: Sequence[tuple[str, Sequence[dict[str, Any]]]], label: str = "") -> Drawing:
    """Returns output spread above, gradient norm below, over the layers, for each (name, layers)."""
    data = []
    names = [str(layer["name"]) for layer in series[0][1]]
    for place, (title, layers) in enumerate(series):
        look = {"color": INK, "dash": "dash"} if title == AS_IS else {"color": COLOURS[(place - 1) % len(COLOURS)]}
        for row, key in enumerate(("forward_std", "grad_norm")):
            values = _digits([layer[key] for layer in layers])
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": short(title, 34),
                    "x": list(range(len(layers))),
                    "y": [None if value is None or value <= 0 else value for value in values],
                    "text": [f"{escape(str(layer['name']))}<br>{escape(str(layer['role']))}" for layer in layers],
                    "hovertemplate": f"%{{text}}<br>%{{y}}<extra>{short(title)}</extra>",
                    "line": {"width": 2, **look},
                    "marker": {"size": 5},
                    "legendgroup": title,
                    "showlegend": row == 0,
                    "yaxis": "y2" if row else "y",
                }
            )
    every = max(1, math.ceil(len(names) / 16))
    ticks = {"tickvals": list(range(0, len(names), every)), "ticktext": [short(name, 18) for name in names[::every]]}
    log = {"type": "log", "tickformat": "~g", "dtick": 1, "automargin": True}
    spans = {place: _decades(data, place) for place in ("y", "y2")}
    layout = {
        "height": 480,
        "xaxis": {**_names(names, "x"), **ticks, "tickangle": -60, "anchor": "y2"},
        "yaxis": _lines("output std", **{**log, **spans["y"]}, domain=[0.54, 1]),
        "yaxis2": _lines("gradient norm", **{**log, **spans["y2"]}, domain=[0, 0.46]),
        "legend": _BELOW,
        "margin": {"l": 60, "r": 12, "t": 50, "b": 44},
    }
    return Drawing(data, layout, label)


def _decades(data: list[dict[str, Any]], axis: str) -> dict[str, Any]:
    """Returns ticks at every so many decades: one a decade where few, fewer where the gradients fade by 1e-20."""
    values = [value for trace in data if trace["yaxis"] == axis for value in trace["y"] if value is not None]
    if not values:
        return {}
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return {"range": [low - 0.1, max(high, low + 1) + 0.1], "dtick": max(1, math.ceil((high - low) / 5))}


def trials_figure(trials: Sequence[dict[str, Any]]) -> Figure | None:
    """Returns a selection's trials in order, by their scores; None where none has one."""
    scored = [trial for trial in trials if math.isfinite(trial["score"])]
    data: list[dict[str, Any]] = []
    for place, (state, same) in enumerate(grouped(scored, lambda trial: str(trial["state"])).items()):
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": escape(state),
                "x": [trial["number"] for trial in same],
                "y": _digits([trial["score"] for trial in same]),
                "text": [
                    f"{escape(trial['recipe'])}<br>{trial['stage']}, lr {text.number(trial['lr'])}, "
                    f"{trial['steps']} steps<br>score {trial['score']:.3f}"
                    for trial in same
                ],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"size": 8, "color": COLOURS[place % len(COLOURS)]},
            }
        )
    layout = {
        "height": 340,
        "xaxis": _lines("trial"),
        "yaxis": _lines("score", automargin=True),
        "legend": _BELOW,
        "showlegend": True,
        "margin": {"l": 52, "r": 12, "t": 50, "b": 44},
    }
    note = "In the order of the runs, the lower the better; touch or point at one to see its recipe."
    return Figure("trials", "Every trial's score", note, [Drawing(data, layout)]) if data else None


def first_and_last(rows: Sequence[tuple[str, float, float]]) -> Figure | None:
    """Returns the way from first to last training loss of each (recipe, first, last); None for none."""
    sound = [row for row in rows if math.isfinite(row[1]) and math.isfinite(row[2])]
    if not sound:
        return None
    ways_x: list[float | None] = []
    ways_y: list[float | None] = []
    for place, (_, first, last) in enumerate(sound):
        ways_x += [first, last, None]
        ways_y += [place, place, None]
    line = {"color": "#b8c1cb", "width": 3}
    data: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "lines", "x": _digits(ways_x), "y": ways_y, "line": line, "showlegend": False}
    ]
    data[0]["hoverinfo"] = "skip"
    firsts, lasts = [row[1] for row in sound], [row[2] for row in sound]
    for ends, name, colour in ((firsts, "first loss", ORANGE), (lasts, "last loss", BLUE)):
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": _digits(ends),
                "y": list(range(len(sound))),
                "marker": {"color": colour, "size": 9},
                "text": [escape(row[0]) for row in sound],
                "hovertemplate": f"%{{text}}<br>{name} %{{x}}<extra></extra>",
            }
        )
    positive = min(min(row[1:]) for row in sound) > 0
    layout = {
        "height": 130 + _ROW * len(sound),
        "xaxis": _lines("training loss", **_loss_scale(positive)),
        "yaxis": _names([row[0] for row in sound]),
        "legend": _BELOW,
        "margin": {"l": 52, "r": 12, "t": 40, "b": 44},
    }
    note = "From the first batch of the probe to its last, both training losses; each recipe at its best learning rate."
    return Figure("losses", "How far the leaders came", note, [Drawing(data, layout)])
