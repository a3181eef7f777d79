"""What is new is told from what is trained, and what is trained stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import ByHand, batches, peft_model
from helpers import unchanged
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

import autoinit
from autoinit.graph import BESIDE_ADAPTERS, IN_CHECKPOINT
from autoinit.inheritance.trained import with_trained
from autoinit.tracing.choices import keep_choices

X, Y = load_digits(return_X_y=True)
DATA = (torch.tensor(X / 16, dtype=torch.float32), torch.tensor(Y))


class Classifier(nn.Module):
    """A body and a head."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def body_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if name.startswith("body")}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The body of a classifier of four classes, trained by somebody."""
    save_file(body_of(Classifier(4)), tmp_path / "body.safetensors")
    return tmp_path / "body.safetensors"


@pytest.fixture
def loaded(checkpoint: Path) -> Classifier:
    from safetensors.torch import load_file

    model = Classifier()
    model.load_state_dict(load_file(checkpoint), strict=False)
    return model


def test_only_what_the_checkpoint_lacks_is_set(loaded: Classifier, checkpoint: Path) -> None:
    before, head = body_of(loaded), loaded.head.weight.clone()
    plan = autoinit.apply_(loaded, "orthogonal", DATA, checkpoint=checkpoint)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in before.items())
    assert not torch.equal(head, loaded.head.weight)
    assert {name: fill.reason for name, fill in plan.items() if fill.untouched} == dict.fromkeys(before, IN_CHECKPOINT)
    assert plan.base == "trained"
    assert "Taken for trained: 4 parameters (3136 values); for new: 2 (330 values)." in plan.notes


def test_a_calibration_leaves_what_is_trained_too(loaded: Classifier, checkpoint: Path) -> None:
    before = body_of(loaded)
    autoinit.apply_(loaded, "lsuv", DATA, checkpoint=checkpoint)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in before.items())
    assert loaded(DATA[0][:64]).std().item() == pytest.approx(1, rel=0.3)


def test_a_search_moves_nothing_that_is_trained(tmp_path: Path) -> None:
    """Of fifteen layers that do not train from torch's weights the first one is somebody's."""
    hidden = [nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(14)]
    model = nn.Sequential(*hidden, nn.Linear(64, 10))
    first = {name: model.state_dict()[name].clone() for name in ("0.0.weight", "0.0.bias")}
    selection = autoinit.select(
        model, DATA, checkpoint=first, budget=autoinit.Budget(steps=400),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
    )  # fmt: skip
    assert not selection.kept, selection.why
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in first.items())
    assert selection.plan.base == "trained"
    assert autoinit.Plan.load(saved(selection, tmp_path)).base == "trained"


def saved(selection: autoinit.Selection, folder: Path) -> Path:
    selection.save(folder / "chosen.json")
    return folder / "chosen.json"


def test_recommend_and_diagnose_tell_what_is_new(loaded: Classifier, checkpoint: Path) -> None:
    with unchanged(loaded):
        found = autoinit.recommend(loaded, DATA, checkpoint=checkpoint)
        graph = autoinit.diagnose(loaded, DATA, checkpoint=checkpoint).graph
    assert {layer.name for layer in graph.trained} == {name for name in graph if name.startswith("body")}
    assert found.recipes


def test_weights_that_were_not_loaded_are_told(checkpoint: Path) -> None:
    plan = autoinit.apply_(Classifier(), "he_normal", DATA, checkpoint=checkpoint)
    assert any("4 of 4 tensors hold other values than body.safetensors" in note for note in plan.notes)


def test_what_the_model_has_no_place_for_is_told(tmp_path: Path) -> None:
    model = Classifier()
    weights = {**body_of(model), "old_head.weight": torch.zeros(4, 32)}
    notes = with_trained(model, autoinit.trace(model, DATA), weights).notes
    assert any("has 1 tensors that the model has no place for: old_head.weight" in note for note in notes)
    assert not any("hold other values" in note for note in notes)


def test_rows_beyond_the_checkpoint_s_are_told() -> None:
    class Tokens(nn.Module):
        def __init__(self, rows: int) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(rows, 16), nn.Linear(16, 5)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.table(ids).mean(1))

    model, data = Tokens(23), (torch.randint(20, (32, 6)), torch.randint(5, (32,)))
    graph = with_trained(model, autoinit.trace(model, data), {"table.weight": model.table.weight[:20].detach()})
    assert "its first 20 rows are in the checkpoint" in graph["table.weight"].keep
    assert not graph["head.weight"].keep


@pytest.mark.parametrize("verb", [autoinit.apply_, autoinit.select, autoinit.recommend, autoinit.diagnose])
def test_a_foreign_checkpoint_is_refused(verb: Any) -> None:
    model = Classifier()
    words = {autoinit.apply_: ["he_normal", DATA]}.get(verb, [DATA])
    with pytest.raises(autoinit.SourceError, match="has nothing of the model"), unchanged(model):
        verb(model, *words, checkpoint={"encoder.kernel": torch.zeros(3)})
    with pytest.raises(autoinit.SourceError, match="another shape"), unchanged(model):
        verb(model, *words, checkpoint={**body_of(model), "body.0.weight": torch.zeros(32, 60)})


def test_beside_adapters_everything_stays_that_is_not_named_or_missing() -> None:
    model = nn.Sequential(nn.Linear(64, 24), nn.Tanh(), ByHand(24, 20), nn.Tanh(), nn.Linear(20, 10))
    graph = keep_choices(model, autoinit.trace(model, DATA))
    assert {graph[name].keep for name in ("0.weight", "4.weight", "4.bias")} == {BESIDE_ADAPTERS}
    assert not graph.restricted(only=["4.*", "*up*"])["4.weight"].keep
    assert graph.restricted(only=["4.*", "*up*"])["0.weight"].keep
    told = {name: value for name, value in model.state_dict().items() if not name.startswith(("4.", "2.up", "2.down"))}
    free = {layer.name for layer in keep_choices(model, autoinit.trace(model, DATA), told).layers if not layer.keep}
    assert free == {"4.weight", "4.bias", "2.up.weight", "2.down.weight"}


def test_what_peft_trains_further_is_trained_and_its_copy_does_not_follow() -> None:
    model = peft_model(modules_to_save=["lm_head"])
    graph = keep_choices(model, autoinit.trace(model, batches()))
    heads = [layer for layer in graph.layers if "lm_head" in layer.name]
    assert len(heads) == 2
    assert all(layer.keep and not layer.copy_of for layer in heads)
    original = next(layer.name for layer in heads if "original" in layer.name)
    before = model.get_parameter(original).clone()
    autoinit.apply_(model, "xavier_normal", batches())
    assert torch.equal(before, model.get_parameter(original))


def test_adapters_as_they_are_are_healthy_and_nothing_is_claimed_to_be_known_of_their_starts() -> None:
    model = peft_model()
    diagnosis = autoinit.diagnose(model, batches())
    assert not any("exactly zero" in finding.text for finding in diagnosis.findings)
    found = autoinit.recommend(model, batches())
    assert all(recipe.adapter == "same" for recipe in found.recipes)


def test_adapters_that_get_no_gradient_at_all_are_told() -> None:
    model = peft_model()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.zeros_(parameter)
    assert any("exactly zero" in finding.text for finding in autoinit.diagnose(model, batches()).findings)
