"""What callers may say to narrow jobs down, checked: each refusal names the filter."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from asyncjobs.errors import InvalidOptions, JobNotFound
from asyncjobs.model.job import JobStatus

LONGEST_WAIT = 1e9  # seconds


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
        if isinstance(params, dict):
            return json.loads(json.dumps(params))  # type: ignore[no-any-return]
    except (TypeError, ValueError):
        pass
    raise InvalidOptions(f"params takes a dict of names to JSON values, not {params!r}")


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
