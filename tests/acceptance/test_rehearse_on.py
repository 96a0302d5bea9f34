"""`rehearse` with rules for its copy, on a server that is named."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from acceptance.conftest import run

CHANGE = "changes/split-customer-name.yaml"
COPIES = "SELECT datname FROM pg_database WHERE datname ~ '^parallelchange_rehearsal'"


def ask(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def add(example: Path, rules: str) -> int:
    """Add rules to the change file; the line of the first."""
    path = example / CHANGE
    text = path.read_text()
    path.write_text(text + "rehearsal:\n  rows: 1000\n  mask:\n" + rules)
    return text.count("\n") + 4


def test_a_rehearsal_on_a_server_that_is_named(example: Path, database: str) -> None:
    add(example, "    customers.email: hash\n")
    ran = run("rehearse", CHANGE, "--no-record", "--json", "--on", database, cwd=example)
    assert ran.code == 0, ran.err
    assert "the load is shared" in ran.err
    assert json.loads(ran.out)
    assert ask(database, COPIES) == []
    assert ask(database, "SELECT count(*) FROM customers WHERE email LIKE '%@%'") == [(400,)]


@pytest.mark.parametrize("how", ["env", "settings"])
def test_the_server_is_named_by_settings_too(example: Path, database: str, how: str) -> None:
    wrong = "postgresql://me:s3cret@127.0.0.1:1/x"
    env = {"PARALLELCHANGE_REHEARSAL_URL": wrong} if how == "env" else {}
    if how == "settings":
        with (example / "parallelchange.toml").open("a") as file:
            file.write(f'rehearsal_url = "{wrong}"\n')
    ran = run("rehearse", CHANGE, "--no-record", cwd=example, env=env)
    assert ran.code == 3
    assert "server to rehearse on" in ran.err
    assert "PARALLELCHANGE_REHEARSAL_URL" in ran.err
    assert "s3cret" not in ran.err + ran.out


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("customers.nothing: hash", "has no column nothing"),
        ("customers.id: null", "cannot be null"),
        ('customers.name: {sql: "left(name"}', "PostgreSQL refuses"),
        ("customers.name: shuffle", "should be 'hash'"),
    ],
)
def test_a_rule_that_cannot_be_followed_has_its_line(example: Path, database: str, rule: str, says: str) -> None:
    line = add(example, f"    {rule}\n")
    ran = run("rehearse", CHANGE, "--no-record", "--on", database, cwd=example)
    assert ran.code == 2
    assert says in ran.err
    assert f"split-customer-name.yaml:{line}:" in ran.err
    assert ask(database, COPIES) == []


def test_a_database_that_ends_idle_sessions_can_be_rehearsed(example: Path, database: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with psycopg.connect(database, autocommit=True) as connection:
        for setting in ("idle_session_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(f"ALTER DATABASE {name} SET {setting} = '500ms'".encode())
    ran = run("rehearse", CHANGE, "--no-record", "--json", cwd=example)
    assert ran.code == 0, [f for g in json.loads(ran.out)["gates"] for f in g["findings"]]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} RESET ALL".encode())
