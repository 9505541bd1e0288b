"""A durable job engine for async Python.

The public names are here (events in `asyncjobs.telemetry`, `migrate` in `asyncjobs.store`), and none is imported
before it is used: `from asyncjobs import job` inside a job's module costs that module's process next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asyncjobs.client import JobClient as JobClient
    from asyncjobs.client import JobHandle as JobHandle
    from asyncjobs.client import Page as Page
    from asyncjobs.context import JobContext as JobContext
    from asyncjobs.context import current_job as current_job
    from asyncjobs.definition import Call as Call
    from asyncjobs.definition import JobDefinition as JobDefinition
    from asyncjobs.definition import job as job
    from asyncjobs.engine import Health as Health
    from asyncjobs.engine import JobEngine as JobEngine
    from asyncjobs.errors import AsyncJobsError as AsyncJobsError
    from asyncjobs.errors import Cancel as Cancel
    from asyncjobs.errors import DefinitionError as DefinitionError
    from asyncjobs.errors import DuplicateJobName as DuplicateJobName
    from asyncjobs.errors import EngineError as EngineError
    from asyncjobs.errors import EngineFailed as EngineFailed
    from asyncjobs.errors import EnvironmentFailed as EnvironmentFailed
    from asyncjobs.errors import ForkedClient as ForkedClient
    from asyncjobs.errors import InvalidOptions as InvalidOptions
    from asyncjobs.errors import InvalidParams as InvalidParams
    from asyncjobs.errors import JobCanceled as JobCanceled
    from asyncjobs.errors import JobEnded as JobEnded
    from asyncjobs.errors import JobFailed as JobFailed
    from asyncjobs.errors import JobInterrupted as JobInterrupted
    from asyncjobs.errors import JobNotAllowed as JobNotAllowed
    from asyncjobs.errors import JobNotFound as JobNotFound
    from asyncjobs.errors import JobTimedOut as JobTimedOut
    from asyncjobs.errors import NestedEngine as NestedEngine
    from asyncjobs.errors import NotOpen as NotOpen
    from asyncjobs.errors import Retry as Retry
    from asyncjobs.errors import SchemaMismatch as SchemaMismatch
    from asyncjobs.errors import SettingsError as SettingsError
    from asyncjobs.errors import StoreBusy as StoreBusy
    from asyncjobs.errors import StoreCorrupt as StoreCorrupt
    from asyncjobs.errors import StoreError as StoreError
    from asyncjobs.errors import StoreUnavailable as StoreUnavailable
    from asyncjobs.errors import TransientError as TransientError
    from asyncjobs.errors import UnknownJobName as UnknownJobName
    from asyncjobs.errors import UnsupportedPlatform as UnsupportedPlatform
    from asyncjobs.model.job import Attempt as Attempt
    from asyncjobs.model.job import EngineRecord as EngineRecord
    from asyncjobs.model.job import Job as Job
    from asyncjobs.model.job import JobError as JobError
    from asyncjobs.model.job import JobStatus as JobStatus
    from asyncjobs.model.job import LogChunk as LogChunk
    from asyncjobs.model.job import Progress as Progress
    from asyncjobs.settings import Settings as Settings

__version__ = "0.1.0"

_HOMES = {
    "asyncjobs.client": ("JobClient", "JobHandle", "Page"),
    "asyncjobs.context": ("JobContext", "current_job"),
    "asyncjobs.definition": ("Call", "JobDefinition", "job"),
    "asyncjobs.engine": ("Health", "JobEngine"),
    "asyncjobs.model.job": ("Attempt", "EngineRecord", "Job", "JobError", "JobStatus", "LogChunk", "Progress"),
    "asyncjobs.settings": ("Settings",),
    "asyncjobs.errors": (
        "AsyncJobsError",
        "Cancel",
        "DefinitionError",
        "DuplicateJobName",
        "EngineError",
        "EngineFailed",
        "EnvironmentFailed",
        "ForkedClient",
        "InvalidOptions",
        "InvalidParams",
        "JobCanceled",
        "JobEnded",
        "JobFailed",
        "JobInterrupted",
        "JobNotAllowed",
        "JobNotFound",
        "JobTimedOut",
        "NestedEngine",
        "NotOpen",
        "Retry",
        "SchemaMismatch",
        "SettingsError",
        "StoreBusy",
        "StoreCorrupt",
        "StoreError",
        "StoreUnavailable",
        "TransientError",
        "UnknownJobName",
        "UnsupportedPlatform",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncJobsError",
    "Attempt",
    "Call",
    "Cancel",
    "DefinitionError",
    "DuplicateJobName",
    "EngineError",
    "EngineFailed",
    "EngineRecord",
    "EnvironmentFailed",
    "ForkedClient",
    "Health",
    "InvalidOptions",
    "InvalidParams",
    "Job",
    "JobCanceled",
    "JobClient",
    "JobContext",
    "JobDefinition",
    "JobEnded",
    "JobEngine",
    "JobError",
    "JobFailed",
    "JobHandle",
    "JobInterrupted",
    "JobNotAllowed",
    "JobNotFound",
    "JobStatus",
    "JobTimedOut",
    "LogChunk",
    "NestedEngine",
    "NotOpen",
    "Page",
    "Progress",
    "Retry",
    "SchemaMismatch",
    "Settings",
    "SettingsError",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreUnavailable",
    "TransientError",
    "UnknownJobName",
    "UnsupportedPlatform",
    "current_job",
    "job",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'asyncjobs' has no attribute {name!r}")
    try:
        module = __import__(_HOME_OF[name], fromlist=(name,))
        value = getattr(module, name)
    except ModuleNotFoundError:
        from asyncjobs.elsewhere import stand_in

        value = stand_in(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
