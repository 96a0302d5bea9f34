"""From what sessions sent to their transactions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parallelchange.recording.transactions import Event, transactions


def of(*texts: str | tuple[str, str], session: str = "a") -> list[tuple[str, tuple[str, ...]]]:
    """The transactions of one session; a pair is a text and what it failed with."""
    pairs = [(text, "") if isinstance(text, str) else text for text in texts]
    found = transactions(Event(session, sql, sqlstate=state) for sql, state in pairs)
    return [(each.end, tuple(sent.sql for sent in each.sent)) for each in found]


def test_outside_of_any() -> None:
    assert of("SELECT 1", "SELECT 2") == [("auto", ("SELECT 1",)), ("auto", ("SELECT 2",))]


def test_begin_and_its_ends() -> None:
    for begin in ("BEGIN", "begin isolation level serializable", "START TRANSACTION READ ONLY"):
        for end in ("COMMIT", "END", "commit work", "COMMIT TRANSACTION"):
            assert of(begin, "a", "b", end, "c") == [("commit", ("a", "b")), ("auto", ("c",))]
        for end in ("ROLLBACK", "ABORT", "rollback work"):
            assert of(begin, "a", end) == [("rollback", ("a",))]


def test_a_session_that_ends_inside_one_rolls_back() -> None:
    assert of("BEGIN", "a") == [("rollback", ("a",))]


def test_savepoints_are_steps_and_save() -> None:
    steps = ("a", "SAVEPOINT s", "b", "ROLLBACK TO SAVEPOINT s", "RELEASE s")
    assert of("BEGIN", *steps, "COMMIT") == [("commit", steps)]
    failing = ("a", "SAVEPOINT s", ("b", "23505"), "ROLLBACK TO s", "c")
    assert of("BEGIN", *failing, "COMMIT")[0][0] == "commit"


def test_an_error_makes_commit_a_rollback() -> None:
    assert of("BEGIN", ("a", "23505"), ("b", "25P02"), "COMMIT") == [("rollback", ("a",))]
    assert of("BEGIN", "a", ("COMMIT", "23503")) == [("rollback", ("a",))], "a deferred constraint"


def test_a_string_of_several_is_one_transaction() -> None:
    assert of("a; b") == [("commit", ("a", "b"))]
    assert of(("a; b", "23505")) == [("rollback", ("a", "b"))]
    assert of("a; BEGIN; b", "c", "COMMIT") == [("commit", ("a", "b", "c"))]
    assert of("BEGIN; a; COMMIT; b") == [("commit", ("a",)), ("commit", ("b",))]
    assert of("a; COMMIT; b; c") == [("commit", ("a",)), ("commit", ("b", "c"))]


def test_chains_and_two_phases() -> None:
    assert of("BEGIN", "a", "COMMIT AND CHAIN", "b", "ROLLBACK") == [("commit", ("a",)), ("rollback", ("b",))]
    assert of("BEGIN", "a", "COMMIT AND NO CHAIN", "b") == [("commit", ("a",)), ("auto", ("b",))]
    assert of("BEGIN", "a", "PREPARE TRANSACTION 'x'") == [("commit", ("a",))]


def test_sessions_come_where_they_ended() -> None:
    sent = [("a", "BEGIN"), ("a", "1"), ("b", "2"), ("a", "3"), ("b", "4"), ("a", "COMMIT")]
    found = list(transactions(Event(session, sql) for session, sql in sent))
    assert [(each.session, [s.sql for s in each.sent]) for each in found] == [
        ("b", ["2"]),
        ("b", ["4"]),
        ("a", ["1", "3"]),
    ]


def test_discard_all_begins_a_new_session() -> None:
    found = list(transactions([Event("a", "SET x = 1"), Event("a", "DISCARD ALL"), Event("a", "SELECT 1")]))
    assert [each.session for each in found] == ["a", "a#2"]


def test_execute_is_what_it_executes() -> None:
    texts = [
        "PREPARE q (int, text) AS SELECT * FROM t WHERE a = $1 AND b = $2",
        "EXECUTE q(7, 'it''s')", "EXECUTE Q(-7, NULL)", "EXECUTE q(now()::int + 1, 'x')", "EXECUTE other", "EXECUTE",
    ]  # fmt: skip
    found = [sent for each in transactions(Event("a", text) for text in texts) for sent in each.sent]
    assert [(s.values, s.types) for s in found[:2]] == [
        (("7", "it's"), ("int", "text")),
        (("-7", None), ("int", "text")),
    ]
    assert found[0].sql == "SELECT * FROM t WHERE a = $1 AND b = $2"
    assert found[2].sql == "SELECT * FROM t WHERE a = (now()::int + 1)::int AND b = ('x')::text"
    assert all(s.prepared for s in found[:3])
    assert [s.sql for s in found[3:]] == ["EXECUTE other", "EXECUTE"]


WORDS = st.sampled_from(
    ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a", "ROLLBACK TO a", "SELECT 1", "INSERT 2", "PREPARE x AS SELECT 3",
     "EXECUTE x", "EXECUTE x(1,", "DISCARD ALL", "PREPARE", "(", ";", "COMMIT AND CHAIN", "", "PREPARE TRANSACTION 'a'"]
)  # fmt: skip
EVENTS = st.lists(
    st.builds(
        Event,
        st.sampled_from("ab"),
        st.lists(WORDS, min_size=1, max_size=3).map(";".join),
        sqlstate=st.sampled_from(["", "", "23505", "25P02"]),
    ),
    max_size=12,
)


@given(EVENTS)
def test_no_statement_is_lost_or_made_up(events: list[Event]) -> None:
    found = list(transactions(events))
    assert all(each.sent for each in found)
    assert all(each.end in ("commit", "rollback", "auto") for each in found)
    assert all(len(each.sent) == 1 for each in found if each.end == "auto")
    inserted = sum(event.sql.count("INSERT 2") for event in events if event.sqlstate != "25P02")
    if not any("(" in event.sql for event in events):  # an open parenthesis swallows what follows
        assert sum(sent.sql == "INSERT 2" for each in found for sent in each.sent) == inserted
