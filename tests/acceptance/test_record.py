"""Recording, as a user types it: every form of statement, in the order and the transactions it was sent in."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from acceptance.conftest import Ran, run
from parallelchange.corpus import Corpus, Recorded, Unit, read_corpus
from parallelchange.sqltext import Kind

EVERY_FORM = Path(__file__).parents[1] / "helpers" / "every_form.py"


def record(folder: Path, *command: str, options: tuple[str | Path, ...] = (), **env: str) -> Ran:
    return run("record", "v1", "--output", "v1.json", *options, "--", *command, cwd=folder, env=env)


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, dict[str, object]]:
    folder = tmp_path_factory.mktemp("forms")
    ran = record(folder, sys.executable, str(EVERY_FORM), options=("--json",))
    assert ran.code == 0, ran.err
    assert "recording" in ran.err
    return read_corpus(folder / "v1.json", "v1"), json.loads(ran.out)


def one(corpus: Corpus, sql: str) -> Recorded:
    (found,) = [s for s in corpus.statements if s.sql == sql]
    return found


def unit_with(corpus: Corpus, sql: str) -> Unit:
    wanted = {statement.id for statement in corpus.statements if statement.sql == sql}
    (found,) = [unit for unit in corpus.units if any(step.statement in wanted for step in unit.steps)]
    return found


def texts(corpus: Corpus, unit: Unit) -> list[str]:
    return [corpus.by_id[step.statement].text(step) for step in unit.steps]


FORMS = [
    # statement, kind, parameters, columns
    ("INSERT INTO items (name) VALUES ($1) RETURNING id", Kind.WRITE, ("text",), ("id bigint",)),
    ("INSERT INTO items (name, stock) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET stock = excluded.stock",
     Kind.WRITE, ("text", "integer"), ()),
    ("WITH gone AS (DELETE FROM items WHERE id = $1 RETURNING *) SELECT * FROM gone", Kind.WRITE, ("bigint",),
     ("id bigint", "name text", "data jsonb", "stock integer")),
    ("SELECT pg_advisory_lock($1), pg_advisory_unlock($2)", Kind.READ, (),
     ("pg_advisory_lock void", "pg_advisory_unlock boolean")),
    ("SELECT restock($1)", Kind.READ, ("integer",), ("restock integer",)),
    ("SELECT label(stock), data->>$1, data @> $2::jsonb, data ? $3 FROM items", Kind.READ, (),
     ("label text", "?column? text", "?column? boolean", "?column? boolean")),
    ("CALL note($1)", Kind.UTILITY, ("text",), ()),
    ("INSERT INTO log (what) VALUES ($1)", Kind.WRITE, ("text",), ()),
    ("SELECT * FROM mine WHERE id = $1", Kind.READ, ("integer",), ("id integer",)),
    ("SELECT id FROM items WHERE name = $1", Kind.READ, ("text",), ("id bigint",)),
    ("SELECT pg_notify('arrived', $1)", Kind.READ, ("text",), ("pg_notify void",)),
    ("SELECT count(*) FROM items WHERE stock = ANY($1)", Kind.READ, ("integer[]",), ("count bigint",)),
    ("SELECT id FROM items WHERE name = $1 AND stock < $2", Kind.READ, (), ("id bigint",)),
    ("LISTEN arrived", Kind.UTILITY, (), ()),
    ("NOTIFY arrived, $1", Kind.UTILITY, (), ()),
    ("SET statement_timeout = $1", Kind.UTILITY, (), ()),
    ("CREATE TEMP TABLE mine (id int)", Kind.UTILITY, (), ()),
    ("LOCK TABLE log IN SHARE ROW EXCLUSIVE MODE", Kind.UTILITY, (), ()),
    ('DECLARE "pages" CURSOR FOR SELECT id, name FROM items WHERE id > $1 ORDER BY id', Kind.UTILITY, ("bigint",),
     None),
    ('FETCH FORWARD $1 FROM "pages"', Kind.UTILITY, (), ()),
    ('CLOSE "pages"', Kind.UTILITY, (), ()),
    ("COPY log (what) FROM STDIN", Kind.UTILITY, (), ()),
    ("COPY (SELECT name FROM items) TO STDOUT", Kind.UTILITY, (), ()),
    ("DO $$ BEGIN PERFORM 1; END $$", Kind.UTILITY, (), ()),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "kind", "types", "columns"), FORMS, ids=[form[0][:40] for form in FORMS])
def test_each_form_is_recorded(
    forms: tuple[Corpus, dict[str, object]],
    sql: str,
    kind: Kind,
    types: tuple[str, ...],
    columns: tuple[str, ...] | None,
) -> None:
    found = [s for s in forms[0].statements if s.sql == sql]
    assert found, [s.sql for s in forms[0].statements]
    assert {s.kind for s in found} == {kind}
    assert types in [s.types for s in found]
    assert columns is None or columns in [s.columns for s in found]


def test_transactions_are_as_they_were(forms: tuple[Corpus, dict[str, object]]) -> None:
    corpus = forms[0]
    one_string = unit_with(corpus, "SELECT $1")
    assert one_string.end == "commit"
    assert texts(corpus, one_string) == [
        "INSERT INTO log (what) VALUES ('one')", "INSERT INTO log (what) VALUES ('it''s two')", "SELECT 3",
    ]  # fmt: skip
    assert unit_with(corpus, "DELETE FROM log").end == "rollback"
    assert unit_with(corpus, "UPDATE log SET what = $1").end == "rollback", "its session ended inside"
    assert len(unit_with(corpus, "UPDATE log SET what = $1 WHERE what = $2").steps) == 2, "a pipeline in a transaction"
    kept = unit_with(corpus, "LOCK TABLE log IN SHARE ROW EXCLUSIVE MODE")
    assert kept.end == "commit", "a savepoint saved it"
    said = [(corpus.by_id[s.statement].sql.split()[0], s.sqlstate) for s in kept.steps]
    assert said == [
        ("LOCK", ""), ("UPDATE", ""), ("SAVEPOINT", ""), ("INSERT", "23505"), ("ROLLBACK", ""), ("RELEASE", ""),
        ("INSERT", ""),
    ]  # fmt: skip
    cursor = unit_with(corpus, 'CLOSE "pages"')
    assert [text.split()[0] for text in texts(corpus, cursor)] == [
        "INSERT",
        "INSERT",
        "DECLARE",
        "FETCH",
        "FETCH",
        "CLOSE",
    ]


def test_what_psycopg_prepares_by_name_is_told(forms: tuple[Corpus, dict[str, object]]) -> None:
    corpus = forms[0]
    assert one(corpus, "INSERT INTO items (name) VALUES ($1) RETURNING id").prepared
    assert one(corpus, "SELECT id FROM items WHERE name = $1").prepared, "PREPARE in SQL"
    assert not one(corpus, "SELECT restock($1)").prepared


def test_a_temporary_table_is_described_and_asked_of_nobody_else(forms: tuple[Corpus, dict[str, object]]) -> None:
    corpus = forms[0]
    assert one(corpus, "SELECT * FROM mine WHERE id = $1").unasked
    assert not one(corpus, "SELECT restock($1)").unasked
    assert forms[1]["unasked"] == 2


def test_client_side_literals_are_taken_out(forms: tuple[Corpus, dict[str, object]]) -> None:
    corpus = forms[0]
    shape = one(corpus, "SELECT id FROM items WHERE name = $1 AND stock < $2")
    sent = [shape.text(step) for step in corpus.steps() if step.statement == shape.id]
    assert sent == [
        "SELECT id FROM items WHERE name = 'O''Hara' AND stock < 7",
        "SELECT id FROM items WHERE name = E'back\\\\slash' AND stock < 8",
    ]


def test_the_count_is_told(forms: tuple[Corpus, dict[str, object]]) -> None:
    corpus, told = forms
    assert told["statements"] == len(corpus.statements)
    assert sum(int(str(told[kind])) for kind in ("reads", "writes", "utility")) == len(corpus.statements)
    assert told["sessions"] == 5
    assert told["units"] == len(corpus.units)


def test_recording_again_gives_the_same(forms: tuple[Corpus, dict[str, object]], tmp_path: Path) -> None:
    assert record(tmp_path, sys.executable, str(EVERY_FORM)).code == 0
    again = read_corpus(tmp_path / "v1.json", "v1")
    assert again.statements == forms[0].statements
    assert again.units == forms[0].units


SECRETS = """
import os, psycopg
assert os.environ["PGHOST"] == "127.0.0.1" and os.environ["PGPORT"] in os.environ["DATABASE_URL"]
assert os.environ["PGPASSWORD"] in os.environ["DATABASE_URL"] and os.environ["PGAPPNAME"] == "v1"
with psycopg.connect("", autocommit=True) as c:  # by the PG* variables alone
    c.execute("CREATE TABLE users (email text, password_hash text, api_key text, bio text, doc jsonb, pets text[])")
    for _ in range(2):
        c.execute("INSERT INTO users VALUES (%s, %s, %s, %s, %s, %s)", ("a@b", "x", "y", "z" * 500, "{}", []))
    c.execute(
        "INSERT INTO users (email, password_hash, api_key, bio, doc, pets) VALUES (%s, %s, %s, %s, %s, %s)",
        ("a@b", "hunter2-hashed", "sesame-opens", "w" * 500, '{"password": "in-the-document", "n": 1}', ["dog"] * 99),
    )
    c.execute("UPDATE users SET password_hash = 'literal-secret' WHERE api_key = %s", ("sesame-opens",))
    c.execute("SELECT 'Bearer abcdefghijklmnop', 'AKIAABCDEFGHIJKLMNOP', 'customer-77 is mine'")
    c.execute("CREATE ROLE worker PASSWORD 'worker-secret'")
