"""Whoever is connected is found, whoever asks."""

from __future__ import annotations

import subprocess
from typing import Any

import psycopg
import pytest
from helpers.controlplane import wait_until
from helpers.postgres15 import BIN, Postgres15
from helpers.world import as_role, login_role
from psycopg import sql

from parallelchange.adapters.postgres.connection import connect
from parallelchange.adapters.postgres.sessions import read_connected
from parallelchange.gates import versions
from parallelchange.gates.base import Act
from parallelchange.model import GateResult, Severity, Verdict
from parallelchange.sessions import Client, Connected, Identity, sessions_of

OLD, NEW = Identity("v1", "shop-v1", None), Identity("v2", "shop-v2", None)
FOR = {"embedded": "database", "postgresql 15": "contrib"}


@pytest.fixture(params=list(FOR))
def url(request: pytest.FixtureRequest) -> Any:
    """A fresh database, on each of two servers."""
    return request.getfixturevalue(FOR[request.param])


def gate(seen: Connected, *clients: Client, old: Identity = OLD, new: Identity = NEW) -> GateResult:
    return versions.judge(versions.VersionsFact(old, new, clients, seen, ()), Act.SET_WEIGHT)


def session(url: str, name: str, **parts: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True, application_name=name, **parts)


def names(connection: Any, identity: Identity = OLD, other: Identity = NEW) -> list[str]:
    return [found.application_name for found in sessions_of(identity, other, read_connected(connection))]


def test_a_session_is_found_and_gone_when_it_ends(url: str) -> None:
    with connect(url) as asking:
        assert gate(read_connected(asking)).verdict is Verdict.PASS
        with session(url, "shop-v1"), session(url, "shop-v2"):
            assert names(asking) == ["shop-v1"]
            result = gate(read_connected(asking))
            assert (result.verdict, result.findings) == (Verdict.PASS, ())
            assert result.measured["sessions"] == {"v1": 1, "v2": 1, "ours": 1}
        # The server ends a session a moment after its client is gone.
        wait_until(lambda: names(asking) == [], what="the end of the session")


def test_a_new_session_is_found_inside_a_transaction_that_looked_before(url: str) -> None:
    with connect(url) as asking, asking.transaction():
        assert names(asking) == []
        with session(url, "shop-v1"):
            assert names(asking) == ["shop-v1"]


@pytest.mark.parametrize("name", ["shop-v0", "", "psql", "parallelchange-x"])
def test_a_third_version_fails_and_is_named(url: str, name: str) -> None:
    with connect(url) as asking, session(url, name), session(url, name):
        result = gate(read_connected(asking))
        assert result.verdict is Verdict.FAIL
        (finding,) = result.findings
        role_ = asking.info.user
        assert f"2 sessions of application_name {name!r}, role {role_}, from " in finding.message
        assert "since 20" in finding.message
        assert "`clients`" in finding.remedy


def test_the_change_file_lets_in_whom_it_names(url: str) -> None:
    with connect(url) as asking, session(url, "pganalyze-7"):
        seen = read_connected(asking)
        assert gate(seen, Client("pganalyze*")).verdict is Verdict.PASS
        assert gate(seen, Client("pganalyze")).verdict is Verdict.FAIL
        assert gate(seen, Client(role=asking.info.user)).verdict is Verdict.PASS
        assert gate(seen, Client("pganalyze*", role="another")).verdict is Verdict.FAIL


def test_an_address_lets_in_its_network(contrib: str, postgres15: Postgres15) -> None:
    by_socket = postgres15.url(psycopg.conninfo.conninfo_to_dict(contrib)["dbname"])
    here, elsewhere = Client(address="127.0.0.0/8"), Client(address="10.0.0.0/8")
    with connect(contrib) as asking:
        with session(contrib, "x"):
            seen = read_connected(asking)
            assert gate(seen, elsewhere, here).verdict is Verdict.PASS
            assert "from 127.0.0.1" in gate(seen, elsewhere).findings[0].message
        wait_until(lambda: gate(read_connected(asking)).verdict is Verdict.PASS, what="its end")
        with session(by_socket, "x"):
            assert gate(read_connected(asking), here).verdict is Verdict.FAIL, "a socket is in no network"


def test_the_name_a_session_takes_later_is_the_one_that_counts(url: str) -> None:
    with connect(url) as asking, session(url, "shop-v1") as worker:
        worker.execute("SET application_name = 'nightly'")
        assert names(asking) == []
        assert "'nightly'" in gate(read_connected(asking)).findings[0].message
        worker.execute("SET application_name = 'parallelchange'")
        assert gate(read_connected(asking)).measured["sessions"] == {"ours": 2}, "our own role may do all we may"


def test_nobody_of_another_role_hides_behind_our_name(url: str) -> None:
    with login_role(url) as other, connect(url) as asking, session(url, "parallelchange", user=other):
        result = gate(read_connected(asking))
        assert (result.verdict, other in result.findings[0].message) == (Verdict.FAIL, True)


