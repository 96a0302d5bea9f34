"""What the rollout needs of the world, as narrow Protocols. Adapters implement them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from parallelchange.calls import Counts
from parallelchange.change import Version
from parallelchange.gates.laws import LawFact
from parallelchange.gates.prepare import StatementFact
from parallelchange.gates.probe import ProbeFact
from parallelchange.model import Catalog, Evidence, Phase, State
from parallelchange.sessions import Connected

__all__ = [
    "Applied",
    "Clock",
    "Database",
    "Enforcement",
    "Lead",
    "Ledger",
    "Metrics",
    "Prober",
    "Progress",
    "Record",
    "Router",
    "Sample",
    "Split",
    "Workloads",
]


@dataclass(frozen=True)
class Split:
    """A traffic split as it was read.

    Args:
        name: Full name of the object, for messages.
        weight: The canary's share in thousandths.
        resource_version: Token for compare-and-swap.
        backends: Backend service to its share in thousandths.
        untold: Why it cannot be told whose a share is; then `weight` counts that share in. Empty when it can.
        break_glass: The reason somebody gave for writing it past the policies; empty when nobody did.
    """

    name: str
    weight: int
    resource_version: str
    backends: Mapping[str, int]
    untold: str = ""
    break_glass: str = ""


class Router(Protocol):
    """What moves traffic."""

    def get(self) -> Split:
        """Read the split as it stands.

        Raises:
            Unavailable: It cannot be read or is not there. Never answered with a guess.
        """

    def set(self, weight: int, *, resource_version: str) -> Split:
        """Set the canary's weight, if the split is still the one that was read.

        Args:
            weight: Thousandths.
            resource_version: As read by `get`.

        Raises:
            Busy: The split changed since; nothing was written.
            Blocked: The API server's policies refuse it; nothing was written.
            Uncertain: It may or may not be written.
            Unavailable: It cannot be written.
        """

    def settled(self, split: Split) -> bool:
        """Whether the mesh is seen to route by this split."""

    def problems(self) -> tuple[str, ...]:
        """Why the backends could not take a growing share, in sentences; empty when they could."""

    def owners(self) -> tuple[str, ...]:
        """Who else writes the object that splits the traffic."""

    def describe(self) -> Mapping[str, Any]:
        """The object and its backends, for people and for `--json`."""


class Enforcement(Protocol):
    """What holds others to what the gates have approved."""

    def allow(self, weight: int, *, until: float | None = None) -> None:
        """Let the split be written with a canary share up to that weight, and not above.

        Args:
            weight: Thousandths.
            until: When that ends and what stood before holds again, seconds since the epoch; None: it stands.
        """

    def release(self) -> None:
        """Nothing old may come back any more: everything may be deleted."""


class Lead(Protocol):
    """Being the one process that runs the rollout."""

    def check(self) -> None:
        """Make sure that it is still ours.

        Raises:
            Busy: It is not, or may not be.
        """


class Workloads(Protocol):
    """The running copies of the two versions."""

    def build(self, version: str) -> str | None:
        """Digest of what runs as this version; None when nothing tells."""

    def ready(self, version: str) -> int | None:
        """Number of copies that are ready; None when it cannot be told."""

    def wanted(self, version: str) -> int | None:
        """Number of copies that are asked for, whether they start or not; None when it cannot be told."""

    def others(self) -> tuple[str, ...] | None:
        """What runs behind the Service and its backends and is neither version; None when it cannot be told."""

    def address(self, version: str) -> str | None:
        """`host:port` of one ready copy; None when there is none."""

    def scale(self, version: str, replicas: int) -> None:
        """Ask for that many copies.

        Raises:
            Unavailable: Nobody here can.
        """


@dataclass(frozen=True)
class Sample:
    """What one version served in a window.

    Args:
        version: App version.
        requests: Number of answered requests.
        failures: How many of them failed (5xx or no answer).
        p99_ms: 99th percentile of latency in milliseconds; None when nothing was served.
        window: Length of the window in seconds.
        age: Seconds since the newest reading.
    """

    version: str
    requests: int
    failures: int
    p99_ms: float | None
    window: float
    age: float


class Metrics(Protocol):
    """Where success rate and latency come from."""

    def read(self, version: str, window: float) -> Sample | None:
        """What the version served in the last `window` seconds; None when nothing can be told."""


class Clock(Protocol):
    """Time, so that tests need not wait for it."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


