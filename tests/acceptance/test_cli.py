"""Help, plans, and what bad input gets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from acceptance.conftest import run
from parallelchange.cli import VERBS, cli

CHANGE = "changes/split-customer-name.yaml"


@pytest.fixture
def shop(example: Path) -> Path:
    """The example, with a file that traffic is split by."""
    folder = example
    (folder / ".parallelchange" / "local").mkdir(parents=True)
    split = {
        "apiVersion": "split.smi-spec.io/v1alpha2", "kind": "TrafficSplit",
        "metadata": {"name": "shop", "resourceVersion": "1"},
        "spec": {"service": "shop", "backends": [{"service": "shop-stable", "weight": 1000},
                                                 {"service": "shop-canary", "weight": 0}]},
    }  # fmt: skip
    (folder / ".parallelchange" / "local" / "trafficsplit.json").write_text(json.dumps(split))
    return folder


def schema(database: str) -> list[tuple[str, ...]]:
    with psycopg.connect(database) as connection:
        query = (
            "SELECT table_schema, table_name, column_name FROM information_schema.columns WHERE table_schema"
            " IN ('public', 'parallelchange') UNION SELECT 'trigger', event_object_table, trigger_name"
            " FROM information_schema.triggers ORDER BY 1, 2, 3"
        )
        return list(connection.execute(query))


def test_help_says_what_each_verb_says() -> None:
    for name, text in VERBS.items():
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert command.name == name
        assert command.short_help == text


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['parallelchange', '--help']\nfrom parallelchange.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'psycopg', 'sqlalchemy', 'alembic', 'pydantic', 'rich', 'ruamel', 'tenacity', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "rollout" in done.stdout


def test_plan_for_people_machines_and_psql(shop: Path, database: str) -> None:
    shown = run("plan", CHANGE, cwd=shop)
    assert shown.code == 0
    for part in (
        "ACCESS EXCLUSIVE",
        "set-weight",
        "drained",
        "ALTER TABLE public.customers ADD COLUMN first_name text",
    ):
        assert part in shown.out
    document = json.loads(run("plan", CHANGE, "--json", cwd=shop).out)
    assert [s["weight"] for s in document["steps"] if s["act"] == "set-weight"] == ["5%", "25%", "50%", "100%"]
    assert {s["lock"] for s in document["statements"]["expand"]} == {"-", "ACCESS EXCLUSIVE", "SHARE ROW EXCLUSIVE"}
    text = run("plan", CHANGE, "--sql", cwd=shop).out
    expand = text.split("-- migrate")[0]
    with psycopg.connect(database) as connection:
        connection.execute(expand)
        connection.execute("INSERT INTO customers (name, email) VALUES ('Ada Lovelace', 'a@example.test')")
        row = connection.execute("SELECT first_name, last_name FROM customers ORDER BY id DESC LIMIT 1").fetchone()
        assert row == ("Ada", "Lovelace")
        connection.rollback()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("column: name", "colum: name", "unknown key `colum`"),
        ("table: customers", "table: customer", "there is no table public.customer"),
        ("column: name", "column: nam", "has no column nam"),
        ('down: "first_name ||', 'down: "first_name |||| (', "`down`"),
        ("first_name: text", "first_name: txt", "there is no type txt"),
        ("stages: [5%", "stages: [150%", "150%"),
        ("change: split", "change: [split", "is no YAML"),
    ],
)
def test_a_wrong_change_file(shop: Path, database: str, old: str, new: str, says: str) -> None:
    path = shop / CHANGE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    path.with_suffix(".lock.json").unlink()
    before = schema(database)
    for verb in (["plan"], ["emit", "alembic"], ["expand"], ["rollout"]):
        ran = run(*verb, CHANGE, cwd=shop)
        assert ran.code == 2, ran.err
        assert says in ran.err
        assert "split-customer-name.yaml:" in ran.err, "the place is missing"
        assert ran.out == ""
    assert schema(database) == before


def test_a_database_that_does_not_answer(shop: Path) -> None:
    url = "postgresql://app:geheim@127.0.0.1:1/shop"
    for verb in ("expand", "gate", "status", "verify", "rehearse"):
        extra = ["--to", "5%"] if verb == "gate" else []
        ran = run(verb, CHANGE, *extra, "--database-url", url, cwd=shop)
        assert ran.code == 3, ran.err
        assert "127.0.0.1:1 does not answer" in ran.err
        assert "hint:" in ran.err
        assert "geheim" not in ran.err + ran.out


def test_a_half_applied_expand_of_somebody_else(shop: Path, database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE customers ADD COLUMN first_name text")
    run("status", CHANGE, cwd=shop)
    for verb in ("expand", "backfill", "contract", "rollout"):
        ran = run(verb, CHANGE, cwd=shop)
        assert ran.code == 3, ran.err
        assert "half-way" in ran.err
        assert "column public.customers.first_name is there" in ran.err
        assert "column public.customers.last_name is missing" in ran.err
        assert "hint:" in ran.err
    assert ("public", "customers", "last_name") not in schema(database)
    gate = run("gate", CHANGE, "--to", "5%", "--json", cwd=shop)
    assert gate.code == 1
    assert json.loads(gate.out)["verdict"] == "fail"


def test_nothing_advances_without_evidence(shop: Path, database: str) -> None:
    expand = run("expand", CHANGE, cwd=shop)
    assert expand.code == 1
    assert "verify" in expand.out
    assert ("public", "customers", "first_name") not in schema(database)
    gate = run("gate", CHANGE, "--to", "5%", "--json", "--junit", shop / "gate.xml", cwd=shop)
    assert gate.code == 1
    assert json.loads(gate.out)["verdict"] == "unknown"
    assert "<failure" in (shop / "gate.xml").read_text()
    gate = run("gate", CHANGE, "--to", "5%", "--junit", shop / "not" / "there" / "gate.xml", cwd=shop)
    assert (gate.code, "Traceback" in gate.err) == (2, False), gate.err


def test_phase_by_phase_as_a_pipeline_does(shop: Path, database: str) -> None:
    rehearsed = run("rehearse", CHANGE, "--json", cwd=shop)
    assert rehearsed.code == 0, rehearsed.err
    document = json.loads(rehearsed.out)
    assert document["verdict"] == "pass"
    assert [(cell["version"], cell["state"], cell["cell"]) for cell in document["matrix"]] == [
        ("shop-v1", "base", "proven"), ("shop-v1", "expanded", "proven"),
        ("shop-v2", "expanded", "proven"), ("shop-v2", "contracted", "proven"),
    ]  # fmt: skip
    assert set(document["matrix"][1]["layers"].values()) == {"pass"}
    assert {"prepare", "shape", "execute", "roundtrip", "rehearsal"} <= set(document["matrix"][1]["layers"])
    # No copy of the old version runs here, so its probe cannot be asked: verify says so.
    verified = run("verify", CHANGE, "--json", cwd=shop)
    assert verified.code == 1
    document = json.loads(verified.out)
    assert document["verdict"] == "unknown"
    assert [cell["cell"] for cell in document["matrix"]] == ["unknown", "proven", "proven", "proven"]
    assert document["matrix"][0]["layers"]["probe (live)"] == "unknown"
    assert run("expand", CHANGE, cwd=shop).code == 0
    again = run("expand", CHANGE, cwd=shop)
    assert again.code == 0
    assert "was done before" in again.out
    assert run("backfill", CHANGE, cwd=shop).code == 0
    assert run("backfill", CHANGE, cwd=shop).code == 0
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT count(*) FILTER (WHERE name IS DISTINCT FROM first_name || coalesce(' ' || last_name, ''))"
            " FROM customers"
        ).fetchone()
        assert row == (0,)
    blocked = run("gate", CHANGE, "--to", "5%", cwd=shop)
    assert blocked.code == 1
    assert "probe" in blocked.out
    contract = run("contract", CHANGE, cwd=shop)
    assert contract.code == 1
    assert ("public", "customers", "name") in schema(database)
    reverted = run("revert", CHANGE, cwd=shop)
    assert reverted.code == 0, reverted.err
    assert ("public", "customers", "first_name") not in schema(database)
    status = run("status", CHANGE, cwd=shop).out
    assert "stale" not in status, "what was undone is the schema that was proven"
    assert "shop-v2  -" in status
    rehearsed = run("rehearse", CHANGE, cwd=shop)
    assert rehearsed.code == 0
    shown = (Path(__file__).parents[2] / "README.md").read_text().split("<!-- matrix:")[1].split("```")[1]
    for line in shown.splitlines()[1:]:
        assert line in [printed.rstrip() for printed in rehearsed.out.splitlines()], "the README shows another matrix"
    assert "writing rows that the other one reads" in rehearsed.err


def test_emitting_again_changes_nothing(shop: Path) -> None:
    versions = sorted((shop / "migrations" / "versions").glob("*.py"))
    before = [path.read_text() for path in versions]
    assert run("emit", "alembic", CHANGE, cwd=shop).code == 0
    assert sorted((shop / "migrations" / "versions").glob("*.py")) == versions
    assert [path.read_text() for path in versions] == before


def test_the_corpora_are_what_recording_gives(shop: Path) -> None:
    kept = json.loads((shop / "recorded" / "shop-v1.json").read_text())
    ran = run(
        "record", "shop-v1", "--change", CHANGE, "--setup", f"{sys.executable} -m shop.seed --rows 200", "--",
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contract/test_shop_v1.py", cwd=shop,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    again = json.loads((shop / "recorded" / "shop-v1.json").read_text())
    assert [s["sql"] for s in again["statements"]] == [s["sql"] for s in kept["statements"]]
    assert [s["columns"] for s in again["statements"]] == [s["columns"] for s in kept["statements"]]
    assert any(s["prepared"] for s in again["statements"])


def test_usage_errors_exit_2(tmp_path: Path) -> None:
    for arguments in (["nonsense"], ["gate", "x.yaml", "--to", "120%"], ["gate", "x.yaml"], ["plan", "none.yaml"]):
        ran = run(*arguments, cwd=tmp_path)
        assert ran.code == 2, ran.err
        assert ran.err


def test_a_change_is_planned_emitted_and_recorded_before_it_has_statements(shop: Path) -> None:
    """The order a developer goes: the change file names files that `record` is to write."""
    shutil.rmtree(shop / "recorded")
    assert run("plan", CHANGE, cwd=shop).code == 0
    emitted = run("emit", "alembic", CHANGE, cwd=shop)
    assert emitted.code == 0
    assert f"next: parallelchange record shop-v1 --change {CHANGE} -- COMMAND\n" in emitted.err
    assert f"then: parallelchange rehearse {CHANGE}\n" in emitted.err
    doctor = run("doctor", CHANGE, "--json", cwd=shop)
    told = {f["message"]: f["remedy"] for f in json.loads(doctor.out)["findings"] if f["id"] == "repository.statements"}
    assert len(told) == 2
    assert all("record" in remedy for remedy in told.values()), told
    for verb in ("verify", "rehearse", "expand", "status"):
        ran = run(verb, CHANGE, cwd=shop)
        assert ran.code == 2, (verb, ran.out, ran.err)
        assert "shop-v1.json: is not there: the statements of shop-v1 are not recorded yet" in ran.err
        assert "parallelchange record shop-v1 --change CHANGE -- COMMAND" in ran.err
    program = "import os, psycopg; psycopg.connect(os.environ['DATABASE_URL']).execute('SELECT name FROM customers')"
    ran = run("record", "shop-v1", "--change", CHANGE, "--", sys.executable, "-c", program, cwd=shop)
    assert ran.code == 0, ran.err
    assert (shop / "recorded" / "shop-v1.json").is_file()


def test_roles_that_the_repositorys_revisions_name_are_there_when_it_is_recorded(shop: Path) -> None:
    revision = next((shop / "migrations" / "versions").glob("0001_*.py"))
    grant = '\n    op.execute("GRANT SELECT ON customers TO reporting, app")\n\n\ndef downgrade'
    granted = revision.read_text().replace("\n\n\ndef downgrade", grant, 1)
    assert "GRANT" in granted
    revision.write_text(granted)
    program = "import os, psycopg; psycopg.connect(os.environ['DATABASE_URL']).execute('SELECT name FROM customers')"
    ran = run("record", "shop-v1", "--change", CHANGE, "--", sys.executable, "-c", program, cwd=shop)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("wrote recorded/shop-v1.json: "), "as a person would write it"


def test_another_database_is_told_of(shop: Path, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ALTER TABLE customers RENAME TO clients")
    ran = run("verify", CHANGE, cwd=shop)
    assert ran.code == 1
    assert "the schema is partial: table public.customers is missing; is it the right database?" in ran.err


def test_a_router_that_nobody_named_is_told(shop: Path) -> None:
    (shop / ".parallelchange" / "local" / "trafficsplit.json").unlink()
    ran = run("doctor", CHANGE, "--json", cwd=shop)
    assert ran.code == 1
    (found,) = [f for f in json.loads(ran.out)["findings"] if f["id"] == "traffic.split"]
    assert "`traffic.router`" in found["remedy"]
    assert "`traffic.router`" in run("expand", CHANGE, cwd=shop).err
