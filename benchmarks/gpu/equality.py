"""Whether the device reads the same graph as the CPU, and draws the bits that it promises."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

import autoinit
from autoinit.errors import RecipeError

from .figures import YES
from .models import SMALL, Spec, Subject
from .session import Session

RECIPES = ("he_normal", "orthogonal", "butterfly_orthogonal", "mimetic", "lsuv")
"""Draws of one number each, by QR, structured, of whole heads, and one with a calibration on top."""
DRAWN = RECIPES[:-1]
"""Those whose bits travel; a calibration measures on the device, which rounds as it does."""


def run(session: Session) -> None:
    """Writes for each small model whether graphs and bits are equal."""
    by_name = {spec.name: spec for spec in SMALL}
    for name, _ in session.cases(list(by_name), least=1.0):
        with session.contained(name):
            _compare(session, by_name[name])


def _compare(session: Session, spec: Spec) -> None:
    there = Subject(spec, session.device, small=session.smoke)
    here = Subject(spec, torch.device("cpu"), small=session.smoke)
    before = _bits(there.model)
    options = {name: value for name, value in there.options.items() if name != "autocast"}
    graphs = [autoinit.trace(subject.model, subject.batches, **options) for subject in (there, here)]
    session.figure(spec.name, "graph equals the CPU's", graphs[0] == graphs[1], wanted=YES, note=_difference(*graphs))
    session.figure(spec.name, "model as before", _equal(before, _bits(there.model)), wanted=YES)
    drawn, travel, repeat = list[str](), list[str](), list[str]()
    for recipe in RECIPES:
        data = there.batches if recipe == "lsuv" else None
        try:
            plan = autoinit.apply_(there.model, recipe, data, **(options if data else {}))
        except RecipeError:
            continue  # of another architecture, as mimetic for what has no attention
        drawn.append(recipe)
        first = _bits(there.model)
        autoinit.apply_(there.model, plan)
        repeat += [] if _equal(first, _bits(there.model)) else [recipe]
        if recipe in DRAWN:
            autoinit.apply_(there.model, recipe, draw_on="cpu")
            autoinit.apply_(here.model, recipe)
            travel += [] if _equal(_bits(there.model), _bits(here.model)) else [recipe]
    session.figure(spec.name, "the same plan gives the same bits", not repeat, wanted=YES, note=_note(repeat, drawn))
    session.figure(
        spec.name,
        "draw_on='cpu' gives the CPU's bits",
        not travel,
        wanted=YES,
        note=_note(travel, [*filter(DRAWN.__contains__, drawn)]),
    )


def _bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _note(differ: list[str], drawn: list[str]) -> str:
    return f"differs: {', '.join(differ)}" if differ else ", ".join(drawn)


def _difference(there: autoinit.Graph, here: autoinit.Graph) -> str:
    """Returns in words where two graphs first differ; empty where they do not."""
    return next(iter(_differences(there, here)), "")


def _differences(there: autoinit.Graph, here: autoinit.Graph) -> Iterator[str]:
    if there == here:
        return
    for name in here:
        if name not in there or there[name] != here[name]:
            yield f"{name}: {there.get(name)} there, {here[name]} here"
    yield "something else than the layers"
