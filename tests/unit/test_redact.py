"""What reaches no file."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.recording.redact import LONGEST, Redaction, names_a_secret, shortened

SECRETS = [
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
    "Bearer abcdefghijklmnop",
    "postgresql://app:geheim-geheim@db/shop",
    "host=db password=geheim-geheim",
    "sk_live_abcdefghijklmnopqrst",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    '{"user": "ada", "apiKey": "sesame-opens"}',
]
PLAIN = [
    "", "Ada Lovelace", "a@example.test", "2026-11-24 20:00:00+00", "f47ac10b-58cc-4372-a567-0e02b2c3d479", "-12.5",
    "a-long-slug-of-lower-case-words-that-goes-on", "/var/lib/some/long/path/of/a/file/in/a/folder.txt",
    "12345678901234567890123456789012345", '{"token_count": 5, "name": "x"}', "token", "x" * 64,
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_told_by_their_form(secret: str) -> None:
    redaction = Redaction()
    for text in (secret, f"before {secret} after"):
        safe = redaction.value(text)
        assert safe != text
        assert redaction.value(text) == safe, "the same secret, the same stand-in"
    for part in ("geheim", "sesame", "AKIA", "MIIE", "9f86d0", "wJalr", "abcdefghij"):
        assert part not in redaction.value(secret)


@pytest.mark.parametrize("text", PLAIN)
def test_other_values_stay(text: str) -> None:
    assert Redaction().value(text, "name") == text


def test_stand_ins_keep_their_form() -> None:
    redaction = Redaction()
    assert re.fullmatch("[0-9a-f]{40}", redaction.value("2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"))
    assert redaction.value("f47ac10b-58cc-4372-a567-0e02b2c3d479", "token") == "00000000-0000-4000-8000-000000000002"
    assert redaction.value("123456", "pin") == "000003"
    assert json.loads(redaction.value('{"a": "x", "b": [1, "y"]}', "secret"))["b"][0] == 1
    assert len(redaction.value("hunter2-hunter2", "password")) == 8, "its length class, never longer than it was"


@pytest.mark.parametrize(
    ("name", "secret"),
    [("password", True), ("password_hash", True), ("hashedPassword", True), ("api_key", True), ("apiKey", True),
     ("access_token", True), ("token", True), ("Authorization", True), ("client_secret", True), ("user_pwd", True),
     ("token_count", False), ("token_expires_at", False), ("password_changed_at", False), ("name", False),
     ("key", False), ("pinned", False), ("secretary", False), ("tokenizer", False), ("author", False),
     ("session_id", False), ("", False)],
)  # fmt: skip
def test_names(name: str, secret: bool) -> None:
    assert names_a_secret(name) is secret


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO u (email, password, n) VALUES ('e', 'SECRET', 1), ('f', 'SECRET', 2)",
        "INSERT INTO s.u AS x (password, n) SELECT 'SECRET', 1 FROM t",
        "INSERT INTO u (password) VALUES (crypt('SECRET', gen_salt('bf')))",
        "UPDATE u SET password = 'SECRET', n = 1",
        "UPDATE u SET password = crypt('SECRET', gen_salt('bf')) WHERE n = 1",
        "SELECT 1 FROM u WHERE u.api_key = 'SECRET'",
        "SELECT 1 FROM u WHERE lower(api_key) = lower('SECRET')",
        "SELECT 1 FROM u WHERE 'SECRET' = u.api_key",
        "SELECT 1 FROM u WHERE token IN ('SECRET')",
        "SELECT f(password => 'SECRET', n => 1)",
        "SELECT set_config('app.jwt', 'SECRET', true)",
        "SET app.secret = 'SECRET'",
        "CREATE ROLE w LOGIN PASSWORD 'SECRET'",
        "ALTER USER w WITH ENCRYPTED PASSWORD 'SECRET'",
        "CREATE USER MAPPING FOR a SERVER b OPTIONS (user 'u', password 'SECRET')",
        "UPDATE u SET password = E'SECRET\\n'",
        'UPDATE u SET "apiKey" = $$SECRET$$',
    ],
)
def test_literals_with_a_name(sql: str) -> None:
    redaction = Redaction()
    safe = redaction.statement(sql.replace("SECRET", "the-secret-of-it"), shorten=True)
    assert "the-secret" not in safe
    for kept in ("gen_salt('bf')", "'e'", "n = 1", "'app.jwt'", "'u'"):
        assert (kept in safe) == (kept in sql), safe
    assert redaction.counts.total() >= 1


def test_the_body_of_a_function_is_code() -> None:
    body = (
        "UPDATE u SET password=crypt(p, 'x'), token = t WHERE n = '{\"secret\": \"s\"}' AND pk_very_long_name_of_a_key"
    )
    for sql in (f"CREATE FUNCTION f() AS $$ {body} $$", "CREATE FUNCTION f() AS '" + body.replace("'", "''") + "'"):
        assert Redaction().statement(sql, shorten=False) == sql
    leak = "DO $$ BEGIN PERFORM dblink('postgresql://app:geheim@db/x'); END $$"
    assert "geheim" not in Redaction().statement(leak, shorten=False)
    connection = "CREATE SUBSCRIPTION s CONNECTION 'host=db password=geheim' PUBLICATION p"
    assert "geheim" not in Redaction().statement(connection, shorten=False)


@pytest.mark.parametrize(
    ("sql", "secret"),
    [
        ("INSERT INTO u (email, password) VALUES ($1, $2)", 2),
        ("UPDATE u SET email = $1 WHERE token = $2::text", 2),
        ("SELECT 1 FROM u WHERE $1::text = u.token AND email = $2", 1),
    ],
)
def test_parameters_with_a_name(sql: str, secret: int) -> None:
    values = Redaction().bound(sql, ("one", "two"))
    assert [values[i] != given for i, given in enumerate(("one", "two"))] == [secret == 1, secret == 2]
    assert Redaction().bound(sql, (None, None)) == (None, None)


def test_patterns_of_the_user() -> None:
    redaction = Redaction([re.compile(r"cust-(\d+)"), re.compile("Ada")])
    assert redaction.value("cust-12345 of Ada") == "cust-00001 of xx2"


def test_long_values_stay_of_their_type() -> None:
    assert shortened("x" * 500, "text") == "x" * LONGEST
    assert len(shortened("\\x" + "ab" * 500, "bytea")) == LONGEST
    assert json.loads(shortened(json.dumps({"a": "x" * 500, "b": list(range(500))}), "jsonb"))["b"] == [0, 1, 2]
    elements = "{" + ",".join(str(n) for n in range(500)) + "}"
    assert shortened(elements, "integer[]").endswith("}")
    assert shortened("'a' " * 100, "tsvector") == "'a' " * 100, "it cannot be cut and still be one"


def test_arrays_of_one_length_keep_one() -> None:
    long, short = "{" + ",".join(["x" * 50] * 10) + "}", "{" + ",".join(map(str, range(10))) + "}"
    texts, numbers, other = Redaction().shorten((long, short, "{1,2}"), ("text[]", "integer[]", "integer[]"))
    assert texts is not None
    assert numbers is not None
    assert texts.count(",") == numbers.count(",") < 9
    assert other == "{1,2}"


@given(st.text(max_size=400), st.sampled_from(["password", "name", ""]))
def test_whatever_it_is_it_does_not_raise(text: str, name: str) -> None:
    redaction = Redaction()
    redaction.value(text, name)
    redaction.statement(text, shorten=True)
    redaction.bound(text, (text,))
    redaction.shorten((text, text), ("text[]", "jsonb"))
    if name == "password" and len(text) > 8 and not text.startswith(("{", "[")) and not text.isdigit():
        assert text not in redaction.value(text, name)
