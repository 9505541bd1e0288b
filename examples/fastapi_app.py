"""A web app whose engine lives in its lifespan: submit, look, fetch, cancel.

    uv run uvicorn --app-dir examples fastapi_app:app
    curl --data-binary @cat.png 'localhost:8000/thumbnails?width=320'   # {"id": "…", "status": …}
    curl localhost:8000/jobs/ID                                         # its status
    curl localhost:8000/thumbnails/ID -o small.png                      # waits for it, then sends it

Stop the server half way, even with `kill -9`: at its next start what was accepted is done.
"""

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse

from asyncjobs import Job, JobEnded, JobEngine, JobNotFound, job

FOLDER = Path(os.environ.get("EXAMPLE_FOLDER", "fastapi-files"))
FOLDER.mkdir(exist_ok=True)


@job(max_workers=2, timeout=30)
def thumbnail(path: Path, width: int) -> Path:
    from PIL import Image

    small = path.with_suffix(f".{width}.png")
    with Image.open(path) as picture:
        picture.thumbnail((width, width))
        picture.save(small)
    return small


@job(max_workers=1, timeout=120)
def longest_words(text: str, count: int = 5) -> list[str]:
    words = {word.strip(".,;:!?()\"'").lower() for word in text.split()}
    return sorted(words, key=lambda word: (-len(word), word))[:count]


engine = JobEngine(f"sqlite:///{FOLDER}/jobs.db", jobs=[thumbnail, longest_words])
app = FastAPI(lifespan=engine.lifespan)


@app.post("/thumbnails", status_code=202)
async def submit_thumbnail(request: Request, width: int = 200) -> dict[str, Any]:
    path = FOLDER / f"{uuid4()}.picture"
    path.write_bytes(await request.body())
    handle = await engine.submit(thumbnail, path, width)
    return shown(await handle.job())


@app.post("/longest-words", status_code=202)
async def submit_text(request: Request, count: int = 5) -> dict[str, Any]:
    text = (await request.body()).decode("utf-8", "replace")
    handle = await engine.submit(longest_words, text, count)
    return shown(await handle.job())


@app.get("/jobs/{job_id}")
async def status(job_id: str) -> dict[str, Any]:
    return shown(await engine.get(job_id))


@app.get("/thumbnails/{job_id}")
async def picture(job_id: str) -> FileResponse:
    try:
        small = await engine.handle(job_id).result(timeout=30)
    except JobEnded as error:  # it failed, timed out or was canceled
        raise HTTPException(422, str(error)) from None
    except TimeoutError:
        raise HTTPException(503, "not ready yet", headers={"Retry-After": "5"}) from None
    if not isinstance(small, Path):
        raise HTTPException(404, f"job {job_id} makes no thumbnail")
    return FileResponse(small, media_type="image/png")


@app.delete("/jobs/{job_id}")
async def cancel(job_id: str) -> dict[str, Any]:
    return shown(await engine.cancel(job_id))


@app.exception_handler(JobNotFound)
async def not_found(_request: Request, error: JobNotFound) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=404)


def shown(record: Job) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "status": record.status,
        "attempt": record.attempt,
        "result": record.result,
        "error": record.error.message if record.error else None,
    }
