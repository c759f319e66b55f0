"""Stores to test: a file, and a schema of a real PostgreSQL server started for the session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from leptonai.testing.postgres import PostgresServer, programs


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Shared by the tests of this process; whoever kills it starts it again."""
    if programs() is None:
        pytest.skip("NOT TESTED: no PostgreSQL server is installed; sh tests/setup.sh")
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty store may be: each test of the store runs on both kinds."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.schema()
