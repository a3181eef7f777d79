"""Starts of adapters, against peft's own and against the formulas worked out by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from adapted import TARGETS, ByHand, Inherited, batches, gpt2, ids, llama, peft_model
from helpers import unchanged
from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora.config import CordaConfig, LoraGAConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit
from autoinit.inheritance.pairs import find_pairs
from autoinit.recipes.adapters import ADAPTER_ROWS

WORKED_OUT = [name for name, row in ADAPTER_ROWS.items() if not row.drawn]
TAKING = [name for name, row in ADAPTER_ROWS.items() if row.takes]


def entry(name: str) -> str:
    return name if name in autoinit.catalogue()["name"].to_list() else f"lora_{name}"


_ONE = {"input_ids": ids(1, 32), "labels": ids(1, 32)}
"""One sequence: peft's CorDA takes no more at a time."""


def logits(model: nn.Module) -> Tensor:
    return logits_of(model, ids())


def logits_of(model: nn.Module, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(input_ids=tokens).logits


def change(after: Tensor, before: Tensor) -> float:
    after, before = after.detach(), before.detach()
    return float((after - before).abs().max() / before.abs().max())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["lora", "dora", "rslora"])
@pytest.mark.parametrize("name", ADAPTER_ROWS)
def test_the_output_at_the_start_is_what_it_was(name: str, options: dict[str, bool], kind: str) -> None:
    model = peft_model(kind, **options)
    before, weights = logits(model), {key: value.clone() for key, value in model.state_dict().items()}
    plan = autoinit.apply_(model, entry(name), batches())
    assert change(logits(model), before) <= 1e-5
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, weights[key])}
    pairs = find_pairs(model)
    taken = {pair.base for pair in pairs} if ADAPTER_ROWS[name].takes else set()
    assert moved <= {pair.down for pair in pairs} | {pair.up for pair in pairs} | taken
    assert taken <= moved
    assert {fill.name for fill in plan.values() if fill.distribution == "remainder"} == taken
    assert all("stay what they were" in plan[base].reason for base in taken)


def angle(one: Tensor, other: Tensor) -> float:
    """The largest principal angle between the spaces of two sets of rows, by their sines."""
    first, second = (torch.linalg.qr(rows.detach().double().T)[0] for rows in (one, other))
    return float(torch.linalg.matrix_norm(second - first @ (first.T @ second), ord=2))


def of_peft(name: str, kind: str) -> nn.Module:
    """The model with peft's own start of the same name."""
    options: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS[kind]}
    options["fan_in_fan_out"] = kind == "gpt2"
    model, batch = (llama() if kind == "llama" else gpt2()).eval(), _ONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "corda":
            config = LoraConfig(init_lora_weights="corda", corda_config=CordaConfig(corda_method="ipm"), **options)
            preprocess_corda(model, config, run_model=lambda: model(**batch))
        elif name == "lora_ga":
            config = LoraConfig(init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig(), **options)
            preprocess_loraga(model, config, train_step=lambda: model(**batch).loss.backward())
        elif name == "eva":
            config = LoraConfig(init_lora_weights="eva", eva_config=EvaConfig(rho=1.0, use_label_mask=False), **options)
            adapted = get_peft_model(model, config)
            initialize_lora_eva_weights(adapted, [batch] * 8, show_progress_bar=False)
            return adapted.eval()
        else:
            config = LoraConfig(init_lora_weights=name, **options)
        return get_peft_model(model, config).eval()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("name", ["pissa", "olora", "corda", "lora_ga"])
