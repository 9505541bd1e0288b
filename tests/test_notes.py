"""What attempts say on its way to the listeners and into the store."""

import asyncio

import pytest

from asyncjobs.engine import notes as notes_module
from asyncjobs.engine.notes import NoteWriter
from asyncjobs.errors import StoreUnavailable
from asyncjobs.model.job import JobStatus, Progress
from asyncjobs.telemetry import Events, JobOutput, JobProgressed, TaskCrashed
from builders import SUCCEEDED, claim_one, finish, insert, make_job, make_running, opened, printed, turns_of

KIB = 1024


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(notes_module, "GATHER_SECONDS", 0.01)


@pytest.fixture
async def store(tmp_path):
    async with opened(f"sqlite:///{tmp_path / 'jobs.db'}") as store:
        yield store


@pytest.fixture
def turns(store, monkeypatch):
    """The turns that the store hands to its database."""
    return turns_of(store, monkeypatch)


class Heard:
    """What a writer tells: its events, and the jobs of which something was written."""

    def __init__(self):
        self.events = []
        self.jobs = []
        self._news = asyncio.Event()

    def written(self, job_id):
        self.jobs.append(job_id)
        self._news.set()

    async def writes(self, *jobs):
        """Wait until something was written of each of these."""
        async with asyncio.timeout(10):
            while not {job.id for job in jobs} <= set(self.jobs):
                self._news.clear()
                await self._news.wait()

    def of(self, kind):
        return [event for event in self.events if type(event) is kind]


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def writer(store, heard):
    return NoteWriter(store=store, emit=heard.events.append, written=heard.written, max_output=1024 * KIB)


@pytest.fixture
async def running(writer):
    """The writer at work, as in an engine."""
    task = asyncio.create_task(writer.run())
    yield writer
    task.cancel()
    await asyncio.wait([task])


async def begin(store, writer, **changes):
    """Return a job that runs, and the notes of its attempt."""
    job = await claim_one(store, inserted=make_job(**changes))
    return job, writer.notes_of(job, max_output=None)


def refusing(monkeypatch, store, *, after=0):
    """Have the store refuse notes, the first `after` of them once they are written; return the refusals."""
    note = store.note
    refused = []

    async def refuse(*arguments):
        if len(refused) < after:
            await note(*arguments)
        refused.append(arguments)
        raise StoreUnavailable("disk I/O error")

    monkeypatch.setattr(store, "note", refuse)
    return refused


# --- told ---------------------------------------------------------------------------------------


async def test_output_and_progress_are_told_at_once(store, writer, heard):
    job, notes = await begin(store, writer)

    notes.output("stdout", "half\n")
    notes.progress(Progress(completed=1, total=2))

    [output, progressed] = heard.events
    assert output == JobOutput(job, "stdout", "half\n")
    assert (progressed.job, progressed.progress.completed, progressed.progress.attempt) == (job, 1, 1)


async def test_a_listener_that_raises_costs_no_output(store):
    """F67"""

    def fail(_event):
        raise ValueError("a listener of the application")

    writer = NoteWriter(store=store, emit=Events(fail).emit, written=lambda _: None, max_output=KIB)
    job, notes = await begin(store, writer)

    notes.output("stdout", "said")
    await notes.flush(seconds=10)

    assert await printed(store, job) == ["said"]


async def test_details_are_merged_key_by_key_and_told_with_the_progress(store, writer, heard):
    job, notes = await begin(store, writer)

    notes.details({"a": 1, "b": {"x": 1}})
    notes.progress(Progress(completed=5, message="on"))
    notes.details({"b": 2})
    await notes.flush(seconds=10)

    progress = await store.progress(job.id)
    assert progress == heard.of(JobProgressed)[-1].progress
    assert (progress.completed, progress.message, progress.details) == (5, "on", {"a": 1, "b": 2})