def test_a_role_of_its_own_tells_a_session_whatever_its_name(url: str) -> None:
    with login_role(url) as mine, login_role(url) as theirs, connect(url) as asking:
        old, new = Identity("v1", "shop-v1", mine), Identity("v2", "shop-v2", theirs)
        with session(url, "shop-v2", user=mine), session(url, "x", user=mine), session(url, "shop-v2", user=theirs):
            assert names(asking, old, new) == ["shop-v2", "x"]
            told = [f.message for f in gate(read_connected(asking), old=old, new=new).findings]
            assert len(told) == 2, told
            assert f"v2 is declared with role {theirs}" in told[0]
            # SET ROLE and SET SESSION AUTHORIZATION change nothing of what the server shows.
        with session(url, "y") as admin:
            admin.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(mine)))
            assert gate(read_connected(asking), old=old, new=new).verdict is Verdict.FAIL


def test_versions_that_cannot_be_told_are_unknown(url: str) -> None:
    nameless = Identity("v1", None, None)
    with login_role(url) as app, connect(url) as asking:
        assert gate(read_connected(asking), old=nameless).verdict is Verdict.PASS, "nobody is there"
        with session(url, "?", user=app):
            seen = read_connected(asking)
            assert gate(seen, old=nameless).verdict is Verdict.UNKNOWN
            both = Identity("v1", None, app), Identity("v2", None, app)
            assert gate(seen, old=both[0], new=both[1]).verdict is Verdict.UNKNOWN
            assert gate(seen, old=both[0]).measured["sessions"] == {"v1": 1, "ours": 1}


def test_a_plain_role_tells_versions_and_passes_no_stranger(url: str) -> None:
    """It is shown names and roles of others' sessions, and neither kind nor address."""
    everywhere = Client(address="0.0.0.0/1"), Client(address="128.0.0.0/1")
    with login_role(url) as plain, connect(as_role(url, plain)) as asking, session(url, "shop-v1"):
        seen = read_connected(asking)
        assert [s.kind for s in seen.sessions if not s.ours] == [None], "this role sees all: it shows nothing"
        assert names(asking) == ["shop-v1"]
        assert gate(seen).verdict is Verdict.PASS
        with session(url, "shop-v0"):
            result = gate(read_connected(asking), *everywhere)
            assert result.verdict is Verdict.UNKNOWN
            assert "GRANT pg_read_all_stats" in result.findings[0].remedy
    with (
        login_role(url, "pg_read_all_stats") as reader,
        session(url, "shop-v0"),
        connect(as_role(url, reader)) as asking,
    ):
        assert gate(read_connected(asking)).verdict is Verdict.FAIL


def test_sessions_are_told_where_activities_are_not_tracked(url: str) -> None:
    with connect(url) as asking, session(url, "shop-v1", options="-c track_activities=off"):
        assert names(asking) == ["shop-v1"]
        with session(url, "x", options="-c track_activities=off"):
            assert gate(read_connected(asking)).verdict is Verdict.FAIL


def test_what_is_not_in_this_database_does_not_count(url: str) -> None:
    with connect(url) as asking, session(url, "shop-v0", dbname="postgres"):
        seen = read_connected(asking)
        assert [s.kind for s in seen.sessions] == ["client backend"], "and the server's own workers do not either"
        assert gate(seen).verdict is Verdict.PASS


def test_a_session_in_a_transaction_says_so(url: str) -> None:
    with connect(url) as asking, psycopg.connect(url, application_name="shop-v1") as worker:
        worker.execute("SELECT 1")
        (found,) = sessions_of(OLD, NEW, read_connected(asking))
        assert found.state == "idle in transaction"


def test_prepared_transactions_are_told_with_their_owner(contrib: str, postgres15: Postgres15) -> None:
    name = psycopg.conninfo.conninfo_to_dict(contrib)["dbname"]
    with session(contrib, "shop-v1") as worker, session(postgres15.url(), "elsewhere") as elsewhere:
        for connection, gid in ((worker, f"mine-{name}"), (elsewhere, f"not-here-{name}")):
            connection.execute("BEGIN")
            connection.execute("SELECT pg_current_xact_id()")
            connection.execute(sql.SQL("PREPARE TRANSACTION {}").format(gid))
        try:
            with connect(contrib) as asking:
                (found,) = read_connected(asking).prepared
                assert (found.gid, found.owner, found.age >= 0) == (f"mine-{name}", "postgres", True)
        finally:
            worker.execute(sql.SQL("ROLLBACK PREPARED {}").format(f"mine-{name}"))
            elsewhere.execute(sql.SQL("ROLLBACK PREPARED {}").format(f"not-here-{name}"))


