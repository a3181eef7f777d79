"""The command `autoinit recommender`: fit one to your own records, see how well it chooses, and what it knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # the libraries below take seconds to load: each command imports what it needs
    from ..knowledge.tables import Knowledge
    from ..recommender.evaluation import Scored

recommender_app = typer.Typer(
    help="What studies have found, and the recommender that learned from it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Files = Annotated[
    list[Path] | None, typer.Argument(metavar="FILES...", help="Records (.jsonl, .parquet) or knowledge (.jsonl.xz).")
]
Alone = Annotated[bool, typer.Option("--without-shipped", help="Leave out what comes with the package.")]


@recommender_app.command("fit", short_help="Fits a recommender to your records, shipped ones too.")
def fit_command(
    files: Files = None,
    out: Annotated[Path, typer.Option(help="Where to keep it: .npz, fitted; .jsonl.xz, the knowledge alone.")] = Path(
        "recommender.npz"
    ),
    without_shipped: Alone = False,
) -> None:
    """Fits a recommender to your records and the shipped ones: recommend --recommender recommender.npz."""
    from ..errors import ArgumentError
    from ..knowledge.files import write_knowledge
    from ..recommender.cache import save
    from ..recommender.model import Recommender
    from ..search.own_records import records_path

    if not out.name.endswith((".npz", ".jsonl.xz")):
        raise ArgumentError(f"--out is {out}. Allowed: a name that ends in .npz or .jsonl.xz.")
    own = records_path()
    chosen = files or ([own] if own.exists() else [])
    knowledge = _knowledge(chosen, without_shipped)
    if out.suffix == ".npz":
        save(Recommender.fit(knowledge), out)
    else:
        write_knowledge(out, knowledge)
    typer.echo(f"Written {out}: {len(knowledge.tasks)} tasks, {knowledge.probes} probes.")


@recommender_app.command("evaluate", short_help="Tells how well it chooses on tasks it has not seen.")
def evaluate_command(
    files: Files = None,
    without_shipped: Alone = False,
    split: Annotated[str, typer.Option(help="What is held out together: task, dataset or family.")] = "family",
) -> None:
    """Tells how well recipes are chosen on tasks that were not learned from, beside a fixed list and as-is."""
    from ..errors import ArgumentError, did_you_mean
    from ..recommender.evaluation import SPLITS, as_is, evaluations_of, learned, static_portfolio
    from ..recommender.examples import examples_of

    if split not in SPLITS:
        raise ArgumentError(f"--split is {split!r}. {did_you_mean(split, SPLITS)}")
    examples = examples_of(_knowledge(files or [], without_shipped))
    methods = {"recommender": learned, "static portfolio": static_portfolio, "as-is": as_is}
    rows = [_row(name, evaluations_of(examples, split, method)) for name, method in methods.items()]
    from .. import text

    header = ("", "regret@1", "regret@3", "regret@5", "harmed", "worst", "flagged", "covered")
    typer.echo(f"{len(examples.results)} tasks, each chosen for without its own {split}:\n")
    typer.echo(text.table(header, rows, "<>>>>>>>"))
    typer.echo(
        "\nregret: 0 is the best candidate there is, 1 as-is where it can be beaten. harmed: more than 5 % worse than\n"
        "as-is, in held-back loss. flagged: not sure, so that as-is comes first. covered: gains in their 80 % interval."
    )


@recommender_app.command("show", short_help="Tells what is known, and what does well on all of it.")
def show_command(files: Files = None, without_shipped: Alone = False) -> None:
    """Tells what is known: tasks, how that was made, and the recipes that do well together on all of them."""
    from collections import Counter

    from .. import text
    from ..recommender.cache import fitted

    knowledge = _knowledge(files or [], without_shipped)
    families = Counter(task.family or "unnamed" for task in knowledge.tasks)
    typer.echo(
        f"{len(knowledge.tasks)} tasks of {len(families)} families on "
        f"{len({task.dataset for task in knowledge.tasks})} data sets, {knowledge.probes} probes; {knowledge.hash}"
    )
    for name, value in knowledge.made.items():
        typer.echo(f"  {name.replace('_', ' '):15} {value}")
    typer.echo()
    typer.echo(text.table(("family", "tasks"), [(name, str(count)) for name, count in families.most_common()], "<>"))
    found = fitted(knowledge)
    typer.echo("\nRecipes that do well together on all of them, best first:")
    for recipe in found.portfolio:
        typer.echo(f"  {recipe.key}")


def _knowledge(files: list[Path], without_shipped: bool) -> Knowledge:
    """Returns what files and the package tell together; what cannot be read is named on stderr."""
    from ..knowledge.files import gathered, shipped
    from ..knowledge.tables import merged

    own, skipped = gathered(*files)
    for line in skipped:
        typer.echo(f"skipped {line}", err=True)
    return own if without_shipped else merged(shipped(), own)


def _row(name: str, scores: list[Scored]) -> tuple[str, ...]:
    from statistics import fmean

    from ..recommender.evaluation import TOPS

    regrets = [f"{fmean(score.regret[place] for score in scores):.2f}" for place in range(len(TOPS))]
    covers = [score.covered for score in scores if score.covered is not None]
    return (
        name,
        *regrets,
        f"{fmean(score.harmed for score in scores):.0%}",
        f"{max(0.0, -min(score.gain for score in scores)):.2f} nats",
        f"{fmean(score.flagged for score in scores):.0%}",
        f"{fmean(covers):.0%}" if covers else "",
    )
