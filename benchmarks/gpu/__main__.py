"""What a device makes of the library, in one command of eight minutes: figures beside what is wanted of them.

    python -m benchmarks.gpu                         # everything, on the GPU that is there
    python -m benchmarks.gpu --only draws,steps      # some sections
    python -m benchmarks.gpu --smoke                 # everything small, on a CPU: does it run?

Each section runs in a process of its own and has its share of the time; one that fails or hangs says so, and the others
go on. Each figure is a line of `gpu.jsonl` as soon as it is there, and `gpu.md` has the tables of the last run. Nothing
is downloaded: data are scikit-learn's digits and the prose of the Python reference, models are made from their sizes.

Needs torch from 2.11 on and Python from 3.11 on, and of packages scikit-learn, pandas, optuna, pydantic, rich, typer,
sqlalchemy and transformers; where the project is not installed, its folder on PYTHONPATH. The exit code is 0 where
everything was measured, whatever the figures.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ..common.jobs import RESULTS, Row
from .figures import page, section_page, summary, troubles
from .runner import SECTIONS, WHOLE, rows_of, run_sections
from .session import Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is asked for, and returns the exit code."""
    asked = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.out or (Path(scratch) if asked.smoke else RESULTS)
        options = Options(
            folder / "gpu.jsonl",
            time.strftime("%Y-%m-%dT%H:%M:%S"),
            asked.smoke,
            asked.device or ("cpu" if asked.smoke else ""),
            asked.commit,
            asked.seconds / WHOLE,
        )
        rows = run_sections(asked.only, options, lambda row: _tell(row, options))
        broken = troubles(rows)
        print(f"\n{summary(rows)}")
        if asked.out or not asked.smoke:
            print(f"Written to {options.path} and {options.path.with_suffix('.md')}.")
    return 1 if broken else 0


def _tell(end: Row, options: Options) -> None:
    """Prints what a section has found, and writes the page of all that is there by now."""
    rows = rows_of(options)
    print(f"\n{section_page(rows, end)}", flush=True)
    options.path.with_suffix(".md").write_text(page(rows), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    about = "; ".join(f"{name}: {section.about}" for name, section in SECTIONS.items())
    parser.add_argument("--only", type=_names, default=list(SECTIONS), metavar="NAMES", help=f"sections ({about})")
    parser.add_argument("--seconds", type=float, default=WHOLE, help="that everything may take")
    parser.add_argument("--smoke", action="store_true", help="small models and few steps, on a CPU; nothing is kept")
    parser.add_argument("--device", default="", help="such as cuda:1; the GPU that is there, else the CPU")
    parser.add_argument("--out", type=Path, help="folder of gpu.jsonl and gpu.md; benchmarks/results without")
    parser.add_argument("--commit", default="", help="of the project, where its folder has no git history")
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is no section. Allowed: {', '.join(SECTIONS)}.")
    return names


if __name__ == "__main__":
    sys.exit(main())
