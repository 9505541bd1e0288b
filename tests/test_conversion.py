import enum
from collections import abc, namedtuple
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePath, PurePosixPath
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asyncjobs import codec
from asyncjobs.codec import CodecError
from asyncjobs.conversion.sameness import same

if TYPE_CHECKING:
    from somewhere import Missing

T = TypeVar("T")
Bound = TypeVar("Bound", bound=Path)
UserId = NewType("UserId", UUID)
Json = Union[None, int, str, list["Json"], dict[str, "Json"]]  # noqa: UP007
Loose = namedtuple("Loose", ["a", "b"])
AN_ID = UUID("12345678-1234-5678-1234-567812345678")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Marker(enum.Enum):
    FIRST = b"1"
    SECOND = object()


class Nothing(enum.Enum):
    NOTHING = None
    SOMETHING = 1


class Unhashable(enum.Enum):
    ONE = 1

    def __eq__(self, other):
        return self is other


@dataclass
class Misspelt:
    x: "list[int"  # noqa: F722  # no expression


@dataclass
class Failing:
    x: "1 + None"


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: int
    y: float = 0.0


class SubPoint(Point):
    pass


@dataclass
class Other:
    x: int
    y: float = 0.0


@dataclass
class Node:
    where: Point
    children: "list[Node]" = field(default_factory=list)
    seen: datetime | None = None


@dataclass
class Computed:
    side: int
    area: int = field(init=False)

    def __post_init__(self):
        self.area = self.side**2


@dataclass
class Doubling:
    value: int

    def __post_init__(self):
        self.value *= 2


@dataclass
class NeedsMore:
    value: int
    more: InitVar[int]


@dataclass
class Box(Generic[T]):
    content: T
    next: "Box[T] | None" = None


@dataclass
class WithMissing:
    missing: "Missing"
    where: "Path"


class Movie(TypedDict):
    title: str
    released: NotRequired[date]


class Partial(TypedDict, total=False):
    path: Required[Path]
    size: int


class Pair(NamedTuple):
    left: Path
    right: int = 0


class Struct(msgspec.Struct):
    when: datetime
    tags: set[str] = set()


class Model(pydantic.BaseModel):
    when: datetime
    amount: Decimal = Decimal(0)


class Secret(pydantic.BaseModel):
    word: pydantic.SecretStr


class Foreign: ...


def annotated(annotation):
    def function(value): ...

    function.__annotations__ = {"value": annotation, "return": annotation}
    return function


def encode(annotation, value):
    return codec.encode_call(annotated(annotation), (value,), {}, limit=10_000_000)


def whole_trip(annotation, value):
    return codec.decode_params(annotated(annotation), encode(annotation, value))["value"]


