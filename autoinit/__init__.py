"""Chooses the initial weights of a PyTorch model by short training probes.

    selection = autoinit.select(model, data, optimizer=make_optimizer, budget="60s")
    print(selection)                  # the reason, the gain, what was tried; the model has the weights
    selection.save("init.json")       # autoinit.apply_(model, "init.json") sets them elsewhere

What to call; `help(autoinit.select)` and so on say the rest:

    select            chooses the weights of a model by short trainings, and sets them
    diagnose          says what is the matter with a model as it is, by one forward and backward pass
    recommend         names what suits a model, by what was learned from others, without a training step
    apply_            sets the weights of a model by a recipe's name, a recipe, a plan or a selection
    inherit_          sets a model's weights from a trained network of another size
    rows_, head_      set the new rows of a trained table; a new head on a trained body
    renew_            brings weights back that have become stale
    ticket            chooses which of a model's weights are trained at all: a lottery ticket
    meta_learn        learns a start from many small tasks; evaluate_episodes says how far one comes in a few steps
    episodes          makes such tasks from labelled rows
    restore_          gives trained weights back what a start of adapters took from them
    catalogue         lists every initialization that has a name
    report            writes a page about a selection, a diagnosis or a study
    trace, resolve    read a model's architecture; tell what a recipe would do to it
    smaller           makes a small model of the same kind, on which to choose for a large one
    coordinate_check  says whether a model's learning rate carries over to other widths
    run_study         runs many tasks and candidates, resumable
    init, testing     draws as functions of one tensor; a suite for draws of your own

What comes back or is passed: Selection, Diagnosis, Finding, Recommendation, CoordinateCheck, Plan (of Fill), Graph
(of Layer), Recipe, Renewal, Ticket, LearnedStart, Budget, Step, Task, Recommender, Study. Every error is an
AutoInitError: ArgumentError, BudgetError, CalibrationError, DataError, DeviceError, FactoryError, KnowledgeError,
ModelError, OptimizerError, PlanFileError, PlanMismatchError, RecipeError, SourceError, StepError, StorageError.

Public names are loaded on first use, so that `import autoinit` loads neither torch nor optuna nor pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .version import __version__ as __version__

if TYPE_CHECKING:
    from . import init as init
    from . import testing as testing
    from .apply import apply_ as apply_
    from .coordinates import CoordinateCheck as CoordinateCheck
    from .coordinates import coordinate_check as coordinate_check
    from .diagnosis import Diagnosis as Diagnosis
    from .diagnosis import diagnose as diagnose
    from .episodic.learned import LearnedStart as LearnedStart
    from .episodic.sampling import episodes as episodes
    from .errors import ArgumentError as ArgumentError
    from .errors import AutoInitError as AutoInitError
    from .errors import BudgetError as BudgetError
    from .errors import CalibrationError as CalibrationError
    from .errors import DataError as DataError
    from .errors import DeviceError as DeviceError
    from .errors import FactoryError as FactoryError
    from .errors import KnowledgeError as KnowledgeError
    from .errors import ModelError as ModelError
    from .errors import OptimizerError as OptimizerError
    from .errors import PlanFileError as PlanFileError
    from .errors import PlanMismatchError as PlanMismatchError
    from .errors import RecipeError as RecipeError
    from .errors import SourceError as SourceError
    from .errors import StepError as StepError
    from .errors import StorageError as StorageError
    from .findings.finding import Finding as Finding
    from .graph import Graph as Graph
    from .graph import Layer as Layer
    from .inherit import head_ as head_
    from .inherit import inherit_ as inherit_
    from .inherit import restore_ as restore_
    from .inheritance.rows import rows_ as rows_
    from .judging.budget import Budget as Budget
    from .lottery import ticket as ticket
    from .meta_learning import evaluate_episodes as evaluate_episodes
    from .meta_learning import meta_learn as meta_learn
    from .own.training import Step as Step
    from .plans.fill import Fill as Fill
    from .plans.plan import Plan as Plan
    from .plans.rules import resolve as resolve
    from .proxies.miniatures import smaller as smaller
    from .recipes.catalogue import catalogue as catalogue
    from .recipes.recipe import Recipe as Recipe
    from .recommendation import recommend as recommend
    from .recommender.answer import Recommendation as Recommendation
    from .recommender.model import Recommender as Recommender
    from .renew import renew_ as renew_
    from .renewal.dormant import Renewal as Renewal
    from .reports.reporting import report as report
    from .search.selection import Selection as Selection
    from .selector import select as select
    from .study.runner import run_study as run_study
    from .study.spec import Study as Study
    from .task.task import Task as Task
    from .tickets.ticket import Ticket as Ticket
    from .tracing.tracing import trace as trace

_HOMES = {
    "catalogue": "recipes.catalogue",
    "ArgumentError": "errors",
    "AutoInitError": "errors",
    "Budget": "judging.budget",
    "BudgetError": "errors",
    "CalibrationError": "errors",
    "CoordinateCheck": "coordinates",
    "DataError": "errors",
    "DeviceError": "errors",
    "Diagnosis": "diagnosis",
    "FactoryError": "errors",
    "Fill": "plans.fill",
    "Finding": "findings.finding",
    "Graph": "graph",
    "Layer": "graph",
    "KnowledgeError": "errors",
    "LearnedStart": "episodic.learned",
    "ModelError": "errors",
    "OptimizerError": "errors",
    "Plan": "plans.plan",
    "PlanFileError": "errors",
    "PlanMismatchError": "errors",
    "Recipe": "recipes.recipe",
    "RecipeError": "errors",
    "Recommendation": "recommender.answer",
    "Recommender": "recommender.model",
    "Renewal": "renewal.dormant",
    "Selection": "search.selection",
    "SourceError": "errors",
    "Step": "own.training",
    "StepError": "errors",
    "StorageError": "errors",
    "Study": "study.spec",
    "Task": "task.task",
    "Ticket": "tickets.ticket",
    "apply_": "apply",
    "coordinate_check": "coordinates",
    "diagnose": "diagnosis",
    "episodes": "episodic.sampling",
    "evaluate_episodes": "meta_learning",
    "head_": "inherit",
    "inherit_": "inherit",
    "meta_learn": "meta_learning",
    "recommend": "recommendation",
    "report": "reports.reporting",
    "resolve": "plans.rules",
    "restore_": "inherit",
    "renew_": "renew",
    "rows_": "inheritance.rows",
    "run_study": "study.runner",
    "select": "selector",
    "smaller": "proxies.miniatures",
    "ticket": "lottery",
    "trace": "tracing.tracing",
}
"""Public name → the module it lives in."""

_MODULES = ("init", "testing")
"""Modules that are public as a whole."""

if not TYPE_CHECKING:  # a type checker that saw this function would accept any misspelt name

    def __getattr__(name: str) -> object:
        """Returns the public object called `name`, importing its module on first use."""
        from importlib import import_module
        from warnings import catch_warnings, filterwarnings

        if name in _MODULES:
            return import_module(f".{name}", __name__)
        if name not in _HOMES:
            public = ", ".join([*_HOMES, *_MODULES])
            raise AttributeError(f"module 'autoinit' has no attribute {name!r}. Public names: {public}.")
        with catch_warnings():
            # In a notebook without widgets tqdm, which Optuna loads, warns of a bar that is never shown.
            filterwarnings("ignore", "IProgress not found")
            value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Returns the public names, for completion in a shell."""
    return sorted([*_HOMES, *_MODULES, "__version__"])
