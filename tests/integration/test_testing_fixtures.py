"""The pytest plugin's databases, on a real PostgreSQL: every state, each test's own, and gone at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.plugin import copy_example, run, run_here

pytest_plugins = ["pytester"]

SEED = """
import pytest

def fill(connection):
    connection.execute("INSERT INTO members (phone) VALUES ('1'), ('2'), (NULL)")

@pytest.fixture(scope="session")
def parallelchange_seed():
    return fill
"""


def test_the_example_passes(pytester: pytest.Pytester) -> None:
    copy_example(pytester, tests=True)
    run(pytester).assert_outcomes(passed=13)


def test_each_state_is_as_it_should_be(pytester: pytest.Pytester) -> None:
    copy_example(pytester)
    pytester.makeconftest(SEED)
    pytester.makepyfile(
        """
        import os, subprocess, sys
        import psycopg, pytest

        def columns(db):
            with db.connect() as session:
                return {row[0] for row in session.execute(
                    "SELECT attname FROM pg_attribute WHERE attrelid = 'members'::regclass"
                    " AND attnum > 0 AND NOT attisdropped")}

        def test_states(parallelchange):
            assert columns(parallelchange.base()) == {"id", "phone", "joined"}
            assert columns(parallelchange.expanded()) == {"id", "phone", "mobile", "joined"}
            assert columns(parallelchange.contracted()) == {"id", "mobile", "joined"}
            assert parallelchange.change.name == parallelchange.plan.change.name == "rename-phone"

        @pytest.mark.parametrize("state", ["base", "expanded", "contracted"])
        def test_the_seed_is_there(parallelchange, state):
            column = "mobile" if state == "contracted" else "phone"
            with getattr(parallelchange, state)().connect() as session:
                rows = session.execute(f"SELECT {column} FROM members ORDER BY id").fetchall()
            assert rows == [("1",), ("2",), (None,)]

        def test_expanded_is_backfilled(parallelchange):
            with parallelchange.expanded().connect() as session:
                other = "SELECT count(*) FROM members WHERE mobile IS DISTINCT FROM phone"
                assert session.execute(other).fetchone() == (0,)

        @pytest.mark.parametrize("turn", [1, 2])
        def test_each_has_its_own(parallelchange, turn):
            one, other = parallelchange.expanded(), parallelchange.expanded()
            with one.connect() as session:
                session.execute("DELETE FROM members")
            with other.connect() as session:
                assert session.execute("SELECT count(*) FROM members").fetchone() == (3,)

        def test_sessions_are_the_versions(parallelchange):
            db = parallelchange.expanded()
            asked = "SELECT current_setting('application_name'), current_user"
            for which, name in [("old", "library-v1"), ("new", "library-v2"), ("library-v2", "library-v2")]:
                with db.connect(as_=which, autocommit=True) as session:
                    assert session.execute(asked).fetchone() == (name, "postgres")
            code = f"import psycopg; print(*psycopg.connect('').execute({asked!r}).fetchone())"
            done = subprocess.run([sys.executable, "-c", code], env=db.env("old"), capture_output=True, text=True)
            assert done.stdout == "library-v1 postgres\\n", done.stderr
            code = code.replace("connect('')", "connect(__import__('os').environ['DATABASE_URL'])")
            done = subprocess.run([sys.executable, "-c", code], env=db.env(as_="new"), capture_output=True, text=True)
            assert done.stdout == "library-v2 postgres\\n", done.stderr

        def test_the_environment_of_others_is_not_let_in(parallelchange, monkeypatch):
            db = parallelchange.base()
            monkeypatch.setenv("PGSERVICE", "production")
            monkeypatch.setenv("PGHOSTADDR", "10.0.0.1")
            monkeypatch.setenv("OTHER", "kept")
            env = db.env()
            monkeypatch.undo()
            assert not {"PGSERVICE", "PGHOSTADDR", "PGAPPNAME"} & set(env)
            assert env["OTHER"] == "kept" and env["DATABASE_URL"] == db.url and env["PGDATABASE"] in db.url

        def test_a_wrong_version_is_refused(parallelchange):
            for ask in (parallelchange.base().connect, parallelchange.base().env):
                with pytest.raises(Exception, match="has no version 'v9'"):
                    ask("v9")

        def test_where_it_is(parallelchange, parallelchange_server):
            parallelchange.base()
            open("where", "w").write(str(parallelchange_server.postgres.data_dir))
        """
    )
    run(pytester).assert_outcomes(passed=11)
    left = Path((pytester.path / "where").read_text())
    assert left.name.startswith("parallelchange-pg-")
    assert not left.exists()


def test_laws_and_statements_are_held_against_the_database(pytester: pytest.Pytester) -> None:
    repository = copy_example(pytester)
    corpus = repository / "recorded" / "library-v1.json"
    document = json.loads(corpus.read_text())
    star = {
        "id": "59e2b1bbb2", "sql": "SELECT * FROM members", "types": [], "prepared": True, "where": "a test",
        "columns": ["id bigint", "phone text", "joined date"],
    }  # fmt: skip
    document["statements"].append(star)
    (repository / "recorded" / "star.json").write_text(json.dumps(document))
    change = repository / "changes" / "rename-phone.yaml"
    (repository / "changes" / "star.yaml").write_text(change.read_text().replace("library-v1.json", "star.json"))
    (repository / "changes" / "star.lock.json").write_text(change.with_suffix(".lock.json").read_text())
    pytester.makeconftest(SEED)
    pytester.makepyfile(
        """
        import pytest

        def test_laws(parallelchange):
            db = parallelchange.expanded()
            db.check_laws()
            with db.connect() as session:
                session.execute("ALTER TABLE members DISABLE TRIGGER USER")
                session.execute("UPDATE members SET mobile = 'lost' WHERE id = 2")
            with pytest.raises(AssertionError) as caught:
                db.check_laws()
            said = str(caught.value)
            assert "gate `laws` says fail" in said and "1 of 3 rows break" in said and "'mobile': 'lost'" in said, said

        def test_laws_are_foretold_and_end(parallelchange):
            parallelchange.base().check_laws()
            with pytest.raises(Exception, match="laws hold until contract"):
                parallelchange.contracted().check_laws()

        def test_a_law_that_cannot_be_measured_is_no_pass(parallelchange):
            db = parallelchange.expanded()
            with db.connect() as session:
                session.execute("ALTER TABLE members RENAME TO people")
            with pytest.raises(AssertionError, match="says unknown"):
                db.check_laws()

        @pytest.mark.parametrize(
            "state, version",
            [("base", "old"), ("expanded", "old"), ("expanded", "new"), ("contracted", "new")])
        def test_statements(parallelchange, state, version):
            getattr(parallelchange, state)().check_statements(version)

        @pytest.mark.parametrize("state, version", [("contracted", "old"), ("base", "new")])
        def test_statements_of_a_version_that_cannot_work_there(parallelchange, state, version):
            with pytest.raises(AssertionError, match='(?s)gate `prepare` says fail.*column "(phone|mobile)"'):
                getattr(parallelchange, state)().check_statements(version)

        def test_a_statement_that_the_database_refuses(parallelchange):
            db = parallelchange.expanded()
            with db.connect() as session:
                session.execute("ALTER TABLE members ADD CHECK (phone <> '112') NOT VALID")
            with pytest.raises(AssertionError, match="(?s)gate `execute` says fail.*violates check constraint"):
                db.check_statements("old")

        @pytest.mark.parallelchange("changes/star.yaml")
        def test_a_result_that_changed_its_shape(parallelchange):
            assert parallelchange.change.old.statements.name == "star.json"
            with pytest.raises(AssertionError, match="(?s)gate `shape` says fail.*a test: `SELECT"):
                parallelchange.expanded().check_statements("old")
        """
    )
    run(pytester).assert_outcomes(passed=11)


def test_a_failure_names_the_line_of_the_test(pytester: pytest.Pytester) -> None:
    copy_example(pytester)
    pytester.makepyfile("def test_it(parallelchange):\n    parallelchange.contracted().check_statements('old')\n")
    done = run(pytester)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [">*check_statements('old')", "E*gate `prepare` says fail:", "test_*.py:2: AssertionError"]
    )
    assert "proofs.py" not in done.stdout.str()


def test_a_role_of_a_version_is_there(pytester: pytest.Pytester) -> None:
    repository = copy_example(pytester)
    change = repository / "changes" / "rename-phone.yaml"
    change.write_text(change.read_text().replace("probe: none}", "probe: none, role: library}", 1))
    pytester.makepyfile(
        """
        import psycopg, pytest

        @pytest.fixture(scope="session")
        def parallelchange_seed():
            return lambda connection: connection.execute("GRANT SELECT ON members TO library")

        def test_it(parallelchange):
            db = parallelchange.expanded()
            assert db.env("old")["PGUSER"] == "library"
            with db.connect("old") as session:
                assert session.execute("SELECT current_user").fetchone() == ("library",)
                session.execute("SELECT * FROM members")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute("DELETE FROM members")
        """
    )
    run(pytester).assert_outcomes(passed=1)


@pytest.mark.parametrize("variable", ["PGHOSTADDR", "PGSERVICE"])
def test_an_environment_that_leads_elsewhere_is_refused(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    copy_example(pytester)
    pytester.makepyfile("def test_it(parallelchange): parallelchange.base()")
    monkeypatch.setenv(variable, "10.0.0.1")
    done = run_here(pytester)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines([f"*{variable} is set, and libpq would follow it away from the scratch server*"])


def test_what_cannot_be_reached_is_told(pytester: pytest.Pytester) -> None:
    repository = copy_example(pytester)
    contract = repository / "migrations" / "versions" / "rename_phone_contract.py"
    contract.write_text(contract.read_text().replace("DROP COLUMN", "DROP COLUMN IF EXISTS"))
    pytester.makepyfile(
        """
        import pytest

        def test_expanded(parallelchange):
            with pytest.raises(Exception, match="holds other SQL than the plan"):
                parallelchange.expanded()

        def test_base(parallelchange):
            parallelchange.base()

        def test_a_seed_that_fails(parallelchange):
            def wrong(connection):
                connection.execute("INSERT INTO nowhere VALUES (1)")
            parallelchange.seed = wrong
            with pytest.raises(Exception, match="nowhere"):
                parallelchange.base()
        """
    )
    run(pytester).assert_outcomes(passed=3)


def test_workers_have_a_server_each(pytester: pytest.Pytester) -> None:
    copy_example(pytester)
    pytester.makepyfile(
        """
        import os, pathlib, pytest

        @pytest.mark.parametrize("number", range(6))
        def test_it(parallelchange, parallelchange_server, number):
            parallelchange.expanded().check_laws()
            where = pathlib.Path(f"where-{os.environ['PYTEST_XDIST_WORKER']}")
            where.write_text(str(parallelchange_server.postgres.data_dir))
        """
    )
    run(pytester, "-n", "2").assert_outcomes(passed=6)
    places = [Path(path.read_text()) for path in pytester.path.glob("where-gw*")]
    assert len(set(places)) == 2
    assert not any(place.exists() for place in places)
