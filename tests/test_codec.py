import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given

from asyncjobs import codec
from asyncjobs.codec import CodecError
from asyncjobs.conversion.sameness import same
from test_jsonvalues import JSON_VALUES, cycle

SOURCE = Path(codec.__file__).parent
PLENTY = 10_000_000


def nested(levels):
    value = []
    for _ in range(levels - 1):
        value = [value]
    return value


def anything(value): ...


def no_parameters(): ...


def two(a: int, b: int): ...


def with_defaults(a, b: str = "b", *, c: float = 1.0): ...


def positional_only(a, /): ...


def any_number(*values): ...


def any_names(**values): ...


def whole_trip(function, value):
    text = codec.encode_call(function, (value,), {}, limit=PLENTY)
    [back] = codec.decode_params(function, text).values()
    return back


@given(JSON_VALUES)
def test_a_json_value_comes_back_the_same(value):
    assert same(whole_trip(anything, value), value)


@given(JSON_VALUES)
def test_a_json_result_comes_back_the_same(value):
    text = codec.encode_result(anything, value, limit=PLENTY)

    assert same(codec.decode_result(anything, text), value)


EXACT = {
    "NUL": "a\0b",
    "a lone high surrogate": "\ud800",
    "a lone low surrogate": "x\udc80y",
    "a lone surrogate as key": {"\udfff": 1},
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": [-math.inf],
    "minus zero": -0.0,
    "2**64": 2**64,
    "an int of 4300 digits": 10**4299,
    "200 levels": nested(200),
}


@pytest.mark.parametrize("value", EXACT.values(), ids=EXACT)
def test_what_json_can_say_comes_back_exactly(value):
    """F52"""
    assert same(whole_trip(anything, value), value)


REFUSED = {
    "201 levels": (nested(201), "nested deeper than 200 levels"),
    "a cycle": (cycle(), "or it contains itself"),
    "two surrogates that join": ("\ud83d" + "\ude00", "two lone surrogates"),
    "an int of 4301 digits": (10**4300, "4300 digits"),
    "bytes": (b"abc", r"bytes \(b'abc'\) is no JSON value; annotate it as bytes"),
    "a set": ({"a": [{1}]}, r"at \['a'\]\[0\]: set \(\{1\}\) is no JSON value"),
    "an int key": ({1: 2}, r"at \[1\]: expected a str as key, not int \(1\)"),
    "an object": (object(), "object .* is no JSON value"),
}


