"""Params and results as JSON text, by the annotations of the job's function.

The promise: what `encode_call` and `encode_result` accept comes back equal and of the same type; what
can't is refused with the place inside the value. Three things change on purpose, all visible in the
annotation: where nothing is annotated a tuple becomes a list, an abstract collection (`Sequence`,
`Mapping`) is delivered as the built-in one, and an aware `datetime` keeps its offset, not the name of
its zone.

A job's process loads this file by path, as `_asyncjobs_codec`, without the package, and under any Python
from 3.9 on. There each millisecond counts: the text goes through CPython's own `_json` (0.4 ms to import;
the `json` package costs 8), and annotations that are plain JSON types are handled here; only another one
loads `conversion.py`, and with it `typing`.
"""

from __future__ import annotations

import sys

try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner
except ImportError:  # another implementation of Python
    make_encoder = make_scanner = encode_basestring_ascii = None  # type: ignore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType
    from typing import Any, NoReturn

    Convert = Callable[[Any], Any]
    Converters = tuple[Convert, Convert]  # Python object to JSON value, and back

DEEPEST = 200  # levels of lists and dicts in one value
_INT_BITS = 14_284  # 4300 digits: what every Python reads, whatever its `sys.set_int_max_str_digits`
_MOST_PLANS = 1000
_VARIADIC_FLAGS = 0x04 | 0x08  # inspect.CO_VARARGS, inspect.CO_VARKEYWORDS
_WHITESPACE = " \t\n\r"


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


def encode_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], *, limit: int) -> str:
    """Return the JSON object of the arguments of `function(*args, **kwargs)`, defaults not filled in.

    `limit` is in bytes.

    Raises:
        CodecError: The arguments don't fit the signature or the annotations, or are too long.
    """
    plan = _plans.get(function) or _new_plan(function)
    if not (args or kwargs or plan.required):
        return "{}"
    given = _converted(plan.bind(args, kwargs), plan.encoders)
    return _written(given, limit, "the parameters", "max_params_bytes")


def encode_params(function: Callable[..., Any], params: Mapping[str, Any], *, limit: int) -> str:
    """Return what `encode_call` would, for values that are Python objects or already their JSON form.

    A JSON form is written anew from the object it stands for, so both ways give the same text.

    Raises:
        CodecError: As for `encode_call`.
    """
    plan = _plans.get(function) or _new_plan(function)
    either = {name: _either(encode, plan.decoders[name]) for name, encode in plan.encoders.items()}
    given = _converted(plan.bind((), params), either)
    return _written(given, limit, "the parameters", "max_params_bytes")


def decode_params(function: Callable[..., Any], text: str) -> dict[str, Any]:
    """Return the keyword arguments in `text`, converted by annotation.

    Raises:
        CodecError: They don't fit the function (any more), or `text` is no JSON object.
    """
    plan = _plans.get(function) or _new_plan(function)
    given = _read(text, "the parameters")
    if not _is(dict, given):
        raise CodecError(f"the parameters are no JSON object but {shortened(given)}")
    plan.check_names(given)
    return _converted(given, plan.decoders)


def encode_result(function: Callable[..., Any], value: object, *, limit: int) -> str:
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
        raise CodecError(f"result: {_too_deep()}") from None
    return _written(form, limit, "the result", "max_result_bytes")


def decode_result(function: Callable[..., Any], text: str) -> Any:
    """Return the result in `text`, converted by the return annotation of `function`.

    Raises:
        CodecError: It doesn't fit the annotation (any more), or `text` is no JSON.
    """
    plan = _plans.get(function) or _new_plan(function)
    value = _read(text, "the result")
    try:
        return plan.result(function)[1](value)
    except Misfit as misfit:
        raise CodecError(f"result: {misfit.sentence()}") from None
    except RecursionError:
        raise CodecError(f"result: {_too_deep()}") from None


def plain(function: Callable[..., Any]) -> bool:
    """Return whether all annotations of `function` are plain JSON types, so that no `typing` is needed."""
    function = _unwrapped(function)
    names = function.__globals__
    return all(_plain_converters(each, names) is not None for each in _annotations(function).values())


def dumps(value: object) -> str:
    """Return what `json.dumps(value)` returns, and raise what it raises."""
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


