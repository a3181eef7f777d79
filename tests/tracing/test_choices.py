"""What the owner has set on purpose stays: zero heads, constant biases, and nothing else."""

from __future__ import annotations

import pytest
import torch
from helpers import unchanged
from once import shipped_recommender
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.utils import parametrizations

import autoinit
from autoinit.errors import ModelError
from autoinit.proxies.originals import original_of
from autoinit.task.task import make_task
from autoinit.tracing.choices import keep_choices
from autoinit.tracing.tracing import trace, trace_task

DIGITS = load_digits()
BATCH = (torch.tensor(DIGITS.data[:64] / 16, dtype=torch.float32), torch.tensor(DIGITS.target[:64]))


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))


def test_what_its_owner_starts_at_zero_stays_zero() -> None:
    model = mlp()
    nn.init.zeros_(model[4].weight)
    plan = autoinit.apply_(model, "he_normal", BATCH)
    assert plan["4.weight"].reason == "its owner starts it at zero"
    assert not model[4].weight.any()
    assert model[2].weight.any()


def test_nothing_but_zeros_is_drawn() -> None:
    model = mlp()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    autoinit.apply_(model, "he_normal", BATCH)
    assert model[4].weight.any()


def test_a_matrix_of_one_number_is_its_owner_s_choice() -> None:
    model = nn.Sequential(*mlp(), nn.Linear(10, 1), nn.Linear(1, 1), nn.Linear(1, 10))
    nn.init.constant_(model[2].weight, 0.03)
    plan = autoinit.apply_(model, "he_normal", BATCH)
    assert plan["2.weight"].reason == "its owner sets it to a constant"
    assert (model[2].weight == 0.03).all()
    assert {name for name in plan if plan[name].untouched} == {"2.weight", "2.bias"}


def test_nothing_but_constants_is_drawn() -> None:
    model = mlp()
    for layer in (model[0], model[2], model[4]):
        nn.init.constant_(layer.weight, 0.1)
    autoinit.apply_(model, "he_normal", BATCH)
    assert model[4].weight.std() > 0


def test_a_bias_that_its_owner_set_stays() -> None:
    model = mlp()
    nn.init.constant_(model[4].bias, -4.6)
    plan = autoinit.apply_(model, "he_normal", BATCH)
    assert plan["4.bias"].reason == "its owner sets it to a constant"
    assert (model[4].bias == -4.6).all()
    assert not model[2].bias.any()


def test_the_forget_gate_s_bias_that_its_owner_set_stays() -> None:
    model = nn.LSTM(8, 4)
    with torch.no_grad():
        for bias in (model.bias_ih_l0, model.bias_hh_l0):
            bias.zero_()
        model.bias_ih_l0[4:8] = 1.0
    plan = autoinit.apply_(model, "he_normal", [torch.randn(5, 2, 8)], loss=lambda output, target: output[0].sum())
    assert plan["bias_ih_l0"].untouched
    assert model.bias_ih_l0[4:8].eq(1).all()


def test_a_bias_of_a_frozen_weight_stays() -> None:
    model = mlp()
    model[2].weight.requires_grad_(False)
    before = model[2].bias.clone()
    plan = autoinit.apply_(model, "he_normal", BATCH)
    assert torch.equal(model[2].bias, before)
    assert "its weight is kept: frozen" in plan["2.bias"].reason


def test_reading_a_spectral_norm_changes_nothing() -> None:
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(64, 10)), nn.ReLU(), nn.Linear(10, 10))
    with unchanged(model):
        keep_choices(model, trace(model, BATCH))


class Patches(nn.Module):
    """Sixteen patches of four pixels, each at its place."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.patch, self.body, self.head = nn.Linear(4, 32), nn.Linear(32, 32), nn.Linear(32, 10)
        self.place = nn.Parameter(table)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patch(x.unflatten(1, (16, 4))) + self.place
        return self.head(self.body(tokens).relu().mean(1))


def waves(places: int, width: int) -> torch.Tensor:
    angles = torch.arange(places)[:, None] / 10_000 ** (torch.arange(width // 2) / (width // 2))
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def test_a_random_table_of_positions_is_drawn_and_a_pattern_stays() -> None:
    torch.manual_seed(0)
    small = autoinit.Recipe(base="truncated_normal")
    for table, stays in (
        (torch.randn(1, 16, 32), False),
        (torch.randn(16, 32) * 1e-3, False),
        (torch.zeros(1, 16, 32), True),
        (waves(16, 32), True),
        (0.3 * waves(16, 32).bfloat16().float()[None], True),
    ):
        model = Patches(table.clone())
        plan = autoinit.apply_(model, small, BATCH)
        assert bool((model.place == table).all()) == stays
        assert ("its owner sets it to a pattern" in plan["place"].reason) == stays
        if not stays:
            assert 0.018 < model.place.std().item() < 0.022


class Pretrained(nn.Module):
    """A body with a recurrent cell and a weight-normed layer, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(8, 16, batch_first=True)
        self.body = nn.ModuleList([parametrizations.weight_norm(nn.Linear(16, 16)), nn.Linear(16, 16)])
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.cell(x.view(-1, 8, 8))[0][:, -1]
        for layer in self.body:
            x = layer(x).relu()
        return self.head(x)


def only_the_head(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(list(parameters)[-2:], lr=0.1)


@pytest.mark.parametrize("existing", [True, False])
def test_what_the_optimizer_does_not_hold_stays_in_every_candidate(existing: bool) -> None:
    model = Pretrained()
    optimizer = torch.optim.Adam(model.head.parameters()) if existing else only_the_head
    data = (DIGITS.data[:512] / 16, DIGITS.target[:512])
    selection = autoinit.select(
        model, data, optimizer=optimizer, recipes=["he_normal"], budget=autoinit.Budget(steps=150), apply=False
    )
    plan = autoinit.resolve("he_normal", selection.graph)
    assert {fill.name for fill in plan.fills if not fill.untouched} == {"head.weight", "head.bias"}
    assert plan["body.0.weight"].reason == plan["cell.weight_hh_l0"].reason == "your optimizer does not train it"
    body = {name: p.clone() for name, p in model.named_parameters() if not name.startswith("head")}
    autoinit.apply_(model, plan)
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in body.items())


def test_a_recommendation_leaves_what_the_optimizer_does_not_hold() -> None:
    model = Pretrained()
    with pytest.raises(ModelError, match="leave no parameter"):
        autoinit.recommend(model, BATCH, optimizer=only_the_head, only="body.*", recommender=shipped_recommender())


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_proxy_s_optimizer_says_what_of_the_model_is_not_trained(device: str) -> None:
    """On the meta device by the names of what it does not hold of the proxy."""
    small = Pretrained()
    with torch.device(device):
        large = Pretrained()
        large.body.append(nn.Linear(16, 16))
    data = (DIGITS.data[:512] / 16, DIGITS.target[:512])
    task = make_task(small, data, optimizer=only_the_head)
    original = original_of(large, task, trace_task(task), optimizer=only_the_head if device == "cpu" else None)
    assert {layer.name for layer in original.graph.layers if not layer.keep} == {"head.weight", "head.bias"}
