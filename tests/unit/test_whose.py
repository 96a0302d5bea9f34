"""Whose a session is, whatever it says of itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelchange.sessions import (
    Client,
    Connected,
    Identity,
    Owner,
    Session,
    can_be_told,
    problem_of,
    sessions_of,
    whose,
)

NAMES = st.sampled_from(["", "v1", "v2", "x", "parallelchange"])
ROLES = st.sampled_from(["one", "two", "three"])
SESSIONS = st.builds(
    Session,
    pid=st.just(1),
    application_name=NAMES,
    role=ROLES,
    address=st.none() | st.sampled_from(["10.0.0.1", "::1"]),
    kind=st.none() | st.sampled_from(["client backend", "walsender"]),
    ours=st.booleans(),
)
OLDS = st.builds(Identity, st.just("v1"), st.none() | st.just("v1"), st.none() | ROLES)
NEWS = st.builds(Identity, st.just("v2"), st.none() | st.just("v2"), st.none() | ROLES)
CLIENTS = st.builds(
    Client,
    st.none() | st.sampled_from(["x", "v*", "*1", "?"]),
    st.none() | ROLES,
    st.none() | st.sampled_from(["10.0.0.0/8", "::1/128"]),
)


@given(SESSIONS, OLDS, NEWS, st.lists(CLIENTS, max_size=2))
def test_what_is_the_old_version_s_is_drained_for(
    session: Session, old: Identity, new: Identity, clients: list[Client]
) -> None:
    """What one gate takes for the old version's, the other waits for, or says that it cannot tell."""
    found = sessions_of(old, new, Connected((session,)))
    if whose(session, (old, new), clients) == (Owner.VERSION, "v1") and can_be_told(old, new):
        assert found == (session,)
    if session.application_name == old.application_name:
        assert found == (session,), "whatever its role"
    if old.role == session.role and old.role != new.role and not session.ours:
        assert found == (session,), "whatever its name"


@given(SESSIONS, OLDS, NEWS, st.lists(CLIENTS.filter(lambda c: not problem_of(c, ())), max_size=2))
def test_nobody_is_taken_for_somebody_else(
    session: Session, old: Identity, new: Identity, clients: list[Client]
) -> None:
    owner, version = whose(session, (old, new), clients)
    mine = {"v1": old, "v2": new}.get(version)
    assert (owner is Owner.VERSION) == (mine is not None)
    if mine is not None:
        named = mine.application_name == session.application_name and mine.role in (None, session.role)
        assert named or (mine.application_name is None and mine.role == session.role)
    if owner is Owner.OURS:
        assert session.ours
    if owner is Owner.CLIENT:
        assert any(client.allows(session) for client in clients)
        assert session.application_name not in (old.application_name, new.application_name)


@pytest.mark.parametrize(
    ("pattern", "name", "allowed"),
    [
        ("pga*", "pganalyze", True), ("pga*", "pg", False), ("*exporter", "pg-exporter", True), ("a*c", "abbc", True),
        ("x?", "xy", False), ("x?", "x?", True), ("[ab]", "a", False), ("[ab]", "[ab]", True), ("psql", "PSQL", False),
        ("psql", "psql ", False), ("psql", "", False),
    ],
)  # fmt: skip
def test_of_all_signs_the_star_alone_stands_for_others(pattern: str, name: str, allowed: bool) -> None:
    assert Client(pattern).allows(Session(1, name, "app")) is allowed


def test_an_address_that_is_not_seen_is_in_no_network() -> None:
    client = Client(address="10.0.0.0/8")
    assert [client.allows(Session(1, "x", "app", at)) for at in ("10.1.2.3", "11.0.0.1", "::1", None)] == [
        True,
        False,
        False,
        False,
    ]
