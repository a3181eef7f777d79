"""Starts of adapters in plans, files and searches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from adapted import ByHand, batches, ids, llama, peft_model
from helpers import observed, unchanged
from torch import Tensor, nn

import autoinit
from autoinit.inheritance.pairs import find_pairs
from autoinit.inheritance.starts import HALF, needs_data, worked_out
from autoinit.recipes.adapters import ADAPTER_ROWS
from autoinit.recipes.catalogue import NAMED
from autoinit.tracing.choices import keep_choices

NEEDING = {"class_means", "shrink_and_perturb", "redo"}
TAKING = [name for name, row in ADAPTER_ROWS.items() if row.takes]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", ["pissa", "eva", "lora_orthogonal", "lora_default"])
def test_a_saved_plan_gives_the_same_bits_to_another_instance(name: str, tmp_path: Path) -> None:
    first, second = peft_model(), peft_model()
    autoinit.apply_(first, name, batches(), seed=5).save(tmp_path / "plan.json")
    autoinit.apply_(second, tmp_path / "plan.json")
    assert equal(weights(first), weights(second))
    autoinit.apply_(second, tmp_path / "plan.json")  # what is taken once is not taken twice
    assert equal(weights(first), weights(second))


def test_values_stand_beside_a_plan_and_are_checked(tmp_path: Path) -> None:
    model, path = peft_model(), tmp_path / "plan.json"
    autoinit.apply_(model, "pissa", batches()).save(path)
    beside = path.with_suffix(".safetensors")
    assert json.loads(path.read_text())["values"] == beside.name
    content = beside.read_bytes()
    for damage, words in (
        (None, "needs 'plan.safetensors' beside it"),
        (content[: len(content) // 2], "cannot be used"),
        (content[:-4] + b"\0\0\0\1", "not those that it was saved with"),
    ):
        beside.unlink() if damage is None else beside.write_bytes(damage)
        other = peft_model()
        with pytest.raises(autoinit.PlanFileError, match=words), unchanged(other):
            autoinit.apply_(other, path)


def test_a_plan_for_other_trained_weights_is_refused() -> None:
    plan = autoinit.apply_(peft_model(), "pissa", batches())
    other = peft_model()
    with torch.no_grad():
        other.get_parameter(find_pairs(other)[1].base).mul_(1.5)
    with pytest.raises(autoinit.PlanMismatchError, match="trained weights that are others here"), unchanged(other):
        autoinit.apply_(other, plan)


def test_a_resolved_plan_is_on_paper_until_a_recipe_is_applied(tmp_path: Path) -> None:
    model = peft_model()
    plan = autoinit.resolve("pissa", keep_choices(model, autoinit.trace(model, batches())))
    assert plan.pending
    with pytest.raises(autoinit.PlanMismatchError, match=r"apply_\(model, plan.recipe, data\)"), unchanged(model):
        autoinit.apply_(model, plan)
    with pytest.raises(autoinit.ArgumentError, match="not worked out yet"):
        plan.save(tmp_path / "plan.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", TAKING)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_was_taken_is_given_back(name: str, kind: str) -> None:
    model = peft_model(kind)
    before = weights(model)
    plan = autoinit.apply_(model, autoinit.Recipe(adapter=name), batches())
    exact = autoinit.restore_(model, plan)
    for pair in find_pairs(model):
        one, other = model.get_parameter(pair.base).detach(), before[pair.base]
        torch.testing.assert_close(one, other, rtol=0, atol=2 * float(other.abs().max()) * 2**-23)
        assert (pair.base in exact) == torch.equal(one, other)
        assert not model.get_parameter(pair.up).any()
    with torch.no_grad():
        logits = model(input_ids=ids()).logits
        model.load_state_dict(before)
        torch.testing.assert_close(logits, model(input_ids=ids()).logits, rtol=1e-5, atol=1e-6)


def test_trained_adapters_stay_where_weights_are_given_back() -> None:
    model = peft_model()
    plan = autoinit.apply_(model, "pissa", batches())
    pair = find_pairs(model)[0]
    with torch.no_grad():
        model.get_parameter(pair.up).add_(0.1)
    trained = model.get_parameter(pair.up).clone()
    autoinit.restore_(model, plan)
    assert torch.equal(model.get_parameter(pair.up), trained)


def test_weights_that_were_trained_since_are_not_given_anything() -> None:
    model = peft_model()
    plan = autoinit.apply_(model, "pissa", batches())
    with torch.no_grad():
        model.get_parameter(find_pairs(model)[0].base).add_(0.1)
    with pytest.raises(autoinit.PlanMismatchError, match="trained since"), unchanged(model):
        autoinit.restore_(model, plan)
    with pytest.raises(autoinit.RecipeError, match="restore_ takes the plan"):
        autoinit.restore_(model, "pissa")


def test_measuring_leaves_the_model_as_it_is() -> None:
    model = peft_model(lora_dropout=0.3).train()
    model(**batches()[0]).loss.backward()
    before = observed(model)
    with unchanged(model):
        graph = keep_choices(model, autoinit.trace(model, batches()))
    assert before.keys() == observed(model).keys()
    plan = autoinit.apply_(model, "lora_ga", batches())
    after = observed(model)
    moved = {key.removesuffix(" (values)") for key in before if before[key] != after[key]}
    assert moved == {fill.name for fill in plan.values() if not fill.untouched}
    assert graph.keys() == plan.keys()


def test_in_half_precision_the_plan_says_that_it_rounds() -> None:
    model = peft_model().to(torch.bfloat16)
    assert HALF in autoinit.apply_(model, "pissa", batches()).notes
    assert HALF not in autoinit.apply_(peft_model(), "pissa", batches()).notes


def test_only_what_is_measured_needs_data() -> None:
    needing = {name for name in ADAPTER_ROWS if needs_data(autoinit.Recipe(adapter=name))}
    assert needing == {"eva", "lora_ga", "corda"}
    assert {name for name, recipe in NAMED.items() if needs_data(recipe)} - needing == NEEDING
    model = peft_model()
    graph = keep_choices(model, autoinit.trace(model, batches()))
    with pytest.raises(autoinit.RecipeError, match="Pass data="), unchanged(model):
        worked_out(model, autoinit.resolve("eva", graph), graph)
    with unchanged(model):
        assert not worked_out(model, autoinit.resolve("pissa", graph), graph).pending


def adapted_task() -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """A model trained on one repetition of tokens, with adapters, and batches of another one."""
    model, first = llama(), batches(64, 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for batch in first * 6:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted = peft_model()
    adapted.load_state_dict(
        {key: model.state_dict()[key.removeprefix("base_model.model.").replace(".base_layer", "")]
         for key in adapted.state_dict() if "lora_" not in key}, strict=False,
    )  # fmt: skip
    other = (torch.arange(64 * 12).reshape(64, 12) * 11 + 3) % 59
    return adapted, [{"input_ids": part, "labels": part} for part in other.split(8)]


@pytest.mark.parametrize("executor", ["sequential", "processes"])
def test_a_search_tries_the_starts_and_leaves_trained_weights_alone(executor: str) -> None:
    torch.manual_seed(0)
    model, data = adapted_task()
    before = weights(model)
    selection = autoinit.select(
        model, data, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2), budget=autoinit.Budget(steps=700),
        executor=executor, apply=False,
    )  # fmt: skip
    assert equal(before, weights(model))
    tried = {key for key in selection.trials["recipe"] if "adapter=" in key}
    assert {f"as_is adapter={name}" for name in ("default", "pissa", "lora_ga")} <= tried
    assert set(selection.trials["recipe"]) == tried | {"as_is"}, "nothing else can be chosen"
    assert set(selection.trials["state"]) <= {"complete", "pruned"}
    first = selection.trials.groupby("recipe")["first_loss"].first()
    assert first.max() / first.min() < 1 + 1e-4, "every start begins where the trained weights are"


def test_a_chosen_start_is_saved_and_applied_elsewhere(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = adapted_task()
    untouched = weights(model)
    selection = autoinit.select(
        model, data, optimizer=lambda p: torch.optim.SGD(p, lr=0.3), budget=autoinit.Budget(steps=1200),
        recipes=["lora_ga", "pissa"], executor="sequential",
    )  # fmt: skip
    assert not selection.kept, selection.why
    chosen = weights(model)
    assert not equal(untouched, chosen)
    selection.save(tmp_path / "chosen.json", full=True)
    model.load_state_dict(untouched)
    autoinit.apply_(model, tmp_path / "chosen.json")
    assert equal(chosen, weights(model))
    assert autoinit.Selection.load(tmp_path / "chosen.json").recipe == selection.recipe


def test_the_same_seed_gives_the_same_choice_on_any_number_of_processes() -> None:
    model, data = adapted_task()
    found = [
        autoinit.select(model, data, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2), executor=executor,
                        budget=autoinit.Budget(steps=400), apply=False)
        for executor in ("sequential", "processes")
    ]  # fmt: skip
    assert found[0].trials["recipe"].to_list() == found[1].trials["recipe"].to_list()
    assert found[0].trials["last_loss"].to_list() == found[1].trials["last_loss"].to_list()


def test_stacks_are_not_made_where_adapters_take_from_frozen_weights() -> None:
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), ByHand(), nn.Linear(20, 3))
    data = (torch.randn(128, 6), torch.randint(3, (128,)))
    with pytest.raises(autoinit.ArgumentError, match="may take from the frozen weights"):
        autoinit.select(model, data, budget=autoinit.Budget(steps=200), executor="stacked", apply=False)


def longer(rows: int = 4) -> tuple[nn.Module, dict[str, Tensor]]:
    """Returns a GPT-2 with more tokens than its checkpoint, and the checkpoint."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=16)).eval()
    stored = {name: value.clone() for name, value in model.state_dict().items()}
    model.resize_token_embeddings(64 + rows, mean_resizing=False)
    return model, stored


