"""Annotations of functions and classes, evaluated as far as their names are there.

Standard library only, Python 3.9 and later: it is loaded by path in a job's process too.
"""

from __future__ import annotations

import sys
import typing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def evaluated(annotation: Any, owner: Any, names: Mapping[str, Any]) -> Any:
    """Return an annotation of `owner`, a function or class, with its strings replaced by what they name.

    Raises:
        NameError, AttributeError, SyntaxError: A name is not there (imported under TYPE_CHECKING).
    """

    def stand_in() -> None: ...

    stand_in.__annotations__ = {"it": annotation}
    parameters = {parameter.__name__: parameter for parameter in getattr(owner, "__type_params__", ())}
    return typing.get_type_hints(stand_in, dict(names), parameters, include_extras=True)["it"]


def hints_of(kind: Any) -> dict[str, Any]:
    """Return the annotations of a class's fields; one that can't be resolved is Any."""
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except (NameError, AttributeError):
        pass
    hints: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        names = getattr(sys.modules.get(each.__module__), "__dict__", {})
        for name, annotation in _own_annotations(each).items():
            try:
                hints[name] = evaluated(annotation, each, {**names, each.__name__: each})
            except (NameError, AttributeError):
                hints[name] = typing.Any
    return hints


def lenient_annotations(function: Any) -> dict[str, Any]:
    """Return the annotations of a function or class, with `ForwardRef`s for names that are missing."""
    import annotationlib  # type: ignore[import-not-found]  # Python 3.14

    return annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)  # type: ignore


def is_required(hint: Any, otherwise: bool) -> bool:
    """Return whether a TypedDict's field must be there; where its annotation doesn't say, `otherwise`."""
    origin = typing.get_origin(hint)
    if name_of(origin) in ("Required", "NotRequired"):
        return name_of(origin) == "Required"
    if origin is typing.Annotated or name_of(origin) == "ReadOnly":
        return is_required(typing.get_args(hint)[0], otherwise)
    return otherwise


def name_of(annotation: Any) -> str:
    """Return the name of a form of `typing`, or nothing."""
    return getattr(annotation, "_name", None) or getattr(annotation, "__name__", "") or ""


def label_of(annotation: Any) -> str:
    """Return what a sentence calls an annotation."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__
    return repr(annotation).replace("typing.", "")


def _own_annotations(kind: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        return lenient_annotations(kind)
    found: dict[str, Any] = getattr(kind, "__annotations__", {})
    return found
