"""From calls to what would be stored: by the registry, the allow-list and the signature."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from asyncjobs import large
from asyncjobs.client.submission import encoded_call, encoded_params, submission_of
from asyncjobs.definition import Call, JobDefinition
from asyncjobs.errors import InvalidOptions, InvalidParams, JobNotAllowed, UnknownJobName
from asyncjobs.registry import Registry
from asyncjobs.settings import Settings
from asyncjobs.store import Submission
from asyncjobs.unhurried import AT_ONCE


class Preparing:
    """Checks what is submitted to a client; to an engine (`registered_only`) nothing but what it was given."""

    def __init__(self, registry: Registry, settings: Settings, *, registered_only: bool) -> None:
        self._registry = registry
        self._settings = settings
        self._registered_only = registered_only

    async def call(self, definition: Any, args: Any, kwargs: Any) -> Submission:
        """Check a call, and return what would be stored; large arguments are written in a thread."""
        ready = self.call_at_once(definition, args, kwargs)
        return ready or await self.call_in_thread(definition, args, kwargs)

    def call_at_once(self, definition: Any, args: Any, kwargs: Any) -> Submission | None:
        """Check a call, and return what would be stored; None where its arguments are large: then in a thread."""
        if not isinstance(definition, JobDefinition):
            raise InvalidOptions(f"submit takes a function decorated with @job, not {definition!r}")
        if not self._registry.holds(definition) and self._registered_only:
            raise UnknownJobName(definition.name, [each.name for each in self._registry])
        self._check_allowed(definition.name)
        if large.are_large(args) or (kwargs and large.is_large(kwargs)):
            return None
        text = encoded_call(definition, args, kwargs, limit=self._settings.max_params_bytes)
        return submission_of(definition, text, settings=self._settings)

    async def call_in_thread(self, definition: JobDefinition[..., Any], args: Any, kwargs: Any) -> Submission:
        """Return what would be stored of a call whose arguments are large, and whose definition was checked."""
        limit = self._settings.max_params_bytes
        text = await large.write(partial(encoded_call, definition, limit=limit), args, kwargs)
        return submission_of(definition, text, settings=self._settings)

    async def calls(self, calls: Sequence[Call[Any]]) -> list[Submission]:
        """Check many calls, and return what would be stored."""
        submissions: list[Submission] = []
        for at, call in enumerate(calls):
            if not isinstance(call, Call):
                raise InvalidOptions(f"submit_many takes calls made by definition.bind(...), not {call!r}")
            submissions.append(await self.call(call.definition, call.args, call.kwargs))
            if at % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
        return submissions

    async def named(
        self, name: str, params: Any, options: dict[str, Any]
    ) -> tuple[JobDefinition[..., Any], Submission]:
        """Check a submission by name, and return its definition and what would be stored."""
        definition = self._registry.get(name)
        if not isinstance(params, dict):
            raise InvalidParams(name, None, f"params must be a dict of names to values, not {type(params).__name__}")
        if options:
            definition = definition.using(**options)
        self._check_allowed(name)
        limit = self._settings.max_params_bytes
        if large.is_large(params):
            text = await large.write(partial(encoded_params, definition, limit=limit), params)
        else:
            text = encoded_params(definition, params, limit=limit)
        return definition, submission_of(definition, text, settings=self._settings)

    def _check_allowed(self, name: str) -> None:
        allowed = self._settings.allowed_jobs
        if allowed is not None and name not in allowed:
            raise JobNotAllowed(name)
