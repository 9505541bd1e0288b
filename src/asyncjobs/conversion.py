"""Annotations compiled to converters: a Python object to its JSON value, and back.

`codec.py` loads this only for an annotation that is no plain JSON type. Standard library only, Python 3.9
and later, and like it this file is also loaded by path, without the package, in a job's process. A module
such as `decimal` is never imported here: where an annotation names its class, it is loaded already, and
msgspec and pydantic likewise.

Why the trip is exact: a converter accepts precisely the type that its way back makes (a subclass would
lose what it adds). Where that can't be seen from the types alone (several types in a union, a
`__post_init__`, another library's model), the compiled converter makes the way back at once, compares,
and refuses what came back different.
"""

from __future__ import annotations

import sys
import typing
from collections import abc

TYPE_CHECKING = False
if TYPE_CHECKING or __name__ != "_asyncjobs_conversion":
    from asyncjobs.codec import Misfit, as_int, as_json, as_text, dumps, expected, loads, shortened
else:
    from _asyncjobs_codec import Misfit, as_int, as_json, as_text, dumps, expected, loads, shortened
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Convert = Callable[[Any], Any]

TEXT, OTHER, MIXED = "always a str", "never a str", "sometimes a str"  # what the JSON value is


class Conversion(typing.NamedTuple):
    """Both ways of one annotation, and what its JSON values look like."""

    encode: Convert
    decode: Convert
    form: str = OTHER
    native: bool = False  # JSON's own type, which wins over one spelled as a str
    nullable: bool = False  # null may stand for something else than None


def converters(annotation: Any, function: Any) -> tuple[Convert, Convert]:
    """Return the converters of an annotation of `function`; they raise `Misfit`.

    A name that can't be resolved (one imported under TYPE_CHECKING) makes the annotation count as
    missing; a type without a JSON form makes converters that refuse every value.
    """
    try:
        resolved = _resolved(annotation, function.__globals__, _type_parameters(function))
    except (NameError, AttributeError, SyntaxError) as error:
        return _unresolved(annotation, error), _as_it_is
    except Exception as error:  # an annotation is any code
        return _refusing(f"the annotation {annotation!r} can't be evaluated: {error}")
    compiler = _Compiler()
    try:
        found = compiler.compile(resolved)
    except NameError as error:
        return _unresolved(annotation, error), _as_it_is
    except Misfit as misfit:
        return _refusing(misfit.problem)
    except RecursionError:
        return _refusing(f"the annotation {annotation!r} unfolds without end")
    return compiler.verified(found, resolved), found.decode


def lenient_annotations(function: Any) -> dict[str, Any]:
    """Return the annotations of a function or class, with `ForwardRef`s for names that are missing."""
    import annotationlib  # type: ignore[import-not-found]  # Python 3.14

    return annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)  # type: ignore