async def test_details_are_kept_as_they_were_when_they_were_said(store, writer):
    """A job that runs in this process may go on changing what it gave."""
    job, notes = await begin(store, writer)
    files = ["a"]

    notes.details({"files": files})
    files.append("b")
    await notes.flush(seconds=10)

    assert (await store.progress(job.id)).details == {"files": ["a"]}


async def test_details_that_are_no_json_are_refused_and_harm_nobody(store, writer):
    job, notes = await begin(store, writer)

    with pytest.raises(TypeError):
        notes.details({"bad": object()})

    notes.output("stdout", "said")
    await notes.flush(seconds=10)
    assert await printed(store, job) == ["said"]


# --- written ------------------------------------------------------------------------------------


async def test_what_is_said_is_written_without_a_flush(store, running, heard):
    job, notes = await begin(store, running)

    notes.output("stdout", "said")
    await heard.writes(job)

    assert await printed(store, job) == ["said"]


async def test_what_many_attempts_say_at_once_is_one_turn(store, running, heard, turns):
    """Coalesced: of all attempts of the engine together, however often they speak."""
    begun = [await begin(store, running, name=f"name {number}") for number in range(20)]
    turns.clear()

    for number in range(50):
        for _, notes in begun:
            notes.output("stdout", f"{number}\n")
            notes.progress(Progress(completed=number))
    await heard.writes(*(job for job, _ in begun))

    assert len(turns) == 1
    assert sum(len(step.parameters) for part in turns[0].steps for step in part.wanted) == 20 * 3
    assert (await store.progress(begun[7][0].id)).completed == 49


async def test_what_is_said_gathers_for_a_quarter_of_a_second(store, heard, turns, monkeypatch):
    """At most some four writes a second; the clock is the test's."""
    monkeypatch.undo()
    waits = []
    go_on = asyncio.Event()

    async def sleep(seconds):
        waits.append(seconds)
        await go_on.wait()
        go_on.clear()

    writer = NoteWriter(store=store, emit=heard.events.append, written=heard.written, max_output=KIB)
    job, notes = await begin(store, writer)
    monkeypatch.setattr(notes_module.asyncio, "sleep", sleep)
    task = asyncio.create_task(writer.run())
    notes.output("stdout", "one ")
    notes.output("stdout", "two")

    go_on.set()
    await heard.writes(job)
    monkeypatch.undo()
    task.cancel()
    await asyncio.wait([task])

    assert waits[0] == 0.25
    assert await printed(store, job) == ["one two"]


async def test_pieces_of_one_stream_are_joined_and_streams_keep_their_order(store, writer):
    job, notes = await begin(store, writer)

    for stream, text in [("stdout", "a"), ("stdout", "b"), ("stderr", "c"), ("stdout", "d")]:
        notes.output(stream, text)
    await notes.flush(seconds=10)

    assert await printed(store, job) == ["ab", "c", "d"]


@pytest.mark.parametrize("letter", ["x", "€", "😀", "\udcff", "\0"], ids=ascii)
async def test_a_long_piece_is_stored_in_chunks_of_at_most_64_kib(store, writer, letter):
    """F50"""
    job, notes = await begin(store, writer)

    notes.output("stdout", letter * 25_000)
    await notes.flush(seconds=10)

    chunks = await printed(store, job)
    readable = letter.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    assert "".join(chunks) == readable * 25_000
    assert max(len(chunk.encode()) for chunk in chunks) <= 64 * KIB


async def test_output_larger_than_one_write_is_written_whole(store, running, heard):
    """F50"""
    job, notes = await begin(store, running)
    lines = "".join(f"{number:07}\n" for number in range(100_000))

    notes.output("stdout", lines)
    await notes.flush(seconds=10)

    assert "".join(await printed(store, job)) == lines


async def test_an_attempt_that_says_nothing_costs_nothing(store, writer, turns):
    """Neither a turn, nor a task, nor a pass of the loop."""
    job, notes = await begin(store, writer)
    turns.clear()

    with pytest.raises(StopIteration):
        notes.flush(seconds=10).send(None)

    assert turns == []
    assert await finish(store, job, SUCCEEDED) is JobStatus.SUCCEEDED


