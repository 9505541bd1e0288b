"""Every example runs, and prints what it says it does."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from house_servers import BOUND, line_with, run_example, served, started_example
from house_sources import EXAMPLES, label
from PIL import Image

from asyncjobs import JobClient, JobStatus

TESTED = {"fastapi_app.py", "fastapi_orders.py", "quickstart.py", "retries.py", "thumbnails.py", "train_model.py"}


def size_of(picture: Path | io.BytesIO) -> tuple[int, int]:
    with Image.open(picture) as opened:
        return opened.size


def test_every_example_is_tested_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == TESTED


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=label)
def test_an_example_says_how_it_is_run(path: Path) -> None:
    assert f"uv run {'uvicorn' if path.name.startswith('fastapi') else 'examples/' + path.name}" in path.read_text()


def test_the_quickstart_prints_its_thumbnails_and_words(tmp_path: Path) -> None:
    printed = run_example("quickstart.py", folder=tmp_path)

    assert "submitted 4 jobs" in printed
    assert {f"  {name}.png: quickstart-files/{name}.320.png" for name in ("dawn", "noon", "dusk")} <= set(
        printed.splitlines()
    )
    assert re.search(r"\d+ words in \d+ files, most of all \w+, \w+, \w+", printed)
    assert "count_words: SUCCEEDED on attempt 1" in printed
    assert size_of(tmp_path / "quickstart-files" / "noon.320.png")[0] == 320


async def test_the_quickstart_killed_half_way_finishes_what_was_submitted(tmp_path: Path) -> None:
    """Its docstring: kill it half way and start it again, and what was submitted is done."""
    with started_example("quickstart.py", folder=tmp_path) as first:
        line_with("submitted 4 jobs", first)
    run_example("quickstart.py", folder=tmp_path)

    async with JobClient(f"sqlite:///{tmp_path}/quickstart-files/jobs.db") as client:
        jobs = [job async for job in client.iterate()]
    assert len(jobs) == 8
    assert {job.status for job in jobs} == {JobStatus.SUCCEEDED}


def test_retries_prints_each_end(tmp_path: Path) -> None:
    printed = run_example("retries.py", folder=tmp_path)

    assert printed.splitlines() == [
        "page 1, on attempt 3",
        "  attempt 1 failed: no answer on attempt 1",
        "  attempt 2 failed: no answer on attempt 2",
        "  attempt 3 succeeded",
        "ticket 7 is ready",
        "canceled: nothing to charge",
        "failed: ValueError: card refused for 30",
    ]


def test_thumbnails_makes_a_picture_of_each_and_none_twice(tmp_path: Path) -> None:
    """Its docstring: pictures that are done are not done again, since each has a key."""
    first = run_example("thumbnails.py", "--make", "4", folder=tmp_path)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "thumbnail-files" / "thumbnails").iterdir()}
    again = run_example("thumbnails.py", folder=tmp_path)

    assert len(made) == 4
    assert first.startswith("4 of 4 thumbnails in thumbnail-files/thumbnails, ")
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in made} == made


def test_thumbnails_names_a_picture_that_is_none_and_makes_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (640, 480)).save(folder / "good.png")

    printed = run_example("thumbnails.py", str(folder), "--width", "100", folder=tmp_path)

    assert "broken.png: job" in printed
    assert "PIL.UnidentifiedImageError:" in printed
    assert f"1 of 2 thumbnails in {folder}/thumbnails" in printed.replace("\n", " ")
    assert size_of(folder / "thumbnails" / "good.png.jpg") == (100, 75)


# --- the web app ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = str(tmp_path_factory.mktemp("fastapi"))
    with (
        served("fastapi_app:app", app_dir=EXAMPLES, environ={"EXAMPLE_FOLDER": folder}) as server,
        httpx.Client(base_url=server.url, timeout=BOUND) as web,
    ):
        yield web


def ended(web: httpx.Client, job_id: str) -> dict[str, object]:
    shown = web.get(f"/jobs/{job_id}").json()
    while shown["status"] in ("PENDING", "RUNNING"):
        shown = web.get(f"/jobs/{job_id}").json()
    return shown


def test_the_web_app_takes_a_picture_and_gives_its_thumbnail(web: httpx.Client) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (800, 600), "navy").save(picture, "PNG")

    submitted = web.post("/thumbnails", params={"width": 320}, content=picture.getvalue())
    shown = ended(web, submitted.json()["id"])
    small = web.get(f"/thumbnails/{submitted.json()['id']}")

    assert submitted.status_code == 202
    assert shown["status"] == "SUCCEEDED"
    assert small.headers["content-type"] == "image/png"
    assert size_of(io.BytesIO(small.content)) == (320, 240)


def test_the_web_app_says_why_a_picture_is_none(web: httpx.Client) -> None:
    submitted = web.post("/thumbnails", content=b"no picture")

    answer = web.get(f"/thumbnails/{submitted.json()['id']}")

    assert answer.status_code == 422
    assert "failed: PIL.UnidentifiedImageError: " in answer.json()["detail"]


def test_the_web_app_works_on_a_text(web: httpx.Client) -> None:
    submitted = web.post("/longest-words", params={"count": 2}, content="a durable engine for jobs")

    shown = ended(web, submitted.json()["id"])

    assert shown["result"] == ["durable", "engine"]


def test_the_web_app_cancels(web: httpx.Client) -> None:
    text = "some words " * 300_000
    waiting = [web.post("/longest-words", content=text).json()["id"] for _ in range(2)][-1]

    answer = web.delete(f"/jobs/{waiting}")

    assert answer.status_code == 200
    assert ended(web, waiting)["status"] == "CANCELED"


@pytest.mark.parametrize("verb", ["GET", "DELETE"])
def test_the_web_app_answers_404_for_a_job_that_is_not_there(web: httpx.Client, verb: str) -> None:
    answer = web.request(verb, "/jobs/nonsense")

    assert answer.status_code == 404
    assert "nonsense" in answer.json()["detail"]


def test_the_web_app_killed_and_started_again_does_what_was_accepted(tmp_path: Path) -> None:
    """Its docstring: even with `kill -9`."""
    environ = {"EXAMPLE_FOLDER": str(tmp_path)}
    with served("fastapi_app:app", app_dir=EXAMPLES, environ=environ) as first:
        accepted = httpx.post(f"{first.url}/longest-words", content="a durable engine").json()["id"]

    with (
        served("fastapi_app:app", app_dir=EXAMPLES, environ=environ) as second,
        httpx.Client(base_url=second.url, timeout=BOUND) as web,
    ):
        shown = ended(web, accepted)

    assert shown["status"] == "SUCCEEDED"


# --- orders --------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[httpx.Client]:
    environ = {"EXAMPLE_FOLDER": str(tmp_path)}
    if request.param == "postgresql":
        environ["ORDERS_URL"] = request.getfixturevalue("postgres_url").replace("postgresql:", "postgresql+asyncpg:")
    with (
        served("fastapi_orders:app", app_dir=EXAMPLES, environ=environ) as server,
        httpx.Client(base_url=server.url, timeout=BOUND) as shop,
    ):
        yield shop


def test_an_order_and_its_job_commit_together_or_not_at_all(shop: httpx.Client) -> None:
    """Its docstring: never one without the other."""
    placed = shop.post("/orders", params={"what": "tea", "count": 2})
    refused = shop.post("/orders", params={"what": "tea", "count": 2000})
    shown = shop.get(f"/orders/{placed.json()['order']}").json()
    while shown["status"] in ("PENDING", "RUNNING"):
        shown = shop.get(f"/orders/{placed.json()['order']}").json()

    assert (placed.status_code, refused.status_code) == (202, 409)
    assert shown == {"status": "SUCCEEDED", "receipt": "Receipt for order 1: 2 x tea"}
    assert shop.get("/orders").json() == {"orders": 1, "jobs": 1}


@pytest.mark.network
def test_train_model_trains_in_an_environment_of_its_own_and_shows_its_logs(tmp_path: Path) -> None:
    printed = run_example("train_model.py", folder=tmp_path)

    assert "INFO training: 100 trees: 0." in printed
    assert re.search(r"5 of 5 rounds, \{'accuracy': 0\.\d+\}", printed)
    assert re.search(r"a forest of 100 trees reads 9\d\.\d% of the digits", printed)
