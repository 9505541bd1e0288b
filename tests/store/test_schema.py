"""`schema.py` says what the sum of the migrations makes (F79)."""

import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import create_engine

from asyncjobs.store.migrations import migrations
from asyncjobs.store.schema import metadata
from builders import opened

PRAGMAS = {
    "the columns": 'SELECT cid, name, type, "notnull", dflt_value, pk FROM pragma_table_info(:table)',
    "the keys and how rows are kept": "SELECT wr, strict FROM pragma_table_list WHERE name = :table",
    "the indexes": 'SELECT name, "unique", origin, partial FROM pragma_index_list(:table) ORDER BY name',
    "the columns of the indexes": (
        "SELECT list.name, info.seqno, info.name, info.desc, info.coll FROM pragma_index_list(:table) AS list, "
        "pragma_index_xinfo(list.name) AS info ORDER BY list.name, info.seqno"
    ),
}
CONDITIONS = (
    "SELECT name, substr(sql, instr(sql, ' WHERE ')) FROM sqlite_master "
    "WHERE type = 'index' AND instr(sql, ' WHERE ') ORDER BY name"
)


@pytest.fixture(scope="module")
def declared(tmp_path_factory):
    """A database as `schema.py` has it."""
    path = tmp_path_factory.mktemp("declared") / "jobs.db"
    engine = create_engine(f"sqlite:///{path}")
    metadata.create_all(engine)
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        yield connection


@pytest.fixture
async def migrated(tmp_path):
    """A database as the migrations leave it."""
    async with opened(f"sqlite:///{tmp_path / 'jobs.db'}"):
        pass
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        yield connection


@pytest.mark.parametrize("table", list(metadata.tables))
@pytest.mark.parametrize("query", [pytest.param(query, id=name) for name, query in PRAGMAS.items()])
async def test_the_declared_tables_are_those_of_the_migrations(declared, migrated, table, query):
    found = migrated.execute(query, {"table": table}).fetchall()

    assert found == declared.execute(query, {"table": table}).fetchall()


async def test_the_declared_indexes_are_as_partial_as_those_of_the_migrations(declared, migrated):
    conditions = migrated.execute(CONDITIONS).fetchall()

    assert conditions == declared.execute(CONDITIONS).fetchall()
    assert len(conditions) == 5


async def test_the_migrations_make_the_declared_tables_and_no_others(migrated):
    tables = migrated.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()

    assert {name for (name,) in tables} == set(metadata.tables)


async def test_a_new_database_says_which_migrations_it_has(migrated):
    versions = migrated.execute("SELECT version FROM asyncjobs_schema ORDER BY version").fetchall()

    assert versions == [(number,) for number, _ in migrations("sqlite")]


def test_migrations_are_numbered_from_1_without_a_gap():
    assert [number for number, _ in migrations("sqlite")] == list(range(1, len(migrations("sqlite")) + 1))
