"""The gates, one file each."""

from parallelchange.gates import (
    backfill,
    copies,
    drained,
    laws,
    metrics,
    probe,
    rehearsal,
    routing,
    schema,
    soak,
    statements,
)
from parallelchange.gates.base import Act, Gate

__all__ = ["EVIDENCE", "GATES", "Act", "Gate", "guarding"]

GATES: dict[str, Gate] = {
    gate.id: gate
    for gate in (
        schema.GATE,
        rehearsal.GATE,
        statements.GATE,
        laws.GATE,
        backfill.GATE,
        copies.GATE,
        routing.GATE,
        probe.GATE,
        metrics.GATE,
        soak.GATE,
        drained.GATE,
    )
}
"""All gates by id, in the order they are shown."""

EVIDENCE = ("rehearsal", "statements", "laws", "probe")
"""Gates whose verdict is measured by `rehearse` or `verify` and read as evidence; the others are read as they stand."""


def guarding(act: Act) -> tuple[str, ...]:
    """Ids of the gates that stand before an act."""
    return tuple(gate.id for gate in GATES.values() if act in gate.guards)
