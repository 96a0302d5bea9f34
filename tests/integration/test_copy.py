"""The rehearsal copy: the same schema, rows with all they refer to, and nothing that is masked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.richschema import RICH, ROLES
from psycopg import sql

from parallelchange.adapters.postgres.connection import connect
from parallelchange.adapters.postgres.fingerprint import fingerprint
from parallelchange.change import Mask, RehearsalSpec
from parallelchange.errors import Busy, Denied, Unavailable
from parallelchange.local.copy import copy_database
from parallelchange.local.postgres import client_programs
from parallelchange.local.scratch import scratch_database
from parallelchange.model import TableName

PATH = Path("change.yaml")
_numbers = count(1)


def silent(_: str) -> None:
    pass


def mask(column: str, rule: str, expression: str | None = None) -> Mask:
    table, _, name = column.rpartition(".")
    return Mask(
        table=TableName.parse(table), column=name, rule=rule, expression=expression, path=PATH, line=next(_numbers)
    )


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def run(url: str, statements: str) -> None:
    with connect(url) as connection:
        connection.execute(statements.encode())


@pytest.fixture
def target(postgres: Any) -> Iterator[str]:
    """An empty database to copy into, on the same server."""
    name = f"copy_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres.get_uri(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield postgres.get_uri(database=name)
    with psycopg.connect(postgres.get_uri(), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def rich(database: str) -> Iterator[str]:
    """The rich schema; its roles are dropped again."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(RICH)
        name = sql.Identifier(connection.info.dbname)
        settings = "search_path = sales, public", "statement_timeout = 7000", "work_mem = '5120kB'", "my.own = 'a, b'"
        for setting in settings:
            connection.execute(sql.SQL("ALTER DATABASE {} SET {}").format(name, sql.SQL(setting)))
        connection.execute(sql.SQL("ALTER ROLE copy_app IN DATABASE {} SET work_mem = '5MB'").format(name))
        connection.execute('ALTER ROLE copy_reader SET search_path = sales, "$user"')
        connection.execute("ALTER ROLE copy_app SET log_statement = 'all'")
        connection.execute("ALTER ROLE copy_app SET work_mem = '6MB'")
        connection.execute(sql.SQL("REVOKE TEMP ON DATABASE {} FROM PUBLIC").format(name))
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO copy_owner").format(name))
    yield database
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP EVENT TRIGGER IF EXISTS copy_seen")
        name = connection.info.dbname
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO postgres").format(sql.Identifier(name)))
        for role in ROLES:
            connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))
        for role in ROLES:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


# What a fingerprint may not have in it yet: who may do what, whose it is, what is said of it.
REST = """
WITH told(kind, name, owner, acl, more) AS (
  SELECT 'relation', c.oid::regclass::text, relowner, relacl, relkind::text
  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
  WHERE nspname IN ('sales', 'Odd Schema', 'public') AND relkind IN ('r', 'v', 'm', 'S', 'p')
  UNION ALL SELECT 'column', attrelid::regclass || '.' || attname, 0, attacl, '' FROM pg_attribute
    WHERE attacl IS NOT NULL AND attrelid >= 16384
  UNION ALL SELECT 'function', oid::regprocedure::text, proowner, proacl, '' FROM pg_proc
    WHERE pronamespace = 'sales'::regnamespace
  UNION ALL SELECT 'schema', nspname, nspowner, nspacl, '' FROM pg_namespace WHERE nspname !~ '^pg_'
  UNION ALL SELECT 'comment', pg_describe_object(classoid, objoid, objsubid), 0, '{}', description FROM pg_description
    WHERE objoid >= 16384 AND pg_describe_object(classoid, objoid, objsubid) !~ '^(role|database) '
  UNION ALL SELECT 'default', defaclobjtype::text, defaclrole, defaclacl, '' FROM pg_default_acl
  UNION ALL SELECT 'event', evtname, evtowner, '{}', evtenabled::text FROM pg_event_trigger
  UNION ALL SELECT 'database', '', datdba, datacl, '' FROM pg_database WHERE datname = current_database()
  UNION ALL SELECT 'statistics', pg_get_statisticsobjdef(oid), stxowner, '{}', '' FROM pg_statistic_ext
  UNION ALL SELECT 'sequence', schemaname || '.' || sequencename, 0, '{}', format('%s %s', last_value, increment_by)
    FROM pg_sequences
  UNION ALL SELECT 'type', typname, typowner, typacl, '' FROM pg_type
    WHERE typnamespace = 'sales'::regnamespace AND typname !~ '^_'
)
SELECT kind, name, CASE WHEN owner > 0 THEN pg_get_userbyid(owner) END,
  ARRAY(SELECT a::text FROM unnest(acl) a ORDER BY 1), more
FROM told ORDER BY 1, 2, 5
"""
SETTINGS = """
SELECT setrole::regrole::text, s FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
  CROSS JOIN unnest(setconfig) s
  WHERE datname = current_database() AND s !~ '^search_path=sales, .{0,3}user' ORDER BY 1, 2
"""