@dataclass(frozen=True)
class Record:
    """What the ledger holds of one change.

    Args:
        change: Its name.
        fence: Grows with every write; a writer with an older number is refused.
        weight: The share we last set, in thousandths; None before the first time.
        weight_since: When it was set, seconds since the epoch.
        pending: The act that was begun and whose outcome is not yet recorded, with its details.
        contracted_at: When contraction was committed.
        aborted: Why the change was aborted; None when it was not.
        backfills: Per pass: {"cursor", "rows", "total", "finished", "incarnation"}.
        old_seen: Whether the old version's sessions were ever seen under the name it declares.
        aborts: How often an abort was begun.
        calls: What the server had counted of the old version's statements, see `calls.next_sample`.
    """

    change: str
    fence: int
    weight: int | None = None
    weight_since: float | None = None
    pending: Mapping[str, Any] | None = None
    contracted_at: float | None = None
    aborted: str | None = None
    backfills: Mapping[str, Mapping[str, Any]] | None = None
    old_seen: bool = False
    aborts: int = 0
    calls: Mapping[str, Any] | None = None


class Ledger(Protocol):
    """The toolkit's own tables in the shared database."""

    def fenced(self) -> AbstractContextManager[None]:
        """Hold the change's advisory lock; `Busy` when another process holds it."""

    def read(self) -> Record | None:
        """What is recorded; None when the ledger or the change is not there yet."""

    def intend(self, act: str, **detail: Any) -> None:
        """Record what is about to be done, before it is done."""

    def settle(self, act: str, outcome: str, **detail: Any) -> None:
        """Record the outcome of the pending act (`done`, `failed`, `void`) and what it changed."""

    def saw_old(self) -> None:
        """Record that the old version's sessions have been seen under the name it declares."""

    def keep_calls(self, sample: Mapping[str, Any]) -> None:
        """Record what the server has counted of the old version's statements."""

    def add_evidence(self, evidence: Sequence[Evidence]) -> None:
        """Keep verdicts; `Tampered` when what was kept before is not what was written."""

    def evidence(self) -> Sequence[Evidence]:
        """The newest evidence per (version, gate, state, place), newest first; `Tampered` as for `add_evidence`."""

    def schema_changes(self, fingerprint: str) -> tuple[str, ...] | None:
        """What differs in the schema now from the one of a fingerprint, as `+ …` and `- …`; None when not known."""


@dataclass(frozen=True)
class Applied:
    """What became of a phase.

    Args:
        seconds: From the first statement to the end of the commit.
        exclusive_seconds: The longest time an ACCESS EXCLUSIVE lock was held.
        attempts: How often it was tried before the locks were to be had.
    """

    seconds: float
    exclusive_seconds: float
    attempts: int


class Database(Protocol):
    """The shared database, as the rollout of one change sees it."""

    def catalog(self) -> Catalog:
        """The change's tables and the schema's fingerprint, as they stand."""

    def revision_problems(self, state: State) -> tuple[str, ...]:
        """What is wrong with the revision files, or with what Alembic has recorded, in that state."""

    def apply(
        self,
        phase: Phase,
        *,
        checks: Callable[[Database], None] | None = None,
        last_check: Callable[[Database], None] | None = None,
    ) -> Applied:
        """Run a phase's revision in one transaction.

        Args:
            phase: The phase.
            checks: Called first, with this database as the transaction sees it; raises to refuse.
            last_check: Called the same way before the commit, under the revision's locks; raises to refuse.

        Raises:
            Busy: The locks were not to be had.
        """

    def revert(self, *, checks: Callable[[Database], None] | None = None) -> Applied:
        """Undo expand, and migrate where it was applied, in one transaction; `checks` as for `apply`.

        Raises:
            Busy: The locks were not to be had.
        """

    def relax(self) -> None:
        """Undo migrate, where it was applied: the old version may be about to write again."""

    def backfill(self, progress: Progress) -> None:
        """Fill the new shape; goes on where an earlier run stopped."""

    def laws(self, state: State) -> Sequence[LawFact]:
        """Hold the laws against every row; before expand, foretold."""

    def statements(self, version: Version, *, on_copy: bool = False) -> Sequence[StatementFact] | None:
        """Prepare and plan a version's recorded statements; nothing is executed.

        Args:
            version: The version; its role's view of names holds.
            on_copy: Whether this is a scratch copy. On a database that serves, no statement is asked about whose
                preparing would take a lock stronger than ACCESS SHARE.

        Returns:
            A fact for each statement; None without a corpus.

        Raises:
            Busy: A lock was not to be had.
            Unavailable: The version's role is not there.
        """

    def connected(self) -> Connected:
        """Who is connected, and what else may write."""

    def calls(self, watched: frozenset[str]) -> Counts | None:
        """What the server has counted of these statements; None where it counts none."""

    def now(self) -> float:
        """The database's clock, seconds since the epoch."""


class Prober(Protocol):
    """Asks a version for its own proof."""

    def probe(self, version: Version, address: str | None) -> ProbeFact:
        """Run the version's probe against one of its copies."""


class Progress(Protocol):
    """Told how long work goes on."""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """`done` of `total` rows (None when unknown) of `what`."""
