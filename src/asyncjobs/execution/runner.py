"""`ProcessRunner`: each attempt in a process of its own, or in a warm one.

environment ─> supply ─> a process that waits ─> ProcessAttempt
└ its template, started with the first attempt
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from asyncjobs.execution import Asked, Ended, Notes, NotExecutable, NotStarted
from asyncjobs.execution.attempt import Order, ProcessAttempt
from asyncjobs.execution.environments import Environment, EnvironmentFailed, Environments, Wanted
from asyncjobs.execution.process import JobProcess
from asyncjobs.execution.requests import recipe_of
from asyncjobs.execution.supply import Recycling, Supply
from asyncjobs.execution.templates import Recipe, Template
from asyncjobs.execution.warm import Warm, Wear
from asyncjobs.model.job import JobError
from asyncjobs.model.outcome import Failed, Outcome, TimedOut

if TYPE_CHECKING:
    from asyncjobs.definition import JobDefinition
    from asyncjobs.model.job import Job
    from asyncjobs.settings import Settings

_MOST_STARTS = 4  # for one attempt: processes may die before they have read their request


class ProcessRunner:
    """Runs attempts in processes: `fork`, `spawn` or `reuse`.

    The processes carry `ASYNCJOBS_PROCESS=<engine_id>.<n>` in their environment, and so does all that
    they start: `tree.sweep(engine_id)` ends what an engine and its templates have left behind.
    """

    def __init__(
        self,
        isolation: str,
        *,
        engine_id: str,
        settings: Settings,
        environments: Environments | None = None,
        warn: Callable[[str, str], None] | None = None,
    ) -> None:
        self._environments = environments
        self._fresh = isolation == "spawn"
        self._stays = isolation == "reuse"
        self._engine_id = f"{engine_id}.{isolation}"
        self._settings = settings
        self._warn = warn
        self._counter = itertools.count(1)
        self._supplies: dict[Recipe, Supply] = {}
        self._recipes: dict[str, Recipe] = {}
        self._paths: object = None
        self._warm: dict[str, Warm] = {}
        self._entered: dict[str, Environment | None] = {}

    async def run(
        self, job: Job, definition: JobDefinition[..., object], *, env: dict[str, str], asked: Asked, notes: Notes
    ) -> Ended:
        """Run one attempt of `job` to its end, and leave no process of it behind.

        The clock starts when its environment is there; the import of the job's module is part of the
        time. Cancelling the call kills at once.

        Raises:
            NotStarted: no process could be started, or none lived long enough to read its request.
        """
        if asked.done():
            return Ended(asked.result())
        early = await self._environment_built(definition, asked)
        if early is not None:
            return Ended(early)
        deadline = None if job.timeout is None else asyncio.get_running_loop().time() + job.timeout
        order = Order(job=job, definition=definition, env=env, asked=asked, notes=notes, deadline=deadline)
        supply = self._supply(definition)
        number = supply.begin()
        try:
            return await self._run(order, supply)
        except NotExecutable as error:
            return Ended(Failed(error=JobError(kind="environment", message=str(error)), transient=True))
        finally:
            supply.end(number)

    async def _run(self, order: Order, supply: Supply) -> Ended:
        problem = "none could be had"
        for _ in range(_MOST_STARTS):
            process = self._take(supply, order)
            if process is None:
                early = await _prepared(supply, order)
                if early is not None:
                    return Ended(early)
                continue
            attempt = ProcessAttempt(process, order, settings=self._settings, stays=self._stays)
            ended = await attempt.run()
            if attempt.process_stays:
                self._warm[order.definition.name].keep(process)
            if ended is not None:
                return ended
            problem = process.refused or process.capture.stderr_tail
        if self._fresh:
            supply.renew()  # a template that runs can't tell why its interpreter does not; the start of one can
        raise NotStarted(f"processes end before they have read their request: {problem}")

    async def prepare(self, definition: JobDefinition[..., object]) -> None:
        """Build the environment of a definition's jobs and start their template.

        Raises:
            EnvironmentFailed: the environment can't be built.
            NotStarted: no process could be started.
        """
        await self._enter_environment(definition)
        await self._supply(definition).prepared()

    async def close(self) -> None:
        """End all processes. No attempt may be running."""
        for warm in self._warm.values():
            await warm.close()
        for supply in self._supplies.values():
            await supply.close()
        for environment in self._entered.values():
            if environment is not None and self._environments is not None:
                self._environments.release(environment)
        self._entered.clear()

    async def _environment_built(self, definition: JobDefinition[..., object], asked: Asked) -> Outcome | None:
        """Have the environment built, if there is to be one; return the outcome of an attempt that ends over it."""
        if self._has_entered(definition):
            return None
        building = asyncio.get_running_loop().create_task(
            self._enter_environment(definition), name=f"environment of {definition.name}"
        )
        try:
            await asyncio.wait((building, asked), return_when=asyncio.FIRST_COMPLETED)
            if not building.done() and not asked.cancelled():
                return asked.result()
            await building
        except EnvironmentFailed as error:
            return Failed(error=JobError(kind="environment", message=str(error)), transient=error.transient)
        finally:
            building.cancel()
        return None

    async def _enter_environment(self, definition: JobDefinition[..., object]) -> None:
        """Keep the environment until the end: nobody prunes it meanwhile. One that was removed is built again."""
        if self._has_entered(definition):
            return
        wanted = Wanted.of(definition)
        if wanted is None or self._environments is None:
            self._entered[definition.name] = None
            return
        lost = self._entered.get(definition.name)
        environment = await self._environments.ready(wanted)
        former = self._entered.get(definition.name)
        self._entered[definition.name] = environment
        if former is not None:
            self._environments.release(former)
        if lost is not None and former is lost:
            self._supply(definition).renew()
            self._recipes.pop(definition.name, None)

    def _has_entered(self, definition: JobDefinition[..., object]) -> bool:
        if definition.name not in self._entered:
            return False
        environment = self._entered[definition.name]
        return environment is None or environment.in_place

    def _take(self, supply: Supply, order: Order) -> JobProcess | None:
        grace = order.job.kill_grace
        if self._stays:
            process = self._warm_ones(order.definition.name).take()
            if process is not None:
                if order.deadline is not None:
                    process.keep_deadline(order.deadline, grace=grace)
                return process
        return supply.take(order.deadline, grace=grace)

    def _warm_ones(self, name: str) -> Warm:
        warm = self._warm.get(name)
        if warm is None:
            settings = self._settings
            wear = Wear(jobs=settings.reuse_jobs, seconds=settings.reuse_seconds, growth=settings.reuse_growth_bytes)
            warm = self._warm[name] = Warm(wear)
        return warm

    def _supply(self, definition: JobDefinition[..., object]) -> Supply:
        paths = (sys.path.copy(), len(sys.meta_path))
        if paths != self._paths:
            self._paths = paths
            self._recipes = {}
        recipe = self._recipes.get(definition.name)
        if recipe is None:
            environment = self._entered.get(definition.name)
            recipe = self._recipes[definition.name] = recipe_of(definition, environment, fresh=self._fresh)
        supply = self._supplies.get(recipe)
        if supply is None:
            settings = self._settings
            module = definition.function.__module__
            supply = self._supplies[recipe] = Supply(
                recipe,
                start=self._start,
                recycling=Recycling(
                    processes=settings.template_jobs, seconds=settings.template_seconds, reload=settings.reload
                ),
                warn=lambda problem: None if self._warn is None else self._warn(module, problem),
            )
        return supply

    async def _start(self, recipe: Recipe) -> Template:
        token = f"{self._engine_id}.{next(self._counter)}"
        return await Template.start(recipe, token, payload_limit=self._settings.max_result_bytes)


async def _prepared(supply: Supply, order: Order) -> Outcome | None:
    """Wait until there is a template to take from; return the outcome if the attempt has to end before."""
    loop = asyncio.get_running_loop()
    asked, deadline = order.asked, order.deadline
    waiting = loop.create_task(supply.prepared(), name="wait for a template")
    try:
        timeout = None if deadline is None else max(0.0, deadline - loop.time())
        await asyncio.wait((waiting, asked), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            waiting.result()
            return None
        if asked.done() and not asked.cancelled():
            return asked.result()
        supply.distrust()
        return TimedOut(transient="timeout" in order.definition.retry_on)
    finally:
        waiting.cancel()