@pytest.mark.parametrize("rows", ["mean", "mean_cov", "small", "zero"])
def test_rows_beyond_a_checkpoint_are_set_and_no_others(rows: str, tmp_path: Path) -> None:
    model, stored = longer()
    other = longer()[0]
    tokens = torch.randint(0, 64, (4, 12), generator=torch.Generator().manual_seed(1))
    before = weights(model)
    plan = autoinit.apply_(model, f"rows_{rows}", {"input_ids": tokens, "labels": tokens}, checkpoint=stored, seed=2)
    by_hand, _ = longer()
    autoinit.rows_(by_hand, method=rows, old=64, seed=2)
    assert equal(weights(model), weights(by_hand))
    assert not torch.equal(weights(model)["transformer.wte.weight"][64:], before["transformer.wte.weight"][64:])
    assert all(torch.equal(weights(model)[name][: len(value)], value) for name, value in stored.items())
    plan.save(tmp_path / "plan.json")
    autoinit.apply_(other, tmp_path / "plan.json")
    assert equal(weights(model), weights(other))


def test_a_search_chooses_what_new_rows_start_from() -> None:
    model, stored = longer()
    tokens = torch.randint(0, 68, (64, 12), generator=torch.Generator().manual_seed(1))
    data = [{"input_ids": part, "labels": part} for part in tokens.split(8)]
    with unchanged(model):
        found = autoinit.select(
            model, data, step=lambda net, batch: net(**batch).loss, checkpoint=stored, apply=False,
            budget=autoinit.Budget(steps=600),
        )  # fmt: skip
    assert {f"as_is rows={rows}" for rows in ("mean", "mean_cov", "small", "zero")} <= set(found.trials["recipe"])
    assert "failed" not in set(found.trials["state"])


