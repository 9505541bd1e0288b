"""The settings of a client: by keyword, by environment, by `[tool.asyncjobs]`, or the default.

The first of these that names a field wins. In the environment a field is `ASYNCJOBS_<FIELD>`, its
lists separated by commas. The TOML table is looked for in the nearest `pyproject.toml`, from the
working directory upwards.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncjobs.errors import SettingsError
from asyncjobs.nearest import nearest, unknown

MEBIBYTE = 1024 * 1024
MOST = 10 * 365 * 86400  # ten years of seconds; more than enough of anything else, too
DEFAULT_ISOLATION = "fork" if sys.platform == "linux" else "spawn"
ISOLATIONS = ("fork", "spawn", "reuse", "inline")
_PREFIX = "ASYNCJOBS_"
_OF_PROCESSES = "ASYNCJOBS_PROCESS"  # by which the processes of jobs are found (`execution/inside/tree.py`)
_OF_TESTS = "ASYNCJOBS_TEST_"


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(value)
    return float(value)


def _optional_number(value: Any) -> float | None:
    return None if value is None or value == "" else _number(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(value)
    return int(value)


def _optional_whole(value: Any) -> int | None:
    return None if value is None or value == "" else _whole(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


def _optional_text(value: Any) -> str | None:
    return None if value is None or value == "" else _text(value)


def _yes_or_no(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        return value.lower() in ("1", "true", "yes", "on")
    raise ValueError(value)


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    if isinstance(value, list | tuple | set | frozenset) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ValueError(value)


def _optional_names(value: Any) -> tuple[str, ...] | None:
    return None if value is None else _names(value)


def _setting(name: str, default: Any, read: Callable[[Any], Any], form: str, *, least: float | None = None) -> Any:
    """Declare a field that is filled from outside when no keyword gives it."""
    return field(
        default_factory=lambda: _from_outside(name, default),
        metadata={"read": read, "form": form, "least": least},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a client and its engine go by; frozen.

    Times are seconds, sizes bytes. What a definition leaves open is as `max_retries`, `retry_delay`,
    `retry_max_delay`, `timeout`, `kill_grace` and `isolation` say (`job` explains them); `timeout` None means
    no time limit. `stop_grace` passes between an engine's stop and the interruption of what it still runs. A job
    may lose its engine or template `interruptions` times before it FAILED. Params and results may be as long as
    `max_params_bytes` and `max_result_bytes` of JSON text. Of an attempt's output `max_output_bytes` are kept, half
    of them its beginning, as it comes, and half its end, once it has ended. `max_processes` is how many attempts an
    engine runs at once over all names, None as many as their `max_workers` allow. `allowed_jobs` None allows every
    name. `jobs` names further dotted functions to register. A template process is replaced after `template_jobs` or
    `template_seconds`, and when the files it has imported change where `reload` is set (by default in Python's
    development mode); a warm one after `reuse_jobs`, `reuse_seconds`, or when it has grown by `reuse_growth_bytes`.
    `environments` is the folder of those that jobs ask for, None the user's cache.

    On SQLite `sqlite_synchronous` FULL loses nothing to a power cut, NORMAL perhaps the last commits; neither
    loses anything to a crash of a process.

    On PostgreSQL the tables are in `schema`, unless the URL names another (`?schema=`); `pgbouncer` is for a
    connection through PgBouncer in transaction mode.

    Raises:
        SettingsError: there is no such setting, or its value has the wrong form or is out of range; the message
            names it.
    """

    max_retries: int = _setting("max_retries", 3, _whole, "a whole number", least=0)
    retry_delay: float = _setting("retry_delay", 15.0, _number, "seconds", least=0)
    retry_max_delay: float = _setting("retry_max_delay", 60.0, _number, "seconds", least=0)
    timeout: float | None = _setting("timeout", None, _optional_number, "seconds", least=0.001)
    kill_grace: float = _setting("kill_grace", 2.0, _number, "seconds", least=0)
    stop_grace: float = _setting("stop_grace", 10.0, _number, "seconds", least=0)
    interruptions: int = _setting("interruptions", 10, _whole, "a whole number", least=0)
    isolation: str = _setting("isolation", DEFAULT_ISOLATION, _text, f"one of {', '.join(ISOLATIONS)}")
    max_params_bytes: int = _setting("max_params_bytes", 10 * MEBIBYTE, _whole, "bytes", least=2)
    max_result_bytes: int = _setting("max_result_bytes", 10 * MEBIBYTE, _whole, "bytes", least=4)
    max_output_bytes: int = _setting("max_output_bytes", MEBIBYTE, _whole, "bytes", least=0)
    max_processes: int | None = _setting("max_processes", None, _optional_whole, "a whole number", least=1)
    template_jobs: int = _setting("template_jobs", 10_000, _whole, "a whole number", least=1)
    template_seconds: float = _setting("template_seconds", 86400.0, _number, "seconds", least=1)
    reload: bool = _setting("reload", sys.flags.dev_mode, _yes_or_no, "true or false")
    reuse_jobs: int = _setting("reuse_jobs", 1000, _whole, "a whole number", least=1)
    reuse_seconds: float = _setting("reuse_seconds", 3600.0, _number, "seconds", least=1)
    reuse_growth_bytes: int = _setting("reuse_growth_bytes", 256 * MEBIBYTE, _whole, "bytes", least=0)
    environments: str | None = _setting("environments", None, _optional_text, "a folder")
    allowed_jobs: tuple[str, ...] | None = _setting("allowed_jobs", None, _optional_names, "names")
    jobs: tuple[str, ...] = _setting("jobs", (), _names, "dotted names")
    schema: str = _setting("schema", "asyncjobs", _text, "a name")
    pgbouncer: bool = _setting("pgbouncer", False, _yes_or_no, "true or false")
    sqlite_synchronous: str = _setting("sqlite_synchronous", "NORMAL", _text, "NORMAL or FULL")

    if not TYPE_CHECKING:

        def __new__(cls, *positional: Any, **given: Any) -> Any:
            """Refuse what is no setting, in the words of the others; `__init__` takes the rest."""
            if positional:
                raise SettingsError(f"Settings takes keywords, such as Settings(max_retries=5), not {positional[0]!r}")
            known = [each.name for each in fields(cls)]
            for name in given:
                if name not in known:
                    raise SettingsError(f"Settings has no {unknown(name, known)}")
            return object.__new__(cls)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            object.__setattr__(self, each.name, _checked(each.name, value, each.metadata))
        if self.isolation not in ISOLATIONS:
            source = _source("isolation", self.isolation)
            raise SettingsError(
                f"the setting isolation takes one of {', '.join(ISOLATIONS)}, not {self.isolation!r}{source}"
            )
        if self.sqlite_synchronous.upper() not in ("NORMAL", "FULL"):
            source = _source("sqlite_synchronous", self.sqlite_synchronous)
            raise SettingsError(
                f"the setting sqlite_synchronous takes NORMAL or FULL, not {self.sqlite_synchronous!r}{source}"
            )
        object.__setattr__(self, "sqlite_synchronous", self.sqlite_synchronous.upper())


