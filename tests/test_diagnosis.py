"""Networks with a known ailment, real digits, and the remedy tried out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from helpers import unchanged
from once import mnist
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from torch.nn import functional as F

from autoinit.apply import apply_
from autoinit.diagnosis import Diagnosis, Finding, diagnose
from autoinit.errors import DataError
from autoinit.recipes.recipe import Recipe

X, Y = mnist()
X = X[::5] / 255
Y = Y[::5]


def mlp(activation: type[nn.Module], depth: int, scale: float = 1.0, bias: float = 0.0, width: int = 64) -> nn.Module:
    sizes = [784] + [width] * depth
    model = nn.Sequential(
        *(part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), activation())), nn.Linear(width, 10)
    )
    with torch.no_grad():
        for part in model:
            if isinstance(part, nn.Linear):
                part.weight.mul_(scale)
                part.bias.add_(bias)
    return model


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.inside, self.head = nn.Linear(28, 32), nn.Linear(32, 10)
        self.body = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.inside(x.unflatten(1, (28, 28)))).mean(1))


def drawn(model: nn.Module, recipe: str | Recipe) -> nn.Module:
    apply_(model, recipe, (X, Y))
    return model


def constant(model: nn.Module, value: float) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def zero_head(model: Any) -> nn.Module:
    nn.init.zeros_(model[-1].weight)
    return model  # type: ignore[no-any-return]


def found(diagnosis: Diagnosis) -> list[str]:
    return [f"{finding.severity}: {finding.text} | {finding.remedy}" for finding in diagnosis.findings]


ILL: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "tanh, 20 layers": (
        lambda: mlp(nn.Tanh, 20),
        r"warning: gradients vanish: 0.weight gets 0.00\d+ of what 40.weight gets \| .*'orthogonal'.*select",
    ),
    "sigmoid, 20 layers": (
        lambda: mlp(nn.Sigmoid, 20),
        r"error: gradients vanish: 0.weight gets \S+e-1\d of what 40.weight gets \| .*log2_gain=2",
    ),
    "relu, 20 layers": (lambda: mlp(nn.ReLU, 20), r"error: gradients vanish: .* \| .*'he_normal'"),
    "dead": (lambda: mlp(nn.ReLU, 3, bias=-3), r"error: dead units: 100 % of 0.weight's .* \(3 layers like it\)"),
    "saturated": (lambda: mlp(nn.Tanh, 5, scale=20), r"warning: saturated units: \d\d % .*'xavier_normal'"),
    "exploding forward": (
        lambda: mlp(nn.ReLU, 10, scale=20),
        r"warning: signals grow with depth.*0.weight.*'he_normal'",
    ),
    "exploding backward": (lambda: mlp(nn.Tanh, 20, scale=6), "warning: gradients explode on their way back"),
    "not finite": (lambda: mlp(nn.ReLU, 20, scale=1e4), r"error: the loss is nan.*not finite is \d+.weight's"),
    "fading": (
        lambda: drawn(mlp(nn.ReLU, 20), "truncated_normal_002"),
        r"warning: signals fade with depth: outputs spread by 0.\d+ in 0.weight, .* in 38.weight",
    ),
    "zero": (lambda: constant(mlp(nn.ReLU, 3), 0.0), "error: all values are equal in 0.weight, .* never differ"),
    "constant": (lambda: constant(mlp(nn.ReLU, 3), 0.01), "error: all values are equal in 0.weight"),
    "large head": (
        lambda: mlp(nn.ReLU, 1, scale=10, width=256),
        r"warning: the loss starts at \d+.*, \d.* times the 2.3 of the best constant guess \| .*head='eighth'",
    ),
}


@pytest.mark.parametrize("name", ILL)
def test_ailments_are_named(name: str) -> None:
    build, message = ILL[name]
    model = build()
    with unchanged(model):
        diagnosis = diagnose(model, (X, Y))
    assert any(re.search(message, text) for text in found(diagnosis)), found(diagnosis)
    assert not diagnosis.healthy
    assert diagnosis.findings[0].severity == min(
        (finding.severity for finding in diagnosis.findings), key=("error", "warning", "note").index
    )


WELL: dict[str, Callable[[], nn.Module]] = {
    "he, relu": lambda: drawn(mlp(nn.ReLU, 10), "he_normal"),
    "orthogonal, tanh": lambda: drawn(mlp(nn.Tanh, 20), "orthogonal"),
    "default, shallow": lambda: mlp(nn.ReLU, 1),
    "transformer": Transformer,
}


@pytest.mark.parametrize("name", WELL)
def test_the_healthy_are_called_so(name: str) -> None:
    model = WELL[name]()
    with unchanged(model):
        diagnosis = diagnose(model, (X, Y))
    assert found(diagnosis) == []
    assert str(diagnosis).endswith(
        "Healthy: signals and gradients keep their size, and the loss starts where it should."
    )


@pytest.mark.parametrize(
    ("activation", "depth", "recipe"),
    [
        (nn.Tanh, 20, Recipe(base="orthogonal")),
        (nn.ReLU, 20, Recipe(base="he_normal")),
        (nn.Sigmoid, 10, Recipe(base="orthogonal", log2_gain=2)),  # of twenty it leaves a hundredth, or a bit less
    ],
)
def test_the_remedy_mends_what_it_is_named_for(activation: type[nn.Module], depth: int, recipe: Recipe) -> None:
    model = mlp(activation, depth)
    before = diagnose(model, (X, Y))
    shown = repr(recipe.base) if recipe.log2_gain == 0 else f"Recipe(base={recipe.base!r}, log2_gain=2)"
    assert shown in next(finding.remedy for finding in before.findings if "vanish" in finding.text)
    after = diagnose(drawn(model, recipe), (X, Y))
    assert not any("vanish" in text or "explode" in text for text in found(after))


def test_a_zero_head_is_only_noted() -> None:
    diagnosis = diagnose(zero_head(drawn(mlp(nn.ReLU, 2), "he_normal")), (X, Y))
    assert [finding.severity for finding in diagnosis.findings] == ["warning", "note"]
    assert "4.weight starts at a constant" in diagnosis.findings[1].text
    assert "exactly zero: 0.weight, 2.weight" in diagnosis.findings[0].text


def test_halves_that_pull_against_each_other() -> None:
    """Two rows of opposite targets: what one half asks for, the other forbids."""
    x = torch.ones(400, 4)
    y = torch.tensor([1.0, -1.0]).repeat(200)[:, None]
    batches = [(x[:2], y[:2])] * 20
    model = nn.Linear(4, 1, bias=False)
    nn.init.zeros_(model.weight)
    diagnosis = diagnose(model, batches)
    assert diagnosis.signals.agreement == pytest.approx(-1)
    assert any("opposite directions (cosine -1)" in text for text in found(diagnosis))


def test_an_output_of_one_value_is_no_error() -> None:
    batches = [(torch.randn(1, 4), torch.randn(1, 1)) for _ in range(6)]
    diagnosis = diagnose(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)), batches)
    assert not any("not finite" in text for text in found(diagnosis))
    assert diagnosis.signals.layers[1].forward_std is None


def test_a_regression_is_measured_against_its_variance() -> None:
    x, y = load_diabetes(return_X_y=True)
    diagnosis = diagnose(nn.Linear(10, 1), (x, y))
    assert diagnosis.reference == pytest.approx(y.var(), rel=0.2)
    advice = r"subtract the targets' mean \(1[45]\d\), or set the output bias"
    assert any(re.search(advice, text) for text in found(diagnosis))
    centred = diagnose(nn.Linear(10, 1), (x, y - y.mean()))
    assert not any("the loss starts" in text for text in found(centred))


def test_a_wide_first_guess_of_a_regression_asks_for_a_smaller_head_or_larger_targets() -> None:
    x, y = load_diabetes(return_X_y=True)
    texts = found(diagnose(nn.Linear(10, 1), (x, (y - y.mean()) / 1e5)))
    assert any("head='eighth'), data); for a regression, scale the targets" in text for text in texts)


def test_unscaled_inputs_are_named_and_large_weights_are_not_taken_for_them() -> None:
    said = r"inputs have mean \d+ and std \d+: scale them"
    assert any(re.search(said, text) for text in found(diagnose(mlp(nn.ReLU, 1), (X * 2550, Y))))
    assert not any("scale them" in text for text in found(diagnose(mlp(nn.ReLU, 1, scale=200), (X, Y))))


class Sequence(nn.Module):
    """Rows of pixels, one a step."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(28, 16, num_layers=3, batch_first=True), nn.Linear(16, 10)
        with torch.no_grad():
            for parameter in self.rnn.parameters():
                parameter.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.unflatten(1, (28, 28)))[0][:, -1])


