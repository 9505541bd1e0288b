"""A web app with jobs that last, for the tests of its shutdown."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from fastapi import FastAPI

from asyncjobs import JobEngine, Settings, job


@job(max_workers=2, kill_grace=0.2)
def last_long() -> None:
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    Path(os.environ["HOUSE_MARK"]).touch()
    time.sleep(600)


engine = JobEngine(os.environ["HOUSE_DATABASE"], jobs=[last_long], settings=Settings(stop_grace=0.1))
app = FastAPI(lifespan=engine.lifespan)


@app.post("/jobs")
async def submit() -> dict[str, str]:
    return {"id": (await engine.submit(last_long)).id}


@app.get("/jobs/{job_id}")
async def status(job_id: str) -> dict[str, str]:
    return {"status": (await engine.get(job_id)).status}
