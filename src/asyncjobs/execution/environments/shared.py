"""`Environments`: virtual environments made by uv, built once and used by all engines of this machine.

    ready ── have we got it? ──────────────────────────────────────────────> Environment
                  │ no                                                          ▲
                  └ enter its place ── complete: a shared lock ─────────────────┤
                                    ├─ absent: the exclusive lock, build, ──────┘
                                    │          mark complete, a shared lock
                                    └─ locked by others: once more

An environment is complete or absent, never half. It is built where it stays, not moved there: scripts
and whatever a package notes of its place at its installation are right then without rewriting. What
makes it visible is one rename: that of the file `complete`, written by its own interpreter and put in
place when all else is on the disk. A folder without that file is rubbish, and whoever gets the
exclusive lock removes it.

The locks are `flock`s: the kernel frees them with their last holder, however that one goes. uv inherits
the builder's: were the builder killed and uv still writing, nobody would build in the same place.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

from asyncjobs.errors import EnvironmentFailed
from asyncjobs.execution.environments.places import SELF_PORTRAIT, Environment, Place, places_in
from asyncjobs.execution.environments.uv import find_uv, is_passing, run
from asyncjobs.requirements import checked_requirements
from asyncjobs.threads import in_thread

if TYPE_CHECKING:
    from asyncjobs.definition import JobDefinition

BUILD_LIMIT = timedelta(minutes=10)
_FORMAT = 1  # of the key and the folder; raised when an environment built by older code won't do
_ATTEMPT_PAUSE = 0.1  # seconds between attempts at a lock that others hold

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an environment is made of. Without `python_version` it has the engine's own interpreter."""

    python_version: str | None
    requirements: tuple[str, ...]

    @classmethod
    def of(cls, definition: JobDefinition[..., object]) -> Wanted | None:
        """Return what a definition asks for, or None when it runs in the engine's own environment.

        Raises:
            DefinitionError: one of its requirements can't be used.
        """
        if definition.python_version is None and not definition.pip_requirements:
            return None
        requirements = checked_requirements(definition.pip_requirements)
        return cls(python_version=definition.python_version, requirements=tuple(sorted(requirements)))

    @property
    def python(self) -> str:
        """The interpreter as uv is asked for it: the engine's own where that has the version, else the version."""
        return sys.executable if self._wants_our_own() else str(self.python_version)

    @property
    def key(self) -> str:
        """What the environment is known by: the same for the same interpreter, requirements and platform."""
        interpreter = [sys.version, sys.base_prefix] if self._wants_our_own() else [self.python_version]
        platform = [sysconfig.get_platform(), sysconfig.get_config_var("MULTIARCH")]
        made_of = [_FORMAT, platform, interpreter, sorted(self.requirements)]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:32]

    def _wants_our_own(self) -> bool:
        if self.python_version is None:
            return True
        numbers = tuple(map(int, self.python_version.split(".")))
        return sys.version_info[: len(numbers)] == numbers


@dataclass(frozen=True, slots=True)
class BuildStarted:
    """A build begins in this process; `log_path` grows meanwhile."""

    wanted: Wanted
    log_path: Path


@dataclass(frozen=True, slots=True)
class BuildFinished:
    """A build of this process is complete, and took so long."""

    wanted: Wanted
    environment: Environment
    took: timedelta


