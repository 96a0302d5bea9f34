"""Replaying what a version sends, on a real PostgreSQL, before and after some DDL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from helpers.world import run_sql

from parallelchange.adapters.postgres.execute import execute_all
from parallelchange.corpus import Corpus, Recorded, Step, Unit
from parallelchange.errors import Unavailable
from parallelchange.gates.execute import Executed, PhaseRun, judge
from parallelchange.model import GateResult, State, Verdict

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN

DDL = (
    "CREATE TABLE parent (id int PRIMARY KEY)",
    "INSERT INTO parent VALUES (1), (2)",
    """CREATE TABLE t (id serial PRIMARY KEY, a text NOT NULL UNIQUE, p int REFERENCES parent
        DEFERRABLE INITIALLY DEFERRED, at timestamptz DEFAULT now())""",
    "INSERT INTO t (a, p) SELECT 'row ' || g, 1 FROM generate_series(1, 5) g",
)

ADDS = "ALTER TABLE t ADD n int NOT NULL DEFAULT 0; ALTER TABLE t ALTER n DROP DEFAULT"

Sent = str | tuple[Any, ...]
"""A statement, or a statement with its parameters' types, values and the code it failed with."""


class Sender:
    """Makes a corpus as it is written down: `sender(statements…)` is one unit of work."""

    def __init__(self) -> None:
        self.statements: dict[str, Recorded] = {}
        self.units: list[Unit] = []

    def __call__(self, *sent: Sent, end: str = "commit", session: int = 1) -> Sender:
        steps = []
        for each in sent:
            sql, types, values, sqlstate = ((each,) if isinstance(each, str) else each) + ((), (), "")[
                (1 if isinstance(each, str) else len(each)) - 1 :
            ]
            statement = Recorded(sql, tuple(types), (), False, "test")
            self.statements[statement.id] = statement
            steps.append(Step(statement.id, tuple(values), sqlstate))
        self.units.append(Unit(session, tuple(steps), end if len(steps) > 1 or end != "commit" else "auto"))
        return self

    @property
    def corpus(self) -> Corpus:
        return Corpus("v1", tuple(self.statements.values()), tuple(self.units))


def sent(*statements: Sent, **options: Any) -> Sender:
    return Sender()(*statements, **options)


def errors(executed: Sequence[Executed]) -> dict[str, list[str | None]]:
    """What each statement said, each time."""
    return {item.sql: [outcome.error for outcome in item.outcomes] for item in executed}


def run(url: str, sender: Sender, *, role: str | None = None, before: Any = None) -> tuple[Executed, ...]:
    return execute_all(url, "app", sender.corpus, role=role, before=before)


def verdict(url: str, sender: Sender, *ddl: str, role: str | None = None) -> tuple[GateResult, GateResult]:
    """The verdict before some DDL and after it."""
    before = run(url, sender, role=role)
    run_sql(url, *ddl) if ddl else None
    after = run(url, sender, role=role, before=before)
    return (
        judge(PhaseRun("v1", State.BASE, before, None, "app")),
        judge(PhaseRun("v1", State.EXPANDED, after, before, "app")),
    )


@pytest.fixture
def shop(database: str) -> str:
    run_sql(database, *DDL)
    return database


def contents(url: str) -> list[Any]:
    return run_sql(
        url,
        "SELECT (SELECT json_agg(t ORDER BY id)::text FROM t), (SELECT last_value || is_called::text FROM t_id_seq),"
        " (SELECT string_agg(relname, ',' ORDER BY 1) FROM pg_class WHERE relnamespace = 'public'::regnamespace)",
    )


def test_later_units_see_what_earlier_ones_wrote_and_nothing_is_left(shop: str) -> None:
    before = contents(shop)
    sender = Sender()
    sender("INSERT INTO t (a, p) VALUES ('new', 1) RETURNING id")
    sender("UPDATE t SET a = 'newer' WHERE a = 'new'", session=2)
    sender("CREATE TABLE IF NOT EXISTS made (x int)", "INSERT INTO made VALUES (1)", "SELECT * FROM made")
    sender("SELECT * FROM made", session=3)
    ran = run(shop, sender)
    assert [item.outcomes[0].rows for item in ran[:2]] == [1, 1]
    assert [o.rows for o in ran[-1].outcomes] == [1, 1]
    assert ran[0].outcomes[0].columns == ("id integer",)
    assert set(map(tuple, errors(ran).values())) <= {(None,), (None, None)}
    assert contents(shop) == before
    assert run(shop, sender) == ran, "the second replay has the same ids"
    assert verdict(shop, sender)[1].verdict is PASS


