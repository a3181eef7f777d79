"""Imports every module of the package on the Python that runs it; without torch, every one that does without."""

from __future__ import annotations

import importlib
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Prints how many modules were imported, and how many wait for torch; whatever else is missing is an error."""
    imported, waiting = [], []
    files = (ROOT / "autoinit").rglob("*.py")
    for path in sorted(path for path in files if path.name != "__main__.py"):  # which would run the command
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        try:
            importlib.import_module(name)
            imported.append(name)
        except ModuleNotFoundError as missing:
            if missing.name != "torch":
                raise
            waiting.append(name)
    told = f"Python {platform.python_version()}: {len(imported)} modules imported"
    print(f"{told}, {len(waiting)} need torch, which it does not have." if waiting else f"{told}.")


if __name__ == "__main__":
    main()