class Environments:
    """A folder of environments, and those that this process uses.

    Any number of processes may share the folder. `notify` is told of the builds of this one, in the
    loop; a build that fails is told by `ready` alone.
    """

    def __init__(
        self,
        *,
        folder: Path,
        build_limit: timedelta = BUILD_LIMIT,
        notify: Callable[[BuildStarted | BuildFinished], None] | None = None,
    ) -> None:
        self._folder = Path(os.path.abspath(folder))
        self._limit = build_limit
        self._notify = notify or _nobody
        self._uses: dict[str, _Use] = {}

    async def ready(self, wanted: Wanted) -> Environment:
        """Return the environment, built first where it is absent, and hold it for the caller.

        No `prune` removes it before `release` was called as often as this; where somebody else has,
        it is built again. Callers that want the same share one build, and so do the processes of this
        machine: the others wait. Cancelling one caller leaves the build to the others; when the last is
        cancelled, uv is killed with its process group, and what it has made is removed.

        Raises:
            EnvironmentFailed: it can't be built, or not within the build limit; or another process
                has not done so within that time.
        """
        key = wanted.key
        use = self._uses.get(key)
        if use is None:
            use = self._uses[key] = _Use(*self._obtaining(wanted))
        elif use.is_lost():
            use.place.leave()
            use.place, use.task = self._obtaining(wanted)
        use.count += 1
        try:
            return await asyncio.shield(use.task)
        except BaseException:
            await self._give_up(key, use)
            raise

    def release(self, environment: Environment) -> None:
        """Give back what one call of `ready` has returned; after `close` it does nothing."""
        use = self._uses.get(environment.folder.name)
        if use is None:
            return
        use.count -= 1
        if use.count == 0:
            del self._uses[environment.folder.name]
            use.place.leave()

    async def prune(self, *, unused_for: timedelta) -> list[Path]:
        """Remove the environments that nobody has used for so long, half-made ones and the logs of old builds.

        What any process uses or builds stays. Cancelling ends it after the one being removed.

        Returns:
            The folders that were removed.

        Raises:
            EnvironmentFailed: the folder can't be read or written.
        """
        before = time.time() - unused_for.total_seconds()
        pruned: list[Path] = []
        for place in await self._in_whole(places_in, self._folder):
            if await self._in_whole(place.prune, before):
                pruned.append(place.folder)
        return pruned

    async def close(self) -> None:
        """End the builds under way, whose callers see a cancellation, and release everything; twice is once."""
        uses = list(self._uses.values())
        self._uses.clear()
        for use in uses:
            use.task.cancel()
        try:
            await _until_done(asyncio.gather(*(use.task for use in uses), return_exceptions=True))
        finally:
            for use in uses:
                use.place.leave()

    async def _give_up(self, key: str, use: _Use) -> None:
        use.count -= 1
        if use.count > 0:
            return
        if self._uses.get(key) is use:
            del self._uses[key]
        use.task.cancel()
        try:
            await _until_done(use.task)
        finally:
            use.place.leave()

    def _obtaining(self, wanted: Wanted) -> tuple[Place, asyncio.Task[Environment]]:
        place = Place(self._folder / wanted.key)
        obtaining = self._obtain(wanted, place)
        return place, asyncio.get_running_loop().create_task(obtaining, name=f"environment {wanted.key}")

    async def _obtain(self, wanted: Wanted, place: Place) -> Environment:
        """Return the environment with our shared lock on it."""
        try:
            while True:
                environment = await self._enter(place) or await self._built(wanted, place)
                if environment is not None:
                    return environment
        except BaseException:
            place.forget()
            raise

    async def _enter(self, place: Place) -> Environment | None:
        """Return the complete environment, locked shared, or None when it is absent, locked exclusively."""
        try:
            async with asyncio.timeout(self._limit.total_seconds()):
                while True:
                    environment = await self._in_whole(place.enter)
                    if place.locked:
                        return environment
                    await asyncio.sleep(_ATTEMPT_PAUSE)
        except TimeoutError:
            raise self._too_late("another process still builds or removes it", place) from None

    async def _built(self, wanted: Wanted, place: Place) -> Environment | None:
        """Return the environment that we build in a place locked by us; None if it was pruned right away."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._limit.total_seconds()):
                await self._build(wanted, place)
        except BaseException as error:
            await self._in_whole(_remove_quietly, place)
            if isinstance(error, TimeoutError):
                raise self._too_late("uv was killed", place) from None
            raise
        environment = await self._in_whole(place.complete)
        if environment is not None:
            self._notify(BuildFinished(wanted, environment, timedelta(seconds=time.monotonic() - begun)))
        return environment

    async def _build(self, wanted: Wanted, place: Place) -> None:
        """Make all of the environment but what shows it to be complete."""
        uv = await self._in_whole(find_uv)
        await self._in_whole(place.clear)
        self._notify(BuildStarted(wanted, place.log))

        options = ("--no-progress", "--color", "never")
        python = f"Python {wanted.python_version or sys.version.split()[0]}"
        await self._run(
            place, uv, "venv", "--no-project", *options, "--python", wanted.python, str(place.folder),
            purpose=f"uv can't make an environment of {python}",
        )  # fmt: skip
        if wanted.requirements:
            lines = place.folder / "requirements.txt"
            await self._in_whole(_write_privately, lines, "\n".join(wanted.requirements) + "\n")
            await self._run(
                place, uv, "pip", "install", *options, "--python", str(place.python), "-r", str(lines),
                purpose="uv can't install the requirements",
            )  # fmt: skip
        await self._run(
            place, str(place.python), "-I", "-c", SELF_PORTRAIT, str(place.portrait),
            purpose="the interpreter of the new environment does not start",
        )  # fmt: skip
        await in_thread(os.sync, name="sync")  # a power cut must not leave a complete one with empty files

    async def _run(self, place: Place, *command: str, purpose: str) -> None:
        await run(*command, purpose=purpose, folder=self._folder, log=place.log, lock=place.fileno())

    async def _in_whole(self, function: Callable[[Unpack[Ts]], R], *args: *Ts) -> R:
        """Call what works on the folder in a thread, and return when it is over, cancelled or not."""
        try:
            future = in_thread(function, *args, name="asyncjobs environments")
        except RuntimeError as error:
            raise EnvironmentFailed(f"no thread could be started: {error}", transient=True) from error
        await _until_done(future)
        try:
            return future.result()
        except OSError as error:
            raise EnvironmentFailed(
                f"{self._folder} must be a folder that this user can write, with space left: {error}",
                transient=is_passing(error),
            ) from error

    def _too_late(self, why: str, place: Place) -> EnvironmentFailed:
        return EnvironmentFailed(
            f"the environment was not built within {self._limit.total_seconds():g} s: {why}",
            transient=True,
            log_path=place.log,
        )


@dataclass(slots=True)
class _Use:
    """An environment that callers of this process want or have, and how many of them there are."""

    place: Place
    task: asyncio.Task[Environment]
    count: int = 0

    def is_lost(self) -> bool:
        """Return whether others that have it hold nothing: it was removed, or its building anew has failed."""
        if not self.task.done():
            return False
        return self.task.cancelled() or self.task.exception() is not None or not self.task.result().in_place


def default_folder() -> Path:
    """Return the folder of environments in the user's cache.

    Raises:
        EnvironmentFailed: the user has no home folder, and no XDG_CACHE_HOME names another.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    try:
        if sys.platform == "darwin":
            parent = Path.home() / "Library" / "Caches"
        else:
            parent = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    except RuntimeError as error:
        raise EnvironmentFailed(f"there is no place for environments: {error}", transient=False) from error
    return parent / "asyncjobs" / "environments"


async def _until_done(future: asyncio.Future[R]) -> None:
    """Wait for a future, whatever comes of it; a cancellation meanwhile is raised when it is done."""
    canceled = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            canceled = error
    failure = None if future.cancelled() else future.exception()
    if canceled is not None:
        raise canceled from failure


def _remove_quietly(place: Place) -> None:
    """Remove what an unfinished build has made; what can't be removed now, the next builder removes."""
    try:
        place.remove()
    except OSError:
        pass


def _write_privately(file: Path, text: str) -> None:
    """Write a file that only this user can read: the URLs of requirements may have passwords."""
    with open(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "w") as opened:
        opened.write(text)


def _nobody(_: BuildStarted | BuildFinished) -> None:
    """Hear of a build and do nothing."""
