"""The starts of low-rank adapters: one row for each way to set the pair of matrices beside a trained weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .about import About

Watched = Literal["", "inputs", "gradients"]
"""What is measured on batches: nothing, what each weight multiplies, or the gradient that it would get."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """How the pair A, B of a low-rank addition W + s·B·A starts.

    Attributes:
        name: as used in recipes, in the field `adapter`, and of its function in `autoinit.inheritance.adapters`.
        takes: whether it takes from the weight W beside it, which is then W − s·B·A, so that the output stays.
        drawn: whether formulas of each matrix by itself give it; else its values are worked out where it is applied.
        watches: what it measures on batches.
        down: what A gets, in words.
        up: what B gets, in words.
        about: its formula, its source, what it is for, and what it needs.
    """

    name: str
    takes: bool = False
    drawn: bool = False
    watches: Watched = ""
    down: str
    up: str
    about: About


_NEEDS = ("adapters",)
_WHOLE_NEEDS = ("adapters", "bases")
_NO_PASS = "one pass over the adapters"
PASSES = 8
"""Training batches that are looked at by those that measure."""

_ROWS = (
    Adapter(
        name="default",
        drawn=True,
        down="LoRA: uniform, as torch draws a linear layer's weight",
        up="LoRA: zero, so that the adapter adds nothing at the start",
        about=About(
            title="LoRA",
            purpose="low-rank adapters beside trained weights",
            formula="A from U(−1/√fan_in, 1/√fan_in), B = 0 (beside an embedding A = 0, B from N(0, 1))",
            source="Hu et al. 2021, arXiv:2106.09685; as in its code and in peft",
            prefer="the usual start, and the one to compare others with at rates of their own",
            cost=_NO_PASS,
            needs=_NEEDS,
        ),
    ),
    Adapter(
        name="gaussian",
        drawn=True,
        down="LoRA, Gaussian: std = 1/rank",
        up="LoRA: zero, so that the adapter adds nothing at the start",
        about=About(
            title="LoRA, Gaussian",
            purpose="low-rank adapters beside trained weights",
            formula="A from N(0, 1/r²), B = 0",
            source="peft's init_lora_weights='gaussian', from diffusers",
            prefer="adapters of diffusion models, whose scripts use it",
            cost=_NO_PASS,
            needs=_NEEDS,
        ),
    ),
    Adapter(
        name="orthogonal",
        down="LoRA, orthogonal: normal rows times the odd rows of an orthogonal matrix, ÷ 10",
        up="LoRA, orthogonal: normal columns times its even rows, ÷ 10: the product is zero",
        about=About(
            title="LoRA, orthogonal",
            purpose="low-rank adapters of an even rank beside trained weights",
            formula="B·A = 0 with both nonzero: A = Q_oddᵀ·Z/10, B = Zᵀ·Q_even/10, Q orthogonal, Z from N(0, 1)",
            source="peft's init_lora_weights='orthogonal', from Neogi 2024 (datta0.github.io)",
            prefer="where both matrices shall get a gradient from the first step, and the weights beside must not move",
            cost=_NO_PASS,
            needs=_NEEDS,
        ),
    ),
    Adapter(
        name="pissa",
        takes=True,
        down="PiSSA: √(σ/s)·Vᵀ of the weight's largest singular values",
        up="PiSSA: U·√(σ/s) of the weight's largest singular values",
        about=About(
            title="PiSSA",
            purpose="low-rank adapters beside trained weights",
            formula="W = U·Σ·Vᵀ; B = U_r·√(Σ_r/s), A = √(Σ_r/s)·V_rᵀ; W becomes W − s·B·A",
            source="Meng et al. 2024, arXiv:2404.02948",
            prefer="small ranks and few steps: what trains is the weight's principal part",
            cost="one singular value decomposition for each weight with an adapter, O(d³)",
            needs=_WHOLE_NEEDS,
        ),
    ),
    Adapter(
        name="olora",
        takes=True,
        down="OLoRA: the first rows of R, where W = Q·R",
        up="OLoRA: the first columns of Q, where W = Q·R",
        about=About(
            title="OLoRA",
            purpose="low-rank adapters beside trained weights",
            formula="W = Q·R; B = Q_r, A = R_r; W becomes W − s·B·A",
            source="Büyükakyüz 2024, arXiv:2406.01775",
            prefer="as PiSSA, where its decomposition takes too long",
            cost="one QR decomposition for each weight with an adapter, O(d³)",
            needs=_WHOLE_NEEDS,
        ),
    ),
    Adapter(
        name="eva",
        watches="inputs",
        down="EVA: the principal directions of what the weight multiplies, on batches",
        up="LoRA: zero, so that the adapter adds nothing at the start",
        about=About(
            title="EVA",
            purpose="low-rank adapters beside trained weights",
            formula="A = the first r principal directions of the weight's inputs, B = 0",
            source="Paischer et al. 2024, arXiv:2410.07170",
            prefer="where the new data lie in few directions, and the weights beside must not move",
            cost=f"{PASSES} forward passes",
            left_out="ranks that are moved from layer to layer: every adapter has the rank that its owner gave it",
            needs=_NEEDS,
        ),
    ),
    Adapter(
        name="lora_ga",
        takes=True,
        watches="gradients",
        down="LoRA-GA: right singular vectors of the weight's gradient, the 1st to the rth",
        up="LoRA-GA: left singular vectors of the weight's gradient, the next r, × ⁴√fan_out/√γ",
        about=About(
            title="LoRA-GA",
            purpose="low-rank adapters beside trained weights",
            formula="∇W = U·Σ·Vᵀ; A = V_{1…r}ᵀ·⁴√d_out/√γ, B = U_{r+1…2r}·⁴√d_out/√γ, γ = 16; W becomes W − s·B·A",
            source="Wang et al. 2024, arXiv:2407.05000",
            prefer="where the first steps shall go where full training would go",
            cost=f"{PASSES} training steps, and a decomposition for each weight with an adapter",
            needs=_WHOLE_NEEDS,
        ),
    ),
    Adapter(
        name="corda",
        takes=True,
        watches="inputs",
        down="CorDA: √(σ/s)·Vᵀ·C⁻¹ of W·C, C the inputs' second moments on batches",
        up="CorDA: U·√(σ/s) of W·C, C the inputs' second moments on batches",
        about=About(
            title="CorDA",
            purpose="low-rank adapters beside trained weights",
            formula="W·C = U·Σ·Vᵀ, C = E[x·xᵀ]; B = U_r·√(Σ_r/s), A = √(Σ_r/s)·V_rᵀ·C⁻¹; W becomes W − s·B·A",
            source="Yang et al. 2024, arXiv:2406.05223 (instruction-previewed)",
            prefer="as PiSSA, weighed by the data that are at hand",
            cost=f"{PASSES} forward passes, and two decompositions for each weight with an adapter",
            left_out="the knowledge-preserved mode, which adapts the smallest components",
            needs=_WHOLE_NEEDS,
        ),
    ),
)

ADAPTER_ROWS: dict[str, Adapter] = {row.name: row for row in _ROWS}
"""Name → what is known of a start of adapters without a model."""

if TYPE_CHECKING:
    AdapterName = str
else:
    # A Literal made of the rows: files and their schema are validated against it, and no name is written twice.
    AdapterName = Literal["same", *ADAPTER_ROWS]
