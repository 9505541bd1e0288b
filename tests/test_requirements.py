"""Lines of requirements: what is taken, how it is spelled, and what is refused."""

from __future__ import annotations

import pytest

from asyncjobs.errors import DefinitionError
from asyncjobs.requirements import checked_requirements


@pytest.mark.parametrize(
    ("line", "spelled"),
    [
        pytest.param("requests", "requests", id="a name"),
        pytest.param("  Requests >= 2 ,<3 ", "requests<3,>=2", id="spaces and the order of versions"),
        pytest.param("zope.interface==6.*", "zope-interface==6.*", id="a dot in a name"),
        pytest.param("Uvicorn[Standard, http_tools]", "uvicorn[http-tools,standard]", id="extras"),
        pytest.param("six ; python_version<'3'", 'six; python_version < "3"', id="a marker"),
        pytest.param("six; sys_platform != '-'", 'six; sys_platform != "-"', id="a marker with a dash"),
        pytest.param("a @ https://example.org/a-1.zip", "a @ https://example.org/a-1.zip", id="a URL"),
        pytest.param("a @ git+https://example.org/a@v1#egg=a", "a @ git+https://example.org/a@v1#egg=a", id="git"),
    ],
)
def test_a_requirement_has_one_spelling(line: str, spelled: str) -> None:
    (checked,) = checked_requirements([line])

    assert checked == spelled


@pytest.mark.parametrize("line", ["Requests[B,a]>=2,<3", "a @ https://example.org/a.zip ; python_version<'4'"])
def test_what_was_checked_stays_as_it_is(line: str) -> None:
    checked = checked_requirements([line])

    assert checked_requirements(checked) == checked


def test_lines_keep_their_order_and_are_not_repeated() -> None:
    assert checked_requirements(["six", "attrs", "SIX"]) == ("six", "attrs")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param("", "is empty", id="nothing"),
        pytest.param("-r requirements.txt", "has an option", id="a file of requirements"),
        pytest.param("-e .", "has an option", id="an editable"),
        pytest.param("--index-url https://example.org/simple", "has an option", id="an index"),
        pytest.param("six --hash=sha256:00", "has an option", id="a hash"),
        pytest.param("# six", "has a comment", id="a comment"),
        pytest.param("six  # for old times", "has a comment", id="a comment behind"),
        pytest.param("six\n-r /etc/passwd", "has a line break", id="a second line"),
        pytest.param("./six", "is a path", id="a relative path"),
        pytest.param("/srv/six", "is a path", id="an absolute path"),
        pytest.param("~/six", "is a path", id="a path from home"),
        pytest.param("six-1.0-py3-none-any.whl", "is a path", id="a wheel"),
        pytest.param("six @ file:///srv/six-1.0-py3-none-any.whl", "is a path", id="a URL of a file"),
        pytest.param("file:///srv/six.zip", "is a path", id="a URL of a file without a name"),
        pytest.param("https://example.org/six.zip", "is a URL without a name", id="a URL without a name"),
        pytest.param("git+https://example.org/six", "is a URL without a name", id="git without a name"),
        pytest.param("six=1.0", "is no requirement", id="one equals sign"),
        pytest.param("six 1.0", "is no requirement", id="no operator"),
    ],
)
def test_what_is_no_requirement_is_refused_by_its_own_words(line: str, why: str) -> None:
    with pytest.raises(DefinitionError) as refusal:
        checked_requirements(["attrs", line])

    assert f"{line!r} {why}" in str(refusal.value)
    assert "\n" not in str(refusal.value)
