"""Whether a copy came out like the database it was made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.adapters.postgres.fingerprint import digest_of, schema_lines
from parallelchange.errors import Busy

__all__ = ["Likeness", "likeness"]

_LEFT_OUT = ("role ", "user mapping ")
"""What a copy has otherwise on purpose: superusers and passwords for other servers."""
_MAJOR = 10_000


@dataclass(frozen=True)
class Likeness:
    """A copy beside the database it was made of.

    Args:
        fingerprint: The database's.
        differences: What the copy has otherwise, as `+ line` and `- line`; empty where the two cannot be compared.
        versions: Major versions of the database's server and of the copy's.
    """

    fingerprint: str
    differences: tuple[str, ...]
    versions: tuple[int, int]


def likeness(source: Connection, copy: Connection, before: Sequence[str]) -> Likeness:
    """Hold a copy against its database.

    Servers of two major versions print the same definition in two ways, so that only like ones can be compared.

    Args:
        source: The database.
        copy: The copy, as it was made.
        before: The database's schema before it was copied, as `schema_lines` tells it.

    Raises:
        Busy: The schema changed while it was copied.
    """
    if schema_lines(source) != list(before):
        raise Busy("the schema changed while it was copied", hint="run it again when nobody migrates")
    there, here = (connection.info.server_version // _MAJOR for connection in (source, copy))
    told: list[str] = []
    if there == here:
        wanted, found = (Counter(filter(_counts, lines)) for lines in (before, schema_lines(copy)))
        told = [f"+ {line}" for line in (found - wanted).elements()]
        told += [f"- {line}" for line in (wanted - found).elements()]
    return Likeness(digest_of(before), tuple(sorted(told, key=lambda line: line[2:])), (there, here))


def _counts(line: str) -> bool:
    return not line.startswith(_LEFT_OUT)
