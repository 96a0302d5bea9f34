"""Sends every form of statement that real apps send, over psycopg; DATABASE_URL says where. Run by a recording."""

from __future__ import annotations

import asyncio
import os

import psycopg

URL = os.environ["DATABASE_URL"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS items (id bigserial PRIMARY KEY, name text NOT NULL UNIQUE, data jsonb, stock int DEFAULT 0);
CREATE TABLE IF NOT EXISTS log (at timestamptz DEFAULT now(), what text);
CREATE OR REPLACE FUNCTION restock(n int) RETURNS int LANGUAGE plpgsql AS $body$
BEGIN
  UPDATE items SET stock = stock + n; -- a comment; with a semicolon
  RETURN n;
END $body$;
CREATE OR REPLACE FUNCTION label(n int) RETURNS text BEGIN ATOMIC
  SELECT CASE WHEN n > 0 THEN 'some' ELSE 'none' END;
END;
CREATE OR REPLACE PROCEDURE note(what text) LANGUAGE sql AS 'INSERT INTO log (what) VALUES (what)';
DO $$ BEGIN PERFORM 1; END $$;
"""


def plain() -> None:
    with psycopg.connect(URL, autocommit=True) as connection:
        connection.execute(SCHEMA)
        connection.execute("SET statement_timeout = '5s'")
        connection.execute("LISTEN arrived")
        connection.execute("NOTIFY arrived, 'now'")
        for number in range(8):  # psycopg prepares by name from the sixth time on
            connection.execute("INSERT INTO items (name) VALUES (%s) RETURNING id", (f"item {number}",))
        connection.execute(
            "INSERT INTO items (name, stock) VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET stock = excluded.stock",
            ("item 1", 3),
        )
        connection.execute("WITH gone AS (DELETE FROM items WHERE id = %s RETURNING *) SELECT * FROM gone", (8,))
        connection.execute("SELECT pg_advisory_lock(42), pg_advisory_unlock(42)")
        connection.execute("SELECT restock(%s)", (5,))
        connection.execute("SELECT label(stock), data->>'a', data @> '{}'::jsonb, data ? 'k' FROM items -- trailing")
        connection.execute("CALL note(%s)", ("called",))
        connection.execute(
            "INSERT INTO log (what) VALUES ('one'); INSERT INTO log (what) VALUES ('it''s two'); SELECT 3"
        )
        connection.execute("CREATE TEMP TABLE mine (id int); INSERT INTO mine VALUES (1)")
        connection.execute("SELECT * FROM mine WHERE id = %s", (1,))
        connection.execute("PREPARE by_name (text) AS SELECT id FROM items WHERE name = $1")
        connection.execute("EXECUTE by_name('item 2')")
        connection.execute("DEALLOCATE by_name")
        connection.execute("SELECT pg_notify('arrived', %s)", ("then",))


def transactions() -> None:
    with psycopg.connect(URL) as connection:
        connection.execute("LOCK TABLE log IN SHARE ROW EXCLUSIVE MODE")
        connection.execute("UPDATE items SET stock = stock - 1 WHERE name = %s", ("item 3",))
        try:
            with connection.transaction():
                connection.execute("INSERT INTO items (name) VALUES (%s)", ("item 3",))
        except psycopg.errors.UniqueViolation:
            pass
        connection.execute("INSERT INTO log (what) VALUES (%s)", ("after the savepoint",))
        connection.commit()
        connection.execute("DELETE FROM log")
        connection.rollback()
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO log (what) VALUES (%s)", [("many 1",), ("many 2",)])
        with connection.cursor(name="pages") as cursor:
            cursor.itersize = 2
            cursor.execute("SELECT id, name FROM items WHERE id > %s ORDER BY id", (0,))
            assert len(cursor.fetchmany(2)) == 2
            assert cursor.fetchall()
        connection.commit()
        with connection.cursor() as cursor:
            with cursor.copy("COPY log (what) FROM STDIN") as copy:
                copy.write_row(("copied",))
            with cursor.copy("COPY (SELECT name FROM items) TO STDOUT") as copy:
                assert list(copy)
        connection.commit()
        connection.execute("UPDATE log SET what = %s", ("never",))
        connection.close()  # the session ends inside its transaction


def pipelined() -> None:
    with psycopg.connect(URL) as connection, connection.pipeline():
        connection.execute("INSERT INTO log (what) VALUES (%s)", ("pipelined",))
        connection.execute("UPDATE log SET what = %s WHERE what = %s", ("piped", "pipelined"))


def interpolated() -> None:
    """As psycopg2 and Django send: values put into the text by the driver."""
    with psycopg.connect(URL, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute("SELECT id FROM items WHERE name = %s AND stock < %s", ("O'Hara", 7))
        connection.execute("SELECT id FROM items WHERE name = %s AND stock < %s", ("back\\slash", 8))


async def asynchronous() -> None:
    async with await psycopg.AsyncConnection.connect(URL) as connection:
        await connection.execute("SELECT count(*) FROM items WHERE stock = ANY(%s)", ([1, 2, 3],))


plain()
transactions()
pipelined()
interpolated()
asyncio.run(asynchronous())
