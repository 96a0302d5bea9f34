"""Whether the old version's statements stand still, by what a real pg_stat_statements counts."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from helpers.world import TABLE, as_role, login_role, run_sql

from parallelchange.adapters.postgres.calls import read_calls
from parallelchange.adapters.postgres.connection import connect
from parallelchange.calls import Counts, Stillness, canonical, next_sample, only_in, stillness
from parallelchange.sqltext import template

OLD = "SELECT a FROM t WHERE id = $1 AND a IS NOT NULL"
WATCHED = only_in([OLD], ["SELECT b FROM t WHERE id = $1"])
SINCE = 1000.0


def counted(url: str, watched: frozenset[str] = WATCHED) -> Counts:
    with connect(url) as session:
        counts = read_calls(session, watched, {})
    assert counts is not None
    return counts


def held(counts: Counts, sample: dict[str, Any] | None, watched: frozenset[str] = WATCHED) -> Stillness:
    return stillness(watched, counts, sample, now=SINCE + 60, since=SINCE)


def kept(counts: Counts, watched: frozenset[str] = WATCHED) -> dict[str, Any]:
    sample = next_sample(watched, counts, None, now=SINCE + 1, since=SINCE)
    assert sample is not None
    return sample


def send(url: str, text: str = "SELECT a FROM t WHERE id = 1 AND a IS NOT NULL", **parts: Any) -> None:
    with psycopg.connect(url, autocommit=True, application_name="psql", **parts) as session:
        session.execute(text)


@pytest.fixture
def url(contrib: str) -> str:
    run_sql(contrib, TABLE, "SELECT pg_stat_statements_reset()")
    return contrib


@pytest.mark.parametrize(
    ("recorded", "sent"),
    [
        ("SELECT a FROM t WHERE id = $1", "SELECT a FROM t WHERE id = 7"),
        ("SELECT a FROM t WHERE id = $1", "select\n  A from T -- why\n where ID=-7 ;"),
        ("SELECT a FROM t WHERE id = -1 AND a = 'x'", "SELECT a FROM t WHERE id = -2 AND a = 'it''s'"),
        ("SELECT a FROM t WHERE id IN ($1, $2, $3)", "SELECT a FROM t WHERE id IN (1, 2)"),
        ("SELECT a FROM t WHERE (a IS NULL) = $1", "SELECT a FROM t WHERE (a IS NULL) = true"),
        ("SELECT a FROM t LIMIT $1", "SELECT a FROM t LIMIT 10"),
        ("INSERT INTO t (id, a) VALUES ($1, $2)", "INSERT INTO t (id, a) VALUES (1, NULL)"),
        ("UPDATE t SET a = $2 WHERE id = $1", "UPDATE t SET a = 'x' WHERE id = 5"),
        ("INSERT INTO t VALUES ($1, lower($2)), ($3, lower($4))", "INSERT INTO t VALUES (1, lower('A'))"),
        ("DELETE FROM t WHERE id = $1", "DELETE FROM t WHERE id = 5"),
        ("SELECT '1'::numeric(10,2), a FROM t ORDER BY 1", "SELECT '2'::numeric(10,2), a FROM t ORDER BY 1"),
        ("SELECT E'a\\nb', $1::text", "SELECT E'c', 'x'::text"),
        ("SELECT a FROM t WHERE a LIKE $1 OR id > 1.5e3", "SELECT a FROM t WHERE a LIKE 'x%%' OR id > 2"),
        ("SELECT date '2020-01-01', interval '1 day'", "SELECT date '2021-01-01', interval '2 days'"),
        ('SELECT "a" FROM "public"."t"', 'SELECT "a" FROM "public"."t"'),
        ("TRUNCATE t", "truncate T"),
        ("COPY t TO STDOUT", "SELECT 1"),
    ],
)
def test_a_recorded_statement_is_found_however_it_is_written(url: str, recorded: str, sent: str) -> None:
    wanted = canonical(recorded)
    watched = frozenset({wanted, canonical(template(recorded).sql)})
    assert watched == {wanted}, "with or without its literals it is one"
    send(url, sent.replace("%%", "%"))
    calls = counted(url, watched).calls
    assert sum(calls.get(wanted, {}).values()) == (0 if recorded.startswith("COPY") else 1), calls


def test_parameters_are_found_as_literals_are(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as session:
        for prepared in (False, True):
            session.execute("SELECT a FROM t WHERE id = %s AND a IS NOT NULL", (1,), prepare=prepared)
    assert counted(url).calls == {next(iter(WATCHED)): {"postgres": 2}}


def test_a_call_since_is_told_with_its_statement_and_role(url: str) -> None:
    with login_role(url) as worker:
        run_sql(url, f"GRANT SELECT ON t TO {worker}")
        send(url)
        sample = kept(counted(url))
        assert held(counted(url), sample) == Stillness(1, seconds=59.0, matched=1)
        send(url, user=worker)
        told = held(counted(url), sample)
        assert (told.seconds, told.grew) == (None, (f"1 calls of `{next(iter(WATCHED))}` by role {worker}",))
        run_sql(url, f"REVOKE ALL ON t FROM {worker}")
    anew = next_sample(WATCHED, counted(url), sample, now=SINCE + 70, since=SINCE)
    assert anew is not None
    assert held(counted(url), anew).grew == ()
    assert next_sample(WATCHED, counted(url), anew, now=SINCE + 80, since=SINCE) is None


def test_a_first_call_after_the_first_look_is_growth(url: str) -> None:
    sample = kept(counted(url))
    assert held(counted(url), sample).matched == 0
    send(url)
    assert held(counted(url), sample).grew


def test_a_sample_of_an_earlier_weight_counts_for_nothing(url: str) -> None:
    sample = kept(counted(url))
    assert stillness(WATCHED, counted(url), sample, now=SINCE + 90, since=SINCE + 30).seconds == 0.0
    assert stillness(WATCHED, counted(url), sample, now=SINCE + 90, since=None).seconds == 0.0
    assert stillness(WATCHED, counted(url), None, now=SINCE + 90, since=SINCE).seconds == 0.0


@pytest.mark.parametrize("how", ["all", "one", "one, called again"])
def test_counts_that_were_reset_prove_nothing(url: str, how: str) -> None:
    send(url)
    send(url)
    sample = kept(counted(url))
    one = (
        "SELECT pg_stat_statements_reset(userid, dbid, queryid) FROM pg_stat_statements WHERE query LIKE 'SELECT a F%'"
    )
    run_sql(url, "SELECT pg_stat_statements_reset()" if how == "all" else one)
    if how == "one, called again":
        send(url)
    told = held(counted(url), sample)
    assert "reset" in told.why
    assert not told.restless(30.0)
    assert next_sample(WATCHED, counted(url), sample, now=SINCE + 70, since=SINCE), "and it is begun anew"


def test_statements_that_were_forgotten_prove_nothing(url: str) -> None:
    counts = counted(url)
    forgot = Counts(counts.calls, counts.reset, counts.evicted + 1)
    assert "pg_stat_statements.max" in held(forgot, kept(counts)).why


def test_a_role_that_may_not_see_the_texts_proves_nothing(url: str) -> None:
    send(url)
    with login_role(url) as plain:
        counts = counted(as_role(url, plain))
        assert counts.hidden
        told = held(counts, None)
        assert (told.watched, "cannot be seen" in told.why) == (1, True)
        assert next_sample(WATCHED, counts, None, now=SINCE, since=SINCE) is None
    with login_role(url, "pg_read_all_stats") as reader:
        assert not counted(as_role(url, reader)).hidden
    with login_role(url) as plain:
        run_sql(url, "REVOKE SELECT ON pg_stat_statements FROM PUBLIC")
        with connect(as_role(url, plain)) as session, session.transaction():
            refused = read_calls(session, WATCHED, {})
            assert session.execute("SELECT 1").fetchone() == (1,), "the transaction around it lives"
    assert refused is not None
    assert held(refused, None).why


@pytest.mark.parametrize("setting", ["pg_stat_statements.track = 'none'", "compute_query_id = off"])
def test_where_calls_are_not_counted_silence_is_no_proof(url: str, setting: str) -> None:
    sample = kept(counted(url))
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    with login_role(url) as worker:
        for whose in (f"DATABASE {name}", f"ROLE {worker} IN DATABASE {name}"):
            run_sql(url, f"ALTER {whose} SET {setting}")
            counts = counted(url)
            assert counts.blind
            assert held(counts, None).watched is None, "as where there is no extension"
            assert held(counts, sample).watched == 1, "but it was counted before: somebody stopped that"
            run_sql(url, f"ALTER {whose} RESET {setting.split(' ', maxsplit=1)[0]}")
    assert not counted(url).blind


def test_without_the_extension_nothing_is_counted(database: str, url: str) -> None:
    with connect(database) as session:
        assert read_calls(session, WATCHED, {}) is None
    run_sql(url, "DROP EXTENSION pg_stat_statements", 'CREATE SCHEMA "o d"',
            'CREATE EXTENSION pg_stat_statements SCHEMA "o d"')  # fmt: skip
    send(url)
    assert counted(url).calls


def test_other_databases_do_not_count(url: str) -> None:
    run_sql(url, "SELECT 1")
    with psycopg.connect(url, autocommit=True, dbname="postgres") as session:
        session.execute("CREATE TEMP TABLE t (id bigint, a text)")
        session.execute("SELECT a FROM t WHERE id = 1 AND a IS NOT NULL")
    assert counted(url).calls == {}


def test_reading_takes_no_strong_lock(url: str) -> None:
    with connect(url) as session, session.transaction():
        read_calls(session, WATCHED, {})
        modes = session.execute(
            "SELECT DISTINCT mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'"
        ).fetchall()
    assert modes == [("AccessShareLock",)]


def test_what_both_versions_send_is_not_watched() -> None:
    assert only_in(["SELECT 1 FROM t", "SELECT a FROM t"], ["select 2  from T"]) == {"select a from t"}
