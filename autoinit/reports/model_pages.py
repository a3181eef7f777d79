"""The reports on one model: the answer of a selection, and a diagnosis."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from .. import text
from ..diagnosis import Diagnosis
from ..judging.gate import Gain
from ..plans.fill import Fill
from ..plans.table import coverage
from ..search.selection import Selection
from .blocks import Figure, Folded, Page, Section, Table
from .figures import first_and_last, intervals, signals, trials_figure
from .summary import AS_IS, Mean

_SHOWN = 12


def selection_page(selection: Selection) -> Page:
    """Returns the page about a selection."""
    trials: list[dict[str, Any]] = [
        {str(key): value for key, value in row.items()} for row in selection.trials.to_dict("records")
    ]
    leaders = _leaders(trials)
    drawn = [_gain_figure(selection), first_and_last([(r["recipe"], r["first_loss"], r["last_loss"]) for r in leaders])]
    sections = [
        Section("The choice", facts=_facts(selection), figures=[figure for figure in drawn[:1] if figure]),
        Section("Leaderboard", **_leaderboard(selection, leaders, drawn[1])),
        *_trials(trials),
        _plan(selection),
    ]
    title = "Kept the model's own weights" if selection.kept else f"Chose {selection.recipe.key}"
    lead = selection.headline if not selection.kept else f"{selection.headline} Why: {selection.why}."
    return Page(title, lead, sections)


def _facts(selection: Selection) -> list[tuple[str, str]]:
    cost, gains = selection.cost, _gains(selection)
    measured = "Seen of it" if selection.kept else "Gain"
    lr = "" if selection.lr is None else text.number(selection.lr)
    memory = "" if cost.memory is None else f", {cost.memory / 2**20:,.0f} MiB at most"
    facts = [
        ("Recipe", selection.recipe.key),
        ("Met them in the gate", str(selection.contender) if selection.kept and gains else ""),
        *((f"{measured}, {name}", str(gain)) for name, gain in gains),
        ("Gain", "" if gains else "no paired runs were made"),
        ("Task", selection.task),
        ("Learning rate", f"{lr}{'' if selection.lr_searched else ' (not searched)'}" if lr else ""),
        ("Cost", f"{text.seconds(cost.seconds)}, {cost.steps:.0f} training steps, {cost.trials} trials{memory}"),
        ("Run", cost.executor),
        ("Interrupted", "by Ctrl-C" if selection.interrupted else ""),
        ("Drawn with", selection.plan.drawn_with),
    ]
    return [(name, value) for name, value in facts if value]


def _gain_figure(selection: Selection) -> Figure | None:
    rows = [(name, f"{name}: {gain}", _positive(gain)) for name, gain in _gains(selection)]
    note = (
        "Log of the factor by which the loss is lower than with the model's own weights, with the interval of "
        "paired runs on fresh batch orders: 0.7 is half the loss. Right of 0 is better."
    )
    title = "Gain over the model's own weights"
    if selection.kept:
        title = "What was seen of the recipe that was not chosen"
        note = f"{note} Why it is not believed stands above."
    return intervals("gain", title, note, rows, "gain, in log units") if rows else None


def _gains(selection: Selection) -> list[tuple[str, Gain]]:
    """Returns what the gate has measured, each with its name."""
    pairs = (("training", selection.gain), ("held back", selection.held_back))
    return [(name, gain) for name, gain in pairs if gain is not None]


def _positive(gain: Gain) -> Mean:
    """Returns the gain with the sign turned: the gate's own is a log-loss ratio, negative where it is better."""
    return Mean(-gain.estimate, -gain.high, -gain.low, gain.pairs)