def as_json(value: object, depth: int = 0) -> Any:
    """Return `value`, which must be JSON already, with its tuples as lists."""
    kind = type(value)
    if kind is str:
        return as_text(value)
    if kind is int:
        return as_int(value)
    if kind is float or kind is bool or value is None:
        return value
    if depth >= DEEPEST and kind in (list, tuple, dict):
        raise Misfit(_too_deep())
    if kind is list or kind is tuple:
        return _json_items(value, depth + 1)
    if kind is dict:
        return _json_fields(value, depth + 1)
    raise Misfit(
        f"{kind.__qualname__} ({shortened(value)}) is no JSON value; annotate it as {kind.__qualname__} "
        "if that is a type with a JSON form (see the documentation), or pass plain values"
    )


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


class _Plan:
    """How one function's arguments are bound and converted."""

    __slots__ = ("_result", "decoders", "encoders", "names", "positional", "required")

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
        self.encoders = {name: encode for name, (encode, _) in converters.items()}
        self.decoders = {name: decode for name, (_, decode) in converters.items()}
        self._result: Converters | None = None

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the given arguments by name, in the signature's order."""
        if len(args) > self.positional:
            raise CodecError(f"takes {self.positional} positional arguments, {len(args)} were given")
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
            if name not in self.encoders:
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
    if code.co_flags & _VARIADIC_FLAGS:
        raise CodecError("a job's function can't have *args or **kwargs: name its parameters")
    count = code.co_argcount + code.co_kwonlyargcount
    names = code.co_varnames[:count]
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
        return as_json, _as_it_is
    annotation = annotations[name]
    found = _plain_converters(annotation, function.__globals__)
    if found is None:
        found = _conversion().converters(annotation, function)
    return found


def _plain_converters(annotation: Any, names: Mapping[str, Any]) -> Converters | None:
    if type(annotation) is str:
        return None if annotation in names else _PLAIN.get(annotation)  # a module may have its own `list`
    return _PLAIN.get(_PLAIN_TYPES.get(annotation, "")) if type(annotation) in (type, type(None)) else None


def _conversion() -> ModuleType:
    """Return `conversion.py`, from beside this file where the package is not to be imported."""
    if __name__ != "_asyncjobs_codec":
        from asyncjobs import conversion

        return conversion
    name = "_asyncjobs_conversion"
    if name not in sys.modules:
        # `importlib.util` would import contextlib and more; this is the same machinery, loaded already.
        path = __file__[: -len("codec.py")] + "conversion.py"
        spec = sys.modules["_frozen_importlib_external"].spec_from_file_location(name, path)
        module = sys.modules["_frozen_importlib"].module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def _converted(given: dict[str, Any], converters: dict[str, Convert]) -> dict[str, Any]:
    name = None
    try:
        for name in given:
            given[name] = converters[name](given[name])
    except Misfit as misfit:
        raise CodecError(misfit.sentence(), name) from None
    except RecursionError:
        raise CodecError(_too_deep(), name) from None
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


def _is(kind: Any, value: object) -> bool:
    return type(value) is kind


def _read(text: str, what: str) -> Any:
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:
        raise CodecError(f"{what} can't be read as JSON: {error}") from error


def _written(form: object, limit: int, what: str, setting: str) -> str:
    try:
        text = dumps(form)
    except (ValueError, RecursionError) as error:  # this process has lowered a limit of the interpreter
        raise CodecError(f"{what} can't be written as JSON: {error}") from error
    if len(text) > limit:  # the text is ASCII
        raise CodecError(
            f"{what}: {len(text)} bytes of JSON, and the limit is {limit} (the setting {setting}); "
            "store what is large elsewhere and pass a reference to it"
        )
    return text


def _too_deep() -> str:
    return f"nested deeper than {DEEPEST} levels, or it contains itself"


def _as_it_is(value: Any) -> Any:
    return value


def _as_float(value: Any) -> Any:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise expected("float", value)
    return as_int(value)


def _as_bool(value: Any) -> Any:
    if type(value) is not bool:
        raise expected("bool", value)
    return value


def _as_none(value: Any) -> Any:
    if value is not None:
        raise expected("None", value)
    return value


def _as_list(value: Any) -> Any:
    if not _is(list, value):
        raise expected("list", value)
    return as_json(value)


def _as_dict(value: Any) -> Any:
    if not _is(dict, value):
        raise expected("dict", value)
    return as_json(value)


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


_PLAIN: dict[str, Converters] = {
    "int": (as_int, as_int),
    "str": (as_text, as_text),
    "float": (_as_float, _as_float),
    "bool": (_as_bool, _as_bool),
    "None": (_as_none, _as_none),
    "list": (_as_list, _as_list),
    "dict": (_as_dict, _as_dict),
}


_PLAIN_TYPES = {
    int: "int",
    str: "str",
    float: "float",
    bool: "bool",
    None: "None",
    list: "list",
    dict: "dict",
}


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
