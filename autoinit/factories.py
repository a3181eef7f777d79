"""What the user names as `module:callable`: found, called, and blamed for what it raises."""

from __future__ import annotations

import functools
import importlib
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import AutoInitError, FactoryError, did_you_mean


def named(spec: str, what: str, folders: Iterable[Path] = ()) -> Any:
    """Returns the object that `module:callable` names; the current folder is importable.

    Args:
        spec: "train:make_model"; after the colon there may be dots: "train:Models.small".
        what: the option or key where it was given, for messages.
        folders: further folders to import from, tried after the current one.

    Raises:
        FactoryError: where the module cannot be imported or holds no such callable.
    """
    name, colon, path = spec.partition(":")
    if not (name and colon and path):
        raise FactoryError(f"{what} is {spec!r}; give module:callable, such as train:make_model.")
    if "/" in name or name.endswith(".py"):
        module = name.removesuffix(".py").replace("/", ".")
        raise FactoryError(f"{what} is {spec!r}; name the module and not its file: {module}:{path}.")
    target = functools.reduce(
        lambda owner, part: _attribute(owner, part, spec, what), path.split("."), _module(name, what, folders)
    )
    if not callable(target):
        raise FactoryError(f"{what} {spec} is a {type(target).__name__}; name a callable that returns it.")
    return target


def called(spec: str, what: str, arguments: Mapping[str, Any] | None = None, folders: Iterable[Path] = ()) -> Any:
    """Returns what the callable named `spec` returns.

    Args:
        spec: module:callable.
        what: the option or key where it was given, for messages.
        arguments: keyword arguments; None for none.
        folders: further folders to import from.

    Raises:
        FactoryError: where it cannot be found, or raises; an error of this package goes through as it is.
    """
    folders = tuple(folders)
    factory = named(spec, what, folders)
    try:
        return factory(**(arguments or {}))
    except AutoInitError:
        raise
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in (arguments or {}).items())
        how = f"({given})" if given else " without arguments"
        raise FactoryError(blame(f"{what}: calling {spec}{how}", error, folders)) from error


def blame(doing: str, error: Exception, folders: Iterable[Path] = ()) -> str:
    """Returns what was done, what it raised, and the line of the user's code that raised it.

    Args:
        doing: in words: "--data: calling train:batches".
        error: as it was caught, with its traceback.
        folders: where the user's code is, beside the current folder.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    homes = [Path.cwd(), *(folder.resolve() for folder in folders)]
    own = [frame for frame in frames if _is_own(Path(frame.filename), homes)] or frames
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{doing} raised {type(error).__name__}: {error}{place}"


def importable(folders: Iterable[Path]) -> None:
    """Makes modules in the current folder, and in these, importable; a folder stays so in this process.

    Args:
        folders: the first has precedence; the current one stands before them all.
    """
    wanted = [str(Path.cwd()), *(str(folder.resolve()) for folder in folders)]
    missing = [folder for folder in dict.fromkeys(wanted) if folder not in sys.path]
    sys.path[:0] = missing


def _module(name: str, what: str, folders: Iterable[Path]) -> object:
    folders = tuple(folders)
    importable(folders)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise FactoryError(blame(f"{what}: importing {name}", error, folders)) from error
        places = ", ".join(dict.fromkeys(str(folder.resolve()) for folder in (Path.cwd(), *folders)))
        raise FactoryError(
            f"{what}: there is no module {name!r} in {places} or among the installed packages."
        ) from error
    except Exception as error:
        raise FactoryError(blame(f"{what}: importing {name}", error, folders)) from error


def _attribute(owner: object, part: str, spec: str, what: str) -> object:
    if not hasattr(owner, part):
        known = [name for name in dir(owner) if not name.startswith("_")]
        raise FactoryError(f"{what} {spec}: there is no {part!r}. {did_you_mean(part, known)}")
    return getattr(owner, part)


def _is_machinery(filename: str) -> bool:
    """Whether a frame is of this package or of Python's import system, where no user looks for a mistake."""
    folders = (Path(__file__).parent, Path(importlib.__file__).parent)
    return filename.startswith("<frozen") or any(folder in Path(filename).parents for folder in folders)


def _is_own(path: Path, folders: Iterable[Path]) -> bool:
    return "site-packages" not in path.parts and any(path.is_relative_to(folder) for folder in folders)
