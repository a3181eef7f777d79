"""The floors of the house: a module imports only modules that stand earlier in the spine."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "autoinit"

FLOORS = (
    "errors text jsonfile cores factories",
    "activations graph formulas attention_rules needs schemes",
    "recipe entries catalogue_docs space",
    "fill fill_table lr_groups plan depth_rules width_rules bias_rules rules metafeatures",
    "score lines budget records screening halving gate",
    "knowledge recommender",
    "snapshot threads device_memory data losses optimizers precision sharding task",
    "tape walk layout axes normalization blocks residuals attentions streams responses vectors recurrent inventory",
    "roles module_tree tracing",
    "initializers init assign task_features signals calibrations apply",
    "probe kept bench executors campaign contest rounds",
    "search",
    "selection reasons proxy warm own_records selector glimpse recommendation diagnosis coordinates",
    "demo testing",
    "study",
    "reports",
    "cli_study cli_recommend",
    "cli",
    "__main__",
)
SPINE = [name for floor in FLOORS for name in floor.split()]
"""The order of imports, from the ground up; `initializers` and `calibrations` are folders."""

TORCH_FREE = SPINE[: SPINE.index("snapshot")]
"""Pure arithmetic on data: it must run, and be read, without torch."""

ONLY_IN = {
    "optuna": {"search", "study"},
    "sqlalchemy": {"study"},
    "ray": {"study"},
    "pydantic": {"jsonfile", "study"},
    "plotly": {"reports"},
    "jinja2": {"reports"},
    "typer": {"cli", "cli_study", "cli_recommend"},
    "click": {"cli", "cli_study", "cli_recommend"},
    "rich": {"cli", "cli_study", "cli_recommend"},
    "mlxtend": {"demo"},
    "sklearn": {"recommender"},
    "tests": set(),
    "benchmarks": set(),
    "studies": set(),
}
"""Who may import what; the last three depend on the package, never the other way round."""

BLIND = {
    "score": {"schemes", "recipe", "space", "plan"},
    "signals": {"schemes", "recipe", "space", "plan", "initializers"},
    "probe": {"schemes", "recipe", "space", "plan", "initializers", "apply"},
    "initializers": {"graph", "recipe", "space", "plan", "task", "tracing"},
}
"""The judge must not know what it judges; an initializer sees one tensor's facts, never a graph."""

ATTRIBUTES_BY_NAME = {
    "__init__": "public names are loaded on first use",
    "walk": "autograd keeps what an operation saved in `_saved_*` attributes",
    "factories": "the user names an object as module:callable",
}
"""Modules that may call getattr or hasattr, and why. Registries are explicit dicts instead."""

GLOBAL_RNG = {
    # The demo plays the part of the user, in fork_rng.
    "torch.manual_seed": {"snapshot", "probe", "calibrations", "coordinates", "demo"},
    "torch.seed": set(),
    "torch.set_rng_state": {"snapshot"},
    "torch.random.set_rng_state": {"snapshot"},
    "torch.cuda.manual_seed": {"snapshot", "probe"},
    "torch.cuda.manual_seed_all": {"snapshot", "probe"},
    "torch.cuda.set_rng_state": {"snapshot"},
    "torch.cuda.set_rng_state_all": {"snapshot"},
    "torch.mps.manual_seed": {"snapshot", "probe"},
    "torch.mps.set_rng_state": {"snapshot"},
    "np.random.seed": {"snapshot", "probe"},
    "np.random.set_state": {"snapshot"},
    "numpy.random.seed": {"snapshot", "probe"},
    "numpy.random.set_state": {"snapshot"},
    "random.seed": {"snapshot", "probe"},
    "random.setstate": {"snapshot"},
}
"""Calls that change a global random generator, and who may make them: only what puts it back."""

TESTED_ELSEWHERE: dict[str, str] = {
    "__main__": "test_cli.py",
    "init": "test_init_functions.py",
    "cli_study": "test_study.py",
}
"""Modules without a test file of their own, and where they are tested."""


@dataclass(frozen=True)
class Module:
    """One source file of the package."""

    path: Path

    @property
    def floor(self) -> str:
        """Its place in the spine: the file's name, or the folder's of a catalogue."""
        return self.path.relative_to(PACKAGE).parts[0].removesuffix(".py")

    @property
    def tree(self) -> ast.Module:
        return parsed(self.path)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


MODULES = [Module(path) for path in sorted(PACKAGE.rglob("*.py"))]
ids = {"argvalues": MODULES, "ids": lambda module: str(module.path.relative_to(PACKAGE))}


