"""From a definition and its arguments to a job that can be stored."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncjobs import codec
from asyncjobs.definition import JobDefinition
from asyncjobs.errors import InvalidOptions, InvalidParams
from asyncjobs.model.job import Job
from asyncjobs.settings import Settings
from asyncjobs.store import Submission

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils import uuid7


def new_id() -> str:
    """Return a UUIDv7: ordered by time, and in one process by order of creation."""
    return str(uuid7())


def encoded_call(
    definition: JobDefinition[..., Any], args: Any, kwargs: Any, *, limit: int, write: codec.Write = codec.dumps
) -> str:
    """Return the arguments of a call as JSON text of at most `limit` bytes.

    Raises:
        InvalidParams: they don't fit the signature or its annotations, or are larger.
    """
    try:
        return codec.encode_call(definition.function, args, kwargs, limit=limit, write=write)
    except codec.CodecError as error:
        raise InvalidParams(definition.name, error.parameter, error.problem) from None


def encoded_params(
    definition: JobDefinition[..., Any], params: dict[str, Any], *, limit: int, write: codec.Write = codec.dumps
) -> str:
    """Return named parameters, given as JSON values or as Python ones, as JSON text of at most `limit` bytes.

    Raises:
        InvalidParams: as `encoded_call`.
    """
    try:
        return codec.encode_params(definition.function, params, limit=limit, write=write)
    except codec.CodecError as error:
        raise InvalidParams(definition.name, error.parameter, error.problem) from None


def submission_of(definition: JobDefinition[..., Any], params_json: str, *, settings: Settings) -> Submission:
    """Return a new job with every option decided: the definition's, else the settings'."""
    made = uuid7()
    # The millisecond that the id begins with, but for a clock that was turned back: ids go on from the newest.
    created = (made.int >> 80) / 1000
    created_at = datetime.fromtimestamp(created, UTC) if created <= time.time() else datetime.now(UTC)
    if definition.run_at is not None:
        run_at = _in_utc(definition.run_at)
    elif definition.delay is not None:
        run_at = datetime.now(UTC) + timedelta(seconds=definition.delay)
    else:
        run_at = created_at
    job = Job(
        id=str(made),
        name=definition.name,
        params_json=params_json,
        key=definition.key,
        priority=definition.priority,
        timeout=settings.timeout if definition.timeout is None else definition.timeout,
        kill_grace=settings.kill_grace if definition.kill_grace is None else definition.kill_grace,
        max_retries=settings.max_retries if definition.max_retries is None else definition.max_retries,
        retry_delay=settings.retry_delay if definition.retry_delay is None else definition.retry_delay,
        retry_max_delay=settings.retry_max_delay if definition.retry_max_delay is None else definition.retry_max_delay,
        created_at=created_at,
        run_at=run_at,
    )
    return Submission(job, definition.env, named=definition.run_at is not None)


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidOptions(f"run_at is beyond every calendar: {moment!r}") from None
