"""One of several: the types of a union, the values of a `Literal`, the members of an enum.

Standard library only, Python 3.9 and later: it is loaded by path in a job's process too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING or __name__ != "_asyncjobs_alternatives":
    from asyncjobs.conversion.classes import built
    from asyncjobs.conversion.sameness import same
    from asyncjobs.jsonvalues import Misfit, as_int, as_json, dumps, expected, shortened
else:
    from _asyncjobs_classes import built
    from _asyncjobs_jsonvalues import Misfit, as_int, as_json, dumps, expected, shortened
    from _asyncjobs_sameness import same
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Convert = Callable[[Any], Any]
    Converters = tuple[Convert, Convert]


def optional(encode_inner: Convert, decode_inner: Convert) -> Converters:
    """Return the converters of what may be None."""

    def encode(value: Any) -> Any:
        return None if value is None else encode_inner(value)

    def decode(form: Any) -> Any:
        return None if form is None else decode_inner(form)

    return encode, decode


def first_fitting(writers: list[Convert], readers: list[Converters], label: str) -> Converters:
    """Return the converters of a union: each way the first member that accepts the value.

    A reader is preferred that would write the form again as it is.
    """

    def encode(value: Any) -> Any:
        return _first(value, writers, label)

    def decode(form: Any) -> Any:
        for encode_member, decode_member in readers:
            try:
                value = decode_member(form)
                if same(encode_member(value), form):
                    return value
            except Misfit:
                pass
        return _first(form, [decode_member for _, decode_member in readers], label)

    return encode, decode


def literal(choices: list[tuple[Any, Any]]) -> Converters:
    """Return the converters between a few values and their JSON forms."""
    label = "one of " + ", ".join(shortened(value) for value, _ in choices)
    choices = sorted(choices, key=lambda choice: not same(*choice))

    def encode(value: Any) -> Any:
        for arg, form in choices:
            if same(arg, value):
                return form
        raise expected(label, value)

    def decode(form: Any) -> Any:
        for arg, written in choices:
            if same(written, form):
                return arg
        raise expected(label, form)

    return encode, decode


def enumeration(kind: Any) -> tuple[Convert, Convert, list[Any]]:
    """Return the converters of an enum, and its forms: values, or names where values have no JSON form."""
    import enum

    members = dict(kind.__members__)
    try:
        forms = {member: as_json(member.value) for member in members.values()}
    except Misfit:
        forms = {}
    table = {dumps(form): member for member, form in forms.items()}
    if len(table) < len(forms) or not forms:
        forms = {member: member.name for member in members.values()}
        table = {dumps(form): member for member, form in forms.items()}
    is_flag = issubclass(kind, enum.Flag)

    def encode(value: Any) -> Any:
        if type(value) is not kind:
            raise expected(kind.__qualname__, value)
        return as_int(value.value) if is_flag else forms[value]

    def decode(form: Any) -> Any:
        member = table.get(dumps(form))
        if member is None and is_flag and type(form) is int:
            return built(kind, lambda: kind(form))
        if member is None:
            known = shortened(list(forms.values()))
            raise Misfit(f"{shortened(form)} is no {kind.__qualname__}; its values are {known}")
        return member

    return encode, decode, list(forms.values())


def _first(value: Any, conversions: Iterable[Convert], label: str) -> Any:
    """Return what the first conversion that accepts `value` makes of it, or raise the most telling misfit."""
    telling = expected(label, value)
    for convert in conversions:
        try:
            return convert(value)
        except Misfit as misfit:
            special = not telling.path and not misfit.problem.startswith("expected")
            if special or len(misfit.path) > len(telling.path):
                telling = misfit
    raise telling
