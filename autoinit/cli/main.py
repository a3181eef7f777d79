"""The command `autoinit`: demo, select, recommend, diagnose, apply, report, catalogue.

Exit codes: 0 done (also where the weights were kept), 2 wrong usage or bad input, 130 interrupted (what was
found by then is printed and saved all the same), 1 a defect. Results go to stdout, progress and errors to
stderr.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import AutoInitError
from ..factories import called, named
from ..screen.bar import TerminalBar, progress_shown
from ..screen.columns import width
from ..version import __version__
from .arguments import (
    check_calibration,
    check_folder,
    learning_rate,
    loss_of,
    model_of,
    sized_model_of,
    whole_numbers,
)
from .display import after_select, answer, data_of, reading, recommendation_data, selection_data, stopped_in_words
from .recommender import recommender_app
from .study import study_app

app = typer.Typer(
    name="autoinit",
    help="Chooses the initial weights of a PyTorch model, and keeps yours unless it finds better.",
    epilog="MODEL and DATA are module:callable, looked up from the current folder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_SEE = "see: autoinit catalogue"

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="module:callable; called without arguments, returns the model.")
]
Data = Annotated[str, typer.Option(metavar="DATA", help="module:callable; called without arguments, returns the data.")]
Loss = Annotated[str | None, typer.Option(help="module:callable; the loss itself: (output, target) -> scalar.")]
Step = Annotated[str | None, typer.Option(help="module:callable; the step itself: (model, batch) -> scalar loss.")]
Seed = Annotated[int, typer.Option(help="Of the draws, the batch order and the search.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the model's own where left out.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Budget = Annotated[str, typer.Option(help="Time for the search: 60s, 5m, 1h.")]


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits; a mistake of the user gets one message, not a traceback."""
    try:
        app(arguments, prog_name="autoinit")
    except AutoInitError as error:
        typer.echo(f"autoinit: {_as_options(str(error))}", err=True)
        sys.exit(2)


_KEYWORD = re.compile(r"(?<![\w.(,-])(data|loss|step|optimizer|lr|budget|seed|device)=(?=(\w)?)")


def _as_options(message: str) -> str:
    """Returns a message with options in the place of Python's arguments: "pass loss=" becomes "pass --loss"."""
    spelled = _KEYWORD.sub(lambda found: f"--{found[1]}{' ' if found[2] else ''}", message)
    spelled = spelled.replace("autoinit.catalogue() lists", "`autoinit catalogue` lists")
    return re.sub(r"\bval_data\b=?", "--val-data", spelled)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"autoinit {__version__}")
        raise typer.Exit()


app.add_typer(study_app, name="study", short_help="Runs many tasks with many candidates, overnight.")
app.add_typer(recommender_app, name="recommender", short_help="What studies have found, and what learned from it.")


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Chooses the initial weights of a PyTorch model, and keeps yours unless it finds better."""


@app.command("demo", short_help="Shows a deep network learn, once its weights are chosen.")
def demo_command(
    budget: Budget = "45s",
    steps: Annotated[int, typer.Option(min=1, help="Length of each training.")] = 300,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Shows a network that does not train learn MNIST digits, because its initial weights were chosen."""
    from ..demo import demo

    with progress_shown(not quiet) as progress:

        def say(line: str) -> None:
            if isinstance(progress, TerminalBar):
                progress.stop()
            if not as_json:
                typer.echo(line)

        result = demo(budget=budget, steps=steps, seed=seed, device=device, progress=progress, say=say)
    runs = {"as_is": result.as_is, "selected": result.selected}
    answer(
        as_json,
        result,
        lambda: {
            **{name: {**data_of(run), "final_loss": run.final_loss} for name, run in runs.items()},
            "selection": selection_data(result.selection),
        },
    )


