"""Trained weights wherever they lie: a file, a folder of shards, a mapping, a model; never a pickle that runs code."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor, nn

from ..errors import SourceError, described, did_you_mean
from ..text import few
from .weight_files import Stored, from_mapping, read_file

INDEX = ".index.json"
STEMS = ("model", "pytorch_model", "diffusion_pytorch_model", "adapter_model")
"""Names that libraries give the weights of a folder, without their endings, in the order in which they are sought."""
ENDINGS = (".safetensors", f".safetensors{INDEX}", ".bin", f".bin{INDEX}")
"""Endings of these files, in the order in which transformers looks for them."""

_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}


@dataclass(frozen=True)
class Checkpoint:
    """Trained weights by name; their shapes are known, and each tensor is read when it is asked for.

    A file is mapped into memory: of one with seven billion parameters only what is asked for is read. It has to stay
    where it is for as long as tensors of it are in use.

    Attributes:
        title: what it is, for messages: a path, or what was passed.
        shapes: of all tensors, by name.
        notes: what was taken of it, where that is not all, in whole sentences.
    """

    title: str
    shapes: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()
    _stored: Stored = field(repr=False, kw_only=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tensors, in the order of the file."""
        return tuple(self.shapes)

    def tensor(self, name: str) -> Tensor:
        """Returns one tensor, on the CPU unless it was passed from elsewhere; it is not to be written into.

        Args:
            name: one of `names`.

        Raises:
            SourceError: there is none of that name.
        """
        self._check(name)
        return self._stored.read(name)

    def without(self, *names: str) -> Checkpoint:
        """Returns the same weights but for some, as if the file lacked them: a head for other classes, for example.

        Args:
            names: of tensors to leave out.

        Raises:
            SourceError: there is none of such a name.
        """
        for name in names:
            self._check(name)
        return replace(self, shapes={name: shape for name, shape in self.shapes.items() if name not in names})

    def _check(self, name: str) -> None:
        if name not in self.shapes:
            raise SourceError(f"{self.title} has no tensor {name!r}. {did_you_mean(name, self.shapes, 'Its `names`')}")


Source: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | nn.Module | Checkpoint
"""What weights can be read from."""


def read_checkpoint(what: Source) -> Checkpoint:
    """Returns trained weights, of which the names and shapes are read at once and the numbers when they are asked for.

    Args:
        what: A file of safetensors; a file that `torch.save` wrote of tensors, alone or among what a trainer saves;
            the index of a file in shards; a folder of transformers, diffusers or peft with any of these; a mapping of
            names to tensors; or a module.

    Raises:
        SourceError: there is no such file, it is damaged or no file of weights, a shard is missing, or it is a pickle
            that could run code, which is never done.
    """
    if isinstance(what, Checkpoint):
        return what
    if isinstance(what, nn.Module):
        return _checkpoint(f"the given {type(what).__name__}", from_mapping(what.state_dict(), "the given model"))
    if isinstance(what, Mapping):
        return _checkpoint("the given mapping", from_mapping(what, "the given mapping"))
    if not isinstance(what, (str, os.PathLike)):
        raise SourceError(
            "Weights are read from a file, a folder, a mapping of names to tensors, or a module. "
            f"Got {type(what).__name__}."
        )
    path = Path(what)
    if not path.exists():
        raise SourceError(
            f"There is no {path}. Nothing is downloaded: pass the path of a file or a folder that is here."
        )
    chosen = _file_of(path) if path.is_dir() else path
    stored = _sharded(chosen) if chosen.name.endswith(INDEX) else read_file(chosen)
    return _checkpoint(str(path), stored)


def tensors_of(source: Source) -> dict[str, Tensor]:
    """Returns all tensors of trained weights by name.

    Args:
        source: whatever `read_checkpoint` reads.

    Raises:
        SourceError: it cannot be read, or has no tensors.
    """
    checkpoint = read_checkpoint(source)
    if not checkpoint.names:
        raise SourceError(f"{checkpoint.title} has no tensors.")
    return {name: checkpoint.tensor(name) for name in checkpoint.names}


def _checkpoint(title: str, stored: Stored) -> Checkpoint:
    return Checkpoint(title, stored.shapes, stored.notes, _stored=stored)


def _file_of(folder: Path) -> Path:
    """Returns the file of a folder that has its weights or says where they are."""
    for stem in STEMS:
        for ending in ENDINGS:
            if (folder / f"{stem}{ending}").exists():
                return folder / f"{stem}{ending}"
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES or path.name.endswith(INDEX))
    if len(files) == 1:
        return files[0]
    if (folder / ".metadata").exists():
        raise SourceError(
            f"{folder} is a distributed checkpoint. torch.distributed.checkpoint.format_utils.dcp_to_torch_save makes "
            "one file of it, which can be passed."
        )
    if files:
        raise SourceError(f"{folder} has several files of weights: {few(_names(files), 6)}. Pass the path of one.")
    raise SourceError(
        f"{folder} has no weights in it: neither model.safetensors nor pytorch_model.bin, alone or in shards. "
        f"There is {few(_names(sorted(folder.iterdir())), 6) or 'nothing'}."
    )


def _names(paths: Collection[Path]) -> list[str]:
    return [path.name for path in paths]


def _sharded(index: Path) -> Stored:
    """Returns the tensors of all files that an index names."""
    places = _weight_map(index)
    missing = [name for name in sorted(set(places.values())) if not (index.parent / name).is_file()]
    if missing:
        raise SourceError(
            f"Of {len(set(places.values()))} files that {index} names these are missing: {few(missing, 6)}. "
            "Copy or download the whole folder."
        )
    shards = {name: read_file(index.parent / name) for name in dict.fromkeys(places.values())}
    lost = [f"{name} ({shard})" for name, shard in places.items() if name not in shards[shard].shapes]
    if lost:
        raise SourceError(
            f"{index} names tensors that are not in the files it gives for them: {few(lost)}. The index and the files "
            "belong to different checkpoints, or were mixed in copying."
        )
    shapes = {name: shards[shard].shapes[name] for name, shard in places.items()}
    return Stored(shapes, lambda name: shards[places[name]].read(name))


def _weight_map(index: Path) -> dict[str, str]:
    """Returns name of a tensor → name of the file that has it."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise SourceError(f"{index} is damaged: it is no JSON ({described(problem)}).") from problem
    places = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(shard, str) for shard in places.values()):
        raise SourceError(f"{index} is no index of weights: under 'weight_map' it would have a file for each tensor.")
    outside = [shard for shard in places.values() if Path(shard).name != shard]
    if outside:
        raise SourceError(f"{index} names {outside[0]!r}. Files of an index lie in its own folder.")
    return places
