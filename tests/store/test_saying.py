"""What attempts say: their output and their progress, as the store keeps them."""

import math

import pytest

from asyncjobs.model.job import JobStatus
from asyncjobs.store import Bookmark, JobFilter, News
from builders import (
    EVERY_JOB,
    INTERRUPTED,
    MINUTE,
    NOON,
    SUCCEEDED,
    claim_one,
    finish,
    insert,
    make_chunk,
    make_job,
    make_progress,
    make_running,
    printed,
    stored,
    turns_of,
)


async def say(store, job, *texts, first=1):
    """Write these texts as chunks of the attempt that `job` is."""
    chunks = [make_chunk(first + at, text=text, attempt=job.attempt) for at, text in enumerate(texts)]
    return await store.note(job, chunks, None)


async def second_attempt(store):
    """Return a job's first attempt, which was interrupted, and its second, which runs."""
    first = await claim_one(store, inserted=make_job())
    await say(store, first, "from the first")
    await store.note(first, [], make_progress(details={"from": "the first"}))
    await finish(store, first, INTERRUPTED)
    return first, await claim_one(store)


async def test_output_comes_back_as_it_was_said(store):
    """D18: stored per job and attempt, the two streams apart."""
    held = await claim_one(store, inserted=make_job())
    chunks = [
        make_chunk(1, text="one\n", written_at=NOON),
        make_chunk(2, text="two", stream="stderr", written_at=NOON + MINUTE),
        make_chunk(3, text="é€😀\r\n\t\x1b[1m", written_at=NOON + MINUTE),
    ]

    assert await store.note(held, chunks, None)

    assert await store.output(Bookmark(held.id), limit=10) == chunks


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        pytest.param("a\0b", "a\\x00b", id="NUL"),
        pytest.param("a\ud800b", "a\\ud800b", id="lone surrogate"),
        pytest.param("\udcff" * 3, "\\udcff" * 3, id="bytes that are no text"),
    ],
)
async def test_text_that_no_database_takes_comes_back_readable(store, text, readable):
    """F50: binary output."""
    held = await claim_one(store, inserted=make_job())

    await say(store, held, text)
    await store.note(held, [], make_progress(unit=text, phase=text, message=text, details={text: text}))

    progress = await store.progress(held.id)
    assert await printed(store, held) == [readable]
    assert (progress.unit, progress.phase, progress.message) == (readable, readable, readable)
    assert progress.details == {text: text}


async def test_a_chunk_that_is_written_again_is_there_once(store):
    held = await claim_one(store, inserted=make_job())
    await say(store, held, "one", "two")

    written_again = await say(store, held, "one", "two", "three")

    assert written_again
    assert await printed(store, held) == ["one", "two", "three"]


async def test_a_chunk_that_is_written_again_keeps_what_it_said_first(store):
    held = await claim_one(store, inserted=make_job())
    await say(store, held, "one")

    await say(store, held, "other")

    assert await printed(store, held) == ["one"]


async def test_output_is_read_in_pages_without_gap_or_repetition(store):
    held = await claim_one(store, inserted=make_job())
    await say(store, held, *map(str, range(25)))

    bookmark, pages = Bookmark(held.id), []
    while chunks := await store.output(bookmark, limit=10):
        pages.append([each.chunk.text for each in chunks])
        bookmark = bookmark.past(chunks[-1])

    assert [len(page) for page in pages] == [10, 10, 5]
    assert [text for page in pages for text in page] == list(map(str, range(25)))


async def test_output_of_two_attempts_is_read_one_after_the_other(store):
    """D18, D21: the history keeps what each attempt said."""
    first, second = await second_attempt(store)

    await say(store, second, "from the second")

    assert await printed(store, first) == ["from the first", "from the second"]
    assert await printed(store, first, only=1) == ["from the first"]
    assert await printed(store, first, only=2) == ["from the second"]
    assert await printed(store, first, only=3) == []


async def test_output_of_one_job_is_not_that_of_another(store):
    held, other = (
        await claim_one(store, inserted=make_job(name="convert")),
        await claim_one(store, inserted=make_job()),
    )

    await say(store, held, "mine")

    assert await printed(store, other) == []


async def test_an_attempt_that_is_over_can_say_nothing_more(store):
    """So whoever finds a job ended finds all of its output."""
    held = await claim_one(store, inserted=make_job())
    await say(store, held, "in time")
    await finish(store, held, SUCCEEDED)

    written = await store.note(held, [make_chunk(2, text="late")], make_progress())

    assert not written
    assert await printed(store, held) == ["in time"]
    assert await store.progress(held.id) is None


async def test_an_attempt_that_lost_its_lease_can_say_nothing_more(store):
    first, second = await second_attempt(store)

    written = await store.note(first, [make_chunk(9, text="late")], make_progress(completed=9))

    assert not written
    assert await printed(store, second) == ["from the first"]
    assert await store.progress(second.id) is None


async def test_another_engine_can_not_speak_for_an_attempt(store):
    held = await claim_one(store, inserted=make_job())
    impostor = make_running(id=held.id, engine_id="engine-b")

    written = await store.note(impostor, [make_chunk()], make_progress())

    assert not written
    assert await printed(store, held) == []


