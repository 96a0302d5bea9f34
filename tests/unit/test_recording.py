"""From events to a corpus, with a server that answers from a table."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from parallelchange.corpus import Corpus, read_corpus, write_corpus
from parallelchange.recording import Event, Refused, build
from parallelchange.recording.drivers import not_the_apps
from parallelchange.recording.thinning import READINGS, WRITINGS


class Server:
    """Takes everything but what names `gone`, unless its table was made before."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def __call__(self, sql: str, types: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if "gone" in sql and "CREATE TABLE gone ()" not in self.ran:
            raise Refused('relation "gone" does not exist')
        count = len({part for part in ("$1", "$2", "$3") if part in sql})
        return (("a text",) if sql.startswith("SELECT") else ()), tuple(types) or ("text",) * count

    def run(self, sql: str) -> None:
        self.ran.append(sql)


def corpus(*events: Event) -> Corpus:
    return build("v1", events, Server(), where="here").corpus


def sent(*texts: str, session: str = "a") -> list[Event]:
    return [Event(session, text) for text in texts]


def test_statements_that_differ_in_literals_are_one() -> None:
    found = corpus(*sent("SELECT a FROM t WHERE b = 1", "SELECT a  FROM t -- x\n WHERE b = 2"))
    assert [s.sql for s in found.statements] == ["SELECT a FROM t WHERE b = $1"]
    assert [step.values for step in found.steps()] == [("1",), ("2",)]


def test_definitions_keep_their_literals() -> None:
    found = corpus(*sent("CREATE TABLE t (a varchar(5) DEFAULT 'x')", "SET a.b = 'c'"))
    assert [s.sql for s in found.statements] == ["CREATE TABLE t (a varchar(5) DEFAULT 'x')", "SET a.b = $1"]


def test_no_more_readings_than_show_something() -> None:
    reads = [Event("a", "SELECT a FROM t WHERE b = $1", (str(n % 9),)) for n in range(40)]
    made = build("v1", reads, Server())
    assert len(made.corpus.units) == READINGS
    assert made.left_out == {"repeated readings": 40 - READINGS}
    other = Event("a", "SELECT b FROM t")
    both = corpus(*reads, Event("a", "BEGIN"), reads[0], other, Event("a", "COMMIT"))
    assert len(both.units) == READINGS + 1, "a transaction that has something new in it stays whole"
    assert len(both.units[-1].steps) == 2


def test_writings_stay_in_order_up_to_a_cap() -> None:
    writes = [Event("a", "INSERT INTO t VALUES ($1)", (str(n),)) for n in range(WRITINGS + 7)]
    made = build("v1", [*writes, Event("a", "UPDATE t SET a = $1", ("z",))], Server())
    assert [step.values[0] for step in made.corpus.steps()] == [*map(str, range(WRITINGS)), "z"]
    assert sum(made.left_out.values()) == 7


def test_settings_stay_as_long_as_their_session_does() -> None:
    events = []
    for n in range(5):
        events += sent("SET search_path = x", "SELECT a FROM t", session=str(n))
    events += sent("SET search_path = y", "SELECT a FROM t", session="other")
    found = corpus(*events)
    assert [(u.session, found.by_id[u.steps[0].statement].text(u.steps[0])) for u in found.units] == [
        (1, "SET search_path = x"), (1, "SELECT a FROM t"), (2, "SET search_path = y"), (2, "SELECT a FROM t"),
    ]  # fmt: skip


def test_what_is_gone_is_described_where_it_was() -> None:
    server = Server()
    made = build("v1", sent("CREATE TABLE gone ()", "SELECT a FROM gone", "DROP TABLE gone"), server)
    read = next(s for s in made.corpus.statements if s.sql.startswith("SELECT"))
    assert read.columns == ("a text",)
    assert not read.unasked, "the tests dropped it; where the app serves it is there"
    assert server.ran[0] == "BEGIN"
    assert server.ran[-1] == "ROLLBACK"


def test_what_nobody_can_describe_is_kept_with_its_reason() -> None:
    found = corpus(*sent("SELECT a FROM gone WHERE b = 1"))
    (read,) = found.statements
    assert read.columns == ()
    assert "does not exist" in read.unasked
    assert [step.values for step in found.steps()] == [("1",)]


def test_what_the_server_never_took_is_left_out() -> None:
    made = build("v1", [Event("a", "SELECT a FROM gone", sqlstate="42P01"), Event("a", "SELECT a FROM t")], Server())
    assert [s.sql for s in made.corpus.statements] == ["SELECT a FROM t"]
    assert made.left_out == {"statements that the server never took": 1}


def test_a_failure_keeps_its_code() -> None:
    found = corpus(Event("a", "INSERT INTO t VALUES ($1)", ("1",), sqlstate="23505"))
    assert [step.sqlstate for step in found.steps()] == ["23505"]


def test_parameters_that_were_not_told() -> None:
    made = build("v1", [Event("a", "SELECT a FROM t WHERE b = $1")], Server())
    assert [(s.sql, s.types) for s in made.corpus.statements] == [("SELECT a FROM t WHERE b = $1", ("text",))]
    assert made.corpus.units == ()
    assert made.left_out == {"sendings whose parameters were not told": 1}


def test_types_that_were_told_are_kept() -> None:
    found = corpus(Event("a", "SELECT a FROM t WHERE b = $1", ("1",), ("bigint",), prepared=True))
    assert (found.statements[0].types, found.statements[0].prepared) == (("bigint",), True)


def test_a_savepoint_around_a_drivers_question_goes_with_it() -> None:
    made = build(
        "v1", sent("BEGIN", "SAVEPOINT a", "SELECT oid FROM pg_type", "RELEASE a", "COMMIT", "SELECT 2"), Server()
    )
    assert [s.sql for s in made.corpus.statements] == ["SELECT $1"]


@pytest.mark.parametrize(
    ("sql", "left_out"),
    [
        ("SHOW server_version", True),
        (
            "SELECT t.oid FROM pg_catalog.pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typname = $1",
            True,
        ),
        ("WITH RECURSIVE tree (oid) AS (SELECT oid FROM pg_type), x AS (SELECT 1) SELECT * FROM tree, x", True),
        ("SELECT * FROM information_schema.tables, unnest($1)", True),
        ("SELECT * FROM pg_class, app_things", False),
        ("SELECT * FROM (SELECT 1 FROM pg_class) c, LATERAL (SELECT * FROM app) d", False),
        ("SELECT * FROM pg_search_documents", False),
        ("SELECT app_function() FROM app_function()", False),
        ("SELECT 1", False),
        ("SELECT pg_advisory_lock(1)", False),
        ("SELECT extract(epoch FROM x) FROM pg_class", False),
        ("DELETE FROM pg_type", False),
        ("CREATE DATABASE x", True),
        ("COMMIT PREPARED 'x'", True),
    ],
)
def test_what_is_not_the_apps(sql: str, left_out: bool) -> None:
    assert bool(not_the_apps(sql)) is left_out


def test_a_recording_is_read_as_it_was_written(tmp_path: object) -> None:
    found = corpus(
        *sent(
            "CREATE TABLE gone ()", "SELECT a FROM gone WHERE b = 'é'", "BEGIN", "INSERT INTO t VALUES (1)", "ROLLBACK"
        ),
        Event("b", "UPDATE t SET a = $1", (None,), sqlstate="23502"),
    )
    path = tmp_path / "v1.json"  # type: ignore[operator]
    write_corpus(path, found)
    assert read_corpus(path, "v1") == found
