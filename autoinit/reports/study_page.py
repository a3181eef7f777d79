"""The report on a study: what was run, what won, by how much, and what went wrong."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Iterable, Sequence

from .. import text
from ..study.results import StudyResults, best_in_words
from .blocks import Figure, Folded, Page, Section, Table
from .figures import best_gains, curves, gain_map, heat_map, importance_figure, layers_figure
from .summary import AS_IS, Mean, Share, TaskSummary, grouped, importance, stages, summarize

_STAGES = {"probe": "Best recipe of each task", "long": "The longer trainings"}

_UNITS = (
    "A gain is how much lower a recipe's score is than that of the model's own weights (as_is), in log units of the "
    "loss: 0.1 is a loss about 10 % lower, 0.7 about half. It is paired: the same seed, the same learning rate."
)
_CHOSEN = (
    "The best of many recipes is in part the luckiest on these very seeds, so its interval is too hopeful; fresh seeds "
    "would show somewhat less."
)


def study_page(results: StudyResults) -> Page:
    """Returns the page about a study."""
    found = {stage: summarize(results, stage) for stage in stages(results)}
    sections = [_what_was_run(results)]
    sections += [_best(tasks, stage) for stage, tasks in found.items()]
    sections += _figures("Learning curves", [curves(results, list(found))])
    fields = {str(line["recipe"]): line["fields"] for line in results.lines}
    probes = found.get("probe", [])
    sections += _figures("Recipes and families", [heat_map(probes), gain_map(probes, fields)])
    shares = importance(results)
    sections += _figures("What mattered", [importance_figure(shares)], [_share_table(shares)] if shares else [])
    sections += _figures("Layers", [layers_figure(results.tasks)])
    sections += [_failures(results), *_damaged(results)]
    title = f"Study {results.study.get('name', 'without a name')}"
    return Page(title, _lead(results, found.get("probe", [])), sections)


def _figures(title: str, found: Sequence[Figure | None], tables: Sequence[Table] = ()) -> list[Section]:
    """Returns a section of the figures that there is something to draw in; none where there is nothing."""
    figures = [figure for figure in found if figure is not None]
    return [Section(title, figures=figures, tables=tables)] if figures else []


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
        return f"{counted} None could be compared with as_is yet."
    seeds = (
        f", beyond the noise of its seeds on {sure}"
        if any(gain.count > 1 for gain in best)
        else "; with one seed there is no telling how far by chance"
    )
    return f"{counted} A recipe is ahead of the model's own weights on {ahead} of {len(best)} compared{seeds}."


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
        ("Recipes", f"{len({line['recipe'] for line in lines} - {AS_IS})} beside as_is" if lines else ""),
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
        folded=[Folded("The study as it was given", json.dumps(study, indent=1, ensure_ascii=False))],
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
            "“Gain, lr tuned” compares the same recipe with as_is on the first seed only, each at its own best "
            "learning rate: what is left of the gain when the learning rate is searched too."
        )
    figure = best_gains(tasks, stage)
    return Section(
        _STAGES[stage], texts=texts, figures=[figure] if figure else [], tables=[Table(header, rows, left=2)]
    )


def _begun(task: TaskSummary) -> bool:
    """Says whether there is something to tell of a task: a trial has ended, or it could not be built."""
    return bool(task.gains or task.unfinished or task.info.get("error"))


def _row(task: TaskSummary) -> list[str]:
    if task.best is None:
        return [task.name, "the task could not be built" if task.info.get("error") else "nothing to compare", *"---"]
    gain = task.gains[task.best]
    return [task.name, best_in_words(task.best, gain), _signed(gain.mean), _range(gain), str(gain.count)]


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _range(gain: Mean) -> str:
    return "one seed" if gain.low is None or gain.high is None else f"{gain.low:+.3f} … {gain.high:+.3f}"


def _share_table(shares: Sequence[Share]) -> Table:
    rows = [(s.name, f"{s.share:.3f}", f"{s.chance:.3f}", str(s.values), str(s.tasks)) for s in shares]
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
