"""Values of random annotations: each comes back exactly as it was, or is refused by a sentence (F52)."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, Optional, Required, TypedDict, Union
from uuid import UUID

import msgspec
import pydantic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncjobs import codec


class Colour(enum.Enum):
    RED = "red"
    ONE = 1
    YES = True
    NONE = None


class Access(enum.IntFlag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Line:
    count: int
    note: str | None = None


@dataclass(slots=True)
class Order:
    lines: list[Line]
    due: dict[str, date] = field(default_factory=dict)
    kind: Literal["a", 1, True] = "a"


class Tree(TypedDict, total=False):
    weight: Required[Decimal]
    below: Tree | None


class Place(NamedTuple):
    path: Path
    seen: datetime | None = None


class Struct(msgspec.Struct):
    when: datetime
    parts: set[int] = set()


class Model(pydantic.BaseModel):
    when: datetime
    size: int | str | None = None


TEXTS = st.text(st.characters(exclude_categories=()), max_size=4)
OFFSETS = st.integers(-86_399_999_999, 86_399_999_999).map(lambda offset: timezone(timedelta(microseconds=offset)))
MOMENTS = st.datetimes(timezones=st.none() | st.just(UTC) | OFFSETS | st.timezones())
LINES = st.builds(Line, st.integers(), st.none() | TEXTS)
TREES = st.recursive(
    st.fixed_dictionaries({"weight": st.decimals()}),
    lambda below: st.fixed_dictionaries({"weight": st.decimals()}, optional={"below": st.none() | below}),
    max_leaves=3,
)
LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers() | st.sampled_from([2**64, -(2**64), 10**4299])),
    (float, st.floats() | st.integers()),
    (str, TEXTS),
    (bool, st.booleans()),
    (None, st.none()),
    (bytes, st.binary(max_size=4)),
    (datetime, MOMENTS),
    (date, st.dates()),
    (time, st.times(timezones=st.none() | st.just(UTC) | OFFSETS)),
    (timedelta, st.timedeltas()),
    (UUID, st.uuids()),
    (Decimal, st.decimals() | st.sampled_from([Decimal("-0"), Decimal("1E+5"), Decimal("-sNaN7")])),
    (Path, TEXTS.map(Path)),
    (Colour, st.sampled_from(Colour)),
    (Access, st.integers(0, 7).map(Access)),
    (Literal["a", 1, True, None, b"a", "YQ=="], st.sampled_from(["a", 1, True, None, b"a", "YQ=="])),
    (Line, LINES),
    (Order, st.builds(Order, st.lists(LINES, max_size=2), st.dictionaries(TEXTS, st.dates(), max_size=2))),
    (Tree, TREES),
    (Place, st.builds(Place, TEXTS.map(Path), st.none() | MOMENTS)),
    (Struct, st.builds(Struct, MOMENTS, st.sets(st.integers(), max_size=2))),
    (Model, st.builds(Model, when=MOMENTS, size=st.none() | st.integers() | TEXTS)),
]
KEYS = [leaf for leaf in LEAVES if leaf[0] in (int, float, str, bool, bytes, datetime, UUID, Colour, Line, Place)]


def holding(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def of_one(item: Any) -> st.SearchStrategy[Any]:
        kind, values = item
        return st.sampled_from(
            [
                (list[kind], st.lists(values, max_size=3)),
                (tuple[kind, ...], st.lists(values, max_size=3).map(tuple)),
                (Optional[kind], st.none() | values),  # noqa: UP045
            ]
        )

    def of_keys(pair: Any) -> st.SearchStrategy[Any]:
        (key, keys), (kind, values) = pair
        return st.sampled_from(
            [
                (dict[key, kind], st.dictionaries(keys, values, max_size=3)),
                (set[key], st.sets(keys, max_size=3)),
                (frozenset[key], st.frozensets(keys, max_size=3)),
            ]
        )

    return (
        inner.flatmap(of_one)
        | st.tuples(st.sampled_from(KEYS), inner).flatmap(of_keys)
        | st.lists(inner, min_size=2, max_size=3).map(
            lambda members: (Union[tuple(kind for kind, _ in members)], st.one_of(*(each for _, each in members)))  # noqa: UP007
        )
        | st.lists(inner, min_size=1, max_size=3).map(
            lambda places: (tuple[tuple(kind for kind, _ in places)], st.tuples(*(each for _, each in places)))
        )
    )


ANNOTATED = st.recursive(st.sampled_from(LEAVES), holding, max_leaves=4)
FITTING = ANNOTATED.flatmap(lambda chosen: st.tuples(st.just(chosen[0]), chosen[1]))
ANYTHING = st.one_of(*(values for _, values in LEAVES))
UNFITTING = st.tuples(ANNOTATED.map(lambda chosen: chosen[0]), ANYTHING | st.lists(ANYTHING, max_size=2))


def annotated(annotation: Any) -> Any:
    def function(value): ...

    function.__annotations__ = {"value": annotation, "return": annotation}
    return function


def told(value: Any) -> Any:
    """Return what tells a value from every other one: an account of its own, beside that of the package."""
    kind = type(value)
    if kind is float:
        return kind, "nan" if math.isnan(value) else value.hex()
    if kind in (datetime, time):
        return kind, value.isoformat(), value.utcoffset(), value.tzinfo is None and value.fold
    if isinstance(value, dict):
        return kind, sorted(((told(key), told(item)) for key, item in value.items()), key=repr)
    if isinstance(value, set | frozenset):
        return kind, sorted(map(told, value), key=repr)
    if isinstance(value, list | tuple):
        return kind, [told(item) for item in value]
    if is_dataclass(value):
        return kind, [told(getattr(value, each.name)) for each in fields(value)]
    if isinstance(value, msgspec.Struct):
        return kind, [told(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, pydantic.BaseModel):
        return kind, [told(item) for _, item in value]
    return kind, repr(value)


def check_trip(annotation: Any, value: Any) -> None:
    """Send a value there and back, both as a parameter and as a result, unless it is refused."""
    function = annotated(annotation)
    try:
        text = codec.encode_call(function, (value,), {}, limit=1_000_000)
    except codec.CodecError:
        return
    assert told(codec.decode_params(function, text)["value"]) == told(value)
    assert told(codec.decode_result(function, codec.encode_result(function, value, limit=1_000_000))) == told(value)


at_length = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


@at_length
@given(FITTING)
def test_a_value_of_its_annotation_comes_back_exactly_or_is_refused(chosen: tuple[Any, Any]) -> None:
    check_trip(*chosen)


@at_length
@given(UNFITTING)
def test_a_value_of_any_annotation_comes_back_exactly_or_is_refused(chosen: tuple[Any, Any]) -> None:
    check_trip(*chosen)
