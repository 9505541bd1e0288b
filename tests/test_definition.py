import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

import asyncjobs
from asyncjobs.definition import Call, CoroutineJob, FunctionJob, job
from asyncjobs.errors import DefinitionError, InvalidOptions

SOURCE = Path(asyncjobs.__file__).parent.parent
NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)


@job
def double(number: int) -> int:
    """Double it."""
    return 2 * number


@job(name="triple it", max_workers=4, timeout=timedelta(minutes=1), env={"A": "1", "B": "2"})
async def triple(number: int) -> int:
    return 3 * number


def plain(number): ...


def generator():
    yield


async def async_generator():
    yield


class Methods:
    def method(self): ...

    @staticmethod
    def static(): ...


def nested_function():
    def inner(): ...

    return inner


# --- what a definition is -----------------------------------------------------------------------


def test_a_bare_decorator_names_the_job_after_its_function():
    assert (double.name, double.max_workers, double.timeout) == ("double", 1, None)


def test_a_called_decorator_takes_options():
    assert (triple.name, triple.max_workers, triple.timeout) == ("triple it", 4, 60.0)


def test_a_decorator_called_without_options_is_as_bare():
    assert job()(plain).name == "plain"


def test_a_name_can_be_given_by_position():
    assert job("another")(plain).name == "another"


def test_a_job_is_still_callable_as_itself():
    assert double(21) == 42


async def test_a_coroutine_job_is_still_callable_as_itself():
    assert await triple(14) == 42


def test_a_def_and_an_async_def_make_definitions_of_their_own():
    assert (type(double), type(triple)) == (FunctionJob, CoroutineJob)


def test_a_definition_looks_like_its_function():
    assert (double.__name__, double.__doc__, double.__module__) == ("double", "Double it.", __name__)
    assert double.__wrapped__ is double.function


def test_a_definition_says_where_its_function_stands():
    assert repr(triple) == f"<job 'triple it': {__name__}.triple>"


def test_the_environment_of_a_definition_is_in_no_repr():
    """F81"""
    assert "secret" not in repr(job(env={"TOKEN": "secret"})(plain))


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "words"),
    [
        pytest.param(lambda: None, "a lambda can't be a job", id="a lambda"),
        pytest.param(nested_function(), "is nested", id="a nested function"),
        pytest.param(Methods.method, "is a method", id="a method"),
        pytest.param(Methods.static, "is a method", id="a static method"),
        pytest.param(Methods().method, "is a method|takes a function", id="a bound method"),
        pytest.param(generator, "is a generator", id="a generator"),
        pytest.param(async_generator, "is a generator", id="an async generator"),
        pytest.param(len, "takes a function", id="a builtin"),
        pytest.param(Methods, "takes a function", id="a class"),
        pytest.param(partial(plain, 1), "takes a function", id="a partial"),
        pytest.param(double, "is a job already", id="a job"),
        pytest.param(7, "takes a function", id="a number"),
    ],
)
def test_what_cannot_be_a_job_is_refused(function, words):
    """D33"""
    with pytest.raises(DefinitionError, match=words):
        job(name="a job")(function)


OUT_OF_RANGE = [
    ("max_workers", 0),
    ("max_workers", -1),
    ("max_workers", 1.5),
    ("max_workers", True),
    ("max_workers", 10_001),
    ("max_workers", None),
    ("timeout", 0),
    ("timeout", -1),
    ("timeout", "30"),
    ("timeout", True),
    ("timeout", float("nan")),
    ("timeout", float("inf")),
    ("timeout", timedelta(0)),
    ("kill_grace", -1),
    ("max_retries", -1),
    ("max_retries", 1.0),
    ("max_retries", 2**64),
    ("retry_delay", -1),
    ("retry_max_delay", timedelta(days=-1)),
    ("retry_max_delay", timedelta.max),
    ("transient_error_classes", OSError),
    ("transient_error_classes", ["OSError"]),
    ("transient_error_classes", [OSError()]),
    ("transient_error_classes", [int]),
    ("retry_on", "timeout"),
    ("retry_on", ["failure"]),
    ("isolation", "docker"),
    ("isolation", ["spawn"]),
    ("priority", 1001),
    ("priority", -1001),
    ("priority", "high"),
    ("env", ["A=1"]),
    ("env", {"A=B": "1"}),
    ("env", {"": "1"}),
    ("env", {"A\0": "1"}),
    ("env", {"A": 1}),
    ("env", {"A": "\0"}),
    ("env", {"A": "\ud800"}),
    ("env", {"A\ud800": "1"}),
    ("name", ""),
    ("name", "x" * 201),
    ("name", "two\nlines"),
    ("name", "a\0b"),
    ("name", "\ud800"),
    ("name", "a,b"),
    ("name", " a"),
]


