"""Random verbs in any order, played against the store and against a model of it beside."""

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from asyncjobs.model.job import Job, JobStatus
from asyncjobs.store import Bookmark, JobFilter, open_store
from builders import (
    CANCELED,
    EVERY_JOB,
    FAILED,
    INTERRUPTED,
    NOON,
    RETRIED,
    SECOND,
    SUCCEEDED,
    TIMEOUT,
    finish,
    insert,
    make_chunk,
    make_job,
    make_progress,
)

FINAL = [status for status in JobStatus if status.is_final]
ENDS = [SUCCEEDED, FAILED, TIMEOUT, CANCELED, INTERRUPTED, RETRIED]
NAMES = st.sampled_from(["thumbnail", "convert"])
ENGINES = st.sampled_from(["engine-a", "engine-b"])


@dataclass
class Expected:
    """What the model knows of a job."""

    name: str
    order: tuple
    status: str = "PENDING"
    attempt: int = 0
    engine_id: str | None = None
    asked_to_cancel: bool = False
    outcomes: list = field(default_factory=list)
    said: dict = field(default_factory=dict)
    progress: tuple = (0, None)


class AnyOrder(RuleBasedStateMachine):
    """Every rule does the same to both, and compares what they answer."""

    ids = Bundle("ids")
    held = Bundle("held")

    def __init__(self):
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="asyncjobs-")
        self.runner = asyncio.Runner()
        self.store = open_store(f"sqlite:///{self.folder}/jobs.db")
        self.run(self.store.open())
        self.now = NOON
        self.expected = {}
        self.keys = {}

    def teardown(self):
        self.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def run(self, call):
        return self.runner.run(call)

    def running_under(self, engine_id):
        return {
            job_id for job_id, job in self.expected.items() if job.status == "RUNNING" and job.engine_id == engine_id
        }

    @rule(target=ids, name=NAMES, priority=st.integers(-1, 1), key=st.sampled_from([None, None, "k", "l"]))
    def insert(self, name, priority, key):
        job = make_job(name=name, priority=priority, key=key, created_at=self.now)
        first = self.keys.setdefault((name, key), job.id) if key else job.id

        [stored] = self.run(insert(self.store, job))

        assert stored.id == first
        if first == job.id:
            self.expected[job.id] = Expected(name, (-priority, self.now, len(self.expected)))
        return first

    @rule(target=held, name=NAMES, engine_id=ENGINES, limit=st.integers(1, 3))
    def claim(self, name, engine_id, limit):
        claim = self.run(self.store.claim(name, limit=limit, engine_id=engine_id, now=self.now))

        due = [
            (job.order, job_id)
            for job_id, job in self.expected.items()
            if job.status == "PENDING" and job.name == name and job.order[1] <= self.now
        ]
        assert [each.job.id for each in claim.claimed] == [job_id for _, job_id in sorted(due)[:limit]]
        for each in claim.claimed:
            job = self.expected[each.job.id]
            job.status, job.engine_id = "RUNNING", engine_id
            job.attempt += 1
        return [each.job for each in claim.claimed]

    @rule(jobs=held, transition=st.sampled_from(ENDS))
    def finish_perhaps_late(self, jobs, transition):
        for job in jobs:
            self.finish(job, transition)

    @rule(engine_id=ENGINES)
    def rescue(self, engine_id):
        for job in self.run(self.store.running(engine_id)):
            self.finish(job, INTERRUPTED)

        assert self.run(self.store.running(engine_id)) == []

    def owns(self, job: Job):
        """Whether the attempt that `job` is may still write."""
        expected = self.expected.get(job.id)
        return expected is not None and (expected.status, expected.attempt, expected.engine_id) == (
            "RUNNING",
            job.attempt,
            job.engine_id,
        )

    @rule(jobs=held, first=st.integers(1, 4), count=st.integers(0, 3), completed=st.none() | st.integers(0, 9))
    def say_perhaps_late_or_again(self, jobs, first, count, completed):
        for job in jobs:
            owned = self.owns(job)
            chunks = [make_chunk(seq, attempt=job.attempt) for seq in range(first, first + count)]
            progress = None if completed is None else make_progress(attempt=job.attempt, completed=completed)

            assert self.run(self.store.note(job, chunks, progress)) is owned

            if owned:
                expected = self.expected[job.id]
                expected.said.update({(job.attempt, each.seq): each for each in chunks})
                expected.progress = expected.progress if completed is None else (job.attempt, progress)

    def finish(self, job: Job, transition):
        expected, owned = self.expected.get(job.id), self.owns(job)

        status = self.run(finish(self.store, job, transition, now=self.now, outcome=transition.status.lower()))

        if not owned:
            assert status is None
            return
        expected.outcomes.append(transition.status.lower())
        gives_back = transition.status == "PENDING"
        expected.status = "CANCELED" if gives_back and expected.asked_to_cancel else str(transition.status)
        if transition.run_at is not None:
            expected.order = (expected.order[0], transition.run_at, expected.order[2])
        assert status == expected.status

    @rule(job_id=ids)
    def cancel(self, job_id):
        job, expected = self.run(self.store.cancel(job_id, now=self.now)), self.expected.get(job_id)

        if expected is None:
            assert job is None
            return
        if expected.status == "PENDING":
            expected.status, expected.asked_to_cancel = "CANCELED", True
        elif expected.status == "RUNNING":
            expected.asked_to_cancel = True
        assert job.status == expected.status

    @rule(job_id=ids)
    def retry(self, job_id):
        job, expected = self.run(self.store.retry(job_id, now=self.now)), self.expected.get(job_id)

        if expected is None:
            assert job is None
            return
        if expected.status in FINAL and expected.order[1] != self.now:  # else it is the same one, written again
            expected.status, expected.asked_to_cancel = "PENDING", False
            expected.order = (expected.order[0], self.now, expected.order[2])
        assert job.status == expected.status

    @rule(name=st.none() | NAMES, status=st.none() | st.sampled_from(FINAL))
    def delete(self, name, status):
        wanted = JobFilter(names=None if name is None else [name], statuses=None if status is None else [status])
        gone = [
            job_id
            for job_id, job in self.expected.items()
            if job.status in FINAL and name in (None, job.name) and status in (None, job.status)
        ]

        deleted = self.run(self.store.delete(wanted, limit=1000))

        assert deleted == len(gone)
        for job_id in gone:
            del self.expected[job_id]
        self.keys = {key: job_id for key, job_id in self.keys.items() if job_id in self.expected}

    @rule(seconds=st.integers(1, 90))
    def time_passes(self, seconds):
        self.now += seconds * SECOND

    @rule(job_id=ids)
    def history_is_complete(self, job_id):
        job, expected = self.run(self.store.get(job_id)), self.expected.get(job_id)

        found = None if job is None else [each.outcome for each in job.attempts]
        assert found == (None if expected is None else expected.outcomes)

    @rule(job_id=ids)
    def what_was_said_is_complete(self, job_id):
        expected = self.expected.get(job_id, Expected("gone", ()))

        output = self.run(self.store.output(Bookmark(job_id), limit=1000))
        progress = self.run(self.store.progress(job_id))

        attempt, last = expected.progress
        assert output == [chunk for _, chunk in sorted(expected.said.items(), key=lambda each: each[0])]
        assert progress == (last if attempt == expected.attempt else None)

    @invariant()
    def both_agree_on_every_job(self):
        jobs = self.run(self.store.page(EVERY_JOB, limit=1000, before=None))

        found = {job.id: (job.name, str(job.status), job.attempt) for job in jobs}
        assert found == {job_id: (job.name, job.status, job.attempt) for job_id, job in self.expected.items()}


AnyOrder.TestCase.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTheStoreAndItsModelAgree = AnyOrder.TestCase
