"""Executing recorded statements, each in a transaction that is rolled back. Only ever on a scratch copy."""

from __future__ import annotations

import re

from psycopg.pq import DiagnosticField, ExecStatus

from parallelchange.adapters.postgres.connection import Connection, connect
from parallelchange.corpus import Corpus, Recorded, Step
from parallelchange.gates.execute import Executed, Outcome

__all__ = ["execute_all"]

_WRITES = ("INSERT", "UPDATE", "DELETE", "MERGE")
_WRITES_INSIDE = re.compile(
    r"\s*with\b.*\b(insert\s+into|update\s|delete\s+from|merge\s+into)", re.IGNORECASE | re.DOTALL
)
_WRITTEN = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::int FROM pg_stat_xact_user_tables"
_FINE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.EMPTY_QUERY)


def execute_all(url: str, application_name: str | None, corpus: Corpus) -> tuple[Executed, ...]:
    """Run every statement as it was sent.

    Args:
        url: The scratch copy.
        application_name: What the version's sessions call themselves: triggers tell it by that.
        corpus: What the version sends.
    """
    outcomes: dict[str, list[Outcome]] = {statement.id: [] for statement in corpus.statements}
    with connect(url) as connection:
        if application_name:
            connection.execute("SELECT set_config('application_name', %s, false)", (application_name,))
        for step in corpus.steps():
            outcomes[step.statement].append(_execute(connection, corpus.by_id[step.statement], step))
    return tuple(Executed(s.id, s.sql, s.where, tuple(outcomes[s.id])) for s in corpus.statements)


def _execute(connection: Connection, statement: Recorded, step: Step) -> Outcome:
    pg = connection.pgconn
    connection.execute("BEGIN")
    try:
        oids = [_oid(connection, type_) for type_ in statement.types]
        given = [None if value is None else value.encode() for value in step.parameters(statement)]
        result = pg.exec_params(statement.text(step).encode(), given, oids or None)
        command = (result.command_status or b"").decode().split()
        idle = bool(command) and command[0] in _WRITES and command[-1] == "0"
        if result.status in _FINE and _WRITES_INSIDE.match(statement.sql):
            # Such a statement is answered as the SELECT at its end; the rows it wrote are told elsewhere.
            idle = connection.execute(_WRITTEN).fetchone() == (0,)
        if result.status in _FINE:
            # Deferred constraints would else speak up only at a commit that never comes.
            result = pg.exec_(b"SET CONSTRAINTS ALL IMMEDIATE")
        if result.status in _FINE:
            return Outcome(idle=idle)
        error = result.error_message.decode(errors="replace").strip().splitlines()[0]
        state = result.error_field(DiagnosticField.SQLSTATE) or b""
        return Outcome(error.removeprefix("ERROR:").strip(), state.decode())
    finally:
        connection.execute("ROLLBACK")


def _oid(connection: Connection, type_: str) -> int:
    row = connection.execute("SELECT to_regtype(%s)::oid::int8", (type_,)).fetchone()
    return int(row[0]) if row and row[0] else 0