def imports(module: Module) -> Iterator[tuple[str, int]]:
    """Yields every absolute module name that is imported anywhere in the file, with its line."""
    package = ["autoinit", *module.path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            path = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{path}.{alias.name}" for alias in node.names] if path == "autoinit" else [path]
            yield from ((name, node.lineno) for name in names)


def inner(module: Module) -> Iterator[tuple[str, int]]:
    """Yields the floor of every module of this package that the file imports."""
    for name, line in imports(module):
        top, _, rest = name.partition(".")
        if top == "autoinit":
            yield rest.partition(".")[0], line


def violation(module: Module, line: int, what: str) -> str:
    return f"{module.path.relative_to(ROOT)}:{line} {what}"


def dotted(node: ast.expr) -> str:
    """Returns "a.b.c" of an attribute chain, "" of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (start := dotted(node.value)):
        return f"{start}.{node.attr}"
    return ""


def calls(module: Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node.lineno


def test_every_module_has_its_place_in_the_spine() -> None:
    floors = {module.floor for module in MODULES} - {"__init__"}
    assert sorted(floors - set(SPINE)) == [], "add the module to the table where its imports allow"


@pytest.mark.parametrize("module", **ids)
def test_module_imports_only_earlier_modules(module: Module) -> None:
    if module.path == PACKAGE / "__init__.py":
        pytest.skip("lazy names: it imports nothing when it is loaded")
    place = SPINE.index(module.floor)
    allowed = {*SPINE[:place], "__version__"}
    if (PACKAGE / module.floor).is_dir():
        allowed.add(module.floor)  # inside a catalogue's own folder
    wrong = [
        violation(module, line, f"imports {floor!r}, which does not stand before {module.floor!r}")
        for floor, line in inner(module)
        if floor not in allowed
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", [m for m in MODULES if m.floor in TORCH_FREE], ids=lambda m: m.floor)
def test_torch_free_module_does_not_name_torch(module: Module) -> None:
    """With the floors in order, no torch-free module can reach torch through another one either."""
    wrong = [violation(module, line, "imports torch") for name, line in imports(module) if is_of(name, "torch")]
    assert not wrong, "\n".join(wrong)


def is_of(name: str, library: str) -> bool:
    return name == library or name.startswith(f"{library}.")


@pytest.mark.parametrize("module", **ids)
def test_heavy_library_is_imported_in_its_one_place(module: Module) -> None:
    wrong = [
        violation(module, line, f"imports {name}, which only {sorted(places) or 'nobody'} may")
        for name, line in imports(module)
        for library, places in ONLY_IN.items()
        if is_of(name, library) and module.floor not in places
    ]
    assert not wrong, "\n".join(wrong)


def test_every_library_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = ("demo", "report", "postgres", "ray", "dashboard")
    needs = [*project["dependencies"], *(need for extra in extras for need in project["optional-dependencies"][extra])]
    declared = {re.split(r"[^\w.-]", need)[0].replace("-", "_") for need in needs} | {"autoinit"}
    declared |= {"sklearn"} if "scikit_learn" in declared else set()
    wrong = [
        violation(module, line, f"imports {name}, which pyproject.toml does not name")
        for module in MODULES
        for name, line in imports(module)
        if name.partition(".")[0] not in declared | sys.stdlib_module_names
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", [m for m in MODULES if m.floor in BLIND], ids=lambda m: m.path.stem)
def test_judge_does_not_know_what_it_judges(module: Module) -> None:
    wrong = [
        violation(module, line, f"imports {floor}, of which {module.floor} must know nothing")
        for floor, line in inner(module)
        if floor in BLIND[module.floor]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", **ids)
def test_global_random_state_is_left_alone(module: Module) -> None:
    wrong = [
        violation(module, line, f"calls {name}; draw from a torch.Generator instead")
        for name, line in calls(module)
        if name in GLOBAL_RNG and module.floor not in GLOBAL_RNG[name]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", **ids)
def test_nothing_is_looked_up_by_attribute_name(module: Module) -> None:
    wrong = [
        violation(module, line, f"calls {name}; use an explicit dict, an annotation or isinstance")
        for name, line in calls(module)
        if name in {"getattr", "hasattr"} and module.floor not in ATTRIBUTES_BY_NAME
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("floor", sorted({module.floor for module in MODULES} - {"__init__"}))
def test_module_has_a_test_file(floor: str) -> None:
    home = TESTED_ELSEWHERE.get(floor, f"test_{floor}.py")
    assert (ROOT / "tests" / home).exists(), f"autoinit/{floor} has no tests/{home}"


def test_exceptions_name_modules_that_exist() -> None:
    floors = {module.floor for module in MODULES}
    assert sorted((set(ATTRIBUTES_BY_NAME) | set(TESTED_ELSEWHERE)) - floors) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from .task import Task", "autoinit.task"),
        ("from . import task", "autoinit.task"),
        ("from autoinit import task", "autoinit.task"),
        ("import autoinit.task", "autoinit.task"),
        ("def f():\n    from .task import Task", "autoinit.task"),
        ("import torch.nn as nn", "torch.nn"),
    ],
)
def test_every_form_of_import_is_seen(source: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "parsed", lambda path: ast.parse(source))
    assert [name for name, _ in imports(Module(PACKAGE / "graph.py"))] == [found]
