"""Where a recommender comes from: the shipped knowledge, a file of it, one's own records, or a fitted one."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from ..errors import ArgumentError
from ..knowledge.files import gathered, knowledge_hash, read_knowledge, shipped
from ..knowledge.tables import merged
from ..text import few
from .cache import cached, default, fitted, load
from .model import Recommender

Source = Recommender | str | os.PathLike[str] | None
"""None or "default" for the shipped knowledge; a fitted one, or the path of one (.npz), of knowledge or of records."""


def recommender_from(source: Source) -> Recommender:
    """Returns the recommender that was meant.

    Args:
        source: a path of records (.jsonl, .parquet) means them together with the shipped knowledge; lines that cannot
            be read are told in a warning.

    Raises:
        KnowledgeError: a file that is damaged or from another version, or holds too few tasks.
        ArgumentError: something else, or records that cannot be read.
    """
    if source is None or (isinstance(source, str) and source == "default"):
        return default()
    if isinstance(source, Recommender):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise ArgumentError(
            f"recommender is a {type(source).__name__}. Allowed: None, an autoinit.Recommender, or the path of a "
            "fitted one (.npz), of knowledge (.jsonl.xz) or of records (.jsonl, .parquet)."
        )
    path = Path(source)
    if path.suffix == ".npz":
        return load(path)
    if path.suffix == ".xz":
        return cached(knowledge_hash(path), lambda: read_knowledge(path))
    own, skipped = gathered(path)
    if skipped:
        warnings.warn(f"{len(skipped)} records were not read: {few(skipped)}", UserWarning, stacklevel=3)
    return fitted(merged(shipped(), own))
