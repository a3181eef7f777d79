"""A ticket in use: put on, trained, saved, read back, refused where it does not fit."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import bits, unchanged
from lots import WEIGHTS, data, dense
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune

import autoinit
from autoinit.errors import SourceError
from autoinit.tickets import wearing
from autoinit.tickets.ticket import Ticket


@pytest.fixture(scope="module")
def found() -> Ticket:
    return autoinit.ticket(dense(), data(), 0.8, method="snip")


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.train()
    for x, y in data() * 5:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_masks_hold_through_training_with_decay_and_momentum(found: Ticket, kind: str) -> None:
    model = dense(1)
    before = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)  # made before the masks are put on
    found.apply_(model)
    momentum = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    train(model, before if kind == "adam" else momentum)
    for name, value in model.named_parameters():
        assert not torch.equal(value, start[name])
    for name in WEIGHTS:
        module = model[int(name[0])]
        prune.remove(module, "weight")
        assert torch.equal(module.weight != 0, found.masks[name])


def test_the_weights_of_the_ticket_or_the_model_s_own(found: Ticket) -> None:
    worn, drawn, other = dense(1), dense(1), dense(1)
    with torch.no_grad():
        drawn[2].running_mean.fill_(3.0)
        worn[2].running_mean.fill_(3.0)
    found.apply_(worn)
    found.apply_(drawn, weights=False)
    for at in (0, 3, 5):
        mask = found.masks[f"{at}.weight"]
        torch.testing.assert_close(worn[at].weight, dense()[at].weight * mask)
        torch.testing.assert_close(drawn[at].weight, other[at].weight * mask)
        assert torch.equal(worn[at].bias, dense()[at].bias)
        assert torch.equal(drawn[at].bias, other[at].bias)
    assert not worn[2].running_mean.any()
    assert bool((drawn[2].running_mean == 3).all())
    copy.deepcopy(worn)  # torch refuses it where a weight carries a graph


def test_saved_and_loaded_it_is_the_same(found: Ticket, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    found.save(path)
    again = Ticket.load(path)
    for field in ("method", "sparsity", "notes", "provenance"):
        assert vars(again)[field] == vars(found)[field]
    for mine, theirs in ((found.masks, again.masks), (found.weights, again.weights)):
        assert mine.keys() == theirs.keys()
        assert all(bits(mine[name]) == bits(theirs[name]) for name in mine)
        assert all(mine[name].dtype == theirs[name].dtype for name in mine)
    assert str(again) == str(found)
    assert again.provenance["torch"] == torch.__version__
    assert {"0.weight", "2.running_var", "2.num_batches_tracked"} <= found.weights.keys()


def test_it_prints_what_is_left_of_each_layer(found: Ticket) -> None:
    lines = str(found).splitlines()
    assert lines[0] == "snip ticket, sparsity 0.7997 (asked 0.8): 125 of 624 weights are left"
    kept = {name: str(int(mask.sum())) for name, mask in found.masks.items()}
    assert [line.split()[:4] for line in lines[4:]] == [
        ["0.weight", "24×8", "192", kept["0.weight"]],
        ["3.weight", "16×24", "384", kept["3.weight"]],
        ["5.weight", "3×16", "48", kept["5.weight"]],
    ]
    assert repr(found) == f"<Ticket: {lines[0]}>"


def wider() -> nn.Module:
    model = dense()
    model[3] = nn.Linear(24, 15)
    return model


def with_masks() -> nn.Module:
    model = dense()
    prune.random_unstructured(model[0], "weight", 0.5)
    return model


def parametrized() -> nn.Module:
    model = dense()
    torch.nn.utils.parametrizations.orthogonal(model[3])
    return model


@pytest.mark.parametrize(
    ("make", "weights", "said"),
    [
        (wider, True, r"3.weight \(15×24 in the model, 16×24 in the ticket\)"),
        (wider, False, r"3.weight \(15×24"),
        (lambda: dense()[:5], False, r"5.weight \(absent in the model, 3×16 in the ticket\)"),
        (lambda: nn.Sequential(*dense(), nn.Linear(3, 3)), True, r"6.weight \(3×3 in the model, absent"),
        (lambda: nn.Sequential(*dense()[:2], nn.Identity(), *dense()[3:]), True, r"2.weight \(absent in the model, 24"),
        (with_masks, True, "has masks of torch.nn.utils.prune already"),
        (parametrized, True, r"3.weight"),
    ],
)
def test_another_architecture_is_refused_by_the_layers_that_differ(
    found: Ticket, make: Any, weights: bool, said: str
) -> None:
    model = make()
    with unchanged(model), pytest.raises(SourceError, match=said):
        found.apply_(model, weights=weights)


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt])
def test_a_failure_halfway_leaves_the_model_as_it_was(
    found: Ticket, problem: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls, real = dense(1), [], prune.custom_from_mask

    def failing(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise problem
        return real(*arguments)

    monkeypatch.setattr(wearing.prune, "custom_from_mask", failing)
    with unchanged(model), pytest.raises(problem):
        found.apply_(model)


def damaged(path: Path, how: str) -> None:
    tensors = load_file(path)
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "pickle":
        torch.save(dense().state_dict(), path.with_suffix(".pt"))
        path.with_suffix(".pt").rename(path)
    elif how == "text":
        path.write_text("hello there\n")
    elif how == "weights":
        save_file(dense().state_dict(), path)
    else:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            told = dict(file.metadata())
        if how == "mask":
            tensors["mask/0.weight"][0, 0] = 7
        elif how == "shape":
            tensors["mask/0.weight"] = tensors["mask/0.weight"][:3].clone()
        elif how == "version":
            told["autoinit"] = told["autoinit"].replace('"version": 1', '"version": 2')
        elif how == "json":
            told["autoinit"] = told["autoinit"][:-1]
        save_file(tensors, path, told)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", "damaged"),
        ("pickle", "no file of safetensors but a pickle"),
        ("text", "text"),
        ("weights", "holds weights and no ticket"),
        ("mask", "mask of 0.weight holds other values than 0 and 1"),
        ("shape", "masks do not fit"),
        ("version", "of version 2"),
        ("json", "damaged: not JSON"),
    ],
)
def test_a_damaged_or_foreign_file_is_told(found: Ticket, how: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    found.save(path)
    damaged(path, how)
    with pytest.raises(SourceError, match=said):
        Ticket.load(path)
    with pytest.raises(SourceError, match="cannot be read"):
        Ticket.load(tmp_path / "nothing.safetensors")


def test_a_save_that_fails_leaves_the_old_file(found: Ticket, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    found.save(path)
    before = path.read_bytes()
    odd = dataclasses.replace(found, weights={"0.weight": torch.ones(2).to_sparse()})
    with pytest.raises(Exception):  # noqa: B017, PT011 — whatever safetensors says of it
        odd.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
