"""What is read off the schema: a fingerprint that misses no change, and the state of a change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from helpers.changes import CASES, RENAME, SPLIT, Case, live_plan, run_phase, session

from parallelchange.adapters.postgres.catalog import canonical_types, read_catalog
from parallelchange.adapters.postgres.connection import connect
from parallelchange.adapters.postgres.fingerprint import fingerprint
from parallelchange.model import Column, State, TableName
from parallelchange.operations.trigger import Trigger
from parallelchange.plan import Plan, state_of

Session = psycopg.Connection[Any]

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN short AS text CHECK (length(VALUE) < 10);
CREATE TABLE parents (id bigint PRIMARY KEY);
CREATE TABLE t (id bigint PRIMARY KEY, a text DEFAULT 'x', b integer NOT NULL, c mood, d short,
  day date DEFAULT '2027-03-01', parent bigint);
CREATE INDEX t_a ON t (a);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION one() RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION two() RETURNS integer LANGUAGE sql IMMUTABLE RETURN 2;
CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
CREATE VIEW v AS SELECT id, a FROM t;
CREATE MATERIALIZED VIEW m AS SELECT id FROM t;
CREATE POLICY p ON t FOR SELECT USING (id > 0);
CREATE SCHEMA other;
CREATE TABLE other.u (id bigint);
CREATE TABLE parts (id bigint, at date) PARTITION BY RANGE (at);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
"""

DDL = {
    "add a column": "ALTER TABLE t ADD COLUMN n text",
    "drop a column": "ALTER TABLE t DROP COLUMN b",
    "rename a column": "ALTER TABLE t RENAME COLUMN b TO z",
    "change a type": "ALTER TABLE t ALTER COLUMN b TYPE bigint",
    "change a type's modifier": "ALTER TABLE other.u ALTER COLUMN id TYPE numeric(10, 2)",
    "set a default": "ALTER TABLE t ALTER COLUMN b SET DEFAULT 1",
    "change a default": "ALTER TABLE t ALTER COLUMN a SET DEFAULT 'y'",
    "drop a default": "ALTER TABLE t ALTER COLUMN a DROP DEFAULT",
    "set not null": "ALTER TABLE t ALTER COLUMN a SET NOT NULL",
    "drop not null": "ALTER TABLE t ALTER COLUMN b DROP NOT NULL",
    "add identity": "ALTER TABLE t ALTER COLUMN b ADD GENERATED ALWAYS AS IDENTITY",
    "add a check": "ALTER TABLE t ADD CHECK (b > 0)",
    "add a check not valid": "ALTER TABLE t ADD CONSTRAINT k CHECK (b > 0) NOT VALID",
    "add a foreign key": "ALTER TABLE t ADD FOREIGN KEY (parent) REFERENCES parents",
    "drop a constraint": "ALTER TABLE t DROP CONSTRAINT t_pkey",
    "add an index": "CREATE INDEX ON t (b)",
    "add a unique index": "CREATE UNIQUE INDEX ON t (b)",
    "drop an index": "DROP INDEX t_a",
    "add a trigger": "CREATE TRIGGER h BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
    "drop a trigger": "DROP TRIGGER g ON t",
    "disable a trigger": "ALTER TABLE t DISABLE TRIGGER g",
    "a trigger always": "ALTER TABLE t ENABLE ALWAYS TRIGGER g",
    "a trigger's body": "CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "a function": "CREATE FUNCTION three() RETURNS integer LANGUAGE sql AS 'SELECT 3'",
    "a function's body": "CREATE OR REPLACE FUNCTION one() RETURNS integer LANGUAGE sql AS 'SELECT 2'",
    "a function's settings": "ALTER FUNCTION one() SET search_path = other",
    "drop a function": "DROP FUNCTION one",
    "a view": "CREATE VIEW w AS SELECT 1 AS a",
    "a view's query": "CREATE OR REPLACE VIEW v AS SELECT id, upper(a) AS a FROM t",
    "a materialized view": "DROP MATERIALIZED VIEW m; CREATE MATERIALIZED VIEW m AS SELECT id + 1 AS id FROM t",
    "an enum's value": "ALTER TYPE mood ADD VALUE 'ok'",
    "an enum's order": "ALTER TYPE mood RENAME VALUE 'sad' TO 'low'",
    "a domain's check": "ALTER DOMAIN short ADD CHECK (VALUE <> '')",
    "a domain's not null": "ALTER DOMAIN short SET NOT NULL",
    "a policy": "CREATE POLICY q ON t USING (true)",
    "a policy's condition": "ALTER POLICY p ON t USING (id > 1)",
    "row security": "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
    "a table": "CREATE TABLE n (id bigint)",
    "a table in another schema": "CREATE TABLE other.t (id bigint)",
    "unlogged": "ALTER TABLE t SET UNLOGGED",
}

