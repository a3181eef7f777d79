"""The reports on one model: the answer of a selection, and a diagnosis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .. import text
from ..diagnosis import Diagnosis
from ..judging.gate import Gain
from ..plans.fill import Fill
from ..plans.table import coverage
from ..recipes.names import recipe_titles, title
from ..search.selection import Selection
from ..search.shown import rate, saves, share_of
from ..study.results import AS_IS, Mean
from .blocks import Figure, Folded, Page, Section, Table
from .figures import LEVEL, STAGES, intervals, pairs_figure, race_figure, signals, trials_figure
from .labels import explained

_SHOWN = 8
"""Recipes of the leaderboard, beside the model's own weights."""

_ROWS = 20
"""Rows of a long table that are shown at a time."""


def selection_page(selection: Selection) -> Page:
    """Returns the page about a selection."""
    trials: list[dict[str, Any]] = [
        {str(key): value for key, value in row.items()} for row in selection.trials.to_dict("records")
    ]
    titles = recipe_titles([AS_IS, selection.recipe.key, *(str(trial["recipe"]) for trial in trials)])
    leaders = _leaders(trials)
    sections = [
        _use(selection),
        Section("What was measured", facts=_facts(selection), figures=_drawn([_gain_figure(selection)])),
        *_curves(selection, [str(trial["recipe"]) for trial in leaders]),
        *_before_and_after(selection),
        Section("Leaderboard", **_leaderboard(selection, leaders, titles)),
        *_trials(trials, titles),
        _plan(selection),
    ]
    return Page(_title(selection), _lead(selection), sections)


def _title(selection: Selection) -> str:
    if selection.answer == "better":
        return f"Weights by “{title(selection.recipe)}” train better than your own"
    if not len(selection.trials) and selection.answer == "no better":
        return "There are no other weights to choose"
    if selection.answer == "no better":
        return "Your own weights stay: nothing better was found"
    return "It could not be told whether other weights train better than your own"


def _lead(selection: Selection) -> str:
    why = f"{selection.why[:1].upper()}{selection.why[1:]}."
    if not selection.kept:
        return f"{why} {_in_words(selection)}"
    remedy = f" What would tell: {selection.remedy.removesuffix(' would')}." if selection.remedy else ""
    return f"Your own weights are kept. The reason: {selection.why}.{remedy}"


def _in_words(selection: Selection) -> str:
    """Returns by how much the loss is lower, as a sentence."""
    if selection.gain is None or selection.gain.factor >= 1:
        return ""
    runs = f"over {selection.gain.pairs} paired runs, which is beyond noise"
    if selection.gain.unit is not None:
        return f"The training's {selection.gain.words} {runs}."
    if selection.gain.factor > 0.5:
        return f"The training loss is {text.percent(1 - selection.gain.factor)} lower {runs}."
    return f"The training loss comes to {text.percent(selection.gain.factor)} of that from your own weights {runs}."


def _use(selection: Selection) -> Section:
    """Returns what to do now: three lines to copy where weights were chosen."""
    lr = "" if selection.lr is None else text.number(selection.lr, 4)
    if selection.kept:
        train = rate(selection) or "Train as you would have done."
        return Section(
            "How to use it", texts=[f"There is nothing to set: the model's weights are as they were. {train}"]
        )
    scaled = any(fill.lr_adam != 1 or fill.lr_sgd != 1 for fill in selection.plan.fills)
    drawn = 'autoinit.apply_(model, "init.json")'
    if scaled:
        lines = ['selection.save("init.json")', f"plan = {drawn}", f"groups = plan.param_groups(model, lr={lr or '…'})"]
        last = "The third has a learning rate for each parameter: give the groups to your optimizer."
    elif lr:
        lines = ['selection.save("init.json")', drawn, f"lr = {lr}"]
        last = "The third is the learning rate that goes with them."
    else:
        lines = ['selection.save("init.json")', "import autoinit", drawn]
        last = ""
    texts = [
        "The model that was searched has these weights already, unless apply=False was asked for.",
        "For another one, the first line goes where you searched, the second into your program, before its optimizer "
        f"is made. {last}".rstrip(),
    ]
    return Section("How to use it", texts=texts, code="\n".join(lines))