@pytest.mark.parametrize(("value", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_json_cannot_say_is_refused_at_submit(value, sentence):
    """F52"""
    with pytest.raises(CodecError, match=sentence) as caught:
        codec.encode_call(anything, (value,), {}, limit=PLENTY)

    assert caught.value.parameter == "value"


def test_an_unannotated_tuple_becomes_a_list():
    assert whole_trip(anything, {"a": (1, (2,))}) == {"a": [1, [2]]}


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "text"),
    [
        pytest.param(no_parameters, (), {}, "{}", id="nothing"),
        pytest.param(two, (1, 2), {}, '{"a": 1, "b": 2}', id="by position"),
        pytest.param(two, (), {"b": 2, "a": 1}, '{"a": 1, "b": 2}', id="by name, in the order of the signature"),
        pytest.param(with_defaults, (None,), {}, '{"a": null}', id="defaults are not filled in"),
        pytest.param(with_defaults, (1,), {"c": 2}, '{"a": 1, "c": 2}', id="keyword-only"),
    ],
)
def test_a_call_is_a_json_object_of_the_arguments_given(function, args, kwargs, text):
    assert codec.encode_call(function, args, kwargs, limit=100) == text


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "parameter", "sentence"),
    [
        pytest.param(two, (1,), {}, "b", "missing", id="missing"),
        pytest.param(two, (1, 2), {"c": 3}, "c", "no such parameter", id="unknown"),
        pytest.param(two, (1, 2), {"a": 3}, "a", "given twice", id="given twice"),
        pytest.param(two, (1, 2, 3), {}, None, "by position, and it takes 2: a, b", id="too many"),
        pytest.param(
            with_defaults, (1, "b", 2.0), {}, None, "by position, and it takes 2: a, b", id="keyword-only by position"
        ),
        pytest.param(positional_only, (1,), {}, "a", "positional-only", id="positional-only"),
        pytest.param(any_number, (1,), {}, "values", r"\*args", id="args"),
        pytest.param(any_names, (), {"a": 1}, "values", r"\*\*kwargs", id="kwargs"),
        pytest.param(two, (1, "abc"), {}, "b", r"expected int, not str \('abc'\)", id="wrong type"),
        pytest.param(two, (1, True), {}, "b", r"expected int, not bool \(True\)", id="bool is no int"),
        pytest.param(two, (1, None), {}, "b", "expected int, not None", id="None"),
        pytest.param(len, ([],), {}, None, "no plain function", id="a builtin"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(function, args, kwargs, parameter, sentence):
    with pytest.raises(CodecError, match=sentence) as caught:
        codec.encode_call(function, args, kwargs, limit=PLENTY)

    assert caught.value.parameter == parameter


def test_values_in_sentences_are_shortened():
    with pytest.raises(CodecError) as caught:
        codec.encode_call(two, ("x" * 1000, 1), {}, limit=PLENTY)

    assert len(caught.value.problem) < 120


def test_params_above_the_limit_are_refused():
    with pytest.raises(CodecError, match=r"1013 bytes of JSON, and the limit is 1012 .*max_params_bytes"):
        codec.encode_call(anything, ("x" * 1000,), {}, limit=1012)


def test_a_result_above_the_limit_is_refused():
    with pytest.raises(CodecError, match=r"12 bytes of JSON, and the limit is 11 .*max_result_bytes"):
        codec.encode_result(anything, "x" * 10, limit=11)


def test_a_result_that_is_no_json_is_refused_with_its_place():
    with pytest.raises(CodecError, match=r"result: at \['rows'\]\[1\]: bytes .* is no JSON value") as caught:
        codec.encode_result(anything, {"rows": [1, b"x"]}, limit=PLENTY)

    assert caught.value.parameter is None


@pytest.mark.parametrize(
    ("text", "parameter", "sentence"),
    [
        pytest.param('{"a": 1, "b": 2, "c": 3}', "c", "no such parameter", id="gone"),
        pytest.param('{"a": 1, "b": "x"}', "b", "expected int", id="of another type"),
        pytest.param('{"a": 1}', "b", "missing", id="new without default"),
        pytest.param("[1]", None, "no JSON object", id="no object"),
        pytest.param('{"a": ', None, "can't be read as JSON", id="malformed"),
    ],
)
def test_params_that_no_longer_fit_the_function_are_refused(text, parameter, sentence):
    with pytest.raises(CodecError, match=sentence) as caught:
        codec.decode_params(two, text)

    assert caught.value.parameter == parameter


def test_a_decorated_function_has_the_parameters_of_what_it_wraps():
    import functools

    @functools.wraps(two)
    def wrapper(*args, **kwargs): ...

    assert codec.encode_call(wrapper, (1, 2), {}, limit=100) == '{"a": 1, "b": 2}'


def test_an_error_survives_pickling():
    import pickle

    error = pickle.loads(pickle.dumps(CodecError("missing", "a")))

    assert str(error) == "parameter 'a': missing"


@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"], ids=["objects", "strings"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_in_a_jobs_process_plain_annotations_import_next_to_nothing(future, kind):
    script = f"""{future}
import sys
folder = {str(SOURCE)!r}
{LOAD_BY_PATH}
{kind} job(a: int, b: str = "", *, c: dict = None, d: list = (), e=None, f: float = 1.0) -> dict: ...
assert codec.decode_params(job, '{{"a": 1, "b": "x", "c": {{"y": [1.5]}}, "e": null, "f": 2}}')["a"] == 1
assert codec.encode_result(job, {{"a": [1, "x", None, 2.5]}}, limit=100) == '{{"a": [1, "x", null, 2.5]}}'
heavy = {{"typing", "inspect", "json", "re", "dataclasses", "datetime", "enum", "functools", "collections"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
print(sorted(name for name in sys.modules if "asyncjobs" in name))
"""

    assert run(script) == "['_asyncjobs_codec', '_asyncjobs_jsonvalues']"


def test_in_a_jobs_process_other_annotations_are_converted_without_the_package():
    script = f"""
import sys
folder = {str(SOURCE)!r}
{LOAD_BY_PATH}
from pathlib import Path
def job(path: Path) -> "Path": ...
assert codec.decode_params(job, '{{"path": "x"}}') == {{"path": Path("x")}}
assert codec.encode_result(job, Path("y"), limit=9) == '"y"'
try:
    codec.decode_params(job, '{{"path": 1}}')
except codec.CodecError as error:
    assert "expected PosixPath as text, not int (1)" in str(error), error
assert "_asyncjobs_compiler" in sys.modules
print([name for name in sys.modules if name.startswith("asyncjobs")])
"""

    assert run(script) == "[]"


LOAD_BY_PATH = """
for name in ("jsonvalues", "codec"):
    path = f"{folder}/{name}.py"
    spec = sys.modules["_frozen_importlib_external"].spec_from_file_location("_asyncjobs_" + name, path)
    codec = sys.modules["_frozen_importlib"].module_from_spec(spec)
    sys.modules["_asyncjobs_" + name] = codec
    spec.loader.exec_module(codec)
"""


def run(script):
    command = [sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