@app.command("select", short_help="Chooses the initial weights of MODEL by short trainings.")
def select_command(
    model: Model,
    data: Data,
    loss: Loss = None,
    step: Step = None,
    optimizer: Annotated[
        str | None, typer.Option(help="module:callable; the factory itself: (params) -> optimizer.")
    ] = None,
    lr: Annotated[str | None, typer.Option(help='A number, or "search".')] = None,
    val_data: Annotated[str | None, typer.Option(help="module:callable; returns held-back data.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="60s, 5m, 1h; a minute if left out, or 5 % of the training that it is for.")
    ] = None,
    training_steps: Annotated[int | None, typer.Option(help="Length of the training that it is for.")] = None,
    epochs: Annotated[float | None, typer.Option(help="The same in passes through DATA.")] = None,
    recipe: Annotated[list[str] | None, typer.Option(help=f"Consider only this recipe; repeatable; {_SEE}.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Glob of parameters to choose for; repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Glob of parameters to keep; repeatable.")] = None,
    seed: Seed = 0,
    device: Device = None,
    executor: Annotated[
        Literal["sequential", "processes", "stacked", "captured"] | None,
        typer.Option(help="How probes run; measured if left out."),
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="Probes at a time; measured if left out.")] = None,
    proxy: Annotated[
        str | None, typer.Option(help='A smaller model to probe in the place of MODEL: module:callable, or "auto".')
    ] = None,
    recommender: Annotated[
        str, typer.Option(help='What is tried first: "default", "none", or a file of `autoinit recommender fit`.')
    ] = "default",
    record: Annotated[bool, typer.Option("--record", help="Add what is found to your own records.")] = False,
    out: Annotated[Path | None, typer.Option(help="Save the plan here, as JSON.")] = None,
    keys: Annotated[bool, typer.Option("--keys", help="Name recipes as code takes them, and not in short.")] = False,
    full: Annotated[bool, typer.Option("--full", help="With --out: all of it, for `autoinit report`.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Chooses the initial weights of MODEL by short trainings on DATA, and saves them as a plan."""
    rate = learning_rate(lr)
    check_folder(out, "--out")
    if full and out is None:
        raise typer.BadParameter("it says what is saved; name the file with --out.", param_hint="--full")
    reading(quiet, model, data)
    with stopped_in_words(), progress_shown(not quiet) as progress:
        network = model_of(model)
        from ..search.shown import as_text
        from ..selector import select

        selection = select(
            network,
            called(data, "--data"),
            loss=loss_of(loss),
            step=named(step, "--step") if step else None,
            optimizer=named(optimizer, "--optimizer") if optimizer else None,
            lr=rate,
            val_data=called(val_data, "--val-data") if val_data else None,
            budget=budget,
            training_steps=training_steps,
            epochs=epochs,
            recipes=recipe or None,
            only=only or None,
            exclude=exclude or None,
            seed=seed,
            device=device,
            executor=executor,
            concurrency=concurrency,
            proxy=model_of(proxy) if proxy and proxy != "auto" else proxy or None,
            recommender=False if recommender == "none" else recommender,
            record=record,
            progress=progress,
        )
    if out:
        selection.save(out, full=full)
    shown = as_text(selection, keys=keys, after=after_select(selection, out))
    answer(as_json, shown, lambda: {**selection_data(selection), "out": str(out) if out else None})
    if selection.interrupted:
        raise typer.Exit(130)


@app.command("recommend", short_help="Names the recipes that suit MODEL, by what studies found.")
def recommend_command(
    model: Model,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="module:callable; returns the data; what they are is told by it.")
    ] = None,
    count: Annotated[int, typer.Option("-k", help="How many recipes to list.")] = 5,
    probes: Annotated[int, typer.Option(help="How many of them to try for 16 steps each.")] = 0,
    optimizer: Annotated[
        str | None, typer.Option(help="module:callable; the factory itself: (params) -> optimizer.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="The learning rate.")] = None,
    loss: Loss = None,
    step: Step = None,
    recipe: Annotated[list[str] | None, typer.Option(help=f"Consider only this recipe; repeatable; {_SEE}.")] = None,
    recommender: Annotated[
        str | None, typer.Option(help="A file of `autoinit recommender fit`, or records; the shipped one if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Names the recipes that suit MODEL, by what studies have found on others, and by a few short trainings."""
    network = model_of(model)
    from ..recommendation import recommend

    found = recommend(
        network,
        called(data, "--data") if data else None,
        k=count,
        probes=probes,
        loss=loss_of(loss),
        step=named(step, "--step") if step else None,
        optimizer=named(optimizer, "--optimizer") if optimizer else None,
        lr=lr,
        recipes=recipe or None,
        recommender=recommender,
    )
    answer(as_json, found, lambda: recommendation_data(found))


@app.command("diagnose", short_help="Says how signals and gradients pass through MODEL.")
def diagnose_command(
    model: Model,
    data: Data,
    loss: Loss = None,
    step: Step = None,
    widths: Annotated[
        str | None,
        typer.Option(help="Several, as 64,128,256: μP's coordinate check in the place; MODEL is called with each."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="With --widths: how each is initialized; μP if left out.")] = None,
    optimizer: Annotated[str, typer.Option(help="With --widths: adam, adamw or sgd.")] = "adam",
    lr: Annotated[float | None, typer.Option(help="With --widths: learning rate at the smallest.")] = None,
    as_json: Json = False,
) -> None:
    """Measures how signals and gradients pass through MODEL as it is, and says what would mend it."""
    if widths is not None:
        from ..coordinates import MUP, coordinate_check

        sizes, batches = whole_numbers(widths, "--widths"), called(data, "--data")
        check = coordinate_check(
            sized_model_of(model),
            batches,
            recipe=recipe or MUP,
            widths=sizes,
            lr=lr,
            loss=loss_of(loss),
            optimizer=optimizer,
        )
        answer(as_json, check, lambda: json.loads(check.to_json()))
        return
    network = model_of(model)
    from ..diagnosis import diagnose

    result = diagnose(network, called(data, "--data"), loss=loss_of(loss), step=named(step, "--step") if step else None)
    answer(as_json, result, lambda: {"findings": data_of(result.findings), "signals": data_of(result.signals)})


@app.command("apply", short_help="Draws the weights of MODEL by a recipe or a plan.")
def apply_command(
    model: Model,
    what: Annotated[str, typer.Argument(metavar="RECIPE_OR_PLAN", help=f"A recipe's name ({_SEE}), or a saved plan.")],
    data: Annotated[str | None, typer.Option(metavar="DATA", help="module:callable; batches or one input.")] = None,
    loss: Loss = None,
    seed: Annotated[int, typer.Option(help="Of the draws; a saved plan has its own.")] = 0,
    member: Annotated[int, typer.Option(help="Another draw of the same choice for each number: an ensemble's.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Save the weights here (a state dict, torch.save).")] = None,
    plan: Annotated[Path | None, typer.Option(help="Save the plan here, as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Draws the weights of MODEL by a recipe or a saved plan, and prints what each parameter got."""
    check_folder(out, "--out")
    check_folder(plan, "--plan")
    check_calibration(what, data)
    network = model_of(model)
    import torch

    from ..apply import apply_

    inputs = called(data, "--data") if data else None
    drawn = apply_(network, what, data=inputs, seed=seed, loss=loss_of(loss), member=member)
    if out:
        torch.save(network.state_dict(), out)
    if plan:
        drawn.save(plan)
    answer(as_json, drawn, lambda: data_of(drawn))
    saved = [f"Saved {path}." for path in (out, plan) if path]
    if saved and not as_json:
        typer.echo("\n" + "\n".join(saved))


@app.command("report", short_help="Writes one HTML page about a saved selection.")
def report_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `autoinit select --out FILE --full` wrote.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The page to write, such as init.html.")],
) -> None:
    """Writes one HTML page about a saved selection: what was chosen and why, loss curves, every trial."""
    from ..reports.reporting import report

    report(file, out)
    typer.echo(f"Written {out}.")


@app.command("catalogue", short_help="Lists every initialization that has a name.")
def catalogue_command(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print all of this one entry.")] = None,
    as_json: Json = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/catalogue.md.")] = False,
) -> None:
    """Lists every initialization that has a name: what it is for, when to prefer it, what it costs."""
    if as_markdown and (as_json or name):
        raise typer.BadParameter("it prints the whole page; leave out NAME and --json.", param_hint="--markdown")
    from ..recipes import pages as docs

    columns = width() or 120
    if as_markdown:
        typer.echo(docs.markdown(), nl=False)
    elif name:
        entry = docs.find(name)
        answer(as_json, docs.card(entry, columns), lambda: docs.as_data(entry))
    else:
        answer(as_json, docs.listing(columns), docs.all_data)
