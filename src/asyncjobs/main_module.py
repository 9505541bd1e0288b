"""The program's main module, where a job's function may stand, and how another process finds it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncjobs.definition import JobDefinition


def main_of(function: Callable[..., Any]) -> dict[str, str] | None:
    """Say where a function's main module is, by its name or by its path; None when it is of another module."""
    if function.__module__ != "__main__":
        return None
    names = _names_around(function)
    spec = names.get("__spec__")
    if spec is not None and spec.loader is not None:  # without one it is a profiler's note of the script
        return {"module": spec.name}
    return {"path": names.get("__file__") or "<no file>"}


def unloadable_reason(definition: JobDefinition[..., Any]) -> str | None:
    """Say why another process could not load the function, or None when it can."""
    main = main_of(definition.function)
    if main is None or "module" in main:
        return None
    # A program read from standard input has "<stdin>" there.
    if not main["path"].startswith("<") and "ipykernel" not in sys.modules:
        return None
    return (
        f"the job {definition.name!r} is defined in a notebook, REPL, -c or standard input, where its own "
        f"process can't find it: move it into a module and import it, or give it isolation='inline'"
    )


def _names_around(function: Any) -> dict[str, Any]:
    """Return the names of the main module, as the function sees them.

    Where a profiler or a tracer runs a script (`python -m cProfile script.py`), `sys.modules` has the profiler.
    """
    while function is not None:
        names: dict[str, Any] = getattr(function, "__globals__", {})
        if names.get("__name__") == "__main__":
            return names
        function = getattr(function, "__wrapped__", None)  # this one is a decorator's, of another module
    return vars(sys.modules["__main__"])