def test_one_that_fails_does_not_hide_the_rest(shop: str) -> None:
    sender = sent("SELECT 1/0", "INSERT INTO t (a) VALUES ('b')", "SELECT a FROM t WHERE a = 'b'")
    ran = run(shop, sender)
    assert [(o.sqlstate, o.rows) for item in ran for o in item.outcomes] == [("22012", None), (None, 1), (None, 1)]


def test_rolled_back_units_leave_nothing_to_later_ones(shop: str) -> None:
    sender = sent("INSERT INTO t (a) VALUES ('b')", "SELECT 1", end="rollback")
    sender("SELECT a FROM t WHERE a = 'b'")
    assert run(shop, sender)[-1].outcomes[0].rows == 0


def test_savepoints_of_the_version(shop: str) -> None:
    sender = sent(
        "SAVEPOINT a",
        "INSERT INTO t (a) VALUES ('b')",
        "ROLLBACK TO SAVEPOINT a",
        "SELECT a FROM t WHERE a = 'b'",
        "INSERT INTO t (a) VALUES ('c')",
        "RELEASE a",
        "RELEASE a",
    )
    ran = errors(run(shop, sender))
    assert ran.pop("RELEASE a") == [None, "savepoint a does not exist"]
    assert set(map(tuple, ran.values())) == {(None,)}


def test_a_failure_that_was_recorded_is_neither_proof_nor_blame(shop: str) -> None:
    twice = ("INSERT INTO t (id, a) VALUES (1, 'b')", (), (), "23505")
    sender = sent(twice, ("SELECT 1", (), (), "25P02")).__call__("SELECT a FROM t")
    assert verdict(shop, sender)[1].verdict is PASS
    assert verdict(shop, sender, "ALTER TABLE t DROP CONSTRAINT t_pkey")[1].verdict is PASS
    fails = verdict(shop, sent(twice)("SELECT a FROM t"), "ALTER TABLE t ADD CHECK (a <> 'b')")
    assert [r.verdict for r in fails] == [PASS, UNKNOWN], "it worked, and then failed otherwise than recorded"


def test_another_error_in_place_of_the_recorded_one(shop: str) -> None:
    twice = ("INSERT INTO t (id, a) VALUES (1, 'b')", (), (), "23505")
    base, now = verdict(shop, sent(twice)("SELECT a FROM t"), "ALTER TABLE t ADD n int, ADD CHECK (a <> 'b')")
    assert (base.verdict, now.verdict) == (PASS, FAIL)
    assert "where 23505 was recorded" in now.findings[0].message


def test_a_commit_that_ended_a_failed_transaction_rolled_it_back(shop: str) -> None:
    sender = sent("INSERT INTO t (a) VALUES ('b')", ("SELECT 1/0", (), (), "22012"))
    sender("SELECT a FROM t WHERE a = 'b'")
    assert run(shop, sender)[-1].outcomes[0].rows == 0


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_deferred_constraints_speak_up_at_each_commit(shop: str, end: str) -> None:
    insert = "INSERT INTO t (a, p) VALUES ('b', 2)"
    sender = sent(insert, "SELECT 1", end=end)("SELECT a FROM t WHERE a = 'b'")
    base, now = verdict(shop, sender, "DELETE FROM parent WHERE id = 2")
    assert (base.verdict, now.verdict) == (PASS, FAIL)
    assert 'violates foreign key constraint "t_p_fkey"' in now.findings[0].message
    # Within a transaction the parent may still come.
    run_sql(shop, "INSERT INTO parent VALUES (2)")
    late = sent("INSERT INTO t (a, p) VALUES ('c', 7)", "INSERT INTO parent VALUES (7)")
    late("INSERT INTO t (a, p) VALUES ('d', 8)", "INSERT INTO parent VALUES (8)")
    assert verdict(shop, late)[1].verdict is PASS