# What a version's statements mean depends on these as well.
FINER = {
    "a function's standard body": "CREATE OR REPLACE FUNCTION two() RETURNS integer LANGUAGE sql IMMUTABLE RETURN 3",
    "a function's result": "DROP FUNCTION one; CREATE FUNCTION one() RETURNS bigint LANGUAGE sql AS 'SELECT 1'",
    "a function's strictness": "ALTER FUNCTION one() STRICT",
    "a function's rights": "ALTER FUNCTION one() SECURITY DEFINER",
    "a policy's roles": "ALTER POLICY p ON t TO pg_monitor",
    "forced row security": "ALTER TABLE t FORCE ROW LEVEL SECURITY",
    "a rule": "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING",
    "a partition": "CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2028-01-01') TO ('2029-01-01')",
    "a partition's trigger": "CREATE TRIGGER i BEFORE INSERT ON parts_1 FOR EACH ROW EXECUTE FUNCTION f()",
    "a partition's check": "ALTER TABLE parts_1 ADD CHECK (id > 0)",
}

NO_DDL = {
    "rows": "INSERT INTO t (id, b) SELECT n, n FROM generate_series(1, 100) n",
    "analyze": "ANALYZE",
    "vacuum": "VACUUM FULL t",
    "reindex": "REINDEX TABLE t",
    "refresh": "REFRESH MATERIALIZED VIEW m",
    "statistics": "ALTER TABLE t ALTER COLUMN a SET STATISTICS 500",
    "our ledger": "CREATE SCHEMA parallelchange; CREATE TABLE parallelchange.change (name text)",
    "alembic's table": "CREATE TABLE alembic_version (version_num text)",
    "an extension": "CREATE EXTENSION IF NOT EXISTS plpgsql",
    "a column that came and went": "ALTER TABLE t ADD COLUMN n text; ALTER TABLE t DROP COLUMN n",
    "a body written again": "CREATE OR REPLACE FUNCTION one() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
}

SETTINGS = {
    "search_path": "other, t, public",
    "datestyle": "SQL, DMY",
    "intervalstyle": "iso_8601",
    "timezone": "Asia/Tokyo",
    "quote_all_identifiers": "on",
    "extra_float_digits": "-5",
    "lc_monetary": "C",
}


@pytest.fixture
def connection(database: str) -> Iterator[Session]:
    with session(database, "test") as connection:
        yield connection


@pytest.fixture
def schema(connection: Session) -> Session:
    connection.execute(SCHEMA)
    return connection


@pytest.mark.parametrize("changes", [DDL, FINER], ids=("objects", "their finer parts"))
def test_every_change_of_the_schema_changes_the_fingerprint(schema: Session, changes: dict[str, str]) -> None:
    before, unseen = fingerprint(schema), []
    for name, ddl in changes.items():
        with schema.transaction(force_rollback=True):
            schema.execute(ddl)
            if fingerprint(schema) == before:
                unseen.append(name)
    assert fingerprint(schema) == before
    assert not unseen, ", ".join(unseen)


@pytest.mark.parametrize("name", NO_DDL)
def test_what_is_no_change_of_the_schema_does_not(schema: Session, name: str) -> None:
    before = fingerprint(schema)
    schema.execute(NO_DDL[name])
    assert fingerprint(schema) == before


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_sessions_do_not(schema: Session, database: str, name: str) -> None:
    schema.execute("ALTER TABLE t ADD COLUMN i interval DEFAULT '1 day 2 hours', ADD COLUMN r real DEFAULT 0.1")
    schema.execute("ALTER TABLE t ADD CHECK (day > '2020-02-01'::date)")
    with connect(database) as one:
        before = fingerprint(one)
    # As a pooler's session or the role of somebody else may have it.
    value = SETTINGS[name] if name == "search_path" else f"'{SETTINGS[name]}'"
    schema.execute(f"SET {name} TO {value}")
    assert fingerprint(schema) == before