def ignored_variables() -> list[tuple[str, str | None]]:
    """Return what stands in the environment like a setting and is none, each with the variable likely meant."""
    settings = {_variable(each.name): each.name for each in fields(Settings)}
    ignored: list[tuple[str, str | None]] = []
    for variable in sorted(os.environ.keys() - settings.keys() - {_OF_PROCESSES}):
        if variable.upper().startswith(_PREFIX) and not variable.startswith(_OF_TESTS):
            meant = nearest(variable[len(_PREFIX) :].lower(), settings.values())
            ignored.append((variable, None if meant is None else _variable(meant)))
    return ignored


def _variable(name: str) -> str:
    return f"{_PREFIX}{name.upper()}"


def _from_outside(name: str, default: Any) -> Any:
    variable = _variable(name)
    if variable in os.environ:
        return os.environ[variable]
    return _project_table(Path.cwd()).get(name, default)


def _checked(name: str, value: Any, metadata: Any) -> Any:
    try:
        read = metadata["read"](value)
    except (ValueError, OverflowError):
        raise SettingsError(
            f"the setting {name} takes {metadata['form']}, not {value!r}{_source(name, value)}"
        ) from None
    least = metadata["least"]
    if least is not None and read is not None and not read >= least:
        raise SettingsError(f"the setting {name} must be at least {least:g}, not {value!r}{_source(name, value)}")
    if least is not None and read is not None and not read <= MOST:
        raise SettingsError(f"the setting {name} must be at most {MOST}, not {value!r}{_source(name, value)}")
    return read


def _source(name: str, value: Any) -> str:
    """Say where a refused value came from, if no keyword gave it."""
    variable = _variable(name)
    if variable in os.environ:
        return f" (from {variable} in the environment)" if os.environ[variable] == value else ""
    table = _project_table(Path.cwd())
    return " (from [tool.asyncjobs] in pyproject.toml)" if name in table and table[name] is value else ""


@lru_cache(maxsize=8)
def _project_table(folder: Path) -> dict[str, Any]:
    for each in (folder, *folder.parents):
        file = each / "pyproject.toml"
        if not file.is_file():
            continue
        try:
            tool = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {})
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{file} can't be read for [tool.asyncjobs]: {error}") from error
        table = tool.get("asyncjobs", {}) if isinstance(tool, dict) else None
        if not isinstance(table, dict):
            raise SettingsError(f"tool.asyncjobs in {file} must be a table: [tool.asyncjobs]")
        known = [each.name for each in fields(Settings)]
        strange = sorted(set(table) - set(known))
        if strange:
            raise SettingsError(f"[tool.asyncjobs] in {file} names what is no setting: {unknown(strange[0], known)}")
        return dict(table)
    return {}
