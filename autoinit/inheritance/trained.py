"""What of a model somebody has trained: a graph in which a checkpoint's weights stay, and what is new is free."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection

import torch
from torch import nn

from ..graph import BESIDE_ADAPTERS, IN_CHECKPOINT, TRAINED, Graph, Layer
from ..task.assign import assign_all, read
from ..text import few
from .checkpoints import Source
from .matching import Matching, matched
from .tables import with_rows


def with_trained(model: nn.Module, graph: Graph, checkpoint: Source | None) -> Graph:
    """Returns the graph in which what a checkpoint has must stay; what it lacks is new.

    Names and shapes alone are compared. Values that differ from the checkpoint's are told in a note: the weights were
    not loaded, or have been trained since.

    Args:
        model: that the graph is of.
        graph: with what stays for other reasons.
        checkpoint: whatever `read_checkpoint` reads; None where there is none.

    Raises:
        SourceError: the checkpoint cannot be read, or is of another architecture.
    """
    if checkpoint is None:
        return graph
    found = matched(model, checkpoint)
    tables = with_rows(model)
    layers = tuple(_told(layer, found, tables) for layer in graph.layers)
    return dataclasses.replace(graph, layers=layers, notes=(*graph.notes, *_notes(model, found)))


def _told(layer: Layer, found: Matching, tables: Collection[str]) -> Layer:
    """Returns a layer as a checkpoint has it: trained, trained in its first rows, or new."""
    names = (layer.name, *layer.tied_to)
    if any(name in found.same for name in names):
        return dataclasses.replace(layer, keep=layer.keep or IN_CHECKPOINT)
    stored = next((found.rows[name] for name in names if name in found.rows), None)
    if stored is not None:
        rows = found.checkpoint.shapes[stored][0]
        why = f"{TRAINED}: its first {rows:,} rows are in the checkpoint; recipes of rows set the others"
        if layer.keep in ("", BESIDE_ADAPTERS) and layer.name in tables:
            return dataclasses.replace(layer, keep=why, new_rows=rows)
        return dataclasses.replace(layer, keep=layer.keep or why)
    return dataclasses.replace(layer, keep="") if layer.keep == BESIDE_ADAPTERS else layer


def _notes(model: nn.Module, found: Matching) -> list[str]:
    """Returns what is to be known of a checkpoint beside, in whole sentences."""
    title = found.checkpoint.title
    shown = os.path.basename(title.rstrip(os.sep)) or title
    notes = list(found.notes)
    if differ := found.differs(model):
        notes.append(
            f"{len(differ)} of {len(found.same) + len(found.rows)} tensors hold other values than {shown} "
            f"({few(differ)}): they count as trained, as they are. Load it first where that was forgotten."
        )
    if found.unused:
        notes.append(f"{shown} has {len(found.unused)} tensors that the model has no place for: {few(found.unused)}.")
    return notes


@torch.no_grad()
def load_trained(model: nn.Module, checkpoint: Source) -> Matching:
    """Sets what of a model a checkpoint has, first rows of longer tables included, and returns what was matched.

    Args:
        model: whose parameters and buffers are set.
        checkpoint: whatever `read_checkpoint` reads.

    Raises:
        SourceError: the checkpoint cannot be read, or is of another architecture; nothing is changed.
    """
    found = matched(model, checkpoint)
    same, rows = (
        {name: found.checkpoint.tensor(stored) for name, stored in part.items()} for part in (found.same, found.rows)
    )
    assign_all(model, same)
    for name, value in rows.items():
        read(model, name)[: len(value)].copy_(value)
    return found
