"""SQL as text: where statements end, what in them is a value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.sqltext import Kind, fill, joined, kind_of, opening, split, template, tokens, unquoted

ATOMIC = (
    "CREATE FUNCTION f(n int) RETURNS int BEGIN ATOMIC SELECT CASE WHEN n > 0 THEN 1 ELSE 2 END; SELECT 2 AS end;"
    " SELECT 3; END"
)
OPERATORS = "SELECT a @> b, c ->> 'd;', e ? 'f', g ?| h, i #>> '{;}'"
NUMBERS = ("1", "'a'", "1.5e3", "0xFF", "1_000", ".5")
ANYTHING = st.text(st.sampled_from(list("aE1 _$';\"\\/*-.:?@>|#()\n\t&uU\x00é€\xa0,")) | st.characters(), max_size=60)


@given(ANYTHING)
def test_nothing_raises_and_nothing_is_lost(sql: str) -> None:
    found = list(tokens(sql))
    assert all(token.text for token in found)
    split(sql), kind_of(sql), template(sql)
    assert [token.text for token in tokens(joined(found))] == [token.text for token in found] or any(
        token.text in ("/", "*", "-", "'", '"', "$")
        for token in found  # what is unterminated may join anew
    )


@given(ANYTHING)
def test_literals_come_back(sql: str) -> None:
    if any(token.kind == "parameter" for token in tokens(sql)):
        return
    taken = template(sql)
    again = [token.text for token in tokens(fill(taken.sql, taken.literals))]
    assert again == [token.text for token in tokens(joined(list(tokens(sql))))]


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("", []),
        (" ; ;; -- nothing\n", []),
        ("SELECT 1;", ["SELECT 1"]),
        ("SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';' ; SELECT 2", ["SELECT ';'", "SELECT 2"]),
        ("SELECT 'it''s; x'", ["SELECT 'it''s; x'"]),
        (r"SELECT E'\'; x'; SELECT 2", [r"SELECT E'\'; x'", "SELECT 2"]),
        (r"SELECT '\'; SELECT 2", [r"SELECT '\'", "SELECT 2"]),
        ('SELECT "a;""b"', ['SELECT "a;""b"']),
        (r"""SELECT U&'d\0061t;' UESCAPE '!', U&"x;" """, [r"""SELECT U&'d\0061t;' UESCAPE '!', U&"x;" """.strip()]),
        ("SELECT $$a;b$$, $x$ $$;$$ $x$", ["SELECT $$a;b$$, $x$ $$;$$ $x$"]),
        ("SELECT a$b$c, $1; SELECT 2", ["SELECT a$b$c, $1", "SELECT 2"]),
        ("/* a /* ; */ ; */ SELECT /*x*/ 1 -- ; y\n; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT 5--3;\n+1", ["SELECT 5 +1"]),
        ("SELECT 'a'\n  'b'", ["SELECT 'a'\n'b'"]),
        ("CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b); SELECT 1",
         ["CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b)", "SELECT 1"]),
        (f"{ATOMIC}; SELECT 1", [ATOMIC, "SELECT 1"]),
        (OPERATORS, [OPERATORS]),
        ("SELECT 'never ends; SELECT 2", ["SELECT 'never ends", "SELECT 2"]),
        ("SELECT /* never ends; SELECT 2", ["SELECT"]),
        ("SELECT $$ never; ends", ["SELECT $$ never", "ends"]),
        ("SELECT 1)); SELECT 2", ["SELECT 1))", "SELECT 2"]),
    ],
)  # fmt: skip
def test_split(sql: str, statements: list[str]) -> None:
    assert split(sql) == statements


@pytest.mark.parametrize(
    ("sql", "shape", "literals"),
    [
        ("SELECT 1, 'a', 1.5e3, 0xFF, 1_000, .5", "SELECT $1, $2, $3, $4, $5, $6", NUMBERS),
        ("SELECT interval'1 day'", "SELECT interval $1", ("'1 day'",)),
        ("SELECT x FROM t1 WHERE a2 = -3", "SELECT x FROM t1 WHERE a2 = -$1", ("3",)),
        ("SELECT arr[1:2], 'x'::text", "SELECT arr[$1:$2], $3::text", ("1", "2", "'x'")),
        ("SELECT 'a'\n'b'", "SELECT $1 $2", ("'a'", "'b'")),
        ("SELECT E'\\n', B'01', U&'\\0061'", "SELECT $1, $2, $3", ("E'\\n'", "B'01'", "U&'\\0061'")),
    ],
)  # fmt: skip
def test_template(sql: str, shape: str, literals: tuple[str, ...]) -> None:
    found = template(sql)
    assert (found.sql, found.literals) == (shape, literals)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1", Kind.READ),
        ("(SELECT 1) UNION (VALUES (2))", Kind.READ),
        ("TABLE t", Kind.READ),
        ("WITH a AS (SELECT 1) SELECT * FROM a", Kind.READ),
        ("WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a", Kind.WRITE),
        ("SELECT * FROM t FOR UPDATE", Kind.WRITE),
        ("SELECT * INTO x FROM t", Kind.WRITE),
        ("MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE", Kind.WRITE),
        ('SELECT "update" FROM t', Kind.READ),
        ("COPY t FROM STDIN", Kind.UTILITY),
        ("CALL p()", Kind.UTILITY),
        ("", Kind.UTILITY),
        ("'", Kind.UTILITY),
    ],
)
def test_kind(sql: str, kind: Kind) -> None:
    assert kind_of(sql) is kind


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("INSERT into t", ("insert", "into")),
        ("((SELECT f()))", ("select", "f")),
        ("BEGIN", ("begin",)),
        ('SET "Role" TO x', ("set",)),
        ("", ()),
    ],
)
def test_opening(sql: str, words: tuple[str, ...]) -> None:
    assert opening(sql, 2) == words


@given(st.text())
def test_unquoted_is_the_opposite_of_quoting(text: str) -> None:
    assert unquoted("'" + text.replace("'", "''") + "'") == text


def test_unquoted() -> None:
    assert unquoted("$a$x'y$a$") == "x'y"
    assert unquoted(r"E'\n'") is None
