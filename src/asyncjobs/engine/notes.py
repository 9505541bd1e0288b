"""What an attempt says while it runs, on its way to the listeners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asyncjobs.model.job import Job, Progress
from asyncjobs.telemetry import Event, JobOutput


@dataclass(slots=True, eq=False)
class AttemptNotes:
    """The notes of one attempt."""

    job: Job
    emit: Callable[[Event], None]

    def output(self, stream: str, text: str) -> None:
        """Pass on a piece of what the job's process prints."""
        self.emit(JobOutput(self.job, stream, text))

    def progress(self, progress: Progress) -> None:
        """Note how far the job says it is."""

    def details(self, changes: dict[str, Any]) -> None:
        """Note what the job adds to its details."""
