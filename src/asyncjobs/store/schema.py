"""The tables as the newest migration leaves them; a test holds the two against each other.

Times are whole microseconds since 1970 in UTC: exact, ordered and small. `jobs.seq` is the order of
submission; the id, a UUIDv7, is the order of creation, by which lists are paged.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Double, Float, Identity, Index, Integer, MetaData, Table, Text, text
from sqlalchemy.types import TypeEngine

metadata = MetaData()
Whole = BigInteger().with_variant(Integer(), "sqlite")
Real: TypeEngine[float] = Double().with_variant(Float(), "sqlite")
# Compared byte by byte, as SQLite does anyway: the order of ids is that of creation.
Name = Text().with_variant(Text(collation="C"), "postgresql")


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


jobs = Table(
    "jobs",
    metadata,
    Column("seq", Whole, Identity(), primary_key=True),
    Column("id", Name, nullable=False),
    Column("name", Name, nullable=False),
    Column("key", Name),
    Column("status", Name, nullable=False, server_default="PENDING"),
    Column("priority", Whole, nullable=False),
    Column("attempt", Whole, nullable=False, server_default=text("0")),
    Column("retry_count", Whole, nullable=False, server_default=text("0")),
    Column("interruptions", Whole, nullable=False, server_default=text("0")),
    Column("engine_id", Name),
    Column("created_at", Whole, nullable=False),
    Column("run_at", Whole, nullable=False),
    Column("started_at", Whole),
    Column("finished_at", Whole),
    Column("cancel_requested_at", Whole),
    Column("timeout", Real),
    Column("kill_grace", Real, nullable=False),
    Column("max_retries", Whole, nullable=False),
    Column("retry_delay", Real, nullable=False),
    Column("retry_max_delay", Real, nullable=False),
    Column("error", Text),
    Column("params", Text, nullable=False),
    Column("result", Text),
    Column("env", Text),
    Index("jobs_id", "id", unique=True),
    Index("jobs_key", "name", "key", unique=True, **_where("key IS NOT NULL")),
    # Serves the claim: waiting rows only, so finished ones cost it nothing.
    # SQLite adds `seq` to every index by itself.
    Index("jobs_waiting", "name", "priority", "run_at", **_where("status = 'PENDING'")).ddl_if(dialect="sqlite"),
    Index("jobs_waiting", "name", "priority", "run_at", "seq", **_where("status = 'PENDING'")).ddl_if(
        dialect="postgresql"
    ),
    Index("jobs_running", "engine_id", "name", **_where("status = 'RUNNING'")),
    # Serve the lists, newest first. Each change of status touches as few pages as can be.
    Index("jobs_pending", "id", **_where("status = 'PENDING'")),
    Index("jobs_ended", "status", "id", **_where("finished_at IS NOT NULL")),
    Index("jobs_name", "name", "id"),
)

job_attempts = Table(
    "job_attempts",
    metadata,
    Column("job_id", Name, primary_key=True),
    Column("attempt", Whole, primary_key=True),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("started_at", Whole, nullable=False),
    Column("finished_at", Whole, nullable=False),
    Column("engine_id", Name, nullable=False),
    Column("host", Text),
    Column("pid", Whole),
    Column("exit_code", Whole),
    Column("signal", Whole),
    Column("error", Text),
    Column("peak_rss", Whole),
    Column("cpu_time", Real),
    sqlite_with_rowid=False,
)

# A piece of output may be larger than a page: rows by rowid, and the key an index beside them.
job_output = Table(
    "job_output",
    metadata,
    Column("job_id", Name, primary_key=True),
    Column("attempt", Whole, primary_key=True),
    Column("seq", Whole, primary_key=True),
    Column("written_at", Whole, nullable=False),
    Column("stream", Text, nullable=False),
    Column("text", Text, nullable=False),
)

job_progress = Table(
    "job_progress",
    metadata,
    Column("job_id", Name, primary_key=True),
    Column("attempt", Whole, nullable=False),
    Column("completed", Real, nullable=False),
    Column("total", Real),
    Column("unit", Text),
    Column("phase", Text),
    Column("message", Text),
    Column("details", Text, nullable=False),
    Column("updated_at", Whole, nullable=False),
    sqlite_with_rowid=False,
)

engines = Table(
    "engines",
    metadata,
    Column("id", Name, primary_key=True),
    Column("host", Text, nullable=False),
    Column("boot", Text, nullable=False),
    Column("pid", Whole, nullable=False),
    Column("pid_started", Real, nullable=False),
    Column("names", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", Whole, nullable=False),
    Column("seen_at", Whole, nullable=False),
)

schema_version = Table(
    "asyncjobs_schema",
    metadata,
    Column("version", Whole, primary_key=True),
    Column("applied_at", Whole, nullable=False),
)