def test_the_schema_is_the_same_to_the_last_grant(rich: str, target: str) -> None:
    copy_database(rich, target, client_programs(), spec=RehearsalSpec(rows=50))
    with connect(rich) as there, connect(target) as here:
        assert fingerprint(here) == fingerprint(there)
    assert ask(target, REST) == ask(rich, REST)
    assert ask(target, SETTINGS) == ask(rich, SETTINGS)
    reader = "SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'copy_reader'::regrole AND setdatabase = {}"
    own = ask(target, reader.format("(SELECT oid FROM pg_database WHERE datname = current_database())"))
    assert own == ask(rich, reader.format("0"))
    with psycopg.connect(target) as app:
        assert app.execute("SHOW search_path").fetchone() == ("sales, public",)


ORPHANS = """
SELECT c.conrelid::regclass::text, c.confrelid::regclass::text,
  ARRAY(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY k(n, p) JOIN pg_attribute a
        ON a.attrelid = c.conrelid AND a.attnum = n ORDER BY p),
  ARRAY(SELECT a.attname::text FROM unnest(c.confkey) WITH ORDINALITY k(n, p) JOIN pg_attribute a
        ON a.attrelid = c.confrelid AND a.attnum = n ORDER BY p)
FROM pg_constraint c WHERE contype = 'f' AND conparentid = 0 ORDER BY 1, 2
"""


def orphans(url: str) -> dict[str, int]:
    """Rows without what they refer to, counted by hand and not by the server's own check."""
    found = {}
    with psycopg.connect(url, autocommit=True) as connection:
        for child, parent, own, other in connection.execute(ORPHANS).fetchall():
            whole = " AND ".join(f'c."{a}" IS NOT NULL' for a in own)
            same = " AND ".join(f'c."{a}" = p."{b}"' for a, b in zip(own, other, strict=True))
            query = f"SELECT count(*) FROM {child} c WHERE {whole} AND NOT EXISTS (SELECT FROM {parent} p WHERE {same})"
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            found[f"{child} {parent} {own}"] = row[0]
    return found


def test_every_row_has_what_it_refers_to(rich: str, target: str) -> None:
    copy_database(rich, target, client_programs(), spec=RehearsalSpec(rows=10))
    broken = {key: number for key, number in orphans(target).items() if number}
    assert list(broken) == ["sales.old sales.customers ['customer']"] or list(broken) == ["old customers ['customer']"]
    # Of the ten that were taken, those that are orphans on the source too: 60 rows refer to 100, 200, ... 6000.
    assert set(broken.values()) == {7}
    taken = ask(target, "SELECT id FROM sales.old ORDER BY id")
    assert [row[0] for row in taken] == [1, 2, 3, 4, 5, 56, 57, 58, 59, 60]
    assert ask(target, "SELECT count(*) FROM sales.old WHERE size < 0") == [(10,)]
    assert ask(target, "SELECT count(*) FROM sales.loose WHERE b = 'touched'") == [(10,)]
    assert ask(target, "SELECT count(*) > 10, count(*) < 300, bool_and(double = size * 2) FROM sales.customers") == [
        (True, True, True)
    ]
    for partition in ("sales.events_1", "sales.events_2"):
        assert ask(target, f"SELECT count(*) BETWEEN 5 AND 20 FROM ONLY {partition}") == [(True,)]
    assert ask(target, "SELECT count FROM sales.counted") == ask(target, "SELECT count(*) FROM sales.customers")
    assert ask(target, "SELECT relispopulated FROM pg_class WHERE relname = 'never'") == [(False,)]
    assert ask(target, "SELECT nextval('sales.numbers'), nextval('sales.fresh')") == [(25, 5)]


