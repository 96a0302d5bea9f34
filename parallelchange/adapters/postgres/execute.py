"""Executing what a version sends, in order, in one transaction that is rolled back. Only ever on a scratch copy."""

from __future__ import annotations

from collections.abc import Sequence

from parallelchange.adapters.postgres.connection import Connection, connect
from parallelchange.adapters.postgres.replay import Replay
from parallelchange.adapters.postgres.sequences import kept_sequences
from parallelchange.corpus import Corpus
from parallelchange.gates.execute import Executed, Outcome
from parallelchange.model import Statement

__all__ = ["execute_all", "scratch_session"]


def scratch_session(url: str) -> Connection:
    """A session on a scratch copy as an app would have it: under row security, and with nothing prepared by us.

    Raises:
        Unavailable: The server does not answer.
    """
    connection = connect(url, row_security="on")
    connection.prepare_threshold = None
    return connection


def execute_all(
    url: str,
    application_name: str | None,
    corpus: Corpus,
    *,
    role: str | None = None,
    before: Sequence[Executed] | None = None,
    after: Sequence[Statement] = (),
) -> tuple[Executed, ...]:
    """Run every statement as it was sent, in the order and the transactions it was sent in.

    Args:
        url: The scratch copy. It is left as it was, its sequences too.
        application_name: What the version's sessions call themselves: triggers tell it by that.
        corpus: What the version sends.
        role: The role of its sessions; None for the one we are.
        before: The same in the state before: a COPY is given the very data that it was given then.
        after: DDL to run first, in the same transaction.

    Raises:
        Unavailable: The copy does not answer, or does not let us act as the role.
    """
    outcomes: dict[str, list[Outcome]] = {statement.id: [] for statement in corpus.statements}
    sent = {item.id: [o.sent for o in item.outcomes] for item in before or () if any(o.sent for o in item.outcomes)}
    with scratch_session(url) as connection, kept_sequences(connection):
        connection.execute("BEGIN")
        try:
            for statement in after:
                connection.execute(statement.sql.encode())
            replay = Replay(connection, corpus, application_name, role, sent)
            for unit in corpus.units:
                for step, outcome in zip(unit.steps, replay.unit(unit), strict=True):
                    outcomes[step.statement].append(outcome)
        finally:
            if not connection.closed:
                connection.execute("ROLLBACK")
                connection.execute("SELECT pg_advisory_unlock_all()")
    return tuple(Executed(s.id, s.sql, s.where, tuple(outcomes[s.id])) for s in corpus.statements)
