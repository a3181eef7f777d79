"""The calibrations: one row for each rescaling of drawn weights that is measured on batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .about import About


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How drawn weights are rescaled by what is measured on batches.

    Attributes:
        name: as used in recipes, and of its function in `autoinit.calibrations.methods.CALIBRATIONS`.
        base: the scheme that is drawn before it where its name stands for a whole recipe.
        steps: what it costs in training steps, several times that with RNNs, where it differentiates gradients; 0 where
            it takes some forward passes and no more, or goes back no further than the heads.
        by_loss: whether it looks at gradients of the loss, and not at outputs alone.
        about: its formula, its source, what it is for, and what it needs.
    """

    name: str
    base: str = "as_is"
    steps: int = 0
    by_loss: bool = False
    about: About


_ROWS = (
    Calibration(
        name="lsuv",
        base="orthogonal",
        about=About(
            title="LSUV",
            purpose="deep networks of any kind",
            formula="orthogonal, then each layer's output rescaled to variance 1 on a batch, in forward order",
            source="Mishkin & Matas 2016, arXiv:1511.06422",
            prefer="where no formula knows the architecture: it measures",
            cost="2 to 4 forward passes, and the QR of orthogonal",
        ),
    ),
    Calibration(
        name="lsuv_centred",
        base="orthogonal",
        about=About(
            title="LSUV with centred outputs",
            purpose="deep networks whose activations are not centred (ReLU, sigmoid)",
            formula="as lsuv, and biases that make each output's mean 0",
            source="Mishkin & Matas 2016, arXiv:1511.06422",
            prefer="plain ReLU and sigmoid networks",
            cost="2 to 4 forward passes, and the QR of orthogonal",
        ),
    ),
    Calibration(
        name="within_layer",
        base="lecun_normal",
        about=About(
            title="Within-layer normalization",
            purpose="plain CNNs and MLPs",
            formula="every unit's output gets mean 0 (by its bias) and variance 1 on a batch, in forward order",
            source="Krähenbühl et al. 2016, arXiv:1511.06856",
            prefer="inputs on very different scales; a start like that of batch normalization",
            cost="2 to 4 forward passes",
            left_out="the second half, equal rates of change in all layers: only in plain ReLU chains does it keep the "
            "function",
        ),
    ),
    Calibration(
        name="admin",
        base="xavier_uniform",
        about=About(
            title="Admin",
            purpose="deep post-LN Transformers",
            formula="residual branch i × 1/ω_i, ω_i² = Var x_0 + Σ Var f_j over the branches j before it, measured",
            source="Liu et al. 2020, arXiv:2004.08249",
            prefer="post-LN Transformers, where one batch is at hand to measure on",
            cost="one forward pass",
            left_out="ω as a parameter that trains; its start folds into the weights exactly: LN(ω·x + f) = "
            "LN(x + f/ω)",
            needs=("post_norm",),
        ),
    ),
    Calibration(
        name="gradinit",
        by_loss=True,
        steps=210,
        about=About(
            title="GradInit",
            purpose="networks of any kind that can be differentiated twice",
            formula="scales that minimize the loss after one optimizer step, under a bound on the gradient's norm",
            source="Zhu et al. 2021, arXiv:2102.08098",
            prefer="architectures without a theory, where lsuv is not enough",
            cost="about 200 training steps",
        ),
    ),
    Calibration(
        name="metainit",
        by_loss=True,
        steps=525,
        about=About(
            title="MetaInit",
            purpose="networks of any kind that can be differentiated twice",
            formula="norms that minimize the gradient quotient, which is 0 where the loss has no curvature",
            source="Dauphin & Schoenholz 2019, NeurIPS",
            prefer="networks without normalization, where the weights' scale is far off",
            cost="about 500 training steps",
        ),
    ),
    Calibration(
        name="nio",
        by_loss=True,
        steps=300,
        about=About(
            title="NIO, gradient agreement",
            purpose="networks of any kind that can be differentiated twice",
            formula="scales that maximize the cosine between the gradients of two halves of a batch, "
            "their norm bounded",
            source="Yang et al. 2022, arXiv:2210.05956",
            prefer="when gradients of different examples pull apart (see diagnose)",
            cost="about 300 training steps",
        ),
    ),
    Calibration(
        name="fluctuation_driven",
        base="lecun_normal",
        about=About(
            title="Fluctuation-driven",
            purpose="spiking networks",
            formula="membrane potential with mean μ_U and standard deviation (θ − μ_U)/ξ, measured layer by layer",
            source="Rossbroich et al. 2022, arXiv:2206.10226",
            prefer="spiking networks: with other weights, layers tend to start silent or to fire all the time",
            cost="some forward passes for each layer",
            needs=("spikes",),
        ),
    ),
    Calibration(
        name="multi_task",
        by_loss=True,
        about=About(
            title="Equal gradients of heads",
            purpose="several heads on one trunk, with losses of different kinds and sizes",
            formula="W_i × s_i such that ‖∂L/∂h_i‖, what head i sends back to its input, is the geometric mean of all "
            "heads', measured on a batch; biases stay",
            source="after GradNorm: Chen et al. 2018, arXiv:1711.02257",
            prefer="where one loss drowns the others, and weights of the losses are not to be tuned",
            cost="1 to 12 forward passes, 4 as a rule, each with a backward pass from the losses to the inputs of the "
            "heads, not through the trunk",
            left_out="weights of the losses that follow the rates of learning: gradients are equal at the start, and "
            "go their own ways",
            needs=("heads",),
        ),
    ),
)

CALIBRATION_ROWS: dict[str, Calibration] = {row.name: row for row in _ROWS}
"""Name → what is known of a calibration without running it, in the order in which messages name them."""

if TYPE_CHECKING:
    CalibrationName = str
else:
    # A Literal made of the rows: files and their schema are validated against it, and no name is written twice.
    CalibrationName = Literal["none", *CALIBRATION_ROWS]


def steps_of(name: str) -> int:
    """Returns what a recipe's calibration costs in training steps; 0 for "none"."""
    return 0 if name == "none" else CALIBRATION_ROWS[name].steps