def test_a_copy_is_the_same_each_time(rich: str, target: str, postgres: Any) -> None:
    def content(url: str) -> list[Any]:
        tables = ask(url, "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND oid >= 16384 ORDER BY 1")
        return [(t, ask(url, f"SELECT x::text FROM {t} x ORDER BY 1")) for (t,) in tables if "pg_" not in t]

    copy_database(rich, target, client_programs(), spec=RehearsalSpec(rows=9))
    first = content(target)
    with scratch_database(rich, rich, silent) as scratch:
        copy_database(rich, scratch.url, scratch.tools, spec=RehearsalSpec(rows=9))
        assert content(scratch.url) == first
    assert len(first) == 10


def test_a_newer_schema_is_copied_to_an_older_server(rich: str, fifteen: str) -> None:
    told: list[str] = []
    with scratch_database(rich, fifteen, told.append) as scratch:
        copy_database(rich, scratch.url, scratch.tools, spec=RehearsalSpec(rows=20), tell=told.append)
        assert ask(scratch.url, "SELECT current_setting('server_version_num')::int < 160000") == [(True,)]
        # The fingerprint is not the same: older servers print views and name the keys of partitions in another way.
        # Who owns a table may maintain it since 17.
        assert ask(scratch.url, REST) == ask(
            rich, REST.replace("SELECT a::text", "SELECT replace(a::text, 'tm/', 't/')")
        )
        attributes = (
            "SELECT rolname, rolinherit, rolbypassrls, rolsuper FROM pg_roles WHERE rolname ~ '^copy_' ORDER BY 1"
        )
        assert ask(scratch.url, attributes) == ask(rich, attributes)
        assert ask(scratch.url, "SELECT count(*) FROM pg_authid WHERE rolname ~ '^copy_' AND (rolcanlogin"
                   " OR rolpassword IS NOT NULL)") == [(0,)]  # fmt: skip
        members = "SELECT roleid::regrole::text, member::regrole::text, admin_option FROM pg_auth_members m"
        members += " WHERE member::regrole::text ~ '^copy_' ORDER BY 1"
        assert ask(scratch.url, members) == ask(rich, members)
        assert re.search("parallelchange_rehearsal_[0-9a-f]{12}", scratch.url)
    assert told == []
    assert ask(fifteen, "SELECT datname FROM pg_database WHERE datname ~ '^parallelchange'") == []
    assert ask(fifteen, "SELECT rolname FROM pg_roles WHERE rolname ~ '^copy_'") == []


def test_a_server_without_an_extension_is_told(fifteen: str) -> None:
    with scratch_database(fifteen, fifteen, silent) as source:
        run(
            source.url,
            "CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE TABLE t (a citext PRIMARY KEY, h hstore);"
            " INSERT INTO t SELECT 'Key' || i, 'a=>1' FROM generate_series(1, 20) i;"
            " CREATE TABLE u (id int, a citext REFERENCES t); INSERT INTO u VALUES (1, 'KEY10'), (2, 'key2')",
        )
        with (
            scratch_database(source.url, None, silent) as scratch,
            pytest.raises(Unavailable, match="extensions citext, hstore") as caught,
        ):
            copy_database(source.url, scratch.url, scratch.tools)
        assert "--on" in str(caught.value.hint)
        with scratch_database(source.url, fifteen, silent) as scratch:
            rules = RehearsalSpec(rows=2, mask=(mask("t.a", "hash"), mask("u.a", "hash")))
            copy_database(source.url, scratch.url, scratch.tools, spec=rules)
            assert ask(scratch.url, "SELECT count(*), count(h->'a') FROM t") == [(4, 4)]
            assert ask(scratch.url, "SELECT count(*) FROM u JOIN t USING (a)") == [(2,)]