def _drawn(figures: Sequence[Figure | None]) -> list[Figure]:
    return [figure for figure in figures if figure is not None]


def _curves(selection: Selection, leaders: Sequence[str]) -> list[Section]:
    """Returns the loss curves: the gate's paired runs, then the search's."""
    found = _drawn(
        [
            pairs_figure(selection.curves, selection.contender),
            race_figure(selection.curves, selection.contender, leaders),
        ]
    )
    return [Section("Loss curves", figures=found)] if found else []


def _before_and_after(selection: Selection) -> list[Section]:
    """Returns what the layers carry from the owner's weights and from those that met them."""
    if not selection.before:
        return []
    series = [(AS_IS, [dataclasses.asdict(layer) for layer in selection.before])]
    if selection.after and selection.contender is not None:
        series.append((selection.contender.key, [dataclasses.asdict(layer) for layer in selection.after]))
    name = "Signals layer by layer, before and after" if len(series) > 1 else "Signals layer by layer"
    return [Section("Layers", figures=[Figure("layers", name, LEVEL, [signals(series)])])]


def _facts(selection: Selection) -> list[tuple[str, str]]:
    cost, gains = selection.cost, _gains(selection)
    measured = "Seen of it" if selection.kept else "Gain"
    lr = "" if selection.lr is None else text.number(selection.lr)
    memory = "" if cost.memory is None else f", {cost.memory / 2**20:,.0f} MiB at most"
    steps = f"{cost.steps:.0f} training steps{share_of(cost)}"
    name, key = title(selection.recipe), selection.recipe.key
    met = title(selection.contender) if selection.contender is not None else ""
    facts = [
        ("Chosen", "your own weights" if selection.kept else name),
        ("In code", key if key != name and not selection.kept else ""),
        ("Met them in paired runs", met if selection.kept and gains else ""),
        *((f"{measured}, {name}", str(gain)) for name, gain in gains),
        ("Gain", "" if gains else "no paired runs were made"),
        ("Proxy", selection.proxy),
        ("Task", selection.task),
        ("Learning rate", f"{lr}{'' if selection.lr_searched else ' (not searched)'}" if lr else ""),
        ("Cost", f"{text.seconds(cost.seconds)}, {steps}, {cost.trials} trials{memory}"),
        ("Budget", cost.budget),
        ("Saves", saves(selection)),
        ("Run", cost.executor),
        ("Interrupted", "by Ctrl-C" if selection.interrupted else ""),
        ("Drawn with", selection.plan.drawn_with),
    ]
    return [(name, value) for name, value in facts if value]


def _gain_figure(selection: Selection) -> Figure | None:
    rows = [(name, f"{name}: {gain}", _positive(gain)) for name, gain in _gains(selection)]
    note = (
        "The loss as a multiple of that from the model's own weights, with the interval of paired runs on fresh batch "
        "orders. Left of × 1 is better."
    )
    name = "Loss beside that from your own weights"
    ratios = selection.gain is None or selection.gain.unit is None
    if not ratios:
        name = "Value beside that from your own weights"
        note = (
            "By how much the value is lower than from the model's own weights, with the interval of paired runs on "
            "fresh batch orders. Right of 0 is better."
        )
    if selection.kept:
        name = "What was seen of the recipe that was not chosen"
        note = f"{note} Why it is not believed stands above."
    axis = "loss beside own weights" if ratios else "lower than from own weights by"
    return intervals("gain", name, note, rows, axis, factors=ratios) if rows else None


def _gains(selection: Selection) -> list[tuple[str, Gain]]:
    """Returns what the gate has measured, each with its name."""
    pairs = (("training rows", selection.gain), ("held-back rows", selection.held_back))
    return [(name, gain) for name, gain in pairs if gain is not None]


