"""Weights wherever they lie: folders, shards, mappings, modules, and what is said where they are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from helpers import bits
from safetensors.torch import save_file
from torch import nn

from autoinit.errors import SourceError
from autoinit.inheritance.checkpoints import read_checkpoint


def gpt2() -> transformers.GPT2LMHeadModel:
    config = transformers.GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config)


def sharded(model: nn.Module, folder: Path) -> Path:
    """Writes a model in shards of safetensors, as transformers lays them out; returns the index."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = {name: f"model-{number % 2 + 1:05d}-of-00002.safetensors" for number, name in enumerate(state)}
    for shard in set(places.values()):
        save_file({name: tensor for name, tensor in state.items() if places[name] == shard}, folder / shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


@pytest.fixture
def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


@pytest.mark.parametrize("size", ["50GB", "20KB"], ids=["one file", "shards"])
def test_a_folder_of_transformers_is_read(tmp_path: Path, size: str) -> None:
    model = gpt2()
    model.save_pretrained(tmp_path, max_shard_size=size)
    shards = len(list(tmp_path.glob("*.safetensors")))
    assert (shards == 1) == (size == "50GB")
    found = read_checkpoint(tmp_path)
    state = model.state_dict()
    assert set(found.names) == state.keys() - {"lm_head.weight"}, "transformers leaves a tied tensor out"
    assert all(found.shapes[name] == tuple(state[name].shape) for name in found.names)
    assert all(bits(found.tensor(name)) == bits(state[name]) for name in found.names)


def test_shards_of_pickles_are_read_and_an_index_may_be_passed_itself(small: nn.Module, tmp_path: Path) -> None:
    state = small.state_dict()
    for place, name in enumerate(("0", "1")):
        part = {key: value for key, value in state.items() if key.startswith(name)}
        torch.save(part, tmp_path / f"pytorch_model-0000{place + 1}-of-00002.bin")
    places = {key: f"pytorch_model-0000{int(key[0]) + 1}-of-00002.bin" for key in state}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    for what in (tmp_path, index, str(index)):
        found = read_checkpoint(what)
        assert {name: bits(found.tensor(name)) for name in found.names} == {k: bits(v) for k, v in state.items()}


def test_the_safe_file_of_a_folder_is_preferred(small: nn.Module, tmp_path: Path) -> None:
    save_file({"safe": torch.ones(1)}, tmp_path / "model.safetensors")
    torch.save({"pickled": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert read_checkpoint(tmp_path).names == ("safe",)


def test_the_only_file_of_a_folder_is_taken_whatever_its_name(small: nn.Module, tmp_path: Path) -> None:
    torch.save(small.state_dict(), tmp_path / "epoch=3.ckpt")
    (tmp_path / "README.md").write_text("trained on digits")
    assert read_checkpoint(tmp_path).names == tuple(small.state_dict())
    torch.save(small.state_dict(), tmp_path / "epoch=4.ckpt")
    with pytest.raises(SourceError, match=r"several files of weights: epoch=3\.ckpt, epoch=4\.ckpt\. Pass the path"):
        read_checkpoint(tmp_path)


def test_a_mapping_and_a_module_are_read_as_they_are(small: nn.Module) -> None:
    state = small.state_dict()
    for what in (state, small, {"state_dict": state, "epoch": 1}, read_checkpoint(small)):
        found = read_checkpoint(what)
        assert {name: bits(found.tensor(name)) for name in found.names} == {k: bits(v) for k, v in state.items()}
        assert not any(found.tensor(name).requires_grad for name in found.names)
    assert "Sequential" in read_checkpoint(small).title


def test_what_is_left_out_counts_as_lacking(small: nn.Module) -> None:
    found = read_checkpoint(small).without("1.weight", "1.bias")
    assert found.names == ("0.weight", "0.bias")
    with pytest.raises(SourceError, match=r"no tensor '1\.weight'"):
        found.tensor("1.weight")
    with pytest.raises(SourceError, match=r"no tensor '0\.wieght'\. Did you mean '0\.weight'"):
        found.without("0.wieght")


def test_a_missing_shard_is_named(small: nn.Module, tmp_path: Path) -> None:
    sharded(small, tmp_path)
    assert len(read_checkpoint(tmp_path).names) == 4
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(SourceError, match=r"Of 2 files .* missing: model-00002-of-00002\.safetensors\."):
        read_checkpoint(tmp_path)


def test_an_index_that_names_what_no_shard_holds_is_refused(small: nn.Module, tmp_path: Path) -> None:
    index = sharded(small, tmp_path)
    content = json.loads(index.read_text())
    content["weight_map"]["2.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(SourceError, match=r"not in the files it gives for them: 2\.weight \(model-00001"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "no JSON"),
        ("[1, 2]", "under 'weight_map'"),
        ('{"weight_map": {}}', "under 'weight_map'"),
        ('{"weight_map": {"a": 1}}', "under 'weight_map'"),
        ('{"weight_map": {"a": "../other/model.safetensors"}}', "in its own folder"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "in its own folder"),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(SourceError, match=words):
        read_checkpoint(tmp_path)


def test_a_damaged_shard_is_named(small: nn.Module, tmp_path: Path) -> None:
    sharded(small, tmp_path)
    shard = tmp_path / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(SourceError, match=r"model-00001-of-00002\.safetensors is a damaged file of safetensors"):
        read_checkpoint(tmp_path)


def test_what_is_not_there_or_no_weights_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"There is no openai-community/gpt2\. Nothing is downloaded"):
        read_checkpoint("openai-community/gpt2")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SourceError, match=r"no weights in it: .* There is config\.json\."):
        read_checkpoint(tmp_path)
    (tmp_path / ".metadata").write_bytes(b"")
    with pytest.raises(SourceError, match="dcp_to_torch_save"):
        read_checkpoint(tmp_path)
    with pytest.raises(SourceError, match="Got int"):
        read_checkpoint(3)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="the given mapping holds no tensors by name; it has nothing"):
        read_checkpoint({})