async def test_a_flush_returns_once_everything_is_written(store, writer):
    """Nobody else writes here: the flush does it, and waits for no timer."""
    job, notes = await begin(store, writer)
    notes.output("stdout", "last words")
    notes.progress(Progress(completed=10))

    await notes.flush(seconds=10)

    assert await printed(store, job) == ["last words"]
    assert (await store.progress(job.id)).completed == 10
    assert writer._backlogs == {}


async def test_a_flush_beside_a_write_under_way_writes_everything_once(store, running, heard):
    job, notes = await begin(store, running)

    for number in range(200):
        notes.output("stdout", f"{number} ")
        await asyncio.sleep(0.001 if number % 20 == 0 else 0)
    await notes.flush(seconds=10)

    assert "".join(await printed(store, job)) == "".join(f"{number} " for number in range(200))


async def test_what_comes_after_the_end_of_the_attempt_is_forgotten(store, running, heard):
    job, notes = await begin(store, running)
    await finish(store, job, SUCCEEDED)

    notes.output("stdout", "late")
    await heard.writes(job)

    assert await printed(store, job) == []
    assert running._backlogs == {}


# --- a store that fails -------------------------------------------------------------------------


async def test_a_chunk_whose_answer_was_lost_is_there_once_and_what_follows_too(store, writer, monkeypatch):
    """Written, answered with an error, sent again with what was said meanwhile."""
    job, notes = await begin(store, writer)
    notes.output("stdout", "one ")
    refusing(monkeypatch, store, after=1)
    with pytest.raises(StoreUnavailable):
        await writer.write(notes._backlog)
    monkeypatch.undo()

    notes.output("stdout", "two")
    await notes.flush(seconds=10)

    assert await printed(store, job) == ["one ", "two"]


async def test_progress_that_could_not_be_written_is_written_later(store, writer, monkeypatch):
    job, notes = await begin(store, writer)
    notes.progress(Progress(completed=1))
    refusing(monkeypatch, store)
    with pytest.raises(StoreUnavailable):
        await writer.write(notes._backlog)
    monkeypatch.undo()

    await notes.flush(seconds=10)

    assert (await store.progress(job.id)).completed == 1


async def test_one_attempt_that_can_not_be_written_harms_no_other(store, writer, heard, monkeypatch):
    bad, bad_notes = await begin(store, writer, name="bad")
    good, good_notes = await begin(store, writer, name="good")
    note = store.note

    async def refuse_the_bad(job, *said):
        if job.id == bad.id:
            raise StoreUnavailable("not this one")
        return await note(job, *said)

    monkeypatch.setattr(store, "note", refuse_the_bad)
    bad_notes.output("stdout", "bad")
    good_notes.output("stdout", "good")

    with pytest.raises(StoreUnavailable):
        await writer.run()

    assert await printed(store, good) == ["good"]
    assert list(writer._backlogs) == [bad_notes._backlog]


async def test_what_could_not_be_written_is_written_when_the_store_is_back(store, writer, heard, monkeypatch):
    job, notes = await begin(store, writer)
    refusing(monkeypatch, store)
    notes.output("stdout", "said")
    with pytest.raises(StoreUnavailable):
        await writer.run()
    monkeypatch.undo()

    task = asyncio.create_task(writer.run())  # as its supervisor does
    await heard.writes(job)

    assert await printed(store, job) == ["said"]
    task.cancel()
    await asyncio.wait([task])


