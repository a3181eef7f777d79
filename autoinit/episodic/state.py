"""The state of an unfinished learning in a file, and whether it is that of the learning which is asked for."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import DataError, SourceError
from ..task.assign import digest
from ..text import few
from ..version import __version__
from . import files
from .learning import Progress
from .settings import Settings
from .stream import Stream

KIND = "the state of an unfinished learning"


class State:
    """A file that a learning writes its state to, and goes on from.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path, model: nn.Module, settings: Settings) -> None:
        """Reads nothing yet; the model is as its owner made it."""
        self.path = path
        self._identity = {**dataclasses.asdict(settings), **_identity(model)}

    def write(self, progress: Progress) -> None:
        """Writes how far it is, whole or not at all."""
        facts = {
            "identity": self._identity,
            "rounds": progress.rounds,
            "history": progress.history,
            "last": progress.last,
            "autoinit": __version__,
        }
        adam = {f"adam.{key}": named for key, named in progress.adam.items()}
        files.write(self.path, KIND, facts, {"weights": progress.weights, "buffers": progress.buffers, **adam})

    def read(self, fresh: Progress, stream: Stream) -> Progress:
        """Returns how far it is: the fresh one where there is no file; the stream then stands behind the last episode.

        Raises:
            SourceError: the file is damaged, or of another model, method or settings.
            DataError: tasks do not give the episodes that they gave before.
        """
        if not self.path.exists():
            return fresh
        facts, parts = files.read(self.path, KIND)
        self._check(facts.get("identity"))
        adam = {key.removeprefix("adam."): named for key, named in parts.items() if key.startswith("adam.")}
        try:
            history = [(float(before), float(after)) for before, after in facts["history"]]
            found = Progress(parts["weights"], parts.get("buffers", {}), adam, int(facts["rounds"]), history)
        except (KeyError, TypeError, ValueError) as problem:
            raise SourceError(f"{self.path} is damaged: its head lacks {problem}. Delete it to begin anew.") from None
        device = next(iter(fresh.weights.values())).device
        found.weights = {name: found.weights[name].to(device) for name in fresh.weights}
        found.buffers = {name: found.buffers[name].to(device) for name in fresh.buffers}
        found.adam = {
            key: {name: value if key == "step" else value.to(device) for name, value in named.items()}
            for key, named in found.adam.items()
        }
        found.last = stream.skip(found.rounds * int(self._identity["meta_batch"]))
        if found.last != facts["last"]:
            raise DataError(
                f"tasks do not give the episodes that they gave when {self.path} was written, so nothing can go on "
                "from there. Pass the same ones from their beginning, a list or a callable that returns a new iterator."
            )
        return found

    def _check(self, theirs: Any) -> None:
        known = theirs if isinstance(theirs, dict) else {}
        differ = [
            f"{_WORDS.get(key, key)} was {known.get(key)!r} and is {value!r}" if key not in _LONG else _LONG[key]
            for key, value in self._identity.items()
            if known.get(key) != value
        ]
        if differ:
            raise SourceError(
                f"{self.path} is the state of another learning: {few(differ, 6)}. Pass what it was written with to go "
                "on from there, or another path to begin anew."
            )


_WORDS = {"head": "the head", "seed": "the seed"}
_LONG = {
    "shapes": "the model has parameters or buffers of other names, shapes or dtypes",
    "frozen": "other parameters of the model are frozen",
    "modules": "the model consists of other modules",
    "values": "the model begins with other weights",
}


def _identity(model: nn.Module) -> dict[str, Any]:
    """Returns what tells one model from another, in short texts."""
    named = [*model.named_parameters(), *model.named_buffers()]
    modules = [(path, type(part).__qualname__, part.training) for path, part in model.named_modules()]
    return {
        "shapes": _short([(name, tuple(one.shape), str(one.dtype)) for name, one in named]),
        "frozen": _short([name for name, one in model.named_parameters() if not one.requires_grad]),
        "modules": _short(modules),
        "values": _short([digest(one) for _, one in named]),
    }


def _short(facts: list[Any]) -> str:
    return hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()
