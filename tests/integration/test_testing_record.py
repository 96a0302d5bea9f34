"""`--parallelchange-record`: what an app's own suite sends becomes a corpus, and never at the app's cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.plugin import PLUGIN, copy_example, run

from parallelchange.corpus import Corpus, read_corpus

pytest_plugins = ["pytester"]

RECORD = ("--parallelchange-record", "old", "--parallelchange-output", "out.json")

# Plays an app's repository that brings its own database, and drops it when the tests are over.
OWN_DATABASE = """
import os
import psycopg, pytest

@pytest.fixture(scope="session", autouse=True)
def url(request):
    name = "own_" + os.environ.get("PYTEST_XDIST_WORKER", "main")
    server = os.environ["TEST_SERVER"]
    def admin(*statements):
        with psycopg.connect(server, autocommit=True, application_name="harness") as session:
            for statement in statements:
                session.execute(statement)
    admin(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    url = psycopg.conninfo.make_conninfo(server, dbname=name)
    with psycopg.connect(url, application_name="harness") as session:
        session.execute("CREATE TABLE members (id int PRIMARY KEY, phone text, tags text[])")
    yield url
    admin(f"DROP DATABASE {name} WITH (FORCE)")

@pytest.fixture
def session(url):
    with psycopg.connect(url, application_name="library-v1", autocommit=True) as session:
        yield session
"""

SUITE = """
import pytest

@pytest.mark.parametrize("number", range(4))
def test_insert(session, number):
    with session.transaction():
        session.execute("INSERT INTO members (id, phone, tags) VALUES (%s, %s, %s)", (number, "1", ["a", "b"]))

def test_select(session):
    assert session.execute("SELECT phone FROM members WHERE id = %s", (-1,)).fetchall() == []

def test_copy(session):
    with session.cursor().copy("COPY members (id) FROM STDIN") as copy:
        copy.write_row((100,))

def test_temporary(session):
    session.execute("CREATE TEMP TABLE mine (a int)")
    session.execute("SELECT a FROM mine")

def test_refused(session):
    with pytest.raises(Exception, match="null value"):
        session.execute("INSERT INTO members (id) VALUES (%s)", (None,))
"""

DRIVERS = """
import asyncio, os
import psycopg, pytest
from sqlalchemy import create_engine, text

URL = os.environ["DATABASE_URL"]

def connect(**options):
    return psycopg.connect(URL, application_name="library-v1", **options)

def test_transactions():
    with connect(autocommit=True) as session:
        with session.transaction():
            session.execute("INSERT INTO members (phone) VALUES (%s)", ("1",))
            with pytest.raises(psycopg.Error), session.transaction():
                session.execute("INSERT INTO loans VALUES (%s, %s)", (-1, "Emma"))
        with session.transaction(force_rollback=True):
            session.execute("DELETE FROM loans WHERE book = 'Emma'")

def test_many():
    with connect() as session, session.cursor() as cursor:
        cursor.executemany("INSERT INTO members (phone) VALUES (%s)", [("2",), (None,), ("it's",)])
        for _ in range(7):
            cursor.execute("SELECT count(*) FROM members WHERE phone = %s", ("2",))

def test_cursors():
    with connect() as session:
        with session.cursor("named") as named:
            named.execute("SELECT phone FROM members WHERE id < %s ORDER BY id", (3,))
            assert len(named.fetchall()) == 2
        with psycopg.ClientCursor(session) as client:
            client.execute("UPDATE members SET joined = %s WHERE id = %s", ("2026-01-01", 1))
        with session.cursor().copy("COPY loans FROM STDIN") as copy:
            copy.write_row((1, "Persuasion"))
        assert list(session.cursor().stream("SELECT book FROM loans")) == [("Persuasion",)]

def test_async():
    async def run():
        async with await psycopg.AsyncConnection.connect(URL, application_name="library-v1") as session:
            await session.execute("INSERT INTO loans VALUES (%s, %s) ON CONFLICT DO NOTHING", (2, "Emma"))
            await session.rollback()
    asyncio.run(run())

def test_own_table():
    with connect(autocommit=True) as session:
        session.execute("CREATE TEMP TABLE picked (id bigint)")
        session.execute("INSERT INTO picked SELECT id FROM members")
        session.execute("SELECT phone FROM members JOIN picked USING (id) WHERE id = %s", (1,))

def test_sqlalchemy():
    url = URL.replace("postgresql:", "postgresql+psycopg:", 1)
    engine = create_engine(url, connect_args={"application_name": "library-v1"})
    with engine.begin() as connection:
        connection.execute(text("UPDATE members SET phone = :phone WHERE id = :id"), {"phone": "9", "id": 1})
    with engine.connect() as connection:
        connection.execute(text("SELECT phone FROM members WHERE id = :id"), {"id": 1})
    engine.dispose()
"""


@pytest.fixture
def server(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TEST_SERVER", database)
    return database


def corpus_of(path: Path) -> Corpus:
    return read_corpus(path, "library-v1")


def by_sql(corpus: Corpus) -> dict[str, Any]:
    return {item.sql: item for item in corpus.statements}


def test_a_suite_with_its_own_database_is_recorded(pytester: pytest.Pytester, server: str) -> None:
    copy_example(pytester)
    pytester.makeconftest(OWN_DATABASE)
    pytester.makepyfile(test_app=SUITE)
    done = run(pytester, *RECORD)
    assert done.ret == 0
    corpus = corpus_of(pytester.path / "out.json")
    done.stdout.fnmatch_lines([f"recorded {len(corpus.statements)} statements of library-v1, *out.json"])
    found = by_sql(corpus)
    insert = found["INSERT INTO members (id, phone, tags) VALUES ($1, $2, $3)"]
    assert insert.types == ("integer", "text", "text[]")
    assert insert.where == "test_app.py::test_insert[0]"
    assert found["SELECT phone FROM members WHERE id = $1"].columns == ("phone text",)
    assert "COPY members (id) FROM STDIN" in found
    assert found["SELECT a FROM mine"].unasked
    assert not any("CREATE TABLE members" in sql or "DATABASE" in sql for sql in found), "that is the harness's"
    sent = {(found_.sql, step.values, step.sqlstate, unit.end) for unit in corpus.units for step in unit.steps
            for found_ in [corpus.by_id[step.statement]]}  # fmt: skip
    assert (insert.sql, ("0", "1", "{a,b}"), "", "commit") in sent
    assert ("INSERT INTO members (id) VALUES ($1)", (None,), "23502", "auto") in sent
    assert server not in (pytester.path / "out.json").read_text() + done.stdout.str()


def test_workers_record_the_same(pytester: pytest.Pytester, server: str) -> None:
    copy_example(pytester)
    pytester.makeconftest(OWN_DATABASE)
    # What one session makes for itself can be described in its own worker only.
    pytester.makepyfile(test_app=SUITE.replace("TEMP TABLE", "TABLE IF NOT EXISTS").replace("mine", "kept"))
    assert run(pytester, *RECORD).ret == 0
    alone = corpus_of(pytester.path / "out.json")
    (pytester.path / "out.json").unlink()
    done = run(pytester, *RECORD, "-n", "2")
    assert done.ret == 0, done.stdout.str()
    shared = corpus_of(pytester.path / "out.json")
    assert [(s.sql, s.types, s.columns) for s in shared.statements] == [
        (s.sql, s.types, s.columns) for s in alone.statements
    ]
    assert sum(len(unit.steps) for unit in shared.units) == sum(len(unit.steps) for unit in alone.units)


def test_it_records_what_the_servers_log_tells(pytester: pytest.Pytester) -> None:
    """One run, recorded from both sides."""
    repository = copy_example(pytester, tests=True)
    (repository / "tests" / "app" / "test_drivers.py").write_text(DRIVERS)
    (repository / "fill.py").write_text(
        "import os, psycopg\nfrom tests.conftest import fill\n"
        "with psycopg.connect(os.environ['DATABASE_URL']) as connection: fill(connection)\n"
    )
    suite = [sys.executable, "-m", "pytest", *PLUGIN, "tests/app/test_v1.py", "tests/app/test_drivers.py", *RECORD]
    command = [sys.executable, "-m", "parallelchange", "record", "library-v1", "--change", "changes/rename-phone.yaml",
               "--setup", f"{sys.executable} fill.py", "--output", "log.json", "--", *suite]  # fmt: skip
    env = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    done = subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen, logged = corpus_of(repository / "out.json"), corpus_of(repository / "log.json")
    assert [(s.sql, s.types, s.columns, s.prepared) for s in seen.statements] == [
        (s.sql, s.types, s.columns, s.prepared) for s in logged.statements
    ]
    assert seen.units == logged.units
    assert len(seen.statements) > 10


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_examples_recordings_are_what_its_tests_send(pytester: pytest.Pytester, version: str) -> None:
    written = copy_example(pytester, tests=True) / "recorded" / f"library-{version}.json"
    before = read_corpus(written, f"library-{version}")
    assert run(pytester, f"tests/app/test_{version}.py", "--parallelchange-record", f"library-{version}").ret == 0
    assert read_corpus(written, f"library-{version}") == before


def test_a_failing_suite_records_nothing(pytester: pytest.Pytester, server: str) -> None:
    copy_example(pytester)
    pytester.makeconftest(OWN_DATABASE)
    pytester.makepyfile(test_app=SUITE + "\ndef test_wrong(session): assert False\n")
    done = run(pytester, *RECORD)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["nothing was recorded of library-v1: the tests did not pass"])
    assert not (pytester.path / "out.json").exists()


def test_an_error_of_the_hook_fails_the_recording_and_no_test(pytester: pytest.Pytester, server: str) -> None:
    copy_example(pytester)
    pytester.makeconftest(OWN_DATABASE)
    pytester.makepyfile(
        test_app=SUITE
        + """
def test_break(session, monkeypatch):
    from parallelchange.testing.recorder import Recorder
    monkeypatch.setattr(Recorder, "add", lambda *a, **k: 1 / 0)
    for number in range(3):
        session.execute("SELECT 1")
"""
    )
    done = run(pytester, *RECORD)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.assert_outcomes(passed=9)
    told = [line for line in done.stdout.lines if "nothing was recorded" in line]
    assert told == ["nothing was recorded of library-v1: ZeroDivisionError: division by zero"]
    assert not (pytester.path / "out.json").exists()


def test_without_the_versions_name_all_sessions_are_recorded_and_that_is_told(
    pytester: pytest.Pytester, server: str
) -> None:
    copy_example(pytester)
    pytester.makeconftest(OWN_DATABASE.replace('"library-v1"', '"nameless"'))
    pytester.makepyfile(test_app=SUITE)
    done = run(pytester, *RECORD)
    assert done.ret == 0
    done.stdout.fnmatch_lines(["no session called itself library-v1: the statements of all sessions were recorded"])
    assert any("CREATE TABLE members" in sql for sql in by_sql(corpus_of(pytester.path / "out.json")))


def test_a_database_of_a_modules_own_is_described_while_it_is_there(pytester: pytest.Pytester, server: str) -> None:
    copy_example(pytester)
    pytester.makeconftest(OWN_DATABASE.replace('scope="session", autouse=True', 'scope="module"'))
    pytester.makepyfile(test_app=SUITE.replace("TEMP TABLE mine", "TABLE mine"), test_later="def test_nothing(): pass")
    done = run(pytester, *RECORD)
    assert done.ret == 0, done.stdout.str()
    assert "SELECT phone FROM members WHERE id = $1" in by_sql(corpus_of(pytester.path / "out.json"))


def test_a_database_that_was_gone_before_it_could_be_asked_fails_the_recording(
    pytester: pytest.Pytester, server: str
) -> None:
    copy_example(pytester)
    pytester.makepyfile(
        """
        import os, psycopg

        def test_it():
            server = os.environ["TEST_SERVER"]
            with psycopg.connect(server, autocommit=True) as admin:
                admin.execute("CREATE DATABASE short_lived")
                url = psycopg.conninfo.make_conninfo(server, dbname="short_lived")
                with psycopg.connect(url, application_name="library-v1") as session:
                    session.execute("SELECT 1 + %s", (1,))
                admin.execute("DROP DATABASE short_lived WITH (FORCE)")
        """
    )
    done = run(pytester, *RECORD)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["nothing was recorded of library-v1: Unavailable: *does not answer*"])
    assert not (pytester.path / "out.json").exists()


def test_locks_of_the_apps_fixtures_are_waited_out(pytester: pytest.Pytester, server: str) -> None:
    """A fixture that rolls back at its end holds its locks for as long as its test lasts."""
    copy_example(pytester)
    pytester.makepyfile(
        """
        import os, psycopg, pytest

        @pytest.fixture
        def session():
            with psycopg.connect(os.environ["TEST_SERVER"], application_name="harness") as harness:
                harness.execute("CREATE TABLE IF NOT EXISTS members (phone text)")
            with psycopg.connect(os.environ["TEST_SERVER"], application_name="library-v1") as session:
                session.execute("LOCK TABLE members")
                yield session
                session.rollback()

        def test_it(session):
            session.execute("SELECT phone FROM members")
        """
    )
    assert run(pytester, *RECORD).ret == 0
    select = by_sql(corpus_of(pytester.path / "out.json"))["SELECT phone FROM members"]
    assert select.columns == ("phone text",)
    assert not select.unasked


def test_it_goes_to_the_change_files_own_place(pytester: pytest.Pytester, server: str) -> None:
    repository = copy_example(pytester)
    pytester.makeconftest(OWN_DATABASE)
    pytester.makepyfile(test_app=SUITE)
    assert run(pytester, "--parallelchange-record", "library-v1").ret == 0
    written = json.loads((repository / "recorded" / "library-v1.json").read_text())
    assert any("COPY" in item["sql"] for item in written["statements"])
