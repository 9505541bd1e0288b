"""Large values are read and written in slices, with the same texts and values as in one piece."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asyncjobs import codec, large
from asyncjobs.conversion.sameness import same
from test_jsonvalues import JSON_VALUES, MALFORMED, outcome_of


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "WINDOW", 24)
    monkeypatch.setattr(large, "MOST_NODES", 3)
    monkeypatch.setattr(large, "LARGE_TEXT", 0)
    monkeypatch.setattr(large, "_RUN", 2)


sliced = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@sliced
@given(JSON_VALUES)
def test_the_text_is_that_of_the_json_package(small_slices: None, value: Any) -> None:
    assert large.dumps(value) == json.dumps(value)


@sliced
@example([[1.0000000000000002e16, None], [None, None]], (", ", ": "))  # a list ends where the next is cut
@given(JSON_VALUES, st.sampled_from([(", ", ": "), (",", ":"), (" ,\n", " :\t")]))
def test_the_value_is_that_of_the_json_package(small_slices: None, value: Any, separators: tuple[str, str]) -> None:
    text = json.dumps(value, separators=separators)

    assert same(large.loads(f" \n{text}\t"), json.loads(text))


@sliced
@given(st.text() | st.text(alphabet='[]{}",:0123456789.-+eE tfnul\\"N'))
def test_reading_any_text_does_what_the_json_package_does(small_slices: None, text: str) -> None:
    assert outcome_of(large.loads, text) == outcome_of(json.loads, text)


@pytest.mark.parametrize("text", MALFORMED)
@pytest.mark.parametrize(
    "before", ["", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ", '{"a": [], "b": "12345678901234567890", "c": ']
)
def test_malformed_text_is_refused_as_by_the_json_package(small_slices: None, before: str, text: str) -> None:
    assert outcome_of(large.loads, before + text) == outcome_of(json.loads, before + text)


@dataclass
class Row:
    number: int
    name: str


def rows_back(rows: list[Row]) -> list[Row]:
    return rows


ROWS = [Row(number, f"row {number}") for number in range(30_000)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (list(range(20_000)), True),
        ({"rows": [{"a": 1, "b": [1, 2]}] * 5_000}, True),
        (ROWS, True),
        ({number: frozenset({1}) for number in range(9_000)}, True),
        ("x" * 10_000_000, False),
        (list(range(5_000)), False),
        (range(10**9), False),
        (Row, False),
    ],
    ids=["ints", "dicts", "dataclasses", "sets", "text", "few", "a range", "a class"],
)
def test_large_is_what_has_many_values_in_it(value: object, expected: bool) -> None:
    assert large.is_large(value) is expected


def test_a_value_that_contains_itself_is_left_to_the_conversion() -> None:
    value: list[Any] = []
    value.append(value)

    assert not large.is_large(value)


@pytest.fixture
async def passes() -> Iterator[list[None]]:
    """A list that grows by one in each pass of the loop."""
    counted: list[None] = []

    async def count() -> None:
        while True:
            counted.append(None)
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    yield counted
    counting.cancel()


async def test_the_loop_goes_on_while_large_values_are_converted(passes: list[None]) -> None:
    """F51: both ways, with what the conversion by annotation adds."""
    text = await large.write(partial(codec.encode_call, rows_back, limit=10**8), (ROWS,), {})
    written = len(passes)
    rows = await large.read(partial(codec.decode_result, rows_back), json.dumps(json.loads(text)["rows"]))
    read = len(passes) - written

    assert rows == ROWS
    assert written > 3
    assert read > 3


_whose: ContextVar[str] = ContextVar("whose")


@dataclass
class Tagged:
    number: int
    whose: str = ""

    def __post_init__(self) -> None:
        self.whose = _whose.get()


def tagged(rows: list[Tagged]) -> None: ...


async def test_a_large_value_is_read_in_the_context_of_the_caller() -> None:
    _whose.set("mine")

    text = json.dumps({"rows": [{"number": number, "whose": ""} for number in range(20_000)]})
    found = await large.read(partial(codec.decode_params, tagged), text)

    assert {each.whose for each in found["rows"]} == {"mine"}


async def test_a_large_value_that_does_not_fit_is_refused_as_a_small_one() -> None:
    rows = [*ROWS, "no row"]

    with pytest.raises(codec.CodecError, match=r"parameter 'rows': at \[30000\]: expected") as caught:
        await large.write(partial(codec.encode_call, rows_back, limit=10**8), (rows,), {})

    assert caught.value.parameter == "rows"
