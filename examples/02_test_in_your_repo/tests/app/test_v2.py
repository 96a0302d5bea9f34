"""The app's own tests, of version 2."""

import os
from collections.abc import Iterator

import psycopg
import pytest
from library import v2


@pytest.fixture
def session(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """A session on the database that DATABASE_URL names, else on a scratch one."""
    if "DATABASE_URL" not in os.environ:
        monkeypatch.setenv("DATABASE_URL", request.getfixturevalue("parallelchange").expanded().url)
    with v2.connect() as session:
        yield session


def test_a_member_joins_and_is_found(session: psycopg.Connection) -> None:
    member = v2.join(session, "+49 30 123")
    assert v2.find(session, member) == "+49 30 123"


def test_a_number_is_corrected(session: psycopg.Connection) -> None:
    v2.correct(session, 1, "112")
    assert v2.find(session, 1) == "112"


def test_nobody_is_found_under_a_number_that_is_not_given(session: psycopg.Connection) -> None:
    assert v2.find(session, 0) is None
