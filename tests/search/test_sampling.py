from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from databases import all_closed
from graphs import mlp

from autoinit.errors import ArgumentError
from autoinit.recipes.space import space_of
from autoinit.search.sampling import distribution_of, quiet_optuna, stored_study


def test_every_dimension_has_its_default_in_its_distribution() -> None:
    dimensions = space_of(mlp(), lr_searched=True).dimensions
    assert {type(distribution_of(one)).__name__ for one in dimensions} == {
        "CategoricalDistribution",
        "FloatDistribution",
        "IntDistribution",
    }
    for one in dimensions:
        form = distribution_of(one)
        assert form._contains(form.to_internal_repr(one.default))


def test_a_study_of_that_name_is_not_added_to(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    with quiet_optuna():
        stored_study(url, "mine")[0].close()
        with all_closed(), pytest.raises(ArgumentError, match="holds a study 'mine' already"):
            stored_study(url, "mine")
    with pytest.raises(ArgumentError, match=r"cannot be opened .*Give a URL such as sqlite:///trials.db"):
        stored_study("nowhere://x", None)


def test_a_file_of_something_else_is_named_and_closed(tmp_path: Path) -> None:
    (tmp_path / "trials.db").write_text("not a database\n" * 100)
    with all_closed(), pytest.raises(ArgumentError, match=r"cannot be opened .*file is not a database"):
        stored_study(f"sqlite:///{tmp_path / 'trials.db'}", None)


def test_silence_ends_with_the_block_also_after_an_error() -> None:
    before = optuna.logging.get_verbosity()
    with contextlib.suppress(KeyError), quiet_optuna():
        assert optuna.logging.get_verbosity() == optuna.logging.WARNING
        raise KeyError
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize("module", ["sampling", "storing"])
def test_it_loads_no_torch(module: str) -> None:
    """A study's coordinator and its status ask Optuna too, and torch alone takes seconds to load."""
    code = f"import sys, autoinit.search.{module}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
