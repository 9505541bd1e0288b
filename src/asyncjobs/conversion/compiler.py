"""Annotations compiled to converters: a Python object to its JSON value, and back.

`codec.py` loads this, and the files imported below, only for an annotation that is no plain JSON type.
Standard library only, Python 3.9 and later: in a job's process they too are loaded by path, without the
package. msgspec and pydantic are never imported here: where an annotation names a class of theirs, they
are loaded already.

Why the trip is exact: a converter accepts precisely the type that its way back makes (a subclass would
lose what it adds). Where that can't be seen from the types alone (several types in a union, a
`__post_init__`, another library's model), the compiled converter makes the way back at once, compares,
and refuses what came back different.
"""

from __future__ import annotations

import typing
from collections import abc

TYPE_CHECKING = False
if TYPE_CHECKING or __name__ != "_asyncjobs_compiler":
    from asyncjobs.conversion.alternatives import enumeration, first_fitting, literal, optional
    from asyncjobs.conversion.classes import is_subclass, one_line
    from asyncjobs.conversion.containers import (
        FIELDS,
        ITEMS,
        dataclass,
        fields_of,
        items_of,
        model,
        named_tuple,
        places_of,
        struct,
        typed_dict,
    )
    from asyncjobs.conversion.hints import evaluated, hints_of, is_required, label_of, lenient_annotations, name_of
    from asyncjobs.conversion.sameness import same
    from asyncjobs.conversion.spelling import spelled
    from asyncjobs.jsonvalues import PLAIN, Misfit, as_it_is, as_json, as_none, dumps, shortened
else:
    from _asyncjobs_alternatives import enumeration, first_fitting, literal, optional
    from _asyncjobs_classes import is_subclass, one_line
    from _asyncjobs_containers import (
        FIELDS,
        ITEMS,
        dataclass,
        fields_of,
        items_of,
        model,
        named_tuple,
        places_of,
        struct,
        typed_dict,
    )
    from _asyncjobs_hints import evaluated, hints_of, is_required, label_of, lenient_annotations, name_of
    from _asyncjobs_jsonvalues import PLAIN, Misfit, as_it_is, as_json, as_none, dumps, shortened
    from _asyncjobs_sameness import same
    from _asyncjobs_spelling import spelled
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Convert = Callable[[Any], Any]