@pytest.mark.parametrize(("option", "value"), OUT_OF_RANGE)
def test_an_option_out_of_range_is_refused_by_name(option, value):
    """D26"""
    with pytest.raises(DefinitionError, match=option):
        job(**{option: value})(plain)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("tiemout", r"@job has no option 'tiemout' \(did you mean 'timeout'\?\); there are: name, max_workers, "),
        ("workers", r"@job has no option 'workers' \(did you mean 'max_workers'\?\)"),
        ("bogus", r"@job has no option 'bogus'; there are: "),
        ("delay", r"delay is of one submission, not of a definition: submit fn\.using\(delay=\.\.\.\)"),
    ],
)
def test_an_unknown_option_is_refused_and_the_one_meant_is_named(option, sentence):
    with pytest.raises(DefinitionError, match=sentence):
        job(**{option: 1})


def test_options_after_the_function_are_refused():
    with pytest.raises(DefinitionError, match="options go before the function"):
        job(plain, timeout=30)


def test_the_value_of_a_refused_variable_is_not_told():
    """F81"""
    with pytest.raises(DefinitionError) as caught:
        job(env={"TOKEN": "secret\0"})(plain)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("option", "value"), [("max_workers", 1), ("timeout", 0.001), ("priority", -1000)])
def test_an_option_at_its_bound_is_taken(option, value):
    assert getattr(job(**{option: value})(plain), option) == value


def test_several_transient_error_classes_are_taken():
    assert job(transient_error_classes=[OSError, KeyError])(plain).transient_error_classes == (OSError, KeyError)


# --- using, bind --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "given", "kept"),
    [
        ("timeout", 5, 5.0),
        ("timeout", timedelta(minutes=2), 120.0),
        ("kill_grace", 0, 0.0),
        ("max_retries", 0, 0),
        ("retry_delay", 1.5, 1.5),
        ("retry_max_delay", 2, 2.0),
        ("priority", -5, -5),
        ("run_at", NOON, NOON),
        ("delay", 90, 90.0),
        ("key", "cat.png", "cat.png"),
    ],
)
def test_using_gives_options_for_one_submission(option, given, kept):
    assert getattr(triple.using(**{option: given}), option) == kept


def test_using_leaves_the_definition_as_it_was():
    triple.using(timeout=5, priority=9, env={"A": "3"}, key="k", delay=1)

    assert (triple.timeout, triple.priority, triple.env) == (60.0, 0, {"A": "1", "B": "2"})
    assert (triple.key, triple.delay) == (None, None)


def test_using_keeps_what_it_does_not_name():
    copy = triple.using(priority=9).using(max_retries=1)

    assert (copy.priority, copy.max_retries, copy.timeout, copy.name) == (9, 1, 60.0, "triple it")


def test_using_adds_to_the_environment():
    assert triple.using(env={"B": "3", "C": "4"}).env == {"A": "1", "B": "3", "C": "4"}


def test_a_copy_is_callable_as_itself():
    assert double.using(priority=9)(21) == 42


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timeout", 0),
        ("timeout", "30"),
        ("kill_grace", -1),
        ("max_retries", -1),
        ("retry_delay", float("nan")),
        ("priority", 1001),
        ("env", {"A": 1}),
        ("delay", -1),
        ("delay", "soon"),
        ("run_at", datetime(2030, 1, 1)),
        ("run_at", "tomorrow"),
        ("key", ""),
        ("key", "x" * 501),
        ("key", 7),
        ("key", "a\0b"),
        ("key", "\ud800"),
    ],
)
def test_using_refuses_a_value_by_the_name_of_its_option(option, value):
    with pytest.raises(InvalidOptions, match=option):
        double.using(**{option: value})


def test_using_refuses_two_times_to_start():
    with pytest.raises(InvalidOptions, match="run_at or delay, not both"):
        double.using(run_at=NOON, delay=5)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (
            "isolation",
            r"isolation is of the definition, @job\(isolation=\.\.\.\): no single submission can have another",
        ),
        ("memory_limit", r"memory_limit is of the definition"),
        ("tiemout", r"a submission has no option 'tiemout' \(did you mean 'timeout'\?\); there are: timeout, kill_g"),
        ("bogus", r"a submission has no option 'bogus'; there are: timeout, "),
    ],
)
def test_what_is_no_option_of_a_submission_is_refused_and_said_where_it_belongs(option, sentence):
    with pytest.raises(InvalidOptions, match=sentence):
        double.using(**{option: "inline"})


def test_bind_makes_a_prepared_call():
    call = double.bind(1, other=2)

    assert isinstance(call, Call)
    assert (call.definition, call.args, call.kwargs) == (double, (1,), {"other": 2})


# --- what importing it costs --------------------------------------------------------------------


@pytest.mark.parametrize(
    "module",
    ["typing", "dataclasses", "inspect", "functools", "asyncio", "json", "re", "sqlalchemy", "msgspec"],
)
def test_a_bare_interpreter_imports_the_decorator_without(loaded_by_the_decorator, module):
    assert module not in loaded_by_the_decorator


@pytest.fixture(scope="module")
def loaded_by_the_decorator():
    """The modules of a bare interpreter after it has made a job."""
    script = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        "from asyncjobs import job\n"
        "def f(): ...\n"
        "assert job(f)() is None\n"
        "print(*sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    return run.stdout.split()
