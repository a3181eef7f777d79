"""What a study is to run: its tasks, its space of candidates, and how long everything trains."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from ..errors import did_you_mean
from ..judging.budget import parse_budget
from ..recipes.calibrations import CalibrationName
from ..recipes.catalogue import as_recipe
from ..recipes.recipe import Recipe
from ..recipes.space import LR_STEPS
from .problems import FACTORY, LOSS, NAME, Misplaced, Spec

DIMENSIONS = (
    "base",
    "growth",
    "adapter",
    "rows",
    "log2_gain",
    "depth_slope",
    "branch_power",
    "residual_out",
    "depth_rule",
    "head",
    "head_bias",
    "embedding",
    "qk_log2",
    "attention",
    "recurrent",
    "norms",
    "modulation",
    "calibration",
)
"""Names of every `autoinit.recipes.space.Dimension` of a recipe, in the order of the table."""


def _as_data(value: Any, what: str) -> Any:
    """Returns plain data as they come back from JSON: tuples are lists."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} may hold texts, finite numbers, true, false, lists and tables: {error}.") from None


def _arguments(value: dict[str, Any]) -> Any:
    return _as_data(value, "Arguments")


def _recipe_data(what: object) -> Any:
    """Returns a recipe as a study keeps it, its name or its fields, once it is known to be one."""
    if isinstance(what, Recipe):
        return json.loads(what.to_json())
    if not isinstance(what, (str, dict)):
        raise ValueError(f'A recipe is a name such as "he_normal", or a table of recipe fields. Got {what!r}.')
    _recipe(what)
    return _as_data(what, "A recipe")


def _recipe(what: str | dict[str, Any]) -> Recipe:
    return as_recipe(what) if isinstance(what, str) else Recipe.from_data(what)


def _check_dimension(name: str) -> str:
    if name not in DIMENSIONS:
        raise ValueError(f"There is no dimension {name!r}. {did_you_mean(name, DIMENSIONS)}")
    return name


def _check_budget(budget: str) -> str:
    parse_budget(budget)
    return budget


def _check_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"Each value may stand there once. Twice or more: {', '.join(map(repr, twice))}.")
    return values


