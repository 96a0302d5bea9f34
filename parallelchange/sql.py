"""Composing SQL text: identifiers and literals are quoted here and nowhere else."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

__all__ = ["PINNED", "columns", "ident", "literal", "object_name", "qualified", "search_path"]

PINNED = {"timezone": "UTC", "datestyle": "ISO", "intervalstyle": "postgres", "extra_float_digits": "1"}
"""Settings under which one shape is computed from the other: not those of whoever happens to write."""

_LONGEST = 63  # NAMEDATALEN - 1: PostgreSQL cuts longer identifiers silently


_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_KEYWORDS = frozenset(
    """
all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation
column concurrently constraint create cross current_catalog current_date current_role current_schema current_time
current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze
from full grant group having ilike in initially inner intersect into is isnull join lateral leading left like
limit localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary
references returning right select session_user similar some symmetric system_user table tablesample then to
trailing true union unique user using variadic verbose when where window with
""".split()  # noqa: SIM905 - a list of a hundred words reads worse
)
"""Words PostgreSQL reserves, wholly or for types and functions (pg_get_keywords); a test asks the server."""


def ident(name: str) -> str:
    """Quote an identifier where it needs quoting, so that plans stay readable."""
    if _PLAIN.fullmatch(name) and name not in _KEYWORDS:
        return name
    from psycopg import sql

    return sql.Identifier(name).as_string(None)


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
    """Name an object of ours after what it belongs to; a hash keeps apart what would read the same."""
    whole = "_".join("".join(c if c.isalnum() else "_" for c in part.lower()) for part in parts)
    mark = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:6]
    return whole.encode()[: _LONGEST - len(mark) - 1].decode(errors="ignore") + "_" + mark
