"""From what an attempt's process said, or how it ended, to an outcome."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct, convert

from asyncjobs.codec import loads
from asyncjobs.execution.inside.failure import RETRY, TRANSIENT_ERROR
from asyncjobs.jsonvalues import is_too_deep
from asyncjobs.model.job import JobError, Progress
from asyncjobs.model.outcome import Canceled, Crashed, Failed, Outcome, Succeeded

if TYPE_CHECKING:
    from asyncjobs.definition import JobDefinition
    from asyncjobs.execution import Notes
    from asyncjobs.execution.inside.wire import Frame


class _NoteHeader(Struct):
    note: dict[str, dict[str, Any]]


class Reply:
    """A reply's header and payload, read.

    Raises:
        ValueError: they are not what a job's process writes.
    """

    def __init__(self, frame: Frame) -> None:
        header = loads(frame[0].decode("ascii"))
        if not isinstance(header, dict) or not isinstance(header.get("ok"), bool):
            raise ValueError("a reply without a header")
        self.header: dict[str, Any] = header
        self.result_json = frame[1].decode("utf-8")
        self.ok: bool = header["ok"]
        self.leftovers = int(header["leftovers"])
        self.stays: bool = header["stays"]
        self.pid: int | None = header.get("pid")
        self.peak_rss: int | None = header.get("rss")
        self.cpu_time: float | None = header.get("cpu")

    def outcome(self, definition: JobDefinition[..., object]) -> Outcome:
        """Return what the job's function did."""
        if self.ok:
            return Succeeded(self.result_json)
        return failed(self.header, definition)


def failed(header: dict[str, Any], definition: JobDefinition[..., object]) -> Failed | Canceled:
    """Return the outcome for an exception, as `failure.described` has put it into plain data."""
    if "cancel" in header:
        return Canceled(reason=header["cancel"])
    seconds = header.get("retry_after")
    return Failed(
        error=JobError(
            kind=header["kind"],
            class_name=header.get("class_name"),
            message=header["message"],
            traceback=header.get("traceback"),
        ),
        transient=_is_transient(header["mro"], definition),
        retry_after=None if seconds is None else timedelta(seconds=max(0.0, min(seconds, 1e9))),
    )


def crashed(definition: JobDefinition[..., object], how: str, *, stderr_tail: str = "") -> Crashed:
    """Return the outcome of a process that ended without a reply to be trusted."""
    reason = f"{how}\nThe end of its stderr:\n{stderr_tail}" if stderr_tail else how
    return Crashed(reason=reason, transient="crash" in definition.retry_on)


def take_note(header: bytes, notes: Notes) -> None:
    """Pass on what a job's process says while it runs; what can't be read is left out: a job may write anything."""
    try:
        note = convert(loads(header.decode("ascii")), _NoteHeader).note
        if not any(map(is_too_deep, note.get("details", {}).values())):
            pass_on(note, notes)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return


def pass_on(note: dict[str, dict[str, Any]], notes: Notes) -> None:
    """Hand over what a job says: its `progress`, its `details`."""
    if "progress" in note:
        notes.progress(convert(note["progress"], Progress))
    if "details" in note:
        notes.details(note["details"])


def described_end(returncode: int, *, killed: bool, cpu_limit: float | None = None) -> str:
    """Say how a process ended: by its exit code, or by which signal."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    number = -returncode
    if number == signal.SIGXCPU and cpu_limit is not None:
        return f"cpu limit of {cpu_limit:g} s reached: killed by signal {number} (SIGXCPU)"
    try:
        name = f" ({signal.Signals(number).name})"
    except ValueError:
        name = ""
    hint = ", probably out of memory" if number == signal.SIGKILL and not killed else ""
    return f"killed by signal {number}{name}{hint}"


def _is_transient(names: Iterable[str], definition: JobDefinition[..., object]) -> bool:
    wanted = {f"{each.__module__}.{each.__qualname__}" for each in definition.transient_error_classes}
    return not {TRANSIENT_ERROR, RETRY, *wanted}.isdisjoint(names)
