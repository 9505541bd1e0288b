"""What callers may say to narrow jobs down, checked: each refusal names the filter."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict
from uuid import UUID

from asyncjobs.errors import InvalidOptions, JobNotFound
from asyncjobs.jsonvalues import Misfit, as_json, shortened
from asyncjobs.model.job import JobStatus
from asyncjobs.nearest import unknown
from asyncjobs.store import JobFilter

LONGEST_WAIT = 1e9  # seconds
LARGEST_PAGE = 1000
MOST_NAMES = 10_000


class Filters(TypedDict, total=False):
    """What narrows `list` and `iterate` down; None, or left out, means any, an empty collection none.

    `after` includes the instant given, `before` does not. `params` are values that the job's parameters must
    equal, compared as JSON (1 is not 1.0); it reads every row that the other filters leave.
    """

    status: JobStatus | str | Collection[JobStatus | str] | None
    name: str | Collection[str] | None
    created_after: datetime | None
    created_before: datetime | None
    finished_after: datetime | None
    finished_before: datetime | None
    params: dict[str, Any] | None


def chosen(given: Mapping[str, Any]) -> JobFilter:
    """Return which jobs are meant by the filters given."""
    check_known("list", given, (*Filters.__annotations__, "limit", "cursor"))
    times = ("created_after", "created_before", "finished_after", "finished_before")
    return JobFilter(
        statuses=statuses(given.get("status")),
        names=names(given.get("name")),
        params=plain_params(given.get("params")),
        **{option: aware(option, given.get(option)) for option in times},
    )


def check_known(verb: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse the first filter that the verb does not have."""
    for name in given:
        if name not in known:
            raise InvalidOptions(f"{verb} has no filter {unknown(name, known)}")


def page_size(limit: Any) -> int:
    """Return how many jobs a page has."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LARGEST_PAGE:
        raise InvalidOptions(f"limit must be a whole number from 1 to {LARGEST_PAGE}, not {limit!r}")
    return limit


def calls(given: Any) -> list[Any]:
    """Return what is to be submitted; whether each was made by `bind` is seen when it is prepared."""
    try:
        return list(given)
    except TypeError:
        raise InvalidOptions(f"submit_many takes a list of calls made by definition.bind(...), not {given!r}") from None


def known_id(job_id: Any) -> str:
    """Return a job's id as text; what can be no id names no job.

    Raises:
        JobNotFound: it is neither a text that a database can hold nor a UUID.
    """
    if isinstance(job_id, UUID):
        return str(job_id)
    if isinstance(job_id, str) and "\0" not in job_id:
        try:
            job_id.encode()
        except UnicodeEncodeError:
            pass
        else:
            return job_id
    raise JobNotFound(str(job_id))


def seconds(option: str, given: Any) -> float | None:
    """Return a time limit in seconds, or None for no limit."""
    if given is None:
        return None
    # NaN compares with nothing, and would disorder the timers of the caller's loop.
    if isinstance(given, int | float) and not isinstance(given, bool) and given == given:
        return min(given, LONGEST_WAIT)
    raise InvalidOptions(f"{option} takes seconds or None, not {given!r}")


def attempt(number: Any) -> int | None:
    """Return the number of the attempt asked for, or None for all."""
    if number is None or (isinstance(number, int) and not isinstance(number, bool) and 1 <= number < 2**31):
        return number
    raise InvalidOptions(f"attempt takes a number from 1 on, or None for all, not {number!r}")


def statuses(status: Any) -> tuple[JobStatus, ...] | None:
    """Return the statuses asked for, one or several, or None for any."""
    if status is None:
        return None
    try:
        return tuple(JobStatus(each) for each in ((status,) if isinstance(status, str) else status))
    except (ValueError, TypeError):
        choices = ", ".join(JobStatus)
        raise InvalidOptions(f"status must be of {choices}, not {status!r}") from None


def names(name: Any) -> tuple[str, ...] | None:
    """Return the job names asked for, one or several, or None for any."""
    if name is None:
        return None
    given = (name,) if isinstance(name, str) else name
    if not isinstance(given, Collection) or not all(isinstance(each, str) for each in given):
        raise InvalidOptions(f"name takes one or several job names, not {name!r}")
    if len(given) > MOST_NAMES:
        raise InvalidOptions(f"name takes at most {MOST_NAMES} job names at once, not {len(given)}")
    if not all(each.isprintable() for each in given):  # as all names of jobs are
        raise InvalidOptions(f"no job has a name with characters that can't be printed: {name!r}")
    return tuple(given)


def aware(option: str, moment: Any) -> datetime | None:
    """Return the instant, which must be aware, or None."""
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise InvalidOptions(f"{option} takes an aware datetime such as datetime.now(UTC), not {moment!r}")
    return moment


def plain_params(params: Any) -> dict[str, Any] | None:
    """Return the params asked for as plain JSON values, or None for any."""
    if params is None:
        return None
    try:
        if isinstance(params, dict) and _has_texts_for_keys(params):
            return as_json(json.loads(json.dumps(params)))  # type: ignore[no-any-return]  # it bounds the depth
    except (TypeError, ValueError, RecursionError, Misfit):
        pass
    raise InvalidOptions(f"params takes a dict of names to JSON values, not {shortened(params)}")


def _has_texts_for_keys(value: Any) -> bool:
    """Whether the dicts in a value have texts for keys, which `json` would make of other keys by itself."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _has_texts_for_keys(item) for key, item in value.items())
    return not isinstance(value, list | tuple) or all(map(_has_texts_for_keys, value))


def cursor(cursor: Any) -> str | None:
    """Return the id before which the next page begins, or None for the first."""
    if cursor is None:
        return None
    try:
        return str(UUID(cursor))
    except (ValueError, AttributeError, TypeError):
        raise InvalidOptions(f"{cursor!r} is no cursor: pass the `cursor` of the page before") from None


def age(option: str, given: Any) -> timedelta:
    """Return how long ago: seconds or a timedelta, not negative."""
    try:
        if isinstance(given, bool):
            raise TypeError(given)
        age = given if isinstance(given, timedelta) else timedelta(seconds=given)
    except (TypeError, OverflowError, ValueError):
        raise InvalidOptions(f"{option} takes seconds or a timedelta, not {given!r}") from None
    try:
        _ = datetime.now(UTC) - age
    except OverflowError:
        raise InvalidOptions(f"{option} reaches back beyond every calendar: {given!r}") from None
    if age < timedelta(0):
        raise InvalidOptions(f"{option} must not be negative: {given!r}")
    return age
