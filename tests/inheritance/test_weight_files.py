"""One file of weights: what is read of it, and that nothing of it is ever run."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import bits
from safetensors.torch import save_file, save_model
from torch import nn

from autoinit.errors import SourceError
from autoinit.inheritance.weight_files import from_mapping, read_file


class Malicious:
    """What pickle would run when it loads it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.fixture
def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).to(torch.float32)


def written(model: nn.Module, path: Path, kind: str) -> Path:
    """Writes a model's weights in one of the ways that are read."""
    if kind == "safetensors":
        save_file(model.state_dict(), path)
    elif kind == "legacy":
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    else:
        torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("name", ["weights.pt", "weights.bin"])
def test_each_kind_is_known_by_its_content_whatever_its_name(
    model: nn.Module, tmp_path: Path, kind: str, name: str
) -> None:
    found = read_file(written(model, tmp_path / name, kind))
    state = model.state_dict()
    assert found.shapes.keys() == state.keys()
    for key, value in state.items():
        assert found.shapes[key] == tuple(value.shape)
        assert found.read(key).dtype == value.dtype
        assert bits(found.read(key)) == bits(value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_as_it_is(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = torch.randn(5, 3).to(dtype)
    save_file({"a": weight}, tmp_path / "a.safetensors")
    assert bits(read_file(tmp_path / "a.safetensors").read("a")) == bits(weight)


def test_a_tied_tensor_that_save_model_left_out_is_found_under_both_names(tmp_path: Path) -> None:
    tied = nn.ModuleDict({"table": nn.Embedding(6, 4), "head": nn.Linear(4, 6, bias=False)})
    tied["head"].weight = tied["table"].weight
    save_model(tied, str(tmp_path / "tied.safetensors"))
    found = read_file(tmp_path / "tied.safetensors")
    assert found.shapes == {"head.weight": (6, 4), "table.weight": (6, 4)}
    assert bits(found.read("head.weight")) == bits(found.read("table.weight")) == bits(tied["table"].weight)


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    """A file of 512 MB, most of it a hole on the disk, must not come into memory for its shapes."""
    large = {"large": torch.zeros(1), "small": torch.arange(3.0)}
    save_file(large, tmp_path / "small.safetensors")
    header = (
        b'{"large":{"dtype":"F32","shape":[134217728],"data_offsets":[0,536870912]},'
        b'"small":{"dtype":"F32","shape":[3],"data_offsets":[536870912,536870924]}}'
    )
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 536870924)
    before = resident()
    found = read_file(path)
    assert found.shapes == {"large": (134217728,), "small": (3,)}
    assert found.read("small").tolist() == [0.0, 0.0, 0.0]
    assert resident() - before < 64 * 2**20
    assert found.read("large")[-1] == 0.0


def resident() -> int:
    """Returns the bytes of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_malicious_pickle_is_not_run(tmp_path: Path, legacy: bool) -> None:
    target, path = tmp_path / "harm", tmp_path / "weights.pt"
    saved = {"0.weight": torch.ones(2, 2), "0.bias": Malicious(target)}
    torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(SourceError, match=r"can run code .*mkdir. It was not run.* torch\.save\(model\.state_dict\(\)"):
        read_file(path)
    assert not target.exists()
    torch.load(path, weights_only=False)  # the file does what it threatens to
    assert target.exists()


@pytest.mark.parametrize("name", ["weights.pkl", "weights.bin"])
def test_a_pickle_of_python_is_not_run(tmp_path: Path, name: str) -> None:
    target, path = tmp_path / "harm", tmp_path / name
    path.write_bytes(pickle.dumps(Malicious(target)))
    with pytest.raises(SourceError, match="can run code when it is loaded"):
        read_file(path)
    assert not target.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_a_pickle_that_is_called_safetensors_is_to_be_renamed(model: nn.Module, tmp_path: Path, kind: str) -> None:
    path = written(model, tmp_path / "weights.safetensors", kind)
    with pytest.raises(SourceError, match=r"no file of safetensors.*Rename it to \*\.pt"):
        read_file(path)
    assert read_file(path.rename(tmp_path / "weights.pt")).shapes.keys() == model.state_dict().keys()


def test_a_pickle_of_the_first_protocol_is_not_run(tmp_path: Path) -> None:
    target, path = tmp_path / "harm", tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps(Malicious(target), protocol=0))
    with pytest.raises(SourceError, match="is a text file"):
        read_file(path)
    assert not target.exists()


def test_a_protocol_that_torch_does_not_read_safely_is_not_run(model: nn.Module, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "weights.pt", pickle_protocol=4)
    with pytest.raises(SourceError, match=r"not written as torch\.save writes tensors\. It was not run"):
        read_file(tmp_path / "weights.pt")


def test_a_whole_model_says_how_to_save_its_weights_alone(model: nn.Module, tmp_path: Path) -> None:
    torch.save(model, tmp_path / "model.pt")
    with pytest.raises(SourceError, match=r"calls torch\.nn\.modules\.container\.Sequential.*model\.state_dict\(\)"):
        read_file(tmp_path / "model.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_program_of_torchscript_is_not_run(model: nn.Module, tmp_path: Path) -> None:
    torch.jit.trace(model.eval(), torch.ones(2, 4)).save(str(tmp_path / "script.pt"))
    with pytest.raises(SourceError, match="program of TorchScript, which was not run"):
        read_file(tmp_path / "script.pt")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.97])
def test_a_file_that_was_cut_off_is_damaged(model: nn.Module, tmp_path: Path, kind: str, share: float) -> None:
    path = written(model, tmp_path / f"weights.{kind}", kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(SourceError, match=r"weights\.\w+ is (a )?(damaged|empty|of a kind).*"):
        read_file(path)


@pytest.mark.parametrize(
    ("name", "start", "words"),
    [
        ("notes.txt", b"Weights are below.\n1.0 2.0\n" * 40, "a text file"),
        ("umlauts.bin", "ä".encode() * 511, "a text file"),
        ("picture.safetensors", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "a PNG image"),
        ("picture.bin", b"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG image"),
        ("model.onnx", b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", "a model of ONNX"),
        ("model.pt", b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", "a model of ONNX"),
        ("model.h5", b"\x89HDF\r\n\x1a\n", "Keras"),
        ("model.gguf", b"GGUF\x03\x00\x00\x00", "llama.cpp"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "git lfs pull"),
        ("model.bin", bytes(range(1, 64)), "a kind that is not known"),
    ],
)
def test_a_foreign_file_is_called_what_it_is(tmp_path: Path, name: str, start: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(start)
    with pytest.raises(SourceError, match=words):
        read_file(tmp_path / name)


def test_archives_that_torch_did_not_write_are_foreign(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", a=np.ones(2))
    with pytest.raises(SourceError, match=r"zip archive that torch\.save did not write"):
        read_file(tmp_path / "arrays.npz")
    with zipfile.ZipFile(tmp_path / "odd.pt", "w") as archive:
        archive.writestr("odd/data.pkl", b"no pickle at all")
    with pytest.raises(SourceError, match=r"odd\.pt is"):
        read_file(tmp_path / "odd.pt")


def test_a_file_without_tensors_says_so(tmp_path: Path) -> None:
    save_file({}, tmp_path / "none.safetensors")
    with pytest.raises(SourceError, match="holds no tensors"):
        read_file(tmp_path / "none.safetensors")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(SourceError, match="holds a list"):
        read_file(tmp_path / "list.pt")
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "numbers.pt")
    with pytest.raises(SourceError, match="no tensors by name; it has 'epoch', 'lr'"):
        read_file(tmp_path / "numbers.pt")


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "my_network"])
def test_what_a_trainer_saves_beside_is_told(model: nn.Module, tmp_path: Path, key: str) -> None:
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    saved = {"epoch": 3, key: model.state_dict(), "optimizer": optimizer.state_dict(), "loss": {"best": 0.5}}
    torch.save(saved, tmp_path / "last.ckpt")
    found = read_file(tmp_path / "last.ckpt")
    assert found.shapes.keys() == model.state_dict().keys()
    (note,) = found.notes
    assert f"under {key!r}; epoch, optimizer, loss beside" in note


def test_weights_in_several_places_are_not_guessed() -> None:
    with pytest.raises(SourceError, match="several places: student, teacher"):
        from_mapping({"student": {"a": torch.ones(1)}, "teacher": {"a": torch.ones(1)}}, "the mapping")
    named = from_mapping({"ema": {"a": torch.zeros(1)}, "state_dict": {"a": torch.ones(1)}}, "the mapping")
    assert named.read("a").tolist() == [1.0]
