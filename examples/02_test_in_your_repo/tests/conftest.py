"""Rows that every test database begins with."""

from collections.abc import Callable

import psycopg
import pytest

NUMBERS = ("+49 30 123", "020 7946 0018", "", None)


def fill(connection: psycopg.Connection) -> None:
    """Members as there are, with the numbers that give trouble among them."""
    for number in NUMBERS:
        connection.execute("INSERT INTO members (phone) VALUES (%s)", (number,))


@pytest.fixture(scope="session")
def parallelchange_seed() -> Callable[[psycopg.Connection], None]:
    return fill
