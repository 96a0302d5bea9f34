"""Fills the shop with customers. The same rows every time: 1 to 50 have the tricky names, in order."""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Iterator

import psycopg

from shop.names import FIRST, LAST, TRICKY

ROWS = 200_000
NAME = "shop-seed"
"""What its sessions call themselves: `clients` of the change file lets them in."""
ORDERED = 10
"""Every tenth customer has an order."""
RARE = 0.1
"""One name in ten has a space too many, a tab, a quote or the like."""


def names(rows: int) -> Iterator[str]:
    """Names for customers 1 to `rows`: mostly plain, some of every kind that gives trouble."""
    rng = random.Random(1)  # noqa: S311 - the same names every time
    plain = ("{f} {l}",) * 5 + ("{f} {g} {l}",) * 2
    rare = (
        "{f}",
        "{l}",
        "{f}  {l}",
        "{f} {l} ",
        " {f} {l}",
        "{f}\t{l}",
        "{f} '{g}' {l}",
        "{f} \\{l}",
        "{f} 🦀",
    )
    for number in range(rows):
        if number < len(TRICKY):
            yield TRICKY[number]
        elif number % 1000 == 0:
            yield TRICKY[rng.randrange(len(TRICKY))]
        else:
            pattern = rng.choice(rare if rng.random() < RARE else plain)
            yield pattern.format(f=rng.choice(FIRST), g=rng.choice(FIRST), l=rng.choice(LAST))


def seed(url: str, rows: int = ROWS) -> None:
    """Fill an empty shop at its base revision.

    Args:
        url: The database, as libpq or SQLAlchemy writes it.
        rows: How many customers; a tenth as many orders.
    """
    libpq = url.replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(libpq, application_name=NAME) as connection, connection.cursor() as cursor:
        with cursor.copy("COPY customers (id, name, email) FROM STDIN") as copy:
            for number, name in enumerate(names(rows), start=1):
                copy.write_row((number, name, f"customer-{number}@example.test"))
        cursor.execute("SELECT setval(pg_get_serial_sequence('customers', 'id'), max(id)) FROM customers")
        cursor.execute(
            "INSERT INTO orders (customer_id, item, quantity)"
            " SELECT id, 'item ' || mod(id, 97), 1 + mod(id, 5)"
            " FROM customers WHERE mod(id, %s) = 1 ORDER BY id",
            (ORDERED,),
        )
    with psycopg.connect(libpq, autocommit=True, application_name=NAME) as connection:
        connection.execute("VACUUM (ANALYZE) customers, orders")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m shop.seed", description="Fill an empty shop.")
    parser.add_argument("--rows", type=int, default=ROWS, help="how many customers (default: %(default)s)")
    parser.add_argument("--url", default=os.environ.get("DATABASE_URL"), help="default: DATABASE_URL")
    given = parser.parse_args()
    if not given.url:
        parser.error("no database given: set DATABASE_URL or pass --url")
    seed(given.url, given.rows)


if __name__ == "__main__":
    main()
