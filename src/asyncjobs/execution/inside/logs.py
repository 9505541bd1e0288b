"""What a job logs goes to its stderr, where nobody has said anything else: INFO and above.

`logging` is dear, and most jobs never import it; so it is configured when a job's module has imported it,
or else at its import.

Loaded by path into the job's process: built-in modules alone.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_FORMAT = "%(levelname)s %(name)s: %(message)s"


def show() -> None:
    """Have shown what is logged from now on; call it once the job's module is imported."""
    if "logging" in sys.modules:
        _configure(sys.modules["logging"])
    else:
        sys.meta_path.insert(0, _AtImport())


class _AtImport:
    """Leaves it to the other finders where `logging` is, and has it configured as soon as it is imported.

    It stays among them: to take one out would have imports of other threads miss the next.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where `logging` is, and None for everything else."""
        if name != "logging":
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                _configure_once_executed(spec.loader)
                return spec
        return None


def _configure_once_executed(loader: Any) -> None:
    if isinstance(loader, type):
        return  # of a frozen module: it is every such module's
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        _configure(module)

    loader.exec_module = exec_module


def _configure(logging: Any) -> None:
    root = logging.root
    if root.handlers or root.level != logging.WARNING:
        return
    basic_config = logging.basicConfig
    basic_config(level=logging.INFO, format=_FORMAT, stream=sys.stderr)
    ours = root.handlers.copy()

    def basicConfig(**options: Any) -> None:
        """Do what a job's function wants to be done; ours makes room for it."""
        if root.handlers == ours:
            root.removeHandler(*ours)
        basic_config(**options)

    logging.basicConfig = basicConfig
