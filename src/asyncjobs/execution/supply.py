"""`Supply`: processes of one kind, ready before they are needed, and the template that they come from.

    take ─> one that waits ─────────────> JobProcess
        └─> else one begun now ──────────^
        └─> else None: the template has first to be `prepared`

No process is started before the first attempt. From then on as many wait as attempts ran at once in
the last minute, and one more, but never more than there are processors. They end when nothing has run
for a minute; the template stays, since its import is what is dear.

Where the import of a job's module fails, or ends or stops its template, each job's process does it
itself and meets the same end, which is then reported as that job's. Where it leaves threads running, a
fork would copy their locks but not them: such jobs get a fresh interpreter each.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from asyncjobs.execution import NotStarted
from asyncjobs.execution.process import JobProcess
from asyncjobs.execution.templates import Ready, Recipe, Template

IDLE = 60.0
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
LONG_LIFE = 60.0  # a template that has lived so long is forgiven its death
IMPORT_AGAIN = 30.0  # after a failed import, the jobs do it themselves for so long
LOOK_AT_FILES = 0.5
LONG_RUN = 1.0  # an attempt that runs longer waits for something, or will not be over soon
_LEAVING = 1.0
_SETTLING = 0.02  # an attempt has the processors to itself that long before its successor is begun


@dataclass(frozen=True, slots=True, kw_only=True)
class Recycling:
    """When a template has served its time: after so many processes, so many seconds, or new files."""

    processes: int
    seconds: float
    reload: bool


class Supply:
    """The processes of one recipe."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        start: Callable[[Recipe], Awaitable[Template]],
        recycling: Recycling,
        warn: Callable[[str], None],
    ) -> None:
        self._wanted = recipe
        self._recipe = recipe
        self._start = start
        self._recycling = recycling
        self._warn = warn
        self._most = _processors()
        self._template: Template | None = None
        self._opening: asyncio.Task[None] | None = None
        self._retired: set[Template] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._files: dict[str, int] = {}
        self._files_seen = 0.0
        self._import_at = 0.0
        self._begin_at = 0.0
        self._pause = 0.0
        self._waiting: deque[JobProcess] = deque()
        self._leaving: set[JobProcess] = set()
        self._attempts: dict[int, float] = {}  # those that run, and when they have begun
        self._numbers = itertools.count()
        self._peak = 0
        self._last_peak = 0
        self._peak_since = 0.0
        self._refill_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._closed = False

    # --- the template ---------------------------------------------------------------------------

    def take(self, deadline: float | None, *, grace: float) -> JobProcess | None:
        """Return a process that waits for a request, or None while there is no template for one.

        Its template ends it at `deadline`, by the loop's clock.

        Raises:
            NotStarted: no process could be started.
        """
        template = self._current()
        if template is None:
            return None
        while self._waiting:
            process = self._waiting.popleft()
            if process.usable:
                if deadline is not None:
                    process.keep_deadline(deadline, grace=grace)
                return process
            self._dismiss(process)
        return template.begin(deadline, grace=grace)

    async def prepared(self) -> None:
        """Return once a process can be taken. Cancelling it leaves the template to those who wait, too.

        Raises:
            NotStarted: no template could be started, or they keep dying.
        """
        while self._current() is None:
            if self._opening is None:
                self._opening = asyncio.get_running_loop().create_task(self._open(), name="open a template")
                self._opening.add_done_callback(self._opened)
            opening = self._opening
            await asyncio.wait((opening,))
            if not opening.cancelled():
                opening.result()
                return
            if self._closed:
                raise NotStarted("its engine stops")
            # Somebody else has distrusted its import: the next one is without.

    def distrust(self) -> None:
        """Give up the import that keeps everybody waiting: an attempt has run out of time over it."""
        if self._opening is not None and self._recipe.target is not None:
            self._opening.cancel()
            self._import_in_jobs()

    def renew(self) -> None:
        """Have another template for the processes to come: what this one is made of was replaced."""
        if self._template is not None:
            self._retire(self._template)

    def _current(self) -> Template | None:
        template = self._template
        if template is not None and not self._is_fresh(template):
            self._retire(template)
        return self._template

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # whoever waited has it

    async def _open(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._begin_at:
            raise NotStarted(f"its template keeps ending; the next one starts in {self._begin_at - now:.1f} s")
        if now >= self._import_at:
            self._recipe = self._wanted
        while True:
            template = await self._start(self._recipe)
            try:
                ready = await _news_of(template)
            except BaseException:
                self._dispose_of(template)
                raise
            if ready is not None and self._serves(template, ready):
                break
            self._dispose_of(template)
            if ready is None and self._recipe.target is None:
                raise NotStarted(f"an interpreter does not come up: {template.stderr_tail}")
            if ready is None:
                self._import_in_jobs()
        self._template = template
        self._note_files(ready)
        template.gone.add_done_callback(lambda _: self._lost_template(template))

    def _dispose_of(self, template: Template) -> None:
        """End a template that runs no jobs, at once: its import may listen to nothing."""
        ending = asyncio.get_running_loop().create_task(template.kill(), name="end a template")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    def _serves(self, template: Template, ready: Ready) -> bool:
        """Return whether the template can be used; else the recipe is another now."""
        if template.recipe.fresh or template.recipe.target is None:
            return True
        if ready.problem is not None:
            self._import_in_jobs()
            return False
        if ready.threads > 1:
            self._recipe = self._wanted = replace(self._wanted, target=None, fresh=True)
            self._warn(f"has {ready.threads} threads after its import")
            return False
        return True

    def _import_in_jobs(self) -> None:
        self._recipe = replace(self._wanted, target=None)
        self._import_at = asyncio.get_running_loop().time() + IMPORT_AGAIN

    def _lost_template(self, template: Template) -> None:
        """Begin the next one only after a pause, if this one has died young."""
        self._retired.discard(template)
        if self._template is not template:
            return
        self._template = None
        loop = asyncio.get_running_loop()
        if loop.time() - template.began > LONG_LIFE:
            self._pause = 0.0
            return
        if self._pause:
            self._begin_at = loop.time() + self._pause
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)

    def _retire(self, template: Template) -> None:
        """Let the template end after its last process."""
        self._template = None
        self._dismiss_all()
        if not template.gone.done():
            self._retired.add(template)
            template.close()

    def _is_fresh(self, template: Template) -> bool:
        now = asyncio.get_running_loop().time()
        if template.gone.done() or template.started >= self._recycling.processes:
            return False
        if now - template.began > self._recycling.seconds:
            return False
        if self._recipe != self._wanted and now >= self._import_at:
            return False
        if not self._recycling.reload or now - self._files_seen < LOOK_AT_FILES:
            return True
        self._files_seen = now
        return all(_modified(file) == seen for file, seen in self._files.items())

    def _note_files(self, ready: Ready) -> None:
        self._files = {file: _modified(file) for file in ready.files} if self._recycling.reload else {}

    # --- the processes that wait ----------------------------------------------------------------

    def begin(self) -> int:
        """Count an attempt that begins; return the number by which it ends."""
        loop = asyncio.get_running_loop()
        self._closed = False
        if loop.time() - self._peak_since > IDLE:
            self._last_peak, self._peak, self._peak_since = self._peak, len(self._attempts), loop.time()
        number = next(self._numbers)
        self._attempts[number] = loop.time()
        self._peak = max(self._peak, len(self._attempts))
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._refill_timer is None:
            self._refill_timer = loop.call_later(_SETTLING, self._settled)
        return number

    def end(self, number: int) -> None:
        """Count an attempt that has ended."""
        del self._attempts[number]
        self._refill()
        if not self._attempts and not self._closed:
            self._idle_timer = asyncio.get_running_loop().call_later(IDLE, self._dismiss_all)

    async def close(self) -> None:
        """End all processes and templates, and return when they are gone."""
        self._closed = True
        for timer in (self._refill_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._refill_timer = self._idle_timer = None
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        template, self._template = self._template, None
        templates = [*self._retired, *([] if template is None else [template])]
        self._dismiss_all()
        for each in templates:
            each.end()
        await asyncio.gather(*(each.see_out(_LEAVING) for each in templates), *self._ending)
        self._retired.clear()

    def _settled(self) -> None:
        self._refill_timer = None
        self._refill()

    def _refill(self) -> None:
        """Begin processes ahead of need, while a processor has nothing better to do."""
        template = self._template
        if self._closed or template is None or self._is_busy():
            return
        wanted = min(self._most, max(self._peak, self._last_peak) + 1)
        for _ in range(wanted - len(self._waiting)):
            try:
                process = template.begin_ahead()
            except NotStarted:
                return  # the next attempt meets the same want, and reports it
            self._waiting.append(process)
            process.ended.add_done_callback(lambda _, process=process: self._lost(process))  # type: ignore[misc]

    def _is_busy(self) -> bool:
        """Return whether as many attempts as there are processors have begun just now."""
        if len(self._attempts) < self._most:
            return False
        latest = itertools.islice(reversed(self._attempts.values()), self._most - 1, None)
        return next(latest) > asyncio.get_running_loop().time() - LONG_RUN

    def _lost(self, process: JobProcess) -> None:
        if process in self._waiting:
            self._waiting.remove(process)
            process.close()
        elif process in self._leaving:
            self._leaving.remove(process)
            process.close()

    def _dismiss_all(self) -> None:
        self._idle_timer = None
        self._peak = self._last_peak = 0
        while self._waiting:
            self._dismiss(self._waiting.popleft())

    def _dismiss(self, process: JobProcess) -> None:
        """Close the channel of a process that waits: it ends by itself."""
        if process.ended.done():
            process.close()
            return
        self._leaving.add(process)
        process.channel.close()


async def _news_of(template: Template) -> Ready | None:
    """Wait until the template can be used; None when it has ended before."""
    await asyncio.wait((template.ready, template.gone), return_when=asyncio.FIRST_COMPLETED)
    return template.ready.result() if template.ready.done() else None


def _modified(file: str) -> int:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0


def _processors() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
