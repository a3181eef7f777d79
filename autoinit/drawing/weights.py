"""A plan becomes the weights of a model: which parameters are drawn, in which threads, and what was drawn by whom."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from ..errors import PlanMismatchError
from ..initializers.draws import COSTLY, INDEPENDENT
from ..initializers.filling import drawn_dtype, exact_draws, is_plain
from ..plans.fill import Fill
from ..plans.plan import Plan
from ..task.assign import assign, digest, is_parametrized, padding_rows, read, shapes
from ..task.machine import using_threads
from ..text import few
from ..version import __version__
from .fills import Source, Work, fill_whole, in_pieces, pieces
from .generators import CHUNK, is_there, kind_of, place
from .given import GIVEN, checked_values, set_given
from .memory import Drawn, Memory

WORTH_THREADS, WORTH_THREADS_COSTLY = 2**20, 2**16
"""Entries that are drawn, independent ones and those of costly draws: starting threads pays from there on."""


def set_weights(
    model: nn.Module,
    plan: Plan,
    memory: Memory | None = None,
    drawn: Drawn | None = None,
    but: Collection[nn.Parameter] = (),
) -> None:
    """Sets the weights of an unwrapped model as a plan says that fits it, in place, without gradient.

    Each parameter is drawn on its own device, in float32 (float64 for float64 parameters), and cast; where the plan was
    drawn on another kind of device that this machine has, there, and copied. The bits depend on the plan and on the
    kind of device, not on threads, processes, or what else the model holds. Parameters on the meta device are passed
    over.

    Args:
        model: whose parameters are set.
        plan: made for this architecture.
        memory: costly draws are looked up there, and added to it; the bits are the same without.
        drawn: likewise, of the two passes of a calibration.
        but: parameters that hold what the plan says already.
    """
    if plan.pending:
        raise PlanMismatchError(_PENDING)
    kind = plan.drawn_on if plan.drawn_on and is_there(plan.drawn_on) else kind_of(model) or "cpu"
    source = Source(plan.seed, Memory(room=0) if memory is None else memory, drawn)
    changed = [fill for fill in plan.fills if not (fill.untouched or fill.copy_of)]
    if but:
        done = {id(parameter) for parameter in but}
        changed = [fill for fill in changed if id(read(model, fill.name)) not in done]
    values = checked_values(model, plan, changed)  # first: nothing is set where a file is damaged
    drawn_ones = [fill for fill in changed if fill.distribution not in GIVEN]
    with exact_draws(torch.device(kind)):
        _carry_out(_works(model, drawn_ones, source, kind), drawn_ones, on_cpu=kind == "cpu")
        set_given(model, values, changed)
        for fill in plan.fills:
            if fill.copy_of and not read(model, fill.name).is_meta:
                assign(model, fill.name, read(model, fill.copy_of))
    torch.clear_autocast_cache()  # inside an owner's autocast it holds casts of the weights that were here before


def overwritten(model: nn.Module, plan: Plan) -> list[nn.Parameter]:
    """Returns the parameters that a plan sets as a whole, whatever they hold: all but those whose draw it keeps.

    A weight behind a parametrization is none: a row of zeros keeps its old direction there.
    """
    anew = [
        fill.name
        for fill in plan.fills
        if fill.distribution not in ("keep", "remainder") and not (fill.untouched or fill.copy_of)
    ]
    found = [read(model, name) for name in anew if not is_parametrized(model, name)]
    return [tensor for tensor in found if isinstance(tensor, nn.Parameter)]


def _works(model: nn.Module, fills: list[Fill], source: Source, kind: str) -> Iterator[Work]:
    """Yields what sets each parameter, in parts that may be done at the same time."""
    padding = padding_rows(model)
    for fill in fills:
        target = read(model, fill.name)
        if target.is_meta or target.numel() == 0 or (fill.result and digest(target) == fill.result):
            continue
        device, row = place(target, kind), padding.get(fill.name)
        if in_pieces(target, fill, device) and not is_parametrized(model, fill.name):
            yield from pieces(target, fill, source, device, row)
        else:
            yield functools.partial(_set_whole, model, fill, target, source, device, row)


def _set_whole(
    model: nn.Module, fill: Fill, target: Tensor, source: Source, device: torch.device, padding: int | None
) -> None:
    parametrized = is_parametrized(model, fill.name)
    if not parametrized and is_plain(target, device):
        fill_whole(target, fill, source, padding)
        return
    dtype = target.dtype if target.is_complex() else drawn_dtype(target)
    if fill.distribution == "keep":
        value = target.detach().to(device, dtype, copy=True)
    else:
        value = torch.empty(target.shape, dtype=dtype, device=device)
    fill_whole(value, fill, source, padding)
    if parametrized:
        assign(model, fill.name, value.to(target.device, target.dtype))
    else:
        target.copy_(value)  # casts on the way, without a copy in between


def _carry_out(works: Iterator[Work], fills: list[Fill], *, on_cpu: bool) -> None:
    """Does the parts, on a CPU in as many threads as torch has.

    Each computes with one thread: decompositions round by the number of threads, and a plan gives the same bits on any.
    """
    threads = torch.get_num_threads() if on_cpu else 1
    drawn = [fill for fill in fills if fill.distribution not in ("keep", "constant")]
    costly = sum(fill.size for fill in drawn if fill.distribution in COSTLY)
    if threads == 1 or (sum(fill.size for fill in drawn) <= WORTH_THREADS and costly <= WORTH_THREADS_COSTLY):
        with using_threads(1):
            for work in works:
                work()
        return
    with using_threads(1), ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(torch.no_grad()(work)) for work in works]:
            done.result()


def check_plan_fits(model: nn.Module, plan: Plan) -> None:
    """Raises PlanMismatchError, naming missing, extra and differently shaped parameters."""
    present = shapes(model)
    problems = []
    if extra := [name for name in plan if name not in present]:
        problems.append(f"the model has no {few(extra, 5)}")
    if missing := [name for name in present if name not in plan]:
        problems.append(f"the plan says nothing about {few(missing, 5)}")
    differ = [name for name in plan if name in present and plan[name].shape != present[name]]
    if plan.buffers and (lost := sorted(set(plan.buffers) - {name for name, _ in model.named_buffers()})):
        problems.append(f"the model has no buffer {few(lost, 5)}")
    if differ:
        shown = [f"{name} (plan {plan[name].shape}, model {present[name]})" for name in differ]
        problems.append(f"shapes differ: {few(shown, 5)}")
    if lost := [name for name, fill in plan.items() if not _is_placed(fill, present)]:
        problems.append(f"there is nothing to copy to {few(lost, 5)}")
    if problems:
        remedy = "Apply it to the architecture that it was made for, or apply its recipe: apply_(model, plan.recipe)."
        known = {fill.shape for fill in plan.values()}
        if len(problems) == 1 and missing and {present[name] for name in missing} <= known:
            remedy = _UNTIED
        raise PlanMismatchError(f"The plan does not fit the model: {'; '.join(problems)}. {remedy}")


_PENDING = (
    "The plan has values that are not worked out yet: they come from a model's own weights, and from data. Apply its "
    "recipe: apply_(model, plan.recipe, data)."
)
_UNTIED = (
    "If they were tied to others when the plan was made, tie them again (in transformers: model.tie_weights()) and "
    "apply it once more: model.to_empty(device=…) takes tied weights apart."
)


def _is_placed(fill: Fill, present: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a copy has an original of its shape, and nothing else has one."""
    if fill.distribution != "copy":
        return not fill.copy_of
    return present.get(fill.copy_of) == fill.shape


