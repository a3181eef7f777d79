"""One file of weights, read without running anything of it: safetensors, or what `torch.save` wrote of tensors."""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import SourceError, described
from ..jsonfile import finite, parse, replacing
from ..text import few

NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Where trainers put the weights in what they save beside the optimizer; the first one that is there is taken."""

_SAFE = "torch.save(model.state_dict(), path) or safetensors.torch.save_file(model.state_dict(), path)"
_SAID = "autoinit"
_AGAIN = "Copy or download it anew."
_FOREIGN = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself: `git lfs pull` fetches that"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF", "an HDF5 file, as Keras writes them"),
    (b"GGUF", "a GGUF file, as llama.cpp has them"),
    (b"\x93NUMPY", "an array of numpy"),
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
)
"""How files begin that are often met in the place of weights."""


@dataclass(frozen=True)
class Stored:
    """Tensors that can be read one by one.

    Attributes:
        shapes: of all, by name.
        read: name → the tensor.
        notes: what is to be known beside, in whole sentences.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Tensor]
    notes: tuple[str, ...] = ()


def read_file(path: Path) -> Stored:
    """Returns what a file of weights holds; its kind is told by how it begins, not by its name.

    Raises:
        SourceError: it is damaged, holds no weights, or is a pickle that could run code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as problem:
        raise SourceError(f"{path} cannot be read: {described(problem)}") from problem
    if start[8:9] == b"{":
        return _safetensors(path)
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return from_mapping(_unpickled(path, zipped=start.startswith(b"PK")), str(path))
    if path.suffix == ".safetensors" and not _foreign(start, path):
        return _safetensors(path)  # it says what is wrong with it
    if not start:
        raise SourceError(f"{path} is empty. {_AGAIN}")
    raise SourceError(
        f"{path} is {_foreign(start, path) or 'of a kind that is not known here'}. Weights are read from safetensors "
        f"and from what torch.save wrote: {_SAFE}."
    )


def write_file(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None) -> None:
    """Writes tensors as safetensors, whole or not at all: a crash leaves an older file as it was.

    Args:
        path: of the file.
        tensors: by name, on any device.
        facts: what is said of them, which JSON can hold; None for nothing.
    """
    said = None if facts is None else {_SAID: json.dumps(finite(facts), ensure_ascii=False)}
    with replacing(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary, said)


def facts_of(path: Path, title: str) -> Mapping[str, Any] | None:
    """Returns what `write_file` said of the tensors of a file; None where nothing is said, or something else wrote it.

    Args:
        path: of the file.
        title: what it is called where what is said is damaged.

    Raises:
        SourceError: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_SAID)
    except (SafetensorError, OSError):  # it is what torch.save wrote
        return None
    return None if text is None else parse(text, SourceError, title)


def from_mapping(found: Any, title: str) -> Stored:
    """Returns the tensors of a mapping, or of the one that it holds under a name that trainers use.

    Raises:
        SourceError: there is no tensor with a name in it, or in several places.
    """
    if not isinstance(found, Mapping):
        raise SourceError(f"{title} holds a {type(found).__name__}, where weights are a mapping of names to tensors.")
    inner = {key: part for key, value in found.items() if isinstance(value, Mapping) and (part := _tensors(value))}
    own = _tensors(found)
    usual = [key for key in NESTED if key in inner]
    if not usual and not own and len(inner) > 1:
        raise SourceError(
            f"{title} holds weights in several places: {few(list(map(str, inner)), 6)}. Pass one of them, as a mapping."
        )
    taken = usual[0] if usual else next(iter(inner)) if inner and not own else None
    tensors = own if taken is None else inner[taken]
    if not tensors:
        raise SourceError(f"{title} holds no tensors by name; it has {few(list(map(repr, found))) or 'nothing'}.")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Stored(shapes, tensors.__getitem__, _told(found, taken, title))


def _told(found: Mapping[Any, Any], taken: object, title: str) -> tuple[str, ...]:
    if taken is None:
        return ()
    rest = [str(key) for key in found if key != taken]
    beside = f"; {few(rest, 6)} beside them is not looked at" if rest else ""
    return (f"The weights of {title} are those that it has under {taken!r}{beside}.",)


def _tensors(found: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {
        name: value.detach() for name, value in found.items() if isinstance(name, str) and isinstance(value, Tensor)
    }


def _safetensors(path: Path) -> Stored:
    try:
        file: Any = safe_open(path, framework="pt")
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 — no mapping
    except SafetensorError as problem:
        raise SourceError(f"{path} is a damaged file of safetensors: {problem}. {_AGAIN}") from problem
    if not shapes:
        raise SourceError(f"{path} holds no tensors.")
    # safetensors.torch.save_model leaves out a tied tensor and notes under its name the one that is it.
    tied = {name: one for name, one in (file.metadata() or {}).items() if one in shapes and name not in shapes}
    shapes |= {name: shapes[one] for name, one in tied.items()}
    return Stored(shapes, lambda name: file.get_tensor(tied.get(name, name)))


def _unpickled(path: Path, *, zipped: bool) -> Any:
    """Returns what torch's restricted unpickler reads: tensors and containers; it calls nothing that a file names."""
    if path.suffix == ".safetensors":  # torch.load goes by this ending
        raise SourceError(f"{path} is no file of safetensors but a pickle, as torch.save writes it. Rename it to *.pt.")
    if zipped:
        _check_archive(path)
    try:
        with warnings.catch_warnings():  # of other protocols: an error follows that says more
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as problem:
        raise SourceError(_not_run(path, str(problem))) from problem
    except (RuntimeError, EOFError, LookupError, ValueError, TypeError, struct.error, OSError) as problem:
        raise SourceError(
            f"{path} is damaged, or torch.save did not write it: {described(problem)}. {_AGAIN}"
        ) from problem


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile as problem:
        raise SourceError(f"{path} is damaged, probably cut off: {described(problem)}. {_AGAIN}") from problem
    if "constants.pkl" in names:
        raise SourceError(
            f"{path} is a program of TorchScript, which was not run. Load it with torch.jit.load where you trust it, "
            "and pass the module."
        )
    if "data.pkl" not in names:
        raise SourceError(f"{path} is a zip archive that torch.save did not write. Weights are saved by {_SAFE}.")


def _not_run(path: Path, said: str) -> str:
    wanted = re.search(r"GLOBAL (\S+)", said)
    what = f"it calls {wanted[1]}" if wanted else "it is not written as torch.save writes tensors"
    return (
        f"{path} is a pickle that can run code when it is loaded: {what}. It was not run. "
        f"Where you trust it, load it yourself, and save its weights alone: {_SAFE}."
    )


def _foreign(start: bytes, path: Path) -> str:
    """Returns what a file is that begins so, in words; empty where that is not known."""
    known = next((words for magic, words in _FOREIGN if start.startswith(magic)), "")
    if known or not start:
        return known
    if path.suffix == ".onnx" or (start[:1] == b"\x08" and start[2:3] == b"\x12"):  # fields 1 and 2 of its protobuf
        return "a model of ONNX"
    text = start.decode("utf-8", errors="ignore")  # a character may be cut in two at the end
    return "a text file" if len(text.encode()) > len(start) - 4 and _is_printable(text) else ""


def _is_printable(text: str) -> bool:
    return bool(text) and all(letter.isprintable() or letter.isspace() for letter in text)
