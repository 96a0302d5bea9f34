"""The values everything else is made of. Nothing here performs I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from decimal import Decimal, InvalidOperation
from enum import IntEnum, StrEnum
from typing import Any

__all__ = [
    "FULL",
    "Backfill",
    "Catalog",
    "Column",
    "Evidence",
    "EvidenceKey",
    "Finding",
    "GateResult",
    "Law",
    "Lock",
    "Phase",
    "Place",
    "Severity",
    "State",
    "Statement",
    "Table",
    "TableName",
    "Verdict",
    "combine",
    "digest",
    "format_weight",
    "parse_weight",
    "to_json",
]

FULL = 1000
"""The whole of the traffic, in thousandths."""


class Phase(StrEnum):
    """The three phases of a parallel change."""

    EXPAND = "expand"
    MIGRATE = "migrate"
    CONTRACT = "contract"


class State(StrEnum):
    """Where a change stands in the database, read off the schema itself."""

    BASE = "base"  # nothing of the change is there
    EXPANDED = "expanded"  # both shapes are there and kept in step
    CONTRACTED = "contracted"  # only the new shape is there
    PARTIAL = "partial"  # some objects of the change are there and some are not: nobody may go on


class Lock(IntEnum):
    """PostgreSQL's table locks, weakest first (manual, "Explicit Locking")."""

    NONE = 0
    ACCESS_SHARE = 1
    ROW_SHARE = 2
    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8

    @property
    def title(self) -> str:
        """The name as PostgreSQL's manual writes it, `-` for none."""
        return "-" if self is Lock.NONE else self.name.replace("_", " ")

    @property
    def mode(self) -> str:
        """The name as `pg_locks.mode` writes it: `AccessExclusiveLock`."""
        return "".join(part.capitalize() for part in self.name.split("_")) + "Lock"


class Severity(StrEnum):
    """How much a finding weighs."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Verdict(StrEnum):
    """What a gate says. Only `pass` lets anything advance."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    UNKNOWN = "unknown"


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """Join verdicts: any fail is a fail, then any unknown is unknown; of nothing at all nothing is known."""
    found = set(verdicts)
    if Verdict.FAIL in found:
        return Verdict.FAIL
    if Verdict.UNKNOWN in found or not found:
        return Verdict.UNKNOWN
    return Verdict.PASS


@dataclass(frozen=True)
class Finding:
    """One thing a gate or a check has to say.

    Args:
        id: Stable name of the kind of finding, `laws.broken`.
        severity: `error` blocks, `warning` and `info` do not.
        message: What was found, in one sentence.
        where: The object, file and line, or version it was found at.
        remedy: What to do about it.
    """

    id: str
    severity: Severity
    message: str
    where: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class GateResult:
    """A gate's verdict, with what it was found on.

    Args:
        gate: The gate's id.
        verdict: What it says.
        findings: Why.
        version: The app version it speaks of; None when it speaks of the data or the change.
        measured: Figures behind the verdict, for people and reports.
    """

    gate: str
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    version: str | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class TableName:
    """A table with its schema."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> TableName:
        """Read `table` or `schema.table`; without a schema it is `public`."""
        schema, _, name = text.rpartition(".")
        return cls(schema or "public", name)


@dataclass(frozen=True)
class Column:
    """One column as the catalog tells it.

    Args:
        name: Its name.
        type: Its type as `format_type` writes it.
        nullable: Whether it accepts NULL.
        default: Its default expression, or the expression of a generated column.
        generated: Whether the server computes it from other columns.
        identity: Whether it is an identity column.
    """

    name: str
    type: str
    nullable: bool = True
    default: str | None = None
    generated: bool = False
    identity: bool = False


@dataclass(frozen=True)
class Table:
    """One table as the catalog tells it.

    Args:
        name: Schema and name.
        columns: In attribute order.
        primary_key: Column names, empty when there is none.
        dependents: Per column, what besides the table itself would fall with it (indexes, constraints, views).
        triggers: Our triggers on it by name, each with whether it is enabled and the md5 of its function's body.
        later_triggers: BEFORE row triggers of others that fire after ours.
        children: Tables that inherit from it.
        incarnation: Oids of our triggers: another one after every expand.
        rows: The planner's estimate; None when the table was never analysed.
        kind: `r` ordinary, `p` partitioned, `f` foreign, `v` view.
    """

    name: TableName
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    dependents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    triggers: Mapping[str, tuple[bool, str]] = field(default_factory=dict)
    later_triggers: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    incarnation: str = ""
    rows: int | None = None
    kind: str = "r"

    def column(self, name: str) -> Column | None:
        """The column of that name, or None."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True)
