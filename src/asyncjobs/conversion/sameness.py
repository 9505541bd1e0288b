"""Whether a value that made the trip through JSON is the one that set out.

Standard library only, Python 3.9 and later: it is loaded by path in a job's process too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING or __name__ != "_asyncjobs_sameness":
    from asyncjobs.conversion.classes import is_subclass
else:
    from _asyncjobs_classes import is_subclass
if TYPE_CHECKING:
    from typing import Any

_GONE = object()


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal in value and type, all the way down; NaN is equal to itself."""
    kind: Any = type(one)
    if kind is not type(other):
        return False
    if kind is float:
        return repr(one) == repr(other)
    if issubclass(kind, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if issubclass(kind, (set, frozenset)):
        return len(one) == len(other) and all(map(same, sorted(one, key=repr), sorted(other, key=repr)))
    if issubclass(kind, dict):
        keys = {(type(key), key) for key in one} == {(type(key), key) for key in other}
        return keys and all(same(one[key], other.get(key, _GONE)) for key in one)
    names = _field_names(kind)
    if names is not None:
        return all(same(getattr(one, name, _GONE), getattr(other, name, _GONE)) for name in names)
    which = (kind.__module__, kind.__qualname__)
    if which == ("decimal", "Decimal"):
        return str(one) == str(other)  # 1.0 is not 1.00, and a signaling NaN can't be compared
    if which in (("datetime", "datetime"), ("datetime", "time")):  # equal moments may differ in offset and fold
        fold = one.fold == other.fold or one.tzinfo is not None
        return fold and one.isoformat() == other.isoformat()
    return bool(one == other)


def _field_names(kind: Any) -> list[str] | None:
    if hasattr(kind, "__dataclass_fields__"):
        import dataclasses

        return [field.name for field in dataclasses.fields(kind)]
    if is_subclass(kind, "msgspec", "Struct"):
        return list(kind.__struct_fields__)
    if is_subclass(kind, "pydantic", "BaseModel"):
        return [*kind.model_fields, "__pydantic_extra__"]
    return None
