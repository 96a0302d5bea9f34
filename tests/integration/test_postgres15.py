"""The PostgreSQL 15 that other tests use is what they take it for."""

from __future__ import annotations

import psycopg


def test_it_counts_statements(contrib: str) -> None:
    with psycopg.connect(contrib, autocommit=True) as session:
        assert session.info.server_version // 10000 == 15
        session.execute("SELECT 41 + 1")
        calls = session.execute(
            "SELECT calls, query FROM pg_stat_statements JOIN pg_database d ON d.oid = dbid"
            " WHERE datname = current_database() AND query LIKE 'SELECT $1 +%'"
        ).fetchall()
        assert calls == [(1, "SELECT $1 + $2")]
