"""PostgreSQL's log, read as what sessions sent."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from parallelchange.adapters.postgres.log import Logged, csv_entries, json_entries, read_file, read_log
from parallelchange.errors import InvalidFile
from parallelchange.recording import Event


def line(message: str, detail: str | None = None, *, session: str = "s", **more: object) -> dict[str, object]:
    told = {"detail": detail} if detail else {}
    return {"session_id": session, "dbname": "d", "error_severity": "LOG", "message": message, **told, **more}


def failed(state: str, statement: str, ps: str, session: str = "s") -> dict[str, object]:
    return {"session_id": session, "dbname": "d", "error_severity": "ERROR", "state_code": state, "message": "no",
            "statement": statement, "ps": ps}  # fmt: skip


def read(*entries: dict[str, object], whole: bool = True) -> Logged:
    return read_log(json_entries(map(json.dumps, entries)), wanted=lambda _entry: True, whole=whole)


def test_simple_and_extended() -> None:
    events = read(
        line("statement: SELECT 1; SELECT 2"),
        line("execute <unnamed>: INSERT INTO t VALUES ($1, $2)", "Parameters: $1 = 'O''Hara', $2 = NULL"),
        line("execute _pg3_0: SELECT $1", "parameters: $1 = 'a, $2 = ''b'''"),
        line("execute S_1/C_2: SELECT\n3"),
        line("execute fetch from S_1/C_2: SELECT\n3"),
    ).events
    assert events == [
        Event("s", "SELECT 1; SELECT 2"),
        Event("s", "INSERT INTO t VALUES ($1, $2)", ("O'Hara", None)),
        Event("s", "SELECT $1", ("a, $2 = 'b'",), prepared=True),
        Event("s", "SELECT\n3", prepared=True),
    ]


def test_durations_count_once() -> None:
    events = read(
        line("duration: 0.1 ms  parse <unnamed>: SELECT $1"),
        line("duration: 0.1 ms  bind <unnamed>: SELECT $1", "Parameters: $1 = '5'"),
        line("duration: 0.2 ms  execute <unnamed>: SELECT $1", "Parameters: $1 = '5'"),
        line("duration: 0.3 ms  statement: SELECT 2"),
        line("statement: SELECT 3"),
        line("duration: 0.3 ms"),
        line("connection authorized: user=x"),
    ).events
    assert events == [Event("s", "SELECT $1", ("5",)), Event("s", "SELECT 2"), Event("s", "SELECT 3")]


def test_errors_mark_what_failed() -> None:
    insert, told = "INSERT INTO t VALUES ($1)", "Parameters: $1 = '1'"
    events = read(
        line(f"execute <unnamed>: {insert}", told),
        line(f"execute <unnamed>: {insert}", told),
        failed("23505", insert, "INSERT"),
        failed("22P02", insert, "BIND"),  # one more, whose parameters could not be read
        failed("42P01", "SELECT * FROM nix", "PARSE"),
        failed("42601", "SELEC", "idle"),
    ).events
    assert [(e.sql, e.values, e.sqlstate) for e in events] == [
        (insert, ("1",), ""), (insert, ("1",), "23505"), (insert, None, "22P02"), ("SELECT * FROM nix", None, "42P01"),
        ("SELEC", None, "42601"),
    ]  # fmt: skip


def test_an_error_is_not_laid_to_one_that_had_ended() -> None:
    events = read(line("duration: 0.3 ms  statement: SELECT f()"), failed("P0001", "SELECT f()", "SELECT")).events
    assert [(e.sql, e.sqlstate) for e in events] == [("SELECT f()", ""), ("SELECT f()", "P0001")]


def test_sessions_do_not_mix() -> None:
    events = read(line("statement: A"), line("statement: B", session="t"), failed("23505", "A", "INSERT")).events
    assert [(e.session, e.sql, e.sqlstate) for e in events] == [("s", "A", "23505"), ("t", "B", "")]


def test_what_execute_prepared_is_told_once() -> None:
    told = "prepare: PREPARE q AS SELECT 1"
    events = read(line("statement: EXECUTE q", told), line("statement: EXECUTE q", told)).events
    assert [e.sql for e in events] == ["PREPARE q AS SELECT 1", "EXECUTE q", "EXECUTE q"]


def test_parameters_that_were_cut() -> None:
    entry = line("execute <unnamed>: SELECT $1", "Parameters: $1 = 'abc...'")
    assert read(entry).events[0].values == ("abc...",)
    cut = read(entry, whole=False)
    assert cut.events[0].values is None
    assert cut.cut == 1


def test_lines_that_are_none() -> None:
    assert list(json_entries(["", "{", "[]", "5", '{"a": 1}'])) == [{"a": 1}]


CSV = (
    '2026-11-24 20:00:00.000 UTC,"app","shop",1,"127.0.0.1:5",6a.1,1,"INSERT",2026-11-24 20:00:00 UTC,3/4,0,LOG,00000,'
    '"execute <unnamed>: INSERT INTO t\nVALUES ($1)","Parameters: $1 = \'a ""quoted"" one\'",,,,,,,,"shop-v1",'
    '"client backend",,0\n'
)


def test_csv() -> None:
    logged = read_log(csv_entries(io.StringIO(CSV)), wanted=lambda e: e["application_name"] == "shop-v1", whole=True)
    assert logged.events == [Event("6a.1", "INSERT INTO t\nVALUES ($1)", ('a "quoted" one',))]
    assert logged.by_database() == {"shop": 1}


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "b.json").write_text(json.dumps(line("statement: A")) + "\n{half")
    assert len(list(read_file(tmp_path / "a.csv"))) == len(list(read_file(tmp_path / "b.json"))) == 1
    (tmp_path / "c.log").write_text("LOG: plain")
    with pytest.raises(InvalidFile, match="no line of a log"):
        list(read_file(tmp_path / "c.log"))
    with pytest.raises(InvalidFile, match="cannot be read"):
        list(read_file(tmp_path))
