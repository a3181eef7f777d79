"""μP: how initial scale and learning rate of each weight follow the width, so that one tuning serves all widths.

Yang et al. 2022, "Tensor Programs V", arXiv:2203.03466, table 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..graph import Graph, Layer


@dataclass(frozen=True, slots=True)
class WidthScale:
    """What μP does to one parameter, against its base width.

    Attributes:
        factor: on its standard deviation.
        lr_adam: on its learning rate under Adam and other optimizers that divide by the gradient's size.
        lr_sgd: on its learning rate under SGD.
    """

    factor: float = 1.0
    lr_adam: float = 1.0
    lr_sgd: float = 1.0


def width_of(graph: Graph) -> int:
    """Returns the width of a network: the median fan_in of its heads, of all its matrices where it has none."""
    matrices = [layer for layer in graph.layers if layer.is_matrix]
    heads = [layer.fan_in for layer in matrices if layer.role == "output"]
    fans = sorted(heads or [layer.fan_in for layer in matrices])
    return fans[len(fans) // 2] if fans else 1


def mup(layer: Layer, graph: Graph, base_width: int) -> WidthScale:
    """Returns the factors of one parameter at the ratio r = width/base width.

    What counts is which sides of a parameter grow with the width. At the base width every factor is 1.

        both        hidden matrices                          std ∝ 1/√fan_in   lr 1/r (Adam)   1 (SGD)
        inputs      heads, routers                           std × 1/√r more   lr 1/r          1/r
        outputs     input weights, embeddings, depthwise     as it is          lr 1            r
                    kernels, biases, scales, tables
        neither     output biases, single numbers            as it is          lr 1            1

    Yang et al. 2022, arXiv:2203.03466, table 3. All widths are taken to grow together, so one r serves all layers.

    Args:
        layer: the parameter.
        graph: the network that it is part of.
        base_width: `width_of` the network for which the learning rate was tuned.
    """
    r = width_of(graph) / base_width
    if _is_scalar(layer, graph):
        return WidthScale()
    if layer.role in ("output", "router") and layer.is_matrix:
        return WidthScale(1 / math.sqrt(r), 1 / r, 1 / r)
    if layer.is_matrix and not _reads_data(layer) and not _is_depthwise(layer):
        return WidthScale(1.0, 1 / r, 1.0)
    return WidthScale(1.0, 1.0, r)


def tied_heads(graph: Graph) -> list[Layer]:
    """Returns the embeddings that are the head as well, by a shared weight."""
    if any(layer.role == "output" and layer.is_matrix for layer in graph.layers):
        return []
    return [layer for layer in graph.layers if layer.role == "embedding" and layer.tied_to]


def mup_left_out(graph: Graph) -> str:
    """Returns why μP is not whole where a head shares its weight with an embedding; empty where none does."""
    tied = [layer.name for layer in tied_heads(graph)]
    if not tied:
        return ""
    return (
        f"μP asks for a head that is smaller by 1/√r and an embedding that is not; {tied[0]} is both, and stays as it "
        "is. Multiply the logits by base width/width, or untie them."
    )


def _is_scalar(layer: Layer, graph: Graph) -> bool:
    """Whether it has one number, or one for each output, whatever the width."""
    owner = graph.get(layer.of or "")
    return layer.size == 1 or (layer.role == "bias" and owner is not None and owner.role in ("output", "router"))


def _reads_data(layer: Layer) -> bool:
    return layer.role == "input" or (layer.depth == 0 and layer.role != "recurrent")


def _is_depthwise(layer: Layer) -> bool:
    """Whether each group of a convolution has one channel: it is the number of groups that grows with the width."""
    return layer.groups > 1 and layer.shape[1] == 1
