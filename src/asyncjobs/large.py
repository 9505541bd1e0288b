"""Large values, converted in a thread and in slices, so that the loop goes on meanwhile.

`json` holds the interpreter's lock from the first character to the last: 100 ms for 9 MB of numbers. Here it
is handed pieces of at most `WINDOW` characters or `MOST_NODES` values; what holds the pieces together is plain
Python, which a thread slices by itself (`sys.getswitchinterval`).
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from asyncjobs import jsonvalues
from asyncjobs.threads import in_thread

R = TypeVar("R")
LARGE_TEXT = 1 << 18
"""Texts longer than this are read in slices."""
MOST_NODES = 10_000
WINDOW = 1 << 16
_RUN = 1000
_DEEPEST = 200
_ATOMS = frozenset((str, int, float, bool, type(None), bytes))
_SERIES = (tuple, list, set, frozenset)
_SPACE = (" ", "\t", "\n", "\r")


async def read(convert: Callable[..., R], text: str) -> R:
    """Return `convert(text, read=...)` from a thread, which runs in the caller's context."""
    return await _in_thread(partial(convert, text, read=loads))


async def write(convert: Callable[..., str], *values: object) -> str:
    """Return `convert(*values, write=...)` from a thread, which runs in the caller's context."""
    return await _in_thread(partial(convert, *values, write=dumps))


def reader(text: str) -> Callable[[str], Any]:
    """Return what reads this text, for who is in a thread already."""
    return loads if is_long(text) else jsonvalues.loads


def writer(value: object) -> Callable[[Any], str]:
    """Return what writes this value, for who is in a thread already."""
    return dumps if is_large(value) else jsonvalues.dumps


def is_long(text: str) -> bool:
    """Return whether a text is to be read in slices."""
    return len(text) > LARGE_TEXT


def is_large(value: object) -> bool:
    """Return whether a value consists of more than MOST_NODES others, as far as can be seen from outside."""
    return type(value) not in _ATOMS and _left(value, MOST_NODES) < 0


def are_large(values: tuple[object, ...]) -> bool:
    """Return whether the values are large together."""
    return not _ATOMS.issuperset(map(type, values)) and is_large(values)


def loads(text: str) -> Any:
    """Return what `json.loads(text)` returns, and raise what it raises."""
    reading = _Reading(text)
    try:
        value, end = reading.value(reading.after_space(0))
        if reading.after_space(end) == len(text):
            return value
    except (StopIteration, ValueError, IndexError, RecursionError):
        pass
    return jsonvalues.loads(text)  # which words it


def dumps(value: Any) -> str:
    """Return what `json.dumps(value)` returns, and raise what it raises."""
    if type(value) is list:
        return f"[{', '.join(_items_text(value[at : at + _RUN]) for at in range(0, len(value), _RUN))}]"
    if type(value) is dict:
        fields: Iterator[tuple[str, Any]] = iter(value.items())
        runs = iter(lambda: dict(islice(fields, _RUN)), {})
        return f"{{{', '.join(map(_fields_text, runs))}}}"
    return jsonvalues.dumps(value)


async def _in_thread(convert: Callable[[], R]) -> R:
    return await in_thread(contextvars.copy_context().run, convert, name="asyncjobs large value")


# --- how large ----------------------------------------------------------------------------------


def _left(value: Any, budget: int, depth: int = 0) -> int:
    """Return what is left of a budget of values after this one and those inside it; below zero is too many."""
    budget -= 1
    if type(value) in _ATOMS or budget < 0 or depth > _DEEPEST:
        return budget
    for part in _parts(value):
        budget = budget - 1 if type(part) in _ATOMS else _left(part, budget, depth + 1)
        if budget < 0:
            break
    return budget


