"""The options of a definition, each checked: what is wrong with one, and what it takes instead.

Loaded inside every job's process together with `definition.py`: it imports nothing but errors.
"""

from __future__ import annotations

from asyncjobs.errors import DefinitionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any, Literal

    RetryOn = Literal["timeout", "crash"]
    Isolation = Literal["fork", "spawn", "reuse", "inline"]

ISOLATIONS = ("fork", "spawn", "reuse", "inline")
NAME_LENGTH = 200
MOST_WORKERS = 10_000
PRIORITY_LIMIT = 1000
LONGEST_SECONDS = 10 * 365 * 86400.0


def checked_name(name: Any) -> str:
    """Return the name of a job."""
    if not isinstance(name, str) or not name or len(name) > NAME_LENGTH or not name.isprintable():
        raise DefinitionError(f"a job's name has 1 to {NAME_LENGTH} printable characters, not {name!r}")
    if "," in name or name != name.strip():
        raise DefinitionError(f"a job's name has no comma and no space around it, not {name!r}")
    return name


def checked_int(option: str, value: Any, *, least: int, most: int = 1_000_000) -> int:
    """Return a whole number within its bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise DefinitionError(f"{option} must be a whole number from {least} to {most}, not {value!r}")
    return value


def checked_optional(option: str, value: Any, *, least: int) -> int | None:
    """Return a whole number of at least `least`, or None for no limit."""
    return None if value is None else checked_int(option, value, least=least, most=1 << 50)


def checked_version(version: Any) -> str | None:
    """Return the version of an interpreter, as two or three numbers."""
    if version is None:
        return None
    parts = version.split(".") if isinstance(version, str) else []
    if len(parts) not in (2, 3) or not all(part.isascii() and part.isdigit() for part in parts):
        raise DefinitionError(f"python_version takes a text such as '3.12', not {version!r}")
    return version  # type: ignore[no-any-return]


def checked_lines(lines: Any) -> tuple[str, ...]:
    """Return lines of requirements, without the space around them."""
    listed = tuple(lines) if isinstance(lines, (list, tuple)) else None
    if listed is None or not all(isinstance(line, str) and line.strip() for line in listed):
        raise DefinitionError(f"pip_requirements takes a list of texts such as 'requests>=2', not {lines!r}")
    return tuple(line.strip() for line in listed)


def checked_seconds(option: str, value: Any, *, least: float = 0.0) -> float | None:
    """Return seconds, given as a number or a timedelta, or None."""
    if value is None:
        return None
    seconds = value.total_seconds() if hasattr(value, "total_seconds") else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise DefinitionError(f"{option} takes seconds or a timedelta, not {value!r}")
    if not least <= seconds <= LONGEST_SECONDS:
        raise DefinitionError(f"{option} must be from {least:g} to {LONGEST_SECONDS:.0f} seconds, not {value!r}")
    return float(seconds)


def checked_classes(classes: Any) -> tuple[type[BaseException], ...]:
    """Return exception classes."""
    listed = tuple(classes) if isinstance(classes, (list, tuple, set, frozenset)) else None
    if listed is None or not all(isinstance(each, type) and issubclass(each, BaseException) for each in listed):
        raise DefinitionError(f"transient_error_classes takes a list of exception classes, not {classes!r}")
    return listed


def checked_retry_on(ends: Any) -> tuple[RetryOn, ...]:
    """Return which ends besides exceptions are transient."""
    listed = tuple(ends) if isinstance(ends, (list, tuple, set, frozenset)) else None
    if listed is None or not all(each in ("timeout", "crash") for each in listed):
        raise DefinitionError(f'retry_on takes a list of "timeout" and "crash", not {ends!r}')
    return listed


def checked_isolation(isolation: Any) -> Isolation | None:
    """Return how a job is kept apart, or None."""
    if isolation is not None and isolation not in ISOLATIONS:
        raise DefinitionError(f"isolation must be one of {', '.join(ISOLATIONS)}, not {isolation!r}")
    return isolation  # type: ignore[no-any-return]


def checked_env(env: Any) -> dict[str, str]:
    """Return variables for the environment of a job's process."""
    if env is None:
        return {}
    if not hasattr(env, "items"):
        raise DefinitionError("env takes a mapping of names to texts")
    for name, value in env.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise DefinitionError(f"env has a name that no variable can have: {name!r}")
        if not isinstance(value, str) or "\0" in value:
            raise DefinitionError(f"the value of {name!r} in env must be a text without NUL")
        if not _is_for_the_system(name) or not _is_for_the_system(value):
            raise DefinitionError(f"{name!r} in env has a character that no variable can hold: a lone surrogate")
    return dict(env)


def _is_for_the_system(text: str) -> bool:
    """Whether a variable can hold it; what Python reads from undecodable bytes can go back."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def checked_instant(run_at: Any) -> datetime:
    """Return an aware datetime."""
    if not hasattr(run_at, "utcoffset") or not hasattr(run_at, "year"):
        raise DefinitionError(f"run_at takes a datetime, not {run_at!r}")
    if run_at.utcoffset() is None:
        raise DefinitionError("run_at must be aware: datetime.now(UTC), not datetime.now()")
    return run_at  # type: ignore[no-any-return]


def checked_key(key: Any) -> str:
    """Return the key that makes a submission idempotent."""
    if not isinstance(key, str) or not key or len(key) > 500 or "\0" in key:
        raise DefinitionError(f"key takes a text of 1 to 500 characters, not {key!r}")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise DefinitionError(f"key takes a text that UTF-8 can write, not {key!r}") from None
    return key
