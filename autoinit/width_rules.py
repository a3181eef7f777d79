"""μP: how initial scale and learning rate of each weight follow the width, so that one tuning serves all widths.

Yang et al. 2022, "Tensor Programs V", arXiv:2203.03466, table 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .graph import Graph, Layer


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
    """Returns the width of a network: inputs of its head, or the median fan_in where it has none."""
    heads = [layer.fan_in for layer in graph.weights if layer.role == "output"]
    fans = heads or sorted(layer.fan_in for layer in graph.weights)
    return fans[len(fans) // 2] if fans else 1


def mup(layer: Layer, graph: Graph, base_width: int) -> WidthScale:
    """Returns the factors of one parameter at the ratio r = width/base width.

    Hidden matrices keep std ∝ 1/√fan_in and take learning rate 1/r under Adam, 1 under SGD; the head takes std and
    learning rate 1/√r more and 1/r; what reads the data (input weights, embeddings) and all vectors 1 and r.
    """
    r = width_of(graph) / base_width
    if layer.role == "output":
        return WidthScale(1 / math.sqrt(r), 1 / r, 1 / r)
    if layer.is_matrix and not _reads_data(layer, graph):
        return WidthScale(1.0, 1 / r, 1.0)
    if layer.role == "bias" and _is_output_bias(layer, graph):
        return WidthScale()  # as many as there are outputs, whatever the width
    return WidthScale(1.0, 1.0, r)


def _reads_data(layer: Layer, graph: Graph) -> bool:
    return layer.role == "input" or (layer.role == "recurrent_input" and layer.depth == graph.weight_depths[0])


def _is_output_bias(layer: Layer, graph: Graph) -> bool:
    owner = graph.get(layer.of or "")
    return owner is not None and owner.role == "output"
