"""Values that hold others: collections, and records of the standard library and of other libraries.

Standard library only, Python 3.9 and later: it is loaded by path in a job's process too. msgspec and pydantic are
never imported here: where an annotation names a class of theirs, they are loaded already.
"""

from __future__ import annotations

import sys
from collections import abc

TYPE_CHECKING = False
if TYPE_CHECKING or __name__ != "_asyncjobs_containers":
    from asyncjobs.conversion.classes import built, check_type, one_line
    from asyncjobs.jsonvalues import Misfit, as_json, dumps, expected, loads, shortened
else:
    from _asyncjobs_classes import built, check_type, one_line
    from _asyncjobs_jsonvalues import Misfit, as_json, dumps, expected, loads, shortened
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from asyncjobs.conversion.compiler import Conversion

    Convert = Callable[[Any], Any]
    Converters = tuple[Convert, Convert]

# What an annotation accepts and what it delivers; an abstract one promises no more than its interface.
ITEMS: dict[Any, tuple[tuple[type, ...], Callable[[list[Any]], Any]]] = {
    tuple: ((tuple,), tuple),
    list: ((list,), list),
    set: ((set,), set),
    frozenset: ((frozenset,), frozenset),
    abc.MutableSequence: ((list,), list),
    abc.MutableSet: ((set,), set),
    abc.Set: ((set, frozenset), set),
    abc.Sequence: ((list, tuple), list),
    abc.Collection: ((list, tuple), list),
    abc.Iterable: ((list, tuple), list),
}
FIELDS = (dict, abc.Mapping, abc.MutableMapping)


def items_of(kind: Any, item: Conversion) -> Converters:
    """Return the converters of a collection (a key of `ITEMS`) with items of one type."""
    accepted, made = ITEMS[kind]
    encode_all, decode_all = _all(accepted, item.encode, list), _all((list,), item.decode, made)
    if not issubclass(kind, abc.Set):
        return encode_all, decode_all

    def encode(value: Any) -> Any:
        return sorted(encode_all(value), key=dumps)  # the text of equal sets is equal

    def decode(form: Any) -> Any:
        try:
            return decode_all(form)
        except TypeError as error:
            raise Misfit(f"an item of a set must be hashable: {error}") from None

    return encode, decode


def places_of(places: list[Conversion]) -> Converters:
    """Return the converters of a tuple with a type for each of its places."""
    return _each(tuple, [place.encode for place in places], list), _each(
        list, [place.decode for place in places], tuple
    )


def fields_of(key: Conversion, item: Conversion, *, keys_are_text: bool) -> Converters:
    """Return the converters of a dict; keys that are no text are written as the text of their JSON."""

    def encode_key(value: Any) -> str:
        form: Any = key.encode(value)
        return form if keys_are_text else dumps(form)

    def decode_key(text: Any) -> Any:
        try:
            return key.decode(text if keys_are_text else loads(text))
        except (ValueError, TypeError) as error:
            raise Misfit(f"{shortened(text)} is no key of this dict: {error}") from None

    return _dict(encode_key, item.encode), _dict(decode_key, item.decode)


def typed_dict(kind: Any, members: dict[str, Conversion], required: Iterable[str]) -> Converters:
    """Return the converters of a TypedDict."""
    encode = _record(kind, {key: member.encode for key, member in members.items()}, required)
    return encode, _record(kind, {key: member.decode for key, member in members.items()}, required)


def named_tuple(kind: Any, places: list[Conversion]) -> Converters:
    """Return the converters of a NamedTuple, which is written as a list."""
    read = _each(list, [place.decode for place in places], tuple)

    def decode(form: Any) -> Any:
        items = read(form)
        return built(kind, lambda: kind(*items))

    return _each(kind, [place.encode for place in places], list), decode


def dataclass(kind: Any, members: dict[str, Conversion], required: Iterable[str]) -> Converters:
    """Return the converters of a dataclass, by the fields that its constructor takes."""
    decoders = {name: member.decode for name, member in members.items()}

    def make(fields: dict[str, Any]) -> Any:
        return built(kind, lambda: kind(**fields))

    encode = _fields(kind, {name: member.encode for name, member in members.items()})
    return encode, _record(kind, decoders, required, make)


