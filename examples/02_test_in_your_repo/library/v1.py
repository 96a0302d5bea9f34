"""Version 1: a member has a `phone`."""

from __future__ import annotations

import os

import psycopg


def connect() -> psycopg.Connection[tuple[int, str | None]]:
    return psycopg.connect(os.environ["DATABASE_URL"], application_name="library-v1", autocommit=True)


def join(session: psycopg.Connection[tuple[int, str | None]], number: str | None) -> int:
    with session.transaction():
        row = session.execute("INSERT INTO members (phone) VALUES (%s) RETURNING id", (number,)).fetchone()
        assert row is not None
        return row[0]


def correct(session: psycopg.Connection[tuple[int, str | None]], member: int, number: str) -> None:
    with session.transaction():
        session.execute("UPDATE members SET phone = %s WHERE id = %s", (number, member))


def find(session: psycopg.Connection[tuple[int, str | None]], member: int) -> str | None:
    row = session.execute("SELECT id, phone FROM members WHERE id = %s", (member,)).fetchone()
    return row[1] if row else None