"""


def test_secrets_reach_no_file(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SECRETS)
    ran = record(tmp_path, sys.executable, "app.py", "password=in-the-command", options=("--redact", r"customer-\d+"))
    assert ran.code == 0, ran.err
    text = (tmp_path / "v1.json").read_text()
    secrets = (
        "hunter2", "sesame", "in-the-document", "literal-secret", "abcdefghijklmnop", "AKIAABCD", "worker-secret",
        "customer-77", "in-the-command", "w" * 201,
    )  # fmt: skip
    assert [secret for secret in secrets if secret in text] == []
    assert "redacted" in ran.out
    assert "secrets, by the name of their column" in ran.out
    corpus = read_corpus(tmp_path / "v1.json", "v1")
    stored = next(s for s in corpus.statements if s.sql.startswith("INSERT INTO users (email"))
    values = corpus.examples[stored.id].values
    update = next(s for s in corpus.statements if s.sql.startswith("UPDATE users"))
    assert values[2] == corpus.examples[update.id].values[0], "the same secret, the same stand-in"
    assert values[3] == "w" * 200
    assert json.loads(values[4] or "")["n"] == 1
    assert values[5] is not None
    assert values[5].startswith("{dog,dog")


def test_a_command_that_fails_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import sys; print('as it runs', flush=True); sys.exit('the last words')")
    ran = record(tmp_path, sys.executable, "app.py")
    assert ran.code == 1
    assert "exited 1, so nothing was recorded" in ran.err
    assert ran.err.count("the last words") == 2, "as it ran, and in the message"
    assert ran.out == ""
    assert not (tmp_path / "v1.json").exists()


def test_a_command_that_sends_nothing(tmp_path: Path) -> None:
    ran = record(tmp_path, sys.executable, "-c", "pass")
    assert ran.code == 1
    assert "no statement was seen" in ran.err
    assert not (tmp_path / "v1.json").exists()


SCHEMA = r"""
\restrict abc
CREATE TABLE public.pets (id integer NOT NULL, name text);
COPY public.pets (id, name) FROM stdin;
1	Rex; the dog
2	\N
\.
ALTER TABLE ONLY public.pets ADD CONSTRAINT pets_pkey PRIMARY KEY (id);
\unrestrict abc
"""
READS_PETS = """
import os, psycopg
with psycopg.connect(os.environ["DATABASE_URL"]) as c:
    assert c.execute("SELECT name FROM pets ORDER BY id").fetchall() == [("Rex; the dog",), (None,), ("Tom",)]
