"""A store in one schema of a PostgreSQL database."""

from asyncjobs.store.postgresql.database import PostgresqlDatabase

__all__ = ["PostgresqlDatabase"]
