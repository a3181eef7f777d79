"""A transformers model made anew from a smaller config: fewer layers, narrower, with heads as wide as they were.

The library is never imported here: who has a model of it has done so.
"""

from __future__ import annotations

import copy
import math
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import ModelError, described
from ..seeds import seed_of_use
from ..task.snapshot import preserved_random, seed_generators
from ..text import numberless

_DEPTH = re.compile(r"(^|_)(num_hidden_layers|n_layers?|num_layers|(en|de)coder_layers)$")
_DEPTHS = ("depths", "block_sizes")
"""Layers in each of several stages."""
_HEADS = re.compile(r"(^|_)heads?$")
_SHARED = ("num_key_value_heads", "num_kv_heads")
"""Heads of keys and values, which several others look at."""
_WIDTH = re.compile(
    r"(^|_)(hidden_sizes?|n_embd|d_model|embed_dim|hidden_dim|intermediate_size|intermediate_dim|n_inner|ffn_dim|d_ff"
    r"|d_inner|embedding_size|embed_proj_dim|pooler_output_size|mlp_dim|lru_width)$|^dim$"
)
_PERIODS = ("full_attention_interval", "attn_layer_period", "expert_layer_period", "decoder_sparse_step")
_LEADING = ("first_k_dense_replace",)
"""Layers that are of another kind than those that follow."""

NARROWEST = 16
"""Channels below which a net without heads is not narrowed."""
FEWEST = 2
"""Layers that are left of a stack, and of other kinds of layers one each: of one residual add nothing is scaled."""
_LEVELS = [2 ** (place / 8) for place in range(1, 65)]
"""By what depth and width are divided, one after the other."""


def is_from_config(model: nn.Module) -> bool:
    """Whether a model is one of transformers', which are made from a config."""
    library: Any = sys.modules.get("transformers.modeling_utils")
    return library is not None and isinstance(model, library.PreTrainedModel)


def from_smaller_config(model: Any, times: float, seed: int) -> nn.Module:
    """Returns a model of the same class, on a smaller config, with weights as its own code draws them.

    Depth and width are divided by the same number, the least that does. What has a row for each token of the
    vocabulary is not counted: it grows with the width alone.

    Args:
        model: of transformers, on any device; on the meta device too, and the one that is returned has weights.
        times: how many times fewer parameters it shall have.
        seed: of its weights.

    Raises:
        ModelError: the config says no smaller one, or not all of what the model is.
    """
    size = _counted(model)
    reached: Any = None
    low, high = 0, len(_LEVELS)  # a larger number gives no larger model
    while low < high:
        middle = (low + high) // 2
        config = smaller_config(model.config, _LEVELS[middle])
        found = _counted(_made(model, config, torch.device("meta"), seed)) <= size / times
        low, high = (low, middle) if found else (middle + 1, high)
        reached = config if found else reached
    config = reached or smaller_config(model.config, _LEVELS[-1])
    first = next(model.parameters())
    device = torch.device("cpu") if first.device.type == "meta" else first.device
    made = _made(model, config, device, seed)
    if _structure(made) != _structure(model):
        raise ModelError("its parameters, or which of them are tied, are not those that its config gives")
    _as_its_owner_has_it(made, model)
    return made


