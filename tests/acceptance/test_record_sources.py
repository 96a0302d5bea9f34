"""Recording where there are no tests: from a server's own log, and from pg_stat_statements."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from acceptance.conftest import run
from parallelchange.corpus import Corpus, Recorded, read_corpus
from parallelchange.local.postgres import scratch_postgres

SETTINGS = {
    "log_destination": "jsonlog,csvlog",
    "logging_collector": "on",
    "log_directory": "logs",
    "log_filename": "server.log",
    "log_min_duration_statement": "0",
    "log_parameter_max_length": "20",
}
SCHEMA = "CREATE TABLE pets (id int PRIMARY KEY, name text, owner text)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server as it may stand in production, what an app sent to it, and its logs."""
    kept = tmp_path_factory.mktemp("logs")
    with scratch_postgres(SETTINGS) as postgres:
        url = postgres.create_database("shop")
        with psycopg.connect(url, application_name="deploy", autocommit=True) as connection:
            connection.execute(SCHEMA)
        with psycopg.connect(url, application_name="shop-v1") as connection:
            for number in range(7):  # by name from the sixth time on
                connection.execute("INSERT INTO pets VALUES (%s, %s)", (number, "Rex"))
            connection.commit()
            connection.execute("UPDATE pets SET owner = %s WHERE id = %s", ("a name of more than 20 characters", 1))
            with pytest.raises(psycopg.errors.UniqueViolation):
                connection.execute("INSERT INTO pets VALUES (%s, %s)", (1, "Rex"))
            connection.rollback()
            connection.execute("SELECT name FROM pets WHERE id = 1; SELECT count(*) FROM pets")
        with psycopg.connect(url, application_name="else") as connection:
            connection.execute("SELECT 'of another app'")
        postgres.restart()  # so that all of the log is there
        for kind in ("json", "csv"):
            shutil.copy(postgres.data_dir / "logs" / f"server.{kind}", kept / f"server.{kind}")
        yield url, kept


def by_text(corpus: Corpus) -> dict[str, Recorded]:
    return {statement.sql: statement for statement in corpus.statements}


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_production_log(server: tuple[str, Path], tmp_path: Path, kind: str) -> None:
    url, logs = server
    ran = run("record", "v1", "--from-log", logs / f"server.{kind}", "--database-url", url, "--output", "v1.json",
              "--json", cwd=tmp_path)  # fmt: skip
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    corpus = read_corpus(tmp_path / "v1.json", "v1")
    found = by_text(corpus)
    insert = found["INSERT INTO pets VALUES ($1, $2)"]
    assert insert.prepared, "the seventh was prepared by name"
    assert insert.types == ("integer", "text")
    kept = next(u for u in corpus.units if len(u.steps) == 7)
    assert kept.end == "commit"
    assert [s.values for s in kept.steps] == [(str(n), "Rex") for n in range(7)]
    assert found["SELECT name FROM pets WHERE id = $1"].columns == ("name text",)
    assert "SELECT $1" in found, "without --change every app counts"
    assert any("log_parameter_max_length" in reason for reason in told["left_out"])
    update = found["UPDATE pets SET owner = $1 WHERE id = $2"]
    assert update.types == ("text", "integer")
    assert update.id not in corpus.examples, "its parameters were cut, so they are not known"
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM pets").fetchone() == (7,), "nothing was run there"


def test_a_production_log_with_the_schema_in_a_file(server: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "schema.sql").write_text(SCHEMA + ";")
    arguments = ("--from-log", server[1] / "server.json", "--schema", "schema.sql", "--output", "v1.json")
    ran = run("record", "v1", *arguments, cwd=tmp_path)
    assert ran.code == 0, ran.err
    found = by_text(read_corpus(tmp_path / "v1.json", "v1"))
    assert found["SELECT name FROM pets WHERE id = $1"].columns == ("name text",)
    assert not found["SELECT name FROM pets WHERE id = $1"].unasked
    without = run("record", "v1", "--from-log", server[1] / "server.json", "--output", "v2.json", cwd=tmp_path)
    assert without.code == 2
    assert "no database is named" in without.err


def test_pg_stat_statements(contrib: str, tmp_path: Path) -> None:
    with psycopg.connect(contrib, autocommit=True) as connection:
        connection.execute(SCHEMA)
        connection.execute("SELECT name FROM pets WHERE id = 7 AND owner = 'Ada'")
        connection.execute("INSERT INTO pets VALUES (%s, %s)", (1, "Rex"))
        connection.execute("SELECT interval '1 day', 'x'::text")  # as `interval $1` it cannot be prepared
    ran = run("record", "v1", "--from-pg-stat-statements", contrib, "--output", "v1.json", "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    corpus = read_corpus(tmp_path / "v1.json", "v1")
    found = by_text(corpus)
    read = found["SELECT name FROM pets WHERE id = $1 AND owner = $2"]
    assert (read.types, read.columns) == (("integer", "text"), ("name text",))
    assert found["INSERT INTO pets VALUES ($1, $2)"].types == ("integer", "text")
    assert not any("interval" in sql for sql in found)
    assert corpus.units == (), "no values, so nothing that was sent"
    assert told["left_out"]["statements that cannot be prepared as they were told, without values"] >= 1
    assert any("utility" in reason for reason in told["left_out"])
    with psycopg.connect(contrib) as connection:
        assert connection.execute("SELECT count(*) FROM pets").fetchone() == (1,)


def test_a_server_without_pg_stat_statements(database: str, tmp_path: Path) -> None:
    ran = run("record", "v1", "--from-pg-stat-statements", database, "--output", "v1.json", cwd=tmp_path)
    assert ran.code == 3
    assert "has no pg_stat_statements" in ran.err
    assert "hint:" in ran.err