def test_the_same_schema_made_in_another_order_is_the_same(database: str, connection: Session) -> None:
    first, second = "CREATE TABLE a (id bigint PRIMARY KEY)", "CREATE TABLE b (id bigint, n text NOT NULL)"
    marks = set()
    for script in ((first, second), (second, first)):
        with connection.transaction(force_rollback=True):
            for statement in script:
                connection.execute(statement)
            marks.add(fingerprint(connection))
    assert len(marks) == 1


def test_an_empty_database_has_one_too(connection: Session) -> None:
    assert len(fingerprint(connection)) == 64


# Tables.


def test_a_table_is_told_as_it_is(schema: Session) -> None:
    schema.execute("ALTER TABLE t ADD COLUMN g text GENERATED ALWAYS AS (upper(a)) STORED")
    schema.execute("ALTER TABLE t ADD UNIQUE (b)")
    found = read_catalog(schema, [TableName("public", "t"), TableName("public", "none")])
    assert set(found.tables) == {TableName("public", "t")}
    table = found.tables[TableName("public", "t")]
    assert table.column("id") == Column("id", "bigint", nullable=False)
    assert table.column("a") == Column("a", "text", default="'x'::text")
    assert table.column("c") == Column("c", "mood")
    assert table.column("g") == Column("g", "text", default="upper(a)", generated=True)
    assert table.primary_key == ("id",)
    assert table.kind == "r"
    assert table.rows is None
    dependents = {name: " ".join(lost) for name, lost in table.dependents.items()}
    assert "index t_a" in dependents["a"]
    assert "view v" in dependents["a"]
    assert "constraint t_b_key" in dependents["b"]
    assert "c" not in dependents


def test_a_generated_column_would_fall_with_the_column_it_is_computed_from(schema: Session) -> None:
    """Contract would be refused by the server: cannot drop column because other objects depend on it."""
    schema.execute("ALTER TABLE t ADD COLUMN g text GENERATED ALWAYS AS (upper(d)) STORED")
    table = read_catalog(schema, [TableName("public", "t")]).tables[TableName("public", "t")]
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        schema.execute("ALTER TABLE t DROP COLUMN d")
    assert "d" in table.dependents
    assert "a" not in {name for name, lost in table.dependents.items() if "column a" in " ".join(lost)}


def test_a_key_is_told_in_its_own_order(connection: Session) -> None:
    connection.execute("CREATE TABLE k (a bigint, b bigint, c bigint, PRIMARY KEY (c, a))")
    assert read_catalog(connection, [TableName("public", "k")]).tables[TableName("public", "k")].primary_key == (
        "c",
        "a",
    )


def test_a_table_in_another_schema_and_with_a_strange_name(schema: Session) -> None:
    schema.execute('CREATE TABLE other."User "" %s" (id bigint)')
    names = {TableName("other", "u"), TableName("other", 'User " %s')}
    assert set(read_catalog(schema, names).tables) == names


def test_types_are_told_by_the_servers_names(schema: Session) -> None:
    written = [
        "int",
        "int8",
        "varchar(20)",
        "numeric(12,2)",
        "timestamptz",
        "mood",
        "text[]",
        "itneger",
        "1); DROP TABLE t",
    ]
    assert canonical_types(schema, written) == {
        "int": "integer",
        "int8": "bigint",
        "varchar(20)": "character varying(20)",
        "numeric(12,2)": "numeric(12,2)",
        "timestamptz": "timestamp with time zone",
        "mood": "mood",
        "text[]": "text[]",
    }
    assert schema.execute("SELECT to_regclass('t') IS NOT NULL").fetchone() == (True,)


# States.


def state(connection: Session, plan: Plan) -> tuple[State, tuple[str, ...]]:
    return state_of(plan, read_catalog(connection, plan.tables))


