"""Types that are written as text: bytes, dates and times, UUIDs, decimals, paths.

Standard library only, Python 3.9 and later: it is loaded by path in a job's process too. A module such as `decimal`
is never imported here: where an annotation names its class, it is loaded already.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING or __name__ != "_asyncjobs_spelling":
    from asyncjobs.conversion.classes import check_type, is_subclass, one_line
    from asyncjobs.jsonvalues import Misfit, as_text, expected, shortened
else:
    from _asyncjobs_classes import check_type, is_subclass, one_line
    from _asyncjobs_jsonvalues import Misfit, as_text, expected, shortened
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Convert = Callable[[Any], Any]


def spelled(kind: Any) -> tuple[Convert, Convert] | None:
    """Return the converters of a class that is written as text, and None for any other."""
    find = _SPELLED.get((kind.__module__, kind.__qualname__))
    if find is None and is_subclass(kind, "pathlib", "PurePath"):
        find = _path
    return None if find is None else find(kind)


def _spelling(kind: type, write: Convert, read: Convert) -> tuple[Convert, Convert]:
    """Return the converters of a class that is written as text."""

    def encode(value: Any) -> Any:
        check_type(value, kind)
        return write(value)

    def decode(form: Any) -> Any:
        if type(form) is not str:
            raise expected(f"{kind.__qualname__} as text", form)
        try:
            return read(form)
        except (ValueError, ArithmeticError):
            raise Misfit(f"{shortened(form)} is no {kind.__qualname__}") from None

    return encode, decode


def _bytes(kind: Any) -> tuple[Convert, Convert]:
    import binascii

    def read(text: str) -> Any:
        value = binascii.a2b_base64(text)
        if write(value) != text:  # it skips what it doesn't know
            raise ValueError(text)
        return kind(value)

    def write(value: Any) -> str:
        return binascii.b2a_base64(value, newline=False).decode("ascii")

    return _spelling(kind, write, read)


def _moment(kind: Any) -> tuple[Convert, Convert]:
    """Return the converters of `datetime` or `time`."""

    def write(value: Any) -> str:
        if value.tzinfo is None:
            if value.fold:
                raise Misfit(f"`fold` of a naive {kind.__qualname__} has no JSON form; make it aware")
            return value.isoformat()  # type: ignore[no-any-return]
        offset = value.utcoffset()
        if offset is None:
            raise Misfit(f"its time zone has no offset here, so it would be lost ({shortened(value)})")
        text: str = value.isoformat()
        if offset.microseconds and read(text).utcoffset() != offset:  # CPython loses those of less than a second
            raise Misfit(f"its offset {offset} can't be read back ({shortened(value)})")
        return text

    def read(text: str) -> Any:
        return kind.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)  # before Python 3.11

    return _spelling(kind, write, read)


def _date(kind: Any) -> tuple[Convert, Convert]:
    return _spelling(kind, kind.isoformat, kind.fromisoformat)


def _timedelta(kind: Any) -> tuple[Convert, Convert]:
    """Return converters to ISO 8601, days and seconds only: `-P1DT2.5S`."""
    import re

    pattern = re.compile(
        r"([-+])?P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?"
        r"(?:(?P<seconds>\d+)(?:\.(?P<fraction>\d{1,6}))?S)?)?",
        re.ASCII,
    )

    def write(value: Any) -> str:
        sign, value = ("-", -value) if value.days < 0 else ("", value)
        fraction = f".{value.microseconds:06}".rstrip("0") if value.microseconds else ""
        return f"{sign}P{value.days}DT{value.seconds}{fraction}S"

    def read(text: str) -> Any:
        found = pattern.fullmatch(text)
        if found is None or text[-1] in "PT":
            raise ValueError(text)
        units = {name: int(found[name] or 0) for name in ("weeks", "days", "hours", "minutes", "seconds")}
        value = kind(microseconds=int((found["fraction"] or "").ljust(6, "0")), **units)
        return -value if found[1] == "-" else value

    return _spelling(kind, write, read)


def _decimal(kind: Any) -> tuple[Convert, Convert]:
    encode, decode = _spelling(kind, str, kind)
    return encode, lambda form: kind(form) if type(form) is int else decode(form)


def _path(kind: Any) -> tuple[Convert, Convert]:
    try:
        concrete = type(kind("."))
    except (NotImplementedError, TypeError) as error:
        raise Misfit(f"no {kind.__qualname__} can be made here: {one_line(error)}") from None
    encode, decode = _spelling(concrete, lambda value: as_text(str(value)), kind)
    return encode, decode


_SPELLED: dict[tuple[str, str], Callable[[Any], tuple[Convert, Convert]]] = {
    ("builtins", "bytes"): _bytes,
    ("builtins", "bytearray"): _bytes,
    ("datetime", "datetime"): _moment,
    ("datetime", "time"): _moment,
    ("datetime", "date"): _date,
    ("datetime", "timedelta"): _timedelta,
    ("decimal", "Decimal"): _decimal,
    ("uuid", "UUID"): lambda kind: _spelling(kind, str, kind),
}
