"""A recording's statements, described by a real server."""

from __future__ import annotations

import psycopg

from parallelchange.adapters.postgres.describing import describing
from parallelchange.corpus import Corpus, Recorded
from parallelchange.recording import Event, Recording, build


def recorded(url: str, *events: Event) -> Recording:
    with describing(url) as describe:
        return build("v1", events, describe, where="tests")


def only(corpus: Corpus, word: str) -> Recorded:
    (found,) = [s for s in corpus.statements if word in s.sql]
    return found


def test_parameters_and_literals(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    corpus = recorded(
        database,
        Event("a", "SELECT * FROM t WHERE id = $1", ("7",), prepared=True),
        Event("a", "SELECT name FROM t WHERE id = 7"),
        Event("b", "INSERT INTO t VALUES (1, 'x''y'); UPDATE t SET name = E'\\n' -- set"),
        Event("b", "SELECT json_build_object('a', $1)", ("z",)),
    ).corpus
    bound = only(corpus, "*")
    assert (bound.types, bound.columns, bound.prepared) == (("integer",), ("id integer", "name text"), True)
    literal = only(corpus, "SELECT name")
    assert (literal.sql, literal.types, literal.columns) == ("SELECT name FROM t WHERE id = $1", (), ("name text",))
    assert literal.text(corpus.examples[literal.id]) == "SELECT name FROM t WHERE id = 7"
    assert only(corpus, "json_build").types == ("text",)
    two = next(unit for unit in corpus.units if len(unit.steps) == 2)
    assert two.end == "commit"
    assert [corpus.by_id[s.statement].text(s) for s in two.steps] == [
        "INSERT INTO t VALUES (1, 'x''y')", "UPDATE t SET name = E'\\n'",
    ]  # fmt: skip


def test_what_is_gone_at_the_end(database: str) -> None:
    made = recorded(
        database,
        Event("a", "CREATE TABLE gone (id int, v jsonb)"),
        Event("a", "SELECT v FROM gone WHERE id = $1", ("1",)),
        Event("a", "CREATE TEMP TABLE mine AS SELECT 1 AS n"),
        Event("a", "SELECT * FROM mine"),
        Event("a", "DROP TABLE gone"),
        Event("a", "SELECT * FROM never", sqlstate="42P01"),
        Event("a", "COMMIT"),
    )
    assert only(made.corpus, "SELECT v").columns == ("v jsonb",)
    assert only(made.corpus, "SELECT v").types == ("integer",)
    assert not only(made.corpus, "SELECT v").unasked, "such a table is there where the app serves"
    assert only(made.corpus, "* FROM mine").columns == ("n integer",)
    assert only(made.corpus, "* FROM mine").unasked
    assert made.left_out == {"statements that the server never took": 1}
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT to_regclass('gone')").fetchone() == (None,)


def test_a_search_path_of_the_session(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE SCHEMA one; CREATE TABLE one.t (a int); CREATE TABLE t (b text)")
    corpus = recorded(
        database, Event("a", "SET search_path = one"), Event("a", "TABLE t"), Event("b", "SELECT b FROM t")
    ).corpus
    assert only(corpus, "TABLE t").columns == ("a integer",)
    assert "search_path" in only(corpus, "TABLE t").unasked
    assert only(corpus, "SELECT b").columns == ("b text",)
    assert not only(corpus, "SELECT b").unasked
