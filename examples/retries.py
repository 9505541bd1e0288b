"""What a job says to be run again, and what it leaves in its record.

    uv run examples/retries.py

A job whose service is down twice is retried with backoff; one that knows when to come back says so;
one that sees no sense in its work cancels itself; one that is simply wrong fails at once.
"""

import asyncio
import tempfile
from pathlib import Path

from asyncjobs import Cancel, JobCanceled, JobEngine, JobFailed, Retry, current_job, job


@job(transient_error_classes=[ConnectionError], max_retries=3, retry_delay=0.1)
def fetch(page: str) -> str:
    attempt = current_job().attempt
    if attempt < 3:
        raise ConnectionRefusedError(f"no answer on attempt {attempt}")  # a subclass counts too
    return f"{page}, on attempt {attempt}"


@job
def poll(ticket: int) -> str:
    if current_job().attempt == 1:
        raise Retry(after=0.2, reason="not ready yet")
    return f"ticket {ticket} is ready"


@job
def charge(amount: int) -> str:
    if amount == 0:
        raise Cancel("nothing to charge")
    raise ValueError(f"card refused for {amount}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with JobEngine(f"sqlite:///{Path(folder)}/jobs.db", jobs=[fetch, poll, charge]) as engine:
            fetching = await engine.submit(fetch, "page 1")
            polling = await engine.submit(poll, 7)
            free = await engine.submit(charge, 0)
            wrong = await engine.submit(charge, 30)

            print(await fetching.result(timeout=60))
            for attempt in (await fetching.job()).attempts:
                why = f": {attempt.error.message}" if attempt.error else ""
                print(f"  attempt {attempt.attempt} {attempt.outcome}{why}")
            print(await polling.result(timeout=60))
            try:
                await free.result(timeout=60)
            except JobCanceled as error:
                print(f"canceled: {error.error.message if error.error else ''}")
            try:
                await wrong.result(timeout=60)
            except JobFailed as error:
                print(f"failed: {error.class_name}: {error.message}")


if __name__ == "__main__":
    asyncio.run(main())
