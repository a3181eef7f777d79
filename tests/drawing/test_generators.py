"""Random streams: which numbers a piece of a parameter gets, and where they are made."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoinit.drawing.generators import CHUNK, check_draw_on, chunks, generator, kind_of, place
from autoinit.errors import ArgumentError

CPU = torch.device("cpu")


def numbers(seed: int = 0, stream: str = "0.weight", chunk: int = 0) -> torch.Tensor:
    return torch.rand(4, generator=generator(seed, stream, CPU, chunk))


def test_seed_name_and_piece_each_make_another_stream() -> None:
    found = [numbers(), numbers(seed=1), numbers(stream="1.weight"), numbers(chunk=1), numbers(stream="0.weight:1")]
    assert len({tuple(one.tolist()) for one in found}) == len(found)
    assert torch.equal(numbers(chunk=3), numbers(chunk=3))


def test_pieces_cover_a_tensor_in_its_own_order() -> None:
    tensor = torch.arange(2 * CHUNK + 5, dtype=torch.int32).view(1, -1)
    parts = list(chunks(tensor))
    assert [len(part) for part in parts] == [CHUNK, CHUNK, 5]
    assert torch.equal(torch.cat(parts), tensor[0])
    parts[2].zero_()
    assert not tensor[0, -5:].any()


def test_a_model_is_drawn_where_it_lies() -> None:
    with torch.device("meta"):
        absent = nn.Linear(2, 2)
    assert kind_of(nn.Linear(2, 2)) == "cpu"
    assert kind_of(absent) == ""
    assert kind_of(nn.Sequential(absent, nn.Linear(2, 2))) == "cpu"
    assert place(torch.empty(1), "cpu") == CPU
    assert place(torch.empty(1), "cuda") == torch.device("cuda")


def test_what_draw_on_may_be() -> None:
    assert check_draw_on(None) == ""
    assert check_draw_on("cpu") == check_draw_on(CPU) == "cpu"
    for wrong in ("tpu", 3, torch.device("meta")):
        with pytest.raises(ArgumentError, match="draw_on is 'cpu'"):
            check_draw_on(wrong)


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ArgumentError, match="torch sees no CUDA device here"):
        check_draw_on("cuda")
