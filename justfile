# What is green before every commit, and what CI runs.
default: check

# Format, lint, types, import contracts, tests.
check: format lint types imports test

format:
    uv run ruff format .

lint:
    uv run ruff format --check .
    uv run ruff check .

types:
    uv run mypy
    uv run pyright

imports:
    uv run lint-imports

test:
    uv run pytest

# Those that need PgBouncer, or root and `ip` (Debian's pgbouncer and iproute2).
test-more:
    uv run pytest -m "pgbouncer or machines"

# The tests whose nature is to last, at full length.
soak seconds="60":
    ASYNCJOBS_TEST_SECONDS={{seconds}} uv run pytest -m "soak or quiet" -s -n 0 --timeout 0 -p no:randomly

bench:
    uv run benchmarks/run.py
