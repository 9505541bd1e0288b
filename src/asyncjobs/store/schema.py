"""The tables as the newest migration leaves them; a test holds the two against each other.

Times are whole microseconds since 1970 in UTC: exact, ordered and small. `jobs.seq` is the order of
submission; the id, a UUIDv7, is the order of creation, by which lists are paged.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, MetaData, Table, Text, text

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("key", Text),
    Column("status", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("retry_count", Integer, nullable=False),
    Column("interruptions", Integer, nullable=False),
    Column("engine_id", Text),
    Column("created_at", Integer, nullable=False),
    Column("run_at", Integer, nullable=False),
    Column("started_at", Integer),
    Column("finished_at", Integer),
    Column("cancel_requested_at", Integer),
    Column("timeout", Float),
    Column("kill_grace", Float, nullable=False),
    Column("max_retries", Integer, nullable=False),
    Column("retry_delay", Float, nullable=False),
    Column("retry_max_delay", Float, nullable=False),
    Column("error", Text),
    Column("params", Text, nullable=False),
    Column("result", Text),
    Column("env", Text),
    Index("jobs_id", "id", unique=True),
    Index("jobs_key", "name", "key", unique=True, sqlite_where=text("key IS NOT NULL")),
    # Serves the claim: waiting rows only, so finished ones cost it nothing.
    Index("jobs_waiting", "name", "priority", "run_at", sqlite_where=text("status = 'PENDING'")),
    Index("jobs_running", "engine_id", "name", sqlite_where=text("status = 'RUNNING'")),
    # Serve the lists, newest first. Each change of status touches as few pages as can be.
    Index("jobs_pending", "id", sqlite_where=text("status = 'PENDING'")),
    Index("jobs_ended", "status", "id", sqlite_where=text("finished_at IS NOT NULL")),
    Index("jobs_name", "name", "id"),
)

job_attempts = Table(
    "job_attempts",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("started_at", Integer, nullable=False),
    Column("finished_at", Integer, nullable=False),
    Column("engine_id", Text, nullable=False),
    Column("host", Text),
    Column("pid", Integer),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("error", Text),
    Column("peak_rss", Integer),
    Column("cpu_time", Float),
    sqlite_with_rowid=False,
)

# A piece of output may be larger than a page: rows by rowid, and the key an index beside them.
job_output = Table(
    "job_output",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("written_at", Integer, nullable=False),
    Column("stream", Text, nullable=False),
    Column("text", Text, nullable=False),
)

job_progress = Table(
    "job_progress",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("completed", Float, nullable=False),
    Column("total", Float),
    Column("unit", Text),
    Column("phase", Text),
    Column("message", Text),
    Column("details", Text, nullable=False),
    Column("updated_at", Integer, nullable=False),
    sqlite_with_rowid=False,
)

engines = Table(
    "engines",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("boot", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Float, nullable=False),
    Column("names", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", Integer, nullable=False),
    Column("seen_at", Integer, nullable=False),
)

schema_version = Table(
    "asyncjobs_schema",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("applied_at", Integer, nullable=False),
)
