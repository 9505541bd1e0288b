"""Lines of requirements, as `packaging` reads them: names, versions, extras, markers and URLs.

uv is given them in a file, whose format knows more than that: options, files, comments. None of it
is let through, so a definition says in itself what its environment is made of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from asyncjobs.errors import DefinitionError

_OPTION = re.compile(r"(^|\s)-")
_COMMENT = re.compile(r"(^|\s)#")
_PATH = re.compile(r"^[.~]|^[^@\[;]*[/\\]|^\S+\.(whl|zip|tar\.gz)$|@\s*(file:|[./~])", re.IGNORECASE)
_BARE_URL = re.compile(r"^[\w+]+://", re.IGNORECASE)


def checked_requirements(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the lines in one spelling each, in their order, without repetitions.

    Checked again they stay as they are.

    Raises:
        DefinitionError: a line is no requirement, or an option, a comment or a path; the message names it.
    """
    return tuple(dict.fromkeys(map(_checked, lines)))


def _checked(line: str) -> str:
    text = line.strip()
    problem = _problem(text)
    if problem is not None:
        raise DefinitionError(f"pip_requirements: {line!r} {problem}")
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        what = str(error).partition("\n")[0]
        raise DefinitionError(f"pip_requirements: {line!r} is no requirement such as 'requests>=2': {what}") from None
    requirement.name = canonicalize_name(requirement.name)
    requirement.extras = {canonicalize_name(extra) for extra in requirement.extras}
    return str(requirement)


def _problem(text: str) -> str | None:
    """Say what else than a requirement a line is, as far as that shows."""
    if not text:
        return "is empty: leave it out"
    if not text.isprintable():
        return "has a line break or another control character: give each requirement as a text of its own"
    if _COMMENT.search(text):
        return "has a comment: write it in your code instead"
    if _OPTION.search(text.partition(";")[0]):
        return "has an option: list the requirements themselves, and set indexes by uv's variables (UV_DEFAULT_INDEX)"
    if _BARE_URL.match(text) and not text.startswith("file:"):
        return "is a URL without a name: write 'name @ URL'"
    if _PATH.search(text):
        return "is a path, which other machines don't have: put its wheel into a folder that UV_FIND_LINKS names"
    return None
