"""What is asked about recorded statements: all that can be, and on a database that serves nothing that locks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Self

import psycopg
import pytest
from helpers.world import Sent, corpus_of, recorded, run_sql

from parallelchange.adapters.postgres import statements as module
from parallelchange.adapters.postgres.connection import connect
from parallelchange.adapters.postgres.shapes import Describer
from parallelchange.adapters.postgres.statements import ask_all
from parallelchange.corpus import Corpus, Unit
from parallelchange.errors import Busy, LockedMore, Unavailable
from parallelchange.gates import plan, prepare, shape
from parallelchange.gates.prepare import StatementFact
from parallelchange.model import Verdict

DDL = """
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN sure AS integer NOT NULL;
CREATE TABLE t (id bigint PRIMARY KEY, a text, b integer, m mood);
CREATE INDEX t_b ON t (b);
CREATE TABLE big (id bigint PRIMARY KEY, ref text, n integer);
CREATE INDEX big_ref ON big (ref);
INSERT INTO big SELECT g, 'r' || g, g FROM generate_series(1, 20000) g;
ANALYZE;
"""


@pytest.fixture
def url(database: str) -> str:
    run_sql(database, DDL)
    return database


def ask(url: str, *sent: Sent, on_copy: bool = False, role: str | None = None) -> list[StatementFact]:
    """Ask about statements, and give the facts in the order of the statements."""
    facts = ask_all(url, corpus_of("v1", sent), role=role, on_copy=on_copy)
    by_id = {fact.id: fact for fact in facts}
    return [by_id[statement.id] for statement, _ in sent]


def test_a_statement_is_prepared_described_and_planned(url: str) -> None:
    fact, other = ask(
        url,
        recorded("SELECT id, a, m FROM t WHERE id = $1", types=["bigint"], parameters=[("1",)]),
        recorded("SELECT n FROM big WHERE ref = $1 AND n > $2", types=["text"], parameters=[("r1", "5")]),
    )
    assert (fact.error, fact.unasked, fact.found) == (None, "", ("id bigint", "a text", "m public.mood"))
    assert fact.plan is not None
    assert fact.plan.text == "Seq Scan on t"
    assert not fact.plan.large
    assert other.plan is not None
    assert (other.plan.indexes, other.plan.scans, other.plan.large) == (("big_ref",), (), True)
    assert {"t_pkey", "t_b", "big_pkey", "big_ref"} <= other.plan.existing


def test_each_failure_is_its_own_among_many(url: str) -> None:
    """A failure ends the transaction that others are in."""
    sent = []
    for number in range(450):
        column = "nope" if number % 7 == 0 else "a"
        sent.append(recorded(f"SELECT {column}, {number} AS n FROM t"))
    sent.append(recorded("SELECT no_such_function(id) FROM t"))
    facts = ask(url, *sent)
    for number, fact in enumerate(facts[:450]):
        if number % 7 == 0:
            assert fact.error == 'column "nope" does not exist'
            assert fact.plan is None
        else:
            assert fact.error is None
            assert fact.found == ("a text", "n integer")
            assert fact.plan is not None
            assert fact.plan.text == "Seq Scan on t"
    assert "no_such_function" in (facts[450].error or "")


def test_what_only_the_planner_asks_is_a_failure_of_the_plan(url: str) -> None:
    run_sql(url, "CREATE FUNCTION broken() RETURNS integer LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 1 / 0; END'")
    facts = ask(url, recorded("SELECT a FROM t WHERE b = broken()"), recorded("SELECT a FROM t"))
    assert prepare.judge("v1", facts).verdict is Verdict.PASS
    assert facts[0].plan is not None
    assert facts[0].plan.error == "division by zero"
    result = plan.judge("v1", facts)
    assert result.verdict is Verdict.FAIL
    assert "division by zero" in result.findings[0].message


def test_types_of_parameters_are_those_declared(url: str) -> None:
    """EXPLAIN (GENERIC_PLAN) would infer them anew, and find the sum ambiguous."""
    (fact,) = ask(url, recorded("SELECT $1 + $2 AS n", types=["integer", "bigint"], parameters=[("1", "2")]))
    assert (fact.error, fact.found) == (None, ("n bigint",))
    assert fact.plan is not None
    assert fact.plan.error is None


def test_a_type_that_is_gone_is_inferred(url: str) -> None:
    sent = [
        recorded("SELECT a FROM t WHERE id = $1", types=[name], parameters=[("1",)]) for name in ("gone", "no, type(")
    ]
    for fact in ask(url, *sent):
        assert (fact.error, fact.found) == (None, ("a text",))


def test_a_parameter_that_takes_no_null_leaves_the_plan_unasked(url: str) -> None:
    (fact,) = ask(url, recorded("SELECT a FROM t WHERE b = $1", types=["sure"], parameters=[("1",)]))
    assert fact.error is None
    assert plan.judge("v1", [fact]).verdict is Verdict.PASS
    assert plan.judge("v1", [fact]).measured["planned"] == 0
    assert fact.plan is not None
    assert fact.plan.unasked


WRITES = (
    "INSERT INTO t (id, a) VALUES ($1, $2)",
    "UPDATE t SET a = $1 WHERE id = $2",
    "DELETE FROM t WHERE id = $1",
    "MERGE INTO t USING big ON big.id = t.id WHEN MATCHED THEN DO NOTHING",
    "SELECT a FROM t FOR UPDATE",
    "SELECT a FROM t FOR SHARE",
    "WITH gone AS (DELETE FROM t RETURNING id) SELECT id FROM gone",
)
UTILITY = ("LOCK TABLE t", "CREATE TABLE n (id bigint)", "COPY t FROM STDIN", "LISTEN x", "SELECT a INTO n FROM t")


def test_what_writes_is_asked_about_on_a_copy_alone(url: str) -> None:
    sent = [recorded(text) for text in (*WRITES, *UTILITY)]
    live = ask(url, *sent)
    assert all(fact.unasked and fact.plan is None and fact.found is None for fact in live)
    copied = ask(url, *sent, on_copy=True)
    for fact in copied[: len(WRITES)]:
        assert (fact.unasked, fact.error) == ("", None), fact.sql
        assert fact.plan is not None
        assert fact.plan.error is None, fact.sql
    assert all(fact.unasked for fact in copied[len(WRITES) : -1])
    for facts in (live, copied):
        assert prepare.judge("v1", facts).verdict is Verdict.PASS
        assert plan.judge("v1", facts).verdict is Verdict.PASS
    assert prepare.judge("v1", live).measured["asked"] == 0
    assert run_sql(url, "SELECT count(*) FROM t") == [(0,)]


# Locks.

HIDDEN = """
CREATE TABLE log (id bigint GENERATED ALWAYS AS IDENTITY, what text);
CREATE FUNCTION logged(text) RETURNS bigint LANGUAGE sql AS 'INSERT INTO log (what) VALUES ($1) RETURNING id';
CREATE FUNCTION around(text) RETURNS bigint LANGUAGE sql AS 'SELECT logged($1) + 1';
CREATE FUNCTION Locked(bigint) RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT a FROM t WHERE id = $1 FOR UPDATE; END;
CREATE VIEW queue AS SELECT id, a FROM t FOR UPDATE SKIP LOCKED;
CREATE VIEW above AS SELECT id FROM queue;
CREATE VIEW calls AS SELECT logged(a) AS l FROM t;
CREATE FUNCTION harmless(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
CREATE VIEW plain AS SELECT id, harmless(id) AS n FROM t;
CREATE TABLE guarded (id bigint);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON guarded USING (logged('read') > 0);
"""
LOCKING = (
    "SELECT logged($1)",
    "SELECT around($1)",
    'SELECT "locked"(id) FROM t',
    "SELECT id FROM queue",
    "SELECT id FROM above",
    "SELECT l FROM calls",
    "SELECT id FROM guarded",
)
LOCKING_AT_ONCE = [text for text in LOCKING if "locked" not in text and "guarded" not in text]
"""Without the body that is not put in the place of its call, and the policy that does not hold for a superuser."""
HARMLESS = ("SELECT harmless(id) FROM t", "SELECT n FROM plain", "SELECT id FROM big WHERE ref = 'logged'")


class Watch:
    """Sees from another session what locks a database's sessions take."""

    def __init__(self, url: str) -> None:
        self.url, self.seen, self.looks = url, set[str](), 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        asked = (
            "SELECT mode || ' on ' || coalesce(relation::regclass::text, locktype) FROM pg_locks"
            " WHERE pid <> pg_backend_pid() AND locktype <> 'virtualxid'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        with psycopg.connect(self.url, autocommit=True) as session:
            while not self._stop.is_set():
                self.seen |= {row[0] for row in session.execute(asked)}
                self.looks += 1

    def __enter__(self) -> Self:
        self._thread.start()
        while not self.looks:
            time.sleep(0.001)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_nothing_stronger_than_access_share_is_taken(url: str) -> None:
    run_sql(url, HIDDEN)
    sent = [recorded(f"{text} /* {n} */") for n in range(20) for text in (*WRITES, *LOCKING, *HARMLESS)]
    with Watch(url) as watch:
        for _ in range(5):
            facts = ask(url, *sent)
    assert watch.looks > 20
    assert any("t_pkey" in lock or " on t" in lock for lock in watch.seen)
    assert {lock.split(" on ")[0] for lock in watch.seen} == {"AccessShareLock"}, watch.seen
    for fact in facts:
        assert bool(fact.unasked) is (fact.sql.split(" /*")[0] not in HARMLESS), fact
    # The copy is asked about all of them.
    assert all(fact.error is None and not fact.unasked for fact in ask(url, *sent[:17], on_copy=True))


@pytest.mark.parametrize("text", LOCKING_AT_ONCE)
def test_a_lock_that_nothing_foretold_is_seen_and_blocks(url: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_sql(url, HIDDEN)
    monkeypatch.setattr(module, "locking_names", lambda _: frozenset())
    with pytest.raises(LockedMore, match=r"(RowExclusiveLock|RowShareLock) on (log|t)"):
        ask(url, recorded(text), recorded("SELECT nope FROM t"))


def test_an_operator_that_may_lock_leaves_everything_unasked(url: str) -> None:
    run_sql(url, HIDDEN, "CREATE OPERATOR ### (RIGHTARG = text, FUNCTION = logged)")
    (fact,) = ask(url, recorded("SELECT ### a FROM t"))
    assert fact.unasked


def test_a_lock_that_is_not_to_be_had_is_no_failure_of_the_statement(url: str) -> None:
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE t")
        with pytest.raises(Busy, match="lock timeout"):
            ask(url, recorded("SELECT a FROM t"))


def test_nothing_is_left_behind(url: str) -> None:
    """No transaction id is used, no catalog has grown, and no session stays."""
    counts = (
        "SELECT (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_statistic),"
        " (SELECT count(*) FROM pg_prepared_xacts), pg_snapshot_xmax(pg_current_snapshot())::text,"
        " (SELECT count(*) FROM pg_locks WHERE NOT pid = pg_backend_pid() AND locktype = 'relation')"
    )
    # Autovacuum uses transaction ids as well, but not three times in a row.
    told = []
    for _ in range(3):
        (before,) = run_sql(url, counts)
        ask(url, *(recorded(text) for text in (*WRITES, "SELECT a FROM t", "SELECT nope FROM t")))
        told.append((before, *run_sql(url, counts)))
    assert any(before == after for before, after in told), told


# Whose view of names it is.


@pytest.fixture
def role(url: str) -> Iterator[str]:
    name = f"app_{url.rpartition('test_')[2].split('?')[0]}"
    run_sql(url, f'CREATE ROLE "{name}" LOGIN', "CREATE SCHEMA other", "CREATE TABLE other.t (id bigint, z text)")
    yield name
    run_sql(url, f'DROP OWNED BY "{name}"', f'DROP ROLE "{name}"')


def test_names_mean_what_they_mean_to_the_versions_role(url: str, role: str) -> None:
    run_sql(url, f'GRANT USAGE ON SCHEMA other TO "{role}"', f'GRANT SELECT ON t, other.t TO "{role}"')
    sent = recorded("SELECT z FROM t")
    assert ask(url, sent, role=role)[0].error == 'column "z" does not exist'
    run_sql(url, f'ALTER ROLE "{role}" SET search_path = other, public')
    assert ask(url, sent)[0].error
    assert ask(url, sent, role=role)[0].found == ("z text",)
    # What holds for the role in this database goes before that.
    run_sql(url, f'ALTER ROLE "{role}" IN DATABASE "{_name(url)}" SET search_path = public')
    assert ask(url, sent, role=role)[0].error
    run_sql(url, f'ALTER ROLE "{role}" RESET ALL', f'ALTER ROLE "{role}" IN DATABASE "{_name(url)}" RESET ALL')
    run_sql(url, f'ALTER DATABASE "{_name(url)}" SET search_path = other')
    assert ask(url, sent, role=role)[0].found == ("z text",)


def test_a_role_has_its_own_schema_first(url: str, role: str) -> None:
    run_sql(url, f'CREATE SCHEMA "{role}"', f'CREATE TABLE "{role}".t (own text)',
            f'GRANT USAGE ON SCHEMA "{role}" TO "{role}"', f'GRANT SELECT ON "{role}".t TO "{role}"')  # fmt: skip
    assert ask(url, recorded("SELECT own FROM t"), role=role)[0].found == ("own text",)
    # So has it where we may not become it.
    run_sql(url, f'CREATE ROLE "us_{role}" LOGIN', f'GRANT pg_read_all_data TO "us_{role}"')
    try:
        theirs = psycopg.conninfo.make_conninfo(url, user=f"us_{role}")
        (fact,) = ask(theirs, recorded("SELECT own FROM t"), role=role)
        assert (fact.error, fact.found) == (None, ("own text",))
    finally:
        run_sql(url, f'DROP ROLE "us_{role}"')
        run_sql(url, f'DROP SCHEMA "{role}" CASCADE')


def test_the_roles_privileges_are_asked_for(url: str, role: str) -> None:
    sent = recorded("SELECT a FROM t")
    (fact,) = ask(url, sent, role=role)
    assert plan.judge("v1", [fact]).verdict is Verdict.FAIL
    assert "permission denied for table t" in plan.judge("v1", [fact]).findings[0].message
    run_sql(url, f'GRANT SELECT ON t TO "{role}"')
    assert plan.judge("v1", ask(url, sent, role=role)).verdict is Verdict.PASS
    # Lacking ourselves what the version may have is neither.
    run_sql(url, f'REVOKE SELECT ON t FROM "{role}"')
    theirs = psycopg.conninfo.make_conninfo(url, user=role)
    result = plan.judge("v1", ask(theirs, sent))
    assert result.verdict is Verdict.UNKNOWN
    assert "name the version's role" in result.findings[0].message


def test_policies_hold_back_no_statement(url: str, role: str) -> None:
    """Our sessions else refuse what a policy would filter."""
    run_sql(url, "ALTER TABLE t ENABLE ROW LEVEL SECURITY", "CREATE POLICY p ON t USING (id > 0)",
            f'GRANT SELECT ON t TO "{role}"')  # fmt: skip
    theirs = psycopg.conninfo.make_conninfo(url, user=role)
    facts = ask(theirs, recorded("SELECT a FROM t"), role=role)
    assert plan.judge("v1", facts).verdict is Verdict.PASS


def test_a_role_that_is_not_there_is_told(url: str) -> None:
    with pytest.raises(Unavailable, match="no role nobody"):
        ask(url, recorded("SELECT a FROM t"), role="nobody")


def _name(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


# What a session makes for itself.


def in_order(*texts: str, end: str = "auto", sessions: Sequence[int] = ()) -> Corpus:
    """Each in a unit of its own, in one session unless others are given."""
    sent = [recorded(text) for text in texts]
    numbers = list(sessions) or [1] * len(sent)
    units = tuple(Unit(number, unit.steps, end) for number, (_, (unit,)) in zip(numbers, sent, strict=True))
    by_id = {statement.id: statement for statement, _ in sent}
    return Corpus("v1", tuple(by_id.values()), units)


def asked(url: str, corpus: Corpus) -> dict[str, str | None]:
    """Text to its error; those not asked about are left out."""
    facts = ask_all(url, corpus, role=None, on_copy=False)
    return {fact.sql: fact.error for fact in facts if not fact.unasked}


READ = "SELECT x FROM mine"
GONE = 'relation "mine" does not exist'


@pytest.mark.parametrize(
    "make",
    [
        "CREATE TEMP TABLE mine (x integer)",
        "CREATE TEMPORARY TABLE IF NOT EXISTS mine (x integer)",
        "create local temp table pg_temp.MINE as select 1 as x",
        'CREATE TEMP TABLE "mine" (x integer) ON COMMIT PRESERVE ROWS',
        "CREATE TEMP VIEW mine AS SELECT 1 AS x",
        "CREATE OR REPLACE TEMP VIEW mine AS SELECT 1 AS x",
        "SELECT 1 AS x INTO TEMP mine",
        "SELECT 1 AS x INTO TEMPORARY TABLE mine",
        "SET search_path = elsewhere",
        "SET SESSION search_path TO elsewhere, public",
        "SET SCHEMA 'elsewhere'",
        "SELECT set_config('search_path', 'elsewhere', false)",
    ],
)
def test_what_a_session_makes_for_itself_is_known_to_it_alone(url: str, make: str) -> None:
    assert READ not in asked(url, in_order(make, READ))
    assert asked(url, in_order(READ, make))[READ] == GONE
    assert asked(url, in_order(make, READ, sessions=(1, 2)))[READ] == GONE
    assert asked(url, in_order(READ, make, READ))[READ] == GONE
    assert asked(url, in_order(make, READ, end="rollback"))[READ] == GONE


@pytest.mark.parametrize(
    ("make", "undo"),
    [
        ("CREATE TEMP TABLE mine (x integer)", "DROP TABLE IF EXISTS mine"),
        ("CREATE TEMP TABLE mine (x integer)", "DISCARD ALL"),
        ("SET search_path = elsewhere", "RESET search_path"),
        ("SET search_path = elsewhere", "SET search_path TO DEFAULT"),
        ("CREATE TEMP TABLE mine (x integer) ON COMMIT DROP", "SELECT 1"),
        ("SET LOCAL search_path = elsewhere", "SELECT 1"),
        ("CREATE TABLE mine (x integer)", "SELECT 1"),
    ],
)
def test_what_is_gone_again_counts_no_more(url: str, make: str, undo: str) -> None:
    assert asked(url, in_order(make, undo, READ))[READ] == GONE


def test_other_statements_of_such_a_session_are_asked_about(url: str) -> None:
    corpus = in_order("CREATE TEMP TABLE mine (x integer)", "SELECT nope FROM t")
    assert asked(url, corpus) == {"SELECT nope FROM t": 'column "nope" does not exist'}


# The shape.


def test_a_type_reads_the_same_whatever_the_search_path(url: str) -> None:
    for path in ("public", "pg_catalog"):
        with connect(url, search_path=path) as session:
            assert Describer(session).describe("SELECT m, id FROM public.t WHERE b = $1", ()) == (
                ("m public.mood", "id bigint"), ("integer",),
            )  # fmt: skip


def test_the_shape_of_a_star_changes_with_the_table(url: str) -> None:
    sent = recorded("SELECT * FROM t", ["id bigint", "a text", "b integer", "m public.mood"])
    assert shape.judge("v1", ask(url, sent)).verdict is Verdict.PASS
    run_sql(url, "ALTER TABLE t ADD COLUMN z text")
    assert shape.judge("v1", ask(url, sent)).verdict is Verdict.FAIL


# Plans over time.


def test_a_lost_index_and_a_full_scan_are_told_and_block_nothing(url: str) -> None:
    sent = [recorded(text) for text in ("SELECT n FROM big WHERE ref = $1", "SELECT a FROM t WHERE id = $1")]
    before = ask(url, *sent)
    result = plan.judge("v1", before, {})
    assert (result.verdict, result.findings) == (Verdict.PASS, ())
    memory = plan.kept({"plans": plan.keep(plan.plans(before))})
    assert plan.judge("v1", ask(url, *sent), memory).findings == ()
    run_sql(url, "DROP INDEX big_ref")
    result = plan.judge("v1", ask(url, *sent), memory)
    assert result.verdict is Verdict.PASS
    assert [finding.id for finding in result.findings] == ["plan.scan", "plan.index"]
    for finding in result.findings:
        assert "before: Bitmap Heap Scan on big (Bitmap Index Scan using big_ref)" in finding.message or (
            "before: Index Scan using big_ref on big" in finding.message
        )
        assert "now: Seq Scan on big" in finding.message


def test_a_small_table_may_be_read_whole(url: str) -> None:
    sent = recorded("SELECT a FROM t WHERE b = $1")
    before = plan.plans(ask(url, sent))
    run_sql(url, "INSERT INTO t SELECT g, 'x', g FROM generate_series(1, 50) g", "ANALYZE t")
    facts = ask(url, sent)
    assert facts[0].plan is not None
    assert facts[0].plan.scans == ()
    assert plan.judge("v1", facts, before).findings == ()


# Servers of other versions.


def test_an_older_server_is_asked_the_same_way(fifteen: str) -> None:
    """EXPLAIN (GENERIC_PLAN) came with 16."""
    run_sql(fifteen, DDL, HIDDEN)
    sent = [recorded(text) for text in (*WRITES, *LOCKING, *HARMLESS)]
    asked = recorded("SELECT n FROM big WHERE ref = $1", ["n integer"], ["text"], [("r1",)])
    facts = ask(fifteen, asked, recorded("SELECT nope FROM t"), *sent)
    assert facts[0].found == ("n integer",)
    assert facts[0].plan is not None
    assert facts[0].plan.indexes == ("big_ref",)
    assert facts[1].error == 'column "nope" does not exist'
    assert [fact.unasked != "" for fact in facts[2:]] == [
        text not in HARMLESS for text in (*WRITES, *LOCKING, *HARMLESS)
    ]
    assert all(fact.error is None and not fact.unasked for fact in ask(fifteen, *sent, on_copy=True))