def test_the_shared_server_itself_is_warned_of(database: str) -> None:
    told: list[str] = []
    with scratch_database(database, database, told.append) as scratch:
        assert ask(scratch.url, "SELECT current_database()") != ask(database, "SELECT current_database()")
        assert ask(scratch.url, "SELECT 1 FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []
    assert len(told) == 1
    assert "the load is shared" in told[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, Unavailable])
def test_the_scratch_database_is_dropped_after_an_error(fifteen: str, error: type[BaseException]) -> None:
    def rehearse() -> None:
        with scratch_database(fifteen, fifteen, silent) as scratch:
            used.append(psycopg.connect(scratch.url))
            raise error("stop")

    used: list[psycopg.Connection[Any]] = []
    with pytest.raises(error):
        rehearse()
    assert ask(fifteen, "SELECT datname FROM pg_database WHERE datname ~ '^parallelchange'") == []
    used[0].close()


def test_what_a_killed_run_left_is_removed_when_nobody_uses_it(fifteen: str) -> None:
    code = (
        "import os, sys\nfrom parallelchange.local.scratch import scratch_database\n"
        "with scratch_database(sys.argv[1], sys.argv[1], lambda _: None): os.kill(os.getpid(), 9)"
    )
    left = "SELECT datname FROM pg_database WHERE datname ~ '^parallelchange_rehearsal' ORDER BY 1"
    subprocess.run([sys.executable, "-c", code, fifteen], check=False, timeout=60)
    (name,) = [row[0] for row in ask(fifteen, left)]
    run(fifteen, "CREATE DATABASE parallelchange_rehearsal_of_mine")  # no comment of ours
    run(fifteen, "CREATE ROLE left_behind; COMMENT ON ROLE left_behind IS"
        " 'parallelchange: made for a rehearsal copy, dropped with it'")  # fmt: skip
    try:
        used = psycopg.connect(fifteen, dbname=name)
        with scratch_database(fifteen, fifteen, silent):
            assert name in [row[0] for row in ask(fifteen, left)]
        used.close()
        time.sleep(0.5)
        with scratch_database(fifteen, fifteen, silent):
            now = [row[0] for row in ask(fifteen, left)]
        assert name not in now
        assert "parallelchange_rehearsal_of_mine" in now
    finally:
        run(fifteen, "DROP DATABASE parallelchange_rehearsal_of_mine")
    with scratch_database(fifteen, fifteen, silent):
        pass
    assert ask(fifteen, "SELECT 1 FROM pg_roles WHERE rolname = 'left_behind'") == []


def test_a_server_that_cannot_be_used_is_told_without_the_password(database: str) -> None:
    wrong = "postgresql://me:s3cr3t-word@127.0.0.1:1/x"
    with pytest.raises(Unavailable, match="server to rehearse on") as caught, scratch_database(database, wrong, silent):
        pass
    assert "s3cr3t" not in str(caught.value)


@pytest.fixture
def reader(database: str) -> Iterator[str]:
    """The database as a role that may read, and nothing else."""
    name = f"reader_{next(_numbers)}"
    run(database, f"CREATE ROLE {name} LOGIN")
    yield database.replace("//postgres:@", f"//{name}@").replace("//postgres@", f"//{name}@")
    run(database, f"DROP OWNED BY {name}; DROP ROLE {name}")


def role_of(url: str) -> str:
    return str(ask(url, "SELECT current_user")[0][0])


def test_row_security_hides_nothing_in_silence(database: str, reader: str, target: str) -> None:
    run(database, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2);"
        f" GRANT SELECT ON t TO {role_of(reader)}")  # fmt: skip
    copy_database(reader, target, client_programs())
    assert ask(target, "SELECT count(*) FROM t") == [(2,)]
    run(target, "DROP TABLE t")
    run(database, "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (id = 1)")
    with pytest.raises(Denied, match=r"row security hides rows of public\.t") as caught:
        copy_database(reader, target, client_programs())
    assert "BYPASSRLS" in str(caught.value.hint)