def _parts(value: Any) -> Iterable[Any]:
    if type(value) in _SERIES:
        return value  # type: ignore[no-any-return]
    if type(value) is dict or isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (Sequence, Set)) and not isinstance(value, (str, bytes, bytearray, memoryview, range)):
        return value
    for fields in ("__dataclass_fields__", "__struct_fields__", "__pydantic_fields__"):
        if hasattr(type(value), fields):
            return [getattr(value, name, None) for name in getattr(type(value), fields)]
    return ()


# --- writing and reading -------------------------------------------------------------------------


def _items_text(run: list[Any]) -> str:
    return ", ".join(map(dumps, run)) if is_large(run) else jsonvalues.dumps(run)[1:-1]


def _fields_text(run: dict[str, Any]) -> str:
    if not is_large(run):
        return jsonvalues.dumps(run)[1:-1]
    return ", ".join(jsonvalues.dumps({key: 0})[1:-2] + dumps(item) for key, item in run.items())


class _Reading:
    """A text that the scanner sees WINDOW characters of at most at once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._window = text[:WINDOW]
        self._begins = 0
        self._one_by_one_until = 0

    def value(self, at: int) -> tuple[Any, int]:
        """Return the value that begins here, and where it ends."""
        found = self._short_value(at) if at - self._begins < len(self._window) else None
        if found is None:
            self._begins, self._window = at, self._text[at : at + WINDOW]
            found = self._short_value(at)
        if found is not None:
            return found
        if self._text[at] == "[":
            return self._list(at + 1)
        if self._text[at] == "{":
            return self._dict(at + 1)
        return jsonvalues.scan(self._text, at)

    def _short_value(self, at: int) -> tuple[Any, int] | None:
        try:
            value, end = jsonvalues.scan(self._window, at - self._begins)
        except (StopIteration, ValueError):
            return None
        # What ends with the window may go on after it, as a number does.
        return (value, self._begins + end) if end < len(self._window) else None

    def _several(self, at: int, opened: str, closed: str) -> tuple[Any, int] | None:
        """Return what of a list or dict stands between here and a comma further on, and where that is.

        A comma is at the right place if what precedes it, closed there, is a whole list or dict.
        """
        if at < self._one_by_one_until:
            return None
        window = self._text[at : at + WINDOW]
        for cut in {window.rfind("},") + 1, window.rfind("],") + 1, window.rfind(",")}:
            if cut <= 0:
                continue
            text = f"{opened}{window[:cut]}{closed}"
            try:
                value, end = jsonvalues.scan(text, 0)
            except (StopIteration, ValueError):
                continue
            if end == len(text):
                return value, at + cut
        self._one_by_one_until = at + WINDOW
        return None

    def _list(self, at: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        at = self.after_space(at)
        while self._text[at] != "]":
            several = self._several(at, "[", "]")
            if several is not None:
                more, at = several
                items += more
            else:
                item, at = self.value(at)
                items.append(item)
            at = self._after_comma(at, "]")
        return items, at + 1

    def _dict(self, at: int) -> tuple[dict[str, Any], int]:
        fields: dict[str, Any] = {}
        at = self.after_space(at)
        while self._text[at] != "}":
            several = self._several(at, "{", "}")
            if several is not None:
                more, at = several
                fields |= more
            else:
                key, at = self._key(at)
                fields[key], at = self.value(at)
            at = self._after_comma(at, "}")
        return fields, at + 1

    def _key(self, at: int) -> tuple[str, int]:
        key, at = self.value(at)
        at = self.after_space(at)
        if type(key) is not str or self._text[at] != ":":
            raise ValueError
        return key, self.after_space(at + 1)

    def _after_comma(self, at: int, closed: str) -> int:
        """Return where the next value begins, or where the list or dict is closed."""
        at = self.after_space(at)
        if self._text[at] == closed:
            return at
        if self._text[at] != ",":
            raise ValueError
        at = self.after_space(at + 1)
        if self._text[at] == closed:
            raise ValueError
        return at

    def after_space(self, at: int) -> int:
        """Return the next position where no space is, or the end."""
        while self._text[at : at + 1] in _SPACE:
            at += 1
        return at