@pytest.mark.parametrize(
    ("sql", "ddl", "says"),
    [
        ("INSERT INTO t (a) VALUES ('b')", ADDS, 'null value in column "n"'),
        ("INSERT INTO t (a) VALUES ('b')", "ALTER TABLE t ALTER id DROP DEFAULT", 'null value in column "id"'),
        ("INSERT INTO t (a) VALUES ('b')", "ALTER TABLE t ADD CHECK (a <> 'b')", "violates check constraint"),
        ("SELECT a FROM t", "ALTER TABLE t RENAME a TO b", 'column "a" does not exist'),
        ("SELECT * FROM t", "ALTER TABLE t ADD n int", "now gives (id integer, a text, p integer"),
        ("DELETE FROM parent WHERE id = 2", "INSERT INTO t (a, p) VALUES ('x', 2)", "violates foreign key"),
        (
            "UPDATE t SET a = 'z' WHERE id = 1",
            "CREATE RULE r AS ON UPDATE TO t DO INSTEAD NOTHING",
            "1 rows before, none now",
        ),
        (
            "SELECT f()",
            "CREATE OR REPLACE FUNCTION f() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM 1/0; END'",
            "division by zero",
        ),
        (
            "SELECT f()",
            "CREATE OR REPLACE FUNCTION f() RETURNS void LANGUAGE sql AS ''",
            "1 written rows before, none now",
        ),
        ("CALL p()", "ALTER TABLE t RENAME a TO b", 'column "a"'),
        ("DO 'BEGIN DELETE FROM t WHERE id = 3; END'", "DELETE FROM t WHERE id = 3", "1 written rows before, none now"),
        (
            "WITH d AS (DELETE FROM t WHERE id = 3 RETURNING 1) SELECT count(*) FROM d",
            "DELETE FROM t WHERE id = 3",
            "1 written rows",
        ),
        ("COPY t (a) FROM STDIN WITH (FORMAT csv)", ADDS, 'null value in column "n"'),
        ("COPY t FROM STDIN", "ALTER TABLE t ADD n int", "missing data for column"),
        ("COPY t TO STDOUT", "DROP TABLE t CASCADE", 'relation "t" does not exist'),
        ("SELECT count(*), sum(p) FROM t WHERE id < 4", "DELETE FROM t WHERE id < 4", "it gave 3 3 before, 0 NULL now"),
        ("SELECT EXISTS (SELECT FROM t WHERE id = 1)", "DELETE FROM t WHERE id = 1", "it gave t before, f now"),
        ("SELECT a FROM t WHERE id < 4", "DELETE FROM t WHERE id < 4", "3 rows before, none now"),
        (
            "INSERT INTO v (a) VALUES ('b')",
            "CREATE OR REPLACE VIEW v AS SELECT DISTINCT id, a FROM t",
            "cannot insert into view",
        ),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", "ALTER TABLE t RENAME a TO b", 'column "a" does not exist'),
    ],
)
def test_what_worked_and_no_longer_does(shop: str, sql: str, ddl: str, says: str) -> None:
    run_sql(
        shop,
        "CREATE VIEW v AS SELECT id, a FROM t",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DELETE FROM t WHERE id = 3'",
        "CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN UPDATE t SET a = ''q'' WHERE id = 4; END'",
    )
    base, now = verdict(shop, sent(sql), ddl)
    assert base.verdict is PASS, base.findings
    assert now.verdict is FAIL
    assert says in now.findings[0].message
    assert "v1 " in now.findings[0].message
    assert now.findings[0].where == "v1: test"


def test_another_number_of_rows_is_in_doubt(shop: str) -> None:
    assert verdict(shop, sent("SELECT a FROM t"), "DELETE FROM t WHERE id = 2")[1].verdict is UNKNOWN
    told = "SELECT attname FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0"
    assert verdict(shop, sent(told), "ALTER TABLE t ADD n int")[1].verdict is PASS


