from __future__ import annotations

import pytest
from graphs import lstm, mlp, transformer

from autoinit import jsonfile
from autoinit.errors import ModelError
from autoinit.graph import Graph


def test_a_graph_is_a_mapping_in_the_order_of_its_parameters() -> None:
    graph = mlp(depth=2)
    assert list(graph) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert graph["1.weight"].role == "output"
    assert "2.weight" not in graph
    assert len(graph) == 4


@pytest.mark.parametrize("graph", [mlp(), transformer(), lstm()])
def test_json_round_trip(graph: Graph) -> None:
    data = jsonfile.to_data(graph)
    data = {name: value for name, value in data.items() if not name.startswith("_")}
    assert jsonfile.from_data(Graph, data, ModelError, "it") == graph


def test_weights_are_the_free_matrices() -> None:
    assert [layer.name for layer in mlp(depth=2).weights] == ["0.weight", "1.weight"]
    assert [layer.name for layer in mlp(depth=2).restricted(only="1.*").weights] == ["1.weight"]


def test_only_and_exclude_keep_the_others_and_say_so() -> None:
    graph = mlp(depth=3).restricted(only=["*.weight"], exclude="2.*")
    assert graph["1.weight"].keep == ""
    assert "only" in graph["1.bias"].keep
    assert graph["2.weight"].keep == "excluded by name"


def test_a_glob_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"'9.weight' matches no parameter. Did you mean '3.weight'"):
        mlp().restricted(exclude="9.weight")


def test_leaving_nothing_is_an_error() -> None:
    with pytest.raises(ModelError, match="leave no parameter"):
        mlp().restricted(exclude="*")


def test_roles_count_free_parameters_only() -> None:
    assert mlp().has_role("output")
    assert not mlp().restricted(exclude="3.*").has_role("output")


def test_print_is_a_table() -> None:
    lines = str(mlp(depth=2).restricted(exclude="0.bias")).splitlines()
    assert lines[0] == "4 parameters read from the autograd graph of one step"
    assert lines[2].split() == "parameter shape kind role fan in fan out activation depth kept because".split()
    assert lines[4].split() == "0.weight 8×784 linear input 784 8 relu 0".split()
    assert lines[5].endswith("excluded by name")
