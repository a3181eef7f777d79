"""The stairs of the house: a module imports only from what stands earlier, and inside its wing in no circle."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "autoinit"

FLOORS = (
    "version errors seeds text screen jsonfile factories activations graph",
    "recipes plans judging knowledge recommender",
    "task own inheritance growth renewal tickets episodic tracing proxies initializers init drawing",
    "calibrations apply inherit renew lottery meta_learning",
    "probing stacks findings executors search",
    "selector recommendation diagnosis coordinates demo testing",
    "study reports cli __main__",
)
STAIRS = [name for floor in FLOORS for name in floor.split()]
"""The order of imports, from the ground up: files of the root, and wings, which are folders."""

WINGS = [name for name in STAIRS if (PACKAGE / name).is_dir()]
SMALLEST, LARGEST = 4, 20
"""Modules in a wing: fewer are no room of their own, more are a corridor."""

TORCH_FREE = STAIRS[: STAIRS.index("task")]
"""Pure arithmetic on data: it must run, and be read, without torch."""

ONLY_IN = {
    "optuna": {"search.explore", "search.sampling", "search.storing", "study"},
    "sqlalchemy": {"search.storing", "study"},
    "ray": {"study"},
    "pydantic": {"jsonfile", "study"},
    "plotly": set(),
    "jinja2": {"reports"},
    "typer": {"cli"},
    "click": {"cli"},
    "rich": {"cli", "screen"},
    "mlxtend": {"demo"},
    "sklearn": {"recommender"},
    "tests": set(),
    "benchmarks": set(),
    "studies": set(),
}
"""Who may import what; the last three depend on the package, never the other way round."""

BLIND = {
    "judging.score": {"recipes", "plans"},
    "judging.gate": {"recipes", "plans"},
    "probing.signals": {"recipes", "plans", "initializers", "drawing", "apply"},
    "probing.probe": {"recipes", "plans", "initializers", "drawing", "apply"},
    "probing.recorder": {"recipes", "plans", "initializers", "drawing", "apply"},
    "probing.twins": {"recipes", "plans", "initializers", "drawing", "apply"},
    "probing.rows_apart": {"recipes", "plans", "initializers", "drawing", "apply"},
    "initializers": {"graph", "recipes.recipe", "recipes.space", "plans", "task", "tracing"},
}
"""The judge must not know what it judges; an initializer sees one tensor's facts, never a graph."""

ATTRIBUTES_BY_NAME = {
    "__init__": "public names are loaded on first use",
    "tracing.walk": "autograd keeps what an operation saved in `_saved_*` attributes",
    "factories": "the user names an object as module:callable",
}
"""Modules that may call getattr or hasattr, and why. Registries are explicit dicts instead."""

GLOBAL_RNG = {
    # The demo plays the part of the user, in fork_rng.
    "torch.manual_seed": {"task.snapshot", "probing.probe", "calibrations", "coordinates", "demo"},
    "torch.seed": set(),
    "torch.set_rng_state": {"task.snapshot"},
    "torch.random.set_rng_state": {"task.snapshot"},
    "torch.cuda.manual_seed": {"task.snapshot", "probing.probe"},
    "torch.cuda.manual_seed_all": {"task.snapshot", "probing.probe"},
    "torch.cuda.set_rng_state": {"task.snapshot"},
    "torch.cuda.set_rng_state_all": {"task.snapshot"},
    "torch.mps.manual_seed": {"task.snapshot", "probing.probe"},
    "torch.mps.set_rng_state": {"task.snapshot"},
    "np.random.seed": {"task.snapshot", "probing.probe"},
    "np.random.set_state": {"task.snapshot"},
    "numpy.random.seed": {"task.snapshot", "probing.probe"},
    "numpy.random.set_state": {"task.snapshot"},
    "random.seed": {"task.snapshot", "probing.probe"},
    "random.setstate": {"task.snapshot"},
}
"""Calls that change a global random generator, and who may make them: only what puts it back."""

WHOLE = (
    "calibrations",
    "cli",
    "episodic",
    "executors",
    "findings",
    "inheritance",
    "initializers",
    "knowledge",
    "own",
    "recommender",
    "reports",
    "stacks",
    "study",
)
"""Wings whose files serve one thing and are tested together; of every other wing each module has a test file."""