EXACT = [
    (datetime, datetime(2024, 1, 2, 3, 4, 5, 6), '"2024-01-02T03:04:05.000006"'),
    (datetime, datetime(2024, 1, 2, tzinfo=UTC), '"2024-01-02T00:00:00+00:00"'),
    (
        datetime,
        datetime(2024, 1, 2, tzinfo=timezone(timedelta(seconds=-1))),
        '"2024-01-02T00:00:00-00:00:01"',
    ),
    (
        datetime,
        datetime(2024, 1, 2, tzinfo=timezone(timedelta(seconds=1, microseconds=1))),
        '"2024-01-02T00:00:00+00:00:01.000001"',
    ),
    (date, date(2024, 1, 2), '"2024-01-02"'),
    (time, time(1, 2, tzinfo=UTC), '"01:02:00+00:00"'),
    (timedelta, timedelta(days=1, seconds=2, microseconds=30), '"P1DT2.00003S"'),
    (timedelta, timedelta(microseconds=-1), '"-P0DT0.000001S"'),
    (UUID, AN_ID, f'"{AN_ID}"'),
    (UserId, AN_ID, f'"{AN_ID}"'),
    (Decimal, Decimal("1.10"), '"1.10"'),
    (Decimal, Decimal("sNaN"), '"sNaN"'),
    (Path, Path("a/b"), '"a/b"'),
    (Path, Path("\udcff"), '"\\udcff"'),
    (PurePath, PurePosixPath("a"), '"a"'),
    (Color, Color.RED, '"red"'),
    (Level, Level.HIGH, "2"),
    (Marker, Marker.SECOND, '"SECOND"'),
    (Mode, Mode.READ | Mode.WRITE, "3"),
    (Literal["a", 1, None, Color.BLUE], Color.BLUE, '"blue"'),
    (Literal["a", 1], 1, "1"),
    (bytes, b"\0\xff", '"AP8="'),
    (bytearray, bytearray(b"a"), '"YQ=="'),
    (float, 2**70, str(2**70)),
    (None, None, "null"),
    (Any, [1, None], "[1, null]"),
    (list[Path], [Path("a")], '["a"]'),
    (tuple, (1, "a"), '[1, "a"]'),
    (tuple[Path, ...], (Path("a"),), '["a"]'),
    (tuple[int, Path], (1, Path("a")), '[1, "a"]'),
    (tuple[()], (), "[]"),
    (set[int], {2, 1}, "[1, 2]"),
    (set, {1, "a"}, '["a", 1]'),
    (frozenset[UUID], frozenset([AN_ID]), f'["{AN_ID}"]'),
    (dict[int, Path], {1: Path("a")}, '{"1": "a"}'),
    (dict[UUID, int], {AN_ID: 1}, f'{{"{AN_ID}": 1}}'),
    (dict[date, int], {date(2024, 1, 2): 1}, '{"2024-01-02": 1}'),
    (dict[Level, int], {Level.LOW: 1}, '{"1": 1}'),
    (dict[bool, int], {True: 1}, '{"true": 1}'),
    (abc.Sequence[Path], [Path("a")], '["a"]'),
    (abc.Mapping[str, Path], {"k": Path("a")}, '{"k": "a"}'),
    (abc.Iterable[int], [1], "[1]"),
    (Optional[Path], None, "null"),  # noqa: UP045
    (Path | None, Path("a"), '"a"'),
    (int | str, "1", '"1"'),
    (int | str, 1, "1"),
    (int | Path, Path("1"), '"1"'),
    (date | datetime, datetime(2024, 1, 2), '"2024-01-02T00:00:00"'),
    (Path | str, "a", '"a"'),
    (bool | int | float, 1.0, "1.0"),
    (Annotated[Path, "doc"], Path("a"), '"a"'),
    (Bound, Path("a"), '"a"'),
    (T, [1], "[1]"),
    (Point, Point(1, 2.5), '{"x": 1, "y": 2.5}'),
    (Point | Path, Point(1), '{"x": 1, "y": 0.0}'),
    (
        Node,
        Node(Point(1), [Node(Point(2), seen=datetime(2024, 1, 2))]),
        '{"where": {"x": 1, "y": 0.0}, "children": [{"where": {"x": 2, "y": 0.0}, "children": [], '
        '"seen": "2024-01-02T00:00:00"}], "seen": null}',
    ),
    (Computed, Computed(3), '{"side": 3}'),
    (Box[Path], Box(Path("a"), Box(Path("b"))), '{"content": "a", "next": {"content": "b", "next": null}}'),
    (Box[list[int]], Box([1]), '{"content": [1], "next": null}'),
    (Movie, {"title": "t", "released": date(2024, 1, 2)}, '{"title": "t", "released": "2024-01-02"}'),
    (Movie, {"title": "t"}, '{"title": "t"}'),
    (Partial, {"path": Path("a")}, '{"path": "a"}'),
    (Pair, Pair(Path("a"), 1), '["a", 1]'),
    (Loose, Loose(1, [2]), "[1, [2]]"),
    (Json, {"a": [1, {"b": None}]}, '{"a": [1, {"b": null}]}'),
    (Struct, Struct(datetime(2024, 1, 2), {"a"}), '{"when": "2024-01-02T00:00:00", "tags": ["a"]}'),
    (list[Model], [Model(when=datetime(2024, 1, 2))], '[{"when": "2024-01-02T00:00:00", "amount": "0"}]'),
    ("Path", Path("a"), '"a"'),
    ("dict[str, Node] | None", {"n": Node(Point(1))}, None),
    ("Missing", [1], "[1]"),
]


def ids(cases):
    return [f"{number}-{str(case[0])[:40]}" for number, case in enumerate(cases)]


@pytest.mark.parametrize(("annotation", "value", "form"), EXACT, ids=ids(EXACT))
def test_an_annotated_value_comes_back_the_same(annotation, value, form):
    text = encode(annotation, value)

    assert form is None or text == f'{{"value": {form}}}'
    assert same(whole_trip(annotation, value), value)


@pytest.mark.parametrize(("annotation", "value", "form"), EXACT, ids=ids(EXACT))
def test_a_result_takes_the_same_forms(annotation, value, form):
    text = codec.encode_result(annotated(annotation), value, limit=10_000)

    assert form is None or text == form
    assert same(codec.decode_result(annotated(annotation), text), value)