async def test_memory_is_bounded_while_the_store_is_down_and_a_line_says_what_was_dropped(store, writer):
    """F50: the oldest goes; the count is exact."""
    job, notes = await begin(store, writer)
    line = "x" * 99 + "\n"
    largest = 0

    for number in range(200_000):
        notes.output(("stdout", "stderr")[number // 1000 % 2], line)
        largest = max(largest, notes._backlog._size)
    await notes.flush(seconds=10)

    first, *rest = await printed(store, job)
    kept = sum(len(text) for text in rest)
    assert largest < 3 * 1024 * KIB
    assert first == f"\n[{200_000 * 100 - kept} bytes of output dropped: the store did not take them in time]\n"
    assert kept >= 1024 * KIB


async def test_many_tiny_pieces_are_bounded_too(store, writer):
    _job, notes = await begin(store, writer)

    for number in range(100_000):
        notes.output(("stdout", "stderr")[number % 2], "x")

    assert len(notes._backlog._pieces) < 3 * 1024 * KIB / notes_module.CHUNK_COST


async def test_what_may_be_in_the_store_already_is_never_dropped(store, writer, monkeypatch):
    job, notes = await begin(store, writer)
    notes.output("stdout", "first words\n")
    refusing(monkeypatch, store, after=1)
    with pytest.raises(StoreUnavailable):
        await writer.write(notes._backlog)
    monkeypatch.undo()

    for _ in range(100):
        notes.output("stdout", "x" * 50_000)
    await notes.flush(seconds=10)

    first, notice, *_ = await printed(store, job)
    assert first == "first words\n"
    assert "bytes of output dropped" in notice


async def test_a_definition_that_keeps_more_output_has_room_for_the_end_of_it(store, writer):
    """The second half of what is kept comes all at once when the process ends."""
    job = await claim_one(store, inserted=make_job())
    notes = writer.notes_of(job, max_output=16 * 1024 * KIB)

    notes.output("stdout", "x" * 8 * 1024 * KIB)
    await notes.flush(seconds=10)

    assert sum(map(len, await printed(store, job))) == 8 * 1024 * KIB


async def test_a_store_that_fails_can_not_keep_an_attempt_from_its_end(store, writer, heard, monkeypatch):
    job, notes = await begin(store, writer)
    refused = refusing(monkeypatch, store)
    notes.output("stdout", "never written")

    await notes.flush(seconds=0.05)

    [crash] = heard.of(TaskCrashed)
    assert isinstance(crash.error, StoreUnavailable)
    assert refused
    assert await finish(store, job, SUCCEEDED) is JobStatus.SUCCEEDED


async def test_a_store_that_hangs_can_not_keep_an_attempt_from_its_end(store, writer, heard, monkeypatch):
    _job, notes = await begin(store, writer)
    hanging = asyncio.Event()
    monkeypatch.setattr(store, "note", lambda *_: hanging.wait())
    notes.output("stdout", "never written")

    await notes.flush(seconds=0.05)

    assert [type(crash.error) for crash in heard.of(TaskCrashed)] == [TimeoutError]


async def test_a_flush_tries_again_within_its_time(store, writer, heard, monkeypatch):
    job, notes = await begin(store, writer)
    note = store.note
    tries = []

    async def fail_twice(*arguments):
        tries.append(arguments)
        if len(tries) <= 2:
            raise StoreUnavailable("not now")
        return await note(*arguments)

    monkeypatch.setattr(notes_module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(store, "note", fail_twice)
    notes.output("stdout", "said")

    await notes.flush(seconds=10)

    assert await printed(store, job) == ["said"]
    assert heard.of(TaskCrashed) == []


async def test_a_flush_that_is_cancelled_loses_nothing_that_is_written_later(store, writer):
    job, notes = await begin(store, writer)
    notes.output("stdout", "said")
    flush = asyncio.create_task(notes.flush(seconds=10))
    await asyncio.sleep(0)

    flush.cancel()
    await asyncio.wait([flush])
    await notes.flush(seconds=10)

    assert flush.cancelled()
    assert await printed(store, job) == ["said"]


async def test_notes_of_a_job_that_is_gone_are_forgotten(store, writer, heard):
    notes = writer.notes_of(make_running(), max_output=None)
    await insert(store, make_job())

    notes.output("stdout", "to nobody")
    await notes.flush(seconds=10)

    assert writer._backlogs == {}
    assert heard.of(TaskCrashed) == []
