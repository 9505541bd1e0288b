"""The statements about what attempts say: their output and their progress.

They are fenced as the end of an attempt is, by its id, status RUNNING, number and engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncjobs.store.statements import Statement
from asyncjobs.store.turns import Step

# The status is written so that no index has it: the row is found by its id.
_FENCE = "FROM jobs WHERE id = :job_id AND status || '' = 'RUNNING' AND attempt = :attempt AND engine_id = :engine_id"
UNDER_WAY = Statement(f"SELECT 1 {_FENCE}", returns=True)
_INSERT_OUTPUT = Statement(
    "INSERT INTO job_output (job_id, attempt, seq, written_at, stream, text) "
    "SELECT CAST(:job_id AS TEXT), CAST(:attempt AS BIGINT), CAST(:seq AS BIGINT), CAST(:written_at AS BIGINT), "
    f"CAST(:stream AS TEXT), CAST(:text AS TEXT) {_FENCE} ON CONFLICT DO NOTHING"
)
_PROGRESS_TYPES = {
    "attempt": "BIGINT",
    "completed": "DOUBLE PRECISION",
    "total": "DOUBLE PRECISION",
    "unit": "TEXT",
    "phase": "TEXT",
    "message": "TEXT",
    "details": "TEXT",
    "updated_at": "BIGINT",
}
_PROGRESS_COLUMNS = tuple(_PROGRESS_TYPES)
_TYPED_PROGRESS = ", ".join(f"CAST(:{column} AS {kind})" for column, kind in _PROGRESS_TYPES.items())
_PUT_PROGRESS = Statement(
    f"INSERT INTO job_progress (job_id, {', '.join(_PROGRESS_COLUMNS)}) "
    f"SELECT CAST(:job_id AS TEXT), {_TYPED_PROGRESS} {_FENCE} "
    f"ON CONFLICT (job_id) DO UPDATE SET {', '.join(f'{each} = excluded.{each}' for each in _PROGRESS_COLUMNS)}"
)
_OUTPUT_FROM = Statement(
    "SELECT attempt, seq, written_at, stream, text FROM job_output "
    "WHERE job_id = :job_id AND (attempt, seq) > (:attempt, :seq) AND attempt <= :last "
    "ORDER BY attempt, seq LIMIT :limit",
    returns=True,
)
NEWS = Statement(
    """
SELECT place.key, jobs.status, jobs.attempt, EXISTS (
    SELECT 1 FROM job_output AS said WHERE said.job_id = jobs.id
        AND (said.attempt, said.seq) > (json_extract(place.value, '$.attempt'), json_extract(place.value, '$.seq'))
        AND said.attempt <= json_extract(place.value, '$.last')
)
FROM json_each(:places) AS place CROSS JOIN jobs ON jobs.id = json_extract(place.value, '$.job_id')
""",
    returns=True,
)
# The attempt that runs now has said nothing while the row is that of the one before.
_PROGRESS_OF = Statement(
    f"SELECT {', '.join('said.' + each for each in _PROGRESS_COLUMNS)} "
    "FROM jobs CROSS JOIN job_progress AS said ON said.job_id = jobs.id "
    "WHERE jobs.id = :id AND said.attempt = jobs.attempt",
    returns=True,
)


def attempt_under_way(fence: dict[str, Any]) -> Step:
    """Read a row if the attempt is RUNNING under its engine."""
    return UNDER_WAY.step(fence)


def insert_output(rows: Sequence[dict[str, Any]]) -> Step:
    """Write chunks of a RUNNING attempt; one that is there already changes nothing."""
    return _INSERT_OUTPUT.step(*rows)


def put_progress(row: dict[str, Any]) -> Step:
    """Write the progress of a RUNNING attempt over what its job's row says."""
    return _PUT_PROGRESS.step(row)


def output_from(place: dict[str, Any], *, limit: int) -> Step:
    """Read chunks after a place in a job's output, in order."""
    return _OUTPUT_FROM.step({**place, "limit": limit})


def news_at(places_json: str) -> Step:
    """Read, for each of a JSON list of places, its index, its job's status and attempt, and if more is there."""
    return NEWS.step({"places": places_json})


def progress_of(job_id: str) -> Step:
    """Read the progress that the latest attempt of a job has told."""
    return _PROGRESS_OF.step({"id": job_id})