@pytest.mark.parametrize(("annotation", "value", "form"), EXACT, ids=ids(EXACT))
def test_the_json_form_of_a_value_is_accepted_in_its_place(annotation, value, form):
    text = encode(annotation, value)
    forms = codec.loads(text)

    assert codec.encode_params(annotated(annotation), forms, limit=10_000) == text
    assert codec.encode_params(annotated(annotation), {"value": value}, limit=10_000) == text


REFUSED = [
    (Path | str, Path("x"), "would come back as str \\('x'\\).*can't tell them apart"),
    (str | datetime, datetime(2024, 1, 2), "would come back as str"),
    (Point | Other, Other(1), "would come back as Point"),
    (Nothing | None, Nothing.NOTHING, "would come back as NoneType"),
    (Doubling, Doubling(2), "would come back as Doubling"),
    (NeedsMore, NeedsMore(1, 2), "NeedsMore refuses these fields"),
    (Secret, Secret(word="x"), "would come back as Secret"),
    (Point, SubPoint(1), "its subclass SubPoint"),
    (date, datetime(2024, 1, 2), "its subclass datetime"),
    (PurePath, 1, "expected PurePosixPath, not int"),
    (datetime, datetime(2024, 1, 2, fold=1), "`fold` of a naive datetime"),
    (datetime, datetime(2024, 1, 2, tzinfo=timezone(timedelta(microseconds=1))), "its offset 0:00:00.000001 can't be"),
    (time, time(1, tzinfo=timezone(timedelta(microseconds=-1))), "can't be read back"),
    (Struct, Struct(datetime(2024, 1, 2, fold=1)), "would come back as Struct"),
    (Model, Model(when=datetime(2024, 1, 2, tzinfo=timezone(timedelta(seconds=1)))), "would come back as Model"),
    (time, time(1, tzinfo=ZoneInfo("Europe/Berlin")), "has no offset here"),
    (int, Level.LOW, "expected int, not Level"),
    (Any, Level.LOW, "annotate it as Level"),
    (Any, Color.RED, "annotate it as Color"),
    (str, type("Name", (str,), {})("a"), "expected str, not Name"),
    (int, True, "expected int, not bool"),
    (float, True, "expected float, not bool"),
    (int | str, 1.5, r"expected int \| str, not float \(1.5\)"),
    (Literal[1], True, "expected one of 1, not bool"),
    (Foreign, Foreign(), "the type Foreign has no JSON form; use a dataclass"),
    (list[Foreign], [], "the type Foreign has no JSON form"),
    (abc.Callable[[], int], print, "has no JSON form"),
    (dict[int | str, int], {1: 1}, "no exact JSON form"),
    (dict[Any, int], {1: 1}, "expected str, not int"),
    (
        dict[str, list[int]],
        {"items": [0, 1, 2, "abc"]},
        r"at \['items'\]\[3\]: expected int, not str \('abc'\)",
    ),
    (Node, Node(Point("a")), r"at \['where'\]\['x'\]: expected int"),
    (set, {(1,)}, "must be hashable"),
    (Movie, {}, "the field 'title' of Movie is missing"),
    (Movie, {"title": "t", "extra": 1}, r"at \['extra'\]: Movie has no such field"),
    (tuple[int, int], (1,), "expected 2 items, not 1"),
    (list[int], (1,), "expected list, not tuple"),
    (list[Any], [[[b""]]], r"at \[0\]\[0\]\[0\]: bytes"),
    ("Missing", b"", "the annotation 'Missing' can't be resolved"),
    ("1 / 0", 1, "can't be evaluated: division by zero"),
    (Unhashable, Unhashable.ONE, "the annotation Unhashable can't be used: unhashable type: 'Unhashable'"),
    (Misspelt, Misspelt([]), "the annotation Misspelt can't be used"),
    (list[Failing], [], r"the annotation list\[.*Failing\] can't be used: unsupported operand"),
]


@pytest.mark.parametrize(("annotation", "value", "sentence"), REFUSED, ids=ids(REFUSED))
def test_a_value_that_would_not_come_back_the_same_is_refused(annotation, value, sentence):
    """F52"""
    with pytest.raises(CodecError, match=sentence) as caught:
        encode(annotation, value)

    assert caught.value.parameter == "value"


def linked(length):
    node = None
    for _ in range(length):
        node = Box(1, node)
    return node


def test_recursive_classes_go_200_levels_deep():
    """F52"""
    assert same(whole_trip(Box[int], linked(200)), linked(200))