def test_replication_is_left_out_with_its_reason(contrib: str) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(contrib)
    slot = f"slot_{parts['dbname']}"
    with connect(contrib) as asking:
        asking.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
        asking.execute("CREATE PUBLICATION p FOR ALL TABLES")
        command = [BIN / "pg_recvlogical", "-h", parts["host"], "-p", parts["port"], "-U", "postgres", "-d",
                   parts["dbname"], "-S", slot, "--start", "-f", "-", "-o", "proto_version=1",
                   "-o", "publication_names=p"]  # fmt: skip
        reader = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            kinds = ["walsender", "client backend"]
            wait_until(
                lambda: sorted(str(s.kind) for s in read_connected(asking).sessions) == sorted(kinds),
                what="the replication connection",
            )
            seen = read_connected(asking)
            result = gate(seen)
            assert (result.verdict, [f.severity for f in result.findings]) == (Verdict.PASS, [Severity.INFO])
            assert [told.split()[:2] for told in seen.replays] == [["logical", "slot"]]
        finally:
            reader.terminate()
            reader.wait()
            wait_until(lambda: len(read_connected(asking).sessions) == 1, what="its end")
            asking.execute("SELECT pg_drop_replication_slot(%s)", (slot,))


def test_a_replication_connection_under_the_old_name_is_the_old_version(contrib: str) -> None:
    """Such a connection may also send plain SQL."""
    with connect(contrib) as asking, session(contrib, "shop-v1", replication="database") as odd:
        odd.pgconn.exec_(b"SELECT 1")
        assert names(asking) == ["shop-v1"]


def test_parallel_workers_count_with_their_leader(url: str) -> None:
    with connect(url) as asking, session(url, "shop-v1") as worker:
        worker.execute("CREATE TABLE big AS SELECT g FROM generate_series(1, 400000) g")
        worker.execute("ANALYZE big")
        for setting in ("parallel_setup_cost = 0", "min_parallel_table_scan_size = 0", "parallel_tuple_cost = 0"):
            worker.execute(sql.SQL("SET {}").format(sql.SQL(setting)))
        worker.pgconn.send_query(b"SELECT count(*) FROM big WHERE pg_sleep(g * 1e-9 + 0.0005) IS NOT NULL")
        workers = "SELECT count(*) FROM pg_stat_activity WHERE leader_pid IS NOT NULL AND datname = current_database()"
        wait_until(lambda: (asking.execute(workers).fetchone() or (0,))[0] > 0, what="parallel workers")
        assert names(asking) == ["shop-v1"]
        assert gate(read_connected(asking)).verdict is Verdict.PASS
        worker.cancel_safe()
        while worker.pgconn.get_result():
            pass


def test_autovacuum_does_not_count_whoever_asks(url: str) -> None:
    """A role that is not shown its kind could take it for a session without a name."""
    slow = "autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_limit = 1"
    with login_role(url) as plain, connect(url) as asking, connect(as_role(url, plain)) as plainly:
        asking.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
        try:
            asking.execute("SELECT pg_reload_conf()")
            asking.execute("CREATE TABLE big AS SELECT g FROM generate_series(1, 100000) g")
            asking.execute(
                sql.SQL("ALTER TABLE big SET ({}, autovacuum_vacuum_cost_delay = 100)").format(sql.SQL(slow))
            )
            asking.execute("UPDATE big SET g = g + 1")
            worker = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND query LIKE '%big%'"
            (pid,) = wait_until(lambda: asking.execute(worker).fetchone(), what="an autovacuum worker")
            for seen in (read_connected(asking), read_connected(plainly)):
                assert pid not in {session.pid for session in seen.sessions}
            assert gate(read_connected(asking), Client(role=plain)).verdict is Verdict.PASS
        finally:
            asking.execute("ALTER SYSTEM RESET autovacuum_naptime")
            asking.execute("SELECT pg_reload_conf()")


def test_a_background_worker_is_told_as_a_warning(contrib: str) -> None:
    """It may run anything, such as a job of the old version: the server does not show what."""
    parts = psycopg.conninfo.conninfo_to_dict(contrib)
    with connect(contrib) as asking, psycopg.connect(contrib, autocommit=True, dbname="postgres") as other:
        own = f"host={parts['host']} port={parts['port']} user=postgres dbname=postgres"
        slot = f"slot_{parts['dbname']}"
        other.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
        try:
            asking.execute(
                sql.SQL(
                    "CREATE SUBSCRIPTION s CONNECTION {} PUBLICATION none WITH (create_slot = false, slot_name = {})"
                ).format(own, sql.Identifier(slot))
            )
            try:
                wait_until(lambda: len(read_connected(asking).sessions) == 2, what="its worker")
                seen = read_connected(asking)
                result = gate(seen)
                assert (result.verdict, [f.id for f in result.findings]) == (Verdict.PASS, ["versions.worker"])
                assert result.findings[0].severity is Severity.WARNING
                assert seen.replays == ("subscription s",)
            finally:
                asking.execute("ALTER SUBSCRIPTION s DISABLE")
                asking.execute("ALTER SUBSCRIPTION s SET (slot_name = NONE)")
                asking.execute("DROP SUBSCRIPTION s")
        finally:
            wait_until(
                lambda: other.execute(
                    "SELECT NOT active FROM pg_replication_slots WHERE slot_name = %s", (slot,)
                ).fetchone() == (True,), what="the slot's end",
            )  # fmt: skip
            other.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
