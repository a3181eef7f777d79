"""The side-by-side report as Markdown."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..common.jobs import Row
from ..common.statistics import MARGIN, Interval, geometric_mean, harm_test, holm, paired_interval
from .equal_cost import APART, LEAST, SHARES
from .peers import METHODS
from .results import PLACES, Key, View, bootstrap, end_of, indexed, log_ratios, rank_table, steps_to_target, view
from .tasks import NORMALIZED, VERSUS

UNLEARNED = 0.9
"""A training that ends above this share of the best constant predictor's loss has learned nothing to speak of."""

TITLES = {**{place: f"the {place} allowance" for place in SHARES}, APART: "cost apart"}


def report(rows: Sequence[Row]) -> str:
    """Returns the whole report of the rows so far."""
    if not rows:
        return "There is no result yet."
    found = indexed(rows)
    views = _views(found)
    parts = [_head(found), _explanation()]
    parts += [f"## Ranks and gains, {_title(one)}\n\n{ranking(one)}" for one in views]
    parts += ["## Harm: each of ours that chooses against the default", harm_table(_beside_default(found))]
    parts += ["## Failures, and what was changed besides weights", failure_table(found), failure_list(found)]
    parts += ["## What the weights cost", cost_table(found)]
    parts += ["## Steps to the default's final training loss", steps_table(found, views)]
    parts += [f"## Final losses, {_title(one)}\n\n{loss_table(one)}" for one in views]
    return "\n\n".join(parts)


def _views(found: dict[Key, Row]) -> list[View]:
    """Returns the comparisons: each place at the best rates, where there is a grid, and at the centre rate."""
    tasks = [name for name in VERSUS if any(key[0] == name for key in found)]
    both = [view(found, tasks, place, best) for place in PLACES for best in (True, False)]
    return [one for one in both if one.shown and (not one.best or any(len(grid) > 1 for grid in one.rates.values()))]


def _beside_default(found: dict[Key, Row]) -> list[View]:
    """Returns each that chooses beside the default alone, on all seeds of the two, whoever else has been run."""
    choosing = [name for name in METHODS if METHODS[name].chooses and any(key[1] == name for key in found)]
    pairs = [{key: row for key, row in found.items() if key[1] in ("default", name)} for name in choosing]
    return [one for pair in pairs for one in _views(pair)]


def _title(one: View) -> str:
    seeds = {len(shown.seeds) for by in one.shown.values() for shown in by.values()}
    counted = f"{' or '.join(map(str, sorted(seeds)))} seed{'s' * (max(seeds) > 1)}"
    if not one.best:
        return f"{TITLES[one.place]}, all at the task's centre rate, {counted}"
    whole = sum(len(grid) > 1 for grid in one.rates.values())
    grids = f"{whole} of {len(one.rates)} tasks have a grid"
    return f"{TITLES[one.place]}, each method at its own best rate, {counted} ({grids})"


def _head(found: dict[Key, Row]) -> str:
    rows = list(found.values())
    dates, commits = sorted({row["date"] for row in rows}), sorted({row["commit"] for row in rows})
    seeds, tasks = len({row["seed"] for row in rows}), len({row["task"] for row in rows})
    minutes = sum(row["seconds"] for row in rows) / 60
    return (
        f"# Side by side, at equal total cost\n\n{len(rows)} trainings: {tasks} tasks, "
        f"{len({row['method'] for row in rows})} methods, {seeds} seeds; {', '.join(dates)}; commit "
        f"{', '.join(commits)}; torch {rows[0]['torch']}; {minutes:.0f} minutes of one thread. The long training is "
        f"{rows[0]['stretch']:g} × the task's steps."
    )