def _positive(gain: Gain) -> Mean:
    """Returns the gain with the sign turned: the gate's own is a log-loss ratio, negative where it is better."""
    unit = 1.0 if gain.unit is None else gain.unit
    return Mean(-gain.estimate * unit, -gain.high * unit, -gain.low * unit, gain.pairs)


def _leaders(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the best fully probed trial of each recipe, the best first, as_is among them in any case."""
    done = [trial for trial in trials if trial["stage"] == "search" and trial["state"] == "complete"]
    best: dict[str, dict[str, Any]] = {}
    for trial in sorted(done, key=lambda trial: float(trial["score"])):
        best.setdefault(str(trial["recipe"]), trial)
    ranked = list(best.values())
    return ranked[:_SHOWN] + [trial for trial in ranked[_SHOWN:] if trial["recipe"] == AS_IS]


def _leaderboard(selection: Selection, leaders: list[dict[str, Any]], titles: Mapping[str, str]) -> dict[str, Any]:
    header = ("recipe", "learning rate", "steps", "score", "first loss", "last loss")
    rows = [
        (
            f"→ {titles[row['recipe']]}" if row["recipe"] == selection.recipe.key else titles[row["recipe"]],
            _number(row["lr"]),
            str(row["steps"]),
            *(_number(row[name]) for name in ("score", "first_loss", "last_loss")),
        )
        for row in leaders
    ]
    legend = (
        "The best of those that went to the search's last step, each at its best learning rate. Score: log of the loss "
        "beside a constant guess's, on training and held-back rows, plus a little for gradients of unlike size; lower "
        "is better. → is what you train with."
    )
    if not rows:
        return {"texts": ["No recipe went to the search's last step."]}
    words = explained([str(row["recipe"]) for row in leaders])
    folded = [Folded("What the words mean", "\n".join(f"{word}: {meaning}" for word, meaning in words))]
    return {"texts": [legend], "tables": [Table(header, rows)], "folded": folded if words else []}


def _number(value: float) -> str:
    return "-" if math.isnan(value) else text.number(value)


def _trials(trials: list[dict[str, Any]], titles: Mapping[str, str]) -> list[Section]:
    if not trials:
        return []
    rows = [
        (
            titles[trial["recipe"]],
            str(trial["number"]),
            STAGES[trial["stage"]],
            str(trial["state"]),
            str(trial["reason"]) or ("went on" if trial["stage"] != "gate" else ""),
            _number(trial["lr"]),
            str(trial["steps"]),
            _number(trial["score"]),
        )
        for trial in trials
    ]
    header = ("recipe", "run", "of the", "state", "why it went no further", "learning rate", "steps", "score")
    many = "1 run" if len(rows) == 1 else f"All {len(rows)} runs"
    table = Table(header, rows, left=5, fold=f"{many}, and why each went no further", page=_ROWS)
    return [Section("Every run", figures=_drawn([trials_figure(trials, titles)]), tables=[table])]


def _plan(selection: Selection) -> Section:
    header = ("parameter", "role", "draw", "why", "shape", "std or value", "lr factor, Adam", "lr factor, SGD")
    rows = [_fill_row(fill) for fill in selection.plan.fills]
    notes = [Folded("What could not be seen of the architecture", "\n".join(selection.plan.notes))]
    return Section(
        "Plan, parameter by parameter",
        texts=[coverage(selection.plan.fills)],
        tables=[Table(header, rows, left=4, fold=f"All {len(rows)} parameters", page=_ROWS)],
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
    return Page(_verdict(diagnosis), lead, [findings, _layers(diagnosis)])


def _verdict(diagnosis: Diagnosis) -> str:
    return "The initial weights look sound" if diagnosis.healthy else "The initial weights have something to mend"


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
    drawing = signals([(AS_IS, [dataclasses.asdict(layer) for layer in layers])])
    figures = [Figure("layers", "Signals layer by layer", LEVEL, [drawing])] if layers else []
    return Section("Layers", figures=figures, tables=[Table(header, rows, left=3, page=_ROWS)])
