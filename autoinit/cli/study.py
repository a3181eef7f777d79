"""The command `autoinit study`: run, resume, status, export, report, dashboard, schema, example."""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import asdict
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import ArgumentError
from ..version import to_install
from .study_display import Bar, Lines, Silent, status_text, watch_status

if TYPE_CHECKING:  # the libraries below take seconds to load: each command imports what it needs
    from ..study.spec import Study
    from ..study.storage import Store

study_app = typer.Typer(
    name="study",
    help="Runs many tasks with many candidates, overnight: resumable, on one machine or several.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

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


@study_app.command("resume", short_help="Goes on with a study that was started before.")
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


@study_app.command("status", short_help="Shows how a study stands, and what is left.")
def status_command(
    file: File,
    storage: Storage = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it anew every few seconds.")] = False,
    keys: Annotated[bool, typer.Option("--keys", help="Name recipes as code takes them, and not in short.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Shows how a study stands: done, running, failed with reasons, best so far, time left."""
    study, store = _opened(file, storage)
    try:
        if watch and not as_json:
            watch_status(study, store, keys=keys)
        elif as_json:
            from ..study.status import status_of

            typer.echo(json.dumps({"study": study.name, **asdict(status_of(store, study))}, indent=1))
        else:
            typer.echo(status_text(study, store, keys=keys))
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


@study_app.command("report", short_help="Writes one HTML page: what was run, won and failed.")
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


@study_app.command("dashboard", short_help="Opens the trials in optuna-dashboard, until Ctrl-C.")
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


@study_app.command("merge", short_help="Puts several exports into one file.")
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


@study_app.command("example", short_help="Prints a study file to begin with, models and all.")
def example_command() -> None:
    """Prints a study file to begin with; its models and data come along."""
    home = files("autoinit.study")
    printed, where = example(home.joinpath("example.toml").read_text(encoding="utf-8"), home.joinpath("shipped"))
    typer.echo(printed, nl=False)
    typer.echo(f"Its models and data are in {where}name your own in their place.", err=True)


def example(printed: str, shipped: Traversable) -> tuple[str, str]:
    """Returns the study file that ships as it runs here, and where its models are, in words.

    Args:
        printed: the file, which names modules that lie beside it in a clone.
        shipped: the folder that holds them in a wheel, and is not there in a clone.
    """
    if not shipped.is_dir():
        return printed, "studies/ of the repository: save it there, or "
    named = re.sub(r'"(networks|real_data):', r'"autoinit.study.shipped.\1:', printed)
    return named.replace("studies/quick.toml", "quick.toml"), f"{shipped}; "


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

    shown = Silent() if quiet else Bar(study.name) if sys.stderr.isatty() else Lines()
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
