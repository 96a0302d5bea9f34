"""Composing SQL text: identifiers and literals are quoted here and nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache

__all__ = ["PINNED", "columns", "ident", "literal", "object_name", "qualified", "search_path"]

PINNED = {"timezone": "UTC", "datestyle": "ISO", "intervalstyle": "postgres", "extra_float_digits": "1"}
"""Settings under which one shape is computed from the other: not those of whoever happens to write."""

_LONGEST = 63  # NAMEDATALEN - 1: PostgreSQL cuts longer identifiers silently


@cache
def ident(name: str) -> str:
    """Quote an identifier where it needs quoting, so that plans stay readable."""
    from sqlalchemy.dialects import postgresql

    return postgresql.dialect().identifier_preparer.quote(name)  # type: ignore[no-untyped-call]


def qualified(schema: str, name: str) -> str:
    """Quote `schema.name`."""
    return f"{ident(schema)}.{ident(name)}"


def columns(names: Iterable[str], *, of: str | None = None) -> str:
    """Quote column names as a list; `of` prefixes each with a row's or table's alias."""
    return ", ".join(f"{of}.{ident(name)}" if of else ident(name) for name in names)


def search_path(schema: str) -> str:
    """Where the change file's expressions look things up: the server's own first, then the table's, then public."""
    return ", ".join(dict.fromkeys(("pg_catalog", ident(schema), "public")))


def literal(text: str) -> str:
    """Quote a string literal."""
    from psycopg import sql

    return sql.Literal(text).as_string(None).strip()


def object_name(*parts: str) -> str:
    """Name an object of ours after what it belongs to; a long name keeps its end apart by a hash."""
    whole = "_".join("".join(c if c.isalnum() else "_" for c in part.lower()) for part in parts)
    if len(whole.encode()) <= _LONGEST:
        return whole
    mark = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return whole.encode()[: _LONGEST - 9].decode(errors="ignore") + "_" + mark
