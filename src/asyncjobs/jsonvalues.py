"""JSON itself: which Python objects are JSON values as they are, and their text, written and read.

A job's process loads this file by path, as `_asyncjobs_jsonvalues`, without the package, and under any
Python from 3.9 on. There each millisecond counts, so the text goes through CPython's own `_json` (0.4 ms
to import; the `json` package costs 8).
"""

from __future__ import annotations

try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner
except ImportError:  # another implementation of Python
    make_encoder = make_scanner = encode_basestring_ascii = None  # type: ignore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_DEEPEST = 200  # levels of lists and dicts in one value
TOO_DEEP = f"nested deeper than {_DEEPEST} levels, or it contains itself"
_INT_BITS = 14_284  # 4300 digits: what every Python reads, whatever its `sys.set_int_max_str_digits`
_WHITESPACE = " \t\n\r"


class Misfit(Exception):
    """A value that doesn't fit its annotation; containers add their key to `path` on its way up."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: list[object] = []  # innermost first

    def sentence(self) -> str:
        """Return the problem, preceded by its place inside the value."""
        keys = [f"[{shortened(key)}]" for key in reversed(self.path)]
        if len(keys) > 12:
            keys[8:-3] = ["[...]"]
        return f"at {''.join(keys)}: {self.problem}" if keys else self.problem


def dumps(value: object) -> str:
    """Return what `json.dumps(value)` returns, and raise what it raises."""
    plain = _TEXTS.get(type(value))
    if plain is not None:
        return plain(value)
    if _write is not None:
        try:
            return "".join(_write(value, 0))
        except (TypeError, ValueError, RecursionError):
            pass  # `json` words it; a cycle ends here too, since the accelerator runs without a memory
    import json

    return json.dumps(value)


def loads(text: str) -> Any:
    """Return what `json.loads(text)` returns, and raise what it raises: ValueError for malformed text."""
    if _scan is not None:
        stripped = text.strip(_WHITESPACE)
        try:
            value, end = _scan(stripped, 0)
            if end == len(stripped):
                return value
        except (StopIteration, ValueError, RecursionError):
            pass
    import json

    return json.loads(text)


def scan(text: str, at: int) -> tuple[Any, int]:
    """Return the value that begins at a place of a text, and where it ends.

    Raises:
        StopIteration, ValueError: there is none, or not all of it.
    """
    if _scan is not None:
        return _scan(text, at)  # type: ignore[no-any-return]
    import json

    return json.JSONDecoder().scan_once(text, at)  # type: ignore[attr-defined, no-any-return]


def as_json(value: object, depth: int = 0) -> Any:
    """Return `value`, which must be JSON already, with its tuples as lists."""
    kind = type(value)
    if kind is str:
        return as_text(value)
    if kind is int:
        return as_int(value)
    if kind is float or kind is bool or value is None:
        return value
    if depth >= _DEEPEST and kind in (list, tuple, dict):
        raise Misfit(TOO_DEEP)
    if kind is list or kind is tuple:
        return _json_items(value, depth + 1)
    if kind is dict:
        return _json_fields(value, depth + 1)
    raise Misfit(
        f"{kind.__qualname__} ({shortened(value)}) is no JSON value; annotate it as {kind.__qualname__} "
        "if that has a JSON form (dates, UUID, Decimal, Path, bytes, sets, enums, dataclasses, msgspec and pydantic "
        "types have), or pass plain values"
    )


def is_too_deep(value: object) -> bool:
    """Return whether a value that was read from JSON is nested deeper than one may be."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST + 1):
        level = [each for each in level if type(each) in (list, dict)]
        if not level:
            return False
        level = [item for each in level for item in (each.values() if type(each) is dict else each)]
    return True


def as_text(value: object) -> str:
    """Return `value` if it is a `str` that JSON keeps."""
    if type(value) is not str:
        raise expected("str", value)
    # JSON reads a high surrogate before a low one as a single character; alone, each stays what it is.
    if not value.isascii() and _joined(value) != value:
        raise Misfit("two lone surrogates in a row, high and low, would come back as one character")
    return value