class _Compiler:
    """Compiles one annotation and notes how far its converters can be trusted."""

    def __init__(self) -> None:
        self.unsure = False  # the way back must be tried
        self.deep = False  # the depth is not bounded by the annotation
        self.bindings: dict[Any, Conversion] = {}  # of the type variables of a generic class
        self.kept: list[list[Conversion]] = []  # their ids are in the keys of `known`
        self.known: dict[Any, list[Conversion]] = {}  # classes under way or done, for recursion

    def compile(self, annotation: Any) -> Conversion:
        if annotation is None or annotation is type(None):
            return Conversion(_exactly(type(None)), _exactly(type(None)), native=True)
        if annotation in (typing.Any, object):
            self.deep = True
            return Conversion(as_json, _as_it_is, MIXED, native=True)
        if not _is_class(annotation):
            if hasattr(annotation, "__supertype__"):  # a NewType
                return self.compile(annotation.__supertype__)
            if hasattr(annotation, "__value__"):  # the alias of a `type` statement, which may be recursive
                return self.once(annotation, lambda: self.compile(annotation.__value__))
        if isinstance(annotation, str):
            annotation = typing.ForwardRef(annotation)
        if isinstance(annotation, typing.ForwardRef):
            raise NameError(f"name {annotation.__forward_arg__!r} is not defined")
        if isinstance(annotation, typing.TypeVar):
            return self.type_variable(annotation)
        return self.generic(annotation, typing.get_origin(annotation), typing.get_args(annotation))

    def generic(self, annotation: Any, origin: Any, args: tuple[Any, ...]) -> Conversion:
        if origin is typing.Union or str(_kind(annotation)) == "<class 'types.UnionType'>":
            return self.union(annotation, args)
        if origin is typing.Literal:
            return self.literal(annotation, args)
        if origin is typing.Annotated or _name(origin) in ("Required", "NotRequired", "ReadOnly", "Final"):
            return self.compile(args[0])
        kind: Any = origin or annotation
        if not _is_class(kind):
            raise _no_form(annotation)
        if kind is tuple:
            return self.tuple_of(args)
        if kind in _ITEMS:
            return self.items_of(kind, args)
        if kind in _FIELDS:
            return self.fields_of(args)
        return self.known_class(kind, annotation, args)

    def known_class(self, kind: Any, annotation: Any, args: tuple[Any, ...]) -> Conversion:
        if kind in _NATIVE:
            return _NATIVE[kind]
        spelled = _SPELLED.get((kind.__module__, kind.__qualname__))
        if spelled is not None:
            return Conversion(*spelled(kind), form=TEXT)
        if _is_subclass(kind, "pathlib", "PurePath"):
            return Conversion(*_path(kind), form=TEXT)
        if _is_subclass(kind, "enum", "Enum"):
            return _enum(kind)
        if _is_subclass(kind, "msgspec", "Struct"):
            return self.foreign(kind, *_struct(annotation))
        if _is_subclass(kind, "pydantic", "BaseModel"):
            return self.foreign(kind, *_model(kind))
        if _is_subclass(kind, "builtins", "dict") and hasattr(kind, "__required_keys__"):
            return self.record(kind, args, self.typed_dict)
        if _is_subclass(kind, "builtins", "tuple") and hasattr(kind, "_fields"):
            return self.record(kind, args, self.named_tuple)
        if hasattr(kind, "__dataclass_fields__"):
            return self.record(kind, args, self.dataclass)
        raise _no_form(annotation)

    def once(self, key: Any, make: Callable[[], Conversion]) -> Conversion:
        """Compile each class once; inside itself it is a reference to the conversion being made."""
        if key in self.known:
            cell = self.known[key]
            if cell:
                return cell[0]
            self.deep = True
            return _reference(cell)
        cell = self.known[key] = []
        cell.append(make())
        return cell[0]

    def record(self, kind: Any, args: tuple[Any, ...], make: Callable[[Any], Conversion]) -> Conversion:
        """Compile a class with fields, its type variables bound to what `args` are out here."""
        bound = [self.compile(arg) for arg in args]
        outer = self.bindings
        self.bindings = dict(zip(getattr(kind, "__parameters__", ()), bound))  # noqa: B905  # Python 3.9
        self.kept.append(bound)
        try:
            return self.once((kind, *map(id, bound)), lambda: make(kind))
        finally:
            self.bindings = outer

    def type_variable(self, variable: Any) -> Conversion:
        if variable in self.bindings:
            return self.bindings[variable]
        if variable.__constraints__:
            return self.union(variable, variable.__constraints__)
        return self.compile(typing.Any if variable.__bound__ is None else variable.__bound__)

    def union(self, annotation: Any, args: tuple[Any, ...]) -> Conversion:
        members = [self.compile(arg) for arg in args]
        if len(args) == 2 and type(None) in args:
            return self.optional(members[args[0] is type(None)])
        self.unsure = True
        forms = {member.form for member in members}
        form = forms.pop() if len(forms) == 1 else MIXED
        # JSON's own types first: a str stays a str wherever the union has `str`.
        readers = sorted(members, key=lambda member: not member.native)
        label = _label(annotation)

        def encode(value: Any) -> Any:
            return _first(value, [member.encode for member in members], label)

        def decode(form: Any) -> Any:
            for member in readers:
                try:
                    value = member.decode(form)
                    if same(member.encode(value), form):
                        return value
                except Misfit:
                    pass
            return _first(form, [member.decode for member in readers], label)

        return Conversion(encode, decode, form)

    def optional(self, member: Conversion) -> Conversion:
        inner_encode, inner_decode = member.encode, member.decode
        self.unsure = self.unsure or member.nullable

        def encode(value: Any) -> Any:
            return None if value is None else inner_encode(value)

        def decode(form: Any) -> Any:
            return None if form is None else inner_decode(form)

        return Conversion(encode, decode, OTHER if member.form == OTHER else MIXED)

    def literal(self, annotation: Any, args: tuple[Any, ...]) -> Conversion:
        choices = [(arg, self.compile(type(arg)).encode(arg)) for arg in args]
        choices.sort(key=lambda choice: not same(*choice))
        self.unsure = self.unsure or len({dumps(form) for _, form in choices}) < len(choices)
        kinds = {type(form) is str for _, form in choices}
        label = "one of " + ", ".join(shortened(arg) for arg in args)

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

        return Conversion(encode, decode, MIXED if len(kinds) > 1 else TEXT if True in kinds else OTHER)

    def tuple_of(self, args: tuple[Any, ...]) -> Conversion:
        if not args:
            return self.items_of(tuple, ())
        if len(args) == 2 and args[1] is Ellipsis:
            return self.items_of(tuple, args[:1])
        places = [self.compile(arg) for arg in args if arg != ()]  # Python 3.9 spells `tuple[()]` so
        encode = _each(tuple, [place.encode for place in places], list)
        return Conversion(encode, _each(list, [place.decode for place in places], tuple))

    def items_of(self, kind: Any, args: tuple[Any, ...]) -> Conversion:
        item = self.compile(args[0] if args else typing.Any)
        accepted, made, is_set = _ITEMS.get(kind, ((tuple,), tuple, False))
        self.unsure = self.unsure or (is_set and not args)
        encode_all, decode_all = _all(accepted, item.encode, list), _all((list,), item.decode, made)
        if not is_set:
            return Conversion(encode_all, decode_all)

        def encode(value: Any) -> Any:
            return sorted(encode_all(value), key=dumps)  # the text of equal sets is equal

        def decode(form: Any) -> Any:
            try:
                return decode_all(form)
            except TypeError as error:
                raise Misfit(f"an item of a set must be hashable: {error}") from None

        return Conversion(encode, decode)

    def fields_of(self, args: tuple[Any, ...]) -> Conversion:
        key = self.compile(args[0]) if args else _NATIVE[str]
        item = self.compile(args[1] if args else typing.Any)
        if args and args[0] in (typing.Any, object):
            key = _NATIVE[str]
        if key.form == MIXED:
            raise Misfit(f"dict keys of type {_label(args[0])} have no exact JSON form; use one type")
        is_text = key.form == TEXT

        def encode_key(value: Any) -> str:
            form: Any = key.encode(value)
            return form if is_text else dumps(form)

        def decode_key(text: Any) -> Any:
            try:
                return key.decode(text if is_text else loads(text))
            except (ValueError, TypeError) as error:
                raise Misfit(f"{shortened(text)} is no key of this dict: {error}") from None

        return Conversion(_dict(encode_key, item.encode), _dict(decode_key, item.decode))

    def foreign(self, kind: type, dump: Convert, load: Convert, errors: tuple[Any, ...]) -> Conversion:
        self.unsure = self.deep = True

        def encode(value: Any) -> Any:
            _check_type(value, kind)
            try:
                return as_json(dump(value))
            except errors as error:
                raise Misfit(f"{kind.__qualname__} can't be written as JSON: {_one_line(error)}") from None

        def decode(form: Any) -> Any:
            try:
                return load(form)
            except errors as error:
                raise Misfit(f"no valid {kind.__qualname__}: {_one_line(error)}") from None

        return Conversion(encode, decode)

    def typed_dict(self, kind: Any) -> Conversion:
        hints = _hints(kind)
        required = {key for key in hints if _is_required(hints[key], key in kind.__required_keys__)}
        members = {key: self.compile(hint) for key, hint in hints.items()}
        encode = _record(kind, {key: member.encode for key, member in members.items()}, required)
        decode = _record(kind, {key: member.decode for key, member in members.items()}, required)
        return Conversion(encode, decode)

    def named_tuple(self, kind: Any) -> Conversion:
        hints = _hints(kind)
        places = [self.compile(hints.get(name, typing.Any)) for name in kind._fields]
        self.unsure = True  # its `__new__` may be its own
        encode = _each(kind, [place.encode for place in places], list)
        read = _each(list, [place.decode for place in places], tuple)

        def decode(form: Any) -> Any:
            items = read(form)
            return _built(kind, lambda: kind(*items))

        return Conversion(encode, decode)

    def dataclass(self, kind: Any) -> Conversion:
        import dataclasses

        hints = _hints(kind)
        fields = dataclasses.fields(kind)
        given = [field.name for field in fields if field.init]
        everything = len(given) == len(fields) == len(kind.__dataclass_fields__)
        own = hasattr(kind, "__post_init__") or not kind.__dataclass_params__.init
        self.unsure = self.unsure or own or not everything
        members = {name: self.compile(hints.get(name, typing.Any)) for name in given}
        required = {
            field.name
            for field in fields
            if field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
        encoders = {name: member.encode for name, member in members.items()}
        decoders = {name: member.decode for name, member in members.items()}
        return Conversion(_fields(kind, encoders), _record(kind, decoders, required, _made(kind)))

    def verified(self, found: Conversion, annotation: Any) -> Convert:
        """Return the encoder, with the checks that this annotation needs."""
        inner, decode, unsure = found.encode, found.decode, self.unsure
        if not (unsure or self.deep):
            return inner

        def encode(value: Any) -> Any:
            form = as_json(inner(value))
            if unsure:
                back = decode(form)
                if not same(back, value):
                    raise Misfit(
                        f"{type(value).__qualname__} ({shortened(value)}) would come back as "
                        f"{type(back).__qualname__} ({shortened(back)}): in JSON the annotation "
                        f"{_label(annotation)} can't tell them apart; annotate what it is, alone"
                    )
            return form

        return encode


def _kind(value: object) -> type[object]:
    return type(value)


def _reference(cell: list[Conversion]) -> Conversion:
    def encode(value: Any) -> Any:
        return cell[0].encode(value)

    def decode(form: Any) -> Any:
        return cell[0].decode(form)

    return Conversion(encode, decode, MIXED)


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal in value and type, all the way down; NaN is equal to itself."""
    kind = _kind(one)
    if kind is not _kind(other):
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
    if (kind.__module__, kind.__qualname__) == ("decimal", "Decimal"):
        return str(one) == str(other)  # 1.0 is not 1.00, and a signaling NaN can't be compared
    return bool(one == other)


def _resolved(annotation: Any, names: Mapping[str, Any], local_names: Mapping[str, Any]) -> Any:
    def stand_in() -> None: ...

    stand_in.__annotations__ = {"it": annotation}
    return typing.get_type_hints(stand_in, dict(names), dict(local_names), include_extras=True)["it"]


def _hints(kind: Any) -> dict[str, Any]:
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
                hints[name] = _resolved(annotation, names, {each.__name__: each, **_type_parameters(each)})
            except (NameError, AttributeError):
                hints[name] = typing.Any
    return hints


def _own_annotations(kind: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        return lenient_annotations(kind)
    found: dict[str, Any] = getattr(kind, "__annotations__", {})
    return found


def _type_parameters(owner: Any) -> dict[str, Any]:
    return {parameter.__name__: parameter for parameter in getattr(owner, "__type_params__", ())}


def _unresolved(annotation: Any, error: Exception) -> Convert:
    def encode(value: Any) -> Any:
        try:
            return as_json(value)
        except Misfit as misfit:
            misfit.problem += f" (the annotation {annotation!r} can't be resolved: {_one_line(error)})"
            raise

    return encode


def _refusing(problem: str) -> tuple[Convert, Convert]:
    def refuse(value: Any) -> Any:
        raise Misfit(problem)

    return refuse, refuse


def _no_form(annotation: Any) -> Misfit:
    return Misfit(
        f"the type {_label(annotation)} has no JSON form; use a dataclass, TypedDict or NamedTuple, "
        "a msgspec or pydantic model, or plain values"
    )


def _name(annotation: Any) -> str:
    return getattr(annotation, "_name", None) or getattr(annotation, "__name__", "") or ""


def _is_class(kind: object) -> bool:
    return isinstance(kind, type)


def _label(annotation: Any) -> str:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__
    return repr(annotation).replace("typing.", "")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _is_subclass(kind: type, module: str, name: str) -> bool:
    parent = getattr(sys.modules.get(module), name, None)
    return parent is not None and issubclass(kind, parent)


def _is_required(hint: Any, otherwise: bool) -> bool:
    origin = typing.get_origin(hint)
    if _name(origin) in ("Required", "NotRequired"):
        return _name(origin) == "Required"
    if origin is typing.Annotated or _name(origin) == "ReadOnly":
        return _is_required(typing.get_args(hint)[0], otherwise)
    return otherwise


def _field_names(kind: Any) -> list[str] | None:
    if hasattr(kind, "__dataclass_fields__"):
        import dataclasses

        return [field.name for field in dataclasses.fields(kind)]
    if _is_subclass(kind, "msgspec", "Struct"):
        return list(kind.__struct_fields__)
    if _is_subclass(kind, "pydantic", "BaseModel"):
        return [*kind.model_fields, "__pydantic_extra__"]
    return None


def _check_type(value: Any, kind: type) -> None:
    if type(value) is kind:
        return
    if isinstance(value, kind):
        raise Misfit(
            f"expected {kind.__qualname__} itself, not its subclass {type(value).__qualname__} "
            f"({shortened(value)}), whose type would be lost; convert it first"
        )
    raise expected(kind.__qualname__, value)


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


def _is_exactly(value: object, kind: Any) -> bool:
    return type(value) is kind


def _built(kind: type, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:  # a class's `__post_init__` is any code
        raise Misfit(f"{kind.__qualname__} refuses these fields: {_one_line(error)}") from error


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
        if not _is_exactly(value, dict):
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
        _check_type(value, kind)
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


def _made(kind: Any) -> Convert:
    return lambda fields: _built(kind, lambda: kind(**fields))


def _record(
    kind: type, conversions: dict[str, Convert], required: Iterable[str], made: Convert | None = None
) -> Convert:
    label = f"dict (a {kind.__qualname__})"

    def convert_record(value: Any) -> Any:
        if not _is_exactly(value, dict):
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


def _spelling(kind: type, write: Convert, read: Convert) -> tuple[Convert, Convert]:
    """Return the converters of a class that is written as text."""

    def encode(value: Any) -> Any:
        _check_type(value, kind)
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
        if value.tzinfo is not None and value.utcoffset() is None:
            raise Misfit(f"its time zone has no offset here, so it would be lost ({shortened(value)})")
        if value.tzinfo is None and value.fold:
            raise Misfit(f"`fold` of a naive {kind.__qualname__} has no JSON form; make it aware")
        return value.isoformat()  # type: ignore[no-any-return]

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
        concrete = _kind(kind("."))
    except (NotImplementedError, TypeError) as error:
        raise Misfit(f"no {kind.__qualname__} can be made here: {_one_line(error)}") from None
    encode, decode = _spelling(concrete, lambda value: as_text(str(value)), kind)
    return encode, decode


def _enum(kind: Any) -> Conversion:
    """Return the converters of an enum: by value, or by name where values have no JSON form."""
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
            return _built(kind, lambda: kind(form))
        if member is None:
            known = shortened(list(forms.values()))
            raise Misfit(f"{shortened(form)} is no {kind.__qualname__}; its values are {known}")
        return member

    texts = {type(form) is str for form in forms.values()}
    form = MIXED if len(texts) > 1 else TEXT if True in texts else OTHER
    return Conversion(encode, decode, form, nullable=None in forms.values())


def _struct(annotation: Any) -> tuple[Convert, Convert, tuple[Any, ...]]:
    msgspec: Any = sys.modules["msgspec"]
    return (
        lambda value: msgspec.to_builtins(value, str_keys=True),
        lambda form: msgspec.convert(form, annotation, str_keys=True),
        (msgspec.MsgspecError, TypeError, ValueError, NotImplementedError),
    )


def _model(kind: Any) -> tuple[Convert, Convert, tuple[Any, ...]]:
    return (
        lambda value: value.model_dump(mode="json", by_alias=True, round_trip=True),
        kind.model_validate,
        (TypeError, ValueError),
    )


def _as_it_is(value: Any) -> Any:
    return value


def _exactly(kind: type) -> Convert:
    label = "None" if kind is type(None) else kind.__qualname__

    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise expected(label, value)
        return value

    return check


def _float(value: Any) -> Any:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise expected("float", value)
    return as_int(value)


_GONE = object()

_NATIVE: dict[type, Conversion] = {
    int: Conversion(as_int, as_int, native=True),
    str: Conversion(as_text, as_text, TEXT, native=True),
    float: Conversion(_float, _float, native=True),
    bool: Conversion(_exactly(bool), _exactly(bool), native=True),
}

# What an annotation accepts and what it delivers; an abstract one promises no more than its interface.
_ITEMS: dict[Any, tuple[tuple[type, ...], Callable[[list[Any]], Any], bool]] = {
    list: ((list,), list, False),
    set: ((set,), set, True),
    frozenset: ((frozenset,), frozenset, True),
    abc.MutableSequence: ((list,), list, False),
    abc.MutableSet: ((set,), set, True),
    abc.Set: ((set, frozenset), set, True),
    abc.Sequence: ((list, tuple), list, False),
    abc.Collection: ((list, tuple), list, False),
    abc.Iterable: ((list, tuple), list, False),
}
_FIELDS = (dict, abc.Mapping, abc.MutableMapping)

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
