"""Tables with a row for each token or class: embeddings and the heads that go with them, tied ones once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import ArgumentError, ModelError, did_you_mean
from ..text import few

TableModule: TypeAlias = nn.Embedding | nn.EmbeddingBag | nn.Linear
_KINDS = (nn.Embedding, nn.EmbeddingBag, nn.Linear)


@runtime_checkable
class NamesItsTables(Protocol):
    """What models of transformers tell of themselves."""

    def get_input_embeddings(self) -> Any:
        """Returns the module that has a row for each token."""

    def get_output_embeddings(self) -> Any:
        """Returns the module that has a row for each token's score; None where there is none."""


@dataclass(frozen=True)
class Table:
    """One tensor with a row for each token or class.

    Attributes:
        name: of the tensor, the first that it has in the model.
        weight: the tensor itself, [rows, columns].
        biases: name → vector with an entry for each row, of heads that use the tensor.
        padding: row that stands for padding and is zero; None where there is none.
    """

    name: str
    weight: Tensor
    biases: Mapping[str, Tensor]
    padding: int | None

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.weight)


def tables_of(model: nn.Module, chosen: str | Sequence[str] | None = None) -> list[Table]:
    """Returns the tables of a model, each tensor once, however many modules share it.

    Args:
        model: whose modules are looked at.
        chosen: paths of modules, or names of their weights; None for the table of tokens and the head with as many
            rows, as a model of transformers names them, or as shapes and order tell.

    Raises:
        ArgumentError: there is no such module, or it has no rows for tokens or classes.
        ModelError: no table is found, or several, or one cannot be set by rows.
    """
    modules = _found(model) if chosen is None else _chosen(model, [chosen] if isinstance(chosen, str) else chosen)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    paths = {id(module): path for path, module in model.named_modules()}
    sharing: dict[int, list[TableModule]] = {}
    for module in modules:
        _check(module, paths[id(module)])
        sharing.setdefault(id(module.weight), []).append(module)
    return [_table(shared, names) for shared in sharing.values()]


def with_rows(model: nn.Module) -> set[str]:
    """Returns the names of all weights and biases of a model that can be set row by row."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [
        module for module in model.modules() if isinstance(module, _KINDS) and not parametrize.is_parametrized(module)
    ]
    tensors = [tensor for module in found for tensor in module._parameters.values() if tensor is not None]
    return {names[id(tensor)] for tensor in tensors}


def _table(modules: Sequence[TableModule], names: Mapping[int, str]) -> Table:
    weight = modules[0].weight
    biases = [module.bias for module in modules if isinstance(module, nn.Linear) and module.bias is not None]
    padding = [module.padding_idx for module in modules if not isinstance(module, nn.Linear)]
    return Table(
        names[id(weight)],
        weight.detach(),
        {names[id(bias)]: bias.detach() for bias in biases},
        next((row for row in padding if row is not None), None),
    )


def _check(module: TableModule, path: str) -> None:
    if parametrize.is_parametrized(module, "weight"):
        raise ModelError(
            f"The weight of {path or 'the model'} is parametrized, so its rows cannot be set without touching others. "
            "Remove the parametrization first (torch.nn.utils.parametrize.remove_parametrizations)."
        )
    if module.weight.is_meta or not module.weight.is_floating_point():
        what = "lies on the meta device and holds no values" if module.weight.is_meta else f"is {module.weight.dtype}"
        raise ModelError(f"The weight of {path or 'the model'} {what}. Its rows must hold real numbers to be set.")


def _chosen(model: nn.Module, paths: Iterable[str]) -> list[TableModule]:
    modules = dict(model.named_modules())
    tables = {path: module for path, module in modules.items() if isinstance(module, _KINDS)}
    found = []
    for path in paths:
        bare = path if path in modules else path.removesuffix(".weight")
        if bare not in tables:
            what = f"a {type(modules[bare]).__name__}" if bare in modules else "no module"
            raise ArgumentError(
                f"tables names {path!r}, which is {what} of the model; embeddings and linear layers have rows. "
                f"{did_you_mean(bare, tables)}"
            )
        found.append(tables[bare])
    if not found:
        raise ArgumentError("tables is empty. Leave it out, or name modules that have a row for each token or class.")
    return found


def _found(model: nn.Module) -> list[TableModule]:
    """Returns the table of tokens and the modules that share it or come last with as many rows."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    told, head = _told(model)
    table = told or _only(model, linear)
    heads = [module for module in linear if module.weight is table.weight]
    last = head or (linear[-1] if linear else None)
    if last is not None and last not in heads and last.out_features == len(table.weight):
        heads.append(last)
    return [table, *heads]


def _told(model: nn.Module) -> tuple[nn.Embedding | None, nn.Linear | None]:
    """Returns the table and the head that a model of transformers names."""
    if not isinstance(model, NamesItsTables):
        return None, None
    try:
        table, head = model.get_input_embeddings(), model.get_output_embeddings()
    except NotImplementedError:  # of a model without tokens
        return None, None
    return table if isinstance(table, nn.Embedding) else None, head if isinstance(head, nn.Linear) else None


def _only(model: nn.Module, linear: Sequence[nn.Linear]) -> nn.Embedding | nn.EmbeddingBag:
    """Returns the one table of a model; of several, the one whose number of rows the last linear layer has, too."""
    found = {
        path: module for path, module in model.named_modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    }
    if not found:
        raise ModelError(
            f"{type(model).__name__} has no table of embeddings. Where rows of a head are new, name it: "
            "tables='path.of.the.head'."
        )
    ties = {id(layer.weight) for layer in linear}
    apart = [module for module in found.values() if id(module.weight) in ties] or [
        module for module in found.values() if linear and len(module.weight) == linear[-1].out_features
    ]
    for few_enough in (list(found.values()), apart):
        if len({id(module.weight) for module in few_enough}) == 1:
            return few_enough[0]
    raise ModelError(f"{type(model).__name__} has several tables: {few(list(found), 6)}. Name those meant: tables=[…].")
