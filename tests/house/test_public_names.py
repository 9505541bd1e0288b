"""The names that others rely on: that they are there, say what they are, and cost no more than they must."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import asyncjobs
from asyncjobs import JobClient, JobEngine, JobHandle, UnsupportedPlatform

NAMES = asyncjobs.__all__
VERBS = [
    pytest.param(kind, name, id=f"{kind.__name__}.{name}")
    for kind in (JobClient, JobEngine, JobHandle)
    for name, value in inspect.getmembers(kind)
    if not name.startswith("_") and (callable(value) or isinstance(value, property))
]

# What a job's own process would pay for `from asyncjobs import job` at the top of a user's module.
LOADED_FOR_JOB = {"asyncjobs", "asyncjobs.definition", "asyncjobs.errors", "asyncjobs.options"}


def first_sentence(thing: Any) -> str:
    paragraph = (inspect.getdoc(thing) or "").partition("\n\n")[0]
    return " ".join(paragraph.split())


def modules_loaded_by(code: str) -> set[str]:
    """Return what a fresh interpreter has loaded after running this."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(asyncjobs, name) is not None


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_says_what_it_is_in_one_sentence(name: str) -> None:
    sentence = first_sentence(getattr(asyncjobs, name))

    assert sentence.endswith((".", ":"))


@pytest.mark.parametrize(("kind", "name"), VERBS)
def test_every_public_verb_says_what_it_does(kind: type, name: str) -> None:
    sentence = first_sentence(inspect.getattr_static(kind, name))

    assert sentence[:1].isupper()
    assert sentence.endswith((".", ":"))


def test_dir_shows_every_public_name() -> None:
    assert set(NAMES) <= set(dir(asyncjobs))


def test_a_name_that_is_not_there_raises_as_modules_do() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = asyncjobs.nonsense


def test_every_error_derives_from_one_root() -> None:
    """But for what a job raises to steer its own fate."""
    raised_in_jobs = {"TransientError", "Retry", "Cancel", "JobInterrupted"}
    values = {name: getattr(asyncjobs, name) for name in NAMES}
    errors = {name for name, value in values.items() if isinstance(value, type) and issubclass(value, BaseException)}

    outside = {name for name in errors if not issubclass(values[name], asyncjobs.AsyncJobsError)}

    assert outside == raised_in_jobs


def test_importing_asyncjobs_takes_no_sqlalchemy() -> None:
    loaded = modules_loaded_by("import asyncjobs")

    assert {name for name in loaded if name.startswith(("sqlalchemy", "aiosqlite", "asyncio"))} == set()


def test_importing_job_loads_four_modules_of_ours() -> None:
    loaded = modules_loaded_by("from asyncjobs import job")

    assert {name for name in loaded if name.partition(".")[0] == "asyncjobs"} == LOADED_FOR_JOB


@pytest.mark.parametrize("kind", [JobClient, JobEngine])
def test_windows_is_refused_with_a_sentence(kind: type[JobClient], monkeypatch: pytest.MonkeyPatch) -> None:
    """D33: at construction, before anything is touched."""
    monkeypatch.setattr(sys, "platform", "win32")

    with pytest.raises(UnsupportedPlatform, match="Windows"):
        kind("sqlite:///never-made.db")
