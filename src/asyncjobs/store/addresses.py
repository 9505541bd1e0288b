"""Which database an address names: a URL, or an application's own `AsyncEngine`."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from asyncjobs.errors import SettingsError
from asyncjobs.settings import Settings
from asyncjobs.store.database import Database

_POSTGRESQL_OPTIONS = frozenset(
    ("host", "port", "ssl", "passfile", "service", "servicefile", "target_session_attrs", "krbsrvname", "gsslib")
)
_DRIVERS = {"sqlite": ("sqlite", "sqlite+aiosqlite"), "postgresql": ("postgresql", "postgresql+asyncpg")}


def database_at(address: Any, settings: Settings) -> Database:
    """Return the database that an address names, not opened yet.

    Raises:
        SettingsError: it names none that is supported, or has options that it can't have.
    """
    url = _url_of(address)
    backend = url.get_backend_name()
    if backend not in _DRIVERS:
        raise SettingsError(f"{backend} is not supported: use SQLite or PostgreSQL, for example 'sqlite:///jobs.db'")
    if url.drivername not in _DRIVERS[backend]:
        raise SettingsError(f"the driver of {url.drivername!r} is not async: write {_DRIVERS[backend][1]!r}")
    if backend == "sqlite":
        from asyncjobs.store.sqlite import SqliteDatabase

        return SqliteDatabase(_path_of(url), synchronous=settings.sqlite_synchronous)
    return _postgresql(address, url, settings)


def _url_of(address: Any) -> URL:
    if isinstance(address, AsyncEngine):
        return address.url
    if not isinstance(address, str | URL):
        raise SettingsError(f"the store takes a URL such as 'sqlite:///jobs.db' or an AsyncEngine, not {address!r}")
    try:
        return make_url(address)
    except ArgumentError:
        raise SettingsError(f"{address!r} is not a database URL; write for example 'sqlite:///jobs.db'") from None


def _path_of(url: URL) -> str:
    if url.query:
        raise SettingsError(f"a SQLite URL takes no options here: {', '.join(sorted(url.query))}")
    if not url.database or url.database == ":memory:":
        raise SettingsError("a store in memory would lose every job: name a file, for example 'sqlite:///jobs.db'")
    return url.database


def _postgresql(address: Any, url: URL, settings: Settings) -> Database:
    if find_spec("asyncpg") is None:
        raise SettingsError("PostgreSQL needs asyncpg: install asyncjobs-engine[postgres]")
    from asyncjobs.store.postgresql import PostgresqlDatabase

    schema = url.query.get("schema", settings.schema)
    if not isinstance(schema, str) or not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]{0,62}", schema):
        raise SettingsError(f"schema takes one name of letters, digits and underscores, not {schema!r}")
    if isinstance(address, AsyncEngine):
        return PostgresqlDatabase(address, schema=schema, pgbouncer=settings.pgbouncer)
    return PostgresqlDatabase(_asyncpg_url(url), schema=schema, pgbouncer=settings.pgbouncer)


def _asyncpg_url(url: URL) -> URL:
    """Return the URL as asyncpg takes it, which knows `sslmode` as `ssl` and not all that libpq does."""
    query = {("ssl" if name == "sslmode" else name): value for name, value in url.query.items() if name != "schema"}
    unknown = sorted(query.keys() - _POSTGRESQL_OPTIONS)
    if unknown:
        raise SettingsError(
            f"a PostgreSQL URL takes no {', '.join(unknown)} here, but schema, sslmode and "
            f"{', '.join(sorted(_POSTGRESQL_OPTIONS - {'ssl'}))}: give other options to an AsyncEngine of your own"
        )
    return url.set(drivername="postgresql+asyncpg", query=query)