class Tagger(nn.Module):
    """A table of tokens with two new rows, and a linear map with a low-rank pair beside."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.table, self.tagged = nn.Embedding(tokens, 24), ByHand()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tagged(self.table(tokens))


def test_rows_beside_adapters_are_set_with_them() -> None:
    torch.manual_seed(0)
    model, stored = Tagger(22), {}
    for name, value in model.state_dict().items():
        if name.startswith("table") or "base" in name:
            stored[name] = value[:20].clone() if name.startswith("table") else value.clone()
    plan = autoinit.apply_(
        model, autoinit.Recipe(adapter="pissa", rows="mean"), torch.randint(0, 22, (4, 5)), checkpoint=stored
    )
    table = model.table.weight.detach()
    assert torch.equal(table[:20], stored["table.weight"])
    assert torch.allclose(table[20:], table[:20].mean(0).expand(2, -1), atol=1e-6)
    assert any(fill.distribution == "remainder" for fill in plan.fills)


def test_a_frozen_table_has_no_new_rows() -> None:
    model, stored = longer()
    model.transformer.wte.weight.requires_grad_(False)
    tokens = torch.randint(0, 64, (4, 12))
    with pytest.raises(autoinit.RecipeError, match="fewer rows than the model's"), unchanged(model):
        autoinit.apply_(model, "rows_mean", {"input_ids": tokens, "labels": tokens}, checkpoint=stored)
