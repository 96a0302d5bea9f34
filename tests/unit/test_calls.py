"""The form in which statements are compared, whatever they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.calls import Counts, canonical, next_sample, stillness
from parallelchange.sqltext import template

WORDS = st.sampled_from(["select", "a", "FROM", "t", ",", "(", ")", "=", "1", "'x'", "$1", "null", "-", '"Q"', "*"])
TEXTS = st.lists(WORDS, min_size=1, max_size=12)


@given(TEXTS, st.lists(st.sampled_from([" ", "\n", "\t", " /* why */ ", " -- why\n"]), min_size=12, max_size=12))
def test_white_space_comments_and_case_do_not_differ(words: list[str], gaps: list[str]) -> None:
    plain = " ".join(words)
    spaced = "".join((word.upper() if word.isalpha() else word) + gap for word, gap in zip(words, gaps, strict=False))
    assert canonical(plain) == canonical(spaced)


@given(TEXTS)
def test_it_is_the_same_with_its_literals_taken_out(words: list[str]) -> None:
    assert canonical(" ".join(words)) == canonical(template(" ".join(words)).sql)


@given(st.text(max_size=60))
def test_no_text_breaks_it(text: str) -> None:
    canonical(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t WHERE a IN ($1, $2)", "SELECT a FROM t WHERE a IN ($1 /*, ... */)"),
        ("INSERT INTO t VALUES ($1, now()), ($2, now())", "INSERT INTO t VALUES ($1, now())"),
    ],
)
def test_lists_are_as_one(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t", "SELECT b FROM t"),
        ('SELECT a FROM "T"', 'SELECT a FROM "t"'),
        ("SELECT f(a), f(a) FROM t", "SELECT f(a) FROM t WHERE a"),
        ("SELECT a FROM t WHERE a = $1", "SELECT a FROM t WHERE a > $1"),
    ],
)
def test_what_means_something_else_differs(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@given(
    st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from("xy"), st.integers(0, 3))),
    st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from("xy"), st.integers(0, 3))),
    st.sampled_from(["r1", "r2"]),
    st.integers(0, 1),
    st.integers(0, 1),
    st.sampled_from(["", "off"]),
)
def test_it_stands_still_in_one_case_alone(
    before: dict[str, dict[str, int]],
    after: dict[str, dict[str, int]],
    reset: str,
    evicted: int,
    hidden: int,
    blind: str,
) -> None:
    watched = frozenset("abc")
    sample = next_sample(watched, Counts(before, "r1"), None, now=1.0, since=0.0)
    told = stillness(watched, Counts(after, reset, evicted, hidden, blind), sample, now=9.0, since=0.0)

    def calls(of: dict[str, dict[str, int]]) -> dict[tuple[str, str], int]:
        return {(text, role): n for text, roles in of.items() for role, n in roles.items() if n}

    same = calls(before) == calls(after) and reset == "r1" and not evicted and not hidden and not blind
    assert (told.seconds == 8.0) == same
    assert told.watched == len(watched), "what was counted once is never taken for what is not counted"