def _explanation() -> str:
    budgets = ", ".join(f"{name} {share:g} ×" for name, share in SHARES.items())
    lines = "\n".join(f"- **{method.title}**: {method.words}." for method in METHODS.values())
    return f"""## What is compared

**Equal total cost.** An allowance is the task's long training and a search budget together, in training steps; the
budgets are {budgets} the task's steps, at least {LEAST}.
Everything is paid from it: a method whose weights took c steps trains for the allowance less c, and the default for
all of it. A method whose weights cost more than the whole allowance has failed there. "Cost apart" is the other
extreme: every method trains for the long training alone, whatever its weights took; it shows the weights and not the
bargain.

**What a step is.** Forward, backward and optimizer on one batch of the task; a forward pass is a third of one. Passes
are counted (pip lsuv, our recipes and what is recommended, random search) or reported (`select`); where gradients are
differentiated (pip gradinit, MetaInit) an iteration's processor time is divided by that of a plain step right after
it, and the median taken. Seconds stand beside; the time of drawing, tracing and bookkeeping is in them and not in the
steps.

**Alike for all:** the owner's first weights, the data and their order, the optimizer, the seeds, a constant rate from
one grid (the task's rate × 1/√10, 1, √10). At the best rate, each method has the rate of its lowest final training
loss, mean over the seeds; searching for that rate is free for all. Searches run at the rate that is trained with.

**Not compared:** schedules and warm-up, methods that change the model (added multipliers, normalization taken out),
larger models, the peers' hyperparameters beyond the ones stated here, seconds of wall time on a machine of one's own.

**Ranks** are by the mean training loss over the seeds, 1 the lowest; equal losses and failures share ranks. In the
ranking of an allowance stand the `select` whose budget it holds and the quick one. Intervals are 95 %, bootstrapped
over tasks; "behind" is the paired difference in rank to `select`, the largest and the quick one, and to what is
recommended, clear where its interval lies above 0. Ratios are to the default's final loss, geometric means over tasks.
A task counts where every method has been run.

{lines}"""


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _interval(one: Interval) -> str:
    return f"{one.estimate:.2f} [{one.low:.2f}, {one.high:.2f}]"


def ranking(one: View) -> str:
    """Returns one line per ranked method, the best mean rank first."""
    tasks, names = list(one.shown), one.ranked
    if len(names) < 2:
        return "Fewer than two methods have been run."
    halves = {"normalized": [t for t in tasks if t in NORMALIZED], "plain": [t for t in tasks if t not in NORMALIZED]}
    columns = {f"mean rank, {len(tasks)} tasks": bootstrap(rank_table(one, tasks, "train"))}
    for half, members in halves.items():
        if members:
            columns[f"{half} ({len(members)})"] = bootstrap(rank_table(one, members, "train"))
    columns["by validation"] = bootstrap(rank_table(one, tasks, "val"))
    shown = [[_interval(column[place]) for column in columns.values()] for place in range(len(names))]
    header = ["method", *columns]
    for subject in one.subjects:
        for kind, words in (("train", ""), ("val", ", by validation")):
            header.append(f"behind {METHODS[subject].title}{words}")
            for line, cell in zip(shown, _behind(one, tasks, kind, subject), strict=True):
                line.append(cell)
    if "default" in names:
        header += ["training loss ratio", "validation loss ratio"]
        for name, line in zip(names, shown, strict=True):
            line += [_gain(one, tasks, name, kind) for kind in ("train", "val")]
    order = np.argsort([interval.estimate for interval in next(iter(columns.values()))], kind="stable")
    return _markdown(header, [[METHODS[names[place]].title, *shown[place]] for place in order])


def _behind(one: View, tasks: Sequence[str], kind: str, subject: str) -> list[str]:
    """Returns the paired differences in rank to the subject, by "train" or "val"."""
    table = rank_table(one, tasks, kind)
    differences = table - table[:, [one.ranked.index(subject)]]
    return [
        "-" if name == subject else _interval(interval) + (" clear" if interval.low > 0 else "")
        for name, interval in zip(one.ranked, bootstrap(differences), strict=True)
    ]


