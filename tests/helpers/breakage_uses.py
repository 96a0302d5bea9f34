"""What the old version sends: one kind of statement each, on rows of its own, so that none is in another's way.

Values differ from time to time, but are of one kind: what was recorded stands for what is sent later. A value of a kind
that was never recorded can break on a schema without anybody knowing, and no replay finds that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from psycopg.types.range import Range

__all__ = ["USES", "Sent", "Use"]


def _nothing(_time: int) -> tuple[Any, ...]:
    return ()


@dataclass(frozen=True)
class Sent:
    """One statement of a use.

    Args:
        sql: As the app writes it; `%s` for its parameters.
        values: Its parameters the n-th time.
        prepare: False where the app forbids the driver to prepare it.
        rows: What `COPY … FROM STDIN` is fed the n-th time.
    """

    sql: str
    values: Callable[[int], tuple[Any, ...]] = _nothing
    prepare: bool | None = None
    rows: Callable[[int], list[tuple[Any, ...]]] | None = None


@dataclass(frozen=True)
class Use:
    """One kind of statement.

    Args:
        name: Its name in the table.
        sent: Sent each time.
        transaction: Whether they are one transaction.
        first: Sent once when a session is opened.
    """

    name: str
    sent: tuple[Sent, ...]
    transaction: bool = False
    first: tuple[str, ...] = ()

    @property
    def shared(self) -> bool:
        """Whether it can share a session: psycopg forgets all it has prepared when a transaction is rolled back."""
        return not self.transaction and not self.first


def _one(name: str, sql: str, values: Callable[[int], tuple[Any, ...]] = _nothing, **more: Any) -> Use:
    return Use(name, (Sent(sql, values, **more),))


USES = (
    _one("select one", "SELECT 1"),
    _one("select named columns", "SELECT id, email, name FROM customers WHERE id = %s", lambda n: (n + 1,)),
    _one("select * auto-prepared", "SELECT * FROM customers WHERE id = %s", lambda n: (n + 1,)),
    _one(
        "select * unprepared",
        "SELECT * FROM customers WHERE email = %s",
        lambda n: (f"c{n + 1}@example.com",),
        prepare=False,
    ),
    _one(
        "join",
        "SELECT c.name, o.amount FROM customers c JOIN orders o ON o.customer_id = c.id WHERE c.id = %s",
        lambda n: (n + 2,),
    ),
    _one("aggregate", "SELECT state, count(*), sum(amount) FROM orders GROUP BY state"),
    _one(
        "group by key",
        "SELECT c.id, c.name, count(*) FROM customers c JOIN orders o ON o.customer_id = c.id GROUP BY c.id",
    ),
    _one(
        "window",
        "SELECT id, rank() OVER (ORDER BY amount) FROM orders WHERE customer_id = %s",
        lambda n: (n + 2,),
    ),
    _one(
        "cte that writes",
        "WITH moved AS (UPDATE stock SET qty = qty - 1 WHERE sku = %s RETURNING sku)"
        " INSERT INTO audit (what) SELECT 'moved ' || sku FROM moved",
        lambda n: ("sku-3",),
    ),
    _one(
        "insert returning",
        "INSERT INTO orders (customer_id, amount) VALUES (%s, %s) RETURNING id",
        lambda n: (n + 1, 60 + n),
    ),
    _one("insert without columns", "INSERT INTO countries VALUES (%s, %s)", lambda n: (f"N{n}", f"Country {n}")),
    _one("insert select *", "INSERT INTO export SELECT * FROM customers WHERE id = %s", lambda n: (n + 1,)),
    _one(
        "insert with key",
        "INSERT INTO customers (id, email, name) VALUES (%s, %s, %s)",
        lambda n: (1000 + n, f"customer-{n}@example.com", f"Key {n}"),
    ),
    _one(
        "on conflict (column)",
        "INSERT INTO counters (name, n) VALUES (%s, 1) ON CONFLICT (name) DO UPDATE SET n = counters.n + 1",
        lambda n: (f"counter-{n % 9}",),
    ),
    _one(
        "on conflict on constraint",
        "INSERT INTO settings (key, value) VALUES (%s, %s)"
        " ON CONFLICT ON CONSTRAINT settings_key DO UPDATE SET value = excluded.value",
        lambda n: (f"key-{n % 9}", f"value {n}"),
    ),
    _one(
        "update returning",
        "UPDATE customers SET note = %s WHERE id = %s RETURNING id, note",
        lambda n: (f"call {n}", n + 20),
    ),
    _one(
        "update from",
        "UPDATE orders o SET state = 'paid' FROM customers c WHERE c.id = o.customer_id AND c.email = %s",
        lambda n: (f"c{n + 20}@example.com",),
    ),
    _one("delete", "DELETE FROM items WHERE order_id = %s AND line = %s", lambda n: (1, n + 1)),
    _one(
        "merge",
        "MERGE INTO stock USING (VALUES (%s::text, %s::int)) AS v (sku, qty) ON stock.sku = v.sku"
        " WHEN MATCHED THEN UPDATE SET qty = v.qty WHEN NOT MATCHED THEN INSERT VALUES (v.sku, v.qty)",
        lambda n: (f"sku-{n + 35}", 40000 + n),
    ),
    _one("select for update", "SELECT line, qty FROM items WHERE order_id = %s FOR UPDATE", lambda n: (2,)),
    _one("sql function", "SELECT discount(%s)", lambda n: (n + 100,)),
    _one("plpgsql function", "SELECT place_order(%s, %s)", lambda n: (n + 1, n + 10)),
    _one("call procedure", "CALL close_order(%s)", lambda n: (n + 100,)),
    _one(
        "copy from",
        "COPY events (day, what) FROM STDIN",
        rows=lambda n: [(f"2027-02-{n + 1:02}", f"copied {n}"), (f"2026-02-{n + 1:02}", f"copied {n}")],
    ),
    _one("copy to", "COPY (SELECT sku, label, price FROM products ORDER BY sku) TO STDOUT"),
    Use(
        "cursor",
        (
            Sent("DECLARE active CURSOR FOR SELECT id, name FROM active_customers ORDER BY id"),
            Sent("FETCH 5 FROM active"),
            Sent("CLOSE active"),
        ),
        transaction=True,
    ),
    Use(
        "temp table",
        (
            Sent("INSERT INTO picked SELECT id FROM customers WHERE status = %s", lambda n: ("active",)),
            Sent("SELECT c.name FROM picked p JOIN customers c ON c.id = p.id LIMIT 3"),
        ),
        first=("CREATE TEMP TABLE picked (id bigint)",),
    ),
    _one("nextval", "SELECT nextval('order_numbers')"),
    _one(
        "several statements",
        "UPDATE stock SET qty = qty + 1 WHERE sku = 'sku-5'; SELECT qty FROM stock WHERE sku = 'sku-5'",
    ),
    Use(
        "deferred constraint",
        (
            Sent("INSERT INTO items (order_id, line, sku) VALUES (%s, 1, %s)", lambda n: (5000 + n, f"part-{n}")),
            Sent("INSERT INTO orders (id, customer_id, amount) VALUES (%s, %s, %s)", lambda n: (5000 + n, 3, n + 1)),
        ),
        transaction=True,
    ),
    Use(
        "search_path",
        (Sent("SELECT title FROM summaries WHERE id = %s", lambda n: (n % 5 + 1,)),),
        first=("SET search_path = reports, public",),
    ),
    Use(
        "set role",
        (
            Sent("SET LOCAL ROLE clerk"),
            Sent("INSERT INTO memos (owner, body) VALUES (current_user, %s)", lambda n: (f"memo of {n}",)),
        ),
        transaction=True,
    ),
    _one("row security", "SELECT id, body FROM memos WHERE owner = current_user"),
    _one("column grants", "UPDATE staff SET name = %s WHERE id = %s RETURNING id, name", lambda n: (f"N{n}", 2)),
    _one("advisory lock", "SELECT pg_advisory_xact_lock(%s)", lambda n: (4711,)),
    _one(
        "enum and domain",
        "INSERT INTO customers (email, name, status, phone) VALUES (%s, %s, 'vip'::customer_status, %s::phone_number)",
        lambda n: (f"vip-{n}@example.com", f"Vip {n}", f"030 {1000 + n}"),
    ),
    _one(
        "typed parameters",
        "UPDATE products SET label = %s, tier = %s, price = %s WHERE sku = %s",
        lambda n: (f"a longer label {n}", n % 3, Decimal(n) + Decimal("20.50"), "sku-9"),
    ),
    _one("where on a type", "SELECT sku FROM products WHERE tier = %s", lambda n: (n % 3,)),
    _one("materialized view", "SELECT customer_id, total FROM order_totals WHERE customer_id = %s", lambda n: (n + 1,)),
    _one("partitioned insert", "INSERT INTO events VALUES (%s, %s)", lambda n: (f"2027-05-{n + 1:02}", "inserted")),
    _one(
        "exclusion",
        "INSERT INTO bookings (room, during) VALUES (%s, %s)",
        lambda n: (7, Range(1000 + 10 * n, 1005 + 10 * n)),
    ),
    _one("view write", "UPDATE active_customers SET name = %s WHERE id = %s", lambda n: (f"Name {n}", 41)),
)
"""Every kind of statement; the same text at the same place every run, with fresh values each time."""
