"""Grids: many tasks of a study in few lines."""

from __future__ import annotations

from pydantic import Field

from .problems import Spec
from .spec import Arguments, Factory, Name, NamedLoss, Positive, TaskSpec


class ModelEntry(Spec):
    """One model of a grid.

    Attributes:
        name: first part of the names of its tasks.
        family: of the architecture, for tables; the name where left out.
        takes: the kinds of data that it fits; None for all.
        model: see `TaskSpec`, as the fields below.
        model_args: beside those that the data give; these win over them.
        batch_size: in the place of the data's.
        loss: in the place of the data's, as `step`.
        step: the two exclude each other.
    """

    name: Name
    family: str = ""
    takes: str | tuple[str, ...] | None = None
    model: Factory
    model_args: Arguments = Field(default_factory=dict)
    batch_size: Positive | None = None
    loss: NamedLoss | None = None
    step: Factory | None = None

    def fits(self, data: DataEntry) -> bool:
        """Whether this model can be trained on these data."""
        kinds = (self.takes,) if isinstance(self.takes, str) else self.takes
        return kinds is None or data.kind is None or data.kind in kinds


class DataEntry(Spec):
    """One data set of a grid.

    Attributes:
        name: second part of the names of its tasks.
        dataset: for tables; the name where left out.
        kind: what a model must take; None for what every model takes.
        gives: arguments of the model that follow from the data: features = 64.
        data: see `TaskSpec`, as the fields below.
        data_args: keyword arguments.
        batch_size: examples of a batch.
        loss: of every model that has none of its own.
        step: the same.
    """

    name: Name
    dataset: str = ""
    kind: str | None = None
    gives: Arguments = Field(default_factory=dict)
    data: Factory
    data_args: Arguments = Field(default_factory=dict)
    batch_size: Positive | None = None
    loss: NamedLoss | None = None
    step: Factory | None = None


class OptimizerEntry(Spec):
    """One optimizer of a grid.

    Attributes:
        name: last part of the names of its tasks.
        optimizer: see `TaskSpec`.
        optimizer_args: keyword arguments.
    """

    name: Name
    optimizer: Factory = "torch.optim:AdamW"
    optimizer_args: Arguments = Field(default_factory=dict)


class Grid(Spec):
    """Every model on all data that fit it, with every optimizer.

    Attributes:
        models: the first factor.
        data: the second.
        optimizers: the third.
    """

    models: tuple[ModelEntry, ...] = Field(min_length=1)
    data: tuple[DataEntry, ...] = Field(min_length=1)
    optimizers: tuple[OptimizerEntry, ...] = Field(min_length=1)

    def tasks(self) -> tuple[TaskSpec, ...]:
        """Returns the tasks, named "model.data.optimizer"; models that do not fit the data are skipped."""
        return tuple(
            _task(model, data, optimizer)
            for model in self.models
            for data in self.data
            if model.fits(data)
            for optimizer in self.optimizers
        )


def _task(model: ModelEntry, data: DataEntry, optimizer: OptimizerEntry) -> TaskSpec:
    judge = model if model.loss or model.step else data
    return TaskSpec(
        name=f"{model.name}.{data.name}.{optimizer.name}",
        family=model.family or model.name,
        dataset=data.dataset or data.name,
        model=model.model,
        model_args={**data.gives, **model.model_args},
        data=data.data,
        data_args=data.data_args,
        batch_size=model.batch_size or data.batch_size,
        loss=judge.loss,
        step=judge.step,
        optimizer=optimizer.optimizer,
        optimizer_args=optimizer.optimizer_args,
    )
