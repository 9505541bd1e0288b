-- Jobs, their attempts and what those said, and the engines that run them. Times are microseconds since 1970, UTC.
CREATE TABLE jobs (
    seq INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    key TEXT,
    status TEXT NOT NULL DEFAULT 'PENDING',
    priority INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    retry_count INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    engine_id TEXT,
    created_at INTEGER NOT NULL,
    run_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    cancel_requested_at INTEGER,
    timeout FLOAT,
    kill_grace FLOAT NOT NULL,
    max_retries INTEGER NOT NULL,
    retry_delay FLOAT NOT NULL,
    retry_max_delay FLOAT NOT NULL,
    error TEXT,
    params TEXT NOT NULL,
    result TEXT,
    env TEXT
);

CREATE UNIQUE INDEX jobs_id ON jobs (id);
CREATE UNIQUE INDEX jobs_key ON jobs (name, key) WHERE key IS NOT NULL;
CREATE INDEX jobs_waiting ON jobs (name, priority, run_at) WHERE status = 'PENDING';
CREATE INDEX jobs_running ON jobs (engine_id, name) WHERE status = 'RUNNING';
CREATE INDEX jobs_pending ON jobs (id) WHERE status = 'PENDING';
CREATE INDEX jobs_ended ON jobs (status, id) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_name ON jobs (name, id);

CREATE TABLE job_attempts (
    job_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT,
    started_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    engine_id TEXT NOT NULL,
    host TEXT,
    pid INTEGER,
    exit_code INTEGER,
    signal INTEGER,
    error TEXT,
    peak_rss INTEGER,
    cpu_time FLOAT,
    PRIMARY KEY (job_id, attempt)
) WITHOUT ROWID;

CREATE TABLE job_output (
    job_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    written_at INTEGER NOT NULL,
    stream TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (job_id, attempt, seq)
);

CREATE TABLE job_progress (
    job_id TEXT NOT NULL PRIMARY KEY,
    attempt INTEGER NOT NULL,
    completed FLOAT NOT NULL,
    total FLOAT,
    unit TEXT,
    phase TEXT,
    message TEXT,
    details TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE engines (
    id TEXT NOT NULL PRIMARY KEY,
    host TEXT NOT NULL,
    boot TEXT NOT NULL,
    pid INTEGER NOT NULL,
    pid_started FLOAT NOT NULL,
    names TEXT NOT NULL,
    version TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
);