class Catalog:
    """The tables a change speaks of, as they stand.

    Args:
        tables: By name; a table that does not exist is not in here.
        fingerprint: sha256 over the whole user schema of the database.
        server_version: As `server_version_num` has it, 180004.
        types: A type as people write it to its name as `format_type` writes it; unknown types are left out.
    """

    tables: Mapping[TableName, Table]
    fingerprint: str
    server_version: int
    types: Mapping[str, str] = field(default_factory=dict)

    def table(self, name: TableName) -> Table | None:
        """The table of that name, or None."""
        return self.tables.get(name)


@dataclass(frozen=True)
class Statement:
    """One SQL statement of a plan.

    Args:
        sql: The statement, without a final semicolon.
        lock: The strongest lock it takes on `table`.
        table: The table it locks; None when it locks none.
        why: What it is for, in a phrase.
    """

    sql: str
    lock: Lock
    table: TableName | None
    why: str


@dataclass(frozen=True)
class Backfill:
    """A pass over one table that fills the new shape where it is still empty.

    Args:
        table: The table.
        key: The columns that order the pass: a unique, not-null key.
        assign: New column to SQL expression over the old shape.
        unfilled: SQL condition that is true for the rows still to fill, and for no row a version has written.
    """

    table: TableName
    key: tuple[str, ...]
    assign: Mapping[str, str]
    unfilled: str

    @property
    def id(self) -> str:
        """Name of this pass in the ledger."""
        return f"{self.table}:{','.join(self.assign)}"


@dataclass(frozen=True)
class Law:
    """A statement that must hold for every row while both shapes live (§5 of the design).

    Args:
        id: Stable name, `customers.name`.
        table: The table it speaks of.
        holds: SQL condition over the expanded table; anything but TRUE breaks the law.
        foretold: SQL condition over the table before expand, the new shape computed from the old.
        derived: For `foretold`: new column to the expression it is computed by.
        shows: Columns worth showing of a row that breaks it.
        says: The law in words.
    """

    id: str
    table: TableName
    holds: str
    foretold: str
    derived: Mapping[str, str]
    shows: tuple[str, ...]
    says: str


class Place(StrEnum):
    """Which database a verdict was measured on."""

    LIVE = "live"  # the shared database, by `verify`
    COPY = "copy"  # a scratch copy of it, by `rehearse`


@dataclass(frozen=True)
class EvidenceKey:
    """What a verdict was measured on. If any part differs from what is live now, the evidence is stale.

    Args:
        change: The change's name.
        version: App version; `*` for what speaks of the data or the change.
        gate: The gate's id.
        build: Digest of what ran as the version.
        fingerprint: Of the schema it was measured on.
        statements: sha256 of the version's corpus.
        plan: Digest of the plan.
        spec: sha256 of the version's OpenAPI document; empty where it has none.
        incarnation: Which expand it was whose objects were there; empty on a copy, whose objects are its own.
        place: The live database or a copy.
    """

    change: str
    version: str
    gate: str
    build: str
    fingerprint: str
    statements: str
    plan: str
    spec: str = ""
    incarnation: str = ""
    place: Place = Place.LIVE


@dataclass(frozen=True)
class Evidence:
    """A recorded verdict and what it was measured on.

    Args:
        key: What it was measured on.
        result: The verdict.
        measured_at: Seconds since the epoch, by the database's clock.
        run: Id shared by all evidence of one rehearsal or verification.
        state: The state of the schema it was measured in.
        source: Where it comes from when not from here: `imported`, and the key that vouched for it.
    """

    key: EvidenceKey
    result: GateResult
    measured_at: float
    run: str
    state: State
    source: str = ""


def parse_weight(text: str | float) -> int:
    """Read a share of traffic, `12.5%` or `0.125`, into thousandths.

    Raises:
        ValueError: It is no share, is outside 0..100 %, or is finer than a thousandth.
    """
    raw = str(text).strip()
    try:
        share = Decimal(raw[:-1]) / 100 if raw.endswith("%") else Decimal(raw)
    except InvalidOperation:
        raise ValueError(f"{raw!r} is no share of traffic; write it as 12.5% or 0.125") from None
    except ArithmeticError:
        raise ValueError(f"{raw[:20]} is outside 0%..100%; write a share as 12.5% or 0.125") from None
    if not share.is_finite() or not 0 <= share <= 1:
        raise ValueError(f"{raw} is outside 0%..100%; write a share as 12.5% or 0.125")
    if share * FULL != int(share * FULL):
        raise ValueError(f"{raw} is finer than a thousandth (0.1%), which no traffic split can express")
    return int(share * FULL)


def format_weight(weight: int) -> str:
    """Write thousandths as people read them: 125 is `12.5%`."""
    return f"{weight / 10:g}%"


def to_json(value: Any) -> Any:
    """Turn values into what `json.dumps` takes; dataclasses into objects, keys into strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item) for item in value]
    return value


def digest(value: Any) -> str:
    """sha256 over a value's canonical JSON."""
    text = json.dumps(to_json(value), sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
