"""What a statement is, told by its words: nothing that may lock is ever taken for a read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.sqltext import Kind, kind_of, tokens

PARTS = st.sampled_from(
    ["select", "SELECT", "with", "values", "table", "insert", "Update", "delete", "MERGE", "into", "for share", "lock",
     "updated_at", "'update'", '"delete"', "/* insert */", "-- lock\n", "$$into$$", " ", "(", ")", "1", "a", ";", "$1",
     "LOC\u212a", "E'\\'into'", "$t$update$t$", "1update"]
)  # fmt: skip


def told(sql: str) -> Kind:
    """The same, every text taken apart."""
    words = [token.text.lower() for token in tokens(sql) if token.kind == "word"]
    if not words or words[0] not in {"select", "values", "table", "with", "insert", "update", "delete", "merge"}:
        return Kind.UTILITY
    more = {"insert", "update", "delete", "merge", "into", "share", "lock"}
    return Kind.READ if more.isdisjoint(words) else Kind.WRITE


@given(st.lists(PARTS, max_size=8).map(" ".join) | st.lists(PARTS, max_size=8).map("".join))
def test_a_text_is_what_its_words_say(sql: str) -> None:
    assert kind_of(sql) is told(sql)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT updated_at, 'for update' FROM t -- lock", Kind.READ),
        ("select a from t for/**/update", Kind.WRITE),
        ("WITH x AS (DELETE FROM t RETURNING 1) SELECT * FROM x", Kind.WRITE),
        ("SELECT 1 INTO n", Kind.WRITE),
        ("EXPLAIN SELECT 1", Kind.UTILITY),
        ("", Kind.UTILITY),
    ],
)
def test_examples(sql: str, kind: Kind) -> None:
    assert kind_of(sql) is kind
