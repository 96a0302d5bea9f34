"""Open sessions of the old version are found, whoever asks."""

from __future__ import annotations

import psycopg
from helpers.controlplane import wait_until
from psycopg import sql

from parallelchange.adapters.postgres.database import _SESSIONS, PostgresDatabase


class _Bare(PostgresDatabase):
    """Only its session: these questions need no plan."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection


def test_a_session_is_found_and_gone_when_it_ends(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as asking:
        seen = _Bare(asking)
        assert seen.sessions("shop-v1") == ()
        with psycopg.connect(database, application_name="shop-v1"), psycopg.connect(database, application_name="other"):
            (found,) = seen.sessions("shop-v1")
            assert "idle" in found
        # The server ends a session a moment after its client is gone.
        wait_until(lambda: seen.sessions("shop-v1") == (), what="the end of the session")


def test_a_new_session_is_found_inside_a_transaction_that_looked_before(database: str) -> None:
    with psycopg.connect(database) as asking:
        seen = _Bare(asking)
        assert seen.sessions("shop-v1") == ()
        with psycopg.connect(database, application_name="shop-v1"):
            assert len(seen.sessions("shop-v1")) == 1


def test_a_plain_role_finds_the_sessions_of_others(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as admin:
        role = f"plain_{admin.info.backend_pid}"
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        try:
            with (
                psycopg.connect(database, application_name="shop-v1"),
                psycopg.connect(database, user=role, autocommit=True) as asking,
            ):
                hidden = asking.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '<insufficient%'")
                assert hidden.fetchone() != (0,), "this role sees everything, so the test shows nothing"
                assert len(_Bare(asking).sessions("shop-v1")) == 1
        finally:
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_a_session_in_another_database_does_not_count(database: str, postgres: object) -> None:
    assert "current_database()" in _SESSIONS
    with (
        psycopg.connect(database, autocommit=True) as asking,
        psycopg.connect(database, dbname="postgres", application_name="shop-v1"),
    ):
        assert _Bare(asking).sessions("shop-v1") == ()