async def test_a_chunk_of_a_job_that_was_deleted_writes_nothing(store):
    held = await claim_one(store, inserted=make_job())
    await finish(store, held, SUCCEEDED)
    await store.delete(EVERY_JOB, limit=10)

    written = await store.note(held, [make_chunk()], make_progress())

    assert not written
    assert await printed(store, held) == []


async def test_deleting_a_job_deletes_all_that_it_said(store):
    gone, kept = (
        await claim_one(store, inserted=make_job(name="convert")),
        await claim_one(store, inserted=make_job()),
    )
    for held in (gone, kept):
        await store.note(held, [make_chunk(text=held.name)], make_progress())
        await finish(store, held, SUCCEEDED)

    deleted = await store.delete(JobFilter(names=["convert"]), limit=10)

    assert deleted == 1
    assert (await printed(store, gone), await store.progress(gone.id)) == ([], None)
    assert (await printed(store, kept), await store.progress(kept.id)) == (["thumbnail"], make_progress())


async def test_a_delete_counts_jobs_however_much_they_said(store):
    held = await claim_one(store, inserted=make_job())
    await say(store, held, *map(str, range(20)))
    await finish(store, held, SUCCEEDED)

    assert await store.delete(EVERY_JOB, limit=10) == 1


async def test_progress_is_the_latest_that_was_said(store):
    held = await claim_one(store, inserted=make_job())
    latest = make_progress(
        completed=4.5, total=9, unit="files", phase="reading", message="half", details={"a": [1, None]}
    )
    await store.note(held, [], make_progress(completed=1, message="begun"))

    await store.note(held, [], latest)

    assert await store.progress(held.id) == latest


@pytest.mark.parametrize(
    ("said", "completed"),
    [
        pytest.param(math.nan, 0.0, id="NaN"),
        pytest.param(10**400, math.inf, id="above every float"),
        pytest.param(-(10**400), -math.inf, id="below every float"),
        pytest.param(2**70, float(2**70), id="above 64 bits"),
        pytest.param(math.inf, math.inf, id="infinity"),
    ],
)
async def test_odd_numbers_of_progress_are_kept_as_near_as_can_be(store, said, completed):
    held = await claim_one(store, inserted=make_job())

    await store.note(held, [], make_progress(completed=said, total=math.nan))

    progress = await store.progress(held.id)
    assert (progress.completed, progress.total) == (completed, None)


async def test_a_new_attempt_begins_without_progress(store):
    _first, second = await second_attempt(store)

    assert await store.progress(second.id) is None


async def test_a_new_attempt_takes_over_no_details(store):
    _first, second = await second_attempt(store)

    await store.note(second, [], make_progress(attempt=2))

    assert await store.progress(second.id) == make_progress(attempt=2)


async def test_progress_of_the_last_attempt_stays_after_its_end(store):
    held = await claim_one(store, inserted=make_job())
    await store.note(held, [], make_progress())

    await finish(store, held, SUCCEEDED)

    assert await store.progress(held.id) == make_progress()


async def test_a_job_that_is_not_there_has_said_nothing(store):
    assert await store.output(Bookmark("x"), limit=10) == []
    assert await store.progress("x") is None
    assert await store.news([Bookmark("x")]) == {}


async def test_news_tell_what_is_past_each_bookmark_in_one_question(store, monkeypatch):
    first, _second = await second_attempt(store)
    waiting = make_job(name="convert")
    await insert(store, waiting)
    at_end = Bookmark(first.id, attempt=1, seq=1)
    reads = []
    read = store._database.read
    monkeypatch.setattr(store._database, "read", lambda steps: reads.append(len(steps)) or read(steps))

    news = await store.news([Bookmark(first.id), at_end, Bookmark(first.id, 2, 0, 2), Bookmark(waiting.id)])

    assert news == {
        Bookmark(first.id): News(JobStatus.RUNNING, 2, more=True),
        at_end: News(JobStatus.RUNNING, 2, more=False),
        Bookmark(first.id, 2, 0, 2): News(JobStatus.RUNNING, 2, more=False),
        Bookmark(waiting.id): News(JobStatus.PENDING, 0, more=False),
    }
    assert reads == [1]


async def test_news_of_one_attempt_do_not_count_what_a_later_one_says(store):
    first, second = await second_attempt(store)
    await say(store, second, "from the second")
    at_end = Bookmark(first.id, attempt=1, seq=1, only=1)

    news = await store.news([at_end])

    assert not news[at_end].more


async def test_saying_nothing_adds_no_statement_to_the_life_of_a_job(store, monkeypatch):
    """Submit, claim and finish are what they were before there were notes."""
    turns = turns_of(store, monkeypatch)

    held = await claim_one(store, inserted=make_job())
    await finish(store, held, SUCCEEDED)

    assert [(len(turn.inserts), len(turn.takes), len(turn.ends)) for turn in turns] == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert not any(turn.steps for turn in turns)


async def test_what_was_said_is_there_for_another_process(store, other_store):
    held = await claim_one(store, inserted=make_job())

    await store.note(held, [make_chunk(text="hello")], make_progress())

    assert await printed(other_store, held) == ["hello"]
    assert await other_store.progress(held.id) == make_progress()


async def test_notes_change_nothing_of_the_job(store):
    held = await claim_one(store, inserted=make_job())

    await store.note(held, [make_chunk()], make_progress())

    assert await stored(store, held) == held
