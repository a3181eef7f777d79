"""How long draws take on the device, beside torch's own on the same device, and what memory they need."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import nn

import autoinit

from ..common.peaks import peak_beyond
from .figures import Wanted
from .session import Session

BARE: dict[str, tuple[Callable[[nn.Parameter], object], float]] = {
    "he_normal": (lambda weight: weight.normal_(0.0, 0.02), 1.5),
    "orthogonal": (lambda weight: nn.init.orthogonal_(weight), 1.5),
    "butterfly_orthogonal": (lambda weight: nn.init.orthogonal_(weight), 1.0),
}
"""Recipes with what torch has beside them, and how many times as long they may take."""

WIDTH, LAYERS = 4096, 4
RUNS = 5


def run(session: Session) -> None:
    """Writes the seconds of draws, their ratio to torch's, and their memory in weights."""
    width = 64 if session.smoke else WIDTH
    with torch.device(session.device):
        layers = [part for _ in range(LAYERS) for part in (nn.Linear(width, width, bias=False), nn.ReLU())]
    model = nn.Sequential(*layers)
    for recipe, seconds in session.cases(list(BARE), least=2.0):
        with session.contained(recipe):
            _compare(session, model, recipe, seconds)


def _compare(session: Session, model: nn.Sequential, recipe: str, seconds: float) -> None:
    bare, at_most = BARE[recipe]
    weights = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    plan = autoinit.apply_(model, recipe)

    @torch.no_grad()
    def torchs_own() -> None:
        for weight in weights:
            bare(weight)

    ways = (lambda: autoinit.apply_(model, recipe), lambda: autoinit.apply_(model, plan), torchs_own)
    times: list[list[float]] = [[] for _ in ways]
    enough = session.left() - seconds
    for turn in range(1 + RUNS):
        for way, measured in zip(ways, times, strict=True):
            start = session.waited()
            way()
            measured.append(session.waited() - start)
        if turn and session.left() < enough:
            break
    whole, drawn, theirs = (statistics.median(measured[1:]) for measured in times)
    values = sum(weight.numel() for weight in weights)
    case = f"{recipe}, {values / 1e6:.3g} M values"
    wanted, median = Wanted(at_most), f"against {1e3 * theirs:.3g}; median of {len(times[0]) - 1}"
    for name, took in (("apply_, reading the model included,", whole), ("a plan's draw", drawn)):
        note = f"{1e3 * took:.3g} ms {median}"
        session.figure(case, f"{name} over torch on the device", took / theirs, unit="×", wanted=wanted, note=note)
    beyond = peak_beyond(session.device, ways[0])
    if beyond is not None:
        session.figure(case, "memory beyond the model", beyond / weights[0].nbytes, unit="weights")
