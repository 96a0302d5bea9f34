"""Plans as `EXPLAIN (FORMAT JSON)` tells them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.gates.prepare import PlanFact

__all__ = ["LARGE", "Storage", "read_plan", "read_storage"]

LARGE = 10_000
"""Rows from which on a table that is read from end to end is worth a word, by the planner's own estimate."""

_LONGEST = 1_000
_STORAGE = """
SELECT c.relname::text, c.relkind IN ('i', 'I') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'parallelchange')
  AND (c.relkind IN ('i', 'I') OR (c.relkind IN ('r', 'm') AND c.reltuples >= %s))
"""


@dataclass(frozen=True)
class Storage:
    """What there is to read from.

    Args:
        large: Names of the large tables.
        indexes: Names of all indexes.
    """

    large: frozenset[str]
    indexes: frozenset[str]


def read_storage(connection: Connection) -> Storage:
    """The large tables and the indexes, as they stand."""
    rows = connection.execute(_STORAGE, (LARGE,)).fetchall()
    return Storage(
        frozenset(name for name, index in rows if not index), frozenset(name for name, index in rows if index)
    )


def read_plan(document: bytes, storage: Storage) -> PlanFact:
    """Read a plan.

    Args:
        document: As the server wrote it.
        storage: What it reads from.
    """
    roots = [item["Plan"] for item in json.loads(document) if "Plan" in item]
    nodes = [node for root in roots for node in _nodes(root)]
    tables = {str(node["Relation Name"]) for node in nodes if "Relation Name" in node}
    scans = {str(node["Relation Name"]) for node in nodes if node["Node Type"] == "Seq Scan"}
    indexes = {str(node["Index Name"]) for node in nodes if "Index Name" in node}
    text = "; ".join(map(_shown, roots)) or "nothing is done"
    return PlanFact(
        f"{text[: _LONGEST - 1]}…" if len(text) > _LONGEST else text,
        tuple(sorted(indexes)),
        tuple(sorted(scans & storage.large)),
        large=not tables.isdisjoint(storage.large),
        existing=storage.indexes,
    )


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _shown(node: dict[str, Any]) -> str:
    """A node and what it reads from, in its brackets."""
    words = [str(node["Node Type"])]
    if "Index Name" in node:
        words.append(f"using {node['Index Name']}")
    if "Relation Name" in node:
        words.append(f"on {node['Relation Name']}")
    children = ", ".join(map(_shown, node.get("Plans", ())))
    return " ".join(words) + (f" ({children})" if children else "")
