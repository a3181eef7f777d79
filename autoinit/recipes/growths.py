"""Ways to come from a trained network to a larger or a smaller one: one row for each, without a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .about import About

_NEEDS = ("source",)
_PURPOSE = "a network of the same kind and another size than one that is trained"
_OUTPUT = "the output in evaluation mode, up to rounding, new blocks included where they have a skip or a ReLU"
_WIDTHS = "a LayerNorm or RMSNorm over a width that is no multiple of the source's"
_PLACES = (
    "new blocks after a post-norm, a GELU or a recurrent layer; larger heads under rotary positions; constants of the "
    "model's code that depend on its width and are in no buffer, as before T5's head, which nobody is told of"
)
_PART = "nothing exactly: it is a start that trains faster"
_NOT_SHRUNK = "the output, as most units are missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What is known of a way to grow or to shrink.

    Attributes:
        name: as `inherit_` takes it, and of its row in `autoinit.growth.methods.METHODS`.
        keeps: what is as it was.
        narrower: it is for a model that is smaller than its source.
        about: its formula of one weight W of the source and W' of the model, its source, what it is for.
    """

    name: str
    keeps: str
    narrower: bool = False
    about: About


_ROWS = (
    Growth(
        name="clone",
        keeps=_OUTPUT,
        about=About(
            title="HyperCloning",
            purpose=_PURPOSE,
            formula="W'[o, i] = W[⌊o/k⌋, ⌊i/k⌋] / k",
            source="Samragh et al. 2024, arXiv:2409.12903; copies beside each other, not block by block",
            prefer="the first to try, for more units, heads and blocks at once",
            left_out=f"{_WIDTHS}; {_PLACES}; copies train alike unless noise parts them",
            needs=_NEEDS,
        ),
    ),
    Growth(
        name="net2net",
        keeps=_OUTPUT,
        about=About(
            title="Net2WiderNet",
            purpose=_PURPOSE,
            formula="W'[o, i] = W[g(o), g(i)] / |{j: g(j) = g(i)}|, g random",
            source="Chen, Goodfellow & Shlens 2016, arXiv:1511.05641; each unit drawn once before any is drawn again",
            prefer="copies of units that are drawn; plain networks of widths that are no multiples",
            left_out=f"{_WIDTHS}; {_PLACES}; several streams joined to one",
            needs=_NEEDS,
        ),
    ),
    Growth(
        name="zero_pad",
        keeps=f"{_OUTPUT}; an RMSNorm up to its ε",
        about=About(
            title="zero padding",
            purpose=_PURPOSE,
            formula="W' = [[W, 0], [own, own]]: old units do not hear new ones",
            source="new rows as drawn; RMSNorm's scale × √(before/after), as in LEMON (Wang 2024, arXiv:2310.07999)",
            prefer="new units that shall start as they are drawn; networks without LayerNorm",
            left_out="a LayerNorm over a new width, or a GroupNorm over larger groups: zeros change their statistics",
            needs=_NEEDS,
        ),
    ),
    Growth(
        name="identity",
        keeps=_OUTPUT,
        about=About(
            title="identity blocks",
            purpose=_PURPOSE,
            formula="x + f(x) with the last weight of f at 0; W = I before a ReLU; width as clone",
            source="Net2DeeperNet: Chen et al. 2016, arXiv:1511.05641; Goyal et al. 2017, arXiv:1706.02677",
            prefer="more blocks of the same width, which start as nothing",
            left_out=f"{_WIDTHS}; {_PLACES}",
            needs=_NEEDS,
        ),
    ),
    Growth(
        name="stack",
        keeps="what each block does",
        about=About(
            title="stacking",
            purpose=_PURPOSE,
            formula="a new block is a copy of its nearest neighbour; width as clone",
            source="Gong et al. 2019 (progressive stacking of BERT, ICML); Du et al. 2024, arXiv:2405.15319",
            prefer="more blocks, where a few steps of training are cheaper than their symmetry",
            left_out="the output, wherever there is a new block",
            needs=_NEEDS,
        ),
    ),
    Growth(
        name="select_uniform",
        keeps=_PART,
        narrower=True,
        about=About(
            title="weight selection, at equal distances",
            purpose=_PURPOSE,
            formula="W'[o, i] = W[⌊o·S/L⌋, ⌊i·S/L⌋] for S units of the source and L of the model",
            source="Xu et al. 2024, arXiv:2311.18823",
            prefer="a student of a trained network, smaller in width or depth",
            left_out=_NOT_SHRUNK,
            needs=_NEEDS,
        ),
    ),
    Growth(
        name="select_consecutive",
        keeps=_PART,
        narrower=True,
        about=About(
            title="weight selection, the first units",
            purpose=_PURPOSE,
            formula="W'[o, i] = W[o, i]",
            source="Xu et al. 2024, arXiv:2311.18823",
            prefer="as select_uniform, where the order of units means something",
            left_out=_NOT_SHRUNK,
            needs=_NEEDS,
        ),
    ),
    Growth(
        name="select_magnitude",
        keeps=_PART,
        narrower=True,
        about=About(
            title="weight selection, the largest units",
            purpose=_PURPOSE,
            formula="W'[o, i] = W[t(o), t(i)], t the units of largest Σ W², in order",
            source="Xu et al. 2024, arXiv:2311.18823; magnitude: Li et al. 2017, arXiv:1608.08710",
            prefer="as select_uniform, of networks whose units differ in size, as pruned ones do",
            left_out=_NOT_SHRUNK,
            needs=_NEEDS,
        ),
    ),
)

GROWTH_ROWS: dict[str, Growth] = {row.name: row for row in _ROWS}
"""Every way by its name."""

if TYPE_CHECKING:
    GrowthName = str
else:
    # A Literal made of the rows: files and their schema are validated against it, and no name is written twice.
    GrowthName = Literal["none", *GROWTH_ROWS]
