"""The migrations add up to the tables, from nothing, whoever runs them at the same time."""

from __future__ import annotations

import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect

from adapters.db.migrate import alembic_config, migrate
from adapters.db.schema import metadata
from adapters.db.url import DatabaseUrl


def _differences(url: str) -> list[object]:
    engine = create_engine(DatabaseUrl.parse(url).sqlalchemy)
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True}
            )
            return list(compare_metadata(context, metadata))
    finally:
        engine.dispose()


def _index_sql(url: str) -> dict[str, str]:
    """The indexes as the database has them, with their conditions, which Alembic does not compare."""
    engine = create_engine(DatabaseUrl.parse(url).sqlalchemy)
    source = (
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        if engine.dialect.name == "sqlite"
        else "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    )
    try:
        with engine.connect() as connection:
            return {name: text for name, text in connection.exec_driver_sql(source) if "alembic" not in name}
    finally:
        engine.dispose()


def test_migrated_schema_is_the_metadata(empty_database_url: str) -> None:
    migrate(empty_database_url)
    assert _differences(empty_database_url) == []


def test_partial_indexes_are_migrated_as_declared(database_url: str) -> None:
    migrated = _index_sql(database_url)
    engine = create_engine(DatabaseUrl.parse(database_url).sqlalchemy)
    metadata.drop_all(engine)
    metadata.create_all(engine)
    engine.dispose()
    assert migrated == _index_sql(database_url)


def test_migrating_again_changes_nothing(database_url: str) -> None:
    before = _index_sql(database_url)
    migrate(database_url)
    assert _index_sql(database_url) == before


def test_one_line_of_revisions() -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))
        assert len(scripts.get_heads()) == 1
    engine.dispose()


def test_three_processes_may_start_at_once(empty_database_url: str) -> None:
    program = "import sys; from adapters.db.migrate import migrate; migrate(sys.argv[1])"
    running = [
        subprocess.Popen([sys.executable, "-c", program, empty_database_url], stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    results = [(process.communicate(timeout=60)[1], process.returncode) for process in running]
    assert [code for _, code in results] == [0, 0, 0], b"\n".join(error for error, _ in results).decode()
    assert _differences(empty_database_url) == []


def test_a_failed_migration_leaves_nothing(empty_database_url: str) -> None:
    """All or nothing, so that a start after a crash in the middle begins again from a whole schema."""
    target = DatabaseUrl.parse(empty_database_url).sqlalchemy
    engine = create_engine(target)
    with engine.begin() as connection:
        # In the way of the last table but one: the migration fails after having made others.
        connection.exec_driver_sql("CREATE TABLE deliveries (id INTEGER)")
    with pytest.raises(Exception, match="deliveries"):
        migrate(empty_database_url)
    assert inspect(engine).get_table_names() == ["deliveries"]
    engine.dispose()
