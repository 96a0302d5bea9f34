"""The backfill beside one plain UPDATE of the same rows, and a write to another column with and without the trigger.

All in one run on one scratch server, in turn; what counts is the ratio.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from parallelchange.adapters.planning import plan_on
from parallelchange.adapters.postgres.backfill import run_backfill
from parallelchange.adapters.postgres.connection import connect
from parallelchange.adapters.postgres.ledger import PostgresLedger
from parallelchange.changefile import load_change
from parallelchange.local.postgres import scratch_postgres
from parallelchange.local.shop import example_path


def timed(work: Callable[[], object]) -> float:
    """Seconds it takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def table(url: str, rows: int) -> None:
    """Customers, anew."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS customers; DROP FUNCTION IF EXISTS"
                           " parallelchange_split_customer_name_customers CASCADE")  # fmt: skip
        connection.execute(
            "CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL, email text NOT NULL,"
            " created_at timestamptz NOT NULL DEFAULT now())"
        )
        connection.execute(
            "INSERT INTO customers SELECT i, 'First' || i || ' Last ' || i, i || '@example.test'"
            " FROM generate_series(1, %s) i", (rows,),
        )  # fmt: skip
        connection.execute("VACUUM ANALYZE customers")


def main() -> None:
    """Print seconds, rates and ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    change = load_change(Path(example_path()) / "changes" / "split-customer-name.yaml")
    touch = "UPDATE customers SET email = email || '.'"
    with scratch_postgres() as server:
        url = server.create_database("bench")
        table(url, rows)
        plan = plan_on(change, url)
        (work,) = plan.backfills
        sets = ", ".join(f"{name} = {sql}" for name, sql in work.assign.items())
        with psycopg.connect(url, autocommit=True) as connection:
            bare = timed(lambda: connection.execute(touch))
            connection.execute("ALTER TABLE customers ADD COLUMN first_name text, ADD COLUMN last_name text")
            plain = timed(lambda: connection.execute(f"UPDATE customers SET {sets}"))
        table(url, rows)
        ledger = PostgresLedger(url, change.name)
        ledger.open()
        with psycopg.connect(url) as connection:
            for statement in plan.expand:
                connection.execute(statement.sql)
        with psycopg.connect(url, autocommit=True) as connection:
            passing = timed(lambda: connection.execute(touch))
            connection.execute("VACUUM customers")
        with connect(url) as session:
            base = plan.base.tables[work.table]
            filled = timed(
                lambda: run_backfill(session, change.name, work, base, rows_per_second=None,
                                     progress=lambda *_: None)
            )  # fmt: skip
        ledger.close()
    print(json.dumps({
        "rows": rows, "backfill_s": round(filled, 2), "backfill_rows_per_s": round(rows / filled),
        "one_update_s": round(plain, 2), "backfill_to_one_update": round(filled / plain, 2),
        "passing_write_to_no_trigger": round(passing / bare, 2),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
