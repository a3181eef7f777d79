from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import autoinit

PACKAGE = Path(autoinit.__file__).parent
HEAVY = ("torch", "sklearn", "optuna", "pandas", "pydantic", "numpy", "typer", "rich")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_no_heavy_library() -> None:
    loaded = python(f"import sys, autoinit; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_import_takes_less_than_a_fifth_of_a_second() -> None:
    """Of a core's time: by the clock it would be longer wherever the cores have other work."""
    clock = "import time; start = time.process_time(); import autoinit; print(time.process_time() - start)"
    assert min(float(python(clock)) for _ in range(3)) < 0.2


@pytest.mark.parametrize("name", sorted(autoinit._HOMES))
def test_public_name_is_what_its_module_defines(name: str) -> None:
    home = import_module(f"autoinit.{autoinit._HOMES[name]}")
    assert getattr(autoinit, name) is vars(home)[name]
    assert vars(home)[name].__module__ == home.__name__


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1]
    seen = {alias.asname: node.module for node in imports for alias in node.names}
    assert seen == autoinit._HOMES | dict.fromkeys(autoinit._MODULES) | {"__version__": "version"}


def test_no_public_name_hides_a_module() -> None:
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert not modules & set(autoinit._HOMES)


def test_dir_lists_the_public_names() -> None:
    assert dir(autoinit) == sorted([*autoinit._HOMES, *autoinit._MODULES, "__version__"])


@pytest.mark.parametrize("name", autoinit._MODULES)
def test_public_module_is_loaded_on_first_use(name: str) -> None:
    code = f"import sys, autoinit; print('autoinit.{name}' in sys.modules, autoinit.{name}.__name__)"
    assert python(code).split() == ["False", f"autoinit.{name}"]


def test_unknown_name_is_an_attribute_error_that_lists_the_known() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'choose'.*select"):
        autoinit.choose  # noqa: B018


def test_help_of_the_package_names_everything_that_is_public_and_says_what_to_call() -> None:
    told = set(re.findall(r"\w+", autoinit.__doc__ or ""))
    assert not {*autoinit._HOMES, *autoinit._MODULES} - told
    assert max(map(len, (autoinit.__doc__ or "").splitlines())) <= 120


def test_a_notebook_without_widgets_is_not_warned_of_a_bar_that_is_never_shown() -> None:
    shell = "types.SimpleNamespace(config={'IPKernelApp': 1})"
    notebook = (
        "import sys, types\n"
        "sys.modules |= {'ipywidgets': None, 'ipykernel.zmqshell': None}\n"
        f"sys.modules |= {{'IPython': types.SimpleNamespace(get_ipython=lambda: {shell})}}\n"
        "sys.stderr = sys.stdout\n"
    )
    assert "IProgress not found" in python(f"{notebook}import tqdm.auto")
    told = python(f"{notebook}import autoinit\nprint(autoinit.select.__name__, 'tqdm.auto' in sys.modules)")
    assert told.split() == ["select", "True"]
