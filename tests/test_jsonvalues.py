import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncjobs import jsonvalues
from asyncjobs.conversion.sameness import same


def cycle():
    value = {}
    value["again"] = [value]
    return value


JSON_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=5).filter(lambda text: jsonvalues._joined(text) == text)
)
JSON_VALUES = st.recursive(
    JSON_SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_the_text_is_that_of_the_json_package(value):
    text = jsonvalues.dumps(value)

    assert text == json.dumps(value, ensure_ascii=True, allow_nan=True, separators=(", ", ": "))
    assert same(jsonvalues.loads(f" \n{text}\t"), json.loads(text))


@given(st.text() | st.text(alphabet='[]{}",:0123456789.-+eE tfnul\\"N'))
def test_reading_any_text_does_what_the_json_package_does(text):
    assert outcome_of(jsonvalues.loads, text) == outcome_of(json.loads, text)


MALFORMED = [
    "",
    " ",
    "[",
    "[1,",
    '{"a"',
    "nul",
    "01",
    "1 2",
    '"\n"',
    '"\\x"',
    "'a'",
    "[1]]",
    "\ufeff1",
    "9" * 5000,
]


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: ascii(text[:10]))
def test_malformed_text_raises_value_error(text):
    with pytest.raises(ValueError):
        jsonvalues.loads(text)


@pytest.mark.parametrize(
    "value",
    [b"x", {1}, object(), {(): 1}, cycle(), 10**5000, [1, {2: b""}], {1: 2, None: True}, (1, (2,))],
    ids=lambda value: type(value).__name__,
)
def test_writing_odd_values_does_what_the_json_package_does(value):
    assert outcome_of(jsonvalues.dumps, value) == outcome_of(json.dumps, value)


def test_without_the_accelerator_the_json_package_is_used(monkeypatch):
    monkeypatch.setattr(jsonvalues, "_write", None)
    monkeypatch.setattr(jsonvalues, "_scan", None)

    assert jsonvalues.loads(jsonvalues.dumps({"a": [1]})) == {"a": [1]}


def test_an_accelerator_that_behaves_otherwise_is_not_used(monkeypatch):
    monkeypatch.setattr(jsonvalues, "make_encoder", lambda *arguments: lambda value, level: ("{}",))

    assert jsonvalues._accelerated() == (None, None)


def outcome_of(function, argument):
    try:
        return repr(function(argument))
    except (ValueError, TypeError, RecursionError) as error:
        return type(error), str(error)