def planned(connection: Session, case: Case) -> Plan:
    connection.execute(case.ddl)
    return live_plan(connection, case.operation)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_state_follows_the_phases(connection: Session, case: Case) -> None:
    plan = planned(connection, case)
    for phase, expected in (
        ((), State.BASE),
        (plan.expand, State.EXPANDED),
        (plan.revert, State.BASE),
        (plan.expand, State.EXPANDED),
        (plan.migrate, State.EXPANDED),
        (plan.contract, State.CONTRACTED),
    ):
        run_phase(connection, phase)
        assert state(connection, plan) == (expected, ())


MADE = Trigger("a-change", TableName("public", "customers"), ())
TRIGGER = {"insert": MADE.names[0], "update": MADE.names[1]}

FUNCTION = f"FUNCTION {MADE.function}()"
EXECUTE = f"EXECUTE {FUNCTION}"

PARTIAL = {
    "a column without its trigger": [f"DROP TRIGGER {TRIGGER['insert']} ON customers"],
    "columns without any trigger": [
        f"DROP TRIGGER {TRIGGER['insert']} ON customers",
        f"DROP TRIGGER {TRIGGER['update']} ON customers",
    ],
    "a trigger without its column": ["ALTER TABLE customers DROP COLUMN last_name CASCADE"],
    "a disabled trigger": [f"ALTER TABLE customers DISABLE TRIGGER {TRIGGER['update']}"],
    "all triggers disabled": ["ALTER TABLE customers DISABLE TRIGGER USER"],
    "a trigger for replicas": [f"ALTER TABLE customers ENABLE REPLICA TRIGGER {TRIGGER['insert']}"],
    "an edited body": [f"CREATE OR REPLACE {FUNCTION} RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"],
    "another type": [
        "ALTER TABLE customers DROP COLUMN last_name CASCADE",
        "ALTER TABLE customers ADD COLUMN last_name integer",
    ],
    "the old column gone": ["ALTER TABLE customers DROP COLUMN name CASCADE"],
    "no table": ["DROP TABLE customers"],
}


def test_a_trigger_that_asks_for_something_else_is_another_schema(connection: Session) -> None:
    """Its state reads as expanded, and no rehearsal speaks of it: the fingerprint is another one."""
    plan = planned(connection, SPLIT)
    run_phase(connection, plan.expand)
    before = fingerprint(connection)
    connection.execute(f"DROP TRIGGER {TRIGGER['update']} ON customers")
    connection.execute(
        f"CREATE TRIGGER {TRIGGER['update']} BEFORE UPDATE ON customers FOR EACH ROW WHEN (false) {EXECUTE}"
    )
    assert fingerprint(connection) != before


@pytest.mark.parametrize("edits", PARTIAL.values(), ids=PARTIAL)
def test_half_a_change_is_told_with_what_is_missing(connection: Session, edits: list[str]) -> None:
    plan = planned(connection, SPLIT)
    run_phase(connection, plan.expand)
    for edit in edits:
        connection.execute(edit)
    found, differences = state(connection, plan)
    assert found is State.PARTIAL
    assert differences


def test_columns_made_by_hand_are_not_the_change(connection: Session) -> None:
    plan = planned(connection, RENAME)
    connection.execute('ALTER TABLE "User Table" ADD COLUMN "na""me" character varying(40)')
    found, differences = state(connection, plan)
    assert found is State.PARTIAL
    assert any("trigger" in difference and "missing" in difference for difference in differences)


def test_what_has_nothing_to_do_with_the_change_does_not_matter(connection: Session) -> None:
    plan = planned(connection, SPLIT)
    run_phase(connection, plan.expand)
    connection.execute("ALTER TABLE customers ADD COLUMN more text, ALTER COLUMN note SET DEFAULT 'x'")
    connection.execute("CREATE TABLE another (id bigint)")
    assert state(connection, plan) == (State.EXPANDED, ())


def test_the_state_does_not_ask_for_what_the_lock_file_does_not_keep(connection: Session) -> None:
    """Rows and the fingerprint are not under version control."""
    plan = planned(connection, SPLIT)
    base = {name: replace(table, rows=None) for name, table in plan.base.tables.items()}
    remembered = replace(plan, base=replace(plan.base, tables=base, fingerprint="", server_version=0))
    run_phase(connection, plan.expand)
    assert state(connection, remembered) == (State.EXPANDED, ())
