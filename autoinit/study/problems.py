"""Base of what a study is written in, and what is wrong with it in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import ArgumentError, did_you_mean

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

NAME = r"^[A-Za-z0-9_.+-]+$"
FACTORY = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$"
LOSS = rf"^(cross_entropy|mse|{FACTORY[1:-1]})$"
_ALLOWED = {
    NAME: "letters, digits and _ . + -",
    FACTORY: "module:callable, such as train:make_model",
    LOSS: '"cross_entropy", "mse", or module:callable',
}
"""What each pattern says, in words."""


class Misplaced(ValueError):
    """A problem of several fields together.

    Attributes:
        path: of the field that is named for it, from where the problem is found.
    """

    def __init__(self, message: str, *path: int | str) -> None:
        super().__init__(message)
        self.path = path


class _Raising(ModelMetaclass):
    """Makes `Study(...)` raise the package's own error; inside pydantic, problems keep their places."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except ValidationError as problem:
            details = "; ".join(str(found).rstrip(".") for found in problems(problem, cast("type[BaseModel]", cls))[:3])
            raise ArgumentError(f"This is not a valid {cls.__name__}: {details}.") from problem


class Spec(BaseModel, metaclass=_Raising):
    """Base of all parts of a study: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at one place.

    Attributes:
        path: of the place: ("tasks", 1, "model").
        found: what stands there.
        message: in plain words.
    """

    path: tuple[int | str, ...]
    found: Any
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message


def dotted(path: tuple[int | str, ...]) -> str:
    """Returns a path as people write it: "tasks[1].model"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def problems(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Returns what pydantic found wrong with the data of `model`, in plain words."""
    found = []
    for item in error.errors(include_url=False):
        path, cause = item["loc"], item.get("ctx", {}).get("error")
        if isinstance(cause, Misplaced):
            path = (*path, *cause.path)
        found.append(Problem(path, item.get("input"), _told(item, model)))
    return found


def _told(item: Mapping[str, Any], model: type[BaseModel]) -> str:
    kind, found, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return "it is missing."
    if kind == "extra_forbidden":
        *parent, key = item["loc"]
        return f"there is no such key. {did_you_mean(str(key), _owner(model, parent).model_fields)}"
    if kind == "string_pattern_mismatch":
        return f"Got {found!r}. Allowed: {_ALLOWED[context['pattern']]}."
    if kind == "literal_error":
        return f"Got {found!r}. Allowed: {context['expected']}."
    return f"Got {found!r}. {item['msg']}."


def _owner(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """Returns the model at a path of fields, through optional ones and tuples."""
    for part in path:
        if isinstance(part, str):
            model = _inside(model.model_fields[part].annotation)
    return model


def _inside(kind: Any) -> Any:
    """Returns the model in an annotation such as `tuple[Model, ...] | None`."""
    if isinstance(kind, type) and not get_args(kind):
        return kind if issubclass(kind, BaseModel) else None
    return next((model for part in get_args(kind) if (model := _inside(part))), None)
