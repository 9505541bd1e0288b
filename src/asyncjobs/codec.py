"""Params and results as JSON text, by the annotations of the job's function.

The promise: what `encode_call` and `encode_result` accept comes back equal and of the same type; what
can't is refused with the place inside the value. Three things change on purpose, all visible in the
annotation: where nothing is annotated a tuple becomes a list, an abstract collection (`Sequence`,
`Mapping`) is delivered as the built-in one, and an aware `datetime` keeps its offset, not the name of
its zone.

A job's process loads this file by path, as `_asyncjobs_codec`, after `jsonvalues.py` and without the
package, under any Python from 3.9 on. There each millisecond counts: annotations that are plain JSON types
are handled here; only another one loads `conversion.py`, and with it `typing`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING or __name__ != "_asyncjobs_codec":
    from asyncjobs.jsonvalues import PLAIN, TOO_DEEP, Misfit, as_it_is, as_json, dumps, loads, shortened
else:
    from _asyncjobs_jsonvalues import PLAIN, TOO_DEEP, Misfit, as_it_is, as_json, dumps, loads, shortened
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType
    from typing import Any

    Convert = Callable[[Any], Any]
    Field = tuple[str, str, Convert]  # a parameter's name, the same as a key in JSON, and what makes its JSON value
    Converters = tuple[Convert, Convert]  # Python object to JSON value, and back
    Read = Callable[[str], Any]
    Write = Callable[[Any], str]

__all__ = [
    "CodecError",
    "decode_params",
    "decode_result",
    "dumps",
    "encode_call",
    "encode_params",
    "encode_result",
    "loads",
]

_MOST_PLANS = 1000
# The files of the folder `conversion`, each after those it imports.
_CONVERSION = ("classes", "sameness", "hints", "spelling", "containers", "alternatives", "compiler")
_PLAIN_NAMES = {str(getattr(kind, "__name__", kind)): convert for kind, convert in PLAIN.items()}
_VARIADIC_FLAGS = 0x04 | 0x08  # inspect.CO_VARARGS, inspect.CO_VARKEYWORDS


class CodecError(ValueError):
    """A value that can't make the trip through JSON, or text that no longer fits the function.

    `parameter` is None for a result and for what concerns the call as a whole.
    """

    def __init__(self, problem: str, parameter: str | None = None) -> None:
        super().__init__(problem, parameter)
        self.problem = problem
        self.parameter = parameter

    def __str__(self) -> str:
        return self.problem if self.parameter is None else f"parameter {self.parameter!r}: {self.problem}"


def encode_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], *, limit: int, write: Write = dumps
) -> str:
    """Return the JSON object of the arguments of `function(*args, **kwargs)`, defaults not filled in.

    `limit` is in bytes. What writes, or reads, does what `dumps` and `loads` do.

    Raises:
        CodecError: The arguments don't fit the signature or the annotations, or are too long.
    """
    plan = _plans.get(function) or _new_plan(function)
    if not kwargs and len(args) == plan.positional == len(plan.names):
        return _object(plan.fields, args, limit, write)
    given = plan.bind(args, kwargs)
    return _object([field for field in plan.fields if field[0] in given], given.values(), limit, write)


def encode_params(function: Callable[..., Any], params: Mapping[str, Any], *, limit: int, write: Write = dumps) -> str:
    """Return what `encode_call` would, for values that are Python objects or already their JSON form.

    A JSON form is written anew from the object it stands for, so both ways give the same text.

    Raises:
        CodecError: As for `encode_call`.
    """
    plan = _plans.get(function) or _new_plan(function)
    given = plan.bind((), params)
    either = [(name, key, _either(encode, plan.decoders[name])) for name, key, encode in plan.fields if name in given]
    return _object(either, given.values(), limit, write)


def plan_ahead(function: Callable[..., Any]) -> None:
    """Find out now how the arguments and the result of `function` are converted: a template does, for its copies.

    Raises:
        CodecError: As for `encode_call`.
    """
    plan = _plans.get(function) or _new_plan(function)
    plan.result(function)


def decode_params(function: Callable[..., Any], text: str, *, read: Read = loads) -> dict[str, Any]:
    """Return the keyword arguments in `text`, converted by annotation.

    Raises:
        CodecError: They don't fit the function (any more), or `text` is no JSON object.
    """
    plan = _plans.get(function) or _new_plan(function)
    given = _read(text, "the parameters", read)
    if type(given) is not dict:
        raise CodecError(f"the parameters are no JSON object but {shortened(given)}")
    plan.check_names(given)
    return _converted(given, plan.decoders)


def encode_result(function: Callable[..., Any], value: object, *, limit: int, write: Write = dumps) -> str:
    """Return the JSON text of what `function` returned, by its return annotation.

    `limit` is in bytes.

    Raises:
        CodecError: The value doesn't fit the annotation, has no JSON form or is too long.
    """
    plan = _plans.get(function) or _new_plan(function)
    try:
        form = plan.result(function)[0](value)
    except Misfit as misfit:
        raise CodecError(f"result: {misfit.sentence()}") from None
    except RecursionError:
        raise CodecError(f"result: {TOO_DEEP}") from None
    return _written(form, limit, write)


def decode_result(function: Callable[..., Any], text: str, *, read: Read = loads) -> Any:
    """Return the result in `text`, converted by the return annotation of `function`.

    Raises:
        CodecError: It doesn't fit the annotation (any more), or `text` is no JSON.
    """
    plan = _plans.get(function) or _new_plan(function)
    value = _read(text, "the result", read)
    try:
        return plan.result(function)[1](value)
    except Misfit as misfit:
        raise CodecError(f"result: {misfit.sentence()}") from None
    except RecursionError:
        raise CodecError(f"result: {TOO_DEEP}") from None


class _Plan:
    """How one function's arguments are bound and converted."""

    __slots__ = ("_result", "decoders", "fields", "names", "positional", "required")

    def __init__(
        self,
        names: tuple[str, ...],
        positional: int,
        required: tuple[str, ...],
        converters: dict[str, Converters],
    ) -> None:
        self.names = names
        self.positional = positional
        self.required = required
        self.fields: list[Field] = [(name, f"{dumps(name)}: ", encode) for name, (encode, _) in converters.items()]
        self.decoders = {name: decode for name, (_, decode) in converters.items()}
        self._result: Converters | None = None

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the given arguments by name, in the signature's order."""
        if len(args) > self.positional:
            known = ", ".join(self.names[: self.positional]) or "none"
            raise CodecError(f"{len(args)} arguments were given by position, and it takes {self.positional}: {known}")
        given = dict(zip(self.names, args))  # noqa: B905  # Python 3.9; fewer arguments than names
        if kwargs:
            for name in kwargs:
                if name in given:
                    raise CodecError("given twice, by position and by name", name)
            given.update(kwargs)
            if tuple(given) != self.names:
                self.check_names(given)
                return {name: given[name] for name in self.names if name in given}
        elif len(given) < len(self.names):
            self.check_names(given)
        return given

    def check_names(self, given: Mapping[str, Any]) -> None:
        for name in given:
            if name not in self.decoders:
                known = ", ".join(self.names) or "none"
                raise CodecError(f"the function has no such parameter; it has: {known}", str(name))
        for name in self.required:
            if name not in given:
                raise CodecError("missing, and it has no default", name)

    def result(self, function: Callable[..., Any]) -> Converters:
        if self._result is None:
            self._result = _converters(_unwrapped(function), "return")
        return self._result