def _check_some(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("The list is empty; give one value at least, or leave the key out.")
    return _check_once(values)


def _check_lr_step(step: int) -> int:
    allowed = [place for place in LR_STEPS if place != 0]
    if step not in allowed:
        raise ValueError(f"A place of the learning-rate grid is one of {', '.join(map(str, allowed))}. Got {step}.")
    return step


Name = Annotated[str, Field(pattern=NAME)]
Factory = Annotated[str, Field(pattern=FACTORY, description="module:callable, such as train:make_model")]
NamedLoss = Annotated[str, Field(pattern=LOSS)]
Arguments = Annotated[dict[str, Any], AfterValidator(_arguments)]
Whole = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[int, Field(strict=True, ge=1)]
SearchedGain = Annotated[float, Field(strict=True, ge=-30, le=30)]
RecipeData = Annotated[str | dict[str, Any], BeforeValidator(_recipe_data)]
DimensionName = Annotated[str, Field(json_schema_extra={"enum": [*DIMENSIONS]}), AfterValidator(_check_dimension)]
LrStep = Annotated[int, Field(strict=True), AfterValidator(_check_lr_step)]
BudgetText = Annotated[str, AfterValidator(_check_budget)]
SOME_ONCE = AfterValidator(_check_some)
Files = Annotated[tuple[str, ...], BeforeValidator(lambda files: (files,) if isinstance(files, str) else files)]


OF_DATA = ("data", "data_args", "batch_size", "loss", "step", "optimizer", "optimizer_args")
"""Keys of a task that a training of one's own takes the place of."""


class TaskSpec(Spec):
    """One thing to train: a model, its data, and how it is trained.

    Attributes:
        name: of the task; no two tasks of a study share one.
        family: of the architecture, for tables: "mlp", "resnet".
        dataset: for tables: "digits".
        model: module:callable; called with `model_args`, returns the model.
        model_args: keyword arguments.
        data: module:callable; called with `data_args`, returns the data.
        data_args: keyword arguments.
        batch_size: examples of a batch, where the data are tensors; None for the library's own choice.
        loss: "cross_entropy", "mse", or module:callable, the loss itself; None to have it inferred.
        step: module:callable, the step itself: (model, batch) -> scalar loss.
        optimizer: module:callable; called with the parameters and `optimizer_args`.
        optimizer_args: keyword arguments; the learning rate `lr` is one of them.
        checkpoint: trained weights that the model is loaded with, a file or a folder, beside the study's file where its
            path is relative. What it has stays, and what it lacks is new.
        start: the file of a learned start or a ticket, likewise, or several, each of which is one more candidate.
        source: a trained network of another size, likewise a file or a folder, that candidates may take after.
        train: module:callable, a training of one's own in the place of data, loss and optimizer: a generator
            (model, seed) that yields a number after each step, lower is better.
        example: module:callable, what its architecture is read from: a callable (model) -> scalar that touches every
            part. None for the module tree.
        validation: module:callable (model, part) -> the held-back value of that training, or several; written
            `validate`, which is a word of pydantic's own.
    """

    model_config = ConfigDict(
        validate_by_name=True,
        validate_by_alias=True,
        json_schema_extra={"anyOf": [{"required": ["data"]}, {"required": ["train"]}]},
    )

    name: Name
    family: str = ""
    dataset: str = ""
    model: Factory
    model_args: Arguments = Field(default_factory=dict)
    data: Factory | None = None
    data_args: Arguments = Field(default_factory=dict)
    batch_size: Positive | None = None
    loss: NamedLoss | None = None
    step: Factory | None = None
    optimizer: Factory = "torch.optim:AdamW"
    optimizer_args: Arguments = Field(default_factory=dict)
    checkpoint: str | None = None
    source: str | None = None
    start: Files = ()
    train: Factory | None = None
    example: Factory | None = None
    validation: Factory | None = Field(default=None, alias="validate")

    @model_validator(mode="after")
    def _check(self) -> TaskSpec:
        if self.train is None and self.data is None:
            raise Misplaced("it is missing; give data to train on, or train, a training of your own.", "data")
        fields = TaskSpec.model_fields
        usual = {name: fields[name].get_default(call_default_factory=True) for name in OF_DATA}
        given = [name for name, value in self if name in usual and value != usual[name]]
        if self.train is not None and given:
            beside = ", ".join(given)
            raise Misplaced(f"train makes its batches, losses and optimizers itself; leave out {beside}.", "train")
        if self.train is None and (self.example is not None or self.validation is not None):
            alone = "example" if self.example is not None else "validate"
            raise Misplaced(f"{alone} belongs to train, which is not given.", alone)
        if self.loss is not None and self.step is not None:
            raise Misplaced("Give loss or step, not both: a step computes its own loss.", "step")
        lr = self.optimizer_args.get("lr")
        if lr is not None and not (_is_number(lr) and math.isfinite(lr) and lr > 0):
            raise Misplaced(f"lr must be a positive number. Got {lr!r}.", "optimizer_args", "lr")
        return self


def _check_names(tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
    if not tasks:
        raise ValueError("A study needs one task at least.")
    seen: set[str] = set()
    for number, task in enumerate(tasks):
        if task.name in seen:
            raise Misplaced(f"Two tasks are called {task.name!r}; give each a name of its own.", number, "name")
        seen.add(task.name)
    return tasks


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class SpaceSpec(Spec):
    """Which candidates are tried on every task, beside as-is.

    Attributes:
        recipes: by name, or as a mapping of recipe fields.
        opening: whether the library's own first candidates of each architecture are tried too.
        random: how many seeded random points of each task's space are tried too.
        dimensions: of the random points and of a search; None for all that the architecture has.
        gain: the range of log2_gain; None for the whole one.
        calibrations: allowed ones; None for all.
    """

    recipes: tuple[RecipeData, ...] = ()
    opening: bool = Field(default=False, strict=True)
    random: Whole = 0
    dimensions: Annotated[tuple[DimensionName, ...], SOME_ONCE] | None = None
    gain: tuple[SearchedGain, SearchedGain] | None = None
    calibrations: Annotated[tuple[CalibrationName, ...], SOME_ONCE] | None = None

    @model_validator(mode="after")
    def _check(self) -> SpaceSpec:
        if self.gain is not None and not self.gain[0] <= self.gain[1]:
            raise Misplaced(f"gain is a range, the lower end first. Got {list(self.gain)}.", "gain")
        return self

    @property
    def chosen(self) -> tuple[Recipe, ...]:
        """The recipes that `recipes` names, each once, in their order."""
        return tuple(dict.fromkeys(_recipe(what) for what in self.recipes))


class ProbeSpec(Spec):
    """The short training that each candidate gets.

    Attributes:
        steps: of its whole length.
        rungs: steps before that, in growing order, at which the held-back loss is measured.
    """

    steps: Positive = 200
    rungs: tuple[Positive, ...] = (20, 50, 100)

    @model_validator(mode="before")
    @classmethod
    def _shorten(cls, data: Any) -> Any:
        """Leaves out default rungs that a shorter probe never reaches."""
        if isinstance(data, dict) and "rungs" not in data and type(data.get("steps")) is int:
            return {**data, "rungs": tuple(rung for rung in (20, 50, 100) if rung < data["steps"])}
        return data

    @model_validator(mode="after")
    def _check(self) -> ProbeSpec:
        if list(self.rungs) != sorted(set(self.rungs)) or (self.rungs and self.rungs[-1] > self.steps):
            found = f"Got {list(self.rungs)}."
            raise Misplaced(f"rungs must grow and end at steps = {self.steps} at most. {found}", "rungs")
        return self


class LongSpec(Spec):
    """The long training that as-is and the best candidates get, on every seed.

    Attributes:
        steps: its length.
        top: how many of the best candidates get it.
    """

    steps: Positive
    top: Positive = 3


class Study(Spec):
    """All that a study runs.

    A study is made from Python, with keyword arguments of plain data, or written as a TOML file, and is run by
    `autoinit.run_study` or `autoinit study run FILE`. It says which tasks are trained, from which candidates, how long
    and with which seeds; what cannot be run is refused when it is made, with an `ArgumentError` that names the key.
    Only name and tasks are required, beside something to compare with as-is in the space.

    Attributes:
        name: the study's name, in its storage too.
        description: a text for people.
        tasks: what is trained: name, model and data of each task, and how it is trained.
        space: the candidates: recipes, the library's own first ones, random ones.
        seeds: seeds of the trials: each candidate is trained once with each.
        lr_steps: further places of the learning-rate grid, on the first seed only.
        mode: "dense": every candidate on every task; "search": Optuna proposes.
        trials: number of candidates of a search, for each task.
        batch: number of candidates that a search asks for at a time.
        probe: the short training.
        long: the long training; None for none.
        stack: number of candidates trained in lockstep in one worker.
        budget: wall time of a run, such as "8h"; None for no limit.
        timeout: wall time of a trial, such as "10m", after which its worker counts as hung; None for no limit.
        storage: Optuna's URL; None for an SQLite file beside the study file.
        executor: where trials run.
        workers: how many at a time; None for as many as the machine takes.
        threads: threads of torch in each worker.
    """

    name: Name
    description: str = ""
    tasks: Annotated[tuple[TaskSpec, ...], AfterValidator(_check_names)] = Field(json_schema_extra={"minItems": 1})
    space: SpaceSpec = Field(default_factory=SpaceSpec)
    seeds: Annotated[tuple[Whole, ...], SOME_ONCE] = (0,)
    lr_steps: Annotated[tuple[LrStep, ...], AfterValidator(_check_once)] = ()
    mode: Literal["dense", "search"] = "dense"
    trials: Positive | None = None
    batch: Positive = 8
    probe: ProbeSpec = Field(default_factory=ProbeSpec)
    long: LongSpec | None = None
    stack: Positive = 1
    budget: BudgetText | None = None
    timeout: BudgetText | None = "1h"
    storage: str | None = None
    executor: Literal["local", "ray"] = "local"
    workers: Positive | None = None
    threads: Positive = 1

    @model_validator(mode="after")
    def _check(self) -> Study:
        own = next((task.name for task in self.tasks if task.train is not None), None)
        if own is not None and self.lr_steps:
            raise Misplaced(f"{own} trains by its own train, whose learning rate nobody else sets.", "lr_steps")
        if self.mode == "search" and self.trials is None:
            raise Misplaced('mode = "search" needs trials, the number of candidates for each task.', "mode")
        if self.mode == "dense" and self.trials is not None:
            raise Misplaced(
                'trials is for mode = "search"; a dense study tries every candidate of its space.', "trials"
            )
        if self.mode == "dense" and not (self.space.recipes or self.space.opening or self.space.random):
            raise Misplaced(
                "A dense study has nothing to compare with as-is; give recipes, opening = true or random.", "space"
            )
        return self
