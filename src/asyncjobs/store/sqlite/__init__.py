"""A store in one SQLite file."""

from asyncjobs.store.sqlite.database import SqliteDatabase

__all__ = ["SqliteDatabase"]
