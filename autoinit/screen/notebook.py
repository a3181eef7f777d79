"""Whether this is a notebook, and the one cell output there that can be changed later."""

from __future__ import annotations

import sys
from typing import Any

_KERNELS = ("ZMQInteractiveShell", "Shell")
"""Classes of IPython's shells behind notebooks: Jupyter's and VS Code's, and Google Colab's."""


def in_notebook() -> bool:
    """Whether cell outputs are shown on a page: in Jupyter, VS Code or Colab, not in a terminal's IPython."""
    shell = _shell()
    return shell is not None and type(shell).__name__ in _KERNELS


def _shell() -> Any:
    ipython = sys.modules.get("IPython")  # a notebook has imported it; nobody else has to
    return None if ipython is None else ipython.get_ipython()


class Output:
    """Some HTML below the running cell, which can be replaced and taken away."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, html: str) -> None:
        """Shows this in the place of what was shown before."""
        from IPython import display

        page = display.HTML(html)  # type: ignore[no-untyped-call]
        if self._handle is None:
            self._handle = display.display(page, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(page)

    def clear(self) -> None:
        """Leaves an empty output."""
        if self._handle is not None:
            self.show("")