@pytest.mark.parametrize("length", [201, 5_000])
def test_recursive_classes_are_refused_beyond_200_levels(length):
    """F52"""
    with pytest.raises(CodecError, match="nested deeper than 200 levels"):
        encode(Box[int], linked(length))


def test_a_recursive_class_that_contains_itself_is_refused():
    """F52"""
    box = Box(1)
    box.next = box

    with pytest.raises(CodecError, match="or it contains itself"):
        encode(Box[int], box)


@given(st.datetimes(timezones=st.none() | st.timezones()))
def test_a_datetime_comes_back_with_its_offset(value):
    """F52"""
    assume(value.tzinfo is not None or not value.fold)

    back = whole_trip(datetime, value)

    assert (back.isoformat(), back.utcoffset()) == (value.isoformat(), value.utcoffset())


@given(st.timedeltas())
def test_a_timedelta_comes_back_to_the_microsecond(value):
    assert whole_trip(timedelta, value) == value


@given(st.dictionaries(st.integers(), st.tuples(st.binary(), st.decimals(), st.sets(st.uuids(), max_size=3))))
def test_nested_containers_come_back_the_same(value):
    assert same(whole_trip(dict[int, tuple[bytes, Decimal, set[UUID]]], value), value)


LENIENT = [
    (datetime, "2024-01-02T00:00:00Z", '"2024-01-02T00:00:00+00:00"'),
    (UUID, "{" + str(AN_ID).upper() + "}", f'"{AN_ID}"'),
    (timedelta, "PT1H0.5S", '"P0DT3600.5S"'),
    (Decimal, 3, '"3"'),
    (Point, {"x": 1}, '{"x": 1, "y": 0.0}'),
    (Model, {"when": "2024-01-02T00:00:00"}, '{"when": "2024-01-02T00:00:00", "amount": "0"}'),
]


@pytest.mark.parametrize(("annotation", "given_form", "written"), LENIENT, ids=ids(LENIENT))
def test_another_spelling_is_written_in_the_usual_one(annotation, given_form, written):
    text = codec.encode_params(annotated(annotation), {"value": given_form}, limit=1000)

    assert text == f'{{"value": {written}}}'


UNREADABLE = [
    (date, "yesterday", "'yesterday' is no date"),
    (timedelta, "P", "'P' is no timedelta"),
    (timedelta, "P99999999999D", "is no timedelta"),
    (Decimal, 1.5, "expected Decimal as text, not float"),
    (bytes, "a-b_", "'a-b_' is no bytes"),
    (Color, "green", r"'green' is no Color; its values are \['red', 'blue'\]"),
    (dict[int, int], {"01": 1}, "'01' is no key"),
    (dict[int, int], {"1": 1, " 1": 2}, "two of the keys are the same"),
    (Struct, {"when": 1.5, "tags": [1]}, "no valid Struct"),
    (Model, {"when": "x"}, "no valid Model"),
    (int, "1", "expected int, not str"),
    (Path, 1, "expected PosixPath as text, not int"),
]


@pytest.mark.parametrize(("annotation", "form", "sentence"), UNREADABLE, ids=ids(UNREADABLE))
def test_a_form_that_is_none_of_the_type_is_refused(annotation, form, sentence):
    with pytest.raises(CodecError, match=sentence):
        codec.encode_params(annotated(annotation), {"value": form}, limit=1000)
    with pytest.raises(CodecError, match=sentence):
        codec.decode_params(annotated(annotation), codec.dumps({"value": form}))


def test_a_field_whose_annotation_cannot_be_resolved_counts_as_unannotated():
    value = WithMissing([1], Path("a"))

    assert whole_trip(WithMissing, value) == value


def test_one_parameter_that_cannot_be_resolved_leaves_the_others_converted():
    def function(a: "Missing", b: "Path"): ...

    text = codec.encode_call(function, (1, Path("x")), {}, limit=100)

    assert codec.decode_params(function, text) == {"a": 1, "b": Path("x")}


def test_a_default_without_a_json_form_is_fine_while_it_is_not_given():
    def function(a: int, session: Foreign | None = None): ...

    assert codec.encode_call(function, (1,), {}, limit=100) == '{"a": 1}'


async def test_an_async_function_returns_by_its_annotation():
    async def function() -> Path: ...

    assert codec.decode_result(function, codec.encode_result(function, Path("a"), limit=9)) == Path("a")


@pytest.mark.parametrize("value", [(1, 2), [1, 2]], ids=["tuple", "list"])
def test_an_abstract_collection_is_delivered_as_the_built_in_one(value):
    assert same(whole_trip(abc.Sequence[int], value), [1, 2])