def as_int(value: object) -> int:
    """Return `value` if it is an `int` (no `bool`) that every Python reads."""
    if type(value) is not int:
        raise expected("int", value)
    if value.bit_length() > _INT_BITS:
        raise Misfit("an int of more than 4300 digits can't be read back; pass it as str in hexadecimal")
    return value


def as_float(value: Any) -> Any:
    """Return `value` if it is a `float`, or an `int` in its place."""
    if type(value) is float:
        return value
    if type(value) is not int:
        raise expected("float", value)
    return as_int(value)


def as_bool(value: Any) -> Any:
    """Return `value` if it is a `bool`."""
    if type(value) is not bool:
        raise expected("bool", value)
    return value


def as_none(value: Any) -> Any:
    """Return `value` if it is None."""
    if value is not None:
        raise expected("None", value)
    return value


def as_list(value: Any) -> Any:
    """Return `value`, which must be JSON, if it is a `list`."""
    if type(value) is not list:
        raise expected("list", value)
    return as_json(value)


def as_dict(value: Any) -> Any:
    """Return `value`, which must be JSON, if it is a `dict`."""
    if type(value) is not dict:
        raise expected("dict", value)
    return as_json(value)


def as_it_is(value: Any) -> Any:
    """Return `value`."""
    return value


def expected(what: str, value: object) -> Misfit:
    """Return the misfit of a value of another type."""
    if value is None:
        return Misfit(f"expected {what}, not None")
    return Misfit(f"expected {what}, not {type(value).__qualname__} ({shortened(value)})")


def shortened(value: object) -> str:
    """Return the `repr` of a value in about 80 characters."""
    try:
        text = repr(value[:100] if isinstance(value, (str, bytes)) else value)
    except Exception:  # whatever the value's own `__repr__` raises
        return f"a {type(value).__qualname__} without repr"
    return text if len(text) <= 80 else text[:77] + "..."


def _json_items(items: Any, depth: int) -> list[Any]:
    result: list[Any] = []
    try:
        for item in items:
            result.append(as_json(item, depth))
    except Misfit as misfit:
        misfit.path.append(len(result))
        raise
    return result


def _json_fields(fields: Any, depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    key: Any = None
    try:
        for key, item in fields.items():
            if type(key) is not str:
                raise expected("a str as key", key)
            result[as_text(key)] = as_json(item, depth)
    except Misfit as misfit:
        misfit.path.append(key)
        raise
    return result


def _joined(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


PLAIN: dict[Any, Callable[[Any], Any]] = {
    int: as_int,
    str: as_text,
    float: as_float,
    bool: as_bool,
    None: as_none,
    list: as_list,
    dict: as_dict,
}
"""What returns a value of each of JSON's own types, or raises `Misfit`; it does so both ways."""


_TEXTS: dict[type, Callable[[Any], str]] = {
    int: int.__repr__,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): {None: "null"}.__getitem__,
}
"""The text of plain values; the encoder takes three times as long for one."""
if encode_basestring_ascii is not None:
    _TEXTS[str] = encode_basestring_ascii


class _Scanning:
    """What `make_scanner` asks of a `JSONDecoder`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = {
        "NaN": float("nan"),
        "Infinity": float("inf"),
        "-Infinity": float("-inf"),
    }.__getitem__


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _accelerated() -> tuple[Any, Any]:
    """Return the C encoder and scanner, or Nones if this Python's are missing or behave otherwise.

    Their signatures are private to CPython; these are those of 3.9 to 3.14 (`json.encoder`,
    `json.decoder`).
    """
    sample: Any = {"a": [1, -0.5, float("inf"), None, True, "\u00e9\ud800"], "b": {}}
    text = '{"a": [1, -0.5, Infinity, null, true, "\\u00e9\\ud800"], "b": {}}'
    encoder: Any = make_encoder
    scanner: Any = make_scanner
    try:
        write = encoder(None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, True)
        scan = scanner(_Scanning)
        if "".join(write(sample, 0)) == text and scan(text, 0) == (sample, len(text)):
            return write, scan
    except (TypeError, AttributeError, ValueError):
        pass
    return None, None


_write, _scan = _accelerated()