def _leaders(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the best fully probed trial of each recipe, the best first, as_is among them in any case."""
    done = [trial for trial in trials if trial["stage"] == "search" and trial["state"] == "complete"]
    best: dict[str, dict[str, Any]] = {}
    for trial in sorted(done, key=lambda trial: float(trial["score"])):
        best.setdefault(str(trial["recipe"]), trial)
    ranked = list(best.values())
    return ranked[:_SHOWN] + [trial for trial in ranked[_SHOWN:] if trial["recipe"] == AS_IS]


def _leaderboard(selection: Selection, leaders: list[dict[str, Any]], figure: Figure | None) -> dict[str, Any]:
    header = ("recipe", "lr", "steps", "score", "training", "held back", "first loss", "last loss")
    rows = [
        (
            f"→ {row['recipe']}" if row["recipe"] == selection.recipe.key else str(row["recipe"]),
            _number(row["lr"]),
            str(row["steps"]),
            *(_number(row[name]) for name in ("score", "training", "held_back", "first_loss", "last_loss")),
        )
        for row in leaders
    ]
    legend = (
        "Score: log of the loss against a constant guess, plus a term for the range of the gradients; lower is better. "
        "→ is the choice. A selection keeps the first and the last loss of each trial, not the curve between."
    )
    if not rows:
        return {"texts": ["No candidate was fully probed."]}
    return {"texts": [legend], "figures": [figure] if figure else [], "tables": [Table(header, rows)]}


def _number(value: float) -> str:
    return "-" if math.isnan(value) else text.number(value)


def _trials(trials: list[dict[str, Any]]) -> list[Section]:
    figure = trials_figure(trials)
    ended = [trial for trial in trials if trial["reason"]]
    if figure is None and not ended:
        return []
    rows = [(str(trial["recipe"]), str(trial["state"]), str(trial["reason"])) for trial in ended]
    table = Table(("recipe", "state", "why it went no further"), rows, left=3)
    return [Section("Trials", figures=[figure] if figure else [], tables=[table] if rows else [])]


def _plan(selection: Selection) -> Section:
    header = ("parameter", "role", "draw", "why", "shape", "std or value", "lr factor, Adam", "lr factor, SGD")
    rows = [_fill_row(fill) for fill in selection.plan.fills]
    notes = [Folded("What could not be seen of the architecture", "\n".join(selection.plan.notes))]
    return Section(
        "Plan, parameter by parameter",
        texts=[coverage(selection.plan.fills)],
        tables=[Table(header, rows, left=4)],
        folded=notes if selection.plan.notes else [],
    )


def _fill_row(fill: Fill) -> tuple[str, ...]:
    draw = "rescale" if fill.distribution == "keep" and not fill.untouched else str(fill.distribution)
    if fill.distribution == "constant":
        sizes = sorted({text.number(value * fill.factor) for value in fill.values})
        size = text.few(sizes)
    else:
        size = "-" if fill.std is None else text.number(fill.std * abs(fill.factor))
    shape = "×".join(map(str, fill.shape)) or "1"
    return fill.name, fill.role, draw, fill.reason, shape, size, text.number(fill.lr_adam), text.number(fill.lr_sgd)


def diagnosis_page(diagnosis: Diagnosis) -> Page:
    """Returns the page about a diagnosis."""
    found = diagnosis.signals
    counts = [f.severity for f in diagnosis.findings]
    named = [f"{counts.count(kind)} {kind}{'' if counts.count(kind) == 1 else 's'}" for kind in dict.fromkeys(counts)]
    lead = "Nothing worse than a note was found." if diagnosis.healthy else f"Found {', '.join(named)}."
    facts = [
        ("Loss", text.number(found.loss, 4)),
        ("Best constant guess", text.number(diagnosis.reference)),
        ("Gradient norm", text.number(found.grad_norm)),
        ("Agreement of half batches", text.number(found.agreement, 2)),
    ]
    rows = [(f.severity, f.text, f.remedy) for f in diagnosis.findings]
    findings = Section(
        "Findings",
        texts=[] if rows else ["Nothing stands out."],
        facts=facts,
        tables=[Table(("severity", "what was measured", "what would mend it"), rows, left=3)] if rows else [],
    )
    return Page("Diagnosis of the initial weights", lead, [findings, _layers(diagnosis)])


def _layers(diagnosis: Diagnosis) -> Section:
    layers = diagnosis.signals.layers
    header = (
        "weight",
        "role",
        "activation",
        "output mean",
        "output std",
        "gradient",
        "weight norm",
        "dead",
        "saturated",
    )
    rows = [
        (
            layer.name,
            layer.role,
            str(diagnosis.graph[layer.name].activation),
            text.number(layer.forward_mean, 2),
            *map(text.number, (layer.forward_std, layer.grad_norm, layer.weight_norm)),
            *("-" if share is None else text.percent(share) for share in (layer.dead, layer.saturated)),
        )
        for layer in layers
    ]
    note = "One batch, before training. Level lines mean that no layer's signal or gradient fades or explodes."
    drawing = signals([(AS_IS, [dataclasses.asdict(layer) for layer in layers])])
    figures = [Figure("layers", "Signals layer by layer", note, [drawing])] if layers else []
    return Section("Layers", figures=figures, tables=[Table(header, rows, left=3)])