def test_it_spans_the_spaces_of_peft_s_own(name: str, kind: str) -> None:
    if (name, kind) == ("olora", "gpt2"):
        pytest.skip("peft decomposes the transposed weight of a Conv1D as if it were a linear layer's")
    theirs, ours = of_peft(name, kind), peft_model(kind)
    autoinit.apply_(ours, entry(name), [_ONE] * 2)
    assert change(logits(ours), logits(theirs)) <= 1e-4
    most = 2e-2 if name == "lora_ga" else 1e-3  # peft decomposes gradients by random projections
    for pair in find_pairs(ours):
        down, up = (ours.get_parameter(one).detach() for one in (pair.down, pair.up))
        their_down, their_up = (theirs.get_parameter(one).detach() for one in (pair.down, pair.up))
        assert angle(down, their_down) < most
        assert angle(up.T, their_up.T) < most
        if name != "lora_ga":  # whose paper scales both matrices alike; peft scales one, by the gradient's size
            torch.testing.assert_close(up @ down, their_up @ their_down, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_eva_holds_no_less_of_the_inputs_than_peft_s_own(kind: str) -> None:
    theirs, ours = of_peft("eva", kind), peft_model(kind)
    autoinit.apply_(ours, "eva", [_ONE] * 2)
    assert change(logits(ours), logits(theirs)) <= 1e-4
    for pair in find_pairs(ours):
        seen: list[Tensor] = []
        module = ours.get_submodule(pair.module)
        handle = module.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0][0].detach()))
        logits_of(ours, _ONE["input_ids"])
        handle.remove()
        centred = seen[0] - seen[0].mean(0)
        held = [float((centred @ m.get_parameter(pair.down).detach().T).square().sum()) for m in (ours, theirs)]
        assert held[0] >= held[1] * (1 - 1e-4)
        assert held[0] == pytest.approx(float(torch.linalg.svdvals(centred)[:4].square().sum()), rel=1e-4)
        assert not ours.get_parameter(pair.up).any()


@pytest.mark.parametrize("make", [ByHand, Inherited])
@pytest.mark.parametrize("name", WORKED_OUT)
def test_pairs_of_one_s_own_start_alike(name: str, make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), make(), nn.Tanh(), nn.Linear(20, 3))
    inputs, labels = torch.randn(64, 6), torch.randint(3, (64,))
    before = model(inputs).detach()
    autoinit.apply_(model, autoinit.Recipe(adapter=name), (inputs, labels))
    assert change(model(inputs).detach(), before) <= 1e-5


def test_pissa_is_the_best_approximation_of_its_rank() -> None:
    model = nn.Sequential(ByHand(scale=0.5))
    weight = model[0].base.weight.clone()
    autoinit.apply_(model, "pissa", torch.randn(8, 24))
    part = 0.5 * model[0].up.weight @ model[0].down.weight
    left, sizes, right = torch.linalg.svd(weight)
    best = left[:, :4] @ torch.diag(sizes[:4]) @ right[:4]
    torch.testing.assert_close(part, best, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model[0].base.weight + part, weight)


def test_eva_finds_the_directions_that_the_data_have() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(256, 4) @ torch.randn(4, 24) + 5.0  # four directions about a mean that is none of them
    model = nn.Sequential(ByHand())
    autoinit.apply_(model, "eva", (inputs, torch.randn(256, 20)))
    centred = inputs - inputs.mean(0)
    assert angle(model[0].down.weight, torch.linalg.svd(centred)[2][:4]) < 1e-3


def test_lora_ga_takes_the_gradient_s_own_directions() -> None:
    torch.manual_seed(0)
    model, inputs, targets = nn.Sequential(ByHand()), torch.randn(32, 24), torch.randn(32, 20)
    error = model(inputs) - targets
    gradient = (2 * error.T @ inputs / error.numel()).detach()
    autoinit.apply_(model, "lora_ga", [(inputs, targets)] * 8)
    left, _, right = torch.linalg.svd(gradient)
    size = 20**0.25 / 4
    assert angle(model[0].down.weight, right[:4]) < 1e-3
    assert angle(model[0].up.weight.T, left[:, 4:8].T) < 1e-3
    torch.testing.assert_close(model[0].down.weight.norm(dim=1), torch.full((4,), size))
    torch.testing.assert_close(model[0].up.weight.norm(dim=0), torch.full((4,), size))