def smaller_config(config: Any, by: float) -> Any:
    """Returns a copy of a config with depth and width divided by a number, as nearly as whole layers and heads allow.

    Configs inside it are divided alike. A list with an entry for each layer keeps one entry of each kind at least.
    """
    made = copy.deepcopy(config)
    parts = list(_parts(made))
    heads = [count for part in parts for count in _heads(part)]
    groups = [count for part in parts for count in _shared_heads(part) if count > 1]
    unit = math.gcd(*heads, *groups)
    if unit == 1:  # groups of heads that share one of keys and values change their size
        unit = math.gcd(*heads)
    if not unit:  # no heads: whole groups of channels
        unit = max(1, math.gcd(*(width for part in parts for width in _widths(part))) // NARROWEST)
    share = max(1, round(unit / by)), unit
    for part in parts:
        _narrow(vars(part), share)
        _shorten(vars(part), by)
    return made


def _parts(config: Any) -> Iterator[Any]:
    """Yields a config and those inside it."""
    yield config
    for value in vars(config).values():
        if isinstance(value, _config_class()):
            yield from _parts(value)


def _config_class() -> Any:
    return sys.modules["transformers.configuration_utils"].PreTrainedConfig


def _numbers(value: Any) -> list[int]:
    """Returns the positive whole numbers of an entry, which is one or a list of them; empty for what is neither."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    whole = all(isinstance(one, int) and not isinstance(one, bool) and one > 0 for one in values)
    return values if whole else []


def _heads(part: Any) -> list[int]:
    named = [(name, value) for name, value in vars(part).items() if _HEADS.search(name) and name not in _SHARED]
    return [count for _, value in named for count in _numbers(value)]


def _shared_heads(part: Any) -> list[int]:
    return [count for name in _SHARED for count in _numbers(vars(part).get(name))]


def _widths(part: Any) -> list[int]:
    return [width for name, value in vars(part).items() if _WIDTH.search(name) for width in _numbers(value)]


def _narrow(entries: dict[str, Any], share: tuple[int, int]) -> None:
    heads = 0
    for name, value in entries.items():
        if not (_HEADS.search(name) or _WIDTH.search(name)) or not _numbers(value):
            continue
        found = [_scaled(one, share) for one in _numbers(value)]
        entries[name] = type(value)(found) if isinstance(value, (list, tuple)) else found[0]
        if name in ("num_attention_heads", "num_heads", "n_head"):
            heads = found[0]
    for name in _SHARED:
        while heads and _numbers(entries.get(name)) and heads % entries[name]:
            entries[name] -= 1


def _scaled(value: int, share: tuple[int, int]) -> int:
    """Returns a share of a number; of one that cannot be divided so, a multiple of 8 where it is one."""
    exact, rest = divmod(value * share[0], share[1])
    if not rest:
        return exact
    return max(8, 8 * round(exact / 8)) if value % 8 == 0 and exact >= 8 else max(1, exact)


def _shorten(entries: dict[str, Any], by: float) -> None:
    for name in _DEPTHS:
        if depths := _numbers(entries.get(name)):
            entries[name] = type(entries[name])(max(1, round(depth / by)) for depth in depths)
            return  # other numbers of layers there are numbers of stages
    least = max([FEWEST, *(entries.get(name) or 0 for name in _PERIODS)])
    least = max([least, *((entries.get(name) or 0) + 1 for name in _LEADING)])
    for name, count in [(name, value) for name, value in entries.items() if _DEPTH.search(name)]:
        if not _numbers(count):
            continue
        lists = {other: value for other, value in entries.items() if _is_of_layers(value, count)}
        kinds = [repr(entry) for entry in zip(*lists.values(), strict=True)] or [""] * count
        places = _kept(kinds, min(count, max(least, len(set(kinds)), round(count / by))))
        entries[name] = len(places)
        entries.update({other: type(value)(value[place] for place in places) for other, value in lists.items()})


def _is_of_layers(value: Any, count: int) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == count > FEWEST


def _kept(kinds: Sequence[str], count: int) -> list[int]:
    """Returns the places of the first layers, so many, in their order: the first of each kind is among them."""
    firsts = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    others = [place for place in range(len(kinds)) if place not in firsts]
    return sorted([*firsts, *others[: count - len(firsts)]])


def _made(model: nn.Module, config: Any, device: torch.device, seed: int) -> nn.Module:
    """Returns a new model of the same class, as its own code draws it; every random state is left as it was."""
    with preserved_random(), device:
        seed_generators(seed_of_use(seed, "a smaller model"), torch.device("cpu") if device.type == "meta" else device)
        try:
            made: nn.Module = type(model)(config)
        except Exception as problem:  # the model's own code, on a config that nobody has tried
            raise ModelError(f"{type(model).__name__} cannot be made on a smaller one: {described(problem)}") from None
    return made


def _counted(model: Any) -> int:
    """Returns how many parameters a model has, without tables of its vocabulary."""
    tokens = {value for part in _parts(model.config) for name, value in vars(part).items() if name == "vocab_size"}
    return sum(parameter.numel() for parameter in model.parameters() if not tokens & set(parameter.shape))


def _structure(model: nn.Module) -> set[tuple[tuple[str, ...], int]]:
    """Returns the names of the parameters, whatever the numbers in them, with their axes; tied ones together."""
    names: dict[nn.Parameter, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, set()).add(numberless(name))
    return {(tuple(sorted(mine)), parameter.ndim) for parameter, mine in names.items()}


def _as_its_owner_has_it(made: nn.Module, model: nn.Module) -> None:
    """Gives a new model dtype, mode and named ways of another one, and freezes what is frozen all over it."""
    trained = {numberless(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    floats = [parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()]
    made.to(dtype=floats[0]).train(model.training)
    vars(made).update({name: value for name, value in vars(model).items() if isinstance(value, str)})  # its loss_type
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and numberless(name) in trained)
