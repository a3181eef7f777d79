"""The command `autoinit study`: run, resume, status, export, report, dashboard, schema, example."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .. import text
from ..errors import ArgumentError
from ..version import to_install

if TYPE_CHECKING:  # the libraries below take seconds to load: each command imports what it needs
    from ..study.coordinator import StudyProgress
    from ..study.spec import Study
    from ..study.status import StudyStatus, TaskStatus
    from ..study.storage import Store

study_app = typer.Typer(
    name="study",
    help="Runs many tasks with many candidates, overnight: resumable, on one machine or several.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

PLAIN_EVERY = 30.0
"""Seconds between lines of progress, where there is no terminal."""
WATCH_SECONDS = 3.0
"""Seconds between two looks at a study that is watched."""
BEST = 48
"""Characters of a recipe's name; the report and --json have the whole."""

File = Annotated[Path, typer.Argument(metavar="FILE", help="The study file, such as studies/quick.toml.")]
Storage = Annotated[
    str | None,
    typer.Option(
        help="Optuna's URL: sqlite:///file.db or postgresql://user@host/database; the file's own if left out."
    ),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Trials at a time; the file's own if left out.")]
Executor = Annotated[Literal["local", "ray"] | None, typer.Option(help="The file's own if left out.")]
Budget = Annotated[str | None, typer.Option(help="Wall time of this run: 30m, 8h; the file's own if left out.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


@study_app.command("run")
def run_command(
    file: File,
    storage: Storage = None,
    workers: Workers = None,
    executor: Executor = None,
    budget: Budget = None,
    quiet: Quiet = False,
) -> None:
    """Runs a study, or what is left of it."""
    _run(file, storage, workers, executor, budget, quiet, resume=False)


@study_app.command("resume")
def resume_command(
    file: File,
    storage: Storage = None,
    workers: Workers = None,
    executor: Executor = None,
    budget: Budget = None,
    quiet: Quiet = False,
) -> None:
    """Goes on with a study that was started before; an error where there is none."""
    _run(file, storage, workers, executor, budget, quiet, resume=True)


@study_app.command("status")
def status_command(
    file: File,
    storage: Storage = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it anew every few seconds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Shows how a study stands: done, running, failed with reasons, best so far, time left."""
    study, store = _opened(file, storage)
    from ..study.status import status_of

    try:
        if watch and not as_json:
            _watch(study, store)
        elif as_json:
            typer.echo(json.dumps({"study": study.name, **asdict(status_of(store, study))}, indent=1))
        else:
            typer.echo(_told_status(study, store))
    finally:
        store.close()


@study_app.command("export")
def export_command(
    file: File,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="records.jsonl, which is added to, records.csv or records.parquet.")
    ],
    storage: Storage = None,
) -> None:
    """Writes the record of every finished trial, one line each."""
    _, store = _opened(file, storage)
    from ..knowledge.lines import write_lines

    try:
        count = write_lines(out, store.lines())
    finally:
        store.close()
    typer.echo(f"{count} records written to {out}.")


@study_app.command("report")
def report_command(
    file: File,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The page to write, such as study.html.")],
    storage: Storage = None,
) -> None:
    """Writes one HTML page that opens anywhere: what was run, what won, what failed."""
    study, store = _opened(file, storage)
    from ..reports.reporting import report
    from ..study.results import results_of

    try:
        found = results_of(store, study)
    finally:
        store.close()
    report(found, out)
    typer.echo(f"Written {out}: {len(found.lines)} trials of {len(found.tasks)} tasks.")


@study_app.command("dashboard")
def dashboard_command(
    file: File,
    storage: Storage = None,
    port: Annotated[int, typer.Option(help="Of the page on this machine.")] = 8080,
) -> None:
    """Opens the study's trials in optuna-dashboard, until Ctrl-C."""
    study, store = _opened(file, storage)
    store.close()
    from ..study.database import TasksOnly
    from ..study.storage import storage_of

    try:
        from optuna_dashboard import run_server
    except ImportError:
        raise ArgumentError(
            f"optuna-dashboard is not installed: {to_install('dashboard')}. Or use `autoinit study report`."
        ) from None
    typer.echo(f"http://127.0.0.1:{port}/ shows one study for each task; Ctrl-C ends it.", err=True)
    run_server(TasksOnly(storage_of(study, file.parent, storage), study.name), host="127.0.0.1", port=port)


@study_app.command("merge")
def merge_command(
    files: Annotated[list[Path], typer.Argument(metavar="RECORDS...", help="Exported records.")],
    out: Annotated[Path, typer.Option(help="Where to write them, each trial once.")],
) -> None:
    """Puts several exports into one file, each trial once; damaged lines are named and left out."""
    from ..knowledge.lines import read_lines, write_lines

    found = read_lines(*files)
    for skipped in found.skipped:
        typer.echo(f"skipped {skipped}", err=True)
    count = write_lines(out, found.lines)
    typer.echo(f"{count} records written to {out}; {found.repeated} repeated, {len(found.skipped)} damaged.")


@study_app.command("schema")
def schema_command() -> None:
    """Prints the JSON schema of a study file, for editors."""
    from ..study.toml_file import json_schema

    typer.echo(json.dumps(json_schema(), indent=1))


@study_app.command("example")
def example_command() -> None:
    """Prints a study file to begin with: studies/quick.toml."""
    typer.echo(files("autoinit.study").joinpath("example.toml").read_text(encoding="utf-8"), nl=False)
    typer.echo("Its models and data are in studies/ of the repository; name your own in their place.", err=True)


def _read(file: Path) -> Study:
    from ..study.toml_file import read_study

    return read_study(file)


def _opened(file: Path, storage: str | None) -> tuple[Study, Store]:
    """Returns the study of a file and its store, open for reading."""
    study = _read(file)
    from ..study.storage import open_store, storage_of

    return study, open_store(storage_of(study, file.parent, storage), study.name, readonly=True)


def _run(
    file: Path,
    storage: str | None,
    workers: int | None,
    executor: Literal["local", "ray"] | None,
    budget: str | None,
    quiet: bool,
    *,
    resume: bool,
) -> None:
    study = _read(file)
    from ..study.runner import run_study

    shown = _Silent() if quiet else _Bar(study.name) if sys.stderr.isatty() else _Lines()
    try:
        ran = run_study(
            study,
            folder=file.parent,
            storage=storage,
            workers=workers,
            executor=executor,
            budget=budget,
            resume=resume,
            report=shown.show,
        )
    finally:
        shown.close()
    place = f" --storage {shlex.quote(storage)}" if storage else ""
    named = shlex.quote(str(file))
    if ran.reason:
        typer.echo(f"Stopped: {ran.reason}. Nothing is lost; go on with:\n  autoinit study resume {named}{place}")
        raise typer.Exit(130 if ran.reason == "interrupted" else 0)
    typer.echo("Done. See:")
    for command in (f"status {named}", f"report {named} {study.name}.html", f"export {named} {study.name}.jsonl"):
        typer.echo(f"  autoinit study {command}{place}")


# What is shown while a study runs


class _Silent:
    """What shows nothing, and what those that show something begin with."""

    def show(self, progress: StudyProgress) -> None:
        pass

    def close(self) -> None:
        pass


class _Lines(_Silent):
    """Plain lines, where nobody watches: news at once, how far it is twice a minute."""

    def __init__(self) -> None:
        self._last = -PLAIN_EVERY

    def show(self, progress: StudyProgress) -> None:
        if progress.news:
            typer.echo(progress.news, err=True)
        if progress.seconds - self._last >= PLAIN_EVERY:
            self._last = progress.seconds
            typer.echo(_told(progress), err=True)


class _Bar(_Silent):
    """A bar on a terminal; news stand above it."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn(name), BarColumn(bar_width=None), TextColumn("{task.description}"), console=Console(stderr=True)
        )
        self._bar = self._bars.add_task("")
        self._bars.start()

    def show(self, progress: StudyProgress) -> None:
        if progress.news:
            self._bars.console.print(progress.news, markup=False, highlight=False)
        self._bars.update(self._bar, total=max(1, progress.total), completed=progress.done, description=_told(progress))

    def close(self) -> None:
        self._bars.stop()


def _told(progress: StudyProgress) -> str:
    about = "about " if progress.unbuilt else ""
    failed = f", {progress.failed} failed" if progress.failed else ""
    return f"{progress.done} of {about}{progress.total} trials{failed}{_left(progress.left, progress.unbuilt)}"


def _left(seconds: float | None, unbuilt: int) -> str:
    """Returns the time that is left, and what it takes for granted; nothing where nobody knows."""
    if seconds is None:
        return ""
    if not unbuilt:
        return f", {text.seconds(seconds)} left"
    return f", about {text.seconds(seconds)} left ({unbuilt} {'task' if unbuilt == 1 else 'tasks'} not begun)"


# What is shown of a study from outside

_COLUMNS = ("task", "done", "failed", "running", "waiting", "gain", "best so far")
_GAIN = "gain: over as_is, in log units of the loss, the mean over seeds; * where it is beyond their noise"


def _told_status(study: Study, store: Store, most: int | None = None) -> str:
    """Returns how a study stands, as text.

    Args:
        study: as its file has it.
        store: its storage.
        most: lines that there is room for, those that tell most; None for all.
    """
    from ..study.status import status_of

    found = status_of(store, study)
    after = ["", _GAIN, *_reasons(store, found.tasks)]
    before = [_headline(study, found), *([_pace(found)] if found.done + found.failed != found.total else []), ""]
    if most is not None:
        after = after[: max(2, most // 3)]
    room = None if most is None else max(1, most - len(before) - len(after) - 3)
    shown = list(found.tasks) if room is None or len(found.tasks) <= room else _telling(found.tasks)[:room]
    hidden = len(found.tasks) - len(shown)
    more = [f"and {hidden} more tasks: autoinit study status without --watch shows them"] if hidden else []
    table = text.table(_COLUMNS, [_cells(one) for one in shown], "<>>>>><")
    return "\n".join([*before, table, *more, *after])


def _headline(study: Study, found: StudyStatus) -> str:
    about = "about " if found.unbuilt else ""
    total = "" if found.total is None else f" of {about}{found.total}"
    return f"{study.name}: {found.done + found.failed}{total} trials ended, {found.failed} of them failed"


def _pace(found: StudyStatus) -> str:
    """Returns whether a study goes on, and how long it will: a coordinator that was killed leaves trials running."""
    last = "none has ended in this run" if found.ago is None else f"the last one ended {text.seconds(found.ago)} ago"
    running = f"{found.running} running" if found.running else "nothing runs now"
    return f"{running}; {last}{_left(found.left, found.unbuilt)}"


def _cells(one: TaskStatus) -> list[str]:
    best = "failed as a whole" if one.error else one.best
    shown = best if len(best) <= BEST else f"{best[: BEST - 1]}…"
    gain = "" if one.gain is None else f"{one.gain:+.3f}{'*' if one.sure else ' '}"
    return [one.task, *map(str, (one.done, one.failed, one.running, one.waiting)), gain, shown]


def _telling(tasks: Sequence[TaskStatus]) -> list[TaskStatus]:
    """Returns the tasks that are at work first, then those in trouble, then those that have ended last."""

    def rank(one: TaskStatus) -> int:
        return 0 if one.running else 1 if one.failed or one.error else 2 if one.done else 3

    return sorted(tasks, key=rank)


def _reasons(store: Store, tasks: Sequence[TaskStatus]) -> list[str]:
    """Returns why tasks and trials failed, a line for each reason."""
    from ..study.status import failures

    broken = [f"{one.task} failed as a whole: {one.error}" for one in tasks if one.error]
    return [*broken, *(f"{one.task}: {why}" for one in tasks if one.failed for why in failures(store, one.task))]


def _watch(study: Study, store: Store) -> None:
    """Shows a study anew every few seconds, in place on a terminal, until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            told = _told_status(study, store, console.height - 1 if console.is_terminal else None)
            live.update(Text(told, no_wrap=True, overflow="ellipsis"), refresh=True)
            time.sleep(WATCH_SECONDS)
