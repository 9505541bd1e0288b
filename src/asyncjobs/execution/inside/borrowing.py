"""Packages of the engine's that a job under another interpreter imports although they are not installed there.

Loaded by path: built-in modules alone.
"""

from __future__ import annotations

import sys
from _frozen_importlib_external import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class Borrowed:
    """Finds exactly the packages that it was given, each in the folder where the engine has it."""

    def __init__(self, folders: dict[str, str]) -> None:
        self._folders = folders

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a package is, or None; what is in it is found by its own path."""
        folder = self._folders.get(name)
        return None if folder is None else PathFinder.find_spec(name, [folder], target)


def install(folders: dict[str, str]) -> None:
    """Have top-level packages found in these folders, before any other of their name."""
    sys.meta_path.insert(0, Borrowed(folders))