def struct(kind: Any, annotation: Any) -> Converters:
    """Return the converters of a msgspec Struct, `annotation` with its type arguments."""
    msgspec: Any = sys.modules["msgspec"]
    return _foreign(
        kind,
        lambda value: msgspec.to_builtins(value, str_keys=True),
        lambda form: msgspec.convert(form, annotation, str_keys=True),
        (msgspec.MsgspecError, TypeError, ValueError, NotImplementedError),
    )


def model(kind: Any) -> Converters:
    """Return the converters of a pydantic model."""
    return _foreign(
        kind,
        lambda value: value.model_dump(mode="json", by_alias=True, round_trip=True),
        kind.model_validate,
        (TypeError, ValueError),
    )


def _all(accepted: tuple[type, ...], convert: Convert, made: Callable[[list[Any]], Any]) -> Convert:
    label = " or ".join(kind.__qualname__ for kind in accepted)

    def convert_all(value: Any) -> Any:
        if type(value) not in accepted:
            raise expected(label, value)
        result: list[Any] = []
        try:
            for item in value:
                result.append(convert(item))
        except Misfit as misfit:
            misfit.path.append(len(result))
            raise
        return result if made is list else made(result)

    return convert_all


def _each(kind: Any, conversions: list[Convert], made: Callable[[list[Any]], Any]) -> Convert:
    count = len(conversions)

    def convert_each(value: Any) -> Any:
        if type(value) is not kind:
            raise expected(kind.__qualname__, value)
        if len(value) != count:
            raise Misfit(f"expected {count} items, not {len(value)} ({shortened(value)})")
        result: list[Any] = []
        try:
            for convert in conversions:
                result.append(convert(value[len(result)]))
        except Misfit as misfit:
            misfit.path.append(len(result))
            raise
        return made(result)

    return convert_each


def _dict(convert_key: Convert, convert_item: Convert) -> Convert:
    def convert_dict(value: Any) -> Any:
        if type(value) is not dict:
            raise expected("dict", value)
        result: dict[Any, Any] = {}
        key: Any = None
        try:
            for key, item in value.items():
                result[convert_key(key)] = convert_item(item)
        except Misfit as misfit:
            misfit.path.append(key)
            raise
        if len(result) < len(value):
            raise Misfit(f"two of the keys are the same in JSON: {shortened(list(value))}")
        return result

    return convert_dict


def _fields(kind: type, conversions: dict[str, Convert]) -> Convert:
    """Return the encoder of a dataclass, with few enough frames a level for 200 levels of recursion."""

    def encode(value: Any) -> Any:
        check_type(value, kind)
        result: dict[str, Any] = {}
        name = ""
        try:
            for name, convert in conversions.items():
                result[name] = convert(getattr(value, name))
        except Misfit as misfit:
            misfit.path.append(name)
            raise
        except AttributeError:
            raise Misfit(f"the field {name!r} of {kind.__qualname__} is not set") from None
        return result

    return encode


def _record(
    kind: type, conversions: dict[str, Convert], required: Iterable[str], made: Convert | None = None
) -> Convert:
    label = f"dict (a {kind.__qualname__})"

    def convert_record(value: Any) -> Any:
        if type(value) is not dict:
            raise expected(label, value)
        result: dict[str, Any] = {}
        key: Any = None
        try:
            for key, item in value.items():
                if key not in conversions:
                    raise Misfit(f"{kind.__qualname__} has no such field; it has: {', '.join(conversions)}")
                result[key] = conversions[key](item)
        except Misfit as misfit:
            misfit.path.append(key)
            raise
        for name in required:
            if name not in result:
                raise Misfit(f"the field {name!r} of {kind.__qualname__} is missing")
        return result if made is None else made(result)

    return convert_record


def _foreign(kind: type, dump: Convert, load: Convert, errors: tuple[Any, ...]) -> Converters:
    def encode(value: Any) -> Any:
        check_type(value, kind)
        try:
            return as_json(dump(value))
        except errors as error:
            raise Misfit(f"{kind.__qualname__} can't be written as JSON: {one_line(error)}") from None

    def decode(form: Any) -> Any:
        try:
            return load(form)
        except errors as error:
            raise Misfit(f"no valid {kind.__qualname__}: {one_line(error)}") from None

    return encode, decode
