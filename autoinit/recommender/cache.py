"""A fitted recommender as a file, and in the user's cache folder: arrays and one JSON text, nothing pickled."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AutoInitError, KnowledgeError
from ..knowledge.features import FEATURES
from ..knowledge.files import shipped, shipped_hash
from ..knowledge.tables import Knowledge
from ..recipes.recipe import Recipe
from ..version import __version__
from .forest import Forest
from .informed import Informed
from .learner import Learner
from .model import Recommender

FORMAT = 5
"""Of a recommender's file."""
KIND = "autoinit recommender"
FOLDER_VARIABLE = "AUTOINIT_CACHE"
MOST_KEPT = 4
"""Files in the cache folder, some megabytes each; the ones unused for longest go first."""
SHIPPED = "shipped.npz"
"""The recommender fitted to the shipped knowledge, which comes with the package."""

Arrays = dict[str, NDArray[np.generic]]


# As a file


def save(recommender: Recommender, path: str | os.PathLike[str]) -> None:
    """Writes a fitted recommender to a file, whole or not at all.

    Args:
        recommender: to keep.
        path: ends in ".npz".

    Raises:
        KnowledgeError: it cannot be written.
    """
    target = Path(path)
    try:
        _write(recommender, target)
    except OSError as problem:
        raise KnowledgeError(
            f"{target} cannot be written ({problem.strerror or problem}). Give a path in a folder that exists."
        ) from None


def load(path: str | os.PathLike[str]) -> Recommender:
    """Returns what `save` wrote.

    Raises:
        KnowledgeError: it cannot be read, was damaged, is another kind of file, or was written by another version.
    """
    source = Path(path)
    try:
        with source.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # closed where it is damaged too
            arrays: Arrays = {name: file[name] for name in file.files}
        head = json.loads(arrays["head"].tobytes())
        _check_head(head, source)
        values = {name: _decoded(data, arrays) for name, data in head["fields"].items()}
        return Recommender(**values)
    except KnowledgeError:
        raise
    except (*_UNREADABLE, AutoInitError) as problem:
        raise KnowledgeError(f"{source} cannot be read as a fitted recommender ({problem}). {_REMEDY}") from None


_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error)
_REMEDY = "Make it anew with `autoinit recommender fit`."


def _write(recommender: Recommender, target: Path) -> None:
    arrays: Arrays = {}
    head = {
        "kind": KIND,
        "format": FORMAT,
        "autoinit": __version__,
        "features": _features_hash(),
        "fields": {one.name: _encoded(recommender.__dict__[one.name], one.name, arrays) for one in fields(recommender)},
    }
    arrays["head"] = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    # A name of its own, so that two processes that write at once do not mix.
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        os.chmod(part, 0o644)
        os.replace(part, target)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _check_head(head: Mapping[str, Any], source: Path) -> None:
    if head["kind"] != KIND:
        raise KnowledgeError(f"{source} is a {head['kind']!r} and no fitted recommender. {_REMEDY}")
    same = head["format"] == FORMAT and head["features"] == _features_hash()
    if not same or set(head["fields"]) != {one.name for one in fields(Recommender)}:
        raise KnowledgeError(
            f"{source} was written by autoinit {head['autoinit']}, in another form than that of this one, "
            f"{__version__}. {_REMEDY}"
        )


_KINDS: dict[str, type] = {"forest": Forest, "learner": Learner, "informed": Informed}
"""What holds arrays, by its name in a file."""


