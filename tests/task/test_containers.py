"""Containers of a module keep what they hold, whatever subclasses of Python's own they are."""

from __future__ import annotations

import collections
from typing import Any

import pytest
import torch
from helpers import unchanged
from torch import Tensor, nn
from zoo import ZOO

import autoinit
from autoinit.task.containers import Contents
from autoinit.task.snapshot import preserved


class FrozenConfig(collections.OrderedDict[str, Any]):
    """A dict that refuses every change once it is made, as configs of model libraries do; its keys are attributes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._frozen = False
        super().__init__(*args, **kwargs)
        for key, value in self.items():
            vars(self)[key] = value
        self._frozen = True

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a frozen config cannot be changed")

    __delitem__ = pop = popitem = setdefault = update = clear = copy = _refuse

    def __setitem__(self, key: str, value: Any) -> None:
        if self._frozen:
            self._refuse()
        super().__setitem__(key, value)


class FrozenList(list[int]):
    """A list that refuses to be cleared or extended."""

    def clear(self) -> None:
        raise RuntimeError("a frozen list cannot be changed")

    def extend(self, values: Any) -> None:
        raise RuntimeError("a frozen list cannot be changed")


class Counting(dict[str, Tensor]):
    """A cache that keeps count of its writes in an attribute."""

    writes = 0

    def __setitem__(self, key: str, value: Tensor) -> None:
        self.writes += 1
        super().__setitem__(key, value)


class Mirrored(dict[str, Any]):
    """A dict whose entries are its attributes."""

    def __init__(self, **entries: Any) -> None:
        super().__init__(entries)
        self.__dict__ = self


class Denoiser(nn.Module):
    """A net with a frozen config, a frozen list of widths, and a cache that every pass writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.config = FrozenConfig(width=12, depth=2, nested={"act": "silu"})
        self.widths = FrozenList([6, 12])
        self.cache = Counting()
        self.options = Mirrored(scale=1.0)
        self.seen: collections.defaultdict[str, int] = collections.defaultdict(int)
        self.enter = nn.Linear(6, self.config["width"])
        self.leave = nn.Linear(self.config["width"], 6)

    def forward(self, x: Tensor) -> Tensor:
        self.cache["last"] = x
        self.options.scale = self.options["scale"] * 0.5
        self.seen["passes"] += 1
        return self.leave(nn.functional.silu(self.enter(x)))


def content(model: Denoiser) -> dict[str, Any]:
    return {
        "config": [(key, id(value)) for key, value in model.config.items()],
        "attributes": dict(vars(model.config)),
        "widths": list(model.widths),
        "cache": dict(model.cache),
        "writes": model.cache.writes,
        "options": dict(model.options),
        "seen": dict(model.seen),
    }


def test_a_model_with_a_frozen_config_is_drawn_and_keeps_all_its_entries() -> None:
    model = Denoiser()
    before = content(model)
    x = torch.randn(64, 6)
    autoinit.apply_(model, "he_normal", (x, x))
    assert content(model) == before
    assert model.enter.weight.std().item() == pytest.approx((2 / 6) ** 0.5, rel=0.3)


@pytest.mark.slow
def test_a_model_of_diffusers_is_what_it_was_after_every_look() -> None:
    model, batch, loss = ZOO["unet"]()
    config: Any = model.config
    before = [(key, id(value)) for key, value in config.items()], dict(vars(config))
    with unchanged(model):
        autoinit.trace(model, [batch] * 3, step=loss)
        autoinit.diagnose(model, [batch] * 3, step=loss)
        autoinit.select(model, [batch] * 3, step=loss, budget=autoinit.Budget(steps=150), apply=False)
    assert model.config is config
    assert ([(key, id(value)) for key, value in config.items()], dict(vars(config))) == before


def test_subclasses_of_containers_are_put_back_after_a_training_and_after_an_error() -> None:
    model = Denoiser()
    before = content(model)
    for error in (None, KeyError):
        with unchanged(model), pytest.raises(KeyError) if error else preserved(model), preserved(model):
            model(torch.randn(3, 6)).sum().backward()
            assert content(model) != before
            if error:
                raise error
        assert content(model) == before


def test_a_frozen_container_that_was_changed_all_the_same_is_put_back() -> None:
    config = FrozenConfig(width=12, depth=2)
    kept = Contents(config)
    collections.OrderedDict.__setitem__(config, "width", 99)
    collections.OrderedDict.move_to_end(config, "width")
    vars(config)["width"] = 99
    kept.restore()
    assert list(config.items()) == [("width", 12), ("depth", 2)]
    assert vars(config)["width"] == 12


@pytest.mark.parametrize("make", [list, set, collections.deque, collections.Counter, FrozenList])
def test_every_kind_of_container_gets_its_content_back(make: Any) -> None:
    held = make([3, 1, 2])
    before = make([3, 1, 2])
    kept = Contents(held)
    super(type(held), held).clear() if type(held) is FrozenList else held.clear()
    kept.restore()
    assert held == before


def test_the_order_of_a_dict_and_the_length_of_a_deque_stay() -> None:
    ordered, last = {"b": 1, "a": 2}, collections.deque([1, 2, 3], maxlen=3)
    kept = [Contents(ordered), Contents(last)]
    ordered["b"] = ordered.pop("b")
    last.append(4)
    for contents in kept:
        contents.restore()
    assert list(ordered) == ["b", "a"]
    assert (list(last), last.maxlen) == ([1, 2, 3], 3)