def test_what_may_not_be_read_is_told(database: str, reader: str, target: str) -> None:
    run(database, "CREATE TABLE t (id serial PRIMARY KEY)")
    with pytest.raises(Denied, match=r"permission denied|may not read") as caught:
        copy_database(reader, target, client_programs())
    assert caught.value.hint
    run(database, f"GRANT SELECT ON t TO {role_of(reader)}")
    run(target, "DROP TABLE IF EXISTS t")
    with pytest.raises(Denied, match="t_id_seq"):
        copy_database(reader, target, client_programs())


def test_a_locked_table_is_waited_for_only_so_long(database: str, target: str) -> None:
    run(database, "CREATE TABLE t (id int PRIMARY KEY)")
    with psycopg.connect(database) as holder:
        holder.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        begun = time.monotonic()
        with pytest.raises(Busy):
            copy_database(database, target, client_programs())
        assert time.monotonic() - begun < 20


def test_writers_go_on_and_the_copy_is_of_one_moment(database: str, target: str) -> None:
    """A writer moves money while the copy is made: the sum in the copy is that of one moment."""
    run(database, "CREATE TABLE a (id int PRIMARY KEY, money int); CREATE TABLE b (id int PRIMARY KEY, money int);"
        " INSERT INTO a SELECT i, 10 FROM generate_series(1, 3000) i; INSERT INTO b SELECT * FROM a")  # fmt: skip
    strong: set[str] = set()
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            number = 0
            while not stop.is_set():
                number = number % 3000 + 1
                with connection.transaction():
                    connection.execute("UPDATE a SET money = money - 1 WHERE id = %s", (number,))
                    connection.execute("UPDATE b SET money = money + 1 WHERE id = %s", (number,))
                found = connection.execute(
                    "SELECT DISTINCT mode FROM pg_locks WHERE pid <> pg_backend_pid() AND locktype = 'relation'"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                ).fetchall()
                strong.update(row[0] for row in found)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copy_database(database, target, client_programs())
    finally:
        stop.set()
        writer.join()
    assert ask(target, "SELECT (SELECT sum(money) FROM a) + (SELECT sum(money) FROM b)") == [(60000,)]
    assert ask(database, "SELECT sum(money) < 30000 FROM a") == [(True,)]
    assert strong == {"AccessShareLock"}


def test_both_ends_of_a_table_without_a_key(database: str, target: str) -> None:
    run(
        database,
        "CREATE TABLE t (a int, b text); INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 5000) i;"
        " CREATE TABLE small (a int); INSERT INTO small VALUES (1), (1), (2);"
        " CREATE TABLE none (); INSERT INTO none DEFAULT VALUES; CREATE TABLE empty (id int)",
    )
    copy_database(database, target, client_programs(), spec=RehearsalSpec(rows=40))
    taken = [row[0] for row in ask(target, "SELECT a FROM t ORDER BY a")]
    assert taken == [*range(1, 21), *range(4981, 5001)]
    assert ask(target, "SELECT count(*) FROM small") == [(3,)]
    assert ask(target, "SELECT count(*) FROM empty") == [(0,)]


def test_one_row_of_each_is_enough(rich: str, target: str) -> None:
    copy_database(rich, target, client_programs(), spec=RehearsalSpec(rows=1))
    assert {key for key, number in orphans(target).items() if number} <= {"sales.old sales.customers ['customer']"}
    assert ask(target, "SELECT min(id), max(id) FROM sales.regions r JOIN (SELECT 1 AS id) x ON true") == [(1, 1)]


