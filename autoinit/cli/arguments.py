"""What the words of a command name: models, losses, numbers and paths, each refused with the option it came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from ..errors import FactoryError, RecipeError
from ..factories import blame, called, named

if TYPE_CHECKING:  # it takes seconds to load
    from torch import nn


def model_of(spec: str) -> nn.Module:
    """Returns the model that `module:callable` makes."""
    made = called(spec, "MODEL")
    from torch import nn

    if not isinstance(made, nn.Module):
        raise FactoryError(f"MODEL {spec} returned a {type(made).__name__}; it must return a torch.nn.Module.")
    return made


def sized_model_of(spec: str) -> Callable[[int], nn.Module]:
    """Returns a callable that makes the model of a width."""
    factory = named(spec, "MODEL")

    def make(width: int) -> nn.Module:
        try:
            return cast("nn.Module", factory(width))
        except Exception as error:
            raise FactoryError(blame(f"MODEL: calling {spec} with the width {width}", error)) from error

    return make


def whole_numbers(text: str, option: str) -> list[int]:
    """Returns the numbers of a list such as 64,128,256."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of whole numbers such as 64,128.", param_hint=option) from None


def loss_of(spec: str | None) -> Any:
    """Returns the loss that `spec` names; a class, such as torch.nn:MSELoss, stands for its instance."""
    loss = named(spec, "--loss") if spec else None
    return called(spec, "--loss") if spec and isinstance(loss, type) else loss


def learning_rate(value: str | None) -> float | str | None:
    """Returns a learning rate: a number, "search", or None where none is given."""
    if value is None or value == "search":
        return value
    try:
        return float(value)
    except ValueError:
        raise typer.BadParameter(f'{value!r} is neither a number nor "search".', param_hint="--lr") from None


def check_folder(path: Path | None, option: str) -> None:
    """Refuses an output path in a folder that is not there before the search is paid for."""
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(path.parent)!r}.", param_hint=option)


def check_calibration(what: str, data: str | None) -> None:
    """Asks for the data of a recipe that is calibrated on them before the model is built."""
    from ..recipes.catalogue import NAMED, entry_name

    recipe = NAMED.get(entry_name(what))
    if recipe is not None and recipe.calibration != "none" and data is None:
        raise RecipeError(f"{what!r} is calibrated on data; add --data module:callable.")
