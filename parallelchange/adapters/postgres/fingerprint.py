"""A fingerprint of the schema: it changes with everything that can change what a statement does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.sql import PINNED

__all__ = ["digest_of", "fingerprint", "schema_lines"]

# Definitions are printed by these settings; set here, they are the same for every session. Compiling a query that
# takes some hundredths of a second would take longer than running it.
_SETTINGS = {
    **PINNED,
    "search_path": "",
    "quote_all_identifiers": "off",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "jit": "off",
}
_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n"})


@cache
def _query() -> bytes:
    return Path(__file__).with_name("fingerprint.sql").read_bytes()


def schema_lines(connection: Connection) -> list[str]:
    """What the schema is, one line for each of its parts, sorted; what two databases differ in can be read off them.

    Args:
        connection: A session; its privileges do not matter.

    Returns:
        The lines. Values of settings and options that may be secret are in them as md5.
    """
    names, values = list(_SETTINGS), list(_SETTINGS.values())
    with connection.transaction(force_rollback=True):
        connection.execute("SELECT set_config(n, v, true) FROM unnest(%s::text[], %s::text[]) s(n, v)", (names, values))
        rows = connection.execute(_query()).fetchall()
    return sorted(str(line).translate(_ESCAPED) for (line,) in rows)


def fingerprint(connection: Connection) -> str:
    """sha256 over the lines of the schema."""
    return digest_of(schema_lines(connection))


def digest_of(lines: Iterable[str]) -> str:
    """The fingerprint of a schema whose lines are known."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