__all__ = ["Conversion", "converters", "lenient_annotations"]

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
        resolved = evaluated(annotation, function, function.__globals__)
    except (NameError, AttributeError, SyntaxError) as error:
        return _unresolved(annotation, error), as_it_is
    except Exception as error:  # an annotation is any code
        return _refusing(f"the annotation {annotation!r} can't be evaluated: {error}")
    compiler = _Compiler()
    try:
        found = compiler.compile(resolved)
    except NameError as error:
        return _unresolved(annotation, error), as_it_is
    except Misfit as misfit:
        return _refusing(misfit.problem)
    except RecursionError:
        return _refusing(f"the annotation {annotation!r} unfolds without end")
    except Exception as error:  # so are the annotations of a class, and its metaclass
        return _refusing(f"the annotation {label_of(resolved)} can't be used: {one_line(error)}")
    return compiler.verified(found, resolved), found.decode


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
            return Conversion(as_none, as_none, native=True)
        if annotation in (typing.Any, object):
            self.deep = True
            return Conversion(as_json, as_it_is, MIXED, native=True)
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
        if origin is typing.Union or str(type(annotation)) == "<class 'types.UnionType'>":
            return self.union(annotation, args)
        if origin is typing.Literal:
            return self.literal(args)
        if origin is typing.Annotated or name_of(origin) in ("Required", "NotRequired", "ReadOnly", "Final"):
            return self.compile(args[0])
        kind: Any = origin or annotation
        if not _is_class(kind):
            raise _no_form(annotation)
        if kind is tuple:
            return self.tuple_of(args)
        if kind in ITEMS:
            return self.items_of(kind, args)
        if kind in FIELDS:
            return self.fields_of(args)
        return self.known_class(kind, annotation, args)

    def known_class(self, kind: Any, annotation: Any, args: tuple[Any, ...]) -> Conversion:
        if kind in _NATIVE:
            return _NATIVE[kind]
        text = spelled(kind)
        if text is not None:
            return Conversion(*text, form=TEXT)
        if is_subclass(kind, "enum", "Enum"):
            encode, decode, forms = enumeration(kind)
            return Conversion(encode, decode, _look_of(forms), nullable=None in forms)
        if is_subclass(kind, "msgspec", "Struct"):
            return self.foreign(struct(kind, annotation))
        if is_subclass(kind, "pydantic", "BaseModel"):
            return self.foreign(model(kind))
        if is_subclass(kind, "builtins", "dict") and hasattr(kind, "__required_keys__"):
            return self.record(kind, args, self.typed_dict)
        if is_subclass(kind, "builtins", "tuple") and hasattr(kind, "_fields"):
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
        pairs = [(member.encode, member.decode) for member in readers]
        writers = [member.encode for member in members]
        return Conversion(*first_fitting(writers, pairs, label_of(annotation)), form)

    def optional(self, member: Conversion) -> Conversion:
        self.unsure = self.unsure or member.nullable
        return Conversion(*optional(member.encode, member.decode), OTHER if member.form == OTHER else MIXED)

    def literal(self, args: tuple[Any, ...]) -> Conversion:
        choices = [(arg, self.compile(type(arg)).encode(arg)) for arg in args]
        forms = [form for _, form in choices]
        self.unsure = self.unsure or len(set(map(dumps, forms))) < len(choices)
        return Conversion(*literal(choices), _look_of(forms))

    def tuple_of(self, args: tuple[Any, ...]) -> Conversion:
        if not args:
            return self.items_of(tuple, ())
        if len(args) == 2 and args[1] is Ellipsis:
            return self.items_of(tuple, args[:1])
        places = [self.compile(arg) for arg in args if arg != ()]  # Python 3.9 spells `tuple[()]` so
        return Conversion(*places_of(places))

    def items_of(self, kind: Any, args: tuple[Any, ...]) -> Conversion:
        self.unsure = self.unsure or (issubclass(kind, abc.Set) and not args)
        return Conversion(*items_of(kind, self.compile(args[0] if args else typing.Any)))

    def fields_of(self, args: tuple[Any, ...]) -> Conversion:
        key = self.compile(args[0]) if args else _NATIVE[str]
        item = self.compile(args[1] if args else typing.Any)
        if args and args[0] in (typing.Any, object):
            key = _NATIVE[str]
        if key.form == MIXED:
            raise Misfit(f"dict keys of type {label_of(args[0])} have no exact JSON form; use one type")
        return Conversion(*fields_of(key, item, keys_are_text=key.form == TEXT))

    def foreign(self, both_ways: tuple[Convert, Convert]) -> Conversion:
        self.unsure = self.deep = True
        return Conversion(*both_ways)

    def typed_dict(self, kind: Any) -> Conversion:
        hints = hints_of(kind)
        required = {key for key in hints if is_required(hints[key], key in kind.__required_keys__)}
        return Conversion(*typed_dict(kind, {key: self.compile(hint) for key, hint in hints.items()}, required))

    def named_tuple(self, kind: Any) -> Conversion:
        hints = hints_of(kind)
        self.unsure = True  # its `__new__` may be its own
        return Conversion(*named_tuple(kind, [self.compile(hints.get(name, typing.Any)) for name in kind._fields]))

    def dataclass(self, kind: Any) -> Conversion:
        import dataclasses

        hints = hints_of(kind)
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
        return Conversion(*dataclass(kind, members, required))

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
                        f"{label_of(annotation)} can't tell them apart; annotate what it is, alone"
                    )
            return form

        return encode


def _reference(cell: list[Conversion]) -> Conversion:
    def encode(value: Any) -> Any:
        return cell[0].encode(value)

    def decode(form: Any) -> Any:
        return cell[0].decode(form)

    return Conversion(encode, decode, MIXED)


def _unresolved(annotation: Any, error: Exception) -> Convert:
    def encode(value: Any) -> Any:
        try:
            return as_json(value)
        except Misfit as misfit:
            misfit.problem += f" (the annotation {annotation!r} can't be resolved: {one_line(error)})"
            raise

    return encode


def _refusing(problem: str) -> tuple[Convert, Convert]:
    def refuse(value: Any) -> Any:
        raise Misfit(problem)

    return refuse, refuse


def _no_form(annotation: Any) -> Misfit:
    return Misfit(
        f"the type {label_of(annotation)} has no JSON form; use a dataclass, TypedDict or NamedTuple, "
        "a msgspec or pydantic model, or plain values"
    )


def _look_of(forms: Iterable[Any]) -> str:
    looks = {TEXT if type(form) is str else OTHER for form in forms}
    return looks.pop() if len(looks) == 1 else MIXED if looks else OTHER


def _is_class(kind: object) -> bool:
    return isinstance(kind, type)


_NATIVE = {
    kind: Conversion(PLAIN[kind], PLAIN[kind], TEXT if kind is str else OTHER, native=True)
    for kind in (int, str, float, bool)
}