TESTED_ELSEWHERE: dict[str, str] = {
    "__main__": "cli/test_cli.py",
    "version": "cli/test_cli.py",
    "init": "test_init_functions.py",
    "drawing.given": "inheritance/test_starts.py",
    "plans.adapters": "inheritance/test_adapters.py",
    "plans.beside": "inheritance/test_starts.py",
    "recipes.adapters": "inheritance/test_adapters.py",
    "recipes.growths": "growth/test_methods.py",
    "recipes.inherited": "plans/test_inherited.py",
    "recipes.calibrations": "recipes/test_calibration_rows.py",
    "search.costs": "search/test_finals.py",
    "search.duel": "search/test_finals.py",
    "search.explore": "search/test_funnel.py",
    "task.features": "task/test_task_features.py",
    "tickets.files": "tickets/test_ticket.py",
    "tickets.wearing": "tickets/test_ticket.py",
}
"""Modules without a test file of their own, and where they are tested."""


@dataclass(frozen=True)
class Module:
    """One source file of the package."""

    path: Path

    @property
    def name(self) -> str:
        """Its dotted name below the package; a wing's own name for the wing's `__init__`."""
        return ".".join(self.path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")

    @property
    def step(self) -> str:
        """Its place on the stairs: the file's name in the root, else its wing's."""
        return self.name.partition(".")[0]

    def is_in(self, places: Iterable[str]) -> bool:
        """Whether it is one of these modules, or stands in one of these wings."""
        return bool({self.name, self.step} & set(places))

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
            modules = [f"{path}.{alias.name}" for alias in node.names] if is_folder(path) else [path]
            yield from ((name, node.lineno) for name in modules)


def is_folder(path: str) -> bool:
    """Whether a dotted path is the package or a wing, whose names are modules."""
    top, _, rest = path.partition(".")
    return top == "autoinit" and (not rest or (PACKAGE / rest.replace(".", "/")).is_dir())


def inner(module: Module) -> Iterator[tuple[str, int]]:
    """Yields the dotted name, below the package, of every module of this package that the file imports."""
    for name, line in imports(module):
        top, _, rest = name.partition(".")
        if top == "autoinit":
            yield rest, line


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


def test_every_module_has_its_place_on_the_stairs() -> None:
    steps = {module.step for module in MODULES} - {"__init__"}
    assert sorted(steps ^ set(STAIRS)) == [], "the list names the ground, the wings and the verbs, and nothing else"


@pytest.mark.parametrize("module", **ids)
def test_module_imports_only_from_earlier_steps(module: Module) -> None:
    if module.path == PACKAGE / "__init__.py":
        pytest.skip("lazy names: it imports only the version when it is loaded")
    allowed = {*STAIRS[: STAIRS.index(module.step)], *({module.step} & set(WINGS))}
    wrong = [
        violation(module, line, f"imports {name!r}, which does not stand before {module.step!r}")
        for name, line in inner(module)
        if name.partition(".")[0] not in allowed
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("wing", WINGS)
def test_no_circle_inside_a_wing(wing: str) -> None:
    rooms = {module.name: {name for name, _ in inner(module)} for module in MODULES if module.step == wing}
    assert circle(rooms) == []


def circle(rooms: dict[str, set[str]]) -> list[str]:
    """Returns the rooms from which, by imports, no way leads out of a circle; the first letters of none are equal."""
    left = {room: {other for other in others if other in rooms} for room, others in rooms.items()}
    while free := [room for room, others in left.items() if not others]:
        left = {room: others - set(free) for room, others in left.items() if room not in free}
    return sorted(left)


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    assert circle({"a": {"b", "d"}, "b": {"d"}, "d": set()}) == []


@pytest.mark.parametrize("wing", WINGS)
def test_wing_is_neither_a_closet_nor_a_corridor(wing: str) -> None:
    assert SMALLEST <= len([module for module in MODULES if module.step == wing and module.name != wing]) <= LARGEST
    assert not [path for path in (PACKAGE / wing).iterdir() if path.is_dir() and path.name != "__pycache__"]


@pytest.mark.parametrize("wing", WINGS)
def test_wing_imports_nothing_by_itself(wing: str) -> None:
    """So a module is loaded with what it names, and not with its neighbours."""
    assert list(imports(Module(PACKAGE / wing / "__init__.py"))) == []


@pytest.mark.parametrize("module", [m for m in MODULES if m.step in TORCH_FREE], ids=lambda m: m.name)
def test_torch_free_module_does_not_name_torch(module: Module) -> None:
    """With the stairs in order, no torch-free module can reach torch through another one either."""
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
        if is_of(name, library) and not module.is_in(places)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_library_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = ("demo", "report", "postgres", "ray", "dashboard")
    needs = [*project["dependencies"], *(need for extra in extras for need in project["optional-dependencies"][extra])]
    declared = {re.split(r"[^\w.-]", need)[0].replace("-", "_") for need in needs} | {
        "autoinit",
        "IPython",
    }  # a notebook has that
    declared |= {"sklearn"} if "scikit_learn" in declared else set()
    wrong = [
        violation(module, line, f"imports {name}, which pyproject.toml does not name")
        for module in MODULES
        for name, line in imports(module)
        if name.partition(".")[0] not in declared | sys.stdlib_module_names
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", [m for m in MODULES if m.is_in(BLIND)], ids=lambda m: m.name)
def test_judge_does_not_know_what_it_judges(module: Module) -> None:
    unknown = {name for place in (module.name, module.step) for name in BLIND.get(place, ())}
    wrong = [
        violation(module, line, f"imports {name}, of which {module.name} must know nothing")
        for name, line in inner(module)
        if {name, name.partition(".")[0]} & unknown
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", **ids)
def test_global_random_state_is_left_alone(module: Module) -> None:
    wrong = [
        violation(module, line, f"calls {name}; draw from a torch.Generator instead")
        for name, line in calls(module)
        if name in GLOBAL_RNG and not module.is_in(GLOBAL_RNG[name])
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", **ids)
def test_nothing_is_looked_up_by_attribute_name(module: Module) -> None:
    wrong = [
        violation(module, line, f"calls {name}; use an explicit dict, an annotation or isinstance")
        for name, line in calls(module)
        if name in {"getattr", "hasattr"} and module.name not in ATTRIBUTES_BY_NAME
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", [m for m in MODULES if m.path.name != "__init__.py"], ids=lambda m: m.name)
def test_module_has_a_test_file(module: Module) -> None:
    tests = ROOT / "tests"
    if module.step in WHOLE:
        assert list((tests / module.step).glob("test_*.py")), f"tests/{module.step} has no test"
        return
    *wing, name = module.name.split(".")
    home = TESTED_ELSEWHERE.get(module.name, "/".join([*wing, f"test_{name}.py"]))
    assert (tests / home).exists(), f"autoinit/{module.name} has no tests/{home}"


def test_test_files_have_names_of_their_own() -> None:
    """Without packages in between, two test files of one name would be one module."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_tests_mirror_the_wings() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*WINGS, "benchmarks", "before"}


def test_exceptions_name_modules_that_exist() -> None:
    names = {module.name for module in MODULES} | {"__init__"}
    excepted = {*ATTRIBUTES_BY_NAME, *TESTED_ELSEWHERE, *BLIND, *WHOLE}
    excepted |= {place for places in (*ONLY_IN.values(), *GLOBAL_RNG.values(), *BLIND.values()) for place in places}
    assert sorted(excepted - names) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from .task.task import Task", "autoinit.task.task"),
        ("from . import graph", "autoinit.graph"),
        ("from .task import task", "autoinit.task.task"),
        ("from autoinit import graph", "autoinit.graph"),
        ("from autoinit.task import task", "autoinit.task.task"),
        ("import autoinit.task.task", "autoinit.task.task"),
        ("def f():\n    from .task.task import Task", "autoinit.task.task"),
        ("import torch.nn as nn", "torch.nn"),
    ],
)
def test_every_form_of_import_is_seen(source: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "parsed", lambda path: ast.parse(source))
    assert [name for name, _ in imports(Module(PACKAGE / "graph.py"))] == [found]
