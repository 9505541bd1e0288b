"""The runners of one engine, one for each isolation, and the environments that they share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from asyncjobs.definition import JobDefinition
from asyncjobs.execution import Runner
from asyncjobs.execution.environments import BuildFinished, BuildStarted, Environments, Wanted, default_folder
from asyncjobs.execution.inline import InlineRunner
from asyncjobs.execution.runner import ProcessRunner
from asyncjobs.settings import Settings
from asyncjobs.telemetry import EnvironmentBuilding, EnvironmentBuilt, Event, ForkUnsafe, TaskCrashed

Definition = JobDefinition[..., Any]
Emit = Callable[[Event], None]


class Runners:
    """What runs the attempts of an engine's definitions."""

    def __init__(self, engine_id: str, definitions: Iterable[Definition], *, settings: Settings, emit: Emit) -> None:
        self._definitions = list(definitions)
        self._isolation = settings.isolation
        self._emit = emit
        wanted = any(Wanted.of(each) is not None for each in self._definitions)
        self._environments = environments_of(settings, emit) if wanted else None
        self._by_isolation: dict[str, Runner] = {"inline": InlineRunner(settings=settings)}
        for isolation in ("fork", "spawn", "reuse"):
            self._by_isolation[isolation] = ProcessRunner(
                isolation,
                engine_id=engine_id,
                settings=settings,
                environments=self._environments,
                warn=lambda module, problem: emit(ForkUnsafe(module, problem)),
            )

    def of(self, definition: Definition) -> Runner:
        """Return the runner of a definition's jobs."""
        return self._by_isolation[definition.isolation or self._isolation]

    async def start_early(self) -> None:
        """Start the templates of all definitions now, where the loop forks to start a process.

        uvloop does, and that costs 33 ms once this process has 500 MB; asyncio's own way costs 1 ms whatever the
        size, so there nothing is started for a name before its first job.
        """
        if type(asyncio.get_running_loop()).__module__.partition(".")[0] != "uvloop":
            return
        for definition in self._definitions:
            if Wanted.of(definition) is not None:
                continue  # its environment may take minutes to build
            try:
                await self.of(definition).prepare(definition)
            except Exception as error:  # its first job will meet it, and report it
                self._emit(TaskCrashed(task=f"early start of {definition.name}", error=error, final=False))

    async def close(self) -> None:
        """End all processes, and let go of the environments. No attempt may be running."""
        for runner in self._by_isolation.values():
            await runner.close()
        if self._environments is not None:
            await self._environments.close()


def environments_of(settings: Settings, emit: Emit) -> Environments:
    """Return the environments of this machine, which tell of their builds."""

    def tell(build: BuildStarted | BuildFinished) -> None:
        wanted = build.wanted
        if isinstance(build, BuildStarted):
            emit(EnvironmentBuilding(wanted.python_version, wanted.requirements, str(build.log_path)))
        else:
            folder = str(build.environment.folder)
            emit(EnvironmentBuilt(wanted.requirements, folder, build.took.total_seconds()))

    chosen = settings.environments
    return Environments(folder=default_folder() if chosen is None else Path(chosen), notify=tell)