"""
ADDS_A_PET = (
    "import os, psycopg; psycopg.connect(os.environ['DATABASE_URL'], autocommit=True)"
    ".execute(\"INSERT INTO pets VALUES (3, 'Tom')\")"
)


def test_a_schema_and_a_setup(tmp_path: Path) -> None:
    (tmp_path / "schema.sql").write_text(SCHEMA)
    (tmp_path / "setup.py").write_text(ADDS_A_PET)
    options = ("--schema", tmp_path / "schema.sql", "--setup", f"{sys.executable} setup.py")
    ran = record(tmp_path, sys.executable, "-c", READS_PETS, options=options)
    assert ran.code == 0, ran.err
    corpus = read_corpus(tmp_path / "v1.json", "v1")
    assert [(s.sql, s.columns) for s in corpus.statements] == [("SELECT name FROM pets ORDER BY id", ("name text",))]


def test_a_schema_brings_the_roles_it_names(tmp_path: Path) -> None:
    """As pg_dump writes them; on a scratch server there are none of them."""
    named = f'{SCHEMA}\nALTER TABLE pets OWNER TO "the owner";\nGRANT SELECT ON pets TO reader, writer;\n'
    (tmp_path / "schema.sql").write_text(named)
    program = "import os, psycopg; psycopg.connect(os.environ['DATABASE_URL']).execute('SELECT name FROM pets')"
    ran = record(tmp_path, sys.executable, "-c", program, options=("--schema", tmp_path / "schema.sql"))
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["v1", "--output", "v1.json"], 2, "nothing to record"),
        (["v1", "--", "true"], 2, "--output"),
        (["v1", "--output", "v1.json", "--redact", "(", "--", "true"], 2, "regular expression"),
        (["v1", "--output", "v1.json", "--from-log", "none.json"], 2, "none.json"),
        (["v1", "--output", "v1.json", "--schema", "bad.sql", "--", "true"], 2, "nonsense"),
        (["v1", "--output", "v1.json", "--schema", "meta.sql", "--", "true"], 2, "psql's command"),
        (["v1", "--output", "v1.json", "--", "no-such-program-here"], 3, "cannot be started"),
        (
            ["v1", "--output", "v1.json", "--from-pg-stat-statements", "postgresql://u:geheim@127.0.0.1:1/x"],
            3,
            "answer",
        ),
        (["v1", "--output", "v1.json", "--from-log", "bad.sql", "--schema", "bad.sql"], 2, "no line of a log"),
    ],
)
def test_bad_input(tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    (tmp_path / "bad.sql").write_text("SELECT 1; nonsense;")
    (tmp_path / "meta.sql").write_text("\\connect elsewhere\n")
    ran = run("record", *arguments, cwd=tmp_path)
    assert ran.code == code, ran.err
    assert says in ran.err
    assert "geheim" not in ran.err + ran.out
    assert not (tmp_path / "v1.json").exists()


ITS_OWN_DATABASE = """
import os, psycopg
url = os.environ["DATABASE_URL"]
with psycopg.connect(url, autocommit=True) as c:
    c.execute("CREATE DATABASE test_of_its_own")
with psycopg.connect(url, dbname="test_of_its_own") as c:
    c.execute("CREATE TABLE notes (id serial PRIMARY KEY, text text)")
    c.execute("INSERT INTO notes (text) VALUES (%s) RETURNING id", ("a",))
    c.execute("SELECT * FROM notes")
with psycopg.connect(url, autocommit=True) as c:
    c.execute("DROP DATABASE test_of_its_own")
"""


def test_tests_that_make_and_drop_a_database_of_their_own(tmp_path: Path) -> None:
    """As Django's do."""
    (tmp_path / "app.py").write_text(ITS_OWN_DATABASE)
    ran = record(tmp_path, sys.executable, "app.py")
    assert ran.code == 0, ran.err
    assert "left out: 2 statements about whole databases" in ran.out
    corpus = read_corpus(tmp_path / "v1.json", "v1")
    read = one(corpus, "SELECT * FROM notes")
    assert read.columns == ("id integer", "text text")
    assert not read.unasked
    assert one(corpus, "INSERT INTO notes (text) VALUES ($1) RETURNING id").types == ("text",)