def test_rows_that_privileges_and_row_security_hide(shop: str) -> None:
    role = f"app_{psycopg.conninfo.conninfo_to_dict(shop)['dbname']}"
    run_sql(
        shop,
        f"CREATE ROLE {role}",
        f"GRANT USAGE ON SCHEMA public TO {role}",
        f"GRANT SELECT ON t TO {role}",
        f"ALTER ROLE {role} SET search_path = nowhere, public",
        f"ALTER ROLE {role} SET app.tenant = '7'",
    )
    try:
        reads = sent("SELECT a FROM t")(
            "SELECT 1 WHERE current_setting('app.tenant') = '7' AND current_user = session_user"
        )
        base, now = verdict(shop, reads, "ALTER TABLE t ENABLE ROW LEVEL SECURITY", role=role)
        assert (base.verdict, now.verdict) == (PASS, FAIL)
        assert "5 rows before, none now" in now.findings[0].message
        assert run(shop, reads, role=role)[1].outcomes[0].rows == 1
        inserts = sent("INSERT INTO t (a) VALUES ('b')")
        assert errors(run(shop, inserts, role=role)) == {
            inserts.corpus.statements[0].sql: ["permission denied for table t"]
        }
        with pytest.raises(Unavailable, match="cannot act as role nobody_here"):
            run(shop, reads, role="nobody_here")
    finally:
        run_sql(shop, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_sessions_are_kept_apart(shop: str) -> None:
    sender = Sender()
    show = "SELECT current_setting('app.tenant', true), current_setting('search_path'), current_setting('work_mem')"
    for number in (1, 2):
        sender(f"SET app.tenant = 'tenant {number}'", session=number)
        sender(f"SET search_path = s{number}, public", session=number)
        sender("CREATE TEMP TABLE tmp (id serial PRIMARY KEY, x int)", session=number)
        sender(f"INSERT INTO tmp (x) SELECT {number} FROM generate_series(1, {number})", session=number)
        sender("PREPARE q AS SELECT count(*) FROM tmp", session=number)
    for number in (1, 2, 1):
        sender(f"SELECT 1 WHERE current_setting('app.tenant') = 'tenant {number}'", session=number)
        sender(f"SELECT 1 WHERE current_setting('search_path') = 's{number}, public'", session=number)
        sender(f"SELECT x FROM tmp WHERE x = {number} OFFSET {number - 1}", session=number)
        sender("EXECUTE q", session=number)
    sender(show, session=3)("SELECT 1 WHERE to_regclass('tmp') IS NULL", session=3)
    sender("DISCARD ALL", session=1)("SELECT 2 WHERE to_regclass('tmp') IS NULL", session=1)
    sender("DEALLOCATE ALL", session=2)("EXECUTE q", session=2)
    ran = run(shop, sender)
    q = next(item for item in ran if item.sql == "EXECUTE q")
    assert [o.error for o in q.outcomes] == [None] * 3 + ['prepared statement "q" does not exist']
    for item in ran:
        if item.sql.startswith(("SELECT 1", "SELECT 2", "SELECT x")):
            assert {o.rows for o in item.outcomes} == {1}, item.sql
        if item is not q:
            assert {o.error for o in item.outcomes} == {None}, item.sql


def test_what_ends_with_a_transaction_ends_with_its_unit(shop: str) -> None:
    sender = Sender()
    for _ in range(2):
        sender(
            "SET LOCAL app.who = 'ann'",
            "SELECT set_config('app.other', 'x', true)",
            "CREATE TEMP TABLE gone (x int) ON COMMIT DROP",
            "DECLARE c CURSOR FOR SELECT * FROM t",
            "FETCH 2 FROM c",
            "SET CONSTRAINTS ALL IMMEDIATE",
            "LOCK TABLE t IN ACCESS EXCLUSIVE MODE",
        )
        sender(
            "SELECT 1 WHERE coalesce(current_setting('app.who', true) || current_setting('app.other', true), '') = ''"
        )
    ran = run(shop, sender)
    assert set(map(tuple, errors(ran).values())) == {(None, None)}
    assert [o.rows for o in ran[-1].outcomes] == [1, 1]
    fetch = next(item for item in ran if item.sql.startswith("FETCH"))
    assert fetch.outcomes[0].rows == 2
    assert verdict(shop, sender, "ALTER TABLE t ADD n int")[1].verdict is FAIL, "the cursor's rows have another shape"


def test_what_cannot_be_undone_is_not_run(shop: str) -> None:
    sender = Sender()
    for sql in (
        "COMMIT",
        "PREPARE TRANSACTION 'x'",
        "BEGIN",
        "ALTER SYSTEM SET work_mem = '1GB'",
        "VACUUM",
        "CHECKPOINT",
        "SET TRANSACTION READ ONLY",
        "CREATE DATABASE parallelchange_never",
        "SELECT a FROM t",
    ):
        sender(sql)
    assert verdict(shop, sender)[1].verdict is PASS
    for sql in ("VACUUM t", "COPY t TO '/tmp/never'", "COPY t FROM PROGRAM 'false'", "REINDEX DATABASE postgres"):
        said = verdict(shop, sent(sql))[1]
        assert said.verdict is UNKNOWN, sql
        assert said.findings[0].id == "execute.unproven"
    run_sql(shop, "CREATE PROCEDURE commits() LANGUAGE plpgsql AS 'BEGIN COMMIT; END'")
    assert verdict(shop, sent("CALL commits()"))[1].verdict is UNKNOWN


def test_nothing_hangs_it(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        __import__("parallelchange.adapters.postgres.replay_sessions").adapters.postgres.replay_sessions._GUARD,
        "statement_timeout",
        "300ms",
    )
    sender = sent("SET statement_timeout = 0")("SELECT pg_sleep(60)")("SELECT pg_advisory_lock(7)")
    base, now = verdict(shop, sender)
    assert (base.verdict, now.verdict) == (UNKNOWN, UNKNOWN)
    assert "canceling statement due to statement timeout" in now.findings[0].message
    assert run_sql(shop, "SELECT pg_try_advisory_lock(7)") == [(True,)]


def test_what_ends_its_session_is_told(shop: str) -> None:
    with pytest.raises(Unavailable, match="the session"):
        run(shop, sent("SELECT pg_terminate_backend(pg_backend_pid())"))


def test_a_copy_gets_a_row_that_fits(shop: str) -> None:
    run_sql(
        shop,
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE DOMAIN short AS varchar(3) NOT NULL",
        'CREATE TABLE "Odd" ("The Id" uuid PRIMARY KEY, m mood NOT NULL, s short, p int NOT NULL REFERENCES parent,'
        " n numeric(4, 2) CHECK (n > 0), j jsonb NOT NULL)",
    )
    sender = Sender()
    for sql in (
        'COPY "Odd" FROM STDIN',
        'COPY public."Odd" ("The Id", m, s, p, j) FROM STDIN WITH (FORMAT binary)',
        "COPY t (a, p) FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';')",
        "COPY t FROM STDIN CSV",
        "COPY parent FROM STDIN WHERE id > 0",
    ):
        sender(sql, end="rollback")
    ran = run(shop, sender)
    assert errors(ran[:4]) == {item.sql: [None] for item in ran[:4]}
    assert [o.rows for item in ran[:4] for o in item.outcomes] == [1] * 4


def test_the_corpus_is_sent_as_it_is_written(shop: str) -> None:
    sender = sent("SET client_encoding = 'LATIN1'")("INSERT INTO t (a) VALUES ('é中')")(
        "SELECT 1 FROM t WHERE a = 'é中'"
    )
    assert run(shop, sender)[-1].outcomes[0].rows == 1


def test_odd_corpora_are_told_and_leave_nothing(shop: str) -> None:
    before = contents(shop)
    odd = (
        "", "SELECT 1; SELECT 2", "SAVEPOINT", "ROLLBACK TO nowhere", "SET LOCAL bad-name = 1", "FETCH nothing",
        "SELECT set_config('a b.c', 'x', true)", "COPY nowhere FROM STDIN", "COPY t (nope) FROM STDIN", "LOAD 'nope'",
        "SET session_replication_role = replica", "TRUNCATE t RESTART IDENTITY", "DROP TABLE t CASCADE", "RESET ALL",
        "SET SESSION AUTHORIZATION DEFAULT", "SET search_path = ''", "SELECT setval('public.t_id_seq', 999)",
    )  # fmt: skip
    sender = Sender()
    for number, sql in enumerate(odd):
        sender(sql, session=1 + number % 3)
    ran = run(shop, sender)
    assert run(shop, sender, before=ran) == ran
    assert contents(shop) == before
