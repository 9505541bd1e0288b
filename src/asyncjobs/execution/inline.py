"""`InlineRunner`: attempts in the engine's own process, `async def` in its loop, `def` in a thread.

Nothing can be killed here. An attempt past its deadline is settled at once (a thread) or after its
grace (a coroutine that swallows its cancellation), and `Ended.busy` says when it really came back.

A coroutine gets a task of its own, not the caller's: so a job that cancels its own task, or whose
`timeout()` goes wrong, can't cancel the engine's; and what it raises, `SystemExit` too, ends in it.
Params and results make the same trip through JSON as in a process, so that nothing is shared.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from asyncjobs import codec, large
from asyncjobs.context import JobContext, inline_context
from asyncjobs.execution import Asked, Ended, Notes, NotStarted
from asyncjobs.execution.inside import failure
from asyncjobs.execution.replies import failed, pass_on
from asyncjobs.model.job import JobError
from asyncjobs.model.outcome import Failed, Outcome, Succeeded, TimedOut
from asyncjobs.threads import in_thread

if TYPE_CHECKING:
    from asyncjobs.definition import JobDefinition
    from asyncjobs.model.job import Job
    from asyncjobs.settings import Settings

_COROUTINE_FLAG = 0x80  # inspect.CO_COROUTINE
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
_OWN_FILES = frozenset({__file__, codec.__file__})


class InlineRunner:
    """Runs attempts in the engine's own process; see the module for what that can't promise."""

    def __init__(self, *, settings: Settings) -> None:
        self._result_limit = settings.max_result_bytes

    async def run(
        self, job: Job, definition: JobDefinition[..., object], *, env: dict[str, str], asked: Asked, notes: Notes
    ) -> Ended:
        """Run one attempt of `job`; what it prints goes where the engine prints.

        Cancelling the call cancels an `async def`, and waits for it as long as its grace; a thread is
        left alone.

        Raises:
            NotStarted: no thread could be started.
        """
        if asked.done():
            return Ended(asked.result())
        if env:
            return Ended(_refused(env))
        attempt = _Attempt(job, definition, self._result_limit, notes)
        if definition.function.__code__.co_flags & _COROUTINE_FLAG:
            return await _run_in_loop(attempt, asked)
        return await _run_in_thread(attempt, asked)

    async def prepare(self, definition: JobDefinition[..., object]) -> None:
        """Do nothing: there is nothing to be built."""

    async def close(self) -> None:
        """Do nothing: nothing is started ahead of need."""


class _Attempt(Struct, eq=False):
    job: Job
    definition: JobDefinition[..., object]
    result_limit: int
    notes: Notes

    def _decode(self, text: str, *, read: Callable[[str], Any] = codec.loads) -> dict[str, Any]:
        return codec.decode_params(self.definition.function, text, read=read)

    def _encode(self, value: object, *, write: Callable[[Any], str] = codec.dumps) -> str:
        return codec.encode_result(self.definition.function, value, limit=self.result_limit, write=write)

    def failed(self, error: BaseException, stage: str) -> Outcome:
        if isinstance(error, codec.CodecError) and stage != "exception":
            return Failed(error=JobError(kind=stage, message=str(error)))
        return failed(failure.described(error, kind=stage, own_files=_OWN_FILES), self.definition)

    async def run(self) -> Outcome:
        """Run the coroutine, and return its outcome whatever it raises."""
        stage = "params"
        try:
            text = self.job.params_json
            arguments = await large.read(self._decode, text) if large.is_long(text) else self._decode(text)
            stage = "exception"
            value = await self.definition.function(**arguments)
            stage = "result"
            return Succeeded(await large.write(self._encode, value) if large.is_large(value) else self._encode(value))
        except BaseException as error:  # SystemExit would stop the engine's loop
            return self.failed(error, stage)

    def call(self) -> Outcome:
        """Call the function, and return its outcome whatever it raises."""
        stage = "params"
        try:
            arguments = self._decode(self.job.params_json, read=large.reader(self.job.params_json))
            stage = "exception"
            value = self.definition.function(**arguments)
            if hasattr(value, "cr_await"):  # a plain wrapper around an `async def`
                value = asyncio.run(value)
            stage = "result"
            return Succeeded(self._encode(value, write=large.writer(value)))
        except BaseException as error:  # the thread's outcome
            return self.failed(error, stage)


async def _run_in_loop(attempt: _Attempt, asked: Asked) -> Ended:
    loop = asyncio.get_running_loop()
    deadline = None if attempt.job.timeout is None else loop.time() + attempt.job.timeout
    task = _begun(attempt)
    try:
        if sys.version_info < (3, 12):
            # One turn of the loop, in which the task makes its first step: what does not wait for
            # anything is over now, and has cost no timer and no callback.
            await asyncio.sleep(0)
        if not task.done():
            await _first(task, asked, deadline)
        if task.done():
            return Ended(_outcome(task))
        settled = _settled(attempt.definition, asked)
        task.cancel()
        await asyncio.wait((task,), timeout=attempt.job.kill_grace)
        return Ended(settled, busy=None if task.done() else _done_with(task))
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait((task,), timeout=attempt.job.kill_grace)
        raise


def _begun(attempt: _Attempt) -> asyncio.Task[Outcome]:
    """Return the attempt's task, which has made its first step where Python can do that at once."""
    return asyncio.Task(
        attempt.run(), loop=asyncio.get_running_loop(), name="an inline job", context=_context(attempt), **_EAGER
    )