def with_results(model: nn.Module, plan: Plan) -> Plan:
    """Returns the plan of a model's present weights with what they were drawn with, and what rescaled ones have become.

    By that an owner's draw that carries the plan's factors already is told from a fresh one, and not rescaled again.
    """
    fills = tuple(_with_result(model, plan, fill) for fill in plan.fills)
    kind = plan.drawn_on or kind_of(model)
    if not kind:
        return dataclasses.replace(plan, fills=fills)
    device = torch.cuda.get_device_name() if kind == "cuda" else kind
    drawn_with = f"autoinit {__version__}, torch {torch.__version__}, {device}"
    return dataclasses.replace(plan, fills=fills, drawn_on=kind, drawn_with=drawn_with)


def _with_result(model: nn.Module, plan: Plan, fill: Fill) -> Fill:
    if fill.untouched or fill.distribution not in ("keep", *GIVEN):
        return fill
    tensor = read(model, fill.name)
    if tensor.is_meta:
        return fill
    if fill.distribution == "given" and plan.given is not None:
        tensor = plan.given.tensor(fill.name)  # behind a parametrization, what was set reads otherwise by a rounding
    return dataclasses.replace(fill, result=digest(tensor))


def located(plan: Plan, kind: str = "") -> Plan:
    """Returns a plan that is about to be applied, with where its draws are made; warns where its numbers cannot be had.

    Args:
        plan: read from a file or made by a search.
        kind: of device that was asked for; empty for the one that the plan says.
    """
    if plan.drawn_with and not plan.drawn_on and (other := [fill.name for fill in plan.fills if _was_other(fill)]):
        warnings.warn(
            f"The plan was made with {plan.drawn_with}, which drew other numbers for {few(other)}: what is set now has "
            "the same distribution. To keep the bits of weights, save them: torch.save(model.state_dict(), path).",
            UserWarning,
            stacklevel=3,
        )
    if kind or is_there(plan.drawn_on or "cpu"):
        if (kind or plan.drawn_on) == plan.drawn_on == "cuda" and (gpu := _other_gpu(plan)):
            warnings.warn(
                f"The plan was drawn on {gpu}, and is drawn here on {torch.cuda.get_device_name()}: large weights get "
                "other numbers of the same distribution. For numbers that travel, draw with draw_on='cpu'.",
                UserWarning,
                stacklevel=3,
            )
        return dataclasses.replace(plan, drawn_on=kind or plan.drawn_on)
    warnings.warn(
        f"The plan was drawn on {plan.drawn_on!r} ({plan.drawn_with}), which is not here. What is drawn on the CPU "
        "has the same distribution, and other numbers. For numbers that travel, draw with draw_on='cpu'.",
        UserWarning,
        stacklevel=3,
    )
    return dataclasses.replace(plan, drawn_on="cpu")


def _other_gpu(plan: Plan) -> str:
    """Returns the model of GPU that a plan was drawn on, if it is not the one that is here; else an empty text.

    torch gives each thread of a draw numbers of its own, and as many threads as the GPU runs at a time: about a
    hundred thousand and more.
    """
    drawn = plan.drawn_with.rpartition(", ")[2]
    return "" if drawn in ("", torch.cuda.get_device_name()) else drawn


def _was_other(fill: Fill) -> bool:
    """Whether plans without `drawn_on` stood for other numbers: they drew whole tensors, and orthogonal ones by QR."""
    return fill.distribution in COSTLY or (fill.size > CHUNK and fill.distribution in INDEPENDENT)
