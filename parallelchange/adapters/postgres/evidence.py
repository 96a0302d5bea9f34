"""Evidence in the ledger: rows that are linked by their hashes, and what the schemas were that it was measured on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.adapters.postgres.fingerprint import digest_of, schema_lines
from parallelchange.errors import Tampered, Unavailable
from parallelchange.evidence import about, body, from_body, genesis, link, micros, supersedes
from parallelchange.model import Evidence

__all__ = ["append_evidence", "keep_schema", "read_evidence", "reset_evidence", "schema_changes"]

# The server follows the whole chain. Bytes are taken as they are stored: a text of ours is ASCII in any encoding.
_CHAIN = """
WITH chain AS MATERIALIZED (
  SELECT id, about, at, hash, previous,
    lag(id) OVER (ORDER BY id) AS id_before, lag(hash, 1, %(genesis)s) OVER (ORDER BY id) AS hash_before,
    encode(sha256(convert_to(previous || body, getdatabaseencoding())), 'hex') AS found,
    starts_with(body, format('{"about":%%s,"at":%%s,', about, at)) AS agrees
  FROM parallelchange.evidence WHERE change = %(change)s
), broken AS (
  SELECT id, CASE
      WHEN hash IS DISTINCT FROM found THEN 'is not what was written'
      WHEN agrees IS NOT true THEN 'is filed under what its text does not say'
      ELSE format('does not follow %%s: a row was removed, inserted or moved', coalesce('row ' || id_before, 'nothing'))
    END AS what
  FROM chain
  WHERE hash IS DISTINCT FROM found OR agrees IS NOT true OR previous IS DISTINCT FROM hash_before
  ORDER BY id LIMIT 1
), ends AS (
  SELECT (SELECT id FROM chain ORDER BY id DESC LIMIT 1) AS id,
    (SELECT hash FROM chain ORDER BY id DESC LIMIT 1) AS hash,
    (SELECT evidence_head FROM parallelchange.change WHERE name = %(change)s) AS head
), newest AS (
  SELECT DISTINCT ON (about) id FROM chain ORDER BY about, at DESC, id DESC
)
SELECT 'broken', id, what FROM broken
UNION ALL
SELECT 'head', id, coalesce('row ' || id || ' is the last', 'no row is there') FROM ends
WHERE hash IS DISTINCT FROM head
UNION ALL
(SELECT 'newest', e.id, e.body FROM newest JOIN parallelchange.evidence e USING (id) ORDER BY e.at DESC, e.id DESC)
"""


def read_evidence(connection: Connection, change: str) -> list[Evidence]:
    """The newest verdict per gate, version, state and place, newest first.

    Args:
        connection: A session on a database with a ledger.
        change: The change's name.

    Raises:
        Tampered: A row is not what was written, or one is missing, or one too many.
    """
    values = {"change": change, "genesis": genesis(change)}
    found: list[Evidence] = []
    for kind, row, text in connection.execute(_CHAIN, values):
        if kind == "broken":
            raise _tampered(change, f"row {row} {text}")
        if kind == "head":
            raise _tampered(change, f"{text}, and not what was written last")
        try:
            item = from_body(text)
        except ValueError as error:
            raise _tampered(change, f"row {row} cannot be read: {error}") from None
        if item.key.change != change:
            raise _tampered(change, f"row {row} is of another change")
        found.append(item)
    return found


def _tampered(change: str, what: str) -> Tampered:
    return Tampered(
        f"the evidence of {change} in parallelchange.evidence was changed by somebody else: {what}",
        hint=f"find out who; `parallelchange evidence reset {change} --reason …` starts anew, with nothing proven",
    )


def append_evidence(connection: Connection, change: str, evidence: Sequence[Evidence]) -> list[Evidence]:
    """Add rows to the chain, inside a transaction that has just begun.

    Imported evidence that is not newer than what is known of the same thing is left out.

    Returns:
        What was added.

    Raises:
        Tampered: The chain is broken.
        Unavailable: The ledger does not know the change.
    """
    # The row's lock keeps two writers from following the same row.
    row = connection.execute(
        "SELECT evidence_head FROM parallelchange.change WHERE name = %s FOR UPDATE", (change,)
    ).fetchone()
    if row is None:
        raise Unavailable(f"the ledger does not know {change}", hint="run the command again")
    known = {about(item): item for item in read_evidence(connection, change)}
    kept = [item for item in evidence if not item.source or supersedes(item, known.get(about(item)))]
    head, rows = row[0] or genesis(change), []
    for item in kept:
        text = body(item)
        previous, head = head, link(head, text)
        rows.append((change, about(item), micros(item.measured_at), text, previous, head))
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO parallelchange.evidence (change, about, at, body, previous, hash)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                rows,
            )
        connection.execute("UPDATE parallelchange.change SET evidence_head = %s WHERE name = %s", (head, change))
    return kept


def reset_evidence(connection: Connection, change: str) -> int:
    """Forget all evidence of a change, inside a transaction; gives the number of rows."""
    connection.execute("UPDATE parallelchange.change SET evidence_head = NULL WHERE name = %s", (change,))
    return connection.execute("DELETE FROM parallelchange.evidence WHERE change = %s", (change,)).rowcount


def keep_schema(connection: Connection, fingerprint: str | None) -> None:
    """Remember what the schema's fingerprint is taken of now, to tell later what differs.

    Args:
        connection: A session.
        fingerprint: What the schema is thought to be; nothing is done where that is remembered. None: look anyway.
    """
    asked = "SELECT FROM parallelchange.schema WHERE fingerprint = %s"
    if fingerprint is not None and connection.execute(asked, (fingerprint,)).fetchone() is not None:
        return
    lines = schema_lines(connection)
    connection.execute(
        "INSERT INTO parallelchange.schema (fingerprint, lines) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (digest_of(lines), json.dumps(lines)),
    )


def schema_changes(connection: Connection, fingerprint: str) -> tuple[str, ...] | None:
    """What differs in the schema now from the one of a fingerprint, as `+ line` and `- line`.

    Returns:
        The lines in order; None where that schema is not remembered.
    """
    row = connection.execute(
        "SELECT lines FROM parallelchange.schema WHERE fingerprint = %s", (fingerprint,)
    ).fetchone()
    if row is None:
        return None
    try:
        before = [str(line) for line in json.loads(row[0])]
    except (ValueError, TypeError):
        return None
    if digest_of(before) != fingerprint:
        return None  # somebody changed it: it tells nothing
    then, now = Counter(before), Counter(schema_lines(connection))
    told = [*(("+", line) for line in (now - then).elements()), *(("-", line) for line in (then - now).elements())]
    return tuple(f"{sign} {line}" for sign, line in sorted(told, key=lambda one: (one[1], one[0])))