def _encoded(value: Any, name: str, arrays: Arrays) -> Any:
    """Returns a value as JSON-ready data; its arrays are put beside it, by name."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name, "type": str(value.dtype)}
    if isinstance(value, tuple(_KINDS.values())):
        kind = next(name for name, of in _KINDS.items() if isinstance(value, of))
        return {kind: {key: _encoded(part, f"{name}.{key}", arrays) for key, part in value.__dict__.items()}}
    if isinstance(value, Recipe):
        return {"recipe": json.loads(value.to_json())}
    if isinstance(value, tuple):
        return {"tuple": [_encoded(part, f"{name}.{place}", arrays) for place, part in enumerate(value)]}
    return value


def _decoded(data: Any, arrays: Arrays) -> Any:
    if not isinstance(data, dict):
        return data
    if "array" in data:
        return arrays[data["array"]].astype(data["type"], copy=False)
    for kind, made in _KINDS.items():
        if kind in data:
            return made(**{name: _decoded(part, arrays) for name, part in data[kind].items()})
    if "recipe" in data:
        return Recipe.from_data(data["recipe"])
    return tuple(_decoded(part, arrays) for part in data["tuple"])


# In the cache folder


@functools.cache
def default() -> Recommender:
    """Returns the recommender fitted to the shipped knowledge, kept in the process.

    It comes with the package. Where that file is damaged, or of other knowledge or features than the package has, it
    is fitted anew and kept in the cache folder.
    """
    wanted = shipped_hash()
    with contextlib.suppress(KnowledgeError), resources.as_file(resources.files(__package__) / SHIPPED) as path:
        if (found := load(path)).source == wanted:
            return found
    return cached(wanted, shipped)


def fitted(knowledge: Knowledge) -> Recommender:
    """Returns the recommender fitted to some knowledge: from the cache folder, or fitted and put there.

    Raises:
        KnowledgeError: it holds too few tasks.
    """
    return cached(knowledge.hash, lambda: knowledge)


def cached(source: str, knowledge: Callable[[], Knowledge]) -> Recommender:
    """Returns the recommender fitted to knowledge of a hash, which is only read where the cache has none.

    A damaged file is replaced. Where the folder cannot be written to, there is a warning, and nothing is kept.

    Args:
        source: the knowledge's hash.
        knowledge: reads it.
    """
    path = folder() / f"recommender-{cache_key(source)}.npz"
    try:
        found = load(path)
        if found.source == source:
            return found
    except KnowledgeError:
        pass  # there is none yet, or it is damaged
    made = Recommender.fit(knowledge())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(made, path)
        _prune(path.parent)
    except OSError as problem:
        warnings.warn(
            f"The fitted recommender could not be kept in {path.parent} ({problem.strerror or problem}), so it will be "
            f"fitted again. Set {FOLDER_VARIABLE} to a folder that can be written to.",
            UserWarning,
            stacklevel=2,
        )
    return made


def folder() -> Path:
    """Returns the folder in which fitted recommenders are kept: `AUTOINIT_CACHE`, else the platform's cache folder."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given)
    home = Path(os.path.expanduser("~"))
    usual = {"darwin": home / "Library" / "Caches", "win32": home / "AppData" / "Local"}
    base = os.environ.get("XDG_CACHE_HOME") or usual.get(sys.platform, home / ".cache")
    return Path(base) / "autoinit"


def cache_key(source: str) -> str:
    """Returns a hash of all that decides how a recommender is fitted: knowledge, versions, features, and the code.

    Args:
        source: the knowledge's hash.
    """
    told = [source, __version__, str(FORMAT), np.__version__, _installed("scikit-learn"), _features_hash(), _code()]
    return _hash("\n".join(told))


def _installed(distribution: str) -> str:
    """Returns a version without importing the library, which takes a second."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _code() -> str:
    """Returns a hash of this folder's modules, so that a change of them does not meet what they fitted before."""
    here = sorted((item for item in resources.files(__package__).iterdir()), key=lambda item: item.name)
    return _hash("".join(item.read_text(encoding="utf-8") for item in here if item.name.endswith(".py")))


def _features_hash() -> str:
    return _hash(json.dumps(FEATURES))  # with their meaning: a feature of another meaning is another feature


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _prune(place: Path) -> None:
    """Removes what was kept longest ago, beyond a few."""
    files = sorted(place.glob("recommender-*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[MOST_KEPT:]:
        path.unlink(missing_ok=True)