def _gain(one: View, tasks: Sequence[str], name: str, kind: str) -> str:
    ratios = [math.exp(statistics.fmean(log_ratios(one, task, name, kind))) for task in tasks]
    return _interval(geometric_mean(ratios))


def harm_table(views: Sequence[View]) -> str:
    """Returns the non-inferiority test per task and place: upper 90 % bound of the ratio to the default, Holm.

    Args:
        views: each of the default and one that chooses.
    """
    tested = [one for one in views if "default" in one.methods and one.subjects and _paired(one)]
    if not tested:
        return "It needs two seeds of the default and of a `select`, or of what is recommended."
    columns: dict[str, dict[str, str]] = {}
    summary = []
    for one in tested:
        (subject,) = one.subjects
        for kind, words in (("train", "training"), ("val", "validation")):
            ratios = {task: log_ratios(one, task, subject, kind) for task in _paired(one)}
            verdicts = _verdicts(list(ratios.values()))
            name = f"{METHODS[subject].title}, {TITLES[one.place]}{', best rates' if one.best else ''}, {words}"
            uppers = [f"{math.exp(harm_test(values).upper):.3f}" for values in ratios.values()]
            pairs = zip(ratios, uppers, verdicts, strict=True)
            columns[name] = {task: f"{upper} {verdict}" for task, upper, verdict in pairs}
            counts = {verdict: verdicts.count(verdict) for verdict in ("no harm", "HARM", "not shown")}
            found = ", ".join(f"{verdict} {count}" for verdict, count in counts.items())
            summary.append(f"- {name}: {found}")
    tasks = dict.fromkeys(task for column in columns.values() for task in column)
    lines = [[task, *(column.get(task, "") for column in columns.values())] for task in tasks]
    return _markdown(["task", *columns], lines) + "\n\n" + "\n".join(summary)


def _paired(one: View) -> list[str]:
    return [task for task, by in one.shown.items() if len(by["default"].seeds) >= 2]


def _verdicts(ratios: Sequence[Sequence[float]]) -> list[str]:
    passed = holm([harm_test(values).p for values in ratios])
    lows = [paired_interval(values).low for values in ratios]
    return [
        "no harm" if ok else ("HARM" if low > MARGIN else "not shown") for ok, low in zip(passed, lows, strict=True)
    ]


def failure_table(found: dict[Key, Row]) -> str:
    """Returns the counts of each kind of failure, by method, over all rows."""
    lines = []
    for name, rows in _by_method(found).items():
        kinds = [row["failure"]["kind"] for row in rows if row["failure"]]
        trained = [row for row in rows if not row["failure"]]
        beyond = [sum(row["ends"].get(place, 0) is None for row in trained) for place in SHARES]
        ends = [end_of(row, APART) for row in trained]
        limit = [UNLEARNED * row["reference"] for row in trained]
        stuck = sum(end is not None and most <= end[0] < math.inf for end, most in zip(ends, limit, strict=True))
        diverged = sum(row["diverged_at"] is not None for row in trained)
        counts = [len(rows), kinds.count("raised"), kinds.count("refused"), diverged, stuck]
        lines.append([METHODS[name].title, *map(str, counts), " / ".join(map(str, beyond))])
    header = ["method", "rows", "raised", "refused", "diverged", "learned nothing"]
    return _markdown([*header, f"cost beyond the allowance ({' / '.join(SHARES)})"], lines)