def test_both_matrices_of_an_orthogonal_pair_get_a_gradient() -> None:
    model = peft_model()
    autoinit.apply_(model, "lora_orthogonal", batches())
    model(**batches()[0]).loss.backward()
    for pair in find_pairs(model):
        down, up = model.get_parameter(pair.down), model.get_parameter(pair.up)
        assert float((up @ down).detach().abs().max()) < 1e-6 * float((up.norm() * down.norm()).detach())
        assert down.grad is not None
        assert up.grad is not None
        assert float(down.grad.norm()) > 0
        assert float(up.grad.norm()) > 0


def test_other_seeds_draw_other_pairs_and_the_same_seed_the_same() -> None:
    def drawn(seed: int) -> Tensor:
        model = peft_model()
        autoinit.apply_(model, "lora_orthogonal", batches(), seed=seed)
        return model.get_parameter(find_pairs(model)[0].down).detach()

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


class Packed(ByHand):
    """A pair beside a weight of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.base.weight = nn.Parameter(torch.randint(-9, 9, (20, 24), dtype=torch.int8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.base.weight.float().T / 40 + self.scale * self.up(self.down(x))


@pytest.mark.parametrize("name", TAKING)
def test_nothing_is_taken_from_quantized_weights(name: str) -> None:
    model = nn.Sequential(Packed())
    data = (torch.randn(8, 24), torch.randn(8, 20))
    with pytest.raises(autoinit.RecipeError, match=r"(?s)adapters.*lora_default"), unchanged(model):
        autoinit.apply_(model, entry(name), data)


def test_bad_requests_say_what_to_do() -> None:
    cases: list[tuple[nn.Module, str, Any, str]] = [
        (peft_model(r=3), "lora_orthogonal", batches(), r"even\. Got 3"),
        (peft_model(r=12), "lora_ga", batches(), r"2·rank.*smaller rank"),
        (peft_model(), "eva", None, r"Pass data="),
        (peft_model(target_modules=["embed_tokens"]), "eva", batches(), r"linear layers"),
        (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), "pissa", torch.randn(3, 4), r"low-rank adapters"),
    ]
    for model, name, data, words in cases:
        with pytest.raises(autoinit.RecipeError, match=words), unchanged(model):
            autoinit.apply_(model, name, data)


class Pointwise(nn.Module):
    """Convolutions of one tap, strided ones too, as in mobile networks."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.squeeze = nn.Conv2d(3, 24, 1), nn.Conv2d(24, 16, 1, stride=2)
        self.depthwise, self.head = nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.squeeze(self.depthwise(self.widen(x).relu()).relu()).mean((2, 3)))


@pytest.mark.parametrize("name", WORKED_OUT)
def test_convolutions_of_one_tap_are_linear_layers(name: str) -> None:
    model = get_peft_model(Pointwise(), LoraConfig(r=2, lora_alpha=4, target_modules=["squeeze"])).eval()
    images, labels = torch.randn(16, 3, 8, 8), torch.randint(5, (16,))
    with torch.no_grad():
        before = model(images)
    trained = model.get_parameter(find_pairs(model)[0].base).detach().clone()
    plan = autoinit.apply_(model, autoinit.Recipe(adapter=name), (images, labels))
    with torch.no_grad():
        assert change(model(images), before) <= 1e-5
    if name == "eva":
        seen = model.base_model.model.depthwise(model.base_model.model.widen(images).relu()).relu()
        rows = seen.detach()[:, :, ::2, ::2].movedim(1, -1).reshape(-1, 24)
        directions = torch.linalg.svd(rows - rows.mean(0))[2][:2]
        assert angle(model.get_parameter(find_pairs(model)[0].down).flatten(1), directions) < 1e-3
    autoinit.restore_(model, plan)
    torch.testing.assert_close(model.get_parameter(find_pairs(model)[0].base).detach(), trained, rtol=0, atol=1e-6)