# Bounded, and by strong reference: functions of modules live as long as the process anyway.
_plans: dict[Any, _Plan] = {}


def _new_plan(original: Callable[..., Any]) -> _Plan:
    function = _unwrapped(original)
    code = function.__code__
    count = code.co_argcount + code.co_kwonlyargcount
    names = code.co_varnames[:count]
    if code.co_flags & _VARIADIC_FLAGS:
        raise CodecError("a job's function can't have *args or **kwargs: name its parameters", code.co_varnames[count])
    if code.co_posonlyargcount:
        raise CodecError("it is positional-only, which a job's parameter can't be: remove the `/`", names[0])
    first_default = code.co_argcount - len(function.__defaults__ or ())
    optional = {*names[first_default : code.co_argcount], *(function.__kwdefaults__ or ())}
    required = tuple(name for name in names if name not in optional)
    converters = {name: _converters(function, name) for name in names}
    if len(_plans) >= _MOST_PLANS:
        _plans.clear()
    plan = _plans[original] = _Plan(names, code.co_argcount, required, converters)
    return plan


def _unwrapped(function: Any) -> Any:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    if not hasattr(function, "__code__"):
        raise CodecError(f"{shortened(function)} is no plain function")
    return function


def _annotations(function: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = function.__annotations__
    except NameError:  # Python 3.14 evaluates them only now, and a name is there for type checkers alone
        found = _conversion().lenient_annotations(function)
    return found


def _converters(function: Any, name: str) -> Converters:
    annotations = _annotations(function)
    if name not in annotations:
        return as_json, as_it_is
    annotation = annotations[name]
    plain = _plain(annotation, function.__globals__)
    found: Converters = (plain, plain) if plain else _conversion().converters(annotation, function)
    return found


def _plain(annotation: Any, names: Mapping[str, Any]) -> Convert | None:
    if type(annotation) is str:
        return None if annotation in names else _PLAIN_NAMES.get(annotation)  # a module may have its own `list`
    return PLAIN.get(annotation) if type(annotation) in (type, type(None)) else None


def _conversion() -> ModuleType:
    """Return what converts annotated values, by the path of its files where the package is not to be imported."""
    if __name__ != "_asyncjobs_codec":
        from asyncjobs import conversion

        return conversion
    for file in _CONVERSION:
        name = "_asyncjobs_" + file
        if name not in sys.modules:
            # `importlib.util` would import contextlib and more; this is the same machinery, loaded already.
            path = f"{__file__[: -len('codec.py')]}conversion/{file}.py"
            spec = sys.modules["_frozen_importlib_external"].spec_from_file_location(name, path)
            module = sys.modules["_frozen_importlib"].module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
    return sys.modules["_asyncjobs_compiler"]


def _object(fields: Iterable[Field], values: Iterable[Any], limit: int, write: Write) -> str:
    """Return the JSON object of the parameters; each is written by itself, which is quicker for plain ones."""
    texts = []
    name = encoded = None
    try:
        for field, value in zip(fields, values):  # noqa: B905  # Python 3.9; as many of both
            name, key, encode = field
            form = encode(value)
            encoded = name
            texts.append(key + write(form))
    except Misfit as misfit:
        raise CodecError(misfit.sentence(), name) from None
    except (ValueError, RecursionError) as error:
        if encoded is name:  # this process has lowered a limit of the interpreter
            raise CodecError(f"it can't be written as JSON: {error}", name) from error
        if isinstance(error, RecursionError):
            raise CodecError(TOO_DEEP, name) from None
        raise  # it is of the value's own code
    return _within(f"{{{', '.join(texts)}}}", limit, "the parameters", "max_params_bytes")


def _converted(given: dict[str, Any], converters: dict[str, Convert]) -> dict[str, Any]:
    name = None
    try:
        for name in given:
            given[name] = converters[name](given[name])
    except Misfit as misfit:
        raise CodecError(misfit.sentence(), name) from None
    except RecursionError:
        raise CodecError(TOO_DEEP, name) from None
    return given


def _either(encode: Convert, decode: Convert) -> Convert:
    def encode_either(value: Any) -> Any:
        try:
            return encode(value)
        except Misfit as misfit:
            no_object = misfit
        try:
            form = as_json(value)
        except Misfit:
            raise no_object from None
        return encode(decode(form))

    return encode_either


def _read(text: str, what: str, read: Read) -> Any:
    try:
        return read(text)
    except (ValueError, RecursionError) as error:
        raise CodecError(f"{what} can't be read as JSON: {error}") from error


def _written(form: object, limit: int, write: Write) -> str:
    try:
        text = write(form)
    except (ValueError, RecursionError) as error:  # this process has lowered a limit of the interpreter
        raise CodecError(f"the result can't be written as JSON: {error}") from error
    return _within(text, limit, "the result", "max_result_bytes")


def _within(text: str, limit: int, what: str, setting: str) -> str:
    if len(text) > limit:  # the text is ASCII
        raise CodecError(
            f"{what}: {len(text)} bytes of JSON, and the limit is {limit} (the setting {setting}); "
            "store what is large elsewhere and pass a reference to it"
        )
    return text
