"""The change file as it is written: its keys, their types and their defaults, and its JSON Schema.

Kept apart from `Change`, which holds the values as the code wants them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from parallelchange.change import REHEARSAL_ROWS
from parallelchange.operations import ChangeType, RenameColumn, SetNotNull, SplitColumn

__all__ = [
    "BackfillFile",
    "ChangeFile",
    "ClientFile",
    "EvidenceFile",
    "MetricsFile",
    "OperationFile",
    "ProbeFile",
    "RehearsalFile",
    "SqlMaskFile",
    "TrafficFile",
    "VersionFile",
    "VersionsFile",
    "json_schema",
]

_CLOSED = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class ProbeFile:
    """A URL to GET or a command to run."""

    __pydantic_config__ = _CLOSED
    url: str | None = None
    command: str | None = None
    timeout: str = "30s"


@dataclass(frozen=True, kw_only=True)
class VersionFile:
    """One app version: its name, how its sessions are told, and its proofs."""

    __pydantic_config__ = _CLOSED
    name: str
    application_name: str | None = None
    statements: str | None = None
    probe: ProbeFile | Literal["none"] | None = None
    build: str | None = None
    image: str | None = None
    role: str | None = None
    openapi: str | None = None


@dataclass(frozen=True, kw_only=True)
class VersionsFile:
    """The version that serves now and the one the change leads to."""

    __pydantic_config__ = _CLOSED
    old: VersionFile
    new: VersionFile


@dataclass(frozen=True, kw_only=True)
class OperationFile:
    """One operation, under the name of its kind."""

    __pydantic_config__ = _CLOSED
    split_column: SplitColumn | None = None
    rename_column: RenameColumn | None = None
    change_type: ChangeType | None = None
    set_not_null: SetNotNull | None = None


@dataclass(frozen=True, kw_only=True)
class TrafficFile:
    """Where and in which steps traffic moves."""

    __pydantic_config__ = _CLOSED
    service: str
    router: Literal["local", "smi", "gateway-api", "nginx", "istio", "flagd"] = "local"
    layout: Literal["azure", "k8s-deploy"] = "azure"
    stages: list[str | float] = field(default_factory=lambda: ["5%", "25%", "50%", "100%"])
    soak: str = "2m"
    drain: str = "60s"
    drain_timeout: str = "5m"


@dataclass(frozen=True, kw_only=True)
class MetricsFile:
    """Bounds that both versions must keep."""

    __pydantic_config__ = _CLOSED
    success_rate: str = ">= 99%"
    latency_p99: str = "<= 500ms"
    window: str | None = None
    min_requests: int = 20
    prometheus: str | None = None
    queries: Literal["linkerd", "istio", "nginx", "envoy"] | None = None
    smi: bool = False


@dataclass(frozen=True, kw_only=True)
class BackfillFile:
    """Limits of the backfill."""

    __pydantic_config__ = _CLOSED
    rows_per_second: int | None = None


@dataclass(frozen=True, kw_only=True)
class EvidenceFile:
    """How long a proof counts."""

    __pydantic_config__ = _CLOSED
    max_age: str = "1h"


@dataclass(frozen=True, kw_only=True)
class SqlMaskFile:
    """An expression over the row."""

    __pydantic_config__ = _CLOSED
    sql: str


@dataclass(frozen=True, kw_only=True)
class RehearsalFile:
    """What the rehearsal copy is made of."""

    __pydantic_config__ = _CLOSED
    rows: int = REHEARSAL_ROWS
    mask: dict[str, Literal["hash", "null"] | SqlMaskFile | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClientFile:
    """Database sessions of neither version, by name (`*` for any text), role and network; all given must fit."""

    __pydantic_config__ = _CLOSED
    application_name: str | None = None
    role: str | None = None
    address: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChangeFile:
    """A parallel change: what changes, between which versions, and how traffic moves."""

    __pydantic_config__ = _CLOSED
    change: str
    versions: VersionsFile
    database: list[OperationFile]
    traffic: TrafficFile
    metrics: MetricsFile | Literal["none"] = field(default_factory=MetricsFile)
    backfill: BackfillFile = field(default_factory=BackfillFile)
    evidence: EvidenceFile = field(default_factory=EvidenceFile)
    rehearsal: RehearsalFile = field(default_factory=RehearsalFile)
    clients: list[str | ClientFile] = field(default_factory=list)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of change files, which editors complete from."""
    from pydantic import TypeAdapter

    text = json.dumps(TypeAdapter(ChangeFile).json_schema())
    schema = json.loads(re.sub(r"\b(\w+)File\b", r"\1", text))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "parallelchange change file",
    }
