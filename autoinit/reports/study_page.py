"""The report on a study: what was run, what won, by how much, and what went wrong."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Iterable, Sequence

from .. import text
from ..recipes.names import recipe_title
from ..study.results import AS_IS, Mean, StudyResults, best_in_words
from .blocks import Figure, Folded, Page, Section, Table
from .figures import best_gains, curves, gain_map, heat_map, importance_figure, layers_figure
from .labels import explained, field_title
from .summary import Share, TaskSummary, by_value, grouped, importance, stages, summarize

_ROWS = 20
"""Rows of a long table that are shown at a time."""

_STAGES = {"probe": "Best recipe of each task", "long": "The longer trainings"}

_UNITS = (
    "A gain is how much lower a recipe's score is than that of the model's own weights, in log units of the "
    "loss: 0.1 is a loss about 10 % lower, 0.7 about half. It is paired: the same seed, the same learning rate."
)
_CHOSEN = (
    "The best of many recipes is in part the luckiest on these very seeds, so its interval is too hopeful; fresh seeds "
    "would show somewhat less."
)


def study_page(results: StudyResults) -> Page:
    """Returns the page about a study."""
    found = {stage: summarize(results, stage) for stage in stages(results)}
    opening = telling(found.get("probe", []))
    first = opening.name if opening is not None else ""
    sections = [_best(tasks, stage) for stage, tasks in found.items()]
    sections += _figures("Learning curves", [curves(results, list(found), first)])
    fields = {str(line["recipe"]): line["fields"] for line in results.lines}
    probes = found.get("probe", [])
    sections += _figures("Recipes and families", [heat_map(probes), gain_map(probes, fields)])
    shares = importance(results)
    if figure := importance_figure(shares):
        concluded = conclusions(results, shares)
        sections.append(Section("What mattered", texts=concluded, figures=[figure], tables=[_share_table(shares)]))
    sections += _figures("Layers", [layers_figure(results.tasks, first)])
    sections += [_what_was_run(results), _failures(results), *_damaged(results)]
    return Page(_title(results, found.get("probe", [])), _lead(results, found.get("probe", [])), sections)


def _figures(title: str, found: Sequence[Figure | None]) -> list[Section]:
    """Returns a section of the figures that there is something to draw in; none where there is nothing."""
    figures = [figure for figure in found if figure is not None]
    return [Section(title, figures=figures)] if figures else []


def telling(tasks: Sequence[TaskSummary]) -> TaskSummary | None:
    """Returns the task with the most to tell: of those that are beyond noise, if any, the one of the largest gain."""

    def told(task: TaskSummary) -> tuple[bool, float]:
        gain = task.gains[str(task.best)]
        return gain.low is not None and gain.low > 0, gain.mean

    return max((task for task in tasks if task.best is not None), key=told, default=None)


WORTH = 0.1
"""Share of the differences, beyond what chance explains, from which on a choice is called one that matters."""


def conclusions(results: StudyResults, shares: Sequence[Share]) -> list[str]:
    """Returns what to conclude from the share of each choice, as sentences."""
    ranked = sorted(shares, key=lambda share: -share.beyond_chance)
    matter = [share for share in ranked if share.beyond_chance >= WORTH]
    rest = [field_title(share.name) for share in ranked if share.beyond_chance < WORTH]
    if not matter:
        return [
            "No choice explains by itself more of the differences than chance would: what counts is the whole recipe."
        ]
    texts = []
    for place, share in enumerate(matter):
        name = field_title(share.name)
        begin = f"Decide on the {name} first" if place == 0 else f"Then on the {name}"
        texts.append(
            f"{begin}: over {_many(share.tasks, 'task')} it explains {text.percent(share.share)} of the differences "
            f"within a task, where chance would explain {text.percent(share.chance)}.{_ends(results, share)}"
        )
    if rest:
        one = len(rest) == 1
        texts.append(
            f"What {'makes' if one else 'make'} little difference by {'itself' if one else 'themselves'}: "
            f"{', '.join(rest)}. Leave {'it' if one else 'them'} as {'it is' if one else 'they are'}."
        )
    return texts


def _ends(results: StudyResults, share: Share) -> str:
    """Returns which of its values did best and worst on average, as a sentence; empty where there is no telling."""
    means = by_value(results, share.name)
    if len(means) < 2:
        return ""
    (best, low), (worst, high) = means[0], means[-1]
    return (
        f" Best on average was {_value(share.name, best)}, with a score {text.number(-low, 2)} below its task's mean; "
        f"worst was {_value(share.name, worst)}, {text.number(high, 2)} above."
    )


def _value(name: str, value: object) -> str:
    if name == "learning rate":
        return f"step {value:+d} of the learning rate" if value else "the task's own learning rate"
    if value is None:
        return "own weights" if name == "base" else "the default"
    if isinstance(value, float) and name.endswith(("log2_gain", "log2", "slope")):
        return f"× {text.number(2.0**value)}"
    return f"“{value}”"


def _title(results: StudyResults, tasks: Sequence[TaskSummary]) -> str:
    name = f"Study {results.study.get('name', 'without a name')}"
    best = [task.gains[task.best] for task in tasks if task.best is not None]
    if not best:
        return name
    ahead = sum(gain.mean > 0 for gain in best)
    return f"{name}: other weights are ahead on {ahead} of {_many(len(best), 'task')}"


def _lead(results: StudyResults, tasks: Sequence[TaskSummary]) -> str:
    if not results.lines:
        return "No trial is finished yet."
    best = [task.gains[task.best] for task in tasks if task.best is not None]
    ahead = sum(gain.mean > 0 for gain in best)
    sure = sum(gain.sure for gain in best)
    begun = sum(map(_begun, tasks))
    where = _many(len(tasks), "task") if begun == len(tasks) else f"{begun} of {_many(len(tasks), 'task')}"
    counted = f"{_many(len(results.lines), 'trial')} on {where}."
    if not best:
        return f"{counted} None could be compared with the model's own weights yet."
    seeds = (
        f", beyond the noise of its seeds on {sure}"
        if any(gain.count > 1 for gain in best)
        else "; with one seed there is no telling how far by chance"
    )
    compared = f"{counted} A recipe is ahead of the model's own weights on {ahead} of {len(best)} compared{seeds}."
    most = telling(tasks)
    if most is None or most.best is None or most.gains[most.best].mean <= 0:
        return compared
    return f"{compared} The most to tell has {most.name}, where {recipe_title(most.best)} leads."


def _many(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def _what_was_run(results: StudyResults) -> Section:
    lines, study = results.lines, results.study
    probes = [line for line in lines if line["stage"] == "probe"]
    states = Counter(line["state"] for line in lines)
    seconds = sum(line["seconds"] or 0.0 for line in lines)
    facts = [
        ("Description", str(study.get("description") or "")),
        ("Tasks", _tasks_fact(results)),
        ("Families", _listed(info.get("family") for info in results.tasks.values())),
        ("Data sets", _listed(info.get("dataset") for info in results.tasks.values())),
        ("Optimizers", _listed(info.get("optimizer") for info in results.tasks.values())),
        ("Recipes", f"{len({line['recipe'] for line in lines} - {AS_IS})} beside own weights" if lines else ""),
        ("Seeds", ", ".join(map(str, sorted({line["seed"] for line in lines})))),
        ("Learning-rate steps", ", ".join(f"{step:+d}" if step else "0" for step in _lr_steps(results))),
        ("Steps of a probe", _listed(line["steps"] for line in probes)),
        ("Trials", ", ".join(f"{count} {state}" for state, count in states.most_common())),
        ("Training time", f"{text.seconds(seconds)}, added up over trials" if lines else ""),
        ("Finished", _span(line["finished"] for line in lines)),
        ("Versions", _versions(results)),
        ("Devices", _listed(line["device"] for line in lines)),
        ("Threads", _listed(line["threads"] for line in lines)),
    ]
    return Section(
        "What was run",
        facts=[(name, value) for name, value in facts if value],
        folded=[Folded("The study as it was given", json.dumps(study, indent=1, ensure_ascii=False), printed=False)],
    )


def _tasks_fact(results: StudyResults) -> str:
    broken = sum(bool(info.get("error")) for info in results.tasks.values())
    return f"{len(results.tasks)}, {broken} of which could not be built" if broken else str(len(results.tasks))


def _lr_steps(results: StudyResults) -> list[int]:
    return sorted({line["lr_step"] for line in results.lines})


def _listed(values: Iterable[object]) -> str:
    """Returns the different values in order of appearance, the first twelve by name."""
    return text.few([str(value) for value in dict.fromkeys(values) if value not in (None, "")], most=12)


def _span(times: Iterable[str | None]) -> str:
    """Returns the first and the last of some times, the day of the latter only where it is another one."""
    known = sorted(datetime.datetime.fromisoformat(time).astimezone(datetime.UTC) for time in times if time)
    if not known:
        return ""
    first, last = known[0], known[-1]
    until = f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M:%S}"
    return f"{first:%Y-%m-%d %H:%M:%S} to {until} UTC"


def _versions(results: StudyResults) -> str:
    pairs = dict.fromkeys((line["autoinit"], line["torch"]) for line in results.lines)
    return "; ".join(f"autoinit {autoinit}, torch {torch}" for autoinit, torch in pairs)


def _best(tasks: Sequence[TaskSummary], stage: str) -> Section:
    seeds = {task.gains[task.best].count for task in tasks if task.best is not None}
    plain = "Where n is 1 there was a single seed: no interval can be given, and the order of recipes may be chance."
    texts = [*([_UNITS, _CHOSEN] if stage == "probe" else []), *([plain] if 1 in seeds else [])]
    shown = [task for task in tasks if (_begun(task) if stage == "probe" else task.gains)]  # some are trained long
    if stage == "probe" and len(shown) < len(tasks):
        texts.append(f"{_many(len(tasks) - len(shown), 'task')} without a finished trial yet: not shown here.")
    tasks = shown
    tuned = any(task.tuned is not None for task in tasks)
    header = ["task", "best recipe", "gain", "95 % interval", "n", *(["gain, lr tuned"] if tuned else [])]
    rows = [[*_row(task), *([_signed(task.tuned)] if tuned else [])] for task in tasks]
    if tuned:
        texts.append(
            "“Gain, lr tuned” compares the same recipe with own weights on the first seed only, each at its own best "
            "learning rate: what is left of the gain when the learning rate is searched too."
        )
    figure = best_gains(tasks, stage)
    words = explained(task.best for task in tasks if task.best is not None)
    return Section(
        _STAGES[stage],
        texts=texts,
        figures=[figure] if figure else [],
        tables=[Table(header, rows, left=2, page=_ROWS)],
        folded=[Folded("What the words mean", "\n".join(": ".join(pair) for pair in words))] if words else [],
    )


def _begun(task: TaskSummary) -> bool:
    """Says whether there is something to tell of a task: a trial has ended, or it could not be built."""
    return bool(task.gains or task.unfinished or task.info.get("error"))


def _row(task: TaskSummary) -> list[str]:
    if task.best is None:
        return [task.name, "the task could not be built" if task.info.get("error") else "nothing to compare", *"---"]
    gain = task.gains[task.best]
    best = best_in_words(recipe_title(task.best), gain.mean)
    return [task.name, best, _signed(gain.mean), _range(gain), str(gain.count)]


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _range(gain: Mean) -> str:
    return "one seed" if gain.low is None or gain.high is None else f"{gain.low:+.3f} … {gain.high:+.3f}"


def _share_table(shares: Sequence[Share]) -> Table:
    rows = [
        (field_title(s.name), text.percent(s.share), text.percent(s.chance), str(s.values), str(s.tasks))
        for s in shares
    ]
    return Table(("choice", "explained", "by chance", "values", "tasks"), rows)


def _failures(results: StudyResults) -> Section:
    lost = [line for line in results.lines if line["state"] != "complete"]
    broken = {task: str(info["error"]) for task, info in results.tasks.items() if info.get("error")}
    if not lost and not broken:
        return Section("Failures", texts=["None: every task could be built, and every trial reached its last step."])
    folded = [Folded(f"{task}: {_last_line(error)}", error) for task, error in broken.items()]
    groups = grouped(lost, lambda line: f"{line['state']}\n{line['task']}\n{_last_line(line['reason'])}")
    for same in groups.values():
        first = same[0]
        places = "\n".join(f"{line['recipe']}, seed {line['seed']}, lr step {line['lr_step']}" for line in same)
        title = f"{first['state']}, {first['task']}: {_last_line(first['reason']) or 'no reason given'} (× {len(same)})"
        folded.append(Folded(title, f"{first['reason']}\n\nWhere:\n{places}".strip()))
    by_task = Counter((line["task"], line["state"]) for line in lost)
    rows = [(task, state, str(count)) for (task, state), count in by_task.most_common()]
    texts = [
        f"{_many(len(broken), 'task')} could not be built; {_many(len(lost), 'trial')} did not reach the last step. "
        "Diverged means that the loss was no longer finite."
    ]
    table = [Table(("task", "state", "trials"), rows, left=2)] if rows else []
    return Section("Failures", texts=texts, tables=table, folded=folded)


def _last_line(reason: str) -> str:
    """Returns a reason's last line: of a traceback, the error itself."""
    lines = reason.strip().splitlines()
    return lines[-1].strip() if lines else ""


def _damaged(results: StudyResults) -> list[Section]:
    if not results.skipped:
        return []
    count = len(results.skipped)
    texts = [
        f"{_many(count, 'damaged line')} of the records {'was' if count == 1 else 'were'} left out of all the above."
    ]
    return [Section("Damaged lines", texts=texts, folded=[Folded("Which ones", "\n".join(results.skipped))])]