class Waves(nn.Module):
    """Convolutions over time and over places with kernels, strides and paddings of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = nn.Conv1d(1, 12, 9, stride=2, padding=4)
        self.seen = nn.Conv2d(1, 16, (5, 3), padding="same")
        self.grouped = nn.Conv2d(16, 16, 3, groups=4)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        images = self.heard(x).tanh()[:, None]
        return self.head(self.grouped(self.seen(images).relu()).mean((2, 3)))


def waves(*targets: str, **options: bool) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=4, target_modules=list(targets), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of groups
        model: nn.Module = get_peft_model(Waves(), config).eval()
    return model, (torch.randn(16, 1, 40), torch.randint(5, (16,)))


@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["lora", "dora"])
@pytest.mark.parametrize("name", WORKED_OUT)
def test_adapters_of_kernels_keep_the_output_and_give_the_weight_back(name: str, options: dict[str, bool]) -> None:
    model, data = waves("heard", "seen", **options)
    with torch.no_grad():
        before = model(data[0])
    trained = [model.get_parameter(pair.base).detach().clone() for pair in find_pairs(model)]
    plan = autoinit.apply_(model, autoinit.Recipe(adapter=name), data)
    with torch.no_grad():
        assert change(model(data[0]), before) <= 1e-5
    bases = [model.get_parameter(pair.base).detach() for pair in find_pairs(model)]
    taken = [not torch.equal(base, old) for base, old in zip(bases, trained, strict=True)]
    assert taken == [ADAPTER_ROWS[name].takes] * 2
    autoinit.restore_(model, plan)
    for pair, old in zip(find_pairs(model), trained, strict=True):
        torch.testing.assert_close(model.get_parameter(pair.base).detach(), old, rtol=0, atol=1e-6)


@pytest.mark.parametrize("target", ["heard", "seen"])
def test_what_is_measured_of_a_convolution_are_its_patches(target: str) -> None:
    model, data = waves(target)
    autoinit.apply_(model, "eva", data)
    inner, (pair,) = model.base_model.model, find_pairs(model)
    with torch.no_grad():
        if target == "heard":
            patches = F.unfold(data[0][:, :, None], (1, 9), stride=(1, 2), padding=(0, 4))
        else:
            images = F.pad(inner.heard(data[0]).tanh()[:, None], (1, 1, 2, 2))
            patches = F.unfold(images, (5, 3))
    rows = patches.movedim(1, -1).flatten(0, 1)
    directions = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:4]
    assert angle(model.get_parameter(pair.down).detach().flatten(1), directions) < 1e-3


def test_the_gradient_s_start_takes_its_singular_vectors_over_the_kernel() -> None:
    model, data = waves("seen")
    (pair,) = find_pairs(model)
    autoinit.apply_(model, "lora_ga", data)
    plain = Waves()
    torch.manual_seed(0)
    plain = Waves().train()
    F.cross_entropy(plain(data[0]), data[1]).backward()
    right = torch.linalg.svd(plain.seen.weight.grad.flatten(1), full_matrices=False)[2][:4]
    assert angle(model.get_parameter(pair.down).detach().flatten(1), right) < 1e-3


def test_kernels_of_groups_are_refused_with_what_fits() -> None:
    model, data = waves("grouped")
    with pytest.raises(autoinit.RecipeError, match="Use lora_default"), unchanged(model):
        autoinit.apply_(model, "pissa", data)
    assert autoinit.apply_(model, "lora_default", data)


@pytest.mark.parametrize("options", [{"dilation": 2}, {"padding_mode": "circular", "padding": 1}])
def test_kernels_that_peft_s_adapters_do_not_share_lend_nothing(options: dict[str, Any]) -> None:
    model = get_peft_model(nn.Sequential(nn.Conv2d(4, 8, 3, **options)), LoraConfig(r=2, target_modules=["0"]))
    assert {pair.kind for pair in find_pairs(model)} == {"conv"}
