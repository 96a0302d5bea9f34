"""The example's shop: version 1 on its own schema, then both versions side by side on the expanded one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given
from hypothesis import strategies as st

EXAMPLE = Path(__file__).parents[2] / "examples" / "01_split_customer_name"
sys.path.insert(0, str(EXAMPLE))

from shop import v1, v2  # noqa: E402 - the example is no installed package
from shop.client import call  # noqa: E402
from shop.common import Settings  # noqa: E402
from shop.names import TRICKY  # noqa: E402
from shop.seed import names, seed  # noqa: E402

EXPAND = """
ALTER TABLE customers ADD first_name text, ADD last_name text;
CREATE FUNCTION keep_in_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') = 'shop-v2' THEN
        NEW.name := NEW.first_name || coalesce(' ' || NEW.last_name, '');
    ELSE
        NEW.first_name := split_part(NEW.name, ' ', 1);
        NEW.last_name := CASE WHEN strpos(NEW.name, ' ') > 0
            THEN substr(NEW.name, strpos(NEW.name, ' ') + 1) END;
    END IF;
    RETURN NEW;
END $$;
UPDATE customers SET first_name = split_part(name, ' ', 1),
    last_name = CASE WHEN strpos(name, ' ') > 0 THEN substr(name, strpos(name, ' ') + 1) END;
CREATE TRIGGER keep_in_step BEFORE INSERT OR UPDATE ON customers
    FOR EACH ROW EXECUTE FUNCTION keep_in_step();
"""
CONTRACT = """
DROP TRIGGER keep_in_step ON customers; DROP FUNCTION keep_in_step(); ALTER TABLE customers DROP name;
"""
Send = Callable[..., Any]


@pytest.fixture
def shop(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A seeded shop at its base revision."""
    monkeypatch.setenv("DATABASE_URL", database)
    command.upgrade(Config(EXAMPLE / "alembic.ini"), "0001_shop")
    seed(database, rows=200)
    return database


@pytest.fixture
def start(shop: str) -> Iterator[Callable[..., Send]]:
    """Starts a version with settings; answers a way to send it requests."""
    engines = []

    def start(version: Any, **settings: Any) -> Send:
        app = version.build(Settings(url=shop, **settings))
        engines.append(app.engine)
        return lambda method, path, **body: call(app, method, path, body or None)

    yield start
    for engine in engines:
        engine.dispose()


@pytest.fixture
def versions(start: Callable[..., Send]) -> dict[str, Send]:
    return {"v1": start(v1), "v2": start(v2)}


def run(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement)


def contract_tests(url: str, version: str, **environment: str) -> None:
    """Run the example's own tests of one version, as a developer does."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"tests/contract/test_shop_{version}.py"],
        cwd=EXAMPLE, env={**os.environ, "DATABASE_URL": url, **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_version_1_keeps_its_promises_on_base(shop: str) -> None:
    contract_tests(shop, "v1", SHOP_EXPORT="1")


def test_both_keep_their_promises_while_expanded_and_2_after_contract(shop: str) -> None:
    run(shop, EXPAND)
    contract_tests(shop, "v1")
    contract_tests(shop, "v2")
    run(shop, CONTRACT)
    contract_tests(shop, "v2")


def test_the_seed_is_the_same_every_time(shop: str) -> None:
    with psycopg.connect(shop) as connection:
        rows = connection.execute("SELECT name FROM customers ORDER BY id").fetchall()
    assert [name for (name,) in rows] == list(names(200))
    assert tuple(names(50)) == TRICKY


def test_what_one_version_writes_the_other_reads(shop: str, versions: dict[str, Send]) -> None:
    run(shop, EXPAND)
    for writer, reader in (("v1", "v2"), ("v2", "v1")):
        for name in TRICKY:
            made = versions[writer]("POST", "/customers", name=name, email="a@example.test").body["id"]
            assert versions[reader]("GET", f"/customers/{made}").body["name"] == name
            versions[reader]("PUT", f"/customers/{made}", name=f"{name} II")
            versions[reader]("PATCH", f"/customers/{made}/email", email="b@example.test")
            found = versions[writer]("GET", f"/customers/{made}").body
            assert found == {"id": made, "name": f"{name} II", "email": "b@example.test"}


def test_the_probe_tells_a_schema_that_the_version_cannot_use(shop: str, versions: dict[str, Send]) -> None:
    assert versions["v1"]("GET", "/healthz/contract").status == 200
    refused = versions["v2"]("GET", "/healthz/contract")
    assert (refused.status, refused.body["ok"]) == (503, False)
    assert "first_name" in refused.body["error"]
    assert versions["v2"]("GET", "/healthz").status == 200


def test_errors_of_the_database_are_answers(versions: dict[str, Send]) -> None:
    refused = versions["v2"]("GET", "/customers/1")
    assert refused.status == 500
    assert "column customers.first_name does not exist" in refused.body["error"]
    assert refused.headers["x-shop-version"] == "shop-v2"


def test_the_old_statement_breaks_when_a_column_is_added(shop: str, start: Callable[..., Send]) -> None:
    send = start(v1, export=True)
    assert send("POST", "/export").body == {"exported": 10}
    run(shop, "ALTER TABLE customers ADD first_name text")
    assert "more expressions than target columns" in send("POST", "/export").body["error"]


def test_faults_leave_the_health_check_alone(start: Callable[..., Send]) -> None:
    send = start(v1, fail_rate=1.0)
    failed = send("GET", "/customers/1")
    assert (failed.status, failed.headers["x-shop-version"]) == (500, "shop-v1")
    assert send("GET", "/healthz/contract").status == 200


@given(st.text())
def test_a_split_name_joins_again(name: str) -> None:
    assert v2.join(*v2.split(name)) == name
    assert " " not in v2.split(name)[0]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=20))
def test_sql_splits_as_version_2_does(scratch: Any, given_names: list[str]) -> None:
    rows = scratch.execute(
        "SELECT split_part(name, ' ', 1), CASE WHEN strpos(name, ' ') > 0"
        " THEN substr(name, strpos(name, ' ') + 1) END FROM unnest(%s::text[]) WITH ORDINALITY AS n (name, i)"
        " ORDER BY i",
        (given_names,),
    ).fetchall()
    assert rows == [v2.split(name) for name in given_names]


@pytest.fixture(scope="module")
def scratch(postgres: Any) -> Iterator[Any]:
    """A session of its own for statements that leave nothing behind."""
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        yield connection
