"""Names that begin otherwise on either side."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoinit.errors import SourceError
from autoinit.inheritance.checkpoints import read_checkpoint
from autoinit.inheritance.matching import matched
from autoinit.inheritance.prefixes import Names, Prefix, best_names, has_more_rows


def stored(shapes: dict[str, tuple[int, ...]]) -> object:
    return read_checkpoint({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})


def test_most_tensors_decide_even_where_few_names_are_equal() -> None:
    shapes = {
        "embed.weight": (9, 4),
        "model.embed.weight": (5, 4),
        "model.norm.weight": (4,),
        "model.out.weight": (4, 4),
    }
    model = {name.removeprefix("model."): shape for name, shape in shapes.items() if name.startswith("model.")}
    assert best_names(model, stored(shapes)).prefix == Prefix(file="model.")


def test_equal_names_win_where_nothing_else_fits_better() -> None:
    shapes = {"layers.0.weight": (4, 4), "layers.1.weight": (4, 4), "layers.2.weight": (4, 4)}
    names = best_names(shapes, stored(shapes))
    assert names.prefix == Prefix()
    assert [names.of(name) for name in shapes] == list(shapes)


def test_the_shapes_choose_between_parts_of_equal_names() -> None:
    shapes = {"wide.weight": (8, 8), "narrow.weight": (4, 4)}
    assert best_names({"weight": (4, 4)}, stored(shapes)).of("weight") == "narrow.weight"


def test_names_outside_of_the_prefix_are_looked_up_as_they_are() -> None:
    shapes = {"wte": (5, 4), "wpe": (6, 4), "head": (5, 4)}
    names = best_names({"transformer.wte": (5, 4), "transformer.wpe": (6, 4), "head": (5, 4)}, stored(shapes))
    assert names.prefix == Prefix(model="transformer.")
    assert names.of("head") == "head"


def test_the_first_name_that_is_there_counts() -> None:
    names = Names({"b": "b", "c": "c"}, Prefix())
    assert names.first_of(("a", "b", "c")) == "b"
    assert names.first_of(("a",)) == ""


@pytest.mark.parametrize(
    ("shape", "kept", "more"),
    [
        ((3, 4), (2, 4), True),
        ((3,), (2,), True),
        ((2, 4), (2, 4), False),
        ((2, 4), (3, 4), False),
        ((3, 5), (2, 4), False),
        ((3, 4), (2,), False),
        ((), (), False),
    ],
)
def test_more_rows_are_a_longer_first_axis(shape: tuple[int, ...], kept: tuple[int, ...], more: bool) -> None:
    assert has_more_rows(shape, kept) is more


def test_a_tie_is_an_error_that_names_both() -> None:
    with pytest.raises(SourceError, match=r"begin with 'a\.', which the model's lack\. Or: .* 'b\.'"):
        best_names({"weight": (2, 2)}, stored({"a.weight": (2, 2), "b.weight": (2, 2)}))


def test_a_part_of_a_model_of_like_layers_is_found_under_its_own_names() -> None:
    """Its names are the model's as they are; no layer beside it is taken for it."""
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(5)))
    part = {name: value for name, value in model.state_dict().items() if name.startswith("0.")}
    found = matched(model, part)
    assert dict(found.same) == {name: name for name in part}
    assert len(found.new) == 8
    assert found.notes == ()
