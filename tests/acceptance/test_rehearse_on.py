"""`rehearse` with rules for its copy, on a server that is named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from acceptance.conftest import run
from parallelchange.local.shop import example_path

CHANGE = "changes/split-customer-name.yaml"
COPIES = "SELECT datname FROM pg_database WHERE datname ~ '^parallelchange_rehearsal'"


@pytest.fixture
def shop(tmp_path: Path, database: str) -> Path:
    """The example on a database at its base revision, with some rows."""
    folder = tmp_path / "shop"
    shutil.copytree(example_path(), folder, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    settings = f'database_url = {json.dumps(database)}\nalembic = "alembic.ini"\nchanges = "changes"\n'
    (folder / "parallelchange.toml").write_text(settings)
    for arguments in (["-m", "alembic", "upgrade", "0001_shop"], ["-m", "shop.seed", "--rows", "400"]):
        subprocess.run([sys.executable, *arguments], cwd=folder, check=True, capture_output=True,
                       env={"DATABASE_URL": database, "PATH": ""})  # fmt: skip
    return folder


def ask(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def add(shop: Path, rules: str) -> int:
    """Add rules to the change file; the line of the first."""
    path = shop / CHANGE
    text = path.read_text()
    path.write_text(text + "rehearsal:\n  rows: 1000\n  mask:\n" + rules)
    return text.count("\n") + 4


def test_a_rehearsal_on_a_server_that_is_named(shop: Path, database: str) -> None:
    add(shop, "    customers.email: hash\n")
    ran = run("rehearse", CHANGE, "--no-record", "--json", "--on", database, cwd=shop)
    assert ran.code == 0, ran.err
    assert "the load is shared" in ran.err
    assert json.loads(ran.out)
    assert ask(database, COPIES) == []
    assert ask(database, "SELECT count(*) FROM customers WHERE email LIKE '%@%'") == [(400,)]


@pytest.mark.parametrize("how", ["env", "settings"])
def test_the_server_is_named_by_settings_too(shop: Path, database: str, how: str) -> None:
    wrong = "postgresql://me:s3cret@127.0.0.1:1/x"
    env = {"PARALLELCHANGE_REHEARSAL_URL": wrong} if how == "env" else {}
    if how == "settings":
        with (shop / "parallelchange.toml").open("a") as file:
            file.write(f'rehearsal_url = "{wrong}"\n')
    ran = run("rehearse", CHANGE, "--no-record", cwd=shop, env=env)
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
def test_a_rule_that_cannot_be_followed_has_its_line(shop: Path, database: str, rule: str, says: str) -> None:
    line = add(shop, f"    {rule}\n")
    ran = run("rehearse", CHANGE, "--no-record", "--on", database, cwd=shop)
    assert ran.code == 2
    assert says in ran.err
    assert f"split-customer-name.yaml:{line}:" in ran.err
    assert ask(database, COPIES) == []


def test_a_database_that_ends_idle_sessions_can_be_rehearsed(shop: Path, database: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with psycopg.connect(database, autocommit=True) as connection:
        for setting in ("idle_session_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(f"ALTER DATABASE {name} SET {setting} = '500ms'".encode())
    ran = run("rehearse", CHANGE, "--no-record", "--json", cwd=shop)
    assert ran.code == 0, [f for g in json.loads(ran.out)["gates"] for f in g["findings"]]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} RESET ALL".encode())