@pytest.mark.parametrize("server", ["embedded", "fifteen"])
def test_a_role_that_is_no_superuser_makes_the_copy(database: str, postgres: Any, fifteen: str, server: str) -> None:
    run(
        database,
        "CREATE ROLE some_app NOLOGIN; CREATE SCHEMA app AUTHORIZATION some_app; SET ROLE some_app;"
        " CREATE TABLE app.t (id serial PRIMARY KEY, a text);"
        " INSERT INTO app.t (a) SELECT 'x' FROM generate_series(1, 9);"
        " CREATE FUNCTION app.f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; RESET ROLE;"
        " CREATE EVENT TRIGGER some_seen ON ddl_command_end EXECUTE FUNCTION app.f()",
    )
    near = fifteen if server == "fifteen" else postgres.get_uri()
    run(near, "CREATE ROLE maker LOGIN CREATEDB CREATEROLE")
    told: list[str] = []
    try:
        if server == "embedded":  # where the role is there already, and not ours to give
            run(near, "GRANT some_app TO maker")
        on = near.replace("//postgres:@", "//maker@").replace("//postgres@", "//maker@")
        with scratch_database(database, on, told.append) as scratch:
            copy_database(database, scratch.url, scratch.tools, tell=told.append)
            assert ask(scratch.url, "SELECT relowner::regrole::text FROM pg_class WHERE relname = 't'") == [
                ("some_app",)
            ]
            assert ask(scratch.url, "SELECT count(*), nextval('app.t_id_seq') FROM app.t") == [(9, 10)]
        assert "event triggers" in told[-1]
        run(database, "CREATE TABLE u (id int)")
        with scratch_database(database, on, silent) as scratch, pytest.raises(Denied, match='"postgres"') as caught:
            copy_database(database, scratch.url, scratch.tools)
        assert "member of the roles" in str(caught.value.hint)
        assert ask(near, "SELECT count(*) FROM pg_database WHERE datname ~ '^parallelchange'") == [(0,)]
    finally:
        run(database, "DROP EVENT TRIGGER some_seen; DROP OWNED BY some_app CASCADE")
        run(near, "DROP ROLE maker")
        run(database, "DROP ROLE some_app")
    assert ask(fifteen, "SELECT 1 FROM pg_roles WHERE rolname = 'some_app'") == []


def test_a_role_that_may_do_more_there_proves_nothing(database: str, fifteen: str) -> None:
    run(database, "CREATE ROLE some_app NOLOGIN; CREATE TABLE t (id int)")
    run(fifteen, "CREATE ROLE some_app NOLOGIN BYPASSRLS; GRANT pg_read_all_data TO some_app")
    try:
        with (
            scratch_database(database, fifteen, silent) as scratch,
            pytest.raises(Unavailable, match="BYPASSRLS, pg_read_all_data"),
        ):
            copy_database(database, scratch.url, scratch.tools, roles=["some_app"])
        with scratch_database(database, fifteen, silent) as scratch:
            copy_database(database, scratch.url, scratch.tools, roles=["postgres"])
        with (
            scratch_database(database, fifteen, silent) as scratch,
            pytest.raises(Unavailable, match="no role nobody"),
        ):
            copy_database(database, scratch.url, scratch.tools, roles=["nobody"])
        assert ask(fifteen, "SELECT rolbypassrls FROM pg_roles WHERE rolname = 'some_app'") == [(True,)]
    finally:
        run(database, "DROP ROLE some_app")
        run(fifteen, "DROP ROLE some_app")


def test_passwords_of_other_servers_stay_out(fifteen: str) -> None:
    with scratch_database(fifteen, fifteen, silent) as source:
        run(source.url, "CREATE EXTENSION postgres_fdw; CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw;"
            " CREATE USER MAPPING FOR postgres SERVER s OPTIONS (password 's3cret');"
            " CREATE FOREIGN TABLE far (id int) SERVER s")  # fmt: skip
        with scratch_database(source.url, fifteen, silent) as scratch:
            copy_database(source.url, scratch.url, scratch.tools)
            assert ask(scratch.url, "SELECT srvname, umoptions FROM pg_user_mappings") == []
            assert ask(scratch.url, "SELECT relkind::text FROM pg_class WHERE relname = 'far'") == [("f",)]


def test_a_password_is_in_no_message_and_on_no_command_line(database: str, tmp_path: Path) -> None:
    """The programs are watched by others that write down how they are called."""
    for name in ("pg_dump", "pg_restore", "psql"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "$0 $@" >> {tmp_path}/calls\nexec {client_programs()}/{name} "$@"\n')
        program.chmod(0o755)
    secret = database.replace("//postgres:@", "//postgres:s3cret@").replace("//postgres@", "//postgres:s3cret@")
    with scratch_database(secret, secret, silent) as scratch:
        copy_database(secret, scratch.url, tmp_path)
        assert "s3cret" in scratch.url
    calls = (tmp_path / "calls").read_text()
    assert "pg_dump" in calls
    assert "psql" in calls
    assert "s3cret" not in calls
