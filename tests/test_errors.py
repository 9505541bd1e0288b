"""What errors say of themselves."""

from __future__ import annotations

import pytest

from asyncjobs import JobError, JobFailed


@pytest.mark.parametrize(
    ("class_name", "message", "said"),
    [
        ("OSError", "disk full", "failed: OSError: disk full"),
        ("MemoryError", "", "failed: MemoryError"),
        (None, "exited with code 3 without a reply", "failed: exited with code 3 without a reply"),
    ],
    ids=["an exception", "an exception without a message", "a crash"],
)
def test_a_failed_job_says_what_its_process_said(class_name: str | None, message: str, said: str) -> None:
    error = JobError(kind="exception", class_name=class_name, message=message)

    assert str(JobFailed("job-1", "thumbnail", error)) == f"job 'thumbnail' (job-1) {said}"