def failure_list(found: dict[Key, Row]) -> str:
    """Returns what happened, in words, with the tasks where it did."""
    said: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for (task, name, _, rate), row in found.items():
        where = task if rate == "centre" else f"{task} ({rate} rate)"
        if row["failure"]:
            said[name, f"{row['failure']['kind']}, {row['failure']['words']}"][task] = None
            continue
        if row["diverged_at"] is not None:
            said[name, "diverged"][where] = None
        for place in SHARES:
            if row["ends"].get(place, 0) is None:
                said[name, f"cost beyond {TITLES[place]}"][task] = None
        for note in row["notes"]:
            if not METHODS[name].chooses and not note.endswith("points"):
                said[name, note][task] = None
    order = list(METHODS)
    lines = [
        f"- {METHODS[name].title}: {words}: {', '.join(tasks)}."
        for (name, words), tasks in sorted(said.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    ]
    return "\n".join(lines) or "Nothing failed."


def cost_table(found: dict[Key, Row]) -> str:
    """Returns what each method took before training, and how often one that chooses left the owner's weights."""
    lines = []
    for name, rows in _by_method(found).items():
        costs = [row["cost"] for row in rows if not row["failure"]]
        if not costs:
            continue
        steps, seconds = [cost["steps"] for cost in costs], [cost["seconds"] for cost in costs]
        kept = sum(row["kept"] for row in rows if not row["failure"])
        spread = f"{statistics.median(steps):.0f} ({min(steps):.0f} to {max(steps):.0f})"
        cells = [spread, costs[0]["how"], f"{statistics.median(seconds):.2f}"]
        lines.append([METHODS[name].title, *cells, f"{kept}/{len(costs)}" if METHODS[name].chooses else ""])
    return _markdown(["method", "steps: median (range)", "how", "seconds: median", "kept"], lines)


def _by_method(found: dict[Key, Row]) -> dict[str, list[Row]]:
    by = {name: [row for key, row in found.items() if key[1] == name] for name in METHODS}
    return {name: rows for name, rows in by.items() if rows}


def steps_table(found: dict[Key, Row], views: Sequence[View]) -> str:
    """Returns the share of the long training after which each method is where the default ends, own cost included."""
    apart = [one for one in views if one.place == APART and "default" in one.methods]
    if not apart:
        return "The default has not been run."
    parts = []
    for one in apart:
        names = one.methods
        ratios = {task: [_steps(found, one, task, name) for name in names] for task in one.shown}
        lines = [[task, *(f"{value:.2f}" for value in values)] for task, values in ratios.items()]
        means = [_interval(geometric_mean(list(column))) for column in zip(*ratios.values(), strict=True)]
        titles = [METHODS[name].title for name in names]
        table = _markdown(["task", *titles], [*lines, ["geometric mean [95 %]", *means]])
        parts.append(f"{_title(one)}:\n\n{table}")
    words = (
        "Weights' own cost and training steps until the smoothed training loss is at the default's final one, as a "
        "share of the long training; at least 0.05; never within the long training counts as 2 and the cost."
    )
    return "\n\n".join([words, *parts])


def _steps(found: dict[Key, Row], one: View, task: str, name: str) -> float:
    mine, default = one.shown[task][name], one.shown[task]["default"]
    shares = [
        steps_to_target(found[task, name, seed, mine.rate], target)
        for seed, target in zip(mine.seeds, default.train, strict=True)
    ]
    return math.exp(statistics.fmean(map(math.log, shares)))


def loss_table(one: View) -> str:
    """Returns training / validation loss of every method and task, means over the seeds; the rate's sign beside."""
    signs = {"centre": "", "low": " ↓", "high": " ↑"}
    show: Callable[[float], str] = lambda loss: f"{loss:.3g}" if math.isfinite(loss) else "fails"  # noqa: E731
    lines = []
    for task, by in one.shown.items():
        cells = [f"{show(by[n].mean('train'))} / {show(by[n].mean('val'))}{signs[by[n].rate]}" for n in one.methods]
        lines.append([task + (" *" if task in NORMALIZED else ""), *cells])
    header = ["task", *(METHODS[name].title for name in one.methods)]
    notes = "Training / validation; * with normalization or skips; ↓ ↑ the low and the high rate of the grid."
    return f"{_markdown(header, lines)}\n\n{notes}"
