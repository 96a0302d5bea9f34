"""The gates, one file each."""

from parallelchange.gates import (
    backfill,
    copies,
    drained,
    execute,
    laws,
    metrics,
    plan,
    prepare,
    probe,
    rehearsal,
    roundtrip,
    routing,
    schema,
    shape,
    soak,
    versions,
)
from parallelchange.gates.base import Act, Gate

__all__ = ["EVIDENCE", "GATES", "LIVE", "ON_COPY", "Act", "Gate", "guarding"]

GATES: dict[str, Gate] = {
    gate.id: gate
    for gate in (
        schema.GATE,
        rehearsal.GATE,
        prepare.GATE,
        shape.GATE,
        plan.GATE,
        execute.GATE,
        roundtrip.GATE,
        laws.GATE,
        backfill.GATE,
        versions.GATE,
        copies.GATE,
        routing.GATE,
        probe.GATE,
        metrics.GATE,
        soak.GATE,
        drained.GATE,
    )
}
"""All gates by id, in the order they are shown."""

ON_COPY = ("rehearsal", "prepare", "shape", "plan", "execute", "roundtrip")
"""Gates whose verdict `rehearse` measures on a scratch copy, for every state the change goes through."""

LIVE = ("prepare", "shape", "plan", "laws", "probe")
"""Gates whose verdict `verify` measures on the live database, in the state it is in; nothing is executed there."""

EVIDENCE = tuple(gate for gate in GATES if gate in {*ON_COPY, *LIVE})
"""Gates whose verdict is read as recorded evidence; the others are read as they stand."""


def guarding(act: Act) -> tuple[str, ...]:
    """Ids of the gates that stand before an act."""
    return tuple(gate.id for gate in GATES.values() if act in gate.guards)
