import sys
from types import ModuleType

import pytest

from asyncjobs.definition import job
from asyncjobs.errors import DefinitionError, DuplicateJobName, UnknownJobName
from asyncjobs.registry import Registry


@job
def resize(): ...


@job(name="send mail")
def send(): ...


@job(name="resize")
def another_resize(): ...


def no_job(): ...


HERE = sys.modules[__name__]
REGISTER_FROM_A_COMMAND = """
from asyncjobs.definition import job
from asyncjobs.errors import DefinitionError
from asyncjobs.registry import Registry

@job(isolation={isolation!r})
def here(): ...

try:
    print([each.name for each in Registry([here], isolation="spawn")])
except DefinitionError as error:
    print(error)
"""


def registry(*sources):
    return Registry(sources, isolation="spawn")


def names(found):
    return [definition.name for definition in found]


@pytest.fixture
def module(monkeypatch):
    """A module with two jobs."""
    module = ModuleType("jobs_of_the_application")
    module.resize, module.send, module.number = resize, send, 7
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_definitions_are_known_by_name():
    assert registry(resize, send).get("send mail") is send


def test_a_dotted_name_is_imported():
    assert registry(f"{__name__}.resize").get("resize") is resize


def test_a_module_brings_all_its_jobs(module):
    assert names(registry(module)) == ["resize", "send mail"]


def test_sources_of_every_kind_can_be_mixed_and_repeated(module):
    assert names(registry(send, module, "jobs_of_the_application.resize", resize)) == ["send mail", "resize"]


def test_a_copy_made_by_using_is_the_same_job():
    known = registry(resize)

    known.add(resize.using(priority=5))

    assert known.get("resize") is resize


def test_a_registry_says_what_it_has():
    known = registry(resize)

    assert ("resize" in known, "send mail" in known) == (True, False)


def test_two_functions_of_one_name_are_refused_with_both_places():
    with pytest.raises(DuplicateJobName, match=rf"{__name__}\.resize and by {__name__}\.another_resize"):
        registry(resize, another_resize)


@pytest.mark.parametrize("name", ["unknown", "", None, 7, []])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(UnknownJobName):
        registry(resize).get(name)


def test_the_error_of_an_unknown_name_says_which_are_known():
    """D31"""
    with pytest.raises(UnknownJobName, match=r"no job is named 'x' here \(registered: resize, send mail\)"):
        registry(send, resize).get("x")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        pytest.param("resize", "no dotted name", id="a name without a module"),
        pytest.param("", "no dotted name", id="an empty name"),
        pytest.param("absent.resize", "the module of 'absent.resize' can't be imported", id="no such module"),
        pytest.param(f"{__name__}.absent", "has no 'absent'", id="no such function"),
        pytest.param(f"{__name__}.no_job", "is not a job: decorate it", id="a plain function's name"),
        pytest.param(no_job, "jobs= takes functions with @job", id="a plain function"),
        pytest.param(7, "jobs= takes functions with @job", id="a number"),
        pytest.param(sys, "the module sys defines no jobs", id="a module without jobs"),
    ],
)
def test_what_is_no_job_is_refused(source, words):
    with pytest.raises(DefinitionError, match=words):
        registry(source)


@pytest.mark.parametrize(
    "options",
    [{"memory_limit": 1 << 30}, {"cpu_limit": 1}, {"nice": 1}, {"pip_requirements": ["six"]}, {"env": {"A": "1"}}],
    ids=lambda options: next(iter(options)),
)
def test_what_needs_a_process_is_refused_where_the_setting_gives_it_none(options):
    with pytest.raises(DefinitionError, match="the setting isolation is 'inline'"):
        Registry([job(**options)(resize.function)], isolation="inline")

    assert "resize" in Registry([job(isolation="spawn", **options)(resize.function)], isolation="inline")


@pytest.mark.parametrize("line", ["-r requirements.txt", "-e .", "--index-url https://example.org", "numpy>>1"])
def test_a_line_that_is_no_requirement_is_refused_when_its_job_is_registered(line):
    with pytest.raises(DefinitionError, match=rf"pip_requirements: '{line}' (has an option|is no requirement)"):
        registry(job(pip_requirements=["six", line])(resize.function))


def test_a_job_of_a_command_line_is_refused_with_what_to_do(run_python):
    """D33"""
    said = run_python(REGISTER_FROM_A_COMMAND.format(isolation=None))

    assert "move it into a module and import it, or give it isolation='inline'" in said


def test_a_job_of_a_command_line_is_taken_inline(run_python):
    """D33"""
    assert run_python(REGISTER_FROM_A_COMMAND.format(isolation="inline")) == "['here']\n"
