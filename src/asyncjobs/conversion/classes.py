"""Classes of any kind: whether a value is of one, and making one.

Standard library only, Python 3.9 and later: it is loaded by path in a job's process too.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING or __name__ != "_asyncjobs_classes":
    from asyncjobs.jsonvalues import Misfit, expected, shortened
else:
    from _asyncjobs_jsonvalues import Misfit, expected, shortened
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def is_subclass(kind: type, module: str, name: str) -> bool:
    """Return whether `kind` is one of a class whose module may not be imported: then nothing is."""
    parent = getattr(sys.modules.get(module), name, None)
    return parent is not None and issubclass(kind, parent)


def check_type(value: Any, kind: type) -> None:
    """Raise `Misfit` if `value` is no `kind`, or of a subclass."""
    if type(value) is kind:
        return
    if isinstance(value, kind):
        raise Misfit(
            f"expected {kind.__qualname__} itself, not its subclass {type(value).__qualname__} "
            f"({shortened(value)}), whose type would be lost; convert it first"
        )
    raise expected(kind.__qualname__, value)


def built(kind: type, make: Callable[[], Any]) -> Any:
    """Return what `make` makes of a form, a `kind`."""
    try:
        return make()
    except Exception as error:  # a class's `__post_init__` is any code
        raise Misfit(f"{kind.__qualname__} refuses these fields: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Return what an exception says, on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
