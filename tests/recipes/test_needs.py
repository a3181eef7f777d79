from __future__ import annotations

import dataclasses

import pytest
from graphs import RELU, TANH, adapted, agent, bias, linear, lstm, mlp, modulated, relu_rnn, spiking, transformer

from autoinit.activations import Activation
from autoinit.errors import RecipeError
from autoinit.graph import Graph
from autoinit.recipes.needs import NEEDS, check_needs, meets

GRAPHS = {
    "relu": mlp(RELU),
    "tanh": mlp(TANH),
    "gelu": mlp(Activation("gelu")),
    "sine": mlp(Activation("sin", (30.0,))),
    "selu": mlp(Activation("selu")),
    "pre_ln": transformer(),
    "post_ln": transformer(post_norm=True),
    "lstm": lstm(),
    "relu_rnn": relu_rnn(),
    "spiking": spiking(),
    "adapted": adapted(),
    "packed": dataclasses.replace(
        adapted(), layers=tuple(dataclasses.replace(layer, lends=False) for layer in adapted().layers)
    ),
    "agent": agent(),
    "modulated": modulated(),
    "empty": Graph(()),
}
MET = {
    "residuals": {"pre_ln", "post_ln"},
    "attention": {"pre_ln", "post_ln"},
    "transformer": {"pre_ln", "post_ln"},
    "post_norm": {"post_ln"},
    "actor_critic": {"agent"},
    "heads": {"agent"},
    "modulation": {"modulated"},
    "norms": {"pre_ln", "post_ln"},
    "sines": {"sine"},
    "selu": {"selu"},
    "adapters": {"adapted", "packed"},
    "bases": {"adapted"},
    "source": set(),
    "rows": set(),
    "class_head": {"relu", "adapted", "packed", "tanh", "gelu", "sine", "selu"},
    "straight": {"relu", "adapted", "packed", "gelu", "pre_ln", "post_ln", "relu_rnn", "modulated"},
    "relu_rnn": {"relu_rnn"},
    "gates": {"lstm"},
    "spikes": {"spiking"},
    "classes": {"relu", "adapted", "packed", "tanh", "gelu", "sine", "selu"},
}


@pytest.mark.parametrize("name", MET)
def test_a_need_is_met_by_its_own_networks_and_no_others(name: str) -> None:
    assert {kind for kind, graph in GRAPHS.items() if NEEDS[name].met(graph)} == MET[name]


def test_all_needs_have_to_be_met() -> None:
    assert meets(GRAPHS["post_ln"], ("transformer", "post_norm"))
    assert not meets(GRAPHS["pre_ln"], ("transformer", "post_norm"))
    assert meets(GRAPHS["empty"], ())


def test_needs_of_analysis_follow_the_activation() -> None:
    assert NEEDS["isometry"].met(GRAPHS["tanh"])
    assert not NEEDS["isometry"].met(GRAPHS["relu"])
    assert NEEDS["critical"].met(GRAPHS["relu"])
    assert not NEEDS["critical"].met(GRAPHS["spiking"])
    assert set(NEEDS) == {*MET, "isometry", "critical"}


def test_a_cell_that_runs_for_two_steps_has_no_time_scales() -> None:
    for steps, met in ((None, False), (2, False), (3, True)):
        assert NEEDS["gates"].met(dataclasses.replace(lstm(), sequence_length=steps)) is met


def test_a_prior_needs_a_bias_of_its_size() -> None:
    layers = (linear("head", 10, 8, role="output"), bias("head.bias", "head", 10))
    for prior, count, met in (((0.1,) * 10, 2, True), ((0.1,) * 10, 1, False), ((0.5, 0.5), 2, False), ((), 2, False)):
        assert NEEDS["classes"].met(Graph(layers[:count], label_prior=prior)) is met


def test_a_head_of_class_means_is_one_plain_layer_with_a_score_for_each_class() -> None:
    head, classes = linear("head", 3, 8, role="output"), (0.5, 0.25, 0.25)
    whole = Graph((head,), label_prior=classes)
    assert NEEDS["class_head"].met(whole)
    others = [{"keep": "frozen"}, {"tied_to": ("table",)}, {"parametrized": "weight_norm"}, {"multiplier": 0.5}]
    for change in (*others, {"kind": "conv"}, {"role": "hidden"}):
        assert not NEEDS["class_head"].met(dataclasses.replace(whole, layers=(dataclasses.replace(head, **change),)))
    second = dataclasses.replace(head, name="other")
    assert not NEEDS["class_head"].met(dataclasses.replace(whole, layers=(head, second)))
    assert not NEEDS["class_head"].met(dataclasses.replace(whole, label_prior=()))
    assert not NEEDS["class_head"].met(dataclasses.replace(whole, independent_labels=True))


def test_rows_are_new_where_a_checkpoint_is_shorter() -> None:
    table = dataclasses.replace(linear("head", 3, 8, role="output"), keep="trained", new_rows=2)
    assert NEEDS["rows"].met(Graph((table,)))
    other = linear("other", 8, 8)
    assert not NEEDS["rows"].met(Graph((other, table)).restricted(exclude="head"))


def test_the_error_says_what_is_missing_and_what_to_use() -> None:
    check_needs("siren", ("sines",), GRAPHS["sine"])
    with pytest.raises(RecipeError) as caught:
        check_needs("siren", ("sines",), GRAPHS["relu"])
    assert str(caught.value) == (
        "'siren' is for networks with sines as activations; this one has none. "
        "Use he_normal, whose gain follows the activation."
    )


def test_a_network_read_without_data_may_have_what_was_not_seen() -> None:
    blind = dataclasses.replace(GRAPHS["relu"], source="modules")
    with pytest.raises(RecipeError, match=r"this one has none\. .*without data; pass data= to see the rest\.$"):
        check_needs("siren", ("sines",), blind)


def test_branches_that_start_at_zero_already_are_branches() -> None:
    closed = tuple(
        dataclasses.replace(layer, keep="its owner starts it at zero") if layer.closes_branch else layer
        for layer in GRAPHS["pre_ln"].layers
    )
    check_needs("zero_residual", ("residuals",), dataclasses.replace(GRAPHS["pre_ln"], layers=closed))


def test_what_must_stay_is_not_said_to_be_missing() -> None:
    with pytest.raises(RecipeError, match=r"in this one they must stay as they are \(excluded by name\)\. Use he_nor"):
        check_needs("fixup", ("residuals",), GRAPHS["pre_ln"].restricted(exclude="block.*"))
    with pytest.raises(RecipeError, match="this one has none"):
        check_needs("fixup", ("residuals",), GRAPHS["relu"].restricted(exclude="1.*"))