def test_what_was_not_measured_is_not_called_healthy() -> None:
    text = str(diagnose(Sequence(), (X, Y)))
    assert "Nothing stands out.\nNot measured: outputs of rnn.weight_ih_l0, rnn.weight_hh_l0, " in text
    normalized = nn.Sequential(nn.Linear(784, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
    text = str(diagnose(normalized, (X, Y)))
    assert text.endswith("Nothing stands out.\nNot measured: dead and saturated units of 0.weight.")
    assert "Not measured: the best constant guess" in str(diagnose(mlp(nn.ReLU, 1), (X, Y), loss=F.multi_margin_loss))


def test_gradients_that_get_lost_in_recurrent_layers_are_found() -> None:
    texts = found(diagnose(Sequence(1e-3), (X, Y)))
    assert any(re.search(r"warning: gradients are lost: rnn.weight_\w+ gets \S+e-\d+ of", text) for text in texts)


def test_a_weight_that_is_not_finite_is_named() -> None:
    model: Any = mlp(nn.ReLU, 2)
    with torch.no_grad():
        model[0].weight[3, 5] = math.nan
    with unchanged(model):
        diagnosis = diagnose(model, (X, Y))
    (finding,) = diagnosis.findings
    assert finding.text == "0.weight itself holds NaN or inf (1 of 50176 values)"
    assert not diagnosis.healthy


@pytest.mark.parametrize("name", [name for name in ILL if name != "not finite"])
def test_suggested_calls_hand_over_the_data(name: str) -> None:
    """Without data, activations that are called in forward are not seen."""
    for text in found(diagnose(ILL[name][0](), (X, Y))):
        assert text.count("apply_(model, ") == text.count(", data)") - text.count("select(model, data)")


def test_a_given_loss_or_step_is_used() -> None:
    model = mlp(nn.ReLU, 2)
    by_loss = diagnose(model, (X, Y), loss=nn.CrossEntropyLoss(label_smoothing=0.1))
    by_step = diagnose(model, (X, Y), step=lambda m, b: F.cross_entropy(m(b[0]), b[1], label_smoothing=0.1))
    assert by_loss.reference == pytest.approx(math.log(10), rel=0.01)  # as many of each digit, nearly
    assert by_step.reference is None
    assert by_loss.signals == by_step.signals


def test_printed_as_a_table() -> None:
    lines = str(diagnose(mlp(nn.Tanh, 20), (X, Y))).splitlines()
    assert lines[0].startswith("Loss 2.")
    assert "best constant guess 2.3" in lines[0]
    assert lines[2].split() == [
        "weight",
        "role",
        "activation",
        "output",
        "mean",
        "std",
        "gradient",
        "dead",
        "saturated",
    ]
    assert lines[4].split()[:3] == ["0.weight", "input", "tanh"]
    assert lines[24].split()[-2:] == ["-", "-"]
    assert any(line.startswith("warning: gradients vanish") for line in lines)
    assert any(line.startswith("    → try autoinit.apply_") for line in lines)


def test_json_is_valid_even_where_nothing_is_finite() -> None:
    diagnosis = diagnose(mlp(nn.ReLU, 20, scale=1e4), (X, Y))
    assert not math.isfinite(diagnosis.signals.loss)
    data = json.loads(diagnosis.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert data["signals"]["loss"] is None
    assert data["findings"][0]["severity"] == "error"
    assert len(data["signals"]["layers"]) == 21
    assert data["healthy"] is False


def test_findings_print_their_remedy() -> None:
    assert str(Finding("note", "this", "do that")) == "note: this\n    → do that"


def test_bad_input_is_told_before_anything_is_measured() -> None:
    model = mlp(nn.ReLU, 1)
    with pytest.raises(DataError, match="data is empty"), unchanged(model):
        diagnose(model, [])


def test_one_batch_is_enough() -> None:
    model = drawn(mlp(nn.ReLU, 2), "he_normal")
    x, y = torch.tensor(X[:32], dtype=torch.float32), torch.tensor(Y[:32])
    for data in ([(x, y)], (x, y), {"input": x, "labels": y}, torch.utils.data.DataLoader([(x, y)], batch_size=None)):
        options: dict[str, Any] = {"step": lambda m, b: F.cross_entropy(m(b["input"]), b["labels"])}
        with unchanged(model):
            diagnosis = diagnose(model, data, **(options if isinstance(data, dict) else {}))
        assert diagnosis.signals.loss == pytest.approx(F.cross_entropy(model(x), y).item())


def test_no_more_is_read_than_is_looked_at() -> None:
    read = []

    def batches() -> Any:
        for index in range(1000):
            read.append(index)
            yield torch.randn(64, 784), torch.randint(0, 10, (64,))

    diagnose(mlp(nn.ReLU, 1), batches())
    assert len(read) == 8


@pytest.mark.parametrize("data", [[], (X[:0], Y[:0]), [(X[:4], Y[:3])], [(X[:4, :5], Y[:4])], None])
def test_no_error_advises_what_diagnose_does_not_take(data: Any) -> None:
    with pytest.raises(DataError) as caught:
        diagnose(mlp(nn.ReLU, 1), data)
    assert not re.search("val_data|two batches|hold back|held", str(caught.value))


def test_few_labels_of_many_classes_do_not_make_a_common_loss_look_large() -> None:
    """Eight labels have an entropy of log 8, whatever the loss of a uniform guess of a thousand classes."""
    model = nn.Linear(16, 1000)
    texts = found(diagnose(model, [(torch.randn(8, 16), torch.arange(8))]))
    assert not any("the loss starts at" in text for text in texts)


def test_halves_that_disagree_by_chance_in_one_batch_are_not_told() -> None:
    half, labels = torch.randn(4, 6), torch.arange(4) % 2
    batches = [(torch.cat([half, half]), torch.cat([labels, 1 - labels]))]
    batches += [(torch.cat([half, half]), torch.cat([labels, labels]))] * 3
    model = nn.Linear(6, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    diagnosis = diagnose(model, batches)
    assert diagnosis.signals.agreement is not None
    assert diagnosis.signals.agreement < -0.1
    assert not any("opposite directions" in text for text in found(diagnosis))


@pytest.mark.parametrize("labels", [1, 3])
def test_a_first_loss_at_a_guess_of_yes_or_no_is_no_warning(labels: int) -> None:
    """Each label is there or not: of one logit, log 1 would be the most that a guess costs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, labels))
    digits = torch.tensor(Y)
    target = torch.stack([(digits % (place + 2) == 0).float() for place in range(labels)], dim=1)
    assert "the loss starts at" not in str(diagnose(model, (X, target), loss=nn.BCEWithLogitsLoss()))
    with torch.no_grad():
        model[-1].bias.fill_(-8.0)
    assert "the loss starts at" in str(diagnose(model, (X, target), loss=nn.BCEWithLogitsLoss()))
