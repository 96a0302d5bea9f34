"""Some rows of every table, and all rows that their foreign keys need."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.change import Mask
from parallelchange.errors import Busy, Denied, InvalidFile, Unavailable
from parallelchange.local.mask import (
    ForeignKey,
    Rules,
    SourceColumn,
    SourceTable,
    apply_masks,
    expression,
    select_list,
)
from parallelchange.model import TableName
from parallelchange.sql import columns as names
from parallelchange.sql import ident, literal, qualified

__all__ = ["Sample", "copy_sequences", "one_search_path"]

_BATCH = 10_000
"""Keys asked for at once."""

_TABLES = """
WITH RECURSIVE bases(oid, base, typmod) AS (
  SELECT oid, oid, -1 FROM pg_type WHERE typtype <> 'd'
  UNION ALL
  SELECT t.oid, b.base, CASE WHEN t.typtypmod >= 0 THEN t.typtypmod ELSE b.typmod END
  FROM pg_type t JOIN bases b ON t.typbasetype = b.oid WHERE t.typtype = 'd'
), above(oid, parent) AS (
  SELECT inhrelid, inhparent FROM pg_inherits
  UNION
  SELECT a.oid, i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.parent
)
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text,
  c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                                  AND d.deptype = 'e'),
  (SELECT array_agg(a.attname::text ORDER BY k.place)
   FROM (SELECT i.* FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
         WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
           AND m.amname = 'btree' AND NOT EXISTS (
             SELECT FROM pg_attribute o WHERE o.attrelid = c.oid AND NOT o.attnotnull AND o.attnum = ANY(i.indkey))
         ORDER BY NOT i.indisprimary, i.indexrelid LIMIT 1) i,
     unnest(i.indkey) WITH ORDINALITY k(num, place) JOIN pg_attribute a ON a.attnum = k.num
   WHERE a.attrelid = c.oid AND k.place <= i.indnkeyatts),
  ARRAY(SELECT a.attname::text FROM pg_attribute a JOIN pg_index i ON i.indrelid = a.attrelid
        WHERE a.attrelid = c.oid AND i.indisunique AND a.attnum = ANY(i.indkey)),
  (SELECT greatest(count(*), 1) FROM pg_class p JOIN above u ON u.oid = p.oid
   WHERE c.relispartition AND p.relkind = 'r' AND u.parent = pg_partition_root(c.oid)),
  ARRAY(SELECT u.parent::bigint FROM above u WHERE u.oid = c.oid),
  (SELECT coalesce(json_agg(json_build_array(a.attname, format_type(a.atttypid, a.atttypmod), format_type(b.base, -1),
      t.typname, CASE WHEN a.atttypmod >= 0 THEN a.atttypmod ELSE b.typmod END, a.attnotnull, a.attgenerated <> '')
      ORDER BY a.attnum), '[]')
   FROM pg_attribute a JOIN bases b ON b.oid = a.atttypid JOIN pg_type t ON t.oid = b.base
   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
  AND n.nspname NOT IN ('information_schema', 'parallelchange')
ORDER BY 2, 3
"""

_FOREIGN_KEYS = """
SELECT f.conrelid::bigint, f.confrelid::bigint,
  (SELECT json_agg(json_build_array(a.attname, b.attname) ORDER BY k.place)
   FROM unnest(f.conkey, f.confkey) WITH ORDINALITY k(own, other, place)
   JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.own
   JOIN pg_attribute b ON b.attrelid = f.confrelid AND b.attnum = k.other)
FROM pg_constraint f JOIN pg_namespace n ON n.oid = f.connamespace
WHERE f.contype = 'f' AND f.conparentid = 0 AND n.nspname <> 'parallelchange'
ORDER BY f.oid
"""

_SEQUENCES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname <> 'parallelchange' AND n.nspname !~ '^pg_'
ORDER BY 1, 2
"""


@dataclass
class Sample:
    """The rows of a copy, taken in one snapshot of the source.

    Args:
        there: Session on the source, in a transaction with the source's search path.
        here: Session on the copy, whose tables have no keys and no triggers yet.
        rows: Rows taken of each table.
        masks: The masking rules.
    """

    there: Connection
    here: Connection
    rows: int
    masks: Sequence[Mask]
    _key: str = field(default_factory=lambda: secrets.token_hex(16))
    _rules: Rules = field(default_factory=dict)
    _tables: dict[int, SourceTable] = field(default_factory=dict)
    _foreign: tuple[ForeignKey, ...] = ()

    def prepare(self) -> None:
        """Read what there is, and hold the masking rules against it; nothing is copied.

        Raises:
            InvalidFile: A rule makes no sense on this database.
        """
        for *head, columns in self.there.execute(_TABLES).fetchall():
            oid, schema, name, kind, ours, key, unique, leaves, above = head
            known = {column[0]: SourceColumn(*column) for column in columns}
            self._tables[oid] = SourceTable(
                oid, TableName(schema, name), kind, ours, tuple(key or ()), frozenset(unique), leaves,
                frozenset(above), known,
            )  # fmt: skip
        self._foreign = tuple(
            ForeignKey(child, parent, tuple((own, other) for own, other in pairs))
            for child, parent, pairs in self.there.execute(_FOREIGN_KEYS).fetchall()
            if child in self._tables and parent in self._tables  # not those of temporary tables
        )
        self._rules = apply_masks(self.masks, tuple(self._tables.values()), self._foreign)
        for (oid, column), mask in self._rules.items():
            if mask.rule == "sql":
                self._parse(mask, self._tables[oid], column)

    def copy(self) -> int:
        """Copy the rows of every table, and then the rows that theirs refer to, until none is missing.

        Returns:
            How many rows were copied.

        Raises:
            InvalidFile: A masking rule gives what the table does not take.
            Unavailable: The source's rows cannot be read, or not all of them.
        """
        copied = sum(self._stream(table, self._both_ends(table)) for table in self._tables.values() if table.ours)
        fetched = -1
        while fetched:
            # What is missing on the source as well stays missing, so a round that finds nothing is the last.
            fetched = sum(self._fetch(key, keys) for key in self._foreign for keys in self._missing(key))
            copied += fetched
        return copied

    def _parse(self, mask: Mask, table: SourceTable, column: str) -> None:
        """Have the source parse an expression, as one statement and over one row."""
        # Beside another column, so that an aggregate is refused.
        text = f"SELECT {ident(table.name.name)}.ctid, {expression(table, column, self._rules, self._key)}"
        result = self.there.pgconn.prepare(b"", f"{text} FROM {_from(table)}".encode())
        told = result.error_message.decode().strip().splitlines()
        if result.status == psycopg.pq.ExecStatus.COMMAND_OK:
            return
        raise InvalidFile(
            f"`rehearsal.mask.{mask.table}.{mask.column}`: PostgreSQL refuses the expression:"
            f" {told[0].removeprefix('ERROR:').strip()}",
            path=mask.path,
            line=mask.line,
            hint="it is one expression over the columns of the row",
        )

    def _both_ends(self, table: SourceTable) -> str:
        """The oldest and the newest rows by key; without a key, those at both ends of the file."""
        # A partition is a part of its table, and gives a part of the rows.
        rows = -(-self.rows // table.leaves)
        head, tail = rows - rows // 2, rows // 2
        of, name = _from(table), ident(table.name.name)
        if table.key:
            key = names(table.key)
            last = f"SELECT {key} FROM {of} ORDER BY {key} OFFSET {head - 1} LIMIT 1"
            down = ", ".join(f"{ident(column)} DESC" for column in table.key)
            first = f"SELECT {name}.* FROM {of} ORDER BY {key} LIMIT {head}"
            rest = f"SELECT {name}.* FROM {of} WHERE ({key}) > ({last}) ORDER BY {down} LIMIT {tail}"
        else:
            relation = literal(qualified(table.name.schema, table.name.name))
            blocks = f"pg_relation_size({relation}::regclass) / current_setting('block_size')::bigint"
            block = f"SELECT format('(%s,0)', greatest({blocks} - {tail}, 0))::tid"
            last = f"SELECT max(ctid) FROM (SELECT ctid FROM {of} LIMIT {head}) h"
            first = f"SELECT {name}.* FROM {of} LIMIT {head}"
            rest = f"SELECT {name}.* FROM {of} WHERE ctid >= ({block}) AND ctid > ({last})"
            rest += f" ORDER BY ctid DESC LIMIT {tail}"
        return f"(({first}) UNION ALL ({rest})) AS {name}"

    def _missing(self, key: ForeignKey) -> Iterator[str]:
        """Keys that rows of the copy refer to and the copy does not have, as JSON, some thousands at a time."""
        child, parent = self._tables[key.child], self._tables[key.parent]
        wanted = ", ".join(
            f"c.{ident(own)}::{child.columns[own].bare} AS k{place}" for place, (own, _) in enumerate(key.pairs)
        )
        # MATCH SIMPLE: a key with a NULL in it refers to nothing.
        whole = " AND ".join(f"c.{ident(own)} IS NOT NULL" for own, _ in key.pairs)
        same = " AND ".join(f"p.{ident(other)} = c.{ident(own)}" for own, other in key.pairs)
        found = self.here.execute(
            f"SELECT json_agg(k)::text FROM (SELECT d.*, (row_number() OVER () - 1) / {_BATCH} AS part FROM ("
            f"SELECT DISTINCT {wanted} FROM {_of(child)} c WHERE {whole}"
            f" AND NOT EXISTS (SELECT FROM {_of(parent)} p WHERE {same})) d) k GROUP BY part".encode()
        )
        for (keys,) in found.fetchall():
            yield str(keys)

    def _fetch(self, key: ForeignKey, keys: str) -> int:
        child, parent = self._tables[key.child], self._tables[key.parent]
        listed = ", ".join(f"k{place} {child.columns[own].bare}" for place, (own, _) in enumerate(key.pairs))
        same = " AND ".join(
            f"{expression(parent, other, self._rules, self._key)} = v.k{place}"
            for place, (_, other) in enumerate(key.pairs)
        )
        asked = f"EXISTS (SELECT FROM json_to_recordset({literal(keys)}) AS v({listed}) WHERE {same})"
        return self._stream(parent, f"{_from(parent)} WHERE {asked}")

    def _stream(self, table: SourceTable, rows: str) -> int:
        """Copy rows as they come; the source masks them, and nothing of them is looked at here."""
        if not table.stored:
            return 0
        out = f"COPY (SELECT {select_list(table, self._rules, self._key)} FROM {rows}) TO STDOUT"
        into = f"COPY {qualified(table.name.schema, table.name.name)}"
        into += f" ({names(column.name for column in table.stored)}) FROM STDIN"
        with self._told(table), self.here.cursor() as written:
            with self.there.cursor().copy(out.encode()) as reading, written.copy(into.encode()) as writing:
                for block in reading:
                    writing.write(block)
            return written.rowcount

    @contextmanager
    def _told(self, table: SourceTable) -> Iterator[None]:
        """Tell an error as what it means; never its details, for they quote rows."""
        try:
            yield
        except psycopg.errors.InsufficientPrivilege as error:
            raise _denied(table.name, error) from None
        except psycopg.errors.LockNotAvailable:
            raise Busy(
                f"{table.name} cannot be copied: another session holds a strong lock on it", hint="try again later"
            ) from None
        except psycopg.OperationalError as error:
            raise Unavailable(f"copying {table.name} broke off: {type(error).__name__}") from None
        except psycopg.Error as error:
            constraint = error.diag.constraint_name
            what = f"{type(error).__name__}{f' ({constraint})' if constraint else ''}"
            mask = next((rule for (oid, _), rule in self._rules.items() if oid == table.oid), None)
            if mask is None:
                raise Unavailable(f"rows of {table.name} cannot be copied: {what}") from None
            raise InvalidFile(
                f"rows of {table.name}, as masked, cannot be copied: {what}",
                path=mask.path,
                line=mask.line,
                hint="use `{sql: EXPRESSION}` with values that the table takes",
            ) from None


def _denied(name: object, error: psycopg.Error) -> Denied:
    if "row-level security" in str(error):
        return Denied(
            f"row security hides rows of {name} from us, so a copy would not be of the data as it stands",
            hint="rehearse with a role that has BYPASSRLS, or that owns the table",
        )
    return Denied(f"{name} cannot be copied: the role may not read it", hint=f"GRANT SELECT ON {name} to the role")


def _of(table: SourceTable) -> str:
    """The table's own rows; a partitioned table has none but those of its partitions."""
    name = qualified(table.name.schema, table.name.name)
    return name if table.kind == "p" else f"ONLY {name}"


def _from(table: SourceTable) -> str:
    return f"{_of(table)} AS {ident(table.name.name)}"


def one_search_path(there: Connection, here: Connection) -> None:
    """Look names up in the same schemas on both sides: types, functions and operators are not qualified."""
    row = there.execute("SELECT current_schemas(false)").fetchone()
    assert row is not None
    path = sql.SQL(", ").join(map(sql.Identifier, row[0] or [""]))
    for session in (there, here):
        session.execute(sql.SQL("SET search_path = {}").format(path))


def copy_sequences(there: Connection, here: Connection) -> None:
    """Set every sequence to where it stands on the source.

    Raises:
        Denied: The role may not read one.
    """
    found: Iterable[tuple[str, str]] = there.execute(_SEQUENCES).fetchall()
    reads = [
        sql.SQL("SELECT {}, last_value, is_called FROM {}").format(sql.Literal(qualified(*name)), sql.Identifier(*name))
        for name in found
    ]
    if not reads:
        return
    try:
        values = there.execute(sql.SQL(" UNION ALL ").join(reads)).fetchall()
    except psycopg.errors.InsufficientPrivilege as error:
        raise Denied(
            f"a sequence cannot be copied: {error.diag.message_primary}",
            hint="GRANT SELECT ON ALL SEQUENCES to the role",
        ) from None
    with here.cursor() as cursor:
        cursor.executemany("SELECT setval(%s::regclass, %s, %s)", values)
