"""Rows that stand out: of a table of embeddings, and of a head, which has a row for each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from ..graph import Graph, Layer
from ..task.assign import is_parametrized, read
from ..task.origins import parameter_call
from ..text import few, number
from .finding import Finding

LARGE = 30.0
"""Times the median row's root mean square: trained tables keep within ten, a table of one column within seven."""
FEWEST_ROWS = 3
"""Of two rows, none is usual."""
SHOWN = 8
"""Rows that a remedy names; of more it says `rows`."""

_TABLES = ("embedding", "position")


def table_rows(model: nn.Module, graph: Graph) -> Iterator[Finding]:
    """Yields rows far larger than the others of a table or head, and rows of zeros in a head."""
    for layer in graph.layers:
        is_head = layer.role == "output" and layer.is_matrix
        if not is_head and layer.role not in _TABLES:
            continue
        sizes = _row_sizes(read(model, layer.name).detach(), layer)
        used = sizes > 0
        if len(sizes) < FEWEST_ROWS or not used.any():
            continue
        usual = float(sizes[used].median())
        large = (sizes > LARGE * usual).nonzero().flatten().tolist()
        if large:
            most = number(float(sizes.max()))
            said = f"far larger than the others: a root mean square of {most}, where the median row has {number(usual)}"
            yield _found(model, layer, large, usual, said)
        read_out = is_head or any(_is_head(model, name) for name in (layer.name, *layer.tied_to) if layer.tied_to)
        zero = set((~used).nonzero().flatten().tolist()) - _padding(model, len(sizes))
        if read_out and zero:
            said = (
                f"zero, while the others have a root mean square of {number(usual)}: the score of such a class starts "
                "the same for every input"
            )
            yield _found(model, layer, sorted(zero), usual, said)


def _row_sizes(weight: Tensor, layer: Layer) -> Tensor:
    """Returns the root mean square of each row: of each class, token or place."""
    axes = layer.out_axes if layer.is_matrix else tuple(range(max(1, weight.dim() - 1)))
    rows = weight.permute(*axes, *(axis for axis in range(weight.dim()) if axis not in axes))
    return rows.abs().double().flatten(0, len(axes) - 1).flatten(1).square().mean(1).sqrt()


def _is_head(model: nn.Module, name: str) -> bool:
    """Whether a name of a tied tensor is not that of a table."""
    return not isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Embedding)


def _padding(model: nn.Module, rows: int) -> set[int]:
    """Returns the rows that stand for padding in tables of so many rows; a head beside such a table leaves them out."""
    tables = (part for part in model.modules() if isinstance(part, nn.Embedding) and part.num_embeddings == rows)
    return {table.padding_idx for table in tables if table.padding_idx is not None}


def _found(model: nn.Module, layer: Layer, rows: Sequence[int], usual: float, said: str) -> Finding:
    """Returns the finding that some rows are otherwise than the usual one is; `said` is in what way."""
    what, verb = ("row", "is") if len(rows) == 1 else ("rows", "are")
    return Finding(
        "warning",
        f"{what} {few(list(map(str, rows)))} of {layer.name} {verb} {said}",
        f"draw them as the others: {_drawn(model, layer, rows, usual)}",
    )


def _drawn(model: nn.Module, layer: Layer, rows: Sequence[int], std: float) -> str:
    """Returns the statement that draws some rows; where rows are no first axis, what to do in words."""
    if is_parametrized(model, layer.name) or len(layer.shape) != 2 or (layer.is_matrix and layer.out_axes != (0,)):
        return f"with a standard deviation of {number(std)}"
    shown = f"{list(rows)}" if len(rows) <= SHOWN else "rows"
    return f"for row in {shown}: nn.init.normal_({parameter_call(layer.name)}.data[row], std={number(std)})"