async def _run_in_thread(attempt: _Attempt, asked: Asked) -> Ended:
    context = _context(attempt)
    try:
        outcome = in_thread(context.run, attempt.call, name=f"job {attempt.job.name} {attempt.job.id}")
    except RuntimeError as error:
        raise NotStarted(f"no thread could be started: {error}") from error
    loop = asyncio.get_running_loop()
    deadline = None if attempt.job.timeout is None else loop.time() + attempt.job.timeout
    await _first(outcome, asked, deadline)
    if outcome.done():
        return Ended(outcome.result())
    return Ended(_settled(attempt.definition, asked), busy=_done_with(outcome))


async def _first(attempt: asyncio.Future[Outcome], asked: Asked, deadline: float | None) -> None:
    """Wait for the end of the attempt, the deadline or the question."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[None] = loop.create_future()

    def wake(future: asyncio.Future[Any] | None = None) -> None:
        if not first.done() and not (future is asked and asked.cancelled()):
            first.set_result(None)

    timer = None if deadline is None else loop.call_at(deadline, wake)
    attempt.add_done_callback(wake)
    asked.add_done_callback(wake)
    try:
        await first
    finally:
        attempt.remove_done_callback(wake)
        asked.remove_done_callback(wake)
        if timer is not None:
            timer.cancel()


def _settled(definition: JobDefinition[..., object], asked: Asked) -> Outcome:
    if asked.done() and not asked.cancelled():
        return asked.result()
    return TimedOut(transient="timeout" in definition.retry_on)


def _outcome(task: asyncio.Task[Outcome]) -> Outcome:
    """Return what the attempt's coroutine returned; a task that was cancelled has nothing."""
    if task.cancelled():
        return Failed(
            error=JobError(
                kind="exception", class_name="asyncio.exceptions.CancelledError", message="cancelled from outside"
            )
        )
    return task.result()


def _done_with(future: asyncio.Future[Outcome]) -> asyncio.Future[None]:
    busy: asyncio.Future[None] = future.get_loop().create_future()

    def settle(_: asyncio.Future[Outcome]) -> None:
        if not busy.done():
            busy.set_result(None)

    future.add_done_callback(settle)
    return busy


def _context(attempt: _Attempt) -> contextvars.Context:
    job, notes = attempt.job, attempt.notes
    loop, its_thread = asyncio.get_running_loop(), threading.get_ident()

    def tell(kind: str, values: dict[str, Any]) -> None:
        if threading.get_ident() == its_thread:  # at once: the attempt may end before the loop's next turn
            pass_on({kind: values}, notes)
        else:
            loop.call_soon_threadsafe(pass_on, {kind: values}, notes)

    context = contextvars.copy_context()
    context.run(inline_context().set, JobContext(id=job.id, name=job.name, attempt=job.attempt, tell=tell))
    return context


def _refused(env: dict[str, str]) -> Outcome:
    return Failed(
        error=JobError(
            kind="params",
            message=f"isolation 'inline' shares the engine's environment and can't set {', '.join(sorted(env))}: "
            f"give the job another isolation",
        )
    )
