"""A parallel change as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from parallelchange.model import TableName
from parallelchange.operations import Operation
from parallelchange.sessions import Client, Identity

__all__ = ["REHEARSAL_ROWS", "Bound", "Change", "Mask", "MetricsSpec", "Probe", "RehearsalSpec", "Traffic", "Version"]

REHEARSAL_ROWS = 20_000
"""Rows a rehearsal copy takes of each table, when the change file does not say."""


@dataclass(frozen=True)
class Bound:
    """A bound a figure is held against.

    Args:
        at_least: True for `>=`, False for `<=`.
        value: A share (0..1) for `%`, milliseconds for `ms` and `s`.
        text: As it was written.
    """

    at_least: bool
    value: float
    text: str

    def holds(self, figure: float) -> bool:
        """Whether the figure keeps the bound."""
        return figure >= self.value if self.at_least else figure <= self.value


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A version's own proof that it works: an HTTP check or a command.

    Args:
        url: Answered 200 when all is well; `{host}` stands for a ready copy of the version.
        command: Exits 0 when all is well; run with DATABASE_URL set, in the change file's folder.
        timeout: Seconds.
    """

    url: str | None = None
    command: str | None = None
    timeout: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Version:
    """One app version.

    Args:
        name: Its name.
        application_name: What its database sessions call themselves.
        statements: Corpus of the statements it sends, recorded from its tests.
        probe: Its own proof; None when the change file says there is none.
        build: Image or build digest; None when the workloads tell it.
        image: Container image that is this version, as Deployments name it; None to go by the pods' label.
        role: Database role of its sessions, whose privileges the rehearsal runs its statements with; None for ours.
        openapi: Its OpenAPI document.
    """

    name: str
    application_name: str | None
    statements: Path | None
    probe: Probe | None
    build: str | None
    image: str | None = None
    role: str | None = None
    openapi: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """How traffic moves.

    Args:
        router: Kind of router.
        service: The root service.
        stages: Weights in thousandths, growing, the last one 1000.
        soak: Seconds each stage is watched.
        drain: Seconds the old version is without traffic before it counts as drained.
        drain_timeout: Seconds to wait for the old version's sessions to end before giving up.
        layout: How Deployments and Services are named in the cluster.
    """

    router: str
    service: str
    stages: tuple[int, ...]
    soak: float
    drain: float
    drain_timeout: float
    layout: str = "azure"


@dataclass(frozen=True, kw_only=True)
class MetricsSpec:
    """What both versions' figures are held against.

    Args:
        success_rate: Bound on the share of requests that succeed.
        latency_p99: Bound on the 99th percentile, in milliseconds.
        window: Seconds looked back.
        min_requests: Fewer than that in the window prove nothing.
        prometheus: Address of the Prometheus that knows; None when the router's own way is used.
        queries: Whose metrics it holds: linkerd, istio, nginx or envoy.
        smi: Whether the cluster's metrics.smi-spec.io API tells, and not Prometheus.
    """

    success_rate: Bound
    latency_p99: Bound
    window: float
    min_requests: int
    prometheus: str | None = None
    queries: str = "linkerd"
    smi: bool = False


@dataclass(frozen=True, kw_only=True)
class Mask:
    """What stands in a column of the rehearsal copy instead of its values.

    Args:
        table: The table; its partitions are masked with it.
        column: The column.
        rule: `hash`, `null`, or `sql` for an expression over the row.
        expression: The expression; None for the other rules.
        path: The change file.
        line: The rule's line in it.
    """

    table: TableName
    column: str
    rule: str
    expression: str | None
    path: Path
    line: int | None


@dataclass(frozen=True, kw_only=True)
class RehearsalSpec:
    """What the rehearsal copy is made of.

    Args:
        rows: Rows taken of each table, besides those that their foreign keys need.
        mask: Columns whose values do not leave the database.
    """

    rows: int = REHEARSAL_ROWS
    mask: tuple[Mask, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Change:
    """One parallel change.

    Args:
        name: Its name.
        path: The change file.
        old: The version that serves now.
        new: The version the change leads to.
        database: Database operations.
        traffic: How traffic moves.
        metrics: What both versions are held against; None when the change file says there are none.
        rows_per_second: Upper limit of the backfill; None for none.
        max_age: Seconds after which evidence is stale.
        rehearsal: What the rehearsal copy is made of.
        clients: Database sessions that are neither version's and may be there all the same.
    """

    name: str
    path: Path
    old: Version
    new: Version
    database: tuple[Operation, ...]
    traffic: Traffic
    metrics: MetricsSpec | None
    rows_per_second: int | None
    max_age: float
    rehearsal: RehearsalSpec = field(default_factory=RehearsalSpec)
    clients: tuple[Client, ...] = ()
    lines: dict[str, int] = field(default_factory=dict, compare=False)

    @property
    def versions(self) -> tuple[Version, Version]:
        """Old and new."""
        return self.old, self.new

    @property
    def identities(self) -> tuple[Identity, Identity]:
        """By what the sessions of the old and of the new version are told."""
        old, new = (Identity(v.name, v.application_name, v.role) for v in self.versions)
        return old, new

    def line_of(self, *keys: str | int) -> int | None:
        """The line of a key in the change file, or of the nearest one above it."""
        for end in range(len(keys), 0, -1):
            line = self.lines.get(".".join(map(str, keys[:end])))
            if line:
                return line
        return None
